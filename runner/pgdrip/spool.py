"""The results a runner knows and has not reported, kept on disk.

One JSON object a line, appended the moment an outcome is known, so that kill -9 loses
none; on disk for good before a report of it can fail. What was reported before the end
may be in the file still: a report may be repeated. A line that cannot be read (the end
of the file, after a crash of the machine) is left out with a warning.

The file is named after the runner and its database: whichever process runs under that
name there finds it, one at a time.
"""

import asyncio
import fcntl
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

from pgdrip.errors import ConfigurationError
from pgdrip.results import Result

REWRITE_AT = 1 << 20  # bytes of a file before what was reported is taken out

logger = logging.getLogger(__name__)


class Spool:
    """Raises ConfigurationError when the file cannot be had; once it is open, a disk
    that refuses is an error in the log: the results are in memory, too."""

    def __init__(self, directory: Path, *, name: str, database: str) -> None:
        self.path = directory / f"{quote(name, safe='')}.{database}.jsonl"
        self._lines: dict[int, bytes] = {}
        self._is_torn = self._is_dirty = False
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file, self._size = self._opened(self.path), 0
            self.found = list(self._read())
            self._rewrite()
        except BlockingIOError:
            raise ConfigurationError(
                f"another runner named {name} has the spool file {self.path}",
                hint="give each runner a --name of its own",
            ) from None
        except OSError as error:
            raise ConfigurationError(f"--spool {directory}: {error.strerror}") from None

    def add(self, result: Result) -> None:
        line = json.dumps(asdict(result), ensure_ascii=False).encode() + b"\n"
        self._lines[result.token] = line
        # After a write that failed half-way the line begins on a line of its own.
        data = b"\n" + line if self._is_torn else line
        try:
            self._is_torn = os.write(self._file, data) < len(data)
        except OSError as error:
            self._is_torn = True
            self._complain(error)
        self._size += len(data)
        self._is_dirty = True

    async def sync(self) -> None:
        """Return when the disk has every line."""
        if self._is_dirty:
            self._is_dirty = False
            try:
                await asyncio.to_thread(os.fdatasync, self._file)
            except OSError as error:
                self._complain(error)

    def remove(self, results: Iterable[Result]) -> None:
        """Forget what was reported."""
        for result in results:
            self._lines.pop(result.token, None)
        try:
            if not self._lines:
                os.truncate(self._file, 0)
                self._size, self._is_torn = 0, False
            elif self._size > REWRITE_AT:
                self._rewrite()
        except OSError as error:
            self._complain(error)

    def close(self) -> None:
        """A file with nothing in it goes."""
        if not self._lines:
            self.path.unlink(missing_ok=True)
        os.close(self._file)

    def _opened(self, path: Path) -> int:
        while True:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
                    return file
            except OSError:
                os.close(file)
                raise
            os.close(file)  # it was replaced before it was locked

    def _read(self) -> Iterable[Result]:
        for number, line in enumerate(self.path.read_bytes().splitlines(), 1):
            try:
                result = Result(**json.loads(line))
            except (TypeError, ValueError):
                told = {"file": str(self.path), "line": number}
                logger.warning("a line of the spool cannot be read", extra=told)
            else:
                if result.token not in self._lines:
                    self._lines[result.token] = line + b"\n"
                    yield result

    def _rewrite(self) -> None:
        """Put a file with what is unreported in the place of this one."""
        data = b"".join(self._lines.values())
        beside = self.path.with_suffix(".new")
        beside.unlink(missing_ok=True)
        file = self._opened(beside)
        try:
            with os.fdopen(os.dup(file), "wb") as stream:
                stream.write(data)
            os.fsync(file)
            beside.replace(self.path)
        except OSError:
            os.close(file)
            raise
        os.close(self._file)
        self._file, self._size, self._is_torn = file, len(data), False

    def _complain(self, error: OSError) -> None:
        told = {"file": str(self.path), "error": error.strerror}
        logger.error("the spool cannot be written", extra=told)
