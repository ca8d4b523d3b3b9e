"""`pgdrip reconcile` and `pgdrip probe` end to end: a database, a gateway, and what the
one believes of the other."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

import stage
from conftest import Clock
from gateway import Gateway, Step, answer, gateway
from pgdrip.channels import Failed, NotSent, Sent, Uncertain
from pgdrip.channels.gowa import GowaChannel
from pgdrip.cli import main
from pgdrip.errors import ConfigurationError
from pgdrip.probe import Probed, probe
from pgdrip.reconcile import Reconciled, reconcile
from running import eventually
from stage import Db

TEXT = "One"


@dataclass(frozen=True, slots=True)
class World:
    """A database whose senders of `channel` are at a gateway yet to be entered."""

    dsn: str
    db: Db
    clock: Clock

    def begin(self, channel: str, leads: int, **config: Any) -> list[dict[str, Any]]:
        """So many leads with a message each that began; what was claimed."""
        stage.sender(self.db, channel=channel, secret="GATEWAY_AUTH", config={**config})
        stage.sequence(self.db, channel=channel)
        stage.leads(self.db, leads)
        messages = stage.claim(self.db)
        assert len(stage.begin(self.db, messages)) == leads
        return messages

    def point(self, url: str) -> None:
        """Where the gateway is was not known before it was entered."""
        self.db.execute(
            "update pgdrip.senders set config = config"
            " || jsonb_build_object('url', %s::text)",
            [url],
        )

    def run(
        self,
        *script: Step,
        channels: list[str] | None = None,
        older_than: timedelta = timedelta(),
    ) -> tuple[list[Reconciled], Gateway]:
        async def run() -> tuple[list[Reconciled], Gateway]:
            async with gateway(*script) as made:
                self.point(made.url)
                done = await reconcile(
                    self.dsn, channels=channels, older_than=older_than
                )
                return done, made

        return asyncio.run(run())

    def probe(self, *script: Step) -> list[Probed]:
        async def run() -> list[Probed]:
            async with gateway(*script) as made:
                self.point(made.url)
                return await probe(self.dsn)

        return asyncio.run(run())


@pytest.fixture
def world(dsn: str, db: Db, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("GATEWAY_AUTH", "jane:s3cret")
    return World(dsn, db, clock)


def kept(*messages: Mapping[str, Any]) -> Step:
    """A chat of GoWA with these messages from us."""
    data = [{"content": TEXT, "is_from_me": True, **one} for one in messages]
    return answer(200, {"code": "SUCCESS", "results": {"data": data}})


def listed(world: World, *messages: dict[str, Any]) -> Step:
    """Twilio's list with these messages from us."""
    common = {
        "direction": "outbound-api",
        "body": TEXT,
        "status": "sent",
        "date_created": format_datetime(world.clock.now()),
    }
    return answer(200, {"messages": [common | one for one in messages]})


TWILIO = {"account_sid": "AC1", "from": "+15005550006"}


def test_a_send_that_the_gateway_knows_goes_on_under_its_id(world: World) -> None:
    messages = world.begin("gowa", 1)
    assert stage.report(world.db, messages, "uncertain") == ["parked"]
    done, _ = world.run(kept({"id": "3EB0"}))
    assert [(one.answer, one.verdict) for one in done] == [(Sent("3EB0"), "late")]
    [row] = stage.live(world.db)
    assert (row["step"], row["parked_reason"]) == (3, None)
    [found] = stage.every(world.db, "select provider_id from pgdrip.provider_refs")
    assert found == {"provider_id": "3EB0"}
    assert stage.violations(world.db) == []


def test_a_send_that_the_gateway_never_got_is_due_again(world: World) -> None:
    messages = world.begin("twilio", 1, **TWILIO)
    stage.report(world.db, messages, "uncertain")
    done, _ = world.run(listed(world))
    assert [(one.answer, one.verdict) for one in done] == [(NotSent(), "retry")]
    [again] = stage.claim(world.db)
    assert again["step"] == 1
    assert stage.violations(world.db) == []


