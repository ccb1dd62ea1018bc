"""The second phase of scoring: columns that compare an image with the rest of the corpus.

They are cheap compared to the embeddings they need, so they are rewritten whenever a shard of their kind
changed; other settings or weights stop the run, as for every score.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stylear.console import Bar
from stylear.curate.corpus import parquet
from stylear.curate.corpus.columns import (
    Indices,
    Mask,
    combine_chunks,
    concatenate,
    first_occurrence,
    hash_identities,
    to_objects,
)
from stylear.curate.corpus.layout import KINDS, ShardKind, score_path
from stylear.curate.corpus.ledger import Entry, Ledger, StageInputs, describe_differences
from stylear.curate.references import StyleReference
from stylear.curate.score.nearest import Vectors, find_nearest_cosines, read_embedding_table
from stylear.curate.score.passes import ledger_stage, make_embedding_scorer, make_score_inputs
from stylear.curate.score.table import float_column, make_table, read_metadata
from stylear.curate.stage import Build, list_file_digests, list_pair_shards
from stylear.errors import CorpusError

IDENTITY = ["source", "content", "reference"]


@dataclass(frozen=True, slots=True)
class KindShards:
    """All shards of one kind, and the inputs of their columns."""

    kind: ShardKind
    entries: Sequence[Entry]
    inputs: StageInputs


def score_nearest(
    build: Build, spec: Any, fingerprint: str, references: Sequence[StyleReference]
) -> int:
    """Commit the column of one `nearest` scorer for every shard; returns the number of columns written.

    Its embeddings must be committed. Raises SettingsChanged for columns of other settings or weights.
    """
    written = 0
    for kind in KINDS:
        entries = [entry for name, entry in list_pair_shards(build) if name == kind]
        inputs = make_score_inputs(
            spec, fingerprint, hash_inputs(build.ledger, spec, kind, entries)
        )
        if missing := [
            e for e in entries if needs_column(build.ledger, spec, f"{kind}-{e.unit}", inputs)
        ]:
            write_columns(build, spec, KindShards(kind, entries, inputs), missing, references)
            written += len(missing)
    return written


def hash_inputs(ledger: Ledger, spec: Any, kind: ShardKind, entries: Sequence[Entry]) -> list[str]:
    """A hash of the inputs of one kind's columns: the pairs and embeddings of all its shards."""
    stage = ledger_stage(make_embedding_scorer(spec))
    total = hashlib.sha256()
    for entry in entries:
        embedding_path = ledger.entry(stage, f"{kind}-{entry.unit}")
        if embedding_path is None:
            raise CorpusError(f"{ledger.corpus}: {stage} {kind}-{entry.unit} is not committed")
        total.update(
            "\n".join(
                [entry.unit, *list_file_digests(entry), *list_file_digests(embedding_path), ""]
            ).encode()
        )
    return [total.hexdigest()]


def needs_column(ledger: Ledger, spec: Any, unit: str, inputs: StageInputs) -> bool:
    """Whether a shard's column must be written. Raises SettingsChanged if it has other settings."""
    entry = ledger.entry(ledger_stage(spec), unit)
    if entry is None:
        return True
    if describe_differences(entry, inputs, inputs=False):
        raise ledger.settings_changed_error(entry, inputs, inputs=False)
    return entry.fingerprint != inputs.fingerprint or not ledger.has_intact_files(entry)


def write_columns(
    build: Build,
    spec: Any,
    kind: KindShards,
    missing: Sequence[Entry],
    references: Sequence[StyleReference],
) -> None:
    """Compare all pairs of a kind, and write the columns of the shards that lack theirs."""
    corpus, missing_units = build.corpus, {entry.unit for entry in missing}
    scores = compare_pools(
        *read_embeddings(corpus, spec, kind), *read_pools(corpus, kind, references), spec.name
    )
    start = 0
    for entry in kind.entries:
        table = parquet.read_table(embedding_path(corpus, spec, kind, entry), ["key"])
        own, start = scores[start : start + table.num_rows], start + table.num_rows
        if entry.unit not in missing_units:
            continue
        out = score_path(corpus, spec.name, kind.kind, int(entry.unit))
        scored = make_table(
            table["key"].to_pylist(), {spec.name: float_column(own)}, read_metadata(table)
        )
        info = parquet.write_table(out, scored)
        build.ledger.commit(
            ledger_stage(spec),
            f"{kind.kind}-{entry.unit}",
            kind.inputs,
            rows_in=len(own),
            kept=len(own),
            dropped={},
            files={out.relative_to(corpus).as_posix(): info},
        )


def embedding_path(corpus: Path, spec: Any, kind: KindShards, entry: Entry) -> Path:
    """The file with the embeddings of a shard."""
    return score_path(corpus, make_embedding_scorer(spec).name, kind.kind, int(entry.unit))


def read_embeddings(corpus: Path, spec: Any, kind: KindShards) -> tuple[Vectors, Mask]:
    """The embeddings (M, D) of a kind, and a mask of the pairs (N,) that have one."""

    def parts() -> Iterator[dict[str, Any]]:
        for entry in kind.entries:
            vectors, valid = read_embedding_table(
                parquet.read_table(embedding_path(corpus, spec, kind, entry))
            )
            yield {"vectors": vectors, "valid": valid}

    columns = concatenate(parts())
    return columns["vectors"], columns["valid"]


def read_pools(
    corpus: Path, kind: KindShards, references: Sequence[StyleReference]
) -> tuple[Indices, Indices]:
    """For each pair the index of its pool, and a number that it shares with pairs that do not count.

    A pool is all raw pairs, or the stylized pairs of one style. Raw pairs of one source (captions of one
    image) and candidates of one content and reference do not count as neighbours of each other.
    """
    styles = {reference.id: reference.style for reference in references}
    number = {style: i for i, style in enumerate(sorted(set(styles.values())))}

    def parts() -> Iterator[dict[str, Any]]:
        for entry in kind.entries:
            table = parquet.read_table(corpus / kind.kind / f"{entry.unit}.parquet", IDENTITY)
            names = to_objects(combine_chunks(table["reference"]))
            style = [number[styles[name]] if name in styles else -1 for name in names]
            yield {
                "pool": np.array(style, np.int64),
                **{name: hash_identities(combine_chunks(table[name])) for name in IDENTITY},
            }

    columns = concatenate(parts())
    same = ("source",) if kind.kind == "raw" else ("content", "reference")
    return columns["pool"], first_occurrence(*(columns[name] for name in same))


def compare_pools(
    vectors: Vectors, valid: Mask, pools: Indices, alike: Indices, name: str
) -> list[float | None]:
    """The cosine of every pair of one kind with its nearest neighbour, by pool; None without one."""
    cosines: list[float | None] = [None] * len(valid)
    indices = np.flatnonzero(valid)
    order = np.argsort(pools[indices], kind="stable")
    borders = np.flatnonzero(np.diff(pools[indices[order]])) + 1
    with Bar(name, total=len(indices), unit="pairs") as bar:
        for part in np.split(order, borders):
            nearest = find_nearest_cosines(vectors[part], alike[indices[part]], bar.advance)
            for index, value in zip(indices[part].tolist(), nearest, strict=True):
                cosines[index] = value
    return cosines
