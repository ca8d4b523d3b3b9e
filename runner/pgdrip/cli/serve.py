"""The server that providers and people who unsubscribe reach."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import click

from pgdrip import logs
from pgdrip.cli.database import database
from pgdrip.cli.types import ADDRESS
from pgdrip.errors import ConfigurationError


def _secret(name: str, what: str) -> Callable[[Any], Any]:
    return click.option(
        f"--{name}-secret",
        f"{name}_secrets",
        multiple=True,
        metavar="NAME",
        help=f"{what}; may be given several times.",
    )


@click.command()
@click.option(
    "--address",
    default="127.0.0.1:8080",
    show_default=True,
    type=ADDRESS,
    metavar="HOST:PORT",
    help="Where to listen; TLS is the reverse proxy's.",
)
@click.option("--public-url", metavar="URL", help="How providers reach this server.")
@_secret("gowa", "Webhooks of GoWA")
@_secret("whatsapp", "Webhooks of Meta, the secret of the app")
@click.option(
    "--whatsapp-verify-token", metavar="NAME", help="What Meta shows to be let in."
)
@_secret("twilio", "Webhooks of Twilio, the auth token")
@_secret("webhook", "Webhooks signed as standardwebhooks.com says")
@_secret("unsubscribe", "Unsubscribe links in mail")
@_secret("metrics", "The bearer token /metrics asks for; without, only this machine")
@click.option(
    "--trusted-proxy",
    "trusted_proxies",
    multiple=True,
    metavar="ADDRESS",
    help="A proxy whose X-Forwarded-For is believed.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=1),
    default=500.0,
    show_default=True,
    help="Requests a second one client may make.",
)
@click.option(
    "--connections",
    type=click.IntRange(1, 100),
    default=4,
    show_default=True,
    help="Connections to the database.",
)
@click.option("--page", is_flag=True, help="The operator page, to look at from here.")
@click.option("--page-token", metavar="NAME", help="What people log in to it with.")
@click.option(
    "--page-user-header",
    metavar="HEADER",
    help="In which a trusted proxy names the people it lets in to the page.",
)
@click.pass_obj
def serve(
    dsn: str | None,
    /,
    *,
    address: tuple[str, int],
    trusted_proxies: Sequence[str],
    page: bool,
    page_token: str | None,
    page_user_header: str | None,
    **settings: Any,
) -> None:
    """Receive webhooks and unsubscribe clicks, and show the operator page, until
    SIGTERM or Ctrl-C.

    A NAME is that of an environment variable or, with a slash in it, of a file; what
    has no secret is not served. Without a token and a proxy that names its users the
    page is read-only, and only for browsers on this machine.
    """
    try:
        from pgdrip.inbound.app import create_app
        from pgdrip.inbound.server import listen, run
        from pgdrip.inbound.settings import Settings
    except ImportError as error:
        raise ConfigurationError(
            f"{error.name} is not installed", hint="pip install 'pgdrip[serve]'"
        ) from error
    logs.configure()
    dsn = database(dsn)
    added: dict[str, Any] = {}
    if page or page_token or page_user_header:
        added = _page(
            dsn,
            token=page_token,
            user_header=page_user_header,
            host=address[0],
            has_proxy=bool(trusted_proxies) and "*" not in trusted_proxies,
        )
    app = create_app(Settings(dsn=dsn, **settings), **added)
    with listen(*address) as listener:
        asyncio.run(run(app, listener, trusted_proxies=trusted_proxies))


def _page(dsn: str, **access: Any) -> dict[str, Any]:
    """What create_app() adds for the page."""
    try:
        from pgdrip.web.access import Access
        from pgdrip.web.app import page_routes
        from pgdrip.web.tallying import Tallying
    except ImportError as error:
        raise ConfigurationError(
            f"{error.name} is not installed", hint="pip install 'pgdrip[web]'"
        ) from error
    tallying = Tallying(dsn)
    routes = page_routes(Access.configured(**access), tallying)
    return {"routes": routes, "work": tallying.run}
