"""The channel that writes messages down: one JSON object per line.

Sender config: `file` (appended to; made if missing), else standard output.
"""

import json
import sys
from io import FileIO

from pgdrip.channels import Failed, Outcome, Sent, Uncertain, as_json
from pgdrip.engine import ClaimedMessage


class LogChannel:
    async def send(self, message: ClaimedMessage) -> Outcome:
        line = json.dumps(as_json(message), ensure_ascii=False) + "\n"
        data = line.encode()
        try:
            with _opened(message.sender_config.get("file")) as file:
                written = file.write(data)
        except (OSError, TypeError, ValueError) as error:
            return Failed("sender", f"cannot write: {error}")
        if written != len(data):
            return Uncertain("the file took a part of the line only")
        return Sent()

    async def close(self) -> None:
        return None


def _opened(path: object) -> FileIO:
    """Unbuffered, so that a line is one write and runners can share a file."""
    if path is None and sys.stdout:
        return open(sys.stdout.fileno(), "ab", buffering=0, closefd=False)
    if not isinstance(path, str):
        raise TypeError("neither a path nor a standard output")
    return open(path, "ab", buffering=0)
