# make demo | test | lint | docs | tables: each makes .venv when it is missing or older than what it is installed from.

PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/installed
DEMO ?=

.PHONY: demo test lint format docs tables clean

demo: $(STAMP)
	$(VENV)/bin/foreword demo $(DEMO)

test: $(STAMP)
	$(VENV)/bin/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

lint: $(STAMP)
	$(VENV)/bin/ruff check src benchmarks tests
	$(VENV)/bin/ruff format --check src benchmarks tests
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest tests/test_imports.py

format: $(STAMP)
	$(VENV)/bin/ruff check --fix src benchmarks tests
	$(VENV)/bin/ruff format src benchmarks tests

docs: $(STAMP)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	mkdir -p build && $(VENV)/bin/python docs/commands.py > build/commands.md
	$(VENV)/bin/zensical build --strict

tables: $(STAMP)
	$(VENV)/bin/foreword benchmark --tables README.md docs/findings.md docs/performance.md

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(f"Foreword needs Python 3.11 or later, this is {sys.version.split()[0]}; try: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@echo "installing into $(VENV) (about 2 GB, a few minutes the first time)"
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

clean:
	rm -rf $(VENV) build dist .cache src/*.egg-info .mypy_cache .ruff_cache .pytest_cache
