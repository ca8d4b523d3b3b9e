"""A runner seen by HTTP: for load balancers, orchestrators and Prometheus.

    /livez     200 while it takes its turns, else 503: restart it
    /readyz    200 while it claims, else 503, and why, as JSON
    /metrics   what it counts; 404 without the extra `metrics`

An outage of the database is no reason to restart: it is alive, and not ready.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from pgdrip import metrics
from pgdrip.errors import ConfigurationError
from pgdrip.runner import Runner


@asynccontextmanager
async def served(runner: Runner, host: str, port: int) -> AsyncIterator[str]:
    """Serve while entered; the URL. Port 0 takes a free one. Raises
    ConfigurationError when the address cannot be had."""
    application = web.Application()
    page = _Pages(runner)
    application.router.add_get("/livez", page.livez)
    application.router.add_get("/readyz", page.readyz)
    application.router.add_get("/metrics", page.metrics)
    server = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await server.setup()
    try:
        try:
            await web.TCPSite(server, host, port).start()
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {host} port {port}: {error.strerror}"
            ) from None
        bound = server.addresses[0]
        name = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        yield f"http://{name}:{bound[1]}"
    finally:
        await server.cleanup()


class _Pages:
    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._metrics = metrics.page(runner)

    async def livez(self, request: web.Request) -> web.Response:
        alive = self._runner.is_alive
        text = "alive\n" if alive else "stuck\n"
        return web.Response(text=text, status=200 if alive else 503)

    async def readyz(self, request: web.Request) -> web.Response:
        runner = self._runner
        state = {
            "ready": runner.is_ready,
            "runner": runner.settings.name,
            "connected": runner.is_connected,
            "claimed_seconds_ago": runner.claimed_ago,
            "in_flight": runner.in_flight,
            "unreported": runner.unreported,
            "gateways_away": runner.breakers.away,
        }
        if state["claimed_seconds_ago"] == float("inf"):  # no number in JSON
            state["claimed_seconds_ago"] = None
        return web.json_response(state, status=200 if state["ready"] else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        if self._metrics is None:
            text = "no metrics here: pip install 'pgdrip[metrics]'\n"
            return web.Response(text=text, status=404)
        kind, body = self._metrics()
        return web.Response(body=body, headers={"Content-Type": kind})
