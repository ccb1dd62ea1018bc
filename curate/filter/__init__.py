"""Filtering: rules compare numbers. Only columns are read, so a new threshold costs less than a second.

Rules in order: what fetch and synthesize dropped stays dropped; the same stored bytes; thresholds; votes;
best of n in each candidate group; perceptual duplicates, within raw and within each style reference (a
stylized image is a near copy of its parent by intent); quotas. The first verdict stands.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stylear.console import say
from stylear.curate.corpus.layout import COLUMNS, VERDICTS
from stylear.curate.corpus.parquet import write_table
from stylear.curate.filter.best import keep_best
from stylear.curate.filter.diversity import (
    diversity_rows,
    read_diversity,
    what_stays,
    write_diversity,
)
from stylear.curate.filter.duplicates import keep_best_copy
from stylear.curate.filter.gather import gather
from stylear.curate.filter.quotas import fill_quotas
from stylear.curate.filter.rows import Rows
from stylear.curate.filter.table import read_columns, write_columns
from stylear.curate.filter.thresholds import apply_threshold
from stylear.curate.filter.verdicts import funnel, verdict_table
from stylear.curate.filter.votes import count_votes

if TYPE_CHECKING:
    import pyarrow as pa

    from stylear.curate.recipe import FilterSettings, Recipe

__all__ = [
    "Rows",
    "decide",
    "diversity_rows",
    "filter_corpus",
    "funnel",
    "open_rows",
    "read_diversity",
    "what_stays",
]


def filter_corpus(corpus: Path, recipe: Recipe) -> pa.Table:
    """Decide every pair of raw/ and stylized/; writes columns.parquet, verdicts.parquet, diversity.json.

    Returns the verdicts. Raises CorpusError for tables and scores that do not have the same keys.
    """
    pairs, rows = gather(corpus, recipe)
    write_columns(corpus, recipe, pairs, rows)
    decide(rows, recipe.filter)
    table = verdict_table(pairs, rows)
    write_table(corpus / VERDICTS, table)
    write_diversity(corpus, recipe, rows)
    return table


def open_rows(corpus: Path, recipe: Recipe, *, diversity: bool = False) -> Rows:
    """All pairs as the rules of `recipe` need them, nothing decided yet.

    Read from columns.parquet where it is of the present scores, else gathered from the shards, which
    takes longer and gives the same. `diversity`: with what that is measured by.
    """
    found = read_columns(corpus, recipe, diversity=diversity)
    if found is None:
        say(
            f"filter: no {COLUMNS} of the present scores, so the shards are read; a run will write it"
        )
        found = gather(corpus, recipe)[1]
    return found


def decide(rows: Rows, rules: FilterSettings) -> Rows:
    """The same rows, every rule applied; none is lost or added."""
    if rules.duplicates.exact:
        keep_best_copy(rows, "exact", "duplicate")
    for threshold in rules.thresholds:
        apply_threshold(rows, threshold)
    if rules.votes:
        count_votes(rows, rules.votes, rules.votes_needed)
    if rules.best_of is not None:
        keep_best(rows, rules.best_of)
    if rules.duplicates.phash_distance is not None:
        keep_best_copy(rows, "near", "near-duplicate")
    fill_quotas(rows, rules)
    return rows
