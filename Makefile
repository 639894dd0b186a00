# The two commands are `make demo` and `make test`; each sets up .venv by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo test lint types imports tests docs format bench bench-codecs bench-peers clean

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
	$(BIN)/pytest --numprocesses auto --dist loadfile

docs: setup
	$(BIN)/mkdocs build --strict --quiet

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Two hours on a quiet machine, and 6 GB in the folder for temporary files; results go to benchmarks/*/results. DATA is
# any data file. Peers that cannot be installed are named in the tables, and hinder nothing.
DATA ?= ../shared/data/femnist_digits.npz
bench: setup bench-codecs bench-peers
	$(BIN)/python -m benchmarks.engines.round_time --rounds 20 --data $(DATA)
	$(BIN)/python -m benchmarks.engines.startup --data $(DATA)
	$(BIN)/python -m benchmarks.engines.steps
	$(BIN)/python -m benchmarks.engines.divided --data $(DATA)
	$(BIN)/python -m benchmarks.engines.cohorts --data $(DATA) --clients 25000 --examples 400 --compressions balanced
	$(BIN)/python -m benchmarks.engines.cluster --data $(DATA)
	$(BIN)/python -m benchmarks.tutorial.accuracy --data $(DATA)

bench-codecs: setup
	$(BIN)/python -m benchmarks.codecs.peers setup
	$(BIN)/python -m benchmarks.codecs.training --data $(DATA)
	$(BIN)/python -m benchmarks.codecs.rate_distortion --data $(DATA)
	$(BIN)/python -m benchmarks.codecs.coders --data $(DATA)
	$(BIN)/python -m benchmarks.codecs.speed --data $(DATA)
	$(BIN)/python -m benchmarks.codecs.primitives
	$(BIN)/python -m benchmarks.codecs.claims --data $(DATA)

# Rounds of other frameworks need Python 3.9 (TFF) and 3.10 (FedJAX) besides, and 5 GB.
bench-peers: setup
	$(BIN)/python -m benchmarks.peers.setup
	$(BIN)/python -m benchmarks.peers.run --data $(DATA)

clean:
	rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
