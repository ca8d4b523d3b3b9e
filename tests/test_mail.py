"""The bytes of a mail, as another reader of mail understands them."""

import contextlib
import re
from dataclasses import replace
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgdrip.channels import Unsendable
from pgdrip.engine import ClaimedMessage
from pgdrip.errors import ConfigurationError
from pgdrip.mail import Account, address, compose, read_account
from pgdrip.media import Media
from pgdrip.unsubscribe import sign_unsubscribe, verify_unsubscribe

AT = datetime(2026, 1, 5, 9, tzinfo=UTC)
KEY = "a key of sixteen or more"
CONFIG = {"host": "mail.example.com", "from": "Desk <desk@example.com>"}
MESSAGE = ClaimedMessage(
    enrollment_id=7,
    token=1099511627777,
    sequence="WARM Sequence",
    step=3,
    attempt=1,
    channel="smtp",
    sender="desk",
    sender_config={},
    recipient="aisyah@example.org",
    subject="Your question",
    body="Hi Aisyah",
    content=None,
    idempotency_key="7:3",
    due_at=AT,
    send_by=AT,
    lease_until=AT,
)


def account(**config: Any) -> Account:
    return read_account(CONFIG | config)


def read(
    *attached: Media, at: datetime = AT, given: Account | None = None, **change: Any
) -> EmailMessage:
    """The mail of a message, read by the standard library."""
    data = compose(replace(MESSAGE, **change), given or account(), attached, at).data
    assert data.endswith(b"\r\n")
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", data)
    mail = BytesParser(policy=policy.default).parsebytes(data)
    assert isinstance(mail, EmailMessage)
    assert mail.defects == []
    return mail


def text(mail: EmailMessage, kind: str) -> str:
    body = mail.get_body((kind,))
    assert body is not None
    content: str = body.get_content()
    return content.replace("\r", "")


def test_a_plain_text_is_a_mail_of_one_part() -> None:
    mail = read(body="Hi Zoë 👋\n\nBye")
    assert dict(mail) == {
        "From": "Desk <desk@example.com>",
        "To": "aisyah@example.org",
        "Subject": "Your question",
        "Date": "Mon, 05 Jan 2026 09:00:00 +0000",
        "Message-ID": mail["Message-ID"],
        "Content-Type": 'text/plain; charset="utf-8"',
        "Content-Transfer-Encoding": mail["Content-Transfer-Encoding"],
        "MIME-Version": "1.0",
    }
    assert text(mail, "plain") == "Hi Zoë 👋\n\nBye\n"


def test_html_goes_along_with_its_plain_text() -> None:
    mail = read(content={"html": "<p>Hi Zoë</p>"})
    assert mail.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in mail.iter_parts()] == [
        "text/plain",
        "text/html",
    ]
    assert text(mail, "plain") == "Hi Aisyah\n"
    assert text(mail, "html") == "<p>Hi Zoë</p>\n"


@pytest.mark.parametrize(
    ("type", "name"),
    [
        ("image/png", "logo.png"),
        ("application/pdf", "报价.pdf"),
        ("text/csv", "prices.csv"),
        ("video/mp4", "x" * 90 + ".mp4"),
    ],
)
def test_media_are_attached(type: str, name: str) -> None:
    data = bytes(range(256)) * 20
    mail = read(Media(name, type, data), content={"html": "<p>Hi</p>"})
    assert mail.get_content_type() == "multipart/mixed"
    assert text(mail, "html") == "<p>Hi</p>\n"
    [attached] = mail.iter_attachments()
    assert attached.get_content_type() == type
    assert attached.get_filename() == name
    assert attached.get_payload(decode=True) == data


def test_every_server_can_take_the_bytes() -> None:
    mail = compose(
        replace(MESSAGE, subject="Zoë" * 90, body="é" * 5000 + "\n" + "x" * 5000),
        account(**{"from": "Zoë Büro <desk@example.com>"}),
        [],
        AT,
    )
    assert mail.data.isascii()
    assert max(map(len, mail.data.split(b"\r\n"))) <= 78
    assert not mail.needs_utf8


# Message-ID


def test_the_message_id_stays_over_attempts() -> None:
    again = replace(MESSAGE, attempt=2, token=5, body="Hi again", subject=None)
    first = compose(MESSAGE, account(), [], AT)
    second = compose(again, account(), [], AT.replace(hour=10))
    assert first.message_id == second.message_id
    assert re.fullmatch(r"<7\.3\.[0-9a-f]{16}@example\.com>", first.message_id)


@pytest.mark.parametrize(
    "change",
    [
        {"idempotency_key": "7:6"},
        {"sequence": "HOT Sequence"},
        {"recipient": "zoe@example.org"},
    ],
)
def test_another_message_has_another_id(change: dict[str, Any]) -> None:
    first = compose(MESSAGE, account(), [], AT)
    second = compose(replace(MESSAGE, **change), account(), [], AT)
    assert first.message_id != second.message_id


# Headers


@pytest.mark.parametrize(
    "subject",
    [
        "Hi Zoë 👋",
        "=?utf-8?q?Hi=0D=0ABcc:_victim@example.org?=",
        "=?utf-8?b?SGkKQmNjOiB4QHk=?= and more",
        "x" * 300,
        "many words " * 60,
        "  spaces  around  ",
        'quotes " and \\ backslashes, <a@b> (c)',
    ],
)
def test_a_subject_is_read_as_it_was_written(subject: str) -> None:
    mail = read(subject=subject)
    assert mail["Subject"].strip() == subject.strip()
    assert mail["Bcc"] is None


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r", "\x00", "\x0b", "\x85", "\u2028"])
def test_a_subject_of_more_than_one_line_is_refused(end: str) -> None:
    for subject in (f"Hi{end}Bcc: victim@example.org", f"Hi{end}"):
        with pytest.raises(Unsendable) as refused:
            read(subject=subject)
        assert refused.value.code == "content"


