"""One visit of a page: who asks, what the database says, how it is shown."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import parse_qs, quote, unquote
from zoneinfo import ZoneInfo

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from pgdrip.engine import Engine, Tally
from pgdrip.errors import DatabaseUnavailable, EngineRefused, PgdripError
from pgdrip.inbound.engines import Engines
from pgdrip.inbound.reading import read_body, require_type
from pgdrip.query import Query
from pgdrip.web.access import Access, Viewer
from pgdrip.web.show import environment, zone_named
from pgdrip.web.tallying import Tallying

logger = logging.getLogger(__name__)

T = TypeVar("T")
Row = dict[str, Any]
Form = dict[str, list[str]]
FORM = "application/x-www-form-urlencoded"
FORM_LIMIT = 256 * 1024  # bytes
FORM_SECONDS = 10.0
FIELDS = 2000
LARGEST_ID = 2**53
SAID = "pgdrip_said"
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self';"
    " style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " frame-ancestors 'none'; base-uri 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}


@dataclass(frozen=True, slots=True)
class Visit:
    """A request of a viewer whom the page has let in."""

    request: Request
    viewer: Viewer
    access: Access
    tallying: Tallying

    @property
    def zone(self) -> ZoneInfo:
        """As the script on the page said it; UTC where there is none."""
        return zone_named(unquote(self.request.cookies.get("pgdrip_zone", "")))

    def parameter(self, name: str) -> str:
        return self.request.query_params.get(name, "")

    async def ask(self, *queries: Query) -> tuple[datetime, list[list[Row]]]:
        """The database's time, and the rows of each query."""

        async def work(engine: Engine) -> tuple[datetime, list[list[Row]]]:
            now = await engine.clock()
            return now, [(await engine.ask(query)).records() for query in queries]

        return await self.run(work)

    async def tallied(self, *names: str) -> dict[str, Tally]:
        self.tallying.look()
        return await self.run(lambda engine: engine.tallied(names))

    async def run(self, work: Callable[[Engine], Awaitable[T]]) -> T:
        """Work on a connection; it must be harmless when repeated."""
        engines: Engines = self.request.app.state.engines
        return await engines.run(work)

    async def form(self) -> Form:
        """What was filled in, of a form of this page; else 403, 408, 413 or 415."""
        form = await read_form(self.request)
        self.access.require_csrf(self.request, self.viewer, text(form, "csrf"))
        return form

    def show(self, template: str, *, now: datetime, **context: Any) -> Response:
        said = unquote(self.request.cookies.get(SAID, ""))
        response = page(
            self.request, template, viewer=self.viewer, zone=self.zone, now=now,
            said=said, **context,
        )  # fmt: skip
        if said:
            response.delete_cookie(SAID, samesite="strict", httponly=True)
        return response

    def back(self, path: str, said: str) -> Response:
        """On to a page of ours, which tells once what was done."""
        response = RedirectResponse(local(path), status_code=HTTPStatus.SEE_OTHER)
        response.set_cookie(
            SAID, quote(said[:1000]), max_age=60, samesite="strict", httponly=True
        )
        return response


Page = Callable[[Visit], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Door:
    """Lets viewers in to a page; others have to log in, or cannot see it."""

    access: Access
    tallying: Tallying
    page: Page
    acts: bool = False

    async def enter(self, request: Request) -> Response:
        request.app.state.limit.require(request)
        viewer = self.access.viewer(request)
        if viewer is None:
            return self._refuse(request)
        visit = Visit(request, viewer, self.access, self.tallying)
        try:
            if self.acts and not viewer.may_act:
                raise HTTPException(HTTPStatus.FORBIDDEN, "Here you can only look.")
            return await self.page(visit)
        except HTTPException as error:
            return failed(request, error.status_code, error.detail, viewer=viewer)
        except PgdripError as error:
            logger.error("page not shown", extra={"reason": error.message})
            return failed(request, _status(error), error.message, viewer=viewer)

    def _refuse(self, request: Request) -> Response:
        if self.access.has_login and request.method == "GET":
            path = request.url.path + (
                f"?{request.url.query}" * bool(request.url.query)
            )
            return RedirectResponse(
                f"/login?to={quote(path, safe='')}", status_code=HTTPStatus.SEE_OTHER
            )
        return failed(
            request, HTTPStatus.FORBIDDEN, "This page is not for everybody to see."
        )


def _status(error: PgdripError) -> HTTPStatus:
    if isinstance(error, DatabaseUnavailable):
        return HTTPStatus.SERVICE_UNAVAILABLE
    if isinstance(error, EngineRefused):
        is_nothing = error.sqlstate == "MD001"
        return HTTPStatus.NOT_FOUND if is_nothing else HTTPStatus.BAD_REQUEST
    return HTTPStatus.INTERNAL_SERVER_ERROR


def page(
    request: Request,
    template: str,
    *,
    status: int = 200,
    viewer: Viewer | None = None,
    **context: Any,
) -> HTMLResponse:
    """A template, filled in."""
    path, query = request.url.path, request.url.query
    html = environment().get_template(template).render(
        path=path, here=f"{path}?{query}" if query else path, viewer=viewer, **context
    )  # fmt: skip
    return HTMLResponse(html, status_code=status, headers=HEADERS)


def failed(
    request: Request, status: int, message: str, *, viewer: Viewer | None = None
) -> Response:
    title = HTTPStatus(status).phrase
    return page(
        request, "failed.html", status=status, viewer=viewer, title=title,
        message=message, said="",
    )  # fmt: skip


async def read_form(request: Request) -> Form:
    """The fields of a form, each with its values; at most FORM_LIMIT bytes of them."""
    require_type(request, FORM)
    body = await read_body(request, limit=FORM_LIMIT, seconds=FORM_SECONDS)
    try:
        return parse_qs(body.decode(), keep_blank_values=True, max_num_fields=FIELDS)
    except ValueError:
        raise HTTPException(HTTPStatus.BAD_REQUEST) from None


def text(form: Form, name: str) -> str:
    """One field without the blanks around it; empty where it was left out."""
    return form.get(name, [""])[0].strip()


def number_in(given: str) -> int | None:
    """An id or token as somebody typed it; None for what is none."""
    is_number = given.isascii() and given.isdecimal() and len(given) < 17
    return int(given) if is_number and int(given) < LARGEST_ID else None


def local(path: str) -> str:
    """The path if it leads to a page of ours, else the first one."""
    is_ours = path.startswith("/") and not path.startswith(("//", "/\\"))
    return path if is_ours and path.isprintable() else "/"
