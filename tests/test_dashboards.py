"""The dashboard and the alerts ask only for what there is: metrics, labels, columns."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import promql_parser
import psycopg
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from conftest import Connect
from pgdrip import metrics
from pgdrip.engine import Metric
from pgdrip.inbound.metrics import exposition
from running import Ledger, runner_of

EXAMPLES = Path(__file__).parents[1] / "examples"
DASHBOARD = json.loads((EXAMPLES / "grafana" / "pgdrip.json").read_text())
ALERTS = yaml.safe_load((EXAMPLES / "prometheus" / "alerts.yml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PANELS = DASHBOARD["panels"]
SCRAPED = {"instance", "job"}  # what Prometheus adds


def targets(key: str) -> list[tuple[str, str]]:
    """The title of a panel and its query, of those that have one of that kind."""
    return [
        (panel["title"], target[key])
        for panel in PANELS
        for target in panel.get("targets", [])
        if key in target
    ]


EXPRESSIONS = [
    *targets("expr"),
    *((rule["alert"], rule["expr"]) for rule in RULES),
]


@pytest.fixture
def exposed(dsn: str, connect: Connect) -> dict[str, set[str]]:
    """The labels of every sample that the database or a runner tells."""
    db = connect()
    db.execute('select pgdrip.apply_sender(\'{"name": "d", "channel": "log"}\')')
    db.execute("select pgdrip.tick('r', '1')")
    rows = db.execute("select * from pgdrip.metrics()").fetchall()
    told = exposition(Metric(**row) for row in rows)
    runner = runner_of(dsn, Ledger())
    runner.stats.outcomes["log", "sent"] += 1
    runner.stats.verdicts["advanced"] += 1
    with runner.stats.timed("claim"):
        pass
    runner.stats.sends["log"].add(0.1)
    page = metrics.page(runner)
    assert page is not None
    told += page()[1].decode()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(told):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def parsed(expression: str) -> Any:
    return promql_parser.parse(expression.replace("$__rate_interval", "5m"))


def inside(node: Any) -> Iterator[Any]:
    """A node of an expression and all below it."""
    yield node
    for name in ("lhs", "rhs", "args", "expr", "param", "vector_selector"):
        below = getattr(node, name, None)
        for child in below if isinstance(below, list) else [below]:
            if child is not None:
                yield from inside(child)


def selectors(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Each metric it asks for, with the labels it matches."""
    for node in inside(parsed(expression)):
        if isinstance(node, promql_parser.VectorSelector):
            yield node.name or "", {m.name for m in node.matchers.matchers}


def grouped(expression: str) -> set[str]:
    """The labels that it groups or joins by."""
    modifiers = re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", expression)
    return {label.strip() for found in modifiers for label in found.split(",")} - {""}


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS)
def test_an_expression_names_only_metrics_and_labels_that_are_told(
    exposed: dict[str, set[str]], title: str, expression: str
) -> None:
    found = list(selectors(expression))
    assert found, "it asks for nothing"
    labels = set(SCRAPED)
    for name, matched in found:
        assert name in exposed
        labels |= exposed[name]
        assert matched <= exposed[name] | SCRAPED
    assert grouped(expression) <= labels


def test_legends_name_labels_that_are_told(exposed: dict[str, set[str]]) -> None:
    for panel in PANELS:
        for target in panel.get("targets", []):
            used = set(re.findall(r"{{(\w+)}}", target.get("legendFormat", "")))
            if used:
                told: Iterable[set[str]] = (
                    exposed[name] for name, _ in selectors(target["expr"])
                )
                assert used <= set().union(*told), panel["title"]


def test_a_wrong_name_would_be_found() -> None:
    expression = 'sum by (pool) (rate(pgdrip_nothing_total{a="b"}[5m])) > 1'
    assert list(selectors(expression)) == [("pgdrip_nothing_total", {"a"})]
    assert grouped("sum by (pool) (a) / on (b, c) d") == {"pool", "b", "c"}


@pytest.mark.parametrize(("title", "statement"), targets("rawSql"))
def test_a_panel_in_sql_runs_against_the_schema(
    db: psycopg.Connection[Any], title: str, statement: str
) -> None:
    known = re.sub(
        r"\$__timeFilter\((\w+)\)", r"\1 > now() - '1 h'::interval", statement
    )
    assert "$__" not in known
    assert db.execute(known.encode()).fetchall() == []
    assert "recipient" not in known  # addresses are for those who may see them


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_how_bad(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(rule["annotations"]) == {"summary", "description"}
    labels = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
    assert labels <= grouped(rule["expr"])


def test_no_two_panels_and_no_two_alerts_share_a_place() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids)
    cells = [
        (x, y)
        for panel in PANELS
        for position in [panel["gridPos"]]
        for x in range(position["x"], position["x"] + position["w"])
        for y in range(position["y"], position["y"] + position["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
