"""In the container of `docker compose run --rm test`: files of tests/sql by pg_prove,
in each zone, then pytest on everything else; or those of both that are named."""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

from databases import Databases  # noqa: E402
from pgtap import ZONES  # noqa: E402


def main(paths: list[str]) -> int:
    """Exit code: 0 when everything passed."""
    server = make_conninfo(
        host=os.environ["PGHOST"],
        user=os.environ["PGUSER"],
        password=os.environ["PGPASSWORD"],
        dbname="postgres",
    )
    named = [Path(path) for path in paths] or [TESTS / "sql", TESTS]
    assertions = [path for path in named if is_tap(path)]
    others = [path for path in named if not is_tap(path)]
    failed = prove(server, sorted(files(assertions)))
    for path in failed:
        print(f"failed: {path}", flush=True)
    passed = not others or pytest(server, others, ignored=assertions)
    return 0 if passed and not failed else 1


def is_tap(path: Path) -> bool:
    return path.suffix == ".sql" or path.name == "sql"


def files(paths: Iterable[Path]) -> set[Path]:
    return {
        file
        for path in paths
        for file in (path.glob("*.sql") if path.is_dir() else [path])
    }


def prove(server: str, paths: Iterable[Path]) -> list[str]:
    """Run each file in a database of its own; which failed, and in which zone."""
    databases = Databases(server)
    failed = []
    try:
        for path in paths:
            for zone in ZONES:
                with databases.clone() as dsn:
                    name = str(conninfo_to_dict(dsn)["dbname"])
                    own = {"PGDATABASE": name, "PGTZ": zone, "PGCLIENTENCODING": "UTF8"}
                    done = subprocess.run(["pg_prove", path], env=os.environ | own)
                if done.returncode:
                    failed.append(f"{path} in {zone}")
    finally:
        databases.close()
    return failed


def pytest(server: str, paths: Iterable[Path], ignored: Iterable[Path]) -> bool:
    """Whether everything passed; `ignored` is what pg_prove had."""
    program = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider")
    command = [*program, *(f"--ignore={path}" for path in ignored), *map(str, paths)]
    own = {"PGDRIP_TEST_DATABASE_URL": server}
    return subprocess.run(command, env=os.environ | own).returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
