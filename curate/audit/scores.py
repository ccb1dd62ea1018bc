"""Scores: every pair has one by each scorer, and all of a scorer come from one measurement."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylear.curate.audit.difference import Difference, read_or_report
from stylear.curate.corpus.layout import KINDS, score_path
from stylear.curate.corpus.ledger import Ledger
from stylear.curate.corpus.parquet import read_table

if TYPE_CHECKING:
    import pyarrow as pa

    from stylear.curate.recipe import Recipe


def check_scores(corpus: Path, recipe: Recipe) -> Iterator[Difference]:
    """Score tables that are missing, of other pairs than their shard's, or of another measurement.

    The model, weights, precision and preprocessing of each table must be those of the scorer's first table,
    and its fingerprint the one that the ledger has.
    """
    from stylear.curate.score.passes import list_scorers

    ledger = Ledger(corpus)
    firsts: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        for path in sorted((corpus / kind).glob("*.parquet")):
            keys, unreadable = read_or_report(
                partial(read_table, path, ["key"]), f"{kind}/{path.name}"
            )
            yield from unreadable
            for spec in list_scorers(recipe) if keys is not None else ():
                scored = score_path(corpus, spec.name, kind, int(path.stem))
                yield from check_table(corpus, scored, spec, keys, ledger, firsts)


def check_table(
    corpus: Path,
    path: Path,
    spec: Any,
    keys: pa.Table,
    ledger: Ledger,
    firsts: dict[str, dict[str, Any]],
) -> Iterator[Difference]:
    """Differences of one score table; `firsts` has the metadata of each scorer's first table."""
    from stylear.curate.score.table import shared_metadata

    file = path.relative_to(corpus).as_posix()
    table, unreadable = read_or_report(partial(read_table, path, ["key"]), file)
    yield from unreadable
    if table is None:
        return
    if not table["key"].equals(keys["key"]):
        yield Difference("score", file, "the keys of its shard, in order", "other keys")
    metadata = shared_metadata(table)
    first = firsts.setdefault(spec.name, {"type": spec.type} | metadata)
    names = [name for name in sorted(first | metadata) if first.get(name) != metadata.get(name)]
    for name in names:
        yield Difference("score", file, f"{first.get(name)}", f"{metadata.get(name)}", name)
    if metadata.get("model") is not None and not metadata.get("weights_sha256"):
        yield Difference("score", file, "the sha256 of its weights", "none", "weights_sha256")
    entry, unreadable = read_or_report(lambda: ledger.entry(f"score.{spec.name}", path.stem), file)
    yield from unreadable
    measured = [] if entry is None else list(entry.weights)
    if not names and measured != [metadata.get("fingerprint")]:
        expected = "the fingerprint in its ledger entry" if measured else "a ledger entry"
        found = f"{metadata.get('fingerprint')}" if measured else "none"
        yield Difference("score", file, f"{expected} {' '.join(measured)}".strip(), found)