@given(st.text(max_size=200), st.text(max_size=200), st.text(max_size=200))
def test_no_text_adds_a_header_or_a_recipient(
    subject: str, body: str, html: str
) -> None:
    wanted = {"From", "To", "Subject", "Date", "Message-ID", "MIME-Version"}
    wanted |= {"Content-Type", "Content-Transfer-Encoding"}
    with contextlib.suppress(Unsendable):
        mail = read(subject=subject, body=body, content={"html": html})
        assert set(mail.keys()) <= wanted
        assert mail["To"] == "aisyah@example.org"


def test_a_message_without_a_subject_has_no_such_header() -> None:
    assert read(subject=None)["Subject"] is None


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("desk@example.com", ""),
        ('"Desk, Sales" <desk@example.com>', "Desk, Sales"),
        ("Zoë Büro <desk@example.com>", "Zoë Büro"),
        ('"=?utf-8?q?=0ABcc:x?=" <desk@example.com>', "=?utf-8?q?=0ABcc:x?="),
    ],
)
def test_the_senders_name_is_shown_as_it_was_written(written: str, name: str) -> None:
    mail = read(given=account(**{"from": written, "reply_to": written}))
    for header in (mail["From"], mail["Reply-To"]):
        [shown] = header.addresses
        assert (shown.display_name, shown.addr_spec) == (name, "desk@example.com")


# Addresses


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("a@example.org", "a@example.org"),
        ("First.Last+tag@sub.example.org", "First.Last+tag@sub.example.org"),
        ("o'neill!#$%&*/=?^`{|}~-@example.org", "o'neill!#$%&*/=?^`{|}~-@example.org"),
        ("a@BÜCHER.example", "a@xn--bcher-kva.example"),
        ("a@faß.example", "a@xn--fa-hia.example"),
        ("用户@例子.example", "用户@xn--fsqu00a.example"),
        ("a@localhost", "a@localhost"),
    ],
)
def test_an_address_is_taken_with_its_domain_in_ascii(written: str, shown: str) -> None:
    assert str(address(written)) == shown


@pytest.mark.parametrize(
    "written",
    [
        "",
        "a",
        "@example.org",
        "a@",
        "a b@example.org",
        "a@b@example.org",
        "<a@example.org>",
        "x<a@example.org",
        "a>@example.org",
        '"a"@example.org',
        ".a@example.org",
        "a..b@example.org",
        "a@-example.org",
        "a@exa mple.org",
        "a@example.org>",
        "a@example..org",
        "a@example.org\n",
        "a\n@example.org",
        "a\x85b@example.org",
        "a\u2028b@example.org",
        "a@[127.0.0.1]",
        "a" * 65 + "@example.org",
        "é" * 33 + "@example.org",
        "a@" + "b." * 130 + "org",
    ],
)
def test_what_is_no_address_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="the part"):
        address(written)


# Unsubscribing


def test_a_mail_can_be_unsubscribed_from_by_one_click(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """RFC 8058 3.1: both headers, one https link that says who."""
    monkeypatch.setenv("UNSUBSCRIBE_KEY", KEY)
    mail = read(
        given=account(
            unsubscribe_url="https://example.com/unsubscribe/",
            unsubscribe_signed_by="UNSUBSCRIBE_KEY",
        )
    )
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    link = mail["List-Unsubscribe"]
    assert link.startswith("<https://example.com/unsubscribe/")
    token = link.removesuffix(">").rpartition("/")[2]
    assert verify_unsubscribe(token, KEY) == "aisyah@example.org"


def test_without_a_url_nobody_is_promised_an_unsubscription() -> None:
    mail = read()
    assert mail["List-Unsubscribe"] is None
    assert mail["List-Unsubscribe-Post"] is None


def test_the_link_of_a_long_address_is_neither_folded_nor_encoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGDRIP_UNSUBSCRIBE_SECRET", KEY)
    recipient = "a" * 64 + "@" + ".".join(["b" * 60] * 3)
    given = account(unsubscribe_url="https://example.com/u")
    link = sign_unsubscribe(recipient, KEY, base_url="https://example.com/u")
    data = compose(replace(MESSAGE, recipient=recipient), given, [], AT).data
    assert f"\r\nList-Unsubscribe: <{link}>\r\n".encode() in data


def test_a_short_key_signs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGDRIP_UNSUBSCRIBE_SECRET", "secret")
    with pytest.raises(ConfigurationError, match="shorter than 16"):
        read(given=account(unsubscribe_url="https://example.com/u"))


# The sender's config


def test_secrets_of_an_account_are_in_no_text_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MAIL_SECRET", "correct horse")
    monkeypatch.setenv("PGDRIP_UNSUBSCRIBE_SECRET", KEY)
    found = account(
        username="desk", secret="MAIL_SECRET", unsubscribe_url="https://example.com/u"
    )
    assert found.server.password == "correct horse"
    assert found.unsubscribe_key == KEY
    assert "correct horse" not in repr(found)
    assert KEY not in repr(found)


@pytest.mark.parametrize(
    ("config", "port"),
    [
        ({}, 587),
        ({"tls": "starttls"}, 587),
        ({"tls": "implicit"}, 465),
        ({"tls": "none"}, 25),
        ({"port": 2525}, 2525),
        ({"port": "2525"}, 2525),
    ],
)
def test_tls_is_on_unless_told_otherwise_and_names_the_port(
    config: dict[str, Any], port: int
) -> None:
    server = account(**config).server
    assert server.port == port
    assert server.tls == config.get("tls", "starttls")
