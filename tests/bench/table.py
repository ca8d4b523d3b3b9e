"""How a run is shown: a table for the eye, one for the document, JSON, a plot."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import plot
from bench.figure import Figure, Found, Points

HEADINGS = ("figure", "measured: median (min to max)", "asked", "")


def show(found: Sequence[Found], about: Sequence[str]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160
    for line in about:
        console.print(line)
    table = Table(*HEADINGS)
    for figure in figures(found):
        table.add_row(*cells(figure))
    console.print(table)
    for note in notes(found):
        console.print(note)


def figures(found: Sequence[Found]) -> list[Figure]:
    return [one for one in found if isinstance(one, Figure)]


def cells(figure: Figure) -> tuple[str, str, str, str]:
    return figure.name, figure.measured(), figure.asked(), figure.verdict()


def write(folder: Path, found: Sequence[Found], about: Sequence[str]) -> None:
    """table.md, result.json and, where there are lines, rates.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{line}  " for line in about] + ["", row(HEADINGS), "|---" * 4 + "|"]
    lines += [row(cells(figure)) for figure in figures(found)]
    lines += ["", *notes(found)]
    (folder / "table.md").write_text("\n".join(lines) + "\n")
    lines_of_plot = [one for one in found if isinstance(one, Points)]
    if lines_of_plot:
        (folder / "rates.svg").write_text(plot.drawn(lines_of_plot))
    result = {
        "about": about,
        "figures": [
            asdict(figure) | {"median": figure.median, "is_reached": figure.is_reached}
            for figure in figures(found)
        ],
        "lines": [asdict(one) for one in lines_of_plot],
    }
    text = json.dumps(result, indent=1, ensure_ascii=False)
    (folder / "result.json").write_text(text + "\n")


def row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


def notes(found: Sequence[Found]) -> list[str]:
    """A line for each figure that has something beside it."""
    return [
        f"- {figure.name}: {'; '.join(figure.notes)}"
        for figure in figures(found)
        if figure.notes
    ]
