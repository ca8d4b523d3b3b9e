"""/metrics of `pgdrip serve`: what the database tells, for whom, and at what cost."""

from collections.abc import Iterator
from decimal import Decimal

import pytest
from prometheus_client.parser import text_string_to_metric_families

import hooks
import stage
from hooks import Served
from pgdrip.engine import Metric
from pgdrip.errors import ConfigurationError
from pgdrip.inbound.app import create_app
from pgdrip.inbound.metrics import exposition
from pgdrip.inbound.settings import Settings
from stage import Db

TOKEN = "scrape-3f1c5a7e9b2d4f60"


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRAPE", TOKEN)
    for name, value in hooks.SECRETS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def local(dsn: str) -> Iterator[Served]:
    """Without a token."""
    with hooks.served(create_app(hooks.settings(dsn))) as served:
        yield served


@pytest.fixture
def guarded(dsn: str) -> Iterator[Served]:
    """With a token, and nothing else to serve."""
    app = create_app(Settings(dsn=dsn, metrics_secrets=("SCRAPE",)))
    with hooks.served(app) as served:
        yield served


def samples(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_reads_what_the_database_tells(local: Served, db: Db) -> None:
    stage.sender(db)
    stage.sequence(db)
    stage.leads(db, 3)
    answer = local.ask("GET", "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = samples(answer.body.decode())
    assert found["pgdrip_due_steps", "webhook"] == 3
    assert found["pgdrip_enrollments_total",] == 3
    assert found["pgdrip_engine_paused",] == 0
    rows = stage.every(db, "select name, labels from pgdrip.metrics()")
    assert len(found) == len(rows)


def test_names_of_any_text_are_read_back_as_they_were(local: Served, db: Db) -> None:
    pool = 'a "pool"\\of \N{GRINNING FACE} {x="y"}'
    stage.sender(db, pool=pool)
    found = samples(local.ask("GET", "/metrics").body.decode())
    assert found["pgdrip_senders", pool, "healthy", "webhook"] == 1


def test_samples_of_one_name_stand_together_under_one_head() -> None:
    one = Metric(
        "b_total", "Back\\slash,\nline", "counter", {"l": 'q"\\\n'}, Decimal(1)
    )
    other = Metric("a", "A", "gauge", {}, Decimal("0.5"))
    two = Metric("b_total", one.help, "counter", {"l": "x"}, Decimal(2**53))
    assert exposition([one, other, two]).splitlines() == [
        "# HELP a A",
        "# TYPE a gauge",
        "a 0.5",
        r"# HELP b_total Back\\slash,\nline",
        "# TYPE b_total counter",
        r'b_total{l="q\"\\\n"} 1.0',
        'b_total{l="x"} 9007199254740992.0',
    ]


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=192.0.2.1"},
        {"X-Real-Ip": "127.0.0.1"},
        {"Host": "rebound.example.com"},
        {"Host": "["},
    ],
    ids=str,
)
def test_without_a_token_no_stranger_reads_it(
    local: Served, headers: dict[str, str]
) -> None:
    answer = local.ask("GET", "/metrics", headers=headers)
    assert answer.status == 403
    assert b"pgdrip_" not in answer.body


@pytest.mark.parametrize(
    "shown",
    [
        None,
        "Bearer",
        "Bearer wrong",
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        "Bearer \xff",
    ],
)
def test_with_a_token_nobody_reads_it_without(
    guarded: Served, shown: str | None
) -> None:
    headers = {"Authorization": shown} if shown else {}
    answer = guarded.ask("GET", "/metrics", headers=headers)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"


def test_who_shows_the_token_may_come_through_a_proxy(guarded: Served) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "X-Forwarded-For": "192.0.2.1"}
    assert guarded.ask("GET", "/metrics", headers=headers).status == 200


def test_a_weak_token_is_refused(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRAPE", "short")
    with pytest.raises(ConfigurationError, match="SCRAPE"):
        create_app(Settings(dsn=dsn, metrics_secrets=("SCRAPE",)))


def test_the_page_alone_is_no_reason_to_serve(dsn: str) -> None:
    with pytest.raises(ConfigurationError, match="nothing to serve"):
        create_app(Settings(dsn=dsn))


def test_metrics_scan_neither_live_steps_nor_history(db: Db) -> None:
    stage.sender(db)
    stage.sequence(db)
    db.execute("select pgdrip.maintain()")
    db.execute(
        "with people as ("
        " insert into pgdrip.contacts (phone, bucket)"
        "  select '+601' || 10000000 + n, 1 from generate_series(1, 30000) as n"
        "  returning contact_id),"
        " runs as ("
        " insert into pgdrip.enrollments"
        "  (contact_id, sequence_id, version_id, sender_id, enrolled_at)"
        "  select p.contact_id, q.sequence_id, q.version_id, s.sender_id,"
        "   pgdrip.clock()"
        "    from people as p, pgdrip.sequences as q, pgdrip.senders as s"
        "  returning enrollment_id, sender_id)"
        " insert into pgdrip.due (enrollment_id, sender_id, step, due_at)"
        " select r.enrollment_id, r.sender_id, 1,"
        "  pgdrip.clock() + make_interval(days => case mod(r.enrollment_id, 2)"
        "                                         when 0 then 1 else -1 end)"
        "   from runs as r"
    )
    stage.deliver(db)
    touched = (
        "select sum(pg_stat_get_xact_numscans(c.oid)) as scans,"
        " sum(pg_stat_get_xact_tuples_returned(c.oid)) as rows"
        "  from pg_catalog.pg_class as c"
        " where c.oid = 'pgdrip.due'::regclass or c.oid in (select i.inhrelid"
        "  from pg_catalog.pg_inherits as i"
        " where i.inhparent = 'pgdrip.deliveries'::regclass)"
    )
    with db.transaction():
        due = stage.one(
            db,
            "select value from pgdrip.metrics() where name = 'pgdrip_due_steps'",
        )
        assert due["value"] == 10_000
        row = stage.one(db, touched)
        assert (row["scans"], row["rows"]) == (0, 0)  # of whole tables
