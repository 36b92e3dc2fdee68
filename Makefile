# `make up` runs the service, `make test` tests it. Both create .venv and install the dependencies if that has not been
# done, was interrupted or is out of date. `make help` lists the other targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# `make INSTALLER=pip …` does without uv, which is used where pip can get it.
INSTALLER ?= uv
INSTALL := $(BIN)/python .ci/install.py

# One stamp file per finished step; an interrupted step leaves none and is repeated.
MADE := $(VENV)/.made
RUN  := $(VENV)/.run
DEV  := $(VENV)/.dev

# Recreate a .venv whose Python is gone or that was moved here from elsewhere.
ifneq ($(shell [ "$$(cat $(MADE) 2>/dev/null)" = "$(CURDIR)" ] && $(BIN)/python -c 'print("works")' 2>/dev/null),works)
.PHONY: $(MADE)
endif

.PHONY: help up test lint audit bench docs picture matrix nightly charts isolation chaos schema dist lock clean
.DEFAULT_GOAL := help

help:  ## Show this list
	@sed -n 's/^\([a-z]*\):.*  ## /\1	/p' Makefile | expand -t 8

up: $(RUN)  ## Run API, ticker and worker on an embedded Postgres; Ctrl-C stops them
	@exec $(BIN)/routines up

# Two processes more than processors, at most six, each with its own Postgres. A process takes whole files, in the order
# set by tests/conftest.py, which starts the slow ones first.
test: $(DEV)  ## Run all tests against a real Postgres
	$(BIN)/pytest --numprocesses=auto --maxprocesses=6 --dist=loadgroup --no-loadscope-reorder --durations=25

# Tests whose results may depend on the version of Postgres. Schemathesis sends fewer requests there.
DATABASE_TESTS := tests/sql tests/ticker tests/concurrency tests/core/db tests/engine tests/api tests/security tests/cli \
                  tests/acceptance/test_schedule.py
POSTGRES := 15 16 17

matrix: $(DEV)  ## Run the tests that use a database on Postgres 15, 16 and 17; or POSTGRES=15 TESTS=tests/sql
	@for version in $(POSTGRES); do \
		bin=$$($(BIN)/python .ci/postgres.py $$version) || { echo "POSTGRES $$version SKIPPED: no binaries."; $(or $(MISSING),exit 1); }; \
		echo "Postgres $$version: $$bin"; \
		ROUTINES_POSTGRES_BIN=$$bin ROUTINES_TEST_CASES=600 $(BIN)/pytest --numprocesses=auto --maxprocesses=6 --dist=loadgroup \
			--no-loadscope-reorder $(or $(TESTS),$(DATABASE_TESTS)) || failed=1; \
	done; exit $${failed:-0}

lint: $(DEV)  ## Check format, lint rules, types, layering and security (bandit)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml src

audit: $(DEV)  ## Look for known vulnerabilities in the pinned packages; says so if no service answers
	@$(INSTALL) audit $(INSTALLER)
	$(BIN)/python .ci/audit.py

bench: $(DEV)  ## Run the benchmarks; each prints its result and a control measured in the same run
	$(BIN)/python bench/fire_rate.py
	$(BIN)/python bench/cadences.py
	$(BIN)/python bench/start_delay.py
	$(BIN)/python bench/fairness.py
	$(BIN)/python bench/idle.py
	$(BIN)/python bench/runs.py
	$(BIN)/python bench/api.py
	$(BIN)/python bench/webhooks.py
	$(BIN)/python bench/planning.py
	$(BIN)/python bench/report.py --routines 1000
	$(BIN)/python bench/changes.py
	$(BIN)/python bench/alerts.py
	PYTHONPATH=tests $(BIN)/python bench/console.py

docs: $(DEV)  ## Regenerate the pages that are written from the code
	$(BIN)/python docs/generators/activities.py
	cp docs/run/prometheus/routines.rules.yml deploy/helm/routines/files/

picture: $(DEV)  ## Take the picture of the console anew; needs Chromium
	PYTHONPATH=tests $(BIN)/python docs/generators/console.py

