"""Small SVG charts, drawn as text: the same numbers give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import ArrayLike

WIDTH, HEIGHT, LEFT, BOTTOM = 460, 150, 44, 24
COLOURS = ("var(--a)", "var(--b)", "var(--c)", "var(--d)")


def frame(title: str, inner: str) -> str:
    """An SVG figure with a title."""
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}"'
        f' role="img" aria-label="{escape(title)}">{inner}</svg></figure>'
    )


def text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def histogram_svg(title: str, kept: ArrayLike, dropped: ArrayLike) -> str:
    """Counts of kept and dropped values, stacked, in 30 bins; what is no number is counted apart."""
    given = [np.asarray(side, np.float64) for side in (kept, dropped)]
    sides = [side[np.isfinite(side)] for side in given]
    values = np.concatenate(sides)
    strange = sum(map(len, given)) - len(values)
    title += f" ({strange} not a number)" if strange else ""
    if not len(values):
        return frame(title, text(LEFT, HEIGHT / 2, "no values"))
    low, high = float(values.min()), float(values.max())
    span = (high - low) or 1.0
    bins = 30
    counts = [
        np.bincount(
            np.minimum(bins - 1, ((found - low) / span * bins).astype(np.int64)), minlength=bins
        ).tolist()
        for found in sides
    ]
    top = max(a + b for a, b in zip(*counts, strict=True))
    step = (WIDTH - LEFT) / bins
    bars = []
    for place in range(bins):
        y = float(HEIGHT - BOTTOM)
        for side in (0, 1):
            tall = counts[side][place] / top * (HEIGHT - BOTTOM - 10)
            y -= tall
            bars.append(
                f'<rect x="{LEFT + place * step:.1f}" y="{y:.1f}" width="{step - 1:.1f}"'
                f' height="{tall:.1f}" fill="{COLOURS[side]}"/>'
            )
    axis = text(LEFT, HEIGHT - 8, f"{low:.3g}") + text(WIDTH, HEIGHT - 8, f"{high:.3g}", "end")
    return frame(title, "".join(bars) + axis + text(LEFT - 6, 18, str(top), "end"))


def line_chart_svg(title: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Lines through (x, y) points, one colour a series, with its last value; gaps where y is no number."""
    series = {n: [p for p in line if math.isfinite(p[1])] for n, line in series.items()}
    points = [point for line in series.values() for point in line]
    if not points:
        return frame(title, text(LEFT, HEIGHT / 2, "no values"))
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    low, high, left, right = min(ys), max(ys), min(xs), max(xs)
    tall, wide = (high - low) or 1.0, (right - left) or 1.0
    parts = []
    for number, (name, line) in enumerate(series.items()):
        if not line:
            continue
        path = " ".join(
            f"{LEFT + (x - left) / wide * (WIDTH - LEFT - 6):.1f},"
            f"{10 + (high - y) / tall * (HEIGHT - BOTTOM - 16):.1f}"
            for x, y in line
        )
        colour = COLOURS[number % len(COLOURS)]
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
        )
        parts.append(
            f'<text x="{WIDTH - 4}" y="{20 + 14 * number}" text-anchor="end" fill="{colour}">'
            f"{escape(name)} {line[-1][1]:.3g}</text>"
        )
    parts += [
        text(LEFT - 6, 14, f"{high:.3g}", "end"),
        text(LEFT - 6, HEIGHT - BOTTOM, f"{low:.3g}", "end"),
    ]
    parts += [text(LEFT, HEIGHT - 6, f"{left:.0f}"), text(WIDTH, HEIGHT - 6, f"{right:.0f}", "end")]
    return frame(title, "".join(parts))
