"""Histograms of the scores, with the thresholds of the recipe."""

from __future__ import annotations

import numpy as np

from stylear.curate.report.charts import histogram_svg, render_legend
from stylear.curate.report.cutoffs import find_cutoffs
from stylear.curate.report.facts import Facts
from stylear.curate.report.page import Section, render_paragraph

NOTE = (
    "Bars count pairs, kept or dropped by the filter for any reason. A dashed line shows where a threshold of"
    " the recipe cuts. Not every pair has every score: only stylized pairs are scored against a reference."
)


def scores_section(facts: Facts) -> Section | None:
    """A histogram of each score; None for a corpus without scores."""
    if not facts.scores:
        return None
    cutoffs = find_cutoffs(facts.corpus, facts.recipe)
    kept = facts.pairs.kept
    charts = ""
    for name, column in facts.scores.items():
        scores = column.to_numpy(zero_copy_only=False).astype(np.float64)
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        title = f"{name}, {int(valid.sum()):,} pairs"
        charts += histogram_svg(
            title, scores[valid & kept], scores[valid & ~kept], cutoffs.get(name, ())
        )
    keys = [("kept", "kept"), ("dropped", "dropped"), ("limit", "threshold")]
    body = f'{render_paragraph(NOTE)}{render_legend(keys)}<div class="charts">{charts}</div>'
    return Section("scores", "Scores", body)
