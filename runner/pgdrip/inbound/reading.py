"""Reading what strangers send: bounded in size, depth and time, never trusted in shape.

What a request must not be raises starlette's HTTPException with the status it deserves.
"""

import asyncio
import json
import zlib
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

DEPTH = 32  # of nested JSON; Meta's deepest event has 9
GZIP = 31  # zlib's word for it
YEARS = range(2000, 2200)  # in which the database takes a time


async def read_body(request: Request, *, limit: int, seconds: float) -> bytes:
    """The body as it came; 413 beyond `limit` bytes, 408 after so many seconds.

    What says beforehand that it is too large is not read at all.
    """
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > limit:
        raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    except TimeoutError:
        close = {"Connection": "close"}
        raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, headers=close) from None
    except ClientDisconnect:
        raise HTTPException(HTTPStatus.BAD_REQUEST) from None
    return bytes(body)


def require_type(request: Request, media_type: str) -> None:
    """415 for any other content type."""
    given = request.headers.get("content-type", "").partition(";")[0]
    if given.strip().lower() != media_type:
        raise HTTPException(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, headers={"Accept": media_type}
        )


def decoded(request: Request, body: bytes, *, limit: int) -> bytes:
    """The body without its content encoding; 413 where more than `limit` bytes hide."""
    match request.headers.get("content-encoding", "identity").strip().lower():
        case "identity":
            return body
        case "gzip":
            return _inflate(body, limit)
        case _:
            raise HTTPException(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                headers={"Accept-Encoding": "gzip, identity"},
            )


def _inflate(body: bytes, limit: int) -> bytes:
    inflater = zlib.decompressobj(GZIP)
    try:
        content = inflater.decompress(body, limit + 1)
    except zlib.error:
        raise HTTPException(HTTPStatus.BAD_REQUEST) from None
    if len(content) > limit:
        raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    if not inflater.eof or inflater.unused_data:
        raise HTTPException(HTTPStatus.BAD_REQUEST)
    return content


def read_json(content: bytes) -> dict[str, Any]:
    """The JSON object it is; ValueError for anything else, or nested too deep."""
    try:
        value = json.loads(content, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    level: list[Any] = [value]
    for _ in range(DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return value
    raise ValueError("nested too deep")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def member(value: Any, *path: str) -> Any:
    """What stands at the end of the path of keys; None where that leads nowhere."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def text(value: Any, *path: str) -> str | None:
    """The text there; None where there is none or an empty one."""
    found = member(value, *path)
    return found if isinstance(found, str) and found else None


def items(value: Any, *path: str) -> list[Any]:
    """The elements of the array there; none where there is no array."""
    found = member(value, *path)
    return found if isinstance(found, list) else []


def instant(stamp: Any) -> datetime | None:
    """A time as RFC 3339 or in seconds since 1970; None for anything else, and for
    one before YEARS or after, which nobody means."""
    at = _read_instant(stamp)
    return at if at and at.year in YEARS else None


def _read_instant(stamp: Any) -> datetime | None:
    try:
        if isinstance(stamp, str) and not stamp.isdecimal():
            at = datetime.fromisoformat(stamp)
            return at.astimezone(UTC) if at.tzinfo else None
        if isinstance(stamp, str | int) and not isinstance(stamp, bool):
            return datetime.fromtimestamp(int(stamp), UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return None


def phone(digits: str | None) -> str | None:
    """E.164 from the bare digits a WhatsApp gateway knows a person by."""
    if digits and digits.isascii() and digits.isdecimal() and 7 <= len(digits) <= 15:
        return f"+{digits}"
    return None
