"""Loads fleets: set-based, through the engine's tables, as calls would take hours."""

from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from bench import limit

SQL = Path(__file__).with_name("fleet.sql")
HIGH = 1_000_000
"""An hourly rate that is a limit, is kept count of, and holds nobody back."""
TOLD_OF = ("senders", "contacts", "enrollments", "due", "wakes")
"""What autovacuum would analyze in the middle of a run."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """So many senders and enrollments, the first `due` of them due, each with so many
    steps in its history; `rate` in messages an hour of each sender."""

    enrollments: int
    due: int
    senders: int = 3000
    history: int = 0
    rate: int = HIGH
    is_analyzed: bool = True
    """Else nobody has told the planner anything, and nobody will."""


def load(dsn: str, fleet: Fleet) -> None:
    """Fill an empty database."""
    with psycopg.connect(dsn, autocommit=True) as db:
        sequence(db)
        db.execute(
            "select pgdrip.create_partitions(pgdrip.clock() - interval '2 months'),"
            "       pgdrip.create_partitions(pgdrip.clock())"
        )
        psycopg.ClientCursor(db).execute(SQL.read_bytes(), asdict(fleet))
    limit.set_up(dsn, limit_rows(fleet))
    with psycopg.connect(dsn, autocommit=True) as db:
        if fleet.is_analyzed:
            db.execute("vacuum (freeze, analyze)")
        else:
            db.execute("vacuum freeze")
            for table in TOLD_OF:
                db.execute(
                    sql.SQL(
                        "alter table pgdrip.{} set (autovacuum_enabled = off)"
                    ).format(sql.Identifier(table))
                )
        db.execute("checkpoint")


def limit_rows(fleet: Fleet) -> int:
    """As many as the fleet has, up to a million."""
    return min(fleet.enrollments, 1_000_000)


def sequence(db: psycopg.Connection[tuple[object, ...]], **options: object) -> None:
    """Sixty steps, a day apart, on the channel `log`."""
    steps = [
        {"day": day, "body": f"Message {day} for {{{{name|you}}}}"}
        for day in range(1, 61)
    ]
    definition: dict[str, object] = {"name": "WARM", "trigger": "WARM"}
    definition |= {"channel": "log", "status": "active", "steps": steps} | options
    db.execute("select * from pgdrip.apply_sequence(%s)", [Jsonb(definition)])


def make_due(dsn: str, wanted: int) -> None:
    """See that so many steps are due: those that went out come round again."""
    with psycopg.connect(dsn, autocommit=True) as db:
        [there] = db.execute(
            "select count(*) from pgdrip.due where due_at <= pgdrip.clock()"
        ).fetchone() or (0,)
        if there >= wanted:
            return
        db.execute(
            "update pgdrip.due set due_at = due_at - interval '25 hours'"
            " where due_at between pgdrip.clock()"
            "   and pgdrip.clock() + interval '24 hours 1 minute'"
        )
        db.execute(
            "update pgdrip.paces as p set next_at = f.due_at, floor_at = 'epoch'"
            " from (select sender_id, min(due_at) as due_at"
            "         from pgdrip.due group by sender_id) as f"
            " where f.sender_id = p.sender_id"
        )
        db.execute("vacuum pgdrip.due, pgdrip.paces")
