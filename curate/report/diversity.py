"""How diverse the kept pairs are, as the filter measured it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

HEADS = ("", "pairs", "contents", "styles", "sample", "distance", "nearest", "vendi")
MEANING = (
    "Of a sample of each: distance, the mean number of bits (of 64) to the nearest perceptual hash;"
    " vendi, how many wholly different pictures would be as diverse. Nearest is the mean"
    " similarity to the nearest neighbour, where the recipe scores it."
)


def diversity_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The section of the page; nothing for a corpus whose filter did not measure it."""
    if not rows:
        return ""
    heads = "".join(f"<th>{head}</th>" for head in HEADS)
    body = ""
    for row in rows:
        cells = "".join(f'<td class="n">{number(row.get(head))}</td>' for head in HEADS[1:])
        body += f"<tr><td>{escape(str(row['style'] or row['kind']))}</td>{cells}</tr>"
    return f'<h2>Diversity</h2><p class="mute">{MEANING}</p><table><tr>{heads}</tr>{body}</table>'


def number(value: Any) -> str:
    """A count as it is, a mean with two decimals; a dash for nothing."""
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(int(value))
