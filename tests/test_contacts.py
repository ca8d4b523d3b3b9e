"""A CSV file becomes contacts; a bad line is told and never stops a good one."""

import csv
import io
import json
from typing import Any

import pytest

from pgdrip.contacts import Reader, Reject
from pgdrip.errors import ConfigurationError, RowsRejected, UsageError
from pgdrip.phones import BadPhone, international, normaliser


def rows(data: str | bytes, region: str | None = None) -> list[dict[str, Any] | Reject]:
    """Return each line as COPY would store it, without its NULLs; or why not."""
    stream = io.BytesIO(data if isinstance(data, bytes) else data.encode())
    reader = Reader(stream, region=region)
    found: list[dict[str, Any] | Reject] = []
    for one in reader:
        if isinstance(one, Reject):
            found.append(one)
            continue
        text = io.StringIO(one.data.decode(), newline="")
        for cells in csv.DictReader(text, fieldnames=reader.copied):
            row: dict[str, Any] = {key: cell for key, cell in cells.items() if cell}
            row["line"] = int(row["line"])
            if "attributes" in row:
                row["attributes"] = json.loads(row["attributes"])
            found.append(row)
    return found


def rejects(data: str | bytes) -> list[tuple[int, str]]:
    """Return line and reason of the bad lines; the good ones must be the rest."""
    return [(r.line, r.reason) for r in rows(data) if isinstance(r, Reject)]


def good(data: str | bytes) -> list[str]:
    return [r["phone"] for r in rows(data) if isinstance(r, dict)]


def test_known_columns_are_fields_and_the_others_attributes() -> None:
    [row] = rows(
        "Phone, NAME ,Triggers,email,timezone,sender,City\n"
        "+60 12-345 6789,Alice,WARM; HOT ;,a@example.com,Asia/Tokyo,dev-1,KL\n"
    )
    assert row == {
        "line": 2,
        "phone": "+60123456789",
        "name": "Alice",
        "trigger": "WARM; HOT ;",
        "email": "a@example.com",
        "timezone": "Asia/Tokyo",
        "sender": "dev-1",
        "attributes": {"City": "KL"},
    }


def test_an_empty_cell_says_nothing() -> None:
    [row] = rows("phone,email,name,city,trigger\n,a@example.com, ,,\n")
    assert row == {"line": 2, "email": "a@example.com"}


def test_a_comma_in_a_trigger_cell_is_left_for_the_database_to_refuse() -> None:
    [row] = rows('phone,trigger\n+60123456789,"WARM,HOT"\n')
    assert isinstance(row, dict)
    assert row["trigger"] == "WARM,HOT"


def test_bom_crlf_blank_lines_and_a_missing_last_newline_are_fine() -> None:
    data = b"\xef\xbb\xbfphone,name\r\n\r\n+60123456789,A\r\n\r\n+60123456780,B"
    assert [r["line"] for r in rows(data) if isinstance(r, dict)] == [3, 5]


def test_a_formula_is_text() -> None:
    [row] = rows('phone,name\n+60123456789,"=HYPERLINK(""x"")"\n')
    assert isinstance(row, dict)
    assert row["name"] == '=HYPERLINK("x")'


def test_a_quoted_field_may_go_on_over_lines() -> None:
    first, second = rows('phone,note\n+60123456789,"a\nb"\n+60123456780,c\n')
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert first["attributes"] == {"note": "a\nb"}
    assert (first["line"], second["line"]) == (2, 4)


def test_an_unclosed_quote_spoils_its_own_line_only() -> None:
    data = (
        "phone,name\n"
        '+60123456781,"open\n'
        "+60123456782,B\n"
        '+60123456783,"C ""the"" third"\n'
        '+60123456784,"open again\n'
        "+60123456785,E\n"
    )
    reason = "a quote is opened and never closed"
    assert rejects(data) == [(2, reason), (5, reason)]
    assert good(data) == ["+60123456782", "+60123456783", "+60123456785"]


