# One command each; `make help` lists them. Everything lives in .venv; nothing here needs root but `peers`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# the Python that makes .venv (3.11 or newer, with its venv module)
PYTHON ?= python3
# package indexes for pip; empty means pip's own configuration. On Linux the default build of torch brings
# CUDA (several GB); name the index of torch's CPU wheels in EXTRA_INDEX_URL for the small one.
INDEX_URL ?=
EXTRA_INDEX_URL ?=
# extras for `make install`: train, cpu, dev; several with commas
EXTRAS ?=
# KEEP=1 leaves the demo's archive and node running
KEEP ?=
# processes that `make test` shares the test files out to
TEST_WORKERS ?= 2
# PEERS=no keeps `make test` from installing Debian packages
PEERS ?= yes

BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	$(if $(INDEX_URL),--index-url $(INDEX_URL)) $(if $(EXTRA_INDEX_URL),--extra-index-url $(EXTRA_INDEX_URL))
PYTEST := $(BIN)/python -m pytest -p no:cacheprovider

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: .venv/.base ## Six studies through a small PACS and the node, on this machine; KEEP=1 leaves them running
	@$(BIN)/crlm-node demo $(if $(KEEP),--keep)

.PHONY: test
test: check ## All checks and tests; installs dcmtk, Orthanc, … where it may (PEERS=no: leaves them out)
	@$(if $(filter no,$(PEERS)),,.ci/peers)
	$(PYTEST) -n $(TEST_WORKERS) --dist loadfile

.PHONY: check
check: .venv/.dev ## Style, types, who may import whom, licences
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(PYTEST) -q tests/test_architecture.py tests/test_licences.py

.PHONY: bench
bench: .venv/.dev ## The measured figures: a table each, JSON in bench/results; fails where a goal was missed
	@mkdir -p bench/results; missed=; for file in bench/[a-z]*.py; do \
		name=$$(basename "$$file" .py); echo "== $$name"; \
		$(BIN)/python -m "bench.$$name" --json "bench/results/$$name.json" || missed="$$missed $$name"; \
	done; [ -z "$$missed" ] || { echo "missed:$$missed" >&2; exit 1; }

.PHONY: campaign
campaign: .venv/.base ## The demo bundles on 100 unseen phantoms a condition, with 95 % intervals (long)
	@$(BIN)/crlm-model campaign

.PHONY: install
install: .venv/.base ## Make .venv with the pinned dependencies; EXTRAS=cpu adds OpenVINO, EXTRAS=train training
	$(if $(EXTRAS),$(PIP_INSTALL) -e ".[$(EXTRAS)]")

.PHONY: peers
peers: ## Install the real peers that the tests speak to (Debian packages; root or passwordless sudo)
	@.ci/peers

.PHONY: docs
docs: .venv/.dev ## Check the documents: links, commands and configuration keys that they name
	$(PYTEST) -q tests/test_docs.py

.PHONY: lock
lock: ## Rewrite constraints.txt from a fresh environment with all extras
	@.ci/lock "$(PYTHON)"

.PHONY: clean
clean: ## Remove .venv and what tools left behind; spool and results stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist ./*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.base: pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3 …" >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null \
		|| { echo "$(PYTHON) has no venv module (Debian: the package python3-venv)" >&2; exit 1; }
	@[ -x $(BIN)/pip ] || "$(PYTHON)" -m venv --clear .venv
	@echo "installing the pinned dependencies into .venv (a few minutes the first time)"
	@$(PIP_INSTALL) -e .
	@touch $@

.venv/.dev: .venv/.base
	@echo "installing the development tools into .venv"
	@$(PIP_INSTALL) -e ".[dev,train,cpu]"
	@touch $@