def test_a_send_that_failed_at_the_gateway_fails_by_its_code(world: World) -> None:
    messages = world.begin("twilio", 1, **TWILIO)
    stage.report(world.db, messages, "uncertain")
    lost = {"sid": "SM1", "status": "failed", "error_code": 21610}
    done, _ = world.run(listed(world, lost))
    assert [(one.answer, one.verdict) for one in done] == [
        (Failed("21610", ""), "failed")
    ]
    [row] = stage.every(world.db, "select end_reason from pgdrip.enrollments")
    assert row == {"end_reason": "21610"}
    assert stage.violations(world.db) == []


def test_a_send_that_nobody_knows_of_stays_uncertain(world: World) -> None:
    messages = world.begin("gowa", 1)
    stage.report(world.db, messages, "uncertain")
    done, _ = world.run(kept())
    [one] = done
    assert isinstance(one.answer, Uncertain)
    assert one.verdict is None
    [row] = stage.live(world.db)
    assert row["parked_reason"] == "uncertain"


def test_one_message_at_the_gateway_stands_for_one_send_only(world: World) -> None:
    messages = world.begin("gowa", 1)
    stage.sequence(world.db, "HOT", channel="gowa", trigger="HOT")
    world.db.execute("select pgdrip.add_trigger(1, 'HOT')")
    more = stage.claim(world.db)
    stage.begin(world.db, more)
    stage.report(world.db, [*messages, *more], "uncertain")
    done, _ = world.run(kept({"id": "3EB0"}))
    assert sorted(str(one.verdict) for one in done) == ["None", "late"]


def test_a_message_that_is_known_already_is_no_other(world: World) -> None:
    messages = world.begin("gowa", 1)
    stage.report(world.db, messages, "uncertain")
    world.run(kept({"id": "3EB0"}))
    stage.sequence(world.db, "HOT", channel="gowa", trigger="HOT")
    world.db.execute("select pgdrip.add_trigger(1, 'HOT')")
    more = stage.claim(world.db)
    stage.begin(world.db, more)
    stage.report(world.db, more, "uncertain")
    done, _ = world.run(kept({"id": "3EB0"}))
    assert [one.verdict for one in done] == [None]


def test_what_began_lately_is_not_asked_about(world: World) -> None:
    messages = world.begin("gowa", 1)
    stage.report(world.db, messages, "uncertain")
    done, made = world.run(kept({"id": "3EB0"}), older_than=timedelta(minutes=10))
    assert done == []
    assert made.ledger == []


