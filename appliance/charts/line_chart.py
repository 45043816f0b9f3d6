"""Draws line charts (SVG 1.1, https://www.w3.org/TR/SVG11/)."""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from appliance.charts.axis import Axis, Scale, label

WIDTH, HEIGHT = 760, 320
LEFT, RIGHT, TOP, BOTTOM = 78, 190, 40, 52
"""Margins, in pixels; the legend is in the right one."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
"""Okabe and Ito's, which colour-blind people can tell apart (https://jfly.uni-koeln.de/color/)."""
DASHES = ("", "7 3", "2 3", "9 3 2 3")
LONGEST_NAME = 22

STYLE = """\
svg{font:13px system-ui,sans-serif;color-scheme:light dark}
.page{fill:#fff}text{fill:#222}.title{font-weight:600;font-size:15px}.grid{stroke:#ddd}.axis{stroke:#666}.label{font-size:11px}
.line{fill:none;stroke-width:2;stroke-linejoin:round}
@media (prefers-color-scheme:dark){.page{fill:#161b22}text{fill:#e6e6e6}.grid{stroke:#30363d}.axis{stroke:#8b949e}}"""


@dataclass(frozen=True, slots=True)
class Series:
    """A named line through points (x, y); what an axis can't show is left out. Points may have labels, in order."""

    name: str
    points: Sequence[tuple[float, float]]
    labels: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Chart:
    """A few series over two axes."""

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]


def as_svg(*charts: Chart) -> str:
    """Return one SVG document with the charts below one another, each of 760 by 320 pixels."""
    height = HEIGHT * len(charts)
    groups = (f'<g transform="translate(0 {HEIGHT * row})">{_panel(chart)}</g>' for row, chart in enumerate(charts))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img">\n<style>{STYLE}</style>\n<rect class="page" width="{WIDTH}" height="{height}"/>\n'
        + "\n".join(groups)
        + "\n</svg>\n"
    )


def _panel(chart: Chart) -> str:
    points = [point for one in chart.series for point in one.points]
    across = Scale(chart.x, [point[0] for point in points])
    up = Scale(chart.y, [point[1] for point in points])
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    bottom = TOP + height

    def place(point: tuple[float, float]) -> tuple[float, float]:
        return LEFT + across.at(point[0]) * width, bottom - up.at(point[1]) * height

    parts = [_text(LEFT, TOP - 16, chart.title, "start", "title")]
    for tick in up.ticks:
        at = bottom - up.at(tick) * height
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}h{width}"/>')
        parts.append(_text(LEFT - 8, at + 4, label(tick), "end"))
    for tick in across.ticks:
        at = LEFT + across.at(tick) * width
        parts.append(f'<path class="axis" d="M{at:.1f} {bottom}v5"/>')
        parts.append(_text(at, bottom + 20, label(tick), "middle"))
    parts.append(f'<path class="axis" fill="none" d="M{LEFT} {TOP}V{bottom}H{LEFT + width}"/>')
    parts.append(_text(LEFT + width / 2, HEIGHT - 10, chart.x.title, "middle"))
    parts.append(
        f'<g transform="translate(16 {TOP + height / 2}) rotate(-90)">{_text(0, 0, chart.y.title, "middle")}</g>'
    )
    for number, one in enumerate(chart.series):
        shown = [across.shows(point[0]) and up.shows(point[1]) for point in one.points]
        places = [place(point) for point, can_be in zip(one.points, shown, strict=True) if can_be]
        parts += _line(places, one.name, number, row=TOP + 6 + 22 * number)
        labels = [text for text, can_be in zip(one.labels, shown, strict=False) if can_be]
        parts += _labels(places, labels, above=number % 4 < 2)
    return "".join(parts)


def _line(places: Sequence[tuple[float, float]], name: str, number: int, *, row: float) -> list[str]:
    """Return a series' line, its points and its entry in the legend."""
    colour, dash = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
    stroke = f'stroke="{colour}"' + (f' stroke-dasharray="{dash}"' if dash else "")
    key = WIDTH - RIGHT + 14
    parts = [f'<path class="line" {stroke} d="M{key} {row}h22"/>', _text(key + 28, row + 4, _short(name), "start")]
    if len(places) > 1:
        path = "L".join(f"{across:.1f} {down:.1f}" for across, down in places)
        parts.append(f'<path class="line" {stroke} d="M{path}"/>')
    parts += [f'<circle fill="{colour}" r="3" cx="{across:.1f}" cy="{down:.1f}"/>' for across, down in places]
    return parts


def _labels(places: Sequence[tuple[float, float]], labels: Sequence[str], *, above: bool) -> list[str]:
    """Return the points' labels: to the upper right, or to the lower left."""
    away, down, anchor = (6.0, -6.0, "start") if above else (-6.0, 14.0, "end")
    return [
        _text(place[0] + away, place[1] + down, _short(text), anchor, "label")
        for place, text in zip(places, labels, strict=False)
        if text
    ]


def _text(across: float, down: float, text: str, anchor: str, kind: str = "") -> str:
    shown = escape("".join(character if character.isprintable() else " " for character in text))
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{across:.1f}" y="{down:.1f}" text-anchor="{anchor}"{style}>{shown}</text>'


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
