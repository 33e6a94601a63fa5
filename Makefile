# make demo        the paper's experiment on the built-in teacher and data, about three minutes on 2 cores
# make test        the tests, and how much of the code they reach; about five minutes on 2 cores
# make test-fast   the quick ones, between edits: about a minute on 2 cores
# make bench       accuracy of int8, and speed against other runtimes; ViT-B/32, about 20 minutes
# make check       format, lint, types, spelling, import contracts
# make docs        the site, in runs/site
# make docs-check  runs what README and docs print
# Only Python (3.10 or newer) with pip is needed. Where npm is there too, a JavaScript client is tested as well.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NODE_STAMP := tests/node/node_modules/.package-lock.json

.PHONY: setup demo test test-fast check node bench docs docs-check clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[compress,data,dev]'
	touch $(STAMP)

demo: setup
	$(BIN)/edgeclip reproduce --out runs/demo

test: setup
	@command -v npm >/dev/null && $(MAKE) --no-print-directory node || echo "no JavaScript client: its tests are skipped"
	$(BIN)/python -m pytest -n auto --cov --cov-report=term:skip-covered

test-fast: setup
	$(BIN)/python -m pytest -n auto -m "not slow"

node: $(NODE_STAMP)

$(NODE_STAMP): tests/node/package-lock.json
	cd tests/node && npm ci
	touch $@

bench: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/fidelity.py
	$(BIN)/python benchmarks/peers.py --out runs/peers.json
	$(BIN)/python benchmarks/report.py runs/peers.json

docs: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs runs/site

docs-check: setup
	$(BIN)/python docs/check.py

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) tests/node/node_modules
