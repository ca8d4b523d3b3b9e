"""One-click unsubscribe (RFC 8058): a POST to the signed link, without any question.

Programs that look at mail follow its links, so a GET only shows a button.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from pgdrip.inbound.engines import Engines
from pgdrip.inbound.limits import RateLimit
from pgdrip.unsubscribe import verify_unsubscribe

logger = logging.getLogger(__name__)

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; form-action 'self';"
    " frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Unsubscribe</title>
{content}
</html>
"""
QUESTION = """<p>Do you want no more messages?</p>
<form method="post"><button>Unsubscribe</button></form>"""
DONE = "<p>You are unsubscribed.</p>"
NOT_VALID = "<p>This link is not valid. Was it cut off?</p>"


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """The page behind the links that channel smtp puts into mail."""

    secrets: Sequence[str]
    engines: Engines
    limit: RateLimit

    async def show(self, request: Request) -> Response:
        self.limit.require(request)
        address = self._address(request.path_params["token"])
        if address is None:
            return _page(NOT_VALID, status=403)
        if request.method != "POST":
            return _page(QUESTION)
        is_news = await self.engines.run(
            lambda engine: engine.suppress(address, "unsubscribed by link")
        )
        logger.info("unsubscribed", extra={"address": address, "is_news": is_news})
        return _page(DONE)

    def _address(self, token: str) -> str | None:
        found = [verify_unsubscribe(token, secret) for secret in self.secrets]
        return next((address for address in found if address), None)


def _page(content: str, *, status: int = 200) -> Response:
    return HTMLResponse(
        PAGE.format(content=content), status_code=status, headers=HEADERS
    )
