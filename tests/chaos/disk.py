"""A disk that is full for a while."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

DIRECTORY = "/var/tmp"  # where the servers' users get to
PIECE = bytes(1 << 20)


class SmallDisk:
    """A file system of its own, at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self) -> None:
        """Take what is left of it."""
        with suppress(OSError), self._filler.open("wb", buffering=0) as file:
            while True:
                file.write(PIECE)

    def free(self) -> None:
        """Give it back."""
        self._filler.unlink()


@contextmanager
def small_disk(megabytes: int, owner: os.stat_result) -> Iterator[SmallDisk | None]:
    """One that belongs to whom that file belongs; None where nobody may mount any."""
    path = Path(tempfile.mkdtemp(prefix="pgdrip-disk-", dir=DIRECTORY))
    options = f"size={megabytes}m,mode=0700,uid={owner.st_uid},gid={owner.st_gid}"
    path.chmod(0o755)
    try:
        if not _succeeds("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)):
            yield None
            return
        try:
            yield SmallDisk(path)
        finally:
            _succeeds("umount", "--lazy", str(path))
    finally:
        path.rmdir()


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False
