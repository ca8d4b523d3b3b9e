# Needs git, make and python3 >= 3.11 with venv; everything else is put into .venv.
PYTHON ?= python3
BIN := .venv/bin
# pgspot knows no fields of composite variables, so plpgsql_check reads the bodies. Step
# numbers and limits fit an int; tables that nobody uses yet lock nobody out.
RULES_OFF := prefer-bigint-over-int,require-lock-timeout,require-statement-timeout

.PHONY: bench-runner demo test check chaos clean

demo: .venv/.installed-embedded,phones
	$(BIN)/pgdrip demo

test: .venv/.installed-test
	$(BIN)/pytest

check: .venv/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pgspot --append --no-plpgsql --ignore PS002 --ignore PS015 \
	  --proc-without-search-path 'pgdrip.tick_for_a_minute()' db/functions/*.sql
	$(BIN)/squawk --assume-in-transaction --pg-version 15.0 --exclude $(RULES_OFF) \
	  $(filter-out %.rollback.sql,$(wildcard db/migrations/*.sql))
	PGDRIP_ALL_EXTENSIONS=1 $(BIN)/pytest

bench-runner: .venv/.installed-test
	PYTHONPATH=tests $(BIN)/python tests/bench/bench_runner.py

# Every plan in turn, or those of PLANS="park" "runners only" …; about a minute each.
SEED ?= 1
SECONDS ?= 15
chaos: .venv/.installed-test
	cd tests && ../$(BIN)/python -m chaos --seed $(SEED) --seconds $(SECONDS) $(PLANS)

clean:
	rm -rf .venv build dist

$(BIN)/pip:
	$(PYTHON) -m venv .venv

.venv/.installed-%: pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet --quiet --disable-pip-version-check --editable '.[$*]'
	touch $@
