# Two commands do everything: `make up` and `make test`. Each makes .venv and installs by itself when it is missing,
# half made or stale. `make help` lists the rest.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# The stamps stand for what is finished: an interrupted step has none, and is done again.
MADE := $(VENV)/.made
RUN  := $(VENV)/.run
DEV  := $(VENV)/.dev

# A .venv whose Python is gone, or that was moved here from elsewhere, is made anew.
ifneq ($(shell [ "$$(cat $(MADE) 2>/dev/null)" = "$(CURDIR)" ] && $(BIN)/python -c 'print("works")' 2>/dev/null),works)
.PHONY: $(MADE)
endif

.PHONY: help up test lint audit bench nightly chaos schema clean
.DEFAULT_GOAL := help

help:  ## This list
	@sed -n 's/^\([a-z]*\):.*  ## /\1	/p' Makefile | expand -t 8

up: $(RUN)  ## API, ticker and worker on an embedded Postgres; Ctrl-C stops them
	@exec $(BIN)/routines up

# File by file over two processes more than there are processors, each with a Postgres of its own; in the order that
# tests/conftest.py says, so that what waits for long begins early.
test: $(DEV)  ## All tests, against a real Postgres
	$(BIN)/pytest --numprocesses=auto --maxprocesses=6 --dist=loadfile --no-loadscope-reorder

lint: $(DEV)  ## Format, rules, types, layers and what bandit finds
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml src

audit: $(DEV)  ## Known vulnerabilities of what is pinned; says so where the service cannot be asked
	$(PIP) --editable '.[audit]'
	$(BIN)/python .ci/audit.py

bench: $(DEV)  ## Each benchmark prints its figure and the control measured in the same run
	$(BIN)/python bench/fire_rate.py
	$(BIN)/python bench/start_delay.py
	$(BIN)/python bench/fairness.py
	$(BIN)/python bench/idle.py
	$(BIN)/python bench/runs.py
	$(BIN)/python bench/api.py
	$(BIN)/python bench/webhooks.py

nightly: $(DEV)  ## Ten times as many requests by schemathesis as `make test` makes
	ROUTINES_TEST_CASES=20000 $(BIN)/pytest tests/api/test_schemathesis.py

chaos: $(DEV)  ## Faults for MINUTES (3), then every mutant of the product must be caught
	PYTHONPATH=tests $(BIN)/python -m chaos.driver --minutes $(or $(MINUTES),3)
	ROUTINES_CHAOS_MUTANTS=all $(BIN)/pytest tests/chaos --deselect tests/chaos/test_chaos.py

# Only while the first migration is the only one. After that a change edits its chapter and adds a migration of its own.
schema:  ## Join sql/schema/*.sql into the first migration
	@[ "$$(echo sql/migrations/*.sql)" = sql/migrations/20261129T090000_schema.sql ] || { echo "The schema has later migrations: add one more instead." >&2; exit 1; }
	@awk 'FNR == 1 { printf "%s-- == %s\n\n", NR == 1 ? "" : "\n", FILENAME } { print }' sql/schema/*.sql > sql/migrations/20261129T090000_schema.sql

clean:  ## Remove .venv; the data in .routines stays
	rm -rf $(VENV)

$(RUN): pyproject.toml constraints.txt $(MADE)
	$(PIP) --editable '.[embedded]'
	@touch $@

$(DEV): pyproject.toml constraints.txt $(MADE)
	$(PIP) --editable '.[dev]'
	@touch $(RUN) $@

$(MADE):
	@command -v $(PYTHON) >/dev/null || { echo "Routines needs Python 3.11 or newer, and there is no $(PYTHON): make PYTHON=/path/to/python3 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Routines needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": make PYTHON=/path/to/python3.11 ...")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "This Python has no venv or ensurepip: install your system's package for it (Debian: python3-venv), or make PYTHON=/path/to/python3 ..." >&2; exit 1; }
	@rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	@echo "$(CURDIR)" > $@