def test_a_bad_line_never_stops_a_good_one() -> None:
    data = b"\n".join(
        [
            b"phone,name",
            b"+60123456781,A",
            b"+60123456782",
            b"+60123456783,C,extra",
            b"+60123456784,\xff",
            b"+60123456785,a\x00b",
            b"+60123456786," + b"x" * 70_000,
            b"+60123456787," + b"x" * 200_000,
            b"+60123456788," + b"x" * 10_000_000,
            b'+60123456789,"a"b',
            b"+60123456780,a\rb",
            b",nobody",
            b"+60123456790,Z",
        ]
    )
    save = "(save it as CSV UTF-8)"
    assert rejects(data) == [
        (3, "1 fields, the header has 2"),
        (4, "3 fields, the header has 2"),
        (5, f"not UTF-8: byte 0xff {save}"),
        (6, f"a NUL byte {save}"),
        (7, "a field is longer than 64 kB"),
        (8, "a field is longer than 64 kB"),
        (9, "the line is longer than 1 MB"),
        (10, "text after a closing quote (write a quote inside as two)"),
        (11, "a carriage return inside the line (end lines with LF)"),
        (12, "neither phone nor email"),
    ]
    assert good(data) == ["+60123456781", "+60123456790"]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_what_is_read_line_by_line_and_what_is_passed_on_is_the_same(
    ending: str,
) -> None:
    plain = [f"+6012345{n:04d},Ann {n}" for n in range(300)]
    odd = [
        '+60123450500,"Bob"',
        "+60 12-345 0501,Cid",
        "",
        "+60123450502, Dan ",
        "bad,x",
    ]
    lines = ["phone,name", *plain[:100], *odd, *plain[100:]]
    found = rows(ending.join(lines))
    good = [row for row in found if isinstance(row, dict)]
    assert {row["line"]: row["name"] for row in good} == {
        **{number: f"Ann {number - 2}" for number in range(2, 102)},
        102: "Bob",
        103: "Cid",
        105: "Dan",
        **{number: f"Ann {number - 7}" for number in range(107, 307)},
    }
    assert [one.line for one in found if isinstance(one, Reject)] == [106]


def test_a_column_may_be_called_otherwise_in_the_file() -> None:
    data = io.BytesIO(b"Mobile,Full name\n+60123456789,Ann\n")
    reader = Reader(data, mapping={"Mobile": "phone", "Full name": "name"})
    assert reader.copied == ["line", "phone", "name"]
    with pytest.raises(RowsRejected, match="no column 'Cell'"):
        Reader(io.BytesIO(b"phone\n"), mapping={"Cell": "phone"})


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("", "line 1: the file is empty"),
        ("name,city\nA,B\n", "line 1: no column phone or email"),
        ("phone,Phone\n", "line 1: two columns are called 'phone'"),
        ("phone,trigger,triggers\n", "line 1: two columns are called 'trigger'"),
        ("phone,,name\n", "line 1: column 2 has no name"),
        ("phone;name\n", "line 1: no column phone or email"),
        ("phone,name\n".encode("utf-16"), "line 1: the file is UTF-16"),
        (
            "phone,name\n".encode("utf-16-le"),
            "line 1: a NUL byte (save it as CSV UTF-8)",
        ),
        (b"phone,\xff\n", "line 1: not UTF-8: byte 0xff (save it as CSV UTF-8)"),
    ],
)
def test_a_file_without_a_usable_header_is_refused(
    data: str | bytes, told: str
) -> None:
    with pytest.raises(RowsRejected) as caught:
        rows(data)
    assert caught.value.message == told
    assert caught.value.hint
    assert caught.value.exit_code == 6


def test_a_header_alone_is_an_empty_import() -> None:
    assert rows("phone,name\n") == []


@pytest.mark.parametrize(
    "text",
    [
        "+60123456789",
        "+60 12-345 6789",
        "+60 (12) 345.6789",
        "+60\u00a012\u2011345\u20136789",
    ],
)
def test_separators_are_stripped_from_a_number(text: str) -> None:
    assert international(text) == "+60123456789"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("6.01E+10", "spreadsheet shortened"),
        ("6,01e10", "spreadsheet shortened"),
        ("'+60123456789", "apostrophe"),
        ("60123456789", "starts with \\+"),
        ("0123456789", "--region"),
        ("+0123456789", "country code"),
        ("+601234", "7 to 15 digits"),
        ("+6012345678901234", "7 to 15 digits"),
        ("abc", "only digits"),
        ("+60123456789x5", "only digits"),
        ("+٦٠١٢٣٤٥٦٧٨٩", "only digits"),
        ("+60+123456789", "only digits"),
        ("+60123\n456789", "only digits"),
        ("", "only digits"),
    ],
)
def test_what_is_no_number_is_told_with_what_to_do(text: str, reason: str) -> None:
    with pytest.raises(BadPhone, match=reason):
        international(text)


def test_a_region_gives_national_numbers_their_country() -> None:
    national = normaliser("my")
    assert national("012-345 6789") == "+60123456789"
    assert national("+44 7700 900123") == "+447700900123"
    for text in ("123", "6.01E+10", "012-345-HELP"):
        with pytest.raises(BadPhone):
            national(text)


def test_an_unknown_region_is_refused_before_a_line_is_read() -> None:
    with pytest.raises(UsageError, match="unknown region 'XX'"):
        rows("phone\n+60123456789\n", region="XX")


def test_a_region_without_the_library_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "phonenumbers", None)
    with pytest.raises(ConfigurationError) as caught:
        normaliser("MY")
    assert caught.value.hint == "pip install 'pgdrip[phones]'"
