"""Questions to the database as whole statements, for the command line: what is run is
what `--show-sql` prints, and what psql takes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from pgdrip.errors import EngineRefused


@dataclass(frozen=True, slots=True)
class Query:
    """One statement; every value in it is a quoted literal.

    `is_value`: its answer is one value, not rows.
    """

    statement: sql.Composed
    is_value: bool = False

    def __str__(self) -> str:
        return f"{self.statement.as_string()};"


CONTACTS = Query(
    sql.Composed(
        [
            sql.SQL("""\
select contact_id, pool, phone, email, name, timezone,
       array_to_string(triggers, ';') as trigger, preferred_sender as sender,
       attributes, created_at
  from pgdrip.contact_details
 where erased_at is null
 order by contact_id""")
        ]
    )
)
"""Every contact, in the columns that an import takes."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a function of the schema by named arguments; it may be one itself."""

    name: LiteralString
    arguments: Mapping[LiteralString, Any]

    def composed(self) -> sql.Composed:
        named = [
            sql.SQL("p_{} => {}").format(sql.SQL(key), _value(value))
            for key, value in self.arguments.items()
        ]
        return sql.SQL("pgdrip.{}({})").format(
            sql.SQL(self.name), sql.SQL(", ").join(named)
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the names of the columns and the rows."""

    columns: Sequence[str]
    rows: Sequence[tuple[Any, ...]]

    def records(self) -> list[dict[str, Any]]:
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    @property
    def value(self) -> Any:
        """The one value of a function that returns neither set nor record."""
        [[value]] = self.rows
        return value


def value_of(name: LiteralString, /, **arguments: Any) -> Query:
    """Call a function that returns one value, its arguments named without their p_."""
    called = Call(name, arguments).composed()
    return Query(sql.SQL("select {}").format(called), is_value=True)


def rows_of(name: LiteralString, /, **arguments: Any) -> Query:
    """Call a function that returns a record or a set of them."""
    return Query(sql.SQL("select * from {}").format(Call(name, arguments).composed()))


def view(
    name: LiteralString,
    /,
    *,
    columns: Sequence[LiteralString] = ("*",),
    where: Mapping[LiteralString, Any] | None = None,
    order: LiteralString | None = None,
    since: timedelta | None = None,
    limit: int | None = None,
) -> Query:
    """Read a view: the rows that equal `where`, in which None says nothing.

    `since` is how old the column `at` may be.
    """
    text = sql.SQL("select {} from pgdrip.{}").format(
        sql.SQL(", ").join(map(sql.SQL, columns)), sql.SQL(name)
    )
    equal = [
        sql.SQL("{} = {}").format(sql.SQL(key), _value(value))
        for key, value in (where or {}).items()
        if value is not None
    ]
    if since is not None:
        equal.append(sql.SQL("at > pgdrip.clock() - {}").format(_value(since)))
    if equal:
        text += sql.SQL(" where {}").format(sql.SQL(" and ").join(equal))
    if order:
        text += sql.SQL(" order by {}").format(sql.SQL(order))
    if limit is not None:
        text += sql.SQL(" limit {}").format(_value(limit))
    return Query(text)


def _value(value: Any) -> sql.Composable:
    if isinstance(value, Call):
        return value.composed()
    literal = sql.Literal(value)
    try:
        return sql.SQL(literal.as_string())
    except (UnicodeEncodeError, psycopg.DataError) as error:  # a lone surrogate, a NUL
        raise EngineRefused("a text is not valid Unicode") from error
