"""Any value for any argument of any function is refused by a documented SQLSTATE, or
taken without harm to an invariant."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

import stage
from databases import Databases
from stage import Db
from test_roles import MAY, OF_VIEWS

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "25"))
# What a caller may be told: the engine's own codes, data exceptions, constraints, and
# that a transaction is not for this.
DOCUMENTED = ("MD", "22", "23", "25006")
# They commit, or speak to another extension.
LEFT_OUT = {"tick_for_a_minute", "schedule_jobs", "unschedule_jobs", "assert_cron"}

words = st.one_of(
    st.sampled_from(
        "WARM|WARM Sequence|device-0001|webhook|default|+60110000001|sent|failed"
        "|uncertain|delivered|transient|history|| |jane@example.com|{{name}}|{{|İ|ß|+0"
        "|'; drop table x; --|%s%I$$|\u200b|\u202e|-1|infinity|2026-01-05".split("|")
    ),
    st.sampled_from(["x" * 300, "ü" * 3000]),
    st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40
    ),
)
numbers = st.one_of(st.integers(-3, 5), st.sampled_from([2**31 - 1, -(2**31)]))
ids = st.one_of(st.integers(-1, 9), st.sampled_from([2**63 - 1, -(2**63), 2**40 + 1]))
spans = st.one_of(
    st.sampled_from(
        "1 minute|0|-1 hour|1 mon -29 days|300 years|178000000 years|10 days"
        "|1 microsecond|-178000000 years|1 year".split("|")
    ),
    st.timedeltas(timedelta(days=-400), timedelta(days=400)).map(str),
)
instants = st.one_of(
    st.sampled_from(
        ["infinity", "-infinity", "epoch", "294276-12-31 23:59+00", "4713-01-01 BC"]
    ),
    st.datetimes(
        datetime(1900, 1, 1), datetime(2300, 1, 1), timezones=st.just(UTC)
    ).map(str),
)
json = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, words),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                "name trigger channel pool steps day body delay rate_per_hour per"
                " rate status window hours ramp config phone email triggers to from"
                " line attributes gap_min gap_max burst secret cap at media".split()
            ),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=12,
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "text": words,
    "bigint": ids,
    "integer": numbers,
    "boolean": st.booleans(),
    "interval": spans,
    "timestamp with time zone": instants,
    "jsonb": json.map(Jsonb),
    "text[]": st.lists(st.none() | words, max_size=4),
    "bigint[]": st.lists(st.none() | ids, max_size=4),
}


@pytest.fixture(scope="module")
def db(server: Databases) -> Iterator[Db]:
    """A world with something of everything in it."""
    with (
        server.clone() as dsn,
        psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as db,
    ):
        stage.sender(db)
        stage.sequence(db)
        stage.leads(db, 5)
        messages = stage.claim(db, 4)
        stage.begin(db, messages[:3])
        stage.report(db, messages[:1])
        stage.report(db, messages[1:2], "uncertain")
        db.execute("set statement_timeout = '20s'")
        yield db


def signatures(db: Db) -> dict[str, list[str]]:
    rows = stage.every(
        db,
        "select proname, array(select format_type(t, null)"
        "                        from unnest(proargtypes) as t) as types"
        "  from pg_catalog.pg_proc where pronamespace = 'pgdrip'::regnamespace",
    )
    return {row["proname"]: row["types"] for row in rows}


def harm(db: Db, call: str, arguments: tuple[Any, ...]) -> object:
    """What a call does that it must not; None: nothing."""
    try:
        with db.transaction():
            db.execute(call.encode(), arguments)
    except psycopg.Error as error:
        # None: the client itself could not write or read a value.
        told = error.sqlstate or "22"
        # A whole row, whoever may not see it, is what a broken check would tell.
        if not told.startswith(DOCUMENTED) or "row contains" in str(error):
            return told, str(error)
    return stage.violations(db) or None


API = sorted(MAY["pgdrip_operator"] - LEFT_OUT - OF_VIEWS)


@pytest.mark.parametrize("name", API)
def test_no_value_of_any_argument_does_harm(db: Db, name: str) -> None:
    types = signatures(db)[name]
    call = f"select * from pgdrip.{name}({', '.join(f'%s::{one}' for one in types)})"

    @settings(
        max_examples=EXAMPLES if types else 1,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.tuples(*(st.none() | VALUES[one] for one in types)))
    def any_call(arguments: tuple[Any, ...]) -> None:
        with db.transaction(force_rollback=True):
            assert harm(db, call, arguments) is None

    any_call()
