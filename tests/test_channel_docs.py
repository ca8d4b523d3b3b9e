"""docs/channels.md is true: its tables of codes are those of the database."""

import re
from collections import defaultdict
from pathlib import Path

import pytest

import stage
from stage import Db

DOCS = (Path(__file__).parents[1] / "docs/channels.md").read_text()


def told(channel: str) -> dict[str, set[str]]:
    """The codes of each class, as the table of this channel has them."""
    [table] = re.findall(rf"codes of `{channel}` \|\n\|---\|---\|\n((?:\|.*\n)+)", DOCS)
    classes: dict[str, set[str]] = defaultdict(set)
    for name, codes in re.findall(r"\| `(\w+)` \| (.*) \|\n", table):
        for first, last in re.findall(r"`(\w+)`(?: to `(\w+)`)?", codes):
            numbers = range(int(first), int(last) + 1) if last else [first]
            classes[name] |= {str(number) for number in numbers}
    return classes


@pytest.mark.parametrize("channel", ["gowa", "whatsapp_cloud", "twilio"])
def test_the_codes_of_a_channel_are_those_of_its_rules(db: Db, channel: str) -> None:
    rules = stage.every(
        db,
        "select class, array_agg(code) as codes from pgdrip.error_rules"
        " where channel = %s and code !~ '^http_' group by class",
        [channel],
    )
    assert told(channel) == {row["class"]: set(row["codes"]) for row in rules}


def test_the_statuses_of_http_mean_what_the_text_says(db: Db) -> None:
    rules = stage.every(
        db,
        "select distinct class, code from pgdrip.error_rules where code ~ '^http_'"
        " and channel in ('gowa', 'whatsapp_cloud', 'twilio') order by class, code",
    )
    assert [(row["class"], int(row["code"][5:])) for row in rules] == [
        ("content", 413),
        *(("sender", n) for n in (301, 302, 303, 307, 308, 401, 403, 404, 405)),
        ("transient", 429),
        ("transient", 503),
    ]


def test_the_example_of_a_rule_is_accepted(db: Db) -> None:
    [statement] = re.findall(r"```sql\n(insert .*?)```", DOCS, re.DOTALL)
    db.execute(statement.encode())
    found = stage.one(db, "select pgdrip.error_class('gowa', 'http_500') as class")
    assert found == {"class": "transient"}
