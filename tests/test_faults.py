"""One fault at a time: a network that lies, a server that crashes, runners after it."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

import stage
from chaos.gateway import HONEST
from chaos.judge import judge
from chaos.proxy import Line, Mode, Proxy
from chaos.server import CrashingServer, Standby, binaries
from chaos.verdict import Verdict
from chaos.world import Plan, World
from pgdrip.engine import ClaimedMessage, Engine
from pgdrip.errors import DatabaseUnavailable
from pgdrip.migrate import migrate
from stage import Db

T = TypeVar("T")
Work = Callable[[Engine, Proxy], Awaitable[T]]


def through_a_proxy(dsn: str, work: Work[T], *, timeout: float = 1.0) -> T:
    """What `work` does with an engine whose connection goes through a proxy."""
    server = conninfo_to_dict(dsn)

    async def main() -> T:
        async with Proxy(f"{server['host']}/.s.PGSQL.{server['port']}") as proxy:
            via = (
                f"host=127.0.0.1 port={proxy.port} user={server['user']}"
                f" dbname={server['dbname']} sslmode=disable gssencmode=disable"
            )
            async with await Engine.connect(via, timeout=timeout) as engine:
                return await work(engine, proxy)

    return asyncio.run(main())


def only_line(proxy: Proxy) -> Line:
    [line] = proxy.lines
    return line


@pytest.fixture
def local(dsn: str) -> str:
    """A database that is reached by a unix socket, which a proxy can stand before."""
    if not str(conninfo_to_dict(dsn).get("host", "")).startswith("/"):
        pytest.skip("the server has no unix socket here: PGDRIP_PG=local or embedded")
    return dsn


# The network


def test_a_half_open_connection_costs_the_time_of_one_call_and_no_more(
    local: str,
) -> None:
    async def work(engine: Engine, proxy: Proxy) -> float:
        only_line(proxy).mode = Mode.BLACKHOLE
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable, match="no answer"):
            await engine.claim("r1")
        return time.monotonic() - began

    assert 0.9 < through_a_proxy(local, work) < 2


def test_a_connection_that_is_reset_is_an_outage(local: str) -> None:
    async def work(engine: Engine, proxy: Proxy) -> None:
        proxy.reset_all()
        with pytest.raises(DatabaseUnavailable):
            await engine.claim("r1")

    through_a_proxy(local, work)


def test_a_slow_network_is_only_slow(local: str) -> None:
    async def work(engine: Engine, proxy: Proxy) -> list[ClaimedMessage]:
        only_line(proxy).mode = Mode.SLOW
        return await engine.claim("r1")

    assert through_a_proxy(local, work, timeout=5) == []


@pytest.fixture
def message(local: str, db: Db) -> ClaimedMessage:
    """One that is on its way."""
    stage.sender(db)
    stage.sequence(db)
    stage.lead(db)

    async def work(engine: Engine, proxy: Proxy) -> ClaimedMessage:
        [claimed] = await engine.claim("r1")
        await engine.begin_send([claimed.enrollment_id], [claimed.token])
        return claimed

    return through_a_proxy(local, work)


def test_a_report_whose_answer_is_lost_counts_and_may_be_repeated(
    local: str, db: Db, message: ClaimedMessage
) -> None:
    ids = [message.enrollment_id], [message.token]

    async def lose(engine: Engine, proxy: Proxy) -> None:
        only_line(proxy).mode = Mode.CUT_REPLY
        with pytest.raises(DatabaseUnavailable):
            await engine.report(*ids, outcomes=["sent"])

    async def again(engine: Engine, proxy: Proxy) -> list[str]:
        verdicts = await engine.report(*ids, outcomes=["sent"])
        return [verdict.verdict for verdict in verdicts]

    through_a_proxy(local, lose)
    [before] = stage.live(db)
    assert before["step"] == 3
    assert through_a_proxy(local, again) == ["advanced"]
    assert stage.live(db) == [before]
    assert stage.violations(db) == []


# The server


@contextmanager
def crashing() -> Iterator[CrashingServer]:
    """A migrated server with 20 people on their way, for whom it is real time."""
    with CrashingServer(binaries()) as server:
        migrate(server.dsn)
        with psycopg.connect(server.dsn, row_factory=dict_row) as db:
            db.execute("set synchronous_commit = on")
            stage.sender(db)
            stage.sequence(db)
            stage.leads(db, 20)
        yield server


def confirmed_and_kept(
    server: CrashingServer, number: signal.Signals
) -> tuple[int, int]:
    """How many were told to be advanced, and how many are so after a crash."""
    with psycopg.connect(server.dsn, autocommit=True, row_factory=dict_row) as db:
        messages = stage.claim(db)
        stage.begin(db, messages)
        confirmed = [stage.report(db, [message]) for message in messages]
        server.crash(number)
    server.start_again()
    with psycopg.connect(server.dsn, autocommit=True, row_factory=dict_row) as db:
        kept = [row for row in stage.live(db) if row["step"] == 3]
        assert stage.violations(db) == []
    return confirmed.count(["advanced"]), len(kept)


def test_what_is_confirmed_survives_a_crash_of_the_server() -> None:
    with crashing() as server:
        assert confirmed_and_kept(server, signal.SIGQUIT) == (20, 20)


def test_what_is_confirmed_survives_a_kill_of_the_postmaster() -> None:
    with crashing() as server:
        assert confirmed_and_kept(server, signal.SIGKILL) == (20, 20)


def test_a_promoted_standby_is_locked_until_what_may_have_been_sent_is_parked() -> None:
    with crashing() as primary:
        with psycopg.connect(primary.dsn, autocommit=True, row_factory=dict_row) as db:
            messages = stage.claim(db, 5)
            stage.begin(db, messages[:3])
            primary.crash(signal.SIGQUIT)
        with (
            Standby(binaries(), primary) as standby,
            psycopg.connect(standby.dsn, autocommit=True, row_factory=dict_row) as db,
        ):
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                stage.claim(db)
            with pytest.raises(DatabaseUnavailable):
                asyncio.run(Engine.connect(standby.dsn, writable=True))
            db.execute("select pg_promote()")
            for call in (stage.claim, lambda db: stage.report(db, messages)):
                with pytest.raises(psycopg.Error) as refused:
                    call(db)
                assert refused.value.sqlstate == "MD005"
            db.execute("select pgdrip.unlock('the primary is gone for good')")
            assert stage.claim(db) == []
            assert [row["parked_reason"] for row in stage.live(db)] == [
                "uncertain"
            ] * 20
            assert stage.report(db, messages) == ["stale"] * 5
            assert stage.violations(db) == []


CONNECTED = """
select count(*) from pg_stat_activity where application_name = 'pgdrip-runner'
"""


async def all_connected(world: World) -> None:
    while (await world.query(CONNECTED))[0]["count"] < 2 * world.plan.runners:
        await asyncio.sleep(0.02)


async def crash_in_the_middle(world: World) -> float:
    """Seconds from the return of the server to that of the last runner."""
    while len(world.gateway.ledger()) < 50:
        await asyncio.sleep(0.05)
    await asyncio.to_thread(world.server.crash, signal.SIGQUIT)
    await asyncio.to_thread(world.server.start_again)
    began = time.monotonic()
    await all_connected(world)
    return time.monotonic() - began


def test_eight_runners_are_back_5_s_after_a_crash_and_lose_nothing(
    tmp_path: Path,
) -> None:
    plan = Plan(
        name="one crash",
        acts=dict(HONEST),
        faults={},
        people=40,
        per_tight=0,
        runners=8,
        slots=10,
        seconds=3,
    )

    async def main() -> tuple[float, Verdict]:
        async with World(plan, tmp_path) as world:
            async with asyncio.timeout(60):
                await all_connected(world)
            playing = asyncio.create_task(world.play())
            seconds = await crash_in_the_middle(world)
            await playing
            return seconds, Verdict.of(world, await judge(world))

    seconds, verdict = asyncio.run(main())
    assert verdict.complaints == [], verdict
    assert verdict.judged.recovered == []
    assert seconds < 5
