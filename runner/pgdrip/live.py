"""`pgdrip top`: the queue and its busiest senders, looked at again and again."""

import asyncio
import sys
from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pgdrip.console import Terminal, printable, shown, span
from pgdrip.engine import Engine
from pgdrip.query import value_of, view

NOW = value_of("clock")
HEALTH = view("queue_health")
LOAD = view("sender_load", order="backlog desc, used_hour desc, sender", limit=100)
COUNTS = ("due_now", "in_flight", "awaiting", "scheduled", "parked", "uncertain")
# sender_load's columns and how wide they are drawn, 80 together with what is between.
COLUMNS = {
    "sender": 22,
    "state": 8,
    "used_hour": 6,
    "limit_hour": 6,
    "used_day": 6,
    "backlog": 8,
    "in_flight": 6,
}


async def watch(dsn: str, *, every: float, looks: int | None = None) -> None:
    """Draw until interrupted or looked `looks` times; `every` is in seconds."""
    terminal = Terminal(highlight=False)
    async with await Engine.connect(dsn) as engine:
        with Live(
            console=terminal, screen=sys.stdout.isatty(), auto_refresh=False
        ) as screen:
            while True:
                screen.update(await look(engine, terminal.height), refresh=True)
                looks = looks and looks - 1
                if looks == 0:
                    return
                await asyncio.sleep(every)


async def look(engine: Engine, height: int) -> Group:
    """What there is to see now, on a screen of so many lines."""
    now = (await engine.ask(NOW)).value
    [health] = (await engine.ask(HEALTH)).records()
    senders = (await engine.ask(LOAD)).records()
    return Group(
        Text(f"pgdrip  {shown(now)}", "bold"),
        _counts(health),
        _state(health, now),
        _senders(senders[: max(1, height - 8)]),
    )


def _counts(health: Mapping[str, Any]) -> Text:
    words = [f"{name.replace('_', ' ')} {health[name]:,}" for name in COUNTS]
    return Text("  ".join(words), no_wrap=True, overflow="ellipsis")


def _state(health: Mapping[str, Any], now: Any) -> Text:
    line = Text(f"runners {health['runners_alive']}", no_wrap=True)
    if health["oldest_due_at"]:
        line.append(f"  oldest due {span(now - health['oldest_due_at'])} ago")
    if health["is_locked"]:
        line.append("  LOCKED", "bold red")
    if health["is_paused"]:
        line.append("  PAUSED", "bold yellow")
    if health["senders_down"]:
        line.append(f"  senders down {health['senders_down']:,}", "red")
    return line


def _senders(senders: list[dict[str, Any]]) -> Table:
    drawn = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for name, width in COLUMNS.items():
        is_word = name in ("sender", "state")
        drawn.add_column(
            name.replace("_", " "),
            justify="left" if is_word else "right",
            width=width,
            no_wrap=name == "sender",
            overflow="ellipsis",
        )
    for sender in senders:
        healthy = sender["health"] == "healthy"
        state = sender["status"] if healthy else sender["health"]
        numbers = [shown(sender[name]) for name in list(COLUMNS)[2:]]
        drawn.add_row(
            Text(printable(sender["sender"])),
            Text(state, "" if state == "active" else "yellow"),
            *numbers,
        )
    return drawn
