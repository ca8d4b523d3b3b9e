"""The routes of the page."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from pgdrip.inbound.limits import RateLimit
from pgdrip.web import actions, contacts, now, senders, sequences, troubles
from pgdrip.web.access import COOKIE, SESSION_SECONDS, Access
from pgdrip.web.tallying import Tallying
from pgdrip.web.visit import Door, Page, Visit, local, page, read_form, text

STATIC = Path(__file__).parent / "static"
LOGINS = 2.0  # a second, of one client
Endpoint = Callable[[Request], Awaitable[Response]]
PAGES: dict[str, Page] = {
    "/": now.show,
    "/sequences": sequences.show_all,
    "/sequence": sequences.show_one,
    "/senders": senders.show_all,
    "/sender": senders.show_one,
    "/find": contacts.ask_for,
    "/contact": contacts.show,
    "/uncertain": troubles.uncertain,
    "/failures": troubles.failed,
}


def page_routes(access: Access, tallying: Tallying) -> list[BaseRoute]:
    """All pages and what they need; `tallying` must be running beside them."""

    def door(page: Page, *, acts: bool = False) -> Endpoint:
        return Door(access, tallying, page, acts=acts).enter

    login = Login(access)
    return [
        *(Route(path, door(page), methods=["GET"]) for path, page in PAGES.items()),
        Route("/find", door(contacts.find), methods=["POST"]),
        Route("/contact", door(contacts.reveal, acts=True), methods=["POST"]),
        Route("/do/{action}", door(actions.act, acts=True), methods=["POST"]),
        Route("/login", login.show, methods=["GET"]),
        Route("/login", login.enter, methods=["POST"]),
        Route("/logout", door(leave), methods=["POST"]),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]


class Login:
    """Asks for the token, and for a name that the audit can tell."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._limit = RateLimit(LOGINS)

    async def show(self, request: Request) -> Response:
        return self._form(request, to=request.query_params.get("to", "/"))

    async def enter(self, request: Request) -> Response:
        self._limit.require(request)
        form = await read_form(request)
        to = local(text(form, "to"))
        cookie = self._access.log_in(text(form, "token"), text(form, "name"))
        if cookie is None:
            said = "That is not the token, or a name is missing."
            return self._form(request, to=to, said=said, status=HTTPStatus.FORBIDDEN)
        response = RedirectResponse(to, status_code=HTTPStatus.SEE_OTHER)
        response.set_cookie(
            COOKIE,
            cookie,
            max_age=SESSION_SECONDS,
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return response

    def _form(
        self, request: Request, *, to: str, said: str = "", status: int = 200
    ) -> Response:
        if not self._access.has_login:
            return RedirectResponse("/", status_code=HTTPStatus.SEE_OTHER)
        return page(
            request,
            "login.html",
            status=status,
            to=local(to),
            said=said,
            title="Log in",
        )


async def leave(visit: Visit) -> Response:
    """Forget the session."""
    await visit.form()
    response = RedirectResponse("/login", status_code=HTTPStatus.SEE_OTHER)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response