def test_every_send_is_asked_about_over_several_pages(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdrip.reconcile.PAGE", 4)
    messages = world.begin("gowa", 11)
    stage.report(world.db, messages, "uncertain")
    done, made = world.run(kept())
    assert sorted(one.token for one in done) == sorted(m["token"] for m in messages)
    assert len(made.ledger) == 11


def test_a_token_from_before_a_restore_is_settled_too(world: World) -> None:
    world.begin("gowa", 1)
    world.db.execute("update pgdrip.control set timeline = 'FFFFFFFF'")
    world.db.execute("select pgdrip.unlock('restored')")
    done, _ = world.run(kept({"id": "3EB0"}))
    assert [one.verdict for one in done] == ["advanced"]
    assert stage.violations(world.db) == []


def test_a_send_settled_meanwhile_is_left_alone(world: World) -> None:
    [message] = world.begin("twilio", 1, **TWILIO)
    stage.report(world.db, [message], "uncertain")
    said = listed(world)

    async def settle(made: Gateway, reader: Any, writer: Any) -> bool:
        world.db.execute(
            "select pgdrip.resolve_uncertain(%s, 'sent')", [message["token"]]
        )
        return await said(made, reader, writer)

    done, _ = world.run(settle)
    assert [one.verdict for one in done] == [None]
    [row] = stage.live(world.db)
    assert row["step"] == 3


def test_a_text_no_database_can_hold_is_cleaned(world: World) -> None:
    messages = world.begin("twilio", 1, **TWILIO)
    stage.report(world.db, messages, "uncertain")
    lost = {
        "sid": "SM1",
        "status": "failed",
        "error_code": "21610",
        "error_message": "a\0b\ud800",
    }
    done, _ = world.run(listed(world, lost))
    assert [one.verdict for one in done] == ["failed"]


def test_only_channels_that_can_be_asked_are(world: World) -> None:
    with pytest.raises(ConfigurationError, match="nobody can ask log"):
        world.run(kept(), channels=["gowa", "log"])


class Halt(BaseException):
    """What no `except Exception` catches."""


async def nothing(self: object, about: object) -> None:
    """An answer that is none."""


async def halted(self: object, about: object) -> None:
    raise Halt


async def cancelled(self: object, about: object) -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize("reconciled", [nothing, halted, cancelled])
def test_whatever_else_a_channel_does_leaves_a_send_uncertain(
    world: World, monkeypatch: pytest.MonkeyPatch, reconciled: Callable[..., Any]
) -> None:
    monkeypatch.setattr(GowaChannel, "reconcile", reconciled)
    stage.report(world.db, world.begin("gowa", 2), "uncertain")
    done, _ = world.run(kept())
    assert [one.verdict for one in done] == [None, None]
    assert all(isinstance(one.answer, Uncertain) for one in done)


# Probes


def devices(logged_in: bool) -> Step:
    state = {"is_connected": True, "is_logged_in": logged_in}
    return answer(200, {"code": "SUCCESS", "results": state})


def health(world: World) -> str:
    found: str = stage.one(world.db, "select health from pgdrip.senders")["health"]
    return found


def test_a_probe_parks_what_cannot_send_and_resumes_it_later(world: World) -> None:
    stage.sender(world.db, channel="gowa", secret="GATEWAY_AUTH")
    changes = []
    for logged_in in (True, False, False, True):
        [one] = world.probe(devices(logged_in))
        changes.append((one.change, health(world)))
    assert changes == [
        ("unchanged", "healthy"),
        ("parked", "down"),
        ("unchanged", "down"),
        ("resumed", "healthy"),
    ]
    assert stage.violations(world.db) == []


def test_an_unclear_answer_changes_nothing(world: World) -> None:
    stage.sender(world.db, channel="gowa", secret="GATEWAY_AUTH")
    for step in (answer(500), answer(200, "?")):
        [one] = world.probe(step)
        assert (one.change, health(world)) == ("unchanged", "healthy")


@pytest.mark.parametrize("probed", [nothing, halted, cancelled])
def test_whatever_else_a_channel_does_resumes_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch, probed: Callable[..., Any]
) -> None:
    stage.sender(world.db, channel="gowa", secret="GATEWAY_AUTH")
    world.probe(devices(False))
    monkeypatch.setattr(GowaChannel, "probe", probed)
    [one] = world.probe(devices(True))
    assert (one.change, health(world)) == ("unchanged", "down")


