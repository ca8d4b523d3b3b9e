"""One image, made of Debian's packages, in place of the official ones of PostgreSQL and
Python, which are in a registry."""

import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

from containers.engine import NoEngine, last_line

SUITE = "bookworm"
PG_MAJOR = "15"
PACKAGES = f"ca-certificates,postgresql-{PG_MAJOR},python3-pip"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
DATA = "/var/lib/postgresql/data"
ENTRYPOINT = Path(__file__).with_name("postgres.sh")
CHANGES = (
    f"ENV PATH=/usr/lib/postgresql/{PG_MAJOR}/bin:/usr/local/bin:/usr/sbin:/usr/bin",
    f"ENV PGDATA={DATA}",
    "ENV LANG=C.UTF-8",
    "ENV PIP_BREAK_SYSTEM_PACKAGES=1",
    f'ENTRYPOINT ["/usr/local/bin/{ENTRYPOINT.name}"]',
)
NO_CLUSTER = (
    'mkdir -p "$1/etc/postgresql-common"; echo "create_main_cluster = false"'
    ' >"$1/etc/postgresql-common/createcluster.conf"'
)


def make_base(name: str, environment: Mapping[str, str]) -> str:
    """Import it as name:15-bookworm; that whole name. It trusts the certificates that
    this machine does. Raises NoEngine where Debian's packages cannot be had."""
    image = f"{name}:{PG_MAJOR}-{SUITE}"
    changes = [word for change in CHANGES for word in ("--change", change)]
    packing = subprocess.Popen(
        [
            *("mmdebstrap", "--quiet", "--variant=apt", f"--include={PACKAGES}"),
            "--dpkgopt=force-unsafe-io",
            f"--essential-hook={NO_CLUSTER}",
            f"--customize-hook=copy-in {shlex.quote(str(ENTRYPOINT))} /usr/local/bin",
            f"--customize-hook=copy-in {CERTIFICATES} /etc/ssl/certs",
            *(SUITE, "-", mirror()),
        ],
        stdout=subprocess.PIPE,
    )
    importing = subprocess.run(
        ["docker", "import", *changes, "-", image],
        env=environment,
        stdin=packing.stdout,
        stdout=subprocess.DEVNULL,
    )
    if packing.wait() or importing.returncode:
        raise NoEngine("no base image can be made of Debian's packages")
    return image


def assert_reaches_packages(image: str, environment: Mapping[str, str]) -> None:
    """Raises NoEngine where a container of it does not run, or not with a network."""
    look = "apt-get update -qq && pip download -qq --no-deps --dest /tmp click"
    done = subprocess.run(
        [
            *("docker", "run", "--rm", "--network=host", "--entrypoint=sh"),
            *(image, "-c", look),
        ],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise NoEngine(f"a container reaches no packages: {last_line(done.stderr)}")


def mirror() -> str:
    """Where this machine has Debian's packages from."""
    wanted = ("Created-By: Packages", "Origin: Debian", f"Codename: {SUITE}")
    told = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", *wanted],
        capture_output=True,
        text=True,
    ).stdout
    return next(iter(told.split()), "http://deb.debian.org/debian")
