"""A Docker engine: the one that answers, else one started by hand, ended after use."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PACKAGES = {
    "dockerd": "docker.io",
    "docker": "docker.io",
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
}
ADDRESS = "172.29.0.1/24"
BRIDGE = Path("/sys/class/net/docker0")
SECONDS = 60  # to start, and to end


class NoEngine(Exception):
    """No engine can be had here; the text says why, in a few words."""


@contextmanager
def engine() -> Iterator[dict[str, str]]:
    """The environment that its clients need. Raises NoEngine."""
    install()
    if answers(os.environ):
        yield dict(os.environ)
        return
    home = Path(tempfile.mkdtemp(prefix="pgdrip-docker-", dir="/var/tmp"))
    had_bridge, groups = BRIDGE.exists(), set(control_groups())
    process = start(home)
    environment = os.environ | {"DOCKER_HOST": f"unix://{home}/socket"}
    try:
        await_answer(process, home, environment)
        yield environment
    finally:
        process.terminate()
        process.wait(SECONDS)
        remove(home)
        if BRIDGE.exists() and not had_bridge:
            subprocess.run(["ip", "link", "delete", BRIDGE.name], check=True)
        for group in set(control_groups()) - groups:
            group.rmdir()


def install() -> None:
    """Have Debian's packages where programs are missing. Raises NoEngine."""
    missing = {PACKAGES[name] for name in PACKAGES if not shutil.which(name)}
    if not has_compose():
        missing.add("docker-compose")
    if not missing:
        return
    remedy = f"apt-get install {' '.join(sorted(missing))}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise NoEngine(f"as root: {remedy}")
    done = subprocess.run(
        [*remedy.split(), "--quiet", "--yes", "--no-install-recommends"],
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise NoEngine(f"{remedy}: {last_line(done.stderr)}")


def has_compose() -> bool:
    return bool(shutil.which("docker-compose")) or plugin_answers()


def plugin_answers() -> bool:
    """Whether `docker compose` is there, which is Compose 2."""
    return bool(shutil.which("docker")) and succeeds("docker", "compose", "version")


def answers(environment: Mapping[str, str]) -> bool:
    return succeeds("docker", "info", environment=environment)


def succeeds(*command: str, environment: Mapping[str, str] = os.environ) -> bool:
    done = subprocess.run(command, env=environment, capture_output=True)
    return done.returncode == 0


def start(home: Path) -> "subprocess.Popen[bytes]":
    """An engine that changes no firewall and no routing of the machine."""
    options = (
        "--iptables=false --ip6tables=false --ip-masq=false --ip-forward=false"
        f" --ip=127.0.0.1 --bip={ADDRESS} --data-root={home}/data"
        f" --exec-root={home}/run --pidfile={home}/pid --host=unix://{home}/socket"
    )
    with (home / "log").open("wb") as log:
        return subprocess.Popen(
            ["dockerd", *options.split()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def await_answer(
    process: "subprocess.Popen[bytes]", home: Path, environment: Mapping[str, str]
) -> None:
    """Raises NoEngine with the engine's last words when it ends or stays silent."""
    deadline = time.monotonic() + SECONDS
    while not answers(environment):
        if process.poll() is not None or time.monotonic() > deadline:
            raise NoEngine(last_line((home / "log").read_text(errors="replace")))
        time.sleep(0.2)


def remove(home: Path) -> None:
    """A directory and what is still mounted in it: the engine leaves a namespace."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        place = line.split()[1]
        if place.startswith(f"{home}/"):
            subprocess.run(["umount", place], check=True)
    shutil.rmtree(home)


def control_groups() -> Iterator[Path]:
    """Those of engines; there is one for each resource below version 2."""
    for place in ("docker", "*/docker"):
        yield from Path("/sys/fs/cgroup").glob(place)


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it says nothing"])[-1]
