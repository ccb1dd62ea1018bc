"""Where the thresholds of a recipe cut the scores of a corpus, to be drawn in their histograms."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stylear.curate.filter import Rows, apply_rules
from stylear.curate.filter.table import read_columns
from stylear.curate.filter.thresholds import apply_threshold, find_failures
from stylear.curate.recipe import FilterSettings, Recipe, Threshold
from stylear.curate.report.charts import Limit


def find_cutoffs(corpus: Path, recipe: Recipe) -> dict[str, list[Limit]]:
    """The limits of each score; percentiles only if columns.parquet exists and is up to date."""
    rules = recipe.filter
    cutoffs: dict[str, list[Limit]] = {rule.score: [] for rule in (*rules.thresholds, *rules.votes)}
    rows = read_columns(corpus, recipe) if cutoffs else None
    if rows is not None:  # the rules that the filter applies before the thresholds
        exact = rules.duplicates.model_copy(update={"phash_distance": None})
        apply_rules(rows, FilterSettings(duplicates=exact, best_of=None))
    for threshold in rules.thresholds:
        cutoffs[threshold.score] += threshold_limits(threshold, rows)
        if rows is not None:
            apply_threshold(rows, threshold)
    for vote in rules.votes:
        cutoffs[vote.score] += [
            Limit(limit.value, f"vote: {limit.label}") for limit in threshold_limits(vote, rows)
        ]
    return cutoffs


def threshold_limits(threshold: Threshold, rows: Rows | None) -> Iterator[Limit]:
    """The fixed limits of a threshold, and the value at which its percentile cuts."""
    if threshold.min is not None:
        yield Limit(threshold.min, f"min {threshold.min:g}")
    if threshold.max is not None:
        yield Limit(threshold.max, f"max {threshold.max:g}")
    if threshold.percentile is not None and rows is not None:
        cuts = percentile_cuts(threshold, rows)
        label = f"lowest {threshold.percentile:g} %"
        if threshold.within == "style" and len(cuts) > 1:
            yield Limit(cuts[0], f"{label} of each style: from {cuts[0]:.3g}")
            yield Limit(cuts[-1], f"{label} of each style: to {cuts[-1]:.3g}")
        elif cuts:
            yield Limit(cuts[0], f"{label}: {cuts[0]:.3g}")


def percentile_cuts(threshold: Threshold, rows: Rows) -> list[float]:
    """The lowest score that passes the percentile, of all stylized pairs or of each style; ascending."""
    alone = threshold.model_copy(update={"min": None, "max": None})
    scores, valid = rows.score(threshold.score)
    failed = np.zeros(len(rows), bool)
    for outside, _ in find_failures(rows, alone):
        failed |= outside
    passed = np.flatnonzero(valid & rows.kept & rows.stylized & ~failed)
    if threshold.within != "style":
        return [float(scores[passed].min())] if len(passed) else []
    passed = passed[np.lexsort((scores[passed], rows["style"][passed]))]
    starts = np.flatnonzero(np.diff(rows["style"][passed], prepend=-2))
    return sorted(float(scores[row]) for row in passed[starts])
