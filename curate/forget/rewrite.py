"""Rewriting: new versions of the files that hold forgotten pairs, written beside the corpus."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stylear.curate.corpus import shards
from stylear.curate.corpus.layout import (
    FETCHED,
    FORGET,
    MIX,
    PLAN,
    TOMBSTONES,
    VERDICTS,
    ShardKind,
    score_path,
)
from stylear.curate.corpus.ledger import ALL, Ledger
from stylear.curate.corpus.parquet import read_table, write_table
from stylear.curate.corpus.records import canonical_json, pair_to_row
from stylear.curate.corpus.shards import ShardInfo
from stylear.curate.corpus.storage import FileInfo, write_text
from stylear.curate.corpus.tars import write_tar
from stylear.curate.corpus.tombstones import FORGOTTEN, Tombstones, blank_pair, is_in
from stylear.curate.corpus.wids import WIDS, shard_entry
from stylear.curate.forget.select import PREFERENCES, SPLITS, Selection, used_rows
from stylear.curate.stage import make_corpus_paths
from stylear.curate.synthesize.generations import FORGOTTEN_GROUP, PlannedJobs, read_groups
from stylear.pair import content_id

if TYPE_CHECKING:
    import pyarrow as pa

    from stylear.curate.recipe import Recipe

FROM_SCORES = (
    "rank",
    "twin",
    "group",
)  # columns of a verdict that become null for a forgotten pair


class Rewriter:
    """Writes the new versions of files into `.forget/`, under their paths in the corpus."""

    def __init__(self, corpus: Path, selection: Selection) -> None:
        self.corpus, self.beside, self.selection = corpus, corpus / FORGET, selection
        self.keys = selection.keys
        self.files: dict[str, FileInfo] = {}  # by path in the corpus
        self.shards: dict[tuple[ShardKind, str], ShardInfo] = {}
        self.removed: dict[str, dict[str, int]] = {}  # split -> kind -> samples

    def write_all(self, tombstones: Tombstones, recipe: Recipe) -> None:
        """Write every file that changes, and the tombstones, also those of pairs that are only planned."""
        planned = frozenset(self.write_plan(recipe))
        tombstones = replace(tombstones, keys=tombstones.keys | planned)
        self._add(TOMBSTONES, write_text(self.beside / TOMBSTONES, tombstones.text()))
        for kind in ("raw", "stylized"):
            for unit in self.selection.shards.get(kind, ()):
                self.write_pairs(kind, unit)
                self.write_scores(kind, unit)
        for unit in self.selection.shards.get("raw", ()):
            self.write_without_rows(f"{FETCHED}/{unit}.parquet")
        self.write_verdicts()
        self.write_without_rows(MIX)
        for folder in (*SPLITS, PREFERENCES):
            self.write_samples(folder)

    def write_pairs(self, kind: ShardKind, unit: str) -> None:
        """Write a raw or stylized shard: the rows of forgotten pairs stay, but only with their keys."""
        old = shards.read_shard(self.corpus / kind / f"{unit}.tar")
        pairs = (blank_pair(pair) if pair.key in self.keys else pair for pair in old)
        info = shards.write_shard(self.beside / kind, int(unit), pairs)
        self.shards[kind, unit] = info
        self.files |= make_corpus_paths(self.beside, self.beside / kind, info.files)

    def write_plan(self, recipe: Recipe) -> Iterator[str]:
        """Write the plan without the prompts of forgotten raw pairs; yields the keys planned from them."""
        for path in sorted((self.corpus / PLAN).glob("*.parquet")):
            table = read_groups(path)
            forgotten = is_in(table, "key", self.keys)
            if not forgotten.any():
                continue
            jobs, rows = PlannedJobs(table, recipe), np.flatnonzero(forgotten).tolist()
            count = recipe.synthesize.candidates
            groups = {row: jobs[row * count].group for row in rows}
            for row in rows:
                yield from (jobs[row * count + n].key for n in range(count))
            self._write_table(path, blank_groups(table, forgotten, groups))

    def write_scores(self, kind: ShardKind, unit: str) -> None:
        """Write the scores of a shard, null for forgotten pairs."""
        ledger = Ledger(self.corpus)
        for stage in ledger.stages():
            family, _, name = stage.partition(".")
            if family != "score" or ledger.entry(stage, f"{kind}-{unit}") is None:
                continue
            path = score_path(self.corpus, name, kind, int(unit))
            table = read_table(path)
            forgotten = is_in(table, "key", self.keys)
            columns = [n for n in table.column_names if n != "key"]
            self._write_table(path, blank_columns(table, forgotten, columns))

    def write_verdicts(self) -> None:
        """Write the verdicts of the filter: forgotten pairs are dropped and have no score."""
        path = self.corpus / VERDICTS
        if Ledger(self.corpus).entry("filter", ALL) is None:
            return
        table = read_table(path)
        forgotten = is_in(table, "key", self.keys)
        if forgotten.any():
            kind = is_in(table, "key", self.raw_keys())
            scores = [name for name in table.column_names if name.startswith("score.")]
            table = blank_columns(table, forgotten, [*FROM_SCORES, *scores])
            table = set_texts(table, "reason", forgotten, FORGOTTEN)
            table = set_texts(table, "stage", forgotten & kind, "fetch")
            table = set_texts(table, "stage", forgotten & ~kind, "synthesize")
            self._write_table(path, set_false(table, "kept", forgotten))

    def raw_keys(self) -> set[str]:
        """The keys of the forgotten raw pairs."""
        raw_keys: set[str] = set()
        for unit in self.selection.shards.get("raw", ()):
            table = read_table(self.corpus / "raw" / f"{unit}.parquet", ["key"])
            raw_keys |= self.keys.intersection(table["key"].to_pylist())
        return raw_keys

    def write_without_rows(self, name: str) -> None:
        """Write a table without the rows of forgotten pairs, if it has any."""
        path = self.corpus / name
        if path.is_file():
            table = read_table(path)
            forgotten = is_in(table, "key", self.keys)
            if forgotten.any():
                self._write_table(path, table.filter(~forgotten))

    def write_samples(self, folder: str) -> None:
        """Write training or preference shards without the samples of forgotten pairs, and their index."""
        entries: dict[str, dict[str, Any]] = {}
        for unit in self.selection.shards.get(folder, ()):
            write = self.write_preferences if folder == PREFERENCES else self.write_training
            tar, samples = write(folder, unit)
            entries[tar.name] = shard_entry(tar, samples)
        if entries:
            index = json.loads((self.corpus / folder / WIDS).read_text("utf-8"))
            index["shardlist"] = [entries.get(entry["url"], entry) for entry in index["shardlist"]]
            text = json.dumps(index, indent=1) + "\n"
            self._add(f"{folder}/{WIDS}", write_text(self.beside / folder / WIDS, text))

    def write_training(self, split: str, unit: str) -> tuple[FileInfo, int]:
        """Write one training shard; returns its tar and its number of samples."""
        counts = self.removed.setdefault(split, {"raw": 0, "stylized": 0})

        def rows() -> Iterator[tuple[dict[str, Any], str, bytes]]:
            for pair in shards.read_shard(self.corpus / split / f"{unit}.tar"):
                if pair.key in self.keys:
                    counts[pair.origin.kind] += 1
                else:
                    row = pair_to_row(pair)
                    yield row, canonical_json(row), pair.image

        info = shards.write_rows(self.beside / split, int(unit), rows(), md5=True)
        self.files |= make_corpus_paths(self.beside, self.beside / split, info.files)
        return info.files[f"{unit}.tar"], info.rows

    def write_preferences(self, folder: str, unit: str) -> tuple[FileInfo, int]:
        """Write one shard of preference pairs; returns its tar and its number of samples."""
        path = self.corpus / folder / f"{unit}.parquet"
        table = read_table(path)
        left = table.filter(~used_rows(table, folder, self.keys))
        keys = set(left["key"].to_pylist())
        members = (
            (f"{key}.{ext}", data)
            for key, files in shards.tar_samples(path.with_suffix(".tar"))
            if key in keys
            for ext, data in files.items()
        )
        tar = write_tar(self.beside / folder / f"{unit}.tar", members)
        self._add(f"{folder}/{unit}.tar", tar)
        self._write_table(path, left)
        return tar, len(left)

    def _write_table(self, path: Path, table: pa.Table) -> None:
        name = path.relative_to(self.corpus).as_posix()
        self._add(name, write_table(self.beside / name, table))

    def _add(self, name: str, info: FileInfo) -> None:
        self.files[name] = info


def blank_columns(table: pa.Table, forgotten: Any, names: list[str]) -> pa.Table:
    """A table with null in some columns of some rows; its schema stays."""
    import pyarrow as pa

    rows = pa.array(np.arange(len(table)), mask=forgotten)
    columns = [
        table[name].take(rows) if name in names else table[name] for name in table.column_names
    ]
    return pa.table(columns, schema=table.schema)


def blank_groups(table: pa.Table, forgotten: Any, groups: Mapping[int, str]) -> pa.Table:
    """Remove the prompts of some candidate groups; their names are kept."""
    import pyarrow as pa

    table = blank_columns(table, forgotten, ["original"])
    for name, text in (("caption", ""), ("content", content_id(""))):
        table = set_texts(table, name, forgotten, text)
    if FORGOTTEN_GROUP not in table.column_names:
        none = pa.nulls(len(table), pa.string())
        table = table.append_column(FORGOTTEN_GROUP, none)
    names = table[FORGOTTEN_GROUP].to_pylist()
    for row, group in groups.items():
        names[row] = group
    column = pa.array(names, pa.string())
    return table.set_column(table.column_names.index(FORGOTTEN_GROUP), FORGOTTEN_GROUP, column)


def set_texts(table: pa.Table, name: str, where: Any, text: str) -> pa.Table:
    """A table with a text in a column of some rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = pc.if_else(pa.array(where), pa.scalar(text, pa.string()), table[name])
    return table.set_column(table.column_names.index(name), name, column)


def set_false(table: pa.Table, name: str, where: Any) -> pa.Table:
    """A table with false in a column of some rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = pc.and_(table[name], pa.array(~where))
    return table.set_column(table.column_names.index(name), name, column)


def removed_counts(
    before: Mapping[str, Mapping[str, int]], now: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, int]]:
    """Samples of each kind that were taken out of each split, these and earlier ones."""
    return {
        split: {
            kind: before.get(split, {}).get(kind, 0) + now.get(split, {}).get(kind, 0)
            for kind in ("raw", "stylized")
        }
        for split in SPLITS
    }
