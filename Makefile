# Build, run, test. `make help` lists the targets.
#
# Everything is set up on demand in $(VENV); stamps in it make the next run quick.
#   make PYTHON=python3.12 VENV=.venv-312 test     # another interpreter beside this one

PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip
# A wheel cache, an index or a proxy come from pip's own configuration.
PIP_FLAGS := -q --progress-bar off --disable-pip-version-check
JOBS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)

PYTEST := $(PY) -m pytest
PYTEST_ARGS ?=

CSRC := $(shell find csrc -name '*.cpp' -o -name '*.hpp' -o -name '*.h' 2>/dev/null)
# Folders too: their time changes when a file is removed.
CSRC_DIRS := $(shell find csrc -type d 2>/dev/null)
PY_PATHS := $(wildcard foundry_fastlog tests benchmarks .ci setup.py)

VENV_STAMP := $(VENV)/.stamp-venv
DEMO_STAMP := $(VENV)/.stamp-demo
DEV_STAMP := $(VENV)/.stamp-dev
BENCH_STAMP := $(VENV)/.stamp-bench
EXT_STAMP := $(VENV)/.stamp-ext

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Sub-builds run in parallel by themselves; two pips in one environment must not.
.NOTPARALLEL:
.DELETE_ON_ERROR:

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- set-up ------------------------------------------------------------------------

$(VENV_STAMP): .ci/bootstrap.sh
	@.ci/bootstrap.sh "$(PYTHON)" "$(VENV)"
	@$(PIP) install $(PIP_FLAGS) 'setuptools>=77' 'pybind11>=2.13,<4'
	@touch $@

$(DEMO_STAMP): $(VENV_STAMP) pyproject.toml .ci/install-torch.sh
	@.ci/install-torch.sh "$(VENV)"
	@echo "[set-up] building foundry_fastlog and installing what the demo needs"
	@$(PIP) install $(PIP_FLAGS) --no-build-isolation -e '.[demo]'
	@touch $@ $(EXT_STAMP)

$(DEV_STAMP): $(VENV_STAMP) pyproject.toml .ci/install-torch.sh
	@.ci/install-torch.sh "$(VENV)"
	@echo "[set-up] building foundry_fastlog and installing the development tools"
	@$(PIP) install $(PIP_FLAGS) --no-build-isolation -e '.[dev]'
	@touch $@ $(DEMO_STAMP) $(EXT_STAMP)

$(BENCH_STAMP): $(DEV_STAMP)
	@echo "[set-up] installing the peers that the benchmarks measure"
	@$(PIP) install $(PIP_FLAGS) --no-build-isolation -e '.[dev,bench]'
	@touch $@ $(EXT_STAMP)

# The extension: again when a source changed, or when the built file is gone.
ifeq ($(wildcard foundry_fastlog/_core.*.so),)
$(EXT_STAMP): rebuild-forced
.PHONY: rebuild-forced
rebuild-forced:
endif
$(EXT_STAMP): $(CSRC) $(CSRC_DIRS) setup.py pyproject.toml | $(VENV_STAMP)
	@if [ -n "$$(find $@ -newer setup.py -newer pyproject.toml 2>/dev/null)" ] && \
	    [ -z "$$(find csrc setup.py pyproject.toml -newer $@ -print -quit)" ] && \
	    compgen -G 'foundry_fastlog/_core.*.so' >/dev/null; then exit 0; fi; \
	echo "[build] foundry_fastlog._core"; \
	$(PIP) install $(PIP_FLAGS) --no-build-isolation --no-deps -e . && touch $@

.PHONY: venv
venv: $(DEV_STAMP) $(EXT_STAMP) ## Make .venv with the package (editable) and the development tools

.PHONY: build
build: venv ## Build the extension in place (FASTLOG_DEBUG=1 and others: see CONTRIBUTING.md)

# ---- run -----------------------------------------------------------------------------

DEMO_ARGS ?=
.PHONY: demo
demo: $(DEMO_STAMP) $(EXT_STAMP) ## Train a small GPT for about a minute, recording every step
	@$(VENV)/bin/foundry-fastlog demo $(DEMO_ARGS)

# ---- test ----------------------------------------------------------------------------

.PHONY: test
test: venv ## Run all tests: C++ (doctest) and Python (pytest)
	@$(MAKE) --no-print-directory cpp-test
	$(PYTEST) tests $(PYTEST_ARGS)

.PHONY: cpp-test
cpp-test: ## Run the C++ tests of csrc/core, plain build
	@$(MAKE) --no-print-directory -C tests/cpp -j$(JOBS) run VARIANT=plain

.PHONY: sanitize
sanitize: ## Run the C++ tests under ASan+UBSan, then under TSan
	@$(MAKE) --no-print-directory -C tests/cpp -j$(JOBS) run VARIANT=asan
	@$(MAKE) --no-print-directory -C tests/cpp -j$(JOBS) run VARIANT=tsan

.PHONY: coverage
coverage: venv ## Run the Python tests with coverage of the Python code
	$(PYTEST) tests --cov --cov-report=term-missing:skip-covered $(PYTEST_ARGS)

# ---- benchmarks ------------------------------------------------------------------------

.PHONY: gates
gates: venv ## Check the overhead gates: ratios measured in one run
	$(PYTEST) benchmarks/gates -q $(PYTEST_ARGS)

.PHONY: bench
bench: $(BENCH_STAMP) $(EXT_STAMP) ## Run the benchmarks against all peers (several minutes)
	$(PYTEST) benchmarks --ignore=benchmarks/gates $(PYTEST_ARGS)

# ---- style -----------------------------------------------------------------------------

CPP_STYLED = $(CSRC) $(wildcard tests/cpp/*.cpp tests/cpp/*.hpp)

.PHONY: lint
lint: venv ## Check format, lint and types (ruff, mypy --strict, clang-format)
	$(VENV)/bin/ruff format --check $(PY_PATHS)
	$(VENV)/bin/ruff check $(PY_PATHS)
	$(PY) -m mypy
	$(VENV)/bin/clang-format --dry-run -Werror $(CPP_STYLED)

.PHONY: format
format: venv ## Rewrite the sources in the project's format
	$(VENV)/bin/ruff format $(PY_PATHS)
	$(VENV)/bin/ruff check --fix $(PY_PATHS)
	$(VENV)/bin/clang-format -i $(CPP_STYLED)

# ---- packages ----------------------------------------------------------------------------

.PHONY: dist
dist: venv ## Build the source archive and a wheel into dist/
	@$(PIP) install $(PIP_FLAGS) build
	$(PY) -m build --no-isolation

.PHONY: clean
clean: ## Remove what was built; the virtual environment stays
	rm -rf build dist foundry_fastlog.egg-info foundry_fastlog/_core.*.so
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .coverage htmlcov
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
	rm -f $(EXT_STAMP)

.PHONY: distclean
distclean: clean ## Remove the virtual environment too
	rm -rf $(VENV)
