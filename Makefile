# Build, run, test. `make help` lists the targets.
#
# Everything is set up on demand in $(VENV); stamp files in it make later runs fast.
#   make PYTHON=python3.12 VENV=.venv-3.12 test     # a second interpreter alongside this one

PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
# pip's own configuration provides an index, a cache or a proxy.
PIP_INSTALL := $(PY) -m pip install -qq --progress-bar off --disable-pip-version-check
JOBS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
# One more than cores, because tests also wait: for disks, signals and other processes.
TEST_JOBS ?= $(shell expr $(JOBS) + 1)

PYTEST := $(PY) -m pytest
PYTEST_ARGS ?=
DEMO_ARGS ?=
SIM_ARGS ?= --seconds 60

PY_PATHS := $(wildcard foundry_fastlog tests benchmarks examples docs/*.py .ci setup.py)
CPP_PATHS = $(shell find csrc tests/cpp tests/crash tests/device tests/sim -path tests/cpp/third_party -prune -o \
  \( -name '*.cpp' -o -name '*.hpp' -o -path 'tests/device/*.[ch]' \) -print)

VENV_STAMP := $(VENV)/.stamp-venv
DEMO_STAMP := $(VENV)/.stamp-demo
TEST_STAMP := $(VENV)/.stamp-test
DEV_STAMP := $(VENV)/.stamp-dev
BENCH_STAMP := $(VENV)/.stamp-bench
DOCS_STAMP := $(VENV)/.stamp-docs
TRAINERS_STAMP := $(VENV)/.stamp-trainers

# Some images switch bytecode caches off: each interpreter that a test starts would compile anew.
unexport PYTHONDONTWRITEBYTECODE

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Sub-makes run in parallel on their own; two pips in one environment must not.
.NOTPARALLEL:

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# ---- set-up ------------------------------------------------------------------------------

$(VENV_STAMP): .ci/bootstrap.sh
	@.ci/bootstrap.sh "$(PYTHON)" "$(VENV)"
	@$(PIP_INSTALL) 'setuptools>=77' 'pybind11>=2.13,<4'
	@echo "$(PYTHON)" > $@

# If PYTHON is set by hand and differs from the last set-up, set up again.
ifneq ($(origin PYTHON),file)
ifneq ($(shell cat $(VENV_STAMP) 2>/dev/null),$(PYTHON))
.PHONY: $(VENV_STAMP)
endif
endif

$(DEMO_STAMP): $(VENV_STAMP) pyproject.toml .ci/install-torch.sh
	@.ci/install-torch.sh "$(VENV)"
	@.ci/install.sh "$(VENV)" demo
	@touch $@

$(TEST_STAMP): $(VENV_STAMP) pyproject.toml
	@.ci/install.sh "$(VENV)" test
	@touch $@

$(DEV_STAMP): $(VENV_STAMP) pyproject.toml .ci/install-torch.sh
	@.ci/install-torch.sh "$(VENV)"
	@.ci/install.sh "$(VENV)" dev
	@touch $@ $(DEMO_STAMP) $(TEST_STAMP)

$(BENCH_STAMP): $(DEV_STAMP)
	@.ci/install.sh "$(VENV)" dev,bench
	@touch $@

$(TRAINERS_STAMP): $(DEV_STAMP)
	@.ci/install.sh "$(VENV)" dev,integrations-test
	@touch $@

# The site is made of sources that are only read: the package need not be built.
$(DOCS_STAMP): $(VENV_STAMP) pyproject.toml
	@echo "[set-up] installing the extra docs"
	@sed -n '/^docs = \[/,/^\]/s/^ *"\([^"]*\)",.*/\1/p' pyproject.toml | $(PIP_INSTALL) -r /dev/stdin
	@touch $@

# Always runs; does nothing if the build is current.
.PHONY: extension
extension: $(VENV_STAMP)
	@.ci/install.sh "$(VENV)"

.PHONY: base-venv
base-venv: $(VENV_STAMP)

.PHONY: venv
venv: $(DEV_STAMP) extension ## Create .venv with the package (built, editable) and the development tools

# ---- run ---------------------------------------------------------------------------------

.PHONY: demo
demo: $(DEMO_STAMP) extension ## Train a small GPT for about a minute, recording every step
	@$(VENV)/bin/foundry-fastlog demo $(DEMO_ARGS)

# ---- test --------------------------------------------------------------------------------

# CI runs the C++ tests with both sanitizers, and not once more without.
.PHONY: test
test: venv $(if $(CI),,cpp-test) ## Run all tests: C++ (doctest), then Python (pytest), on all cores
	$(PYTEST) tests -n $(TEST_JOBS) --dist worksteal $(PYTEST_ARGS)

.PHONY: cpp-test
cpp-test: $(VENV_STAMP) ## Run the C++ tests of csrc/core, plain build
	@$(MAKE) --no-print-directory -C tests/cpp -j$(JOBS) run VARIANT=plain

.PHONY: sanitize
sanitize: $(VENV_STAMP) ## Run the C++ tests under ASan+UBSan, then under TSan
	@$(MAKE) --no-print-directory -C tests/cpp -j$(JOBS) run VARIANT=asan
	@$(MAKE) --no-print-directory -C tests/cpp -j$(JOBS) run VARIANT=tsan

.PHONY: sanitize-build
sanitize-build: $(VENV_STAMP) ## Build everything for `sanitize` and `sanitize-python`
	@$(MAKE) --no-print-directory -C tests/cpp -j$(JOBS) build VARIANT=asan
	@$(MAKE) --no-print-directory -C tests/cpp -j$(JOBS) build VARIANT=tsan
	.ci/sanitize-python.sh "$(VENV)" --build

# Excludes the leak tests: they measure resident memory, and the sanitizer keeps freed memory.
# Excludes the test that spawns: its child imports from the checkout and would find the plain extension.
ASAN_TESTS = $(filter-out %_leaks.py %_summary.py,$(wildcard tests/unit/test_recorder*.py)) \
  tests/unit/test_performance_logger.py tests/unit/test_describing.py tests/unit/test_metrics_logger.py \
  tests/world/test_world.py \
  --deselect tests/unit/test_performance_logger.py::test_the_resident_set_is_this_processes
.PHONY: sanitize-python
sanitize-python: venv ## Run the Python tests of the recorder with an ASan+UBSan extension
	.ci/sanitize-python.sh "$(VENV)" $(ASAN_TESTS) -q -n $(TEST_JOBS) --dist worksteal $(PYTEST_ARGS)

.PHONY: test-pythons
test-pythons: ## Build and test with every other supported Python found here, without torch
	@PYTEST_ARGS="$(PYTEST_ARGS)" .ci/test-pythons.sh "$(PYTHON)" $(PYTHONS)

.PHONY: test-unstable
test-unstable: ## The same with the newest Pythons from Debian unstable, in a chroot (root, mmdebstrap)
	@PYTEST_ARGS="$(PYTEST_ARGS)" .ci/unstable-pythons.sh

.PHONY: core-venv
core-venv: $(TEST_STAMP) extension

.PHONY: pythons
pythons: ## Make the environments of `test-pythons`
	@.ci/test-pythons.sh "$(PYTHON)" $(PYTHONS) --build

.PHONY: sim
sim: $(VENV_STAMP) ## Run simulated worlds: SIM_ARGS='--seed 1 --seconds 60', or '--script FILE --verbose'
	@$(MAKE) --no-print-directory -C tests/sim -j$(JOBS)
	build/core/plain/sim $(SIM_ARGS)

.PHONY: test-core
test-core: $(TEST_STAMP) extension ## Run the fast unit tests that do not need torch
	$(PYTEST) tests/unit --ignore-glob='*/test_demo*' -m 'not slow' -q -n $(TEST_JOBS) --dist worksteal $(PYTEST_ARGS)

# Also what `make test` skips where a trainer is missing; here a missing one fails.
.PHONY: test-integrations
test-integrations: $(TRAINERS_STAMP) extension ## Run the tests of trainers, drop-ins and examples with their libraries (2 GB; VENV=DIR keeps them apart)
	FASTLOG_ALL_LIBRARIES=1 $(PYTEST) tests/unit/test_trainer_*.py tests/unit/test_dropin_*.py tests/unit/test_examples.py \
	  tests/unit/test_importing.py tests/integration/test_dropins.py tests/integration/test_sync*.py tests/unit/test_docs.py \
	  tests/unit/test_jax_values.py tests/unit/test_telemetry.py \
	  -n $(TEST_JOBS) --dist worksteal $(PYTEST_ARGS)

.PHONY: coverage
coverage: venv ## Run the Python tests with coverage of the Python code
	$(PYTEST) tests --cov --cov-report=term-missing:skip-covered $(PYTEST_ARGS)

.PHONY: crash
crash: venv ## Run the release-sized crash tests and write their figures (three hours)
	@rm -rf build/crash/figures
	FASTLOG_CRASH=release $(PYTEST) tests/crash tests/faults tests/world tests/sim -q -o faulthandler_timeout=0 $(PYTEST_ARGS)
	$(PY) tests/crash/figures.py

.PHONY: gpu-test
gpu-test: venv ## Run the tests that need an NVIDIA GPU (a few minutes)
	$(PYTEST) tests -m gpu $(PYTEST_ARGS)

# Needs neither a network nor a virtual environment: PYTHON must have torch, pybind11, pytest and numpy;
# WHEELS=DIR provides orjson and pydantic if it lacks them. The figures go to OUT=DIR.
# Uses PYTHON from the command line or the environment, else the checkout's venv, else the system's.
GPU_PYTHON = $(if $(filter file,$(origin PYTHON)),$(or $(wildcard $(PY)),$(PYTHON)),$(PYTHON))
.PHONY: gpu-check
gpu-check: ## Check the device path on an NVIDIA GPU in 8 minutes; a rehearsal without a GPU
	@OUT="$(OUT)" WHEELS="$(WHEELS)" $(GPU_PYTHON) -m benchmarks.gpu.check

# ---- benchmarks --------------------------------------------------------------------------

.PHONY: gates
gates: venv ## Check the overhead gates: ratios measured within one run
	$(PYTEST) benchmarks/gates -q --timeout=900 -o faulthandler_timeout=0 $(PYTEST_ARGS)

.PHONY: bench
bench: $(BENCH_STAMP) extension ## Run the benchmarks against all peers (many minutes)
	$(PYTEST) benchmarks --ignore=benchmarks/gates $(PYTEST_ARGS)

.PHONY: gpu-bench
gpu-bench: $(BENCH_STAMP) extension ## Measure device scalars on an NVIDIA GPU (about 5 minutes)
	$(PY) -m benchmarks.gpu

# ---- style -------------------------------------------------------------------------------

.PHONY: lint
lint: venv ## Check formats, lint and types (ruff, mypy --strict, clang-format)
	$(VENV)/bin/ruff format --check $(PY_PATHS)
	$(VENV)/bin/ruff check $(PY_PATHS)
	$(PY) -m mypy
	@echo "$(VENV)/bin/clang-format --dry-run -Werror csrc tests/cpp"
	@$(VENV)/bin/clang-format --dry-run -Werror $(CPP_PATHS)

.PHONY: format
format: venv ## Rewrite the sources in the project's format
	$(VENV)/bin/ruff format $(PY_PATHS)
	$(VENV)/bin/ruff check --fix $(PY_PATHS)
	@$(VENV)/bin/clang-format -i $(CPP_PATHS)

# ---- documentation -----------------------------------------------------------------------

# Not --quiet: what it does not say, --strict does not count.
.PHONY: docs
docs: $(DOCS_STAMP) ## Build the documentation site into build/site; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

# ---- packages ----------------------------------------------------------------------------

.PHONY: dist
dist: venv ## Build the source archive and a wheel into dist/
	@$(PIP_INSTALL) build
	$(PY) -m build --no-isolation

.PHONY: clean
clean: ## Remove build output; keep virtual environments
	rm -rf build dist foundry_fastlog.egg-info foundry_fastlog/_core.*.so
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .coverage* htmlcov
	find foundry_fastlog tests benchmarks docs .ci -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## Also remove the virtual environments
	rm -rf .venv .venv-*
