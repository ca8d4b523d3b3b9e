"""SMS by a modem: one file per message in the spool of SMS Server Tools 3 (smsd).

Sender config: `spool`, the directory that holds outgoing, checked, sent and failed.

    queued in outgoing           sent; provider id is the name of the file
    no room in the spool         failed, code `spool_full`
    anything else about files    failed, code `sender`
"""

import asyncio
import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from pgdrip.channels import (
    Answer,
    Down,
    Failed,
    Health,
    NotSent,
    Outcome,
    Sent,
    Uncertain,
    Up,
)
from pgdrip.engine import ClaimedMessage, KnownSender, UncertainSend

FULL = {errno.ENOSPC, errno.EDQUOT}


class SmstoolsChannel:
    """No constructor arguments, `send` and `close`: that much is a channel."""

    async def send(self, message: ClaimedMessage) -> Outcome:
        # What blocks goes to a thread: all sends of a runner share one event loop.
        return await asyncio.to_thread(_queue, message)

    async def close(self) -> None:
        return None

    async def probe(self, sender: KnownSender) -> Health:
        """Optional: `pgdrip probe` parks and resumes senders by it."""
        spool = _spool(sender.config)
        if spool is None or not os.access(spool / "outgoing", os.W_OK):
            return Down("nothing can be queued in the spool")
        return Up()

    async def reconcile(self, message: UncertainSend) -> Answer:
        """Optional: `pgdrip reconcile` settles uncertain sends by it."""
        spool, name = _spool(message.sender_config), _name(message)
        if spool is None or not (spool / "sent").is_dir():
            return Uncertain("smsd keeps no record of what it sent")
        if (spool / "failed" / name).exists():
            return Failed("modem_failed", "smsd gave up")
        # In the order in which smsd moves it, so that it cannot slip through.
        for folder in ("outgoing", "checked", "sent"):
            if (spool / folder / name).exists():
                return Sent(name)
        return NotSent()


def _queue(message: ClaimedMessage) -> Outcome:
    spool, name = _spool(message.sender_config), _name(message)
    if spool is None:
        return Failed("sender", "the sender's config has no spool")
    to = message.recipient.removeprefix("+")
    text = f"To: {to}\nAlphabet: UTF-8\n\n{message.body}"
    draft = spool / f".{name}"
    try:
        draft.write_text(text, encoding="utf-8")
        # smsd sees it whole or not at all, and never in place of another one.
        os.link(draft, spool / "outgoing" / name)
    except OSError as error:
        code = "spool_full" if error.errno in FULL else "sender"
        return Failed(code, f"cannot queue: {error.strerror}")
    finally:
        with suppress(OSError):
            draft.unlink()
    return Sent(name)


def _spool(config: dict[str, Any]) -> Path | None:
    spool = config.get("spool")
    return Path(spool) if isinstance(spool, str) and os.path.isdir(spool) else None


def _name(message: ClaimedMessage | UncertainSend) -> str:
    """One file for one attempt: the token tells attempts apart."""
    return f"pgdrip.{message.enrollment_id}.{message.step}.{message.token}"
