# `make` alone lists the targets. A fresh clone needs only make and Python 3.11 or newer.

PYTHON ?= python3
VENV := .venv
BENCH := .venv-bench
# Some of the peers need Python 3.12. With an older one their rows say that they are not installed.
BENCH_PYTHON ?= $(shell for python in python3.13 python3.12 python3.14 $(wildcard $(HOME)/.pyenv/versions/3.1[2-4].*/bin/python) \
	$(PYTHON); do $$python -c "" 2>/dev/null && echo $$python && break; done)
BIN := $(VENV)/bin
MANAGE := $(BIN)/python example_project/manage.py
PYTEST := $(BIN)/python -m pytest
ON_POSTGRES := $(BIN)/python -m tests.with_postgres
ON_MARIADB := $(BIN)/python -m tests.with_mariadb
STORE_TESTS := tests/test_store.py tests/test_store_properties.py tests/test_workflows.py tests/test_workflows_edges.py \
	tests/test_workflows_locks.py
# Without DATABASE_URL every setting here means SQLite.
ON_SQLITE := env -u DATABASE_URL
HAS_PGBOUNCER := $(shell PATH="$$PATH:/usr/sbin:/usr/local/sbin" command -v pgbouncer)
CHROMIUM := $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)

.DEFAULT_GOAL := help
.PHONY: help demo demo-postgres serve test test-sqlite test-postgresql chaos test-browser test-mariadb matrix lint bench bench-scale bench-console clean
# A recipe that fails leaves no stamp behind.
.DELETE_ON_ERROR:

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.run ## read Python's library with a worker (SQLite, or DATABASE_URL=postgres://…)
	@$(MANAGE) demo

demo-postgres: $(VENV)/.postgres ## the same on a PostgreSQL that is started for it
	@env -u DATABASE_URL $(ON_POSTGRES) $(MANAGE) demo --no-user
	@echo
	@echo "That server and its data are gone now."

serve: $(VENV)/.run ## the example's admin on http://127.0.0.1:8000/ (or ADDRESS=127.0.0.1:8001), and a worker; Ctrl-C ends both
	@$(MANAGE) serve $(ADDRESS)

# With --jobs=2 both databases at once, and then the browser.
test: test-sqlite test-postgresql $(if $(MYSQL_URL),$(VENV)/.mysql) ## all tests, on SQLite and on a real PostgreSQL (DATABASE_URL's, or one started for it)
ifdef MYSQL_URL
	DATABASE_URL="$(MYSQL_URL)" $(PYTEST) $(STORE_TESTS)
else
	@echo "The store's tests on MySQL or MariaDB were LEFT OUT: MYSQL_URL names no server (see also make test-mariadb)."
endif
ifndef HAS_PGBOUNCER
	@echo "The tests behind PgBouncer were LEFT OUT: there is no pgbouncer here."
endif
ifdef CHROMIUM
	$(ON_POSTGRES) $(PYTEST) -m browser
else
	@echo "The tests in a browser were LEFT OUT: there is no chromium here."
endif

test-sqlite: $(VENV)/.dev
	$(ON_SQLITE) $(PYTEST) -m "not browser"

test-postgresql: $(VENV)/.dev
	$(ON_POSTGRES) $(PYTEST) -m "not browser"

# SEED=n repeats the order of the faults; DATABASE=sqlite and PGBOUNCER=1 change where they strike.
chaos: $(VENV)/.dev ## real workers under load while faults strike at random, and a verdict (SECONDS=120 SEED=n)
	@$(BIN)/python -m tests.chaos --seconds $(or $(SECONDS),120) --database $(or $(DATABASE),postgresql) \
		$(if $(SEED),--seed $(SEED)) $(if $(PGBOUNCER),--pgbouncer)

test-browser: $(VENV)/.dev ## the tests in a real browser, on a real PostgreSQL (needs chromium)
	$(ON_POSTGRES) $(PYTEST) -m browser

test-mariadb: $(VENV)/.mysql ## the store's tests on a MariaDB that is started for them (Debian: mariadb-server, libmariadb-dev)
	$(ON_MARIADB) $(PYTEST) $(STORE_TESTS)

matrix: ## all tests with each supported pair of Python and Django whose Python is found (REST=1: what `make test` left over; JOBS=2: two at once)
	$(PYTHON) tests/matrix.py $(if $(REST),--rest) --jobs $(or $(JOBS),1)

lint: $(VENV)/.dev ## ruff, mypy, the floors of docs/architecture.md, missing migrations
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(ON_SQLITE) $(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(ON_SQLITE) $(BIN)/python -m tests makemigrations --check --dry-run
	$(ON_SQLITE) $(MANAGE) makemigrations --check --dry-run

# ONLY=dbqueue,pgqueuer measures some; JOBS=10000 is quick and rough. What needs a newer Python or a Redis says so.
bench: $(BENCH)/.installed ## dbqueue beside its peers, one table (ROUNDS=3 JOBS=n ONLY=a,b; Debian: redis-server)
	@env -u DATABASE_URL $(BENCH)/bin/python -m tests.with_postgres $(BENCH)/bin/python -m benchmarks.peers \
		--rounds $(or $(ROUNDS),3) $(if $(JOBS),--jobs $(JOBS)) $(if $(ONLY),--only $(ONLY))

bench-scale: $(VENV)/.postgres ## how long a claim takes as the tables grow to millions of rows (SHARE=0.1: a tenth of them)
	@$(ON_SQLITE) $(ON_POSTGRES) $(BIN)/python -m benchmarks.scale $(if $(SHARE),--share $(SHARE))

bench-console: $(VENV)/.postgres ## how long the operator's pages take beside ten million ended jobs (SHARE=0.01: a hundredth of them)
	@$(ON_SQLITE) $(ON_POSTGRES) $(BIN)/python -m benchmarks.console $(if $(SHARE),--share $(SHARE))

clean: ## remove everything that make made here
	rm -rf $(VENV) $(BENCH) .matrix .upstream .postgres build dist *.egg-info .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	rm -f example_project/*.sqlite3* tests/*.sqlite3*
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.run: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("dbqueue needs Python 3.11 or newer; $(PYTHON) is " + sys.version.split()[0] + ". Say which: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip>=25.1"
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.postgres: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --group postgres
	@touch $@

$(VENV)/.dev: $(VENV)/.postgres
	$(BIN)/python -m pip install --quiet --group dev
	@touch $@

$(VENV)/.mysql: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --group mysql
	@touch $@

$(BENCH)/.installed: pyproject.toml
	@$(BENCH_PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("dbqueue needs Python 3.11 or newer; $(BENCH_PYTHON) is " + sys.version.split()[0] + ". Say which: make BENCH_PYTHON=python3.12 bench")'
	$(BENCH_PYTHON) -m venv --clear $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check "pip>=25.1"
	PYTHONWARNINGS=ignore $(BENCH)/bin/python -m pip install --quiet --editable . --group bench
	@touch $@
