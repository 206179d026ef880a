# make check   format, lint, types, generated documentation
# make test    what CI runs: a representative of each kind; sets up what it needs, on a bare Debian as root with apt
# make test-fast   the tests that need no lab
# make e2e TEST=test_lazy   one file of tests/e2e, in a lab that stays up; ARGS are pytest's
# make test-long   every case and moment there is, with its seed; takes hours
# make test-hostile   of these every crafted checkpoint, with all that restores, runc and crun
# make test-options   of these seventy options of `podman run`, and what is refused before it runs, fifty times
# make test-vm   under AppArmor and SELinux, in virtual machines; takes up to 15 minutes, and as root apt
# make fuzz MINUTES=30   every parser, or those that ARGS names, with inputs that coverage leads to; `--seed N` in ARGS
# make demo    a container moves from one host of the lab to another, and counts on
# make bench   podman's own way against ours, in the lab
# make docs    write what is generated: command reference, manual page, completions
# make deb     the Debian package, in dist
# make dev     .venv with everything that development needs
# make clean   remove what the others made in this directory

VENV := .venv
BIN := $(VENV)/bin
LAB := contrib/lab/lab
SOURCES := ocickpt tests
MINUTES := 30
QUIETLY := -q --no-header --tb=short -p no:cacheprovider

.PHONY: check test test-fast e2e test-long test-hostile test-options test-vm fuzz demo bench docs dev deb clean

check: $(VENV)/ready
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy --no-error-summary --explicit-package-bases $(SOURCES)
	$(BIN)/python -m ocickpt.cli.reference --check

test: $(VENV)/ready
	@.ci/lanes

test-fast: $(VENV)/ready
	@$(BIN)/python -m pytest $(QUIETLY) --numprocesses 2 -m "not lab and not e2e" tests/unit tests/store tests/integration tests/fuzz

e2e: $(VENV)/ready
	@$(LAB) up
	@$(BIN)/python -m pytest $(QUIETLY) tests/e2e/$(TEST:.py=).py $(ARGS)

test-long: $(VENV)/ready
	@OCICKPT_LONG=1 .ci/lanes

test-hostile: $(VENV)/ready
	@$(LAB) up
	@OCICKPT_LONG=1 $(BIN)/python -m pytest $(QUIETLY) tests/e2e/test_crafted.py

test-options: $(VENV)/ready
	@$(LAB) up
	@OCICKPT_LONG=1 $(BIN)/python -m pytest $(QUIETLY) tests/e2e/test_options.py tests/e2e/test_gate.py

test-vm:
	@contrib/vm/vm test $(ARGS)

fuzz: $(VENV)/ready
	@$(LAB) up
	@.ci/fuzz --seconds "$$(($(MINUTES) * 60))" $(ARGS)

demo:
	@contrib/lab/demo

bench: $(VENV)/ready
	@contrib/bench/run

docs: $(VENV)/ready
	$(BIN)/python -m ocickpt.cli.reference

dev: $(VENV)/ready

$(VENV)/ready: pyproject.toml .ci/venv
	@.ci/venv $(VENV)
	@touch $@

deb:
	@contrib/deb/build dist

clean:
	rm -rf $(VENV) .lanes .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find ocickpt tests contrib -name __pycache__ -type d -prune -exec rm -rf {} +
