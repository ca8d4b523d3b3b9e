"""The channel that writes messages down: one JSON object per line.

Sender config: `file` (appended to; made if missing), else standard output.
"""

import json
import sys

from pgdrip.channels import Failed, Outcome, Sent, Uncertain, as_json
from pgdrip.engine import ClaimedMessage


class LogChannel:
    async def send(self, message: ClaimedMessage) -> Outcome:
        line = json.dumps(as_json(message), ensure_ascii=False) + "\n"
        path = message.sender_config.get("file")
        if path is None:
            sys.stdout.write(line)
            sys.stdout.flush()
            return Sent()
        data = line.encode()
        try:
            # Unbuffered, so that a line is one write and runners can share a file.
            with open(path, "ab", buffering=0) as file:
                written = file.write(data)
        except (OSError, TypeError, ValueError) as error:
            return Failed("sender", f"cannot write to the file of the sender: {error}")
        if written != len(data):
            return Uncertain("the file took a part of the line only")
        return Sent()

    async def close(self) -> None:
        return None
