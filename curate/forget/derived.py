"""Derived files: what the filter writes for dry runs and the report, regenerated from the remaining pairs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from stylear.curate.corpus.columns import bool_mask, combine_chunks
from stylear.curate.corpus.layout import COLUMNS, DIVERSITY, KINDS, RECIPE, VERDICTS
from stylear.curate.corpus.ledger import ALL, Entry, Ledger
from stylear.curate.corpus.parquet import read_table
from stylear.curate.corpus.storage import FileInfo
from stylear.curate.filter.diversity import write_diversity
from stylear.curate.filter.gather import gather_rows
from stylear.curate.filter.table import write_columns
from stylear.curate.forget.journal import commit_entry
from stylear.curate.recipe import Recipe, load_recipe
from stylear.curate.score.nearest_step import hash_inputs
from stylear.curate.score.passes import ledger_stage, list_scorers, needs_whole_corpus
from stylear.curate.stage import STAGE_OF_KIND


def update_derived(corpus: Path) -> None:
    """Bring columns.parquet, diversity.json and the inputs of `nearest` scores up to date."""
    recipe, ledger = load_recipe(corpus / RECIPE), Ledger(corpus)
    for entry in nearest_entries(ledger, recipe):
        commit_entry(ledger, entry)
    judged = ledger.entry("filter", ALL)
    if judged is None:
        return
    pairs, rows = gather_rows(corpus, recipe)
    write_columns(corpus, recipe, pairs, rows)
    rows.kept[:] = bool_mask(combine_chunks(read_table(corpus / VERDICTS, ["kept"])["kept"]))
    write_diversity(corpus, recipe, rows)
    files = dict(judged.files)
    for name in (COLUMNS, DIVERSITY):
        info = FileInfo.of(corpus / name)
        files[name] = {"sha256": info.sha256, "bytes": info.bytes}
    commit_entry(ledger, replace(judged, files=files))


def nearest_entries(ledger: Ledger, recipe: Recipe) -> Iterator[Entry]:
    """The entries of scores that compare a pair with all others, with the hashes of the rewritten shards.

    Their values stay: a score that was computed against a forgotten picture does not reveal it.
    """
    for spec in filter(needs_whole_corpus, list_scorers(recipe)):
        for kind in KINDS:
            entries = [e for e in ledger.entries(STAGE_OF_KIND[kind]) if e.unit != ALL]
            units = [ledger.entry(ledger_stage(spec), f"{kind}-{e.unit}") for e in entries]
            if entries and None not in units:
                inputs = hash_inputs(ledger, spec, kind, entries)
                yield from (replace(u, inputs=inputs) for u in units if u is not None)
