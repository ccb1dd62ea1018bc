"""Selection: which pairs a request removes, and which files contain them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylear.curate.audit.absence import BLANK, mask_blank_rows, match_tombstones
from stylear.curate.corpus.columns import Mask
from stylear.curate.corpus.parquet import read_tables
from stylear.curate.corpus.tombstones import Tombstones, is_in
from stylear.curate.explain.find import committed_tables

if TYPE_CHECKING:
    import pyarrow as pa

SPLITS = ("train", "val")
PREFERENCES = "preferences"


@dataclass(slots=True)
class Selection:
    """Pairs to forget: their keys, and how many are in each shard of each folder."""

    tombstones: Tombstones  # of the request, with the keys of all pairs that it removes
    keys: set[str] = field(default_factory=set)
    shards: dict[str, Counter[str]] = field(default_factory=dict)  # folder -> unit -> pairs
    copies: int = 0  # other pairs with the image bytes of one that is selected

    def count(self, folder: str) -> int:
        """Pairs (samples, preference pairs) in a folder."""
        return self.shards.get(folder, Counter()).total()

    def rows(self) -> list[dict[str, Any]]:
        """For a table: one row per folder."""
        return [
            {"folder": folder, "pairs": self.count(folder), "shards": len(self.shards[folder])}
            for folder in ("raw", "stylized", *SPLITS, PREFERENCES)
            if self.count(folder)
        ]


def select_pairs(corpus: Path, request: Tombstones) -> Selection:
    """The pairs that a request matches, with their stylized children; forgotten ones are left out.

    Raises CorpusError for a table that cannot be read.
    """
    selection = Selection(request)
    raw: set[str] = set()
    for kind, unit, table, mask in match_tombstones(corpus, request, [*BLANK, "parent"]):
        mask = mask & ~mask_blank_rows(table)
        if kind == "stylized":
            mask |= is_in(table, "parent", raw) & ~mask_blank_rows(table)
        if not mask.any():
            continue
        chosen = table.filter(mask)
        keys = set(chosen["key"].to_pylist())
        selection.keys |= keys
        selection.shards.setdefault(kind, Counter())[unit] = len(keys)
        if kind == "raw":
            raw |= keys
    selection.tombstones = replace(request, keys=request.keys | selection.keys)
    if selection.keys:
        find_uses(corpus, selection)
        find_copies(corpus, selection)
    return selection


def find_uses(corpus: Path, selection: Selection) -> None:
    """Count the training samples and preference pairs that contain selected pairs."""
    for folder in (*SPLITS, PREFERENCES):
        for path, table in read_tables(corpus / folder):
            if count := int(used_rows(table, folder, selection.keys).sum()):
                selection.shards.setdefault(folder, Counter())[path.stem] = count


def used_rows(table: pa.Table, folder: str, keys: set[str]) -> Mask:
    """A mask of the training samples or preference pairs that contain one of these pairs."""
    if folder == PREFERENCES:
        return is_in(table, "chosen", keys) | is_in(table, "rejected", keys)
    return is_in(table, "key", keys)


def find_copies(corpus: Path, selection: Selection) -> None:
    """Count the remaining pairs with the same image bytes as a selected one."""
    hashes: set[str] = set()
    columns = ["key", "source_sha256", "image_sha256"]
    for kind, unit, table in committed_tables(corpus, columns):
        if unit in selection.shards.get(kind, ()):
            chosen = table.filter(is_in(table, "key", selection.keys))
            for name in columns[1:]:
                hashes |= set(chosen[name].drop_null().to_pylist())
    for _, _, table in committed_tables(corpus, columns):
        alike = is_in(table, "source_sha256", hashes) | is_in(table, "image_sha256", hashes)
        selection.copies += int((alike & ~is_in(table, "key", selection.keys)).sum())
