"""The figure of a user study: a bar for each model with its win rate and the 95% interval, as SVG."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from stylear.curate.review.summary import Estimate

WIDTH, LEFT, RIGHT, TOP = 640, 170, 96, 44  # of the drawing and its margins, in pixels
ROW, BAR, CAP = 34, 18, 5  # heights of a row, its bar and half the end of an interval
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
NAME_LENGTH = 24  # characters of a model that fit beside its bar
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1c1c1c}.small{font-size:11px;fill:#5c5c5c}"
    ".bar{fill:#3b6fb6}.grid{stroke:#d8d8d8}.half{stroke:#8a8a8a;stroke-dasharray:4 3}"
    ".whisker{stroke:#1c1c1c;stroke-width:1.5}"
)


def draw_win_rates(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """An SVG of the rows of `model_rows`, the strongest model first; the same rows give the same bytes."""
    height = TOP + ROW * len(rows) + 44
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
        f' height="{height}" role="img" aria-label="{escape(describe(rows, title))}">',
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="24">{escape(title)}</text>',
        *draw_axis(TOP + ROW * len(rows)),
    ]
    for number, row in enumerate(rows):
        parts += draw_bar(TOP + ROW * number, row)
    return "\n".join([*parts, "</svg>"]) + "\n"


def describe(rows: Iterable[Mapping[str, Any]], title: str) -> str:
    """The figure in words, for a screen reader."""
    return f"{title}: " + "; ".join(f"{row['model']} {row['win_rate']}" for row in rows)


def place(share: float) -> float:
    """The horizontal position of a share, in pixels."""
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def draw_axis(bottom: int) -> Iterator[str]:
    """Vertical lines at quarters, the middle one dashed, and their labels below."""
    for tick in TICKS:
        x, kind = place(tick), "half" if tick == 0.5 else "grid"
        yield f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{bottom}"/>'
        yield f'<text class="small" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{tick:.0%}</text>'
    middle = place(0.5)
    yield (
        f'<text class="small" x="{middle:.1f}" y="{bottom + 34}" text-anchor="middle">'
        "share of comparisons won, with 95% intervals</text>"
    )


def draw_bar(top: int, row: Mapping[str, Any]) -> Iterator[str]:
    """The name of a model, its bar, its interval and the number of its comparisons."""
    rate: Estimate = row["win_rate"]
    middle, name = top + ROW / 2, str(row["model"])
    shown = name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…"
    low, high = place(rate.low), place(rate.high)
    yield f'<text x="{LEFT - 10}" y="{middle + 4}" text-anchor="end">{escape(shown)}</text>'
    yield (
        f'<rect class="bar" x="{LEFT}" y="{middle - BAR / 2}" height="{BAR}"'
        f' width="{place(rate.value) - LEFT:.1f}"><title>{escape(name)}: {rate}</title></rect>'
    )
    yield f'<line class="whisker" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>'
    for x in (low, high):
        yield (
            f'<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{middle - CAP}" y2="{middle + CAP}"/>'
        )
    words = f"{rate.value:.0%} of {row['comparisons']}"
    yield f'<text class="small" x="{place(1) + 10:.1f}" y="{middle + 4}">{words}</text>'
