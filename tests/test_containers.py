"""What `python -m containers` does without an engine, and what Compose opens."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from databases import CHECKOUT


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    content = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())
    found: dict[str, Any] = content["services"]
    return found


def left_out(programs: Path) -> str:
    """Why the containers are, where nothing but these programs is to be found."""
    done = subprocess.run(
        [sys.executable, "-m", "containers"],
        cwd=CHECKOUT / "tests",
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    [line] = done.stdout.splitlines()
    assert line.startswith("containers: left out: ")
    return line.removeprefix("containers: left out: ")


def test_without_an_engine_one_line_names_the_packages(tmp_path: Path) -> None:
    assert left_out(tmp_path) == (
        "as root: apt-get install docker-compose docker.io iproute2 mmdebstrap"
    )


def test_an_engine_that_does_not_start_is_quoted_and_gone(tmp_path: Path) -> None:
    for name in ("docker", "docker-compose", "ip", "mmdebstrap"):
        program(tmp_path / name, "exit 1")
    program(tmp_path / "dockerd", "echo starting; echo 'no right to mount'; exit 1")
    before = set(os.listdir("/var/tmp"))
    assert left_out(tmp_path) == "no right to mount"
    assert not [
        name
        for name in set(os.listdir("/var/tmp")) - before
        if name.startswith("pgdrip-docker-")
    ]


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_what_is_published_is_for_this_machine_only(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_whatever_stays_up_says_whether_it_is_healthy(services: dict[str, Any]) -> None:
    staying = {name for name, service in services.items() if "restart" in service}
    assert staying == {"db", "runner", "serve"}
    assert all("healthcheck" in services[name] for name in staying)
