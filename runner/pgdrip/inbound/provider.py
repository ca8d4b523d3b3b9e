"""What the server must know of a provider, and what a provider gets to see."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pgdrip.inbound.events import Counts, Event


@dataclass(frozen=True, slots=True)
class Post:
    """One request: `body` as it came, `content` without a content encoding.

    Header names are in lower case; `url` is the public one, as the provider has it.
    """

    url: str
    headers: Mapping[str, str]
    body: bytes
    content: bytes


class Provider(Protocol):
    """One way webhooks are signed and written."""

    name: str
    media_type: str

    def identify(self, post: Post) -> str | None:
        """What tells this request from any other; None unless the provider sent it."""
        ...

    def read(self, post: Post) -> list[Event]:
        """What it says; ValueError where it cannot be read at all."""
        ...

    def answer(self, counts: Counts) -> Response: ...

    def greet(self, request: Request) -> Response:
        """The answer to a GET."""
        ...


class JsonProvider:
    """What all providers of JSON share."""

    media_type = "application/json"

    def answer(self, counts: Counts) -> Response:
        return JSONResponse(
            {
                "accepted": counts.accepted,
                "rejected": counts.rejected,
                "ignored": counts.ignored,
            }
        )

    def greet(self, request: Request) -> Response:
        return Response(status_code=405, headers={"Allow": "POST"})
