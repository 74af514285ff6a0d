# The two commands: `make demo` and `make test`. Each makes what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
PORT ?= 8050
JOBS ?= 2
WORKERS ?= 1

.PHONY: demo test test-all lint types unit soak assets assets-check assets-test browser redis nginx node format bench bench-browser clean

# `make demo WORKERS=4`: with several processes, and a Redis for them unless DASH_QUART_WS_BROKER names one.
demo: $(VENV)/.demo $(if $(filter-out 1,$(WORKERS)),$(if $(DASH_QUART_WS_BROKER),,redis))
	$(BIN)/python quart_app.py --port $(PORT) --workers $(WORKERS)

test: lint types assets-check unit

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	$(BIN)/mypy

unit: $(VENV)/.test browser redis nginx
	$(BIN)/pytest -n $(JOBS) --dist loadfile

# The tests with every Python and Dash that is promised: `make test-all`; a part of them: `make test-all TESTS=tests/test_drift.py`.
test-all: browser redis nginx
	.ci/test-all $(TESTS)

# The load that `make test` puts on a server for a minute, for longer: `make soak SECONDS=600`; `SEED=…` repeats one.
soak: $(VENV)/.test
	SOAK_SECONDS=$(or $(SECONDS),300) SOAK_SEED=$(SEED) $(BIN)/pytest -s tests/soak

# What browsers get is built from assets/src and committed: who installs the package, or runs the demo, needs no Node.
STATIC := dash_quart_ws/browser/static

assets: node_modules/.made
	npm run --silent types
	npm run --silent build $(STATIC)

assets-check: node_modules/.made assets-test
	npm run --silent types
	@rm -rf build/static && mkdir -p build/static
	npm run --silent build build/static
	@diff -rq build/static $(STATIC) || { echo "$(STATIC) is not what assets/src builds: run make assets and commit it" >&2; exit 1; }

assets-test: node_modules/.made
	npm run --silent test

node_modules/.made: package.json package-lock.json .npmrc | node
	npm ci --loglevel=error
	@touch $@

node:
	@command -v node >/dev/null && command -v npm >/dev/null || .ci/debian-packages nodejs npm

# The tests fail, loudly, without a browser.
browser:
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || .ci/debian-packages chromium chromium-driver

# The tests start and stop servers of their own.
redis:
	@command -v redis-server >/dev/null && command -v openssl >/dev/null || .ci/debian-packages redis-server openssl

# In front of the tests' own servers, and to read the configurations that the guide shows.
nginx:
	@PATH="$$PATH:/usr/sbin" && { command -v nginx && command -v openssl; } >/dev/null || .ci/debian-packages nginx-light openssl

# This backend beside Dash's own, and with thousands of connections open; then two workers with a Redis between them.
bench: $(VENV)/.test redis
	$(BIN)/python benchmarks/side_by_side.py
	$(BIN)/python benchmarks/workers.py

# How long it takes until a real browser shows a logout, and live data after a restart.
bench-browser: $(VENV)/.test browser
	$(BIN)/python benchmarks/bridge_latency.py

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || .ci/debian-packages python3-venv
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: setup.cfg pyproject.toml | $(BIN)/pip
	$(PIP) --editable '.[redis]'
	@touch $@

$(VENV)/.test: setup.cfg pyproject.toml | $(BIN)/pip
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) $(VENV)-* node_modules build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
