"""Rules: the filter of the recipe, applied again, keeps and drops the same pairs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stylear.curate.audit.difference import Difference
from stylear.curate.corpus.answers import votes_digest
from stylear.curate.corpus.columns import DictionaryColumn, combine_chunks
from stylear.curate.corpus.layout import COLUMNS, VERDICTS, score_paths
from stylear.curate.corpus.ledger import ALL, Ledger
from stylear.curate.corpus.parquet import read_table
from stylear.curate.corpus.tombstones import read_tombstones
from stylear.curate.filter import apply_rules, load_rows
from stylear.curate.filter.gather import score_names
from stylear.curate.filter.rows import Rows
from stylear.curate.stage import VERSION

if TYPE_CHECKING:
    import pyarrow as pa

    from stylear.curate.recipe import Recipe


def explain_no_comparison(corpus: Path, recipe: Recipe) -> str | None:
    """Why the rules would rightly decide otherwise now; None if they must decide as they did.

    After a forget, the next best candidate of a group would be kept, and percentiles would move.
    """
    entry = Ledger(corpus).entry("filter", ALL)
    if entry is None:
        return "the filter has no ledger entry"
    if entry.code_version != str(VERSION):
        return f"the filter ran in version {entry.code_version}, this is {VERSION}"
    if read_tombstones(corpus):
        return "pairs were forgotten"
    votes = list(votes_digest(corpus)) if recipe.filter.human is not None else []
    if votes and votes != list(entry.inputs[-1:]):
        return "people answered since the filter ran"
    return None


def check_rules(corpus: Path, recipe: Recipe) -> Iterator[Difference]:
    """Pairs that the rules now keep or drop otherwise, and scores that the rules did not see as they are."""
    yield from check_columns(corpus, recipe)
    rows = apply_rules(load_rows(corpus, recipe), recipe.filter)
    verdicts = read_table(corpus / VERDICTS, ["kept", "reason"])
    if len(rows) != verdicts.num_rows:
        expected = f"verdicts of {len(rows)} pairs"
        yield Difference("verdict", VERDICTS, expected, f"{verdicts.num_rows}")
        return
    kept = combine_chunks(verdicts["kept"]).to_numpy(zero_copy_only=False)
    reasons = DictionaryColumn(combine_chunks(verdicts["reason"]))
    codes = {word: code for code, word in enumerate(reasons.words)}
    to_theirs = np.array([*(codes.get(word, -2) for word in rows.reason.words), -1], np.int64)
    expected_codes = np.where(rows.kept, -1, to_theirs[rows.reason.codes])
    found_codes = np.where(kept, -1, reasons.codes)
    changed = np.flatnonzero((rows.kept != kept) | (expected_codes != found_codes))
    if len(changed):
        keys = read_table(corpus / VERDICTS, ["key"])["key"]
        for row in changed.tolist():
            found = "kept" if kept[row] else f"dropped as {reasons.text_at(row)}"
            yield Difference("verdict", VERDICTS, describe(rows, row), found, keys[row].as_py())


def describe(rows: Rows, row: int) -> str:
    """The verdict of a row, in words."""
    return "kept" if rows.kept[row] else f"dropped as {rows.reason.text_at(row)}"


def check_columns(corpus: Path, recipe: Recipe) -> Iterator[Difference]:
    """Score columns in columns.parquet that are not those of the score tables."""
    path = corpus / COLUMNS
    if not path.is_file():
        return
    for name in score_names(recipe):
        column = combine_chunks(read_table(path, [f"score.{name}"])[f"score.{name}"])
        start = 0
        for scored in score_paths(corpus, name):
            part = combine_chunks(read_table(scored, [name])[name])
            if not equal_scores(column.slice(start, len(part)), part):
                file = scored.relative_to(corpus).as_posix()
                expected = f"the scores in {file}"
                yield Difference("score", COLUMNS, expected, "other numbers", f"score.{name}")
            start += len(part)


def equal_scores(a: pa.Array, b: pa.Array) -> bool:
    """Whether two columns have the same numbers, NaN equal to NaN."""
    if a.equals(b):
        return True
    numbers, others = (column.to_numpy(zero_copy_only=False) for column in (a, b))
    return a.is_null().equals(b.is_null()) and np.array_equal(numbers, others, equal_nan=True)
