# For a clone. Users of the package need none of this: pip install emcube[all]
#
#   make demo    simulate, ingest and unmix the SRM 2135c tilt series; pictures under demo/
#   make test    make check, then every test, in two processes (JOBS=0: in one)
#   make check   format, lint, types, import contracts, documentation
#   make docs    the documentation as web pages; prints where they are
#   make notebooks   run the notebooks and rewrite their outputs; look at the pictures then
#   make bench   side by side with other tools on small scenes, in minutes; figures under .bench/
#   make bench-full   the same at full size: benchmarks/results/ and the README's table
#
# Each target builds .venv first where that is missing or older than pyproject.toml; nothing but
# python3 (3.11 or newer, with venv), make and git is needed. Another interpreter: make PYTHON=python3.12 test

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= 2
SPHINX := $(BIN)/sphinx-build --conf-dir docs --doctree-dir build/doctrees --jobs $(JOBS) --quiet

.DEFAULT_GOAL := help
.PHONY: help demo test check docs notebooks bench bench-full

help:
	@sed -n 's/^#   //p' Makefile

$(STAMP): pyproject.toml tests/environments.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "emcube needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[all,test,dev,docs]'
	@$(BIN)/python -m tests.environments
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/emcube demo $(DEMO)

test: check
	$(BIN)/python -m pytest -n $(JOBS) $(PYTEST)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(SPHINX) --fresh-env --fail-on-warning --keep-going . build/docs

docs: $(STAMP)
	$(SPHINX) . build/docs
	@echo "file://$(CURDIR)/build/docs/index.html"

notebooks: $(STAMP)
	$(BIN)/python -m tests.notebooks $(NOTEBOOKS)

bench: $(STAMP)
	$(BIN)/python -m benchmarks $(BENCH)

bench-full: $(STAMP)
	$(BIN)/python -m benchmarks --full --write README.md docs/comparison.md $(BENCH)
