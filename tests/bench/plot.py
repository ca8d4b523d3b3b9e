"""The plot: rates over workers and over the size of tables, as one SVG."""

from collections.abc import Sequence

from bench.figure import Points

WIDTH, HEIGHT, MARGIN = 420, 300, 60
HEAD = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
    ' font-family="sans-serif" font-size="12">'
    '<rect width="100%" height="100%" fill="white"/>'
)


def drawn(lines: Sequence[Points]) -> str:
    """One panel for each line, side by side; each from zero, evenly spaced in x."""
    panels = [panel(line, WIDTH * place) for place, line in enumerate(lines)]
    head = HEAD.format(width=WIDTH * len(lines), height=HEIGHT)
    return "\n".join([head, *panels, "</svg>\n"])


def panel(line: Points, left: int) -> str:
    top = max(y for _, y in line.points)
    step = (WIDTH - 2 * MARGIN) / max(1, len(line.points) - 1)
    height = HEIGHT - 2 * MARGIN
    spots = [
        (left + MARGIN + step * place, HEIGHT - MARGIN - height * y / top, x, y)
        for place, (x, y) in enumerate(line.points)
    ]
    path = " ".join(f"{across:.0f},{down:.0f}" for across, down, _, _ in spots)
    parts = [
        text(left + WIDTH / 2, 24, f"{line.name}, steps/s over {line.x}"),
        f'<polyline points="{left + MARGIN},{MARGIN} {left + MARGIN},{HEIGHT - MARGIN}'
        f' {left + WIDTH - MARGIN},{HEIGHT - MARGIN}" fill="none" stroke="#999"/>',
        f'<polyline points="{path}" fill="none" stroke="#06c" stroke-width="2"/>',
    ]
    for across, down, x, y in spots:
        parts.append(f'<circle cx="{across:.0f}" cy="{down:.0f}" r="4" fill="#06c"/>')
        parts.append(text(across, down - 10, f"{y:,.0f}"))
        parts.append(text(across, HEIGHT - MARGIN + 20, f"{x:,.0f}"))
    return "\n".join(parts)


def text(across: float, down: float, words: str) -> str:
    return f'<text x="{across:.0f}" y="{down:.0f}" text-anchor="middle">{words}</text>'
