# Needs git, make and python3 >= 3.11 with venv; everything else is put into .venv.
PYTHON ?= python3
BIN := .venv/bin
# Step numbers and limits fit an int. Before the first release nobody waits for a lock, and
# nothing is renamed or dropped that somebody uses.
RULES_OFF := prefer-bigint-over-int,require-lock-timeout,require-statement-timeout,$\
  adding-field-with-default,adding-foreign-key-constraint,constraint-missing-not-valid,$\
  require-concurrent-index-creation,require-concurrent-index-deletion,$\
  ban-drop-column,ban-drop-constraint,ban-drop-function,ban-drop-type,ban-drop-view,$\
  renaming-object

.PHONY: bench bench-large bench-shards demo test check chaos soak mutants clean

demo: .venv/.installed-embedded,phones
	$(BIN)/pgdrip demo

# All tests, on two servers at once; or those of TESTS="tests/sql tests/test_seeds.py".
ALL := --numprocesses 2 --dist loadfile
test: .venv/.installed-test
	$(BIN)/pytest $(or $(TESTS),$(ALL))

check: .venv/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python tests/pgspot_functions.py
	$(BIN)/python tests/advisories.py
	$(BIN)/squawk --assume-in-transaction --pg-version 15.0 --exclude $(RULES_OFF) \
	  $(filter-out %.rollback.sql,$(wildcard db/migrations/*.sql))
	PGDRIP_ALL_EXTENSIONS=1 $(BIN)/pytest $(ALL)

# Every figure of docs/performance.md, about 10 minutes; QUICK=1: one, and of less worth;
# or those whose name has one of the words of ONLY="'batch 500' import".
bench: .venv/.installed-test
	cd tests && ../$(BIN)/python -m bench $(if $(QUICK),--quick) $(ONLY)

# Ten million steps in the future, fifty million lines of history, an hour of load: hours,
# and 60 GB in /var/tmp.
bench-large: .venv/.installed-test
	cd tests && ../$(BIN)/python -m bench --large $(ONLY)

# What a step costs on one shard and on three, and what a call costs the router: the figures
# of docs/scale-out.md; three minutes.
bench-shards: .venv/.installed-test
	cd tests && ../$(BIN)/python -m bench.shards

# Every plan in turn, or those of PLANS="park" "runners only" …; about a minute each.
SEED ?= 1
SECONDS ?= 15
chaos: .venv/.installed-test
	cd tests && ../$(BIN)/python -m chaos --seed $(SEED) --seconds $(SECONDS) $(PLANS)

# A fault every 30 s while work flows: what must not grow, looked at each minute.
MINUTES ?= 60
soak: .venv/.installed-test
	cd tests && ../$(BIN)/python -m chaos.soak --seed $(SEED) --minutes $(MINUTES)

# Every mutant of the SQL, or those whose names have one of WORDS="token due"; 5 minutes.
mutants: .venv/.installed-test
	$(BIN)/python tests/mutants.py $(WORDS)

clean:
	rm -rf .venv build dist

$(BIN)/pip:
	$(PYTHON) -m venv .venv

# With LOCK, a file of exact versions and hashes, those and nothing else.
PIP := $(BIN)/pip install --quiet --quiet --disable-pip-version-check
.venv/.installed-%: pyproject.toml $(LOCK) | $(BIN)/pip
	$(if $(LOCK),$(PIP) --require-hashes --requirement $(LOCK))
	$(PIP) $(if $(LOCK),--no-deps --no-build-isolation) --editable '.[$*]'
	touch $@
