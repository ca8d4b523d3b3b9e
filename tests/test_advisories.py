"""What `make check` says of published vulnerabilities, by an advisory service here."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

import advisories

LOCKED = sum("==" in line for line in advisories.LOCK.read_text().splitlines())
# As https://google.github.io/osv.dev/post-v1-query/ has it.
ADVISORY = {
    "id": "PYSEC-2026-1",
    "summary": "click runs what it should not",
    "affected": [
        {
            "package": {"name": "click", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"fixed": "99.0"}]}],
        }
    ],
}


@contextmanager
def service(status: int, body: str, of_click: str = "") -> Iterator[str]:
    """An advisory service: what it says of every package, or of click alone."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            is_click = asked["package"] == {"name": "click", "ecosystem": "PyPI"}
            self.send_response(status)
            self.end_headers()
            self.wfile.write((of_click if of_click and is_click else body).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1/query"
        finally:
            server.shutdown()
            thread.join()


def audit(url: str, home: Path) -> tuple[int, list[str]]:
    """The exit code and what was printed."""
    done = subprocess.run(
        [sys.executable, advisories.__file__],
        env=os.environ
        | {"PIP_AUDIT_OSV_URL": url, "XDG_CACHE_HOME": str(home), "NO_PROXY": "*"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def test_every_locked_package_without_an_advisory_passes(tmp_path: Path) -> None:
    with service(200, "{}") as url:
        assert audit(url, tmp_path) == (
            0,
            [f"{LOCKED} packages; published vulnerabilities: 0"],
        )


def test_a_published_vulnerability_fails_and_is_named(tmp_path: Path) -> None:
    with service(200, "{}", json.dumps({"vulns": [ADVISORY]})) as url:
        code, [total, line] = audit(url, tmp_path)
    assert (code, total) == (1, f"{LOCKED} packages; published vulnerabilities: 1")
    assert line.startswith("click ")
    assert line.endswith(": PYSEC-2026-1, mended in 99.0")


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, "not found"), (200, "<html>Log in</html>"), (200, '{"code": 3}')],
)
def test_nonsense_of_the_service_is_told_and_fails_nothing(
    tmp_path: Path, status: int, body: str
) -> None:
    with service(status, body) as url:
        code, [line] = audit(url, tmp_path)
    assert code == 0
    assert line.startswith("vulnerabilities not looked up")


def test_a_service_that_is_not_there_is_told_and_fails_nothing(tmp_path: Path) -> None:
    with service(200, "{}") as url:
        pass
    code, [line] = audit(url, tmp_path)
    assert code == 0
    assert "Connection refused" in line
