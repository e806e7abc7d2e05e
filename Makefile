# `make run` serves the app, `make test` checks everything. Both make the environment first.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell command -v python3.11 || command -v python3)

.PHONY: run test lint lock clean

run: $(VENV)/.installed
	$(BIN)/python app.py

# Files of tests side by side, one process a core, four at most: each has a Hub of its own.
test: $(VENV)/.installed lint
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Morphing needs Python 3.11 or newer: make PYTHON=... names one." if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# Resolve the newest set that pyproject allows, and pin it.
lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet setuptools torch==2.13.0
	build/lock/bin/python -m pip install --quiet --editable '.[dev]'
	build/lock/bin/python -m pip freeze --all --exclude-editable --exclude pip \
		| sed 's/+cpu$$//' > requirements.lock
	rm -rf build/lock

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache
