# make check   format, lint, types, generated documentation
# make test    every test; sets up what it needs, on a bare Debian as root with apt
# make test-hostile   every crafted checkpoint with everything that restores, runc and crun; takes 20 minutes
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

.PHONY: check test test-hostile demo bench docs dev deb clean

check: $(VENV)/ready
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy --no-error-summary --explicit-package-bases $(SOURCES)
	$(BIN)/python -m ocickpt.cli.reference --check

test: $(VENV)/ready
	@.ci/lanes

test-hostile: $(VENV)/ready
	@OCICKPT_HOSTILE=all $(BIN)/python -m pytest -q --no-header -p no:cacheprovider tests/e2e/test_crafted.py

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
