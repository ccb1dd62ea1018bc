"""The hashes of the images that preference pairs show."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stylear.curate.corpus.columns import TextIndex, combine_chunks, to_bytes
from stylear.curate.corpus.parquet import read_table, read_tables
from stylear.errors import CorpusError

SIDES = ("chosen", "rejected")


class SideHashes:
    """The SHA-256 of the images of all sides of preference pairs; the stylized tables are read once."""

    def __init__(self, corpus: Path) -> None:
        self.corpus = corpus

    def select(self, name: str) -> dict[str, str]:
        """The hashes of the sides of one preference shard, by key of the side.

        Tables that cannot be read give none: they are reported where they are checked themselves.
        """
        try:
            table = read_table((self.corpus / name).with_suffix(".parquet"), SIDES)
            index, hashes = self._hashes
            keys = np.concatenate([to_bytes(combine_chunks(table[side])) for side in SIDES])
        except (CorpusError, AttributeError):
            return {}
        rows = index.find(keys)
        is_present = rows >= 0
        sha256 = hashes.take(rows[is_present]).to_pylist()
        return dict(zip((key.decode() for key in keys[is_present]), sha256, strict=True))

    @cached_property
    def _hashes(self) -> tuple[TextIndex, Any]:
        """An index of the sides, and the hash of each."""
        import pyarrow as pa
        import pyarrow.compute as pc

        sides = [
            combine_chunks(table[side]).cast(pa.string())
            for _, table in read_tables(self.corpus / "preferences", SIDES)
            for side in SIDES
        ]
        side_keys = pc.unique(pa.concat_arrays([pa.array([], pa.string()), *sides]))
        parts = [pa.table({"key": side_keys.slice(0, 0), "image_sha256": side_keys.slice(0, 0)})]
        for _, pairs in read_tables(self.corpus / "stylized", ["key", "image_sha256"]):
            rows = pairs.filter(pc.is_in(pairs["key"], value_set=side_keys))
            parts.append(rows.filter(rows["image_sha256"].is_valid()))
        sides_table = pa.concat_tables(parts)
        return TextIndex(to_bytes(combine_chunks(sides_table["key"]))), combine_chunks(
            sides_table["image_sha256"]
        )
