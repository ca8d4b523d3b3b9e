"""What channels to phones share: the number's digits, and media that gateways fetch."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from pgdrip.channels import Unsendable, media_hosts
from pgdrip.channels.http import http_url
from pgdrip.engine import ClaimedMessage

KINDS = ("image", "video", "audio", "document")
_E164 = re.compile(r"\+([1-9][0-9]{6,14})")


@dataclass(frozen=True, slots=True)
class Media:
    """A picture, film, sound or document by its URL; the gateway fetches it."""

    kind: str
    url: str
    filename: str | None


def digits(recipient: str) -> str:
    """The digits of an E.164 number, 15 at most: more of them would name a group."""
    found = _E164.fullmatch(recipient)
    if not found:
        raise Unsendable("contact", "the recipient is no E.164 phone number")
    return found[1]


def media_of(message: ClaimedMessage, kinds: Collection[str]) -> Media | None:
    """The step's `media`: `type`, `url` and perhaps `filename`; Unsendable if unfit.

    The URL must be https unless the sender's config says `media_http: true`, and of one
    of its `media_hosts` if it has any.
    """
    media = (message.content or {}).get("media")
    if media is None:
        return None
    if not isinstance(media, dict) or media.get("type") not in kinds:
        raise Unsendable("content", f"media must have a type of {', '.join(kinds)}")
    url, filename = http_url(media.get("url")), media.get("filename")
    if url is None:
        raise Unsendable("content", "media must have an http(s) url")
    if url.scheme != "https" and not is_set(message.sender_config, "media_http"):
        raise Unsendable("content", "the url of media must be https")
    hosts = media_hosts(message.sender_config)
    if hosts is not None and url.host not in hosts:
        raise Unsendable("content", "the host of media is not one of media_hosts")
    name = filename if isinstance(filename, str) and filename.isprintable() else None
    return Media(media["type"], media["url"], name)


def whatsapp_media_of(message: ClaimedMessage) -> Media | None:
    """What WhatsApp can carry: the body is the caption, and audio has none."""
    media = media_of(message, KINDS)
    if media is not None and media.kind == "audio" and message.body:
        raise Unsendable("content", "audio carries no text: leave the body out")
    return media


def is_set(config: dict[str, Any], key: str) -> bool:
    """Whether a switch of a config is on; YAML brings it as text."""
    return config.get(key) in (True, "true")
