# make demo        the paper's experiment on the built-in teacher and data, about three minutes on 2 cores
# make test        the tests, and how much of the code they reach; about five minutes on 2 cores
# make test-fast   the quick ones, between edits: about a minute on 2 cores
# make test-lowest the base package's quick tests and its hostile pictures, on the lowest versions that it allows
# make hostile     what was made to do harm: pictures, bundles, checkpoints, rows, kills; a night
# make bench       accuracy of int8, and speed against other runtimes; ViT-B/32, about 20 minutes
# make check       format, lint, types, spelling, import contracts
# make docs        the site, in runs/site
# make docs-check  runs what README and docs print
# Only Python (3.11 or newer) with pip is needed. Where npm is there too, a JavaScript client is tested as well.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NODE_STAMP := tests/node/node_modules/.package-lock.json

LOWEST := .venv-lowest
LOWEST_STAMP := $(LOWEST)/.installed
LOWEST_TESTS := tests/image/test_apart.py tests/image/test_extras.py tests/image/test_metadata.py \
	tests/image/test_hostile_images.py \
	tests/bulk tests/test_cpu.py tests/test_errors.py tests/test_files.py tests/test_imports.py \
	tests/test_progress.py tests/test_settings.py tests/runtime/test_hostile_graphs.py

.PHONY: setup demo test test-fast test-lowest hostile check node bench docs docs-check clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[compress,data,heic,raw,mcp,openvino,scale,dev]'
	touch $(STAMP)

demo: setup
	$(BIN)/edgeclip reproduce --out runs/demo

test: setup
	@command -v npm >/dev/null && $(MAKE) --no-print-directory node || echo "no JavaScript client: its tests are skipped"
	$(BIN)/python -m pytest -n auto --cov --cov-report=term:skip-covered

test-fast: setup
	$(BIN)/python -m pytest -n auto -m "not slow"

test-lowest: $(LOWEST_STAMP)
	$(LOWEST)/bin/python -m pytest --noconftest $(LOWEST_TESTS)

$(LOWEST_STAMP): pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --upgrade pip
	$(LOWEST)/bin/python -m pip install --quiet --constraint constraints-lowest.txt --editable '.[serve,heic,raw,scale]' pytest hypothesis onnx
	touch $@

hostile: setup
	$(BIN)/python -m tests.hostile --images 20000 --bundles 2000 --checkpoints 1000 --rows 2000 --indexes 2000 $(foreach command,embed index export train distill reproduce,--kills-of-$(command) 100)

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
	rm -rf $(VENV) $(LOWEST) tests/node/node_modules
