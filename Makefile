# make demo    install, then adapt the bundled base to handwritten digits, offline
# make test    install with the test extras, then lint, types, layers and the whole suite
# make base    train the bundled base again (minutes)
# make bench   measure, and write benchmarks/RESULTS.md
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint base bench clean

demo: $(VENV)/.demo
	$(BIN)/python -m scripts.demo

test: $(VENV)/.test lint
	$(BIN)/python -m pytest --numprocesses auto

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

base: $(VENV)/.demo
	$(BIN)/python -m scripts.make_base

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks

$(VENV)/.demo: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "torchgraft needs Python 3.11 or newer: make demo PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@echo "installing PyTorch and the rest: several GB the first time, some minutes"
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[demo]'
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

$(VENV)/.bench: $(VENV)/.demo
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@

clean:
	rm -rf $(VENV) runs build dist
