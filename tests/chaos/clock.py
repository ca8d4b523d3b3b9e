"""A clock that runs `factor` times as fast as ours, the same inside and outside.

Inside it replaces pgdrip.clock(); it survives a crash, since nothing moves it.
"""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

import psycopg

from pgdrip.migrate import apply_test_clock

START = datetime(2026, 1, 5, 9, tzinfo=UTC)
BODY = """
create or replace function pgdrip.clock()
  returns timestamptz
  language plpgsql
  stable
  parallel safe
  set search_path = pg_catalog, pg_temp
as $$
begin
  return timestamptz 'epoch' + make_interval(secs => {start}
    + (extract(epoch from clock_timestamp())::double precision - {since}) * {factor});
end
$$
"""


@dataclass(frozen=True, slots=True)
class Clock:
    """`since` is the real time, in seconds since 1970, at which it showed `start`."""

    factor: float
    start: datetime = START
    since: float = field(default_factory=time.time)

    def install(self, dsn: str) -> None:
        apply_test_clock(dsn)
        body = BODY.format(
            start=self.start.timestamp(), since=repr(self.since), factor=self.factor
        )
        with psycopg.connect(dsn) as connection:
            connection.execute(body.encode())

    def now(self) -> float:
        """Seconds since 1970, as the database has it."""
        return self.start.timestamp() + (time.time() - self.since) * self.factor

    def real(self, seconds: float) -> float:
        """How long so many of its seconds take."""
        return seconds / self.factor
