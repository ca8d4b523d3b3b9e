"""Who may not have a person's data finds no address: in no view, in no metric."""

import pytest

import hooks
import stage
from pgdrip.channels import Failed, Outcome
from pgdrip.engine import ClaimedMessage
from pgdrip.inbound.app import create_app
from pgdrip.metrics import page
from pgdrip.runner import Runner
from running import Ledger, eventually, running
from stage import Db
from test_roles import acting_as, relations

PHONE, EMAIL, NAME = "+60129876543", "jane.doe@example.com", "Jane Doe"
TOLD = f"{PHONE} or {EMAIL} asked"
SECRETS = ("60129876543", "jane.doe", NAME, "Ipoh")


def leaks(text: str) -> list[str]:
    return [one for one in SECRETS if one in text]


@pytest.fixture
def told(db: Db) -> list[int]:
    """Contacts in every state, and their addresses in every text that is free."""
    stage.sender(db)
    stage.sequence(db, steps=[{"day": 1, "body": "Hi {{name|you}}"}])
    people = [
        stage.lead(db, 1, p_phone=PHONE, p_email=EMAIL, p_name=NAME),
        *(stage.lead(db, number) for number in range(2, 7)),
    ]
    db.execute('update pgdrip.contacts set attributes = \'{"city": "Ipoh"}\'')
    failed, uncertain, sent = messages = stage.claim(db, 3)
    stage.begin(db, messages)
    for message, outcome, code in (
        (failed, "failed", "permanent"),
        (uncertain, "uncertain", TOLD),
        (sent, "sent", None),
    ):
        db.execute(
            "select pgdrip.report(array[%s::bigint], array[%s::bigint], array[%s],"
            " array[%s], array[%s], array[%s])",
            [
                *(message["enrollment_id"], message["token"], outcome),
                *(f"{PHONE}.{outcome}", code, TOLD),
            ],
        )
    db.execute("select pgdrip.exit_enrollment(4, %s)", [TOLD])
    db.execute("select pgdrip.suppress(%s, %s)", [PHONE, TOLD])
    db.execute("select pgdrip.record_probe('device-0001', false, %s)", [TOLD])
    db.execute("select pgdrip.record_event(5, 'bought', %s)", [f'{{"by": "{PHONE}"}}'])
    db.execute("select pgdrip.pause_enrollment(5, %s)", [TOLD])
    db.execute("select pgdrip.pause_sequence('WARM Sequence', %s)", [TOLD])
    db.execute("select pgdrip.pause_sender('device-0001', %s)", [TOLD])
    db.execute("select pgdrip.pause_all(%s)", [TOLD])
    for (
        name
    ) in "queue senders check enrollments live forecast receipts history".split():
        db.execute("select pgdrip.tally(%s)", [name])
    return people


def test_no_view_shows_a_reader_an_address(db: Db, told: list[int]) -> None:
    full = ""
    for view in relations(db, "v"):
        query = f"select x::text as text from {view} as x"
        full += "".join(row["text"] for row in stage.every(db, query))
        with acting_as(db, "pgdrip_reader"):
            shown = "\n".join(row["text"] for row in stage.every(db, query))
        assert leaks(shown) == [], view
    assert leaks(full) == list(SECRETS)


def test_no_function_tells_a_reader_an_address(db: Db, told: list[int]) -> None:
    with acting_as(db, "pgdrip_reader"):
        for call in ("check()", "metrics()", "minute_tally()"):
            rows = stage.every(db, f"select x::text as text from pgdrip.{call} as x")
            assert leaks("\n".join(row["text"] for row in rows)) == [], call


def test_metrics_of_the_database_hold_no_address(
    dsn: str, told: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in hooks.SECRETS.items():
        monkeypatch.setenv(name, value)
    with hooks.served(create_app(hooks.settings(dsn))) as served:
        answer = served.ask("GET", "/metrics")
    assert answer.status == 200
    assert b"pgdrip_parked_steps" in answer.body
    assert leaks(answer.body.decode()) == []


def test_metrics_of_a_runner_hold_no_address(dsn: str, db: Db) -> None:
    stage.sender(db, channel="log")
    stage.sequence(db, channel="log", steps=[{"day": 1, "body": "Hi"}])
    stage.lead(db, 1, p_phone=PHONE, p_email=EMAIL, p_name=NAME)

    async def refuse(message: ClaimedMessage) -> Outcome:
        return Failed("permanent", TOLD)

    async def read(runner: Runner) -> str:
        await eventually(lambda: bool(runner.stats.outcomes))
        write = page(runner)
        assert write is not None
        return write()[1].decode()

    text = running(dsn, Ledger(refuse), read)
    assert 'pgdrip_sends_total{channel="log",outcome="failed"} 1.0' in text
    assert leaks(text) == []
