"""Damage to a finished corpus, for tests of the audit.

A forged corpus is one whose ledger and manifest were made to fit the damage: there, hashes prove nothing,
and what is found is found by following pairs through the tables.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from stylear.curate.audit.auditor import audit
from stylear.curate.audit.manifest import write_manifest
from stylear.curate.corpus.ledger import entry_hash
from stylear.curate.corpus.parquet import read_table, write_table
from stylear.curate.corpus.shards import iter_pairs, write_shard
from stylear.curate.corpus.storage import FileInfo
from stylear.curate.corpus.wids import shard_entry, wids_index
from stylear.pair import Pair


def find_differences(corpus: Path) -> set[tuple[str, str]]:
    """(kind, where) of every difference."""
    return {(difference.kind, difference.where) for difference in audit(corpus).differences}


def forge(corpus: Path) -> None:
    """Make ledger and manifest fit the files that lie there."""
    for path in sorted((corpus / "ledger").rglob("*.json")):
        entry = json.loads(path.read_text())
        present = [name for name in entry["files"] if (corpus / name).is_file()]
        infos = {name: FileInfo.of(corpus / name) for name in present}
        entry["files"] = {n: {"sha256": i.sha256, "bytes": i.bytes} for n, i in infos.items()}
        del entry["sha256"]
        path.write_text(json.dumps({**entry, "sha256": entry_hash(entry)}))
    write_manifest(corpus)


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def edit_entry(corpus: Path, stage: str, unit: str, change: Callable[[Any], None]) -> None:
    """Change a ledger entry and the hash that it has of itself."""

    def sealed(entry: Any) -> None:
        del entry["sha256"]
        change(entry)
        entry["sha256"] = entry_hash(entry)

    edit_json(corpus / "ledger" / stage / f"{unit}.json", sealed)


def edit_table(path: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    table = read_table(path)
    rows = table.to_pylist()
    change(rows)
    write_table(path, pa.Table.from_pylist(rows, schema=table.schema))


def flip_bit(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def rewrite_split(corpus: Path, split: str, pairs: list[Pair]) -> None:
    """A split of other pairs, with the index that belongs to it."""
    shutil.rmtree(corpus / split)
    listed = []
    for index, start in enumerate(range(0, len(pairs), 8)):
        info = write_shard(corpus / split, index, pairs[start : start + 8])
        listed.append(shard_entry(info.files[f"{index:05d}.tar"], info.images))
    (corpus / split / "wids.json").write_text(wids_index(f"small-{split}", listed))


def move_to_val(corpus: Path, kind: str) -> str:
    """The first pair of a kind goes from train to val; its key."""
    train, val = (list(iter_pairs(corpus / split)) for split in ("train", "val"))
    pair = next(pair for pair in train if pair.origin.kind == kind)
    rewrite_split(corpus, "train", [other for other in train if other.key != pair.key])
    rewrite_split(corpus, "val", [*val, pair])

    def moved(rows: list[dict[str, Any]]) -> None:
        next(row for row in rows if row["key"] == pair.key)["split"] = "val"

    edit_table(corpus / "mix.parquet", moved)
    return pair.key
