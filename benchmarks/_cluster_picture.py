"""A picture of each team's share over time, as SVG: one panel a policy, one band a team."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT, _MARGIN, _COLUMNS = 420, 240, 56, 3
_COLOURS = (
    *("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951"),
    *("#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e", "#9498a0"),
)
_OTHERS = "#d9d9d9"


@dataclass(frozen=True)
class Panel:
    """`bands`: team -> percent of the cluster in each stretch of time."""

    title: str
    bands: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class _Cell:
    """Where in the picture a panel lies, or the legend."""

    left: float
    top: float

    @classmethod
    def number(cls, number: int) -> _Cell:
        row, column = divmod(number, _COLUMNS)
        return cls(_MARGIN + column * (_WIDTH + _MARGIN), _MARGIN + 10 + row * (_HEIGHT + _MARGIN))

    def x(self, part: float) -> float:
        """`part`: of the time, from 0 to 1."""
        return self.left + _WIDTH * part

    def y(self, percent: float) -> float:
        return self.top + _HEIGHT * (1 - percent / 100)


def picture(title: str, panels: Sequence[Panel], teams: Sequence[str], hours: float) -> str:
    """The first teams have a band of their own, from below upwards, and all others share the last one."""
    named = list(teams[: len(_COLOURS)])
    cells = [_Cell.number(i) for i in range(len(panels) + 1)]
    drawn = [_panel(panel, named, hours, cell) for panel, cell in zip(panels, cells, strict=False)]
    width = _MARGIN + _COLUMNS * (_WIDTH + _MARGIN)
    height = cells[-1].top + _HEIGHT + _MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            'font-family="sans-serif" font-size="12">',
            '<rect width="100%" height="100%" fill="white"/>',
            _text(_MARGIN, 24, title, size=16),
            *drawn,
            _legend([*named, f"{len(teams) - len(named)} others"], cells[-1]),
            "</svg>\n",
        ]
    )


def _panel(panel: Panel, named: Sequence[str], hours: float, cell: _Cell) -> str:
    n_bins = len(next(iter(panel.bands.values())))
    below = [0.0] * n_bins
    parts = [_text(cell.left, cell.top - 6, panel.title)]
    for line, colour in zip(_lines(panel, named, n_bins), [*_COLOURS[: len(named)], _OTHERS], strict=True):
        above = [low + more for low, more in zip(below, line, strict=True)]
        parts.append(_band(below, above, cell, colour))
        below = above
    return "\n".join([*parts, _axes(cell, hours)])


def _lines(panel: Panel, named: Sequence[str], n_bins: int) -> list[Sequence[float]]:
    nothing = [0.0] * n_bins
    others = [line for team, line in panel.bands.items() if team not in named]
    together = [sum(values) for values in zip(nothing, *others, strict=True)]
    return [*(panel.bands.get(team, nothing) for team in named), together]


def _band(below: Sequence[float], above: Sequence[float], cell: _Cell, colour: str) -> str:
    """Each stretch of time stands at its middle."""
    there = [(cell.x((i + 0.5) / len(above)), cell.y(value)) for i, value in enumerate(above)]
    back = [(cell.x((i + 0.5) / len(below)), cell.y(value)) for i, value in enumerate(below)][::-1]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in there + back)
    return f'<polygon points="{points}" fill="{colour}" stroke="white" stroke-width="0.3"/>'


def _axes(cell: _Cell, hours: float) -> str:
    marks = [_text(cell.left - 6, cell.y(at) + 4, f"{at}%", anchor="end") for at in (0, 50, 100)]
    times = [
        _text(cell.x(part / 3), cell.y(0) + 16, f"{hours * part / 3:.3g} h", anchor="middle")
        for part in range(4)
    ]
    frame = (
        f'<rect x="{cell.left}" y="{cell.top}" width="{_WIDTH}" height="{_HEIGHT}" fill="none" '
        'stroke="#555555"/>'
    )
    return "\n".join([frame, *marks, *times])


def _legend(names: Sequence[str], cell: _Cell) -> str:
    colours = [*_COLOURS[: len(names) - 1], _OTHERS]
    lines = []
    for i, (name, colour) in enumerate(zip(names, colours, strict=True)):
        y = cell.y(0) - 20 * i - 12
        lines.append(f'<rect x="{cell.left}" y="{y}" width="12" height="12" fill="{colour}"/>')
        lines.append(_text(cell.left + 18, y + 10, name))
    return "\n".join(lines)


def _text(x: float, y: float, words: str, *, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" font-size="{size}">{escape(words)}</text>'
