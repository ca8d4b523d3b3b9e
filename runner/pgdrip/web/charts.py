"""Charts as inline SVG, drawn here; colours are classes, which a theme chooses.

Every chart is for the eye only; the template puts the same numbers into a table.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log10

from markupsafe import Markup

WIDTH, HEIGHT = 720, 200
LEFT, TOP, BOTTOM = 52, 10, 30
MARK = 60  # as wide as a mark on the axis may become
LINES = 4  # of the grid, at most


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: stacked parts of (class, amount), what a pointer over it shows, and the
    mark on the axis below it, if it has one."""

    parts: Sequence[tuple[str, float]]
    title: str
    mark: str = ""

    @property
    def total(self) -> float:
        return sum(amount for _, amount in self.parts)


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars side by side; `label` says in one sentence what there is to see."""

    label: str
    bars: Sequence[Bar] = field(default_factory=list)
    limit: float | None = None

    def __html__(self) -> str:
        top = _top(max([bar.total for bar in self.bars] + [self.limit or 0]))
        height = HEIGHT - TOP - BOTTOM
        scale = height / top
        step = (WIDTH - LEFT) / max(len(self.bars), 1)
        drawn = [_grid(top, scale)]
        for place, bar in enumerate(self.bars):
            drawn.append(_bar(bar, LEFT + place * step, step, scale))
        if self.limit is not None:
            y = HEIGHT - BOTTOM - self.limit * scale
            line = Markup(
                '<line class="limit" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
            )
            drawn.append(line.format(LEFT, WIDTH, y, y))
        return Markup(
            '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
        ).format(WIDTH, HEIGHT, self.label, Markup("").join(drawn))


def share(parts: Sequence[tuple[str, float]], whole: float) -> Markup:
    """A bar lying in a table's cell; nothing for readers of screens."""
    drawn, x = [Markup('<rect class="rest" width="100" height="10"/>')], 0.0
    for name, amount in parts:
        width = 100 * amount / whole if whole else 0
        rect = Markup('<rect class="{}" x="{:.2f}" width="{:.2f}" height="10"/>')
        drawn.append(rect.format(name, x, width))
        x += width
    return Markup(
        '<svg class="share" viewBox="0 0 100 10" preserveAspectRatio="none"'
        ' aria-hidden="true">{}</svg>'
    ).format(Markup("").join(drawn))


def short(number: float) -> str:
    """A number in at most four characters or so: 950, 1.2k, 67k, 3.4M."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= size:
            scaled = number / size
            return f"{scaled:.0f}{unit}" if scaled >= 10 else f"{scaled:.3g}{unit}"
    return f"{number:g}"


def _bar(bar: Bar, x: float, step: float, scale: float) -> Markup:
    width = max(step * 0.8, 1)
    drawn, y = [], float(HEIGHT - BOTTOM)
    for name, amount in bar.parts:
        height = amount * scale
        y -= height
        rect = Markup(
            '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>'
        )
        drawn.append(rect.format(name, x, y, width, height) if amount else Markup(""))
    if bar.mark:
        anchor = "end" if x > WIDTH - MARK else "start"
        text = Markup('<text x="{:.1f}" y="{}" text-anchor="{}">{}</text>')
        drawn.append(text.format(x, HEIGHT - 8, anchor, bar.mark))
    over = Markup('<rect class="over" x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>')
    drawn.append(over.format(x, TOP, step, HEIGHT - TOP - BOTTOM))
    return Markup("<g><title>{}</title>{}</g>").format(
        bar.title, Markup("").join(drawn)
    )


def _grid(top: float, scale: float) -> Markup:
    """Lines at round numbers, with the numbers."""
    every = _round(top / LINES)
    drawn = []
    for place in range(int(top / every) + 1):
        y = HEIGHT - BOTTOM - place * every * scale
        line = Markup(
            '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
            '<text class="scale" x="{}" y="{:.1f}">{}</text>'
        )
        drawn.append(line.format(LEFT, WIDTH, y, y, LEFT - 8, y, short(place * every)))
    return Markup("").join(drawn)


def _top(greatest: float) -> float:
    """The upper end of the scale: whole steps of the grid, at least one message."""
    every = _round(max(greatest, 1) / LINES)
    return every * max(1, -(-max(greatest, 1) // every))


def _round(number: float) -> float:
    """The next of 1, 2, 5, 10, 20, 50 …"""
    size = 1.0
    if number > 1:
        size = 10.0 ** int(log10(number))
    return next(size * step for step in (1, 2, 5, 10) if size * step >= number)
