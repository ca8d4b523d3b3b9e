"""Phone numbers as people and spreadsheets write them, turned into E.164.

The database takes E.164 alone (`+60123456789`); only an import is this patient.
"""

import re
from collections.abc import Callable

from pgdrip.errors import ConfigurationError, UsageError

_SEPARATORS = re.compile(r"[ \t\u00a0\u202f().\u2010-\u2014-]+")
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_SCIENTIFIC = re.compile(r"[+-]?[0-9]+([.,][0-9]+)?[eE][+-]?[0-9]+")


class BadPhone(ValueError):
    """Not a phone number; the text says why and what to do."""


def normaliser(region: str | None = None) -> Callable[[str], str]:
    """Return the function that turns one written number into E.164.

    Without `region` (ISO 3166, such as MY) a number must start with + and its
    country code. The function raises BadPhone.
    """
    if region is None:
        return international
    try:
        import phonenumbers
    except ImportError as error:
        raise ConfigurationError(
            "--region needs the phonenumbers library",
            hint="pip install 'pgdrip[phones]'",
        ) from error
    code = region.upper()
    if code not in phonenumbers.SUPPORTED_REGIONS:
        raise UsageError(
            f"unknown region {region!r}", hint="two letters of ISO 3166, such as MY"
        )

    def normalise(text: str) -> str:
        digits = strip(text)
        if digits.startswith("+"):
            return international(digits)
        try:
            number = phonenumbers.parse(digits, code)
        except phonenumbers.NumberParseException:
            number = None
        if number is None or not phonenumbers.is_valid_number(number):
            raise BadPhone(f"not a phone number of {code}")
        return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)

    return normalise


def international(text: str) -> str:
    """Return `+60 12-345 6789` as `+60123456789`."""
    digits = strip(text)
    if not digits.startswith("+"):
        raise BadPhone(
            "a phone number starts with + and its country code"
            " (or name the country with --region)"
        )
    if digits.startswith("+0"):
        raise BadPhone("no country code starts with 0 (after the +)")
    if not _E164.fullmatch(digits):
        raise BadPhone("a phone number has 7 to 15 digits")
    return digits


def strip(text: str) -> str:
    """Take off spaces, dashes, dots and parentheses; what is left is + and digits."""
    if text.startswith(("'", "\u2019")):
        raise BadPhone("an apostrophe before the number (remove it)")
    if _SCIENTIFIC.fullmatch(text.strip()):
        raise BadPhone(
            "a spreadsheet shortened the number, digits are lost"
            " (format the column as text and export it again)"
        )
    digits = _SEPARATORS.sub("", text)
    if not re.fullmatch(r"\+?[0-9]+", digits):
        raise BadPhone("a phone number has only digits 0 to 9, after its +")
    return digits
