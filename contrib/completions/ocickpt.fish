# fish completion for ocickpt: to ~/.config/fish/completions/ocickpt.fish.
_OCICKPT_COMPLETE=fish_source ocickpt | source
