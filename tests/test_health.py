"""What a runner tells of itself: by HTTP, to Prometheus and to systemd."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from psycopg.conninfo import conninfo_to_dict

from pgdrip import link
from pgdrip.errors import ConfigurationError
from pgdrip.health import served
from pgdrip.runner import Runner
from pgdrip.systemd import Systemd
from running import (
    CLAIM,
    Db,
    Ledger,
    backends,
    enroll,
    eventually,
    pgdrip_run,
    running,
    wrap,
)

Get = Callable[[str], Awaitable[tuple[int, str]]]


def asked(
    dsn: str,
    ledger: Ledger,
    meanwhile: Callable[[Runner, Get], Awaitable[None]],
    **options: Any,
) -> None:
    """A runner with its health server, while `meanwhile` asks it."""

    async def with_server(runner: Runner) -> None:
        async with (
            served(runner, "127.0.0.1", 0) as url,
            aiohttp.ClientSession() as session,
        ):

            async def get(path: str) -> tuple[int, str]:
                async with session.get(url + path) as response:
                    return response.status, await response.text()

            await meanwhile(runner, get)

    running(dsn, ledger, with_server, **options)


def test_a_runner_that_claims_is_alive_and_ready(dsn: str, db: Db) -> None:
    enroll(db, 3)
    ledger = Ledger()

    async def meanwhile(runner: Runner, get: Get) -> None:
        await eventually(lambda: len(ledger.keys) == 3 and runner.in_flight == 0)
        assert await get("/livez") == (200, "alive\n")
        status, text = await get("/readyz")
        assert status == 200
        state = json.loads(text)
        assert 0 <= state.pop("claimed_seconds_ago") < 15
        assert state == {
            "ready": True,
            "runner": "r1",
            "connected": True,
            "in_flight": 0,
            "unreported": 0,
            "gateways_away": [],
        }
        assert (await get("/"))[0] == 404

    asked(dsn, ledger, meanwhile, name="r1")


def test_without_its_database_it_is_alive_and_not_ready(
    dsn: str, db: Db, server: Any
) -> None:
    name = conninfo_to_dict(dsn)["dbname"]

    async def meanwhile(runner: Runner, get: Get) -> None:
        await eventually(lambda: runner.is_ready)
        with psycopg.connect(server.dsn, autocommit=True) as other:
            other.execute(f'alter database "{name}" allow_connections false')
            for pid in backends(db):
                db.execute("select pg_terminate_backend(%s, 5000)", [pid])
            await eventually(lambda: not runner.is_connected)
            assert (await get("/livez"))[0] == 200
            status, text = await get("/readyz")
            assert (status, json.loads(text)["connected"]) == (503, False)
            other.execute(f'alter database "{name}" allow_connections true')
        await eventually(lambda: runner.is_ready)

    asked(dsn, Ledger(), meanwhile)


def test_a_runner_that_is_stuck_is_not_alive(
    dsn: str, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "STUCK", 0.3)
    wrap(db, CLAIM, before="perform pg_sleep(1);")

    async def meanwhile(runner: Runner, get: Get) -> None:
        await eventually(lambda: not runner.is_alive)
        assert await get("/livez") == (503, "stuck\n")

    asked(dsn, Ledger(), meanwhile)


def test_metrics_count_what_happened(dsn: str, db: Db) -> None:
    enroll(db, 3)
    ledger = Ledger()

    async def meanwhile(runner: Runner, get: Get) -> None:
        await eventually(lambda: len(ledger.keys) == 3 and runner.in_flight == 0)
        status, text = await get("/metrics")
        assert status == 200
        found = {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        assert found["pgdrip_claimed_total",] == 3
        assert found["pgdrip_sends_total", "log", "sent"] == 3
        assert found["pgdrip_verdicts_total", "completed"] == 3
        assert found["pgdrip_send_seconds_count", "log"] == 3
        assert found["pgdrip_send_seconds_bucket", "log", "+Inf"] == 3
        assert found["pgdrip_call_seconds_count", "begin_send"] >= 1
        assert found["pgdrip_in_flight", "sending"] == 0
        assert found["pgdrip_ready",] == 1
        assert found["pgdrip_gateway_away", "log"] == 0
        assert found["process_resident_memory_bytes",] > 0

    asked(dsn, ledger, meanwhile)


def test_without_the_library_the_page_says_what_to_install(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)

    async def meanwhile(runner: Runner, get: Get) -> None:
        status, text = await get("/metrics")
        assert status == 404
        assert "pgdrip[metrics]" in text

    asked(dsn, Ledger(), meanwhile)


def test_an_address_that_is_taken_is_refused(dsn: str) -> None:
    async def meanwhile(runner: Runner) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(ConfigurationError, match=f"port {port}"):
                async with served(runner, "127.0.0.1", port):
                    raise AssertionError

    running(dsn, Ledger(), meanwhile)


def heard(wire: socket.socket) -> str:
    return wire.recv(100).decode()


def test_systemd_hears_of_start_life_and_end(dsn: str, tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
        wire.bind(address)
        wire.settimeout(20)
        environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"}
        with pgdrip_run(dsn, environment=environment) as process:
            told = {heard(wire) for _ in range(4)}
            assert told == {"READY=1", "WATCHDOG=1"}
            process.send_signal(signal.SIGTERM)
            while (word := heard(wire)) == "WATCHDOG=1":
                pass
            assert word == "STOPPING=1"
            assert process.wait(10) == 0


def test_what_is_stuck_gives_no_sign_of_life() -> None:
    name = f"pgdrip-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
        wire.bind(f"\0{name}")
        wire.settimeout(5)
        systemd = Systemd({"NOTIFY_SOCKET": f"@{name}", "WATCHDOG_USEC": "20000"})
        beats = iter([True, False, False])

        def is_alive() -> bool:
            if (beat := next(beats, None)) is None:
                raise InterruptedError  # enough
            return beat

        with pytest.raises(InterruptedError):
            asyncio.run(systemd.watch(is_alive))
        assert heard(wire) == "WATCHDOG=1"
        wire.settimeout(0)
        with pytest.raises(BlockingIOError):
            heard(wire)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": "@pgdrip-test-wd"},
        {"NOTIFY_SOCKET": "@pgdrip-test-wd", "WATCHDOG_USEC": "junk"},
        {
            "NOTIFY_SOCKET": "@pgdrip-test-wd",
            "WATCHDOG_USEC": "1000",
            "WATCHDOG_PID": "1",
        },
    ],
)
def test_no_watchdog_is_fed_that_nobody_set(environment: dict[str, str]) -> None:
    asyncio.run(asyncio.wait_for(Systemd(environment).watch(lambda: True), 5))


def test_a_service_manager_that_is_gone_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Systemd({"NOTIFY_SOCKET": str(tmp_path / "none")}).ready()
    assert "systemd does not listen" in caplog.text
