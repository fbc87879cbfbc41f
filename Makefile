.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all chaos check format bench clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

help: ## the list of targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with everything pinned in constraints.txt

$(READY): pyproject.toml constraints.txt examples/registered_models/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Thaw needs Python 3.11 or later, this is " + sys.version.split()[0] + "; name another with make PYTHON=python3.12")'
	@echo "setting up $(VENV) (a few minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps -e examples/registered_models
	@touch $@

demo: $(READY) ## the whole service on this machine: five real jobs, their progress, a table of results
	@$(BIN)/python examples/demo.py

# Half of what the tests do is waiting. The tests of a file stay together and in order: they share its fixtures.
TESTERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(TESTERS) --dist loadfile --no-loadscope-reorder

test: $(READY) ## the test suite on a real Postgres and a real Redis
	@$(PYTEST) -m "not slow"

test-all: $(READY) ## make test and the slow tests in one run: the demo, every model, API fuzzing, the images
	@$(PYTEST)

JOBS ?= 12
FAULTS ?= 20
SEED ?= 1
chaos: $(READY) ## faults from a seed against a whole stack: make chaos JOBS=12 FAULTS=20 SEED=1
	@PYTHONPATH=.:tests:tests/chaos $(BIN)/python -m harness --jobs $(JOBS) --faults $(FAULTS) --seed $(SEED)

check: $(READY) ## format, lint, types, import contracts
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(READY) ## put the code into form
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

bench: $(READY) ## all benchmarks: a table each, JSON under benchmarks/results/
	@for script in benchmarks/[a-z]*.py; do $(BIN)/python $$script || exit 1; done

clean: ## remove the environment and what the demo left
	@rm -rf $(VENV) .thaw demo-result.json
