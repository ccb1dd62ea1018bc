"""Apply the rules of a recipe to a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stylear.console import say
from stylear.curate.corpus.layout import COLUMNS, VERDICTS
from stylear.curate.corpus.parquet import write_table
from stylear.curate.filter.best import keep_best
from stylear.curate.filter.diversity import write_diversity
from stylear.curate.filter.duplicates import keep_best_copy
from stylear.curate.filter.gather import gather_rows
from stylear.curate.filter.human import apply_human
from stylear.curate.filter.quotas import apply_quotas
from stylear.curate.filter.rows import Rows
from stylear.curate.filter.table import read_columns, write_columns
from stylear.curate.filter.thresholds import apply_threshold
from stylear.curate.filter.verdicts import make_verdict_table
from stylear.curate.filter.votes import drop_outvoted

if TYPE_CHECKING:
    import pyarrow as pa

    from stylear.curate.recipe import FilterSettings, Recipe


def filter_corpus(corpus: Path, recipe: Recipe) -> pa.Table:
    """Decide every pair of raw/ and stylized/, and write columns.parquet, verdicts.parquet, diversity.json.

    Returns the verdicts. Raises CorpusError if tables and scores do not have the same keys.
    """
    pairs, rows = gather_rows(corpus, recipe)
    write_columns(corpus, recipe, pairs, rows)
    apply_rules(rows, recipe.filter)
    table = make_verdict_table(pairs, rows)
    write_table(corpus / VERDICTS, table)
    write_diversity(corpus, recipe, rows)
    return table


def load_rows(corpus: Path, recipe: Recipe, *, diversity: bool = False) -> Rows:
    """All pairs with the columns that the rules of `recipe` need, and no rule applied yet.

    Reads columns.parquet if it belongs to the current scores, else the shards, which takes longer and gives
    the same rows. `diversity` adds the columns that diversity is measured by.
    """
    rows = read_columns(corpus, recipe, diversity=diversity)
    if rows is None:
        say(
            f"filter: {COLUMNS} is missing or outdated, so the shards are read; a run will write it"
        )
        rows = gather_rows(corpus, recipe)[1]
    return rows


def apply_rules(rows: Rows, rules: FilterSettings) -> Rows:
    """Apply every rule to the rows, which are modified and returned."""
    if rules.duplicates.exact:
        keep_best_copy(rows, "exact", "duplicate")
    if rules.human is not None:
        apply_human(rows, rules.human)
    for threshold in rules.thresholds:
        apply_threshold(rows, threshold)
    if rules.votes:
        drop_outvoted(rows, rules.votes, rules.votes_needed)
    if rules.best_of is not None:
        keep_best(rows, rules.best_of)
    if rules.duplicates.phash_distance is not None:
        keep_best_copy(rows, "near", "near-duplicate")
    apply_quotas(rows, rules)
    return rows
