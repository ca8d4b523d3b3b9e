"""Phones as a legacy system wrote them: WhatsApp ids, digits, spreadsheet numbers."""

import re
from collections.abc import Callable

from pgdrip.legacy import Phone
from pgdrip.phones import BadPhone, international, normaliser

PLAIN = re.compile(r"[1-9][0-9]{9,14}")
JID = re.compile(r"\+?([0-9]{7,15})(?::[0-9]+)?@(?:s\.whatsapp\.net|c\.us)")
# Numbers that a spreadsheet took for such: 60123456789.0, 6.0123456789E+10.
FLOAT = re.compile(r"(\+?[0-9]{7,15})\.0+")
SCIENTIFIC = re.compile(r"([1-9])[.,]([0-9]+)[eE]\+?([0-9]{1,2})")

SPREADSHEET = "its phone was a spreadsheet's number"
NATIONAL = "its phone had no country code"


def reader(region: str | None) -> Callable[[str], Phone]:
    """Return what makes E.164 of a phone as it is written, or says what is wrong.

    Ten digits and more without a plus are an international number, as WhatsApp has
    them. With `region` (ISO 3166, such as MY) that country's own numbers come first.
    """
    local = _national(region) if region else None

    def read(written: str) -> Phone:
        text, how = _unwrapped(written.strip().strip("'\u2019"))
        try:
            phone = local(text) if local and not text.startswith("+") else None
            if phone:
                how = how or (None if phone.endswith(text) else NATIONAL)
            else:
                phone = international(f"+{text}" if PLAIN.fullmatch(text) else text)
        except BadPhone as error:
            return None, None, f"phone: {error}"
        if how is None and phone.lstrip("+") != written.lstrip("+"):
            how = "its phone was written with other characters"
        return phone, how, None

    return read


def _unwrapped(text: str) -> tuple[str, str | None]:
    """Take off what a WhatsApp id or a spreadsheet puts around the digits."""
    if jid := JID.fullmatch(text):
        return f"+{jid[1]}", "its phone was a WhatsApp id"
    if number := FLOAT.fullmatch(text):
        return number[1], SPREADSHEET
    number = SCIENTIFIC.fullmatch(text)
    # Fewer digits than the exponent says: some are lost, and international() says so.
    if number and len(number[2]) == int(number[3]):
        return number[1] + number[2], SPREADSHEET
    return text, None


def _national(region: str) -> Callable[[str], str | None]:
    """Return what reads a number of a country, with or without its code; else None."""
    normalise = normaliser(region)
    import phonenumbers

    code = str(phonenumbers.country_code_for_region(region.upper()))

    def read(text: str) -> str | None:
        if text.startswith(code) and PLAIN.fullmatch(text):
            return f"+{text}"  # nearly all; to look each up would take the longest
        try:
            return normalise(text)
        except BadPhone:
            return None

    return read
