"""Secrets of senders and webhooks: found by name, never shown.

A name with a slash is the path of a file, any other an environment variable. A file
must not be open to everybody; the line break at its end is no part of the secret.
"""

import os
import stat
from collections.abc import Iterable

from pgdrip.errors import ConfigurationError

LIMIT = 64 * 1024  # bytes of a file
MASK = "…"


def resolve(name: str) -> str:
    """The secret of this name; raises ConfigurationError, which never tells of it."""
    value = _from_file(name) if "/" in name else os.environ.get(name, "")
    value = value.rstrip("\r\n")
    if not value:
        raise ConfigurationError(
            f"secret {name} is not set or empty",
            hint="an environment variable, or with a / in its name the path of a file",
        )
    if not value.isprintable():
        raise ConfigurationError(
            f"secret {name} holds control characters", hint="it must be one line"
        )
    return value


def mask(text: str, secrets: Iterable[str]) -> str:
    """The text without any of the secrets, wherever they stand in it."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def _from_file(name: str) -> str:
    try:
        with open(name, "rb", opener=_without_waiting) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ConfigurationError(f"secret {name} is no regular file")
            if found.st_mode & (stat.S_IROTH | stat.S_IWOTH):
                raise ConfigurationError(
                    f"secret file {name} is open to everybody",
                    hint=f"chmod o-rwx {name}",
                )
            data = file.read(LIMIT + 1)
        if len(data) > LIMIT:
            raise ConfigurationError(f"secret file {name} is longer than {LIMIT} bytes")
        return data.decode()
    except (OSError, ValueError) as error:
        # The text of a decoding error would quote what was read.
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8 text"
        raise ConfigurationError(f"secret file {name}: {reason}") from None


def _without_waiting(path: str, flags: int) -> int:
    """A pipe in the place of the file would otherwise hold up every send."""
    return os.open(path, flags | os.O_NONBLOCK)