def test_every_sender_is_probed_over_several_pages(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdrip.probe.PAGE", 3)
    for number in range(8):
        stage.sender(world.db, f"device-{number}", channel="gowa")
    stage.sender(world.db, "hook", channel="webhook")
    found = world.probe(devices(True))
    assert [one.sender for one in found] == [f"device-{n}" for n in range(8)]


def test_a_sender_without_its_secret_is_parked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.sender(world.db, channel="gowa", secret="GATEWAY_AUTH")
    monkeypatch.delenv("GATEWAY_AUTH")
    [one] = world.probe(devices(True))
    assert one.change == "parked"
    row = stage.one(world.db, "select last_error from pgdrip.senders")
    assert row["last_error"] == "probe: secret GATEWAY_AUTH is not set or empty"


# The command line


def outside(world: World, step: Step, call: Callable[[], Any]) -> Any:
    """Call something blocking while the gateway runs."""

    async def run() -> Any:
        async with gateway(step) as made:
            world.point(made.url)
            return await asyncio.to_thread(call)

    return asyncio.run(run())


def test_reconcile_tells_what_it_settled(world: World) -> None:
    messages = world.begin("gowa", 1)
    stage.report(world.db, messages, "uncertain")
    words = ["--dsn", world.dsn, "reconcile", "--older-than", "0"]
    ran = outside(world, kept({"id": "3EB0"}), lambda: CliRunner().invoke(main, words))
    assert ran.exit_code == 0, ran.output
    assert "1 of 1 uncertain send settled" in ran.output
    assert "late" in ran.output
    assert "s3cret" not in ran.output


def test_probe_goes_on_until_it_is_stopped(world: World) -> None:
    stage.sender(world.db, channel="gowa", secret="GATEWAY_AUTH")
    up = devices(True)

    async def run() -> tuple[int | None, str]:
        again = asyncio.Event()

        async def step(made: Gateway, reader: Any, writer: Any) -> bool:
            is_open = await up(made, reader, writer)
            if len(made.ledger) == 2:
                again.set()
            return is_open

        async with gateway(devices(False), step) as made:
            world.point(made.url)
            words = ["-m", "pgdrip", "probe", "--every", "1"]
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, *words),
                env={**os.environ, "PGDRIP_DSN": world.dsn},
                stderr=asyncio.subprocess.PIPE,
            )
            async with asyncio.timeout(30):
                await again.wait()
                process.send_signal(signal.SIGINT)
                _, told = await process.communicate()
        return process.returncode, told.decode()

    code, told = asyncio.run(run())
    assert code == 130, told
    changes = [json.loads(one) for one in told.splitlines() if one.startswith("{")]
    assert changes[0]["change"] == "parked"
    assert changes[0]["sender"] == "device-0001"


def test_probe_goes_on_after_an_outage(world: World, server: Any) -> None:
    stage.sender(world.db, channel="gowa", secret="GATEWAY_AUTH")
    allow = f'alter database "{world.db.info.dbname}" allow_connections '

    async def run() -> tuple[int | None, str]:
        async with gateway(devices(True)) as made:
            world.point(made.url)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "pgdrip", "probe", "--every", "1"),
                env={**os.environ, "PGDRIP_DSN": world.dsn},
                stderr=asyncio.subprocess.PIPE,
            )
            assert process.stderr
            async with asyncio.timeout(30):
                await eventually(lambda: len(made.ledger) == 1)
                with psycopg.connect(server.dsn, autocommit=True) as other:
                    other.execute(allow + "false")
                    told = await process.stderr.readuntil(b"left out")
                    other.execute(allow + "true")
                asked = len(made.ledger)
                await eventually(lambda: len(made.ledger) > asked)
                process.send_signal(signal.SIGINT)
                _, rest = await process.communicate()
        return process.returncode, (told + rest).decode()

    code, told = asyncio.run(run())
    assert code == 130, told
    assert "Traceback" not in told


def test_probe_tells_how_each_sender_is(world: World) -> None:
    stage.sender(world.db, channel="gowa", secret="GATEWAY_AUTH")
    words = ["--dsn", world.dsn, "probe", "--channel", "gowa"]
    ran = outside(world, devices(False), lambda: CliRunner().invoke(main, words))
    assert ran.exit_code == 0, ran.output
    [line] = [one for one in ran.output.splitlines() if one.startswith("device-0001")]
    assert line.split("\t")[1:4] == ["gowa", "down", "parked"]
    words += ["--json"]
    ran = outside(world, devices(True), lambda: CliRunner().invoke(main, words))
    [told] = json.loads(ran.stdout)
    assert (told["sender"], told["health"]) == ("device-0001", "up")
    assert CliRunner().invoke(main, [*words, "--every", "1"]).exit_code == 2
