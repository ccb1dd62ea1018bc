"""Scores: all tables of a scorer come from one measurement."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylear.curate.audit.difference import Difference, read_or_report
from stylear.curate.corpus.layout import score_paths
from stylear.curate.corpus.parquet import read_table

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe


def check_scores(corpus: Path, recipe: Recipe) -> Iterator[Difference]:
    """Tables whose model, weights, precision or preprocessing are not those of the scorer's first table."""
    from stylear.curate.score.passes import list_scorers
    from stylear.curate.score.table import shared_metadata

    for spec in list_scorers(recipe):
        first: dict[str, Any] | None = None
        for path in score_paths(corpus, spec.name):
            where = path.relative_to(corpus).as_posix()
            table, unreadable = read_or_report(partial(read_table, path, ["key"]), where)
            yield from unreadable
            if table is None:
                continue
            metadata = shared_metadata(table)
            first = first or metadata
            for name in sorted(set(first) | set(metadata)):
                if first.get(name) != metadata.get(name):
                    yield Difference(
                        "score", where, f"{first.get(name)}", f"{metadata.get(name)}", name
                    )
