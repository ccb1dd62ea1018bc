"""Small SVG charts, drawn as text: the same numbers give the same bytes.

Legends are below the drawing, so that no text overlaps a bar or a curve. Colours are classes of the style
sheet: kept and dropped, and series-1 to series-4 for lines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 460, 58, 12, 12, 26
PLOT_HEIGHT, LABEL_HEIGHT = 126, 15
BINS = 30
SERIES = 4


class Limit(NamedTuple):
    """A vertical line in a histogram."""

    value: float
    label: str


def render_chart(title: str, height: int, inner: str, legend: str = "", summary: str = "") -> str:
    """An SVG figure with a title above, its legend below, and its content in words for a screen reader."""
    words = escape(f"{title}: {summary}" if summary else title)
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{words}">{inner}</svg>'
        f"{legend}</figure>"
    )


def render_label(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def render_empty_chart(title: str) -> str:
    height = TOP + PLOT_HEIGHT + BOTTOM
    return render_chart(title, height, render_label(LEFT, height / 2, "no values"))


def histogram_svg(
    title: str, kept: ArrayLike, dropped: ArrayLike, limits: Sequence[Limit] = ()
) -> str:
    """Counts of kept and dropped values, stacked, in 30 bins, with a dashed line at each limit.

    Values that are not finite are counted in the title.
    """
    columns = [np.asarray(side, np.float64) for side in (kept, dropped)]
    sides = [side[np.isfinite(side)] for side in columns]
    values = np.concatenate(sides)
    strange = sum(map(len, columns)) - len(values)
    title += f" ({strange} not a number)" if strange else ""
    if not len(values):
        return render_empty_chart(title)
    limits = sorted(limit for limit in limits if math.isfinite(limit.value))
    reach = [float(values.min()), float(values.max()), *(limit.value for limit in limits)]
    low, high = min(reach), max(reach)
    span = (high - low) or 1.0
    counts = [
        np.bincount(
            np.minimum(BINS - 1, ((side - low) / span * BINS).astype(np.int64)), minlength=BINS
        ).tolist()
        for side in sides
    ]
    tallest = max(a + b for a, b in zip(*counts, strict=True))
    top = TOP + LABEL_HEIGHT * len(limits)
    floor = top + PLOT_HEIGHT
    step = (WIDTH - LEFT - RIGHT) / BINS
    parts = [render_frame(top, floor)]
    for bin_index in range(BINS):
        y = float(floor)
        for name, side in zip(("kept", "dropped"), counts, strict=True):
            tall = side[bin_index] / tallest * PLOT_HEIGHT
            y -= tall
            if side[bin_index]:
                parts.append(
                    f'<rect class="{name}" x="{LEFT + bin_index * step:.1f}" y="{y:.1f}"'
                    f' width="{step - 1:.1f}" height="{tall:.1f}"/>'
                )
    for number, limit in enumerate(limits):
        x = LEFT + (limit.value - low) / span * (WIDTH - LEFT - RIGHT)
        y = TOP + LABEL_HEIGHT * number
        right = x > WIDTH / 2
        parts.append(
            f'<line class="limit" x1="{x:.1f}" y1="{y:.1f}" x2="{x:.1f}" y2="{floor}"/>'
            + render_label(
                x - 5 if right else x + 5, y + 9, limit.label, "end" if right else "start"
            )
        )
    parts += [
        render_label(LEFT - 6, top + 10, f"{tallest:,}", "end"),
        render_label(LEFT - 6, floor, "0", "end"),
        render_label(LEFT, floor + 17, f"{low:.3g}"),
        render_label((LEFT + WIDTH - RIGHT) / 2, floor + 17, f"{low + span / 2:.3g}", "middle"),
        render_label(WIDTH - RIGHT, floor + 17, f"{low + span:.3g}", "end"),
    ]
    summary = f"{len(sides[0])} kept and {len(sides[1])} dropped, from {low:.3g} to {high:.3g}"
    summary += "".join(f"; {limit.label}" for limit in limits)
    return render_chart(title, floor + BOTTOM, "".join(parts), summary=summary)


def render_frame(top: float, floor: float) -> str:
    """The axis at the bottom of a plot and the line at its top."""
    return "".join(
        f'<line class="axis" x1="{LEFT}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}"/>'
        for y in (top, floor)
    )


def line_chart_svg(title: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Lines through (step, value) points, each named with its last value; gaps where y is not finite."""
    series = {n: [p for p in line if math.isfinite(p[1])] for n, line in series.items()}
    points = [point for line in series.values() for point in line]
    if not points:
        return render_empty_chart(title)
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    low, high, left, right = min(ys), max(ys), min(xs), max(xs)
    tall, wide = (high - low) or 1.0, (right - left) or 1.0
    floor = TOP + PLOT_HEIGHT
    parts, keys = [render_frame(TOP, floor)], []
    for number, (name, line) in enumerate(series.items()):
        if not line:
            continue
        path = " ".join(
            f"{LEFT + (x - left) / wide * (WIDTH - LEFT - RIGHT):.1f},"
            f"{TOP + (high - y) / tall * PLOT_HEIGHT:.1f}"
            for x, y in line
        )
        colour = f"series-{number % SERIES + 1}"
        parts.append(f'<polyline class="{colour}" points="{path}"/>')
        keys.append((colour, f"{name}, last value {line[-1][1]:.3g}"))
    parts += [
        render_label(LEFT - 6, TOP + 10, f"{high:.3g}", "end"),
        render_label(LEFT - 6, floor, f"{low:.3g}", "end"),
        render_label(LEFT, floor + 17, f"{left:.0f}"),
        render_label((LEFT + WIDTH - RIGHT) / 2, floor + 17, "step", "middle"),
        render_label(WIDTH - RIGHT, floor + 17, f"{right:.0f}", "end"),
    ]
    summary = "; ".join(words for _, words in keys)
    return render_chart(title, floor + BOTTOM, "".join(parts), render_legend(keys), summary)


def render_legend(keys: Sequence[tuple[str, str]]) -> str:
    """Swatches with words: (class of the style sheet, words)."""
    items = "".join(
        f'<li><svg class="swatch" viewBox="0 0 14 14" aria-hidden="true">{render_swatch(colour)}</svg>'
        f"{escape(words)}</li>"
        for colour, words in keys
    )
    return f'<ul class="legend">{items}</ul>'


def render_swatch(name: str) -> str:
    if name == "limit":
        return '<line class="limit" x1="7" y1="0" x2="7" y2="14"/>'
    return f'<rect class="{name}" width="14" height="14"/>'
