"""Run pgspot over db/functions; its parser knows no bodies that are bound when created.

It gets those as strings that pin the search path: `pgdrip migrate` binds them by a
pinned path, too. PL/pgSQL bodies are for plpgsql_check.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

FUNCTIONS = Path(__file__).parents[1] / "db/functions"
PINNED = "\n  set search_path = pg_catalog, pg_temp\nas $$\n{}\n$$;\n"
OPTIONS = ["--append", "--no-plpgsql", "--ignore", "PS002", "--ignore", "PS015"]
# The procedure of pg_cron commits, which none with a pinned path may.
UNPINNED = ["--proc-without-search-path", "pgdrip.tick_for_a_minute()"]


def as_strings(sql: str) -> str:
    sql = re.sub(
        r"\nbegin atomic\n(.*?);\nend;\n",
        lambda found: PINNED.format(found[1]),
        sql,
        flags=re.DOTALL,
    )
    return re.sub(
        r"\nreturn (.*?);\n",
        lambda found: PINNED.format("select " + found[1]),
        sql,
        flags=re.DOTALL,
    )


with tempfile.TemporaryDirectory() as directory:
    copies = [Path(directory, path.name) for path in sorted(FUNCTIONS.glob("*.sql"))]
    for copy in copies:
        copy.write_text(as_strings((FUNCTIONS / copy.name).read_text()))
    pgspot = Path(sys.executable).with_name("pgspot")
    done = subprocess.run(
        [pgspot, *OPTIONS, *UNPINNED, *copies],
        capture_output=True,
        text=True,
        check=False,
    )
told = done.stdout + done.stderr
for line in told.splitlines():
    if re.match("PS|TOTAL|list", line):
        print(line)
sys.exit(done.returncode or "list index out of range" in told)