nightly: matrix  ## Other versions of Postgres, hostile settings, Firefox, ten times as many schemathesis requests, 200,000 cron cases
	ROUTINES_TEST_HOSTILE=1 $(BIN)/pytest --numprocesses=auto --maxprocesses=6 --dist=loadgroup \
		tests/sql tests/ticker tests/engine tests/api
	ROUTINES_TEST_FIREFOX=1 $(BIN)/pytest tests/browser -k firefox
	ROUTINES_TEST_CASES=20000 $(BIN)/pytest tests/api/test_schemathesis.py
	ROUTINES_TEST_CRON_CASES=200000 $(BIN)/pytest --numprocesses=auto tests/sql/test_cron.py

charts: $(DEV)  ## Render the Helm chart with Helm, and check what it makes against Kubernetes' schemas
	@$(INSTALL) dev,charts $(INSTALLER)
	ROUTINES_TEST_CHARTS=required $(BIN)/pytest tests/packaging/test_helm.py

isolation: $(DEV)  ## Run every attack of one tenant on another; needs a quiet machine
	ROUTINES_ISOLATION=all $(BIN)/pytest tests/isolation

chaos: $(DEV)  ## Inject faults for MINUTES (3), with ATTACKS=1 under attack, with POOLER=1 through PgBouncer, with ENGINE=temporal on Temporal, then check that the tests catch every mutant
	PYTHONPATH=tests $(BIN)/python -m chaos.driver --minutes $(or $(MINUTES),3) $(if $(ATTACKS),--attacks) $(if $(POOLER),--pooler) $(if $(ENGINE),--engine $(ENGINE))
	ROUTINES_CHAOS_MUTANTS=all $(BIN)/pytest tests/chaos --deselect tests/chaos/test_chaos.py

# Only while the first migration is the only one. After that a change edits its chapter and adds a migration of its own.
schema:  ## Join sql/schema/*.sql into the first migration
	@[ "$$(echo sql/migrations/*.sql)" = sql/migrations/20261129T090000_schema.sql ] || { echo "The schema has later migrations: add one more instead." >&2; exit 1; }
	@awk 'FNR == 1 { printf "%s-- == %s\n\n", NR == 1 ? "" : "\n", FILENAME } { print }' sql/schema/*.sql > sql/migrations/20261129T090000_schema.sql

# Both files come out the same, byte by byte, wherever and whenever the same sources are built; SOURCE_DATE_EPOCH, if set,
# is the time in them.
dist: $(DEV)  ## Build the sdist and the wheel in dist/, with their SHA-256
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	cd dist && sha256sum *.tar.gz *.whl > SHA256SUMS

# Names, versions and hashes only, for all platforms. Run it after a change of the dependencies or of constraints.txt.
EXTRAS := embedded llm otel s3 temporal
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade --constraint constraints.txt
lock: $(DEV)  ## Write locks/: what is installed, by extra, with the hashes of all files
	$(BIN)/$(LOCK) --output-file locks/requirements.lock pyproject.toml
	for extra in $(EXTRAS); do $(BIN)/$(LOCK) --extra $$extra --output-file locks/$$extra.lock pyproject.toml || exit 1; done
	echo 'hatchling' | $(BIN)/$(LOCK) --output-file locks/build.lock -

clean:  ## Remove .venv; keeps the data in .routines
	rm -rf $(VENV)

$(RUN): pyproject.toml constraints.txt $(MADE)
	@$(INSTALL) embedded $(INSTALLER)
	@touch $@

$(DEV): pyproject.toml constraints.txt $(MADE)
	@$(INSTALL) dev $(INSTALLER)
	@touch $(RUN) $@

$(MADE):
	@command -v $(PYTHON) >/dev/null || { echo "Routines needs Python 3.11 or newer, but $(PYTHON) was not found: run make PYTHON=/path/to/python3 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Routines needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": run make PYTHON=/path/to/python3.11 ...")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "This Python lacks venv or ensurepip: install your system's package (Debian: python3-venv), or run make PYTHON=/path/to/python3 ..." >&2; exit 1; }
	@rm -rf $(VENV)
	@echo "==> 1/3 Creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@echo "$(CURDIR)" > $@
