"""docker-compose.yml, up under a name and on ports of its own."""

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from containers.base import PG_MAJOR, SUITE
from containers.engine import plugin_answers

CHECKOUT = Path(__file__).parents[2]
FILES = ("docker-compose.yml", "tests/containers/compose.yml")
SERVICES = ("db", "runner", "serve")  # those that stay
PAGE_TOKEN = "look-and-act-in-this-test"
SECONDS = 120


class Stack:
    """`base` is the name, without its tag, of the image that all others come from."""

    def __init__(self, base: str, environment: Mapping[str, str]) -> None:
        self.port, self.http_port = free_port(), free_port()
        own = {
            "COMPOSE_PROJECT_NAME": base,
            "PGDRIP_HTTP_PORT": str(self.http_port),
            "PGDRIP_PAGE_TOKEN": PAGE_TOKEN,
            "PGDRIP_PORT": str(self.port),
            "PG_BASE": base,
            "PG_MAJOR": PG_MAJOR,
            "PYTHON_BASE": f"{base}:{PG_MAJOR}-{SUITE}",
            "DOCKER_BUILDKIT": "0",
        }
        self.environment = dict(environment) | own
        has_plugin = not shutil.which("docker-compose") and plugin_answers()
        program = ["docker", "compose"] if has_plugin else ["docker-compose"]
        self._compose = [*program, *(f"--file={file}" for file in FILES)]

    def run(self, *arguments: str | Path) -> str:
        """One command of Compose; what it writes. Its log is shown if it fails."""
        return self.docker(*self._compose, *arguments)

    def docker(self, *command: str | Path) -> str:
        done = subprocess.run(
            command,
            cwd=CHECKOUT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            print(done.stdout, done.stderr, sep="", flush=True)
            done.check_returncode()
        return done.stdout

    def image(self, service: str) -> str:
        """The id of the image a running service has."""
        container = self.run("ps", "--quiet", service).strip()
        return self.docker("docker", "inspect", "-f", "{{.Image}}", container).strip()

    def health(self, service: str) -> str:
        container = self.run("ps", "--quiet", service).strip()
        told = "{{.State.Health.Status}}"
        return self.docker("docker", "inspect", "-f", told, container).strip()

    def await_healthy(self) -> None:
        self.until(
            lambda: {self.health(one) for one in SERVICES} == {"healthy"}, "health"
        )

    def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait for it. Raises TimeoutError."""
        deadline = time.monotonic() + SECONDS
        while not holds():
            if time.monotonic() > deadline:
                raise TimeoutError(what)
            time.sleep(0.5)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
