# The two commands are `make demo` and `make test`; each sets up .venv by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo test lint types imports tests docs format bench clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Laconic needs Python 3.11 or newer; run: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/laconic demo

test: lint types imports tests docs

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports

# Documentation blocks and examples run among the tests.
tests: setup
	$(BIN)/pytest

docs: setup
	$(BIN)/mkdocs build --strict --quiet

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# A quarter of an hour on a quiet machine; results go to benchmarks/*/results. DATA is any data file.
DATA ?= ../shared/data/femnist_digits.npz
bench: setup
	$(BIN)/python -m benchmarks.engines.round_time --data $(DATA)
	$(BIN)/python -m benchmarks.codecs.primitives
	$(BIN)/python -m benchmarks.tutorial.accuracy --data $(DATA)

clean:
	rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
