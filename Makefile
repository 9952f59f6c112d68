# On a fresh machine: `make demo` installs and shows it live, `make test` installs and checks it all.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Many tests wait for other processes: two workers for each core.
JOBS ?= $(shell expr 2 \* $$(nproc))
INSTALLED := $(VENV)/.installed
NODE_PEERS := tests/support/node/node_modules/.installed
CODE := jetcamer tests benchmarks twisted setup.py

# The tests start some two hundred Pythons: each would compile the whole package anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test check lint types unit bench tools node-peers clean

demo: $(INSTALLED)
	@$(BIN)/jetcamer demo

test: tools $(INSTALLED) node-peers check

# What `make test` runs once everything is installed.
check: lint types unit

lint: $(INSTALLED)
	$(BIN)/ruff format --check --quiet $(CODE)
	$(BIN)/ruff check --quiet $(CODE)

types: $(INSTALLED)
	$(BIN)/mypy

unit: $(INSTALLED)
	$(BIN)/python -m twisted.trial --reporter=text -j$(JOBS) tests

bench: $(INSTALLED) node-peers
	$(BIN)/python benchmarks/protocol.py
	$(BIN)/python benchmarks/agent_footprint.py
	$(BIN)/python benchmarks/log_tail.py
	$(BIN)/python benchmarks/hub_ingest.py

# Programs the tests talk to. Where they are missing and we may install them, we do.
tools:
	@sh scripts/install-test-tools.sh

node-peers: $(NODE_PEERS)

$(NODE_PEERS): tests/support/node/package.json
	@if command -v npm >/dev/null; then \
	  cd tests/support/node && npm ci --silent && touch node_modules/.installed; \
	else echo "npm is not installed: the tests against Node peers will be skipped"; fi

$(INSTALLED): setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools wheel
	$(BIN)/python -m pip install --quiet --editable '.[dev,hub,s3]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .hypothesis _trial_temp* \
	  tests/support/node/node_modules
