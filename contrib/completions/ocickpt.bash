# bash completion for ocickpt: to /usr/share/bash-completion/completions/ocickpt, or source it.
eval "$(_OCICKPT_COMPLETE=bash_source ocickpt)"
