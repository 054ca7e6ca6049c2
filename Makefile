# Every target sets up what it needs; `make demo` and `make test` work on a machine with only make and python3 >= 3.11.
#   make PYTHON=python3.12 VENV=.venv312 test    another interpreter
#   make PYTEST_ARGS="-m 'not slow'" test        other options for pytest

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/installed.stamp
DOCSTAMP := $(VENV)/installed-docs.stamp
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test lint format docs wheel clean
.DEFAULT_GOAL := help

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

# torch goes first and alone, so that its pin decides which build is taken before any other package asks for "torch".
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than Python 3.11; name a newer one: make PYTHON=python3.12 ..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the pinned versions into $(VENV): some minutes, once"
	$(BIN)/python -m pip install -qq --upgrade pip
	$(BIN)/python -m pip install -qq --constraint constraints.txt torch
	$(BIN)/python -m pip install -qq --constraint constraints.txt --editable ".[test]"
	@touch $@

$(DOCSTAMP): $(STAMP)
	$(BIN)/python -m pip install -qq --constraint constraints.txt --editable ".[doc]"
	@touch $@

demo: $(STAMP)  ## embed real cells with the bundled weights, compare with TF-IDF + LSI, draw a UMAP
	$(BIN)/python scripts/demo.py

# A process per core, each with one thread: threads of several processes would only wait for each other.
test: $(STAMP)  ## all tests
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 $(PYTEST_ARGS)

lint: $(STAMP)  ## code style, types, layers of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)  ## rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(DOCSTAMP)  ## build the documentation into docs/_build/html
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

wheel:  ## build the wheel into dist/
	$(PYTHON) -m pip wheel --no-deps --wheel-dir dist .

clean:  ## remove the environment and what was built
	rm -rf $(VENV) dist docs/_build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
