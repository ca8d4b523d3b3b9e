"""The channel that POSTs messages as JSON to the sender's `url`.

The key stays the same over attempts and goes along as header `Idempotency-Key`, so that
a receiver which remembers keys takes each message once. The answer decides:

    2xx                                    sent; provider id is `id` or `message_id`
    any other status                       failed, code `http_<status>`
    no connection                          failed, code `transient`
    no `url`, or one that is not http(s)   failed, code `sender`
    time-out or loss after connecting      uncertain

Redirects are not followed, cookies not kept; at most 64 kB of an answer are read.
"""

import json

import aiohttp
from yarl import URL

from pgdrip import __version__
from pgdrip.channels import Failed, Outcome, Sent, Uncertain, as_json
from pgdrip.engine import ClaimedMessage

ANSWER_LIMIT = 64 * 1024  # bytes
DETAIL_LIMIT = 500  # characters
ID_LIMIT = 255  # characters
# Seconds; `connect` includes DNS and TLS. A receiver commonly closes idle connections
# after 5 s or more, and a request into one that closes is lost without a trace.
TIMEOUT = aiohttp.ClientTimeout(total=30, connect=5)
KEEP_ALIVE = 4


class WebhookChannel:
    def __init__(self, timeout: aiohttp.ClientTimeout = TIMEOUT) -> None:
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None

    async def send(self, message: ClaimedMessage) -> Outcome:
        url = _http_url(message.sender_config.get("url"))
        if url is None:
            return Failed("sender", "the sender's config has no http(s) url")
        try:
            async with self._opened().post(
                url,
                json=as_json(message),
                headers={"Idempotency-Key": message.idempotency_key},
                allow_redirects=False,
            ) as response:
                answer = await _read(response)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return Failed("transient", f"no connection: {_name(error)}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Uncertain(f"no answer: {_name(error)}")
        if 200 <= response.status < 300:
            return Sent(_provider_id(answer))
        text = answer.decode(errors="replace")[:DETAIL_LIMIT]
        return Failed(f"http_{response.status}", text or response.reason)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        """The one session, opened inside the running loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                headers={
                    "Accept-Encoding": "identity",
                    "User-Agent": f"pgdrip/{__version__}",
                },
                json_serialize=lambda value: json.dumps(value, ensure_ascii=False),
                timeout=self._timeout,
            )
        return self._session


def _http_url(text: object) -> URL | None:
    try:
        url = URL(text) if isinstance(text, str) else URL()
    except ValueError:
        return None
    return url if url.scheme in {"http", "https"} and url.host else None


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The beginning of an answer; its status stands, however the body breaks off."""
    answer = b""
    try:
        while len(answer) < ANSWER_LIMIT:
            part = await response.content.read(ANSWER_LIMIT - len(answer))
            if not part:
                return answer
            answer += part
    except (aiohttp.ClientError, TimeoutError, OSError):
        pass
    response.close()
    return answer


def _provider_id(answer: bytes) -> str | None:
    try:
        body = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict):
        return None
    for key in ("id", "message_id"):
        value = body.get(key)
        if isinstance(value, str | int) and not isinstance(value, bool):
            return str(value)[:ID_LIMIT]
    return None


def _name(error: BaseException) -> str:
    return type(error).__name__
