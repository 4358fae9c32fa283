# make demo | test | lint | docs | tables | bench: each makes .venv when it is missing or older than what it is installed from.
# `make demo` installs what the demo needs; the others everything, which the demo is content with.

PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/installed
DEMO_STAMP := $(VENV)/installed-demo
DEMO ?=

unexport PYTHONDONTWRITEBYTECODE  # many containers set it, and each process then compiles its modules anew

.PHONY: demo test lint format docs tables bench clean

demo: $(DEMO_STAMP)
	$(VENV)/bin/foreword demo $(DEMO)

test: $(STAMP)
	$(VENV)/bin/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

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

bench: $(STAMP)
	$(VENV)/bin/python benchmarks/speed.py --output build/speed.json

# Into .venv: the extra $(1), which takes $(2) on the disk with torch for the processor alone.
define install
@$(PYTHON) -c 'import sys; sys.exit(f"Foreword needs Python 3.11 or later, this is {sys.version.split()[0]}; try: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
@echo "installing into $(VENV): $(2), some minutes the first time"
@echo "(torch from PyPI on Linux brings CUDA: 4.5 GB more; without: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make $(MAKECMDGOALS))"
$(PYTHON) -m venv $(VENV)
$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(1)]'
endef

$(DEMO_STAMP): pyproject.toml constraints.txt
	$(call install,demo,1.8 GB)
	@touch $(DEMO_STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(call install,dev,3.5 GB)
	@touch $(DEMO_STAMP) $(STAMP)

clean:
	rm -rf $(VENV) build dist .cache src/*.egg-info .mypy_cache .ruff_cache .pytest_cache
