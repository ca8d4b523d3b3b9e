"""What pgdrip raises, and the exit code the command line turns it into.

PgdripError              1  unexpected
├─ UsageError            2
├─ ConfigurationError    3
├─ DatabaseUnavailable   4  unreachable, read-only, out of space or too busy
├─ SchemaMismatch        5
├─ RowsRejected          6
├─ InvariantViolated     7
├─ PermissionDenied      8
└─ EngineRefused         1  a database function said no; sqlstate and hint say why
"""

from typing import ClassVar

import psycopg

ENGINE_LOCKED = "MD005"
VERSION_REFUSED = "MD006"
# A retry of the same call may succeed at once: serialization, deadlock, lock, timeout.
PASSING = frozenset({"40001", "40P01", "55P03", "57014"})
OUT_OF_SPACE = frozenset({"53100", "53200"})
READ_ONLY = "25006"
# No such function, column, table, schema or type; a function whose shape has changed.
OTHER_SCHEMA = frozenset(
    {"42883", "42P13", "42725", "0A000", "42703", "42P01", "3F000", "42704"}
)
# libpq reports these without an SQLSTATE.
LOGIN_REFUSED = (
    "authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "permission denied",
    'FATAL:  role "',
)
SETTING_REFUSED = ("connection is bad: invalid ", "definition of service ")

MIGRATE = "run `pgdrip migrate`, or the version of pgdrip this database is for"


class PgdripError(Exception):
    """One line for people; `hint` is what to do about it."""

    exit_code: ClassVar[int] = 1

    def __init__(
        self, message: str, *, hint: str | None = None, sqlstate: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.sqlstate = sqlstate


class UsageError(PgdripError):
    """The command line asks for something that cannot be."""

    exit_code = 2


class ConfigurationError(PgdripError):
    """A setting or a connection string that cannot be used."""

    exit_code = 3


class DatabaseUnavailable(PgdripError):
    """The database cannot be reached or cannot write now; later it may."""

    exit_code = 4


class SchemaMismatch(PgdripError):
    """The database holds another version of the schema than this code knows."""

    exit_code = 5


class RowsRejected(PgdripError):
    """Some rows of a file were not imported."""

    exit_code = 6


class InvariantViolated(PgdripError):
    """check() found something that must never be."""

    exit_code = 7


class PermissionDenied(PgdripError):
    """The role may not do this, or may not log in."""

    exit_code = 8


class EngineRefused(PgdripError):
    """A database function refused its arguments or the state it found."""


def from_database(error: psycopg.Error) -> PgdripError:
    """Translate what psycopg raised, by SQLSTATE."""
    state = error.sqlstate
    message = error.diag.message_primary or _first_line(error)
    kind = _kind(error, state, message)
    message = ", ".join([*message.splitlines(), *getattr(error, "__notes__", [])])
    hint = error.diag.message_hint
    if kind is SchemaMismatch and hint is None:
        hint = MIGRATE
    return kind(message, hint=hint, sqlstate=state)


def _kind(error: psycopg.Error, state: str | None, message: str) -> type[PgdripError]:
    if state is None:
        if isinstance(error, psycopg.DataError):  # refused before it was sent: NUL
            return EngineRefused
        if any(words in message for words in LOGIN_REFUSED):
            return PermissionDenied
        if any(words in message for words in SETTING_REFUSED) or isinstance(
            error, psycopg.ProgrammingError
        ):
            return ConfigurationError
        lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return DatabaseUnavailable if lost else PgdripError
    if state in OTHER_SCHEMA or state == VERSION_REFUSED:
        return SchemaMismatch
    if state == "42501" or state.startswith("28"):
        return PermissionDenied
    if state in PASSING or state == READ_ONLY or state[:2] in {"08", "53", "57"}:
        return DatabaseUnavailable
    if state[:2] in {"MD", "22", "23", "54"}:
        return EngineRefused
    return PgdripError


def _first_line(error: psycopg.Error) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
