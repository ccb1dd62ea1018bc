"""The diversity of the kept pairs, as measured by the filter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stylear.curate.report.page import Section, render_paragraph, render_table, render_untrusted

COLUMNS = {
    "pairs": "pairs",
    "contents": "contents",
    "styles": "styles",
    "sample": "pairs sampled",
    "distance": "distance, bits",
    "nearest": "nearest",
    "vendi": "Vendi score",
}
NOTE = (
    "Pairs that the filter kept. Of the sampled ones: distance is the mean number of bits, of 64, to the"
    " nearest perceptual hash; the Vendi score is how many entirely different pictures would be as diverse."
    " Nearest is the mean similarity to the nearest neighbour, if the recipe scores it."
)


def diversity_section(rows: Sequence[Mapping[str, Any]]) -> Section | None:
    """A table with a row for all pairs, each kind and each style; None where nothing was measured."""
    if not rows:
        return None
    table = [
        [
            f"style {render_untrusted(str(row['style']))}"
            if row["style"]
            else f"{row['kind']} pairs",
            *(row.get(name) for name in COLUMNS),
        ]
        for row in rows
    ]
    heads = ["of", *COLUMNS.values()]
    body = render_paragraph(NOTE) + render_table("Diversity of the kept pairs", heads, table)
    return Section("diversity", "Diversity", body)
