"""docker-compose.yml and both images for real, from `docker compose up` to a message.

Run as `python -m containers` in tests/. Where no engine can be had, or none that runs a
container which reaches packages, it says so in one line and ends well; everything it
makes is gone afterwards.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPRedirectHandler, build_opener

import databases
from containers.base import assert_reaches_packages, make_base
from containers.engine import NoEngine, engine
from containers.stack import CHECKOUT, PAGE_TOKEN, Stack

DEFINITIONS = """\
kind: sender
name: desk
channel: log
---
kind: sequence
name: Welcome
trigger: WELCOME
channel: log
status: active
steps:
  - {day: 1, body: "Hi {{name|there}}, in a container"}
  - {day: 3, body: Again}
"""
CONTACTS = "phone,name,trigger\n+60123456789,Aisyah,WELCOME\n"
TAP = (
    "tests/sql/01_guard.sql",
    "tests/sql/03_template.sql",
    "tests/sql/10_contact.sql",
)
PYTEST = "tests/test_psql.py"


def main() -> int:
    try:
        with engine() as environment:
            play(environment)
    except NoEngine as reason:
        print(f"containers: left out: {reason}")
    return 0


def play(environment: dict[str, str]) -> None:
    name = f"pgdrip-containers-{os.getpid()}"
    with step("a base image of Debian's packages"):
        base = make_base(name, environment)
    stack = Stack(name, environment)
    try:
        assert_reaches_packages(base, environment)
        proven(stack)
    except NoEngine:
        raise
    except Exception:
        print(stack.run("logs", "--no-color"), flush=True)
        raise
    finally:
        stack.run("down", "--volumes", "--remove-orphans", "--rmi", "local")
        stack.docker("docker", "image", "rm", base)


def proven(stack: Stack) -> None:
    with step("the images are built"):
        stack.run("build")
        stack.run("build", "test")
    with step("every service is healthy"):
        stack.run("up", "--detach")
        stack.await_healthy()
    with step("a sequence is applied, and its message goes out"):
        sends(stack)
    with step("the server lets in to its page who has the token"):
        shows(stack)
    with step("the service `test` passes"):
        print(stack.run("run", "--rm", "test", *TAP, PYTEST))
    with step("testcontainers run the image"):
        testcontainers(stack)


@contextmanager
def step(fact: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    print(f"containers: {fact} ({time.monotonic() - start:.0f} s)", flush=True)


def sends(stack: Stack) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        for file, text in (("it.yaml", DEFINITIONS), ("it.csv", CONTACTS)):
            Path(folder, file).write_text(text)
        once = ("run", "--rm", "--volume", f"{folder}:/my:ro", "runner")
        stack.run(*once, "apply", "/my/it.yaml")
        stack.run(*once, "import", "/my/it.csv")
    stack.until(
        lambda: "Hi Aisyah, in a container" in stack.run("logs", "runner"), "a message"
    )
    ask = ("exec", "-T", "runner", "pgdrip")
    stack.until(
        lambda: "due in" in stack.run(*ask, "explain", "contact", "1"), "its report"
    )
    stack.run(*ask, "check")
    stack.run(*ask, "healthcheck", "--runners", "1")


class _Stay(HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def shows(stack: Stack) -> None:
    url = f"http://127.0.0.1:{stack.http_port}"
    right, wrong = (
        urlencode({"token": token, "name": "Ann"}).encode()
        for token in (PAGE_TOKEN, "something else")
    )
    assert answer(f"{url}/livez") == (HTTPStatus.OK, None)
    assert answer(f"{url}/login", right)[1]
    assert not answer(f"{url}/login", wrong)[1]
    assert answer(url)[0] != HTTPStatus.OK


def answer(url: str, form: bytes | None = None) -> tuple[int, str | None]:
    """The status, and the cookie if one is set."""
    try:
        told = build_opener(_Stay).open(url, form, timeout=10)
    except HTTPError as error:
        told = error
    with told:
        return told.status, told.headers["Set-Cookie"]


def testcontainers(stack: Stack) -> None:
    """tests/databases.py finds the image under the name it would build it by."""
    image = databases.image_name()
    stack.docker("docker", "tag", stack.image("db"), image)
    own = {
        "PGDRIP_PG": "docker",
        "TESTCONTAINERS_CONNECTION_MODE": "docker_host",
        "TESTCONTAINERS_RYUK_DISABLED": "true",
    }
    try:
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", PYTEST],
            cwd=CHECKOUT,
            env=stack.environment | own,
            check=True,
        )
    finally:
        stack.docker("docker", "image", "rm", image)


if __name__ == "__main__":
    sys.exit(main())
