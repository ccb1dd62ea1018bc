"""DataComp subsets: the uids of a split as a sorted .npy of dtype `u8,u8`, which `resharder.py` reads.

A uid is 128 bits, 32 hex digits in the `uid` column of a DataComp pool; its high half is the first number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stylear.curate.corpus import parquet
from stylear.curate.corpus.columns import GrowableArray
from stylear.curate.export.base import Export
from stylear.curate.export.record import SPLIT_NAMES
from stylear.errors import CorpusError

UID = re.compile(r"[0-9a-fA-F]{32}")
DTYPE = np.dtype("u8,u8")


class DatacompExport(Export):
    """One .npy of uids for each split. It takes 16 bytes of memory per pair."""

    def write(self, folder: Path) -> None:
        without = 0
        by_split: dict[str, NDArray[Any]] = {}
        for split in self.corpus.split_sizes:
            array = GrowableArray(np.zeros(0, DTYPE))
            for part in self.shard_uids(split):
                array.add(np.array([uid for uid in part if uid is not None], DTYPE))
                without += part.count(None)
            by_split[split] = np.unique(array.finish())
        if not any(map(len, by_split.values())):
            raise CorpusError(
                f"{self.corpus.path}: expected pairs with a DataComp uid, found none",
                hint="uids come from a source whose list or shards have a column `uid`; keys of this corpus:"
                ' `stylear curate query CORPUS "select key from train"`',
            )
        for split, uids in by_split.items():
            np.save(folder / f"{SPLIT_NAMES[split]}.npy", uids, allow_pickle=False)
        if without:
            self.warnings.append(f"{without} pairs have no DataComp uid and are not in the list")

    def shard_uids(self, split: str) -> Iterator[list[tuple[int, int] | None]]:
        """The uids of each shard; None for a pair without one."""
        for tar in self.corpus.shards(split):
            path = tar.with_suffix(".parquet")
            self.corpus.require_unchanged(path)
            details = parquet.read_table(path, ["details"])["details"].to_pylist()
            yield [parse_uid(json.loads(text).get("uid")) for text in details]
            if self.bar is not None:
                self.bar.advance(len(details))

    def estimate_bytes(self) -> int:
        return 16 * self.corpus.num_pairs


def parse_uid(uid: object) -> tuple[int, int] | None:
    """The two halves of a uid; None for any other text."""
    if not isinstance(uid, str) or not UID.fullmatch(uid):
        return None
    return int(uid[:16], 16), int(uid[16:], 16)
