"""/metrics: what metrics() of the database tells, as Prometheus reads it.

Without a token it is for the machine it runs on; with one, for whoever shows it.
"""

import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from itertools import groupby
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from pgdrip.engine import Engine, Metric
from pgdrip.inbound.engines import Engines
from pgdrip.inbound.limits import RateLimit

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FORWARDED = ("forwarded", "via", "x-real-ip")
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Metrics:
    """The page; `tokens` are those it is shown for, none: to this machine alone."""

    tokens: Sequence[bytes]
    engines: Engines
    limit: RateLimit

    async def show(self, request: Request) -> Response:
        self.limit.require(request)
        self._admit(request)
        metrics = await self.engines.run(Engine.metrics)
        headers = {"Cache-Control": "no-store", "Content-Type": CONTENT_TYPE}
        return Response(exposition(metrics), headers=headers)

    def _admit(self, request: Request) -> None:
        """401 without the right token, 403 where there is none and a stranger asks."""
        if not self.tokens:
            if not is_local(request):
                raise HTTPException(
                    HTTPStatus.FORBIDDEN, "Ask from this machine, or name a token."
                )
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        shown = given.strip().encode("utf-8", "replace")
        is_right = [hmac.compare_digest(shown, token) for token in self.tokens]
        if scheme.lower() != "bearer" or not any(is_right):
            raise HTTPException(
                HTTPStatus.UNAUTHORIZED, headers={"WWW-Authenticate": "Bearer"}
            )


def exposition(metrics: Iterable[Metric]) -> str:
    """The text format 0.0.4; what has one name stands together."""
    lines = []
    by_name = sorted(metrics, key=lambda metric: metric.name)
    for name, samples in groupby(by_name, key=lambda metric: metric.name):
        for place, metric in enumerate(samples):
            if place == 0:
                lines.append(f"# HELP {name} {_escaped(metric.help)}")
                lines.append(f"# TYPE {name} {metric.type}")
            pairs = [
                f'{label}="{_escaped(value, quotes=True)}"'
                for label, value in metric.labels.items()
            ]
            labels = f"{{{','.join(pairs)}}}" if pairs else ""
            lines.append(f"{name}{labels} {float(metric.value)!r}")
    return "".join(f"{line}\n" for line in lines)


def _escaped(text: str, *, quotes: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quotes else text


def is_local(request: Request) -> bool:
    """Whether a program on this machine asked for this machine, by no other's word.

    A proxy on this machine adds a header or, as nginx untold, speaks HTTP/1.0; a page
    of the outside whose name was made to point here has another Host.
    """
    is_direct = request.scope["http_version"] != "1.0" and not any(
        name in FORWARDED or name.startswith("x-forwarded-") for name in request.headers
    )
    try:
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname
        client = ip_address(request.client.host if request.client else "")
    except ValueError:
        return False
    return is_direct and host in LOCAL_NAMES and client.is_loopback
