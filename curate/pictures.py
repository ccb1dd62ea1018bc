"""Pictures: pairs of raw/ and stylized/ by key, read from where they lie in the tars.

What is kept of a pair is its key, 16 bytes of its row and where it lies: some 70 bytes. The row itself lies
beside its image in the tar, and is only trusted when it is the row of the table.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from curate import shards
from curate.columns import SLICE, WIDTH, Index, joined, one, texts
from curate.copies import Copies
from curate.hashing import with_sha256
from curate.stage import KINDS
from stylear.errors import CorpusError
from stylear.pair import Pair

UNKNOWN, NO_IMAGE = -2, -1
COLUMNS = list(shards.TYPES)


class Pictures:
    """The pairs of a corpus by key."""

    def __init__(self, corpus: Path, kinds: Iterable[str] = KINDS) -> None:
        self.corpus, self._copies = corpus, Copies()
        self._tars: list[Path] = []
        starts = [0]

        def parts() -> Iterator[dict[str, Any]]:
            yield {"key": np.zeros(0, "S1"), "row": np.zeros(0, "S1"), "offset": np.zeros(0, int)}
            for kind in kinds:
                for path, table in shards.read_tables(corpus / kind, COLUMNS):
                    self._tars.append(path.with_suffix(".tar"))
                    starts.append(starts[-1] + table.num_rows)
                    yield columns_of(table)

        columns = joined(parts())
        self._starts = np.array(starts)
        self._index, self._rows = Index(columns["key"]), columns["row"]
        self._offsets = columns["offset"]
        self._sizes = np.zeros(len(self._offsets), np.int32)

    def pair(self, key: str) -> Pair:
        """The pair with its image; empty where there is none. Raises CorpusError as `read` does."""
        [(row, image)] = self.read([key])
        return shards.pair_of(row, image)

    def read(self, keys: Iterable[str]) -> Iterator[tuple[shards.Row, bytes]]:
        """The rows of pairs and their images, in order.

        Raises CorpusError for a key that is not there, and for bytes that are not those of the table.
        """
        found = (self._read(*where) for where in self._located(keys))
        for (row, image), sha256 in with_sha256(found, lambda one: one[1]):
            if sha256 != row["image_sha256"]:
                raise self._differs(row["key"], row["kind"])
            yield row, image

    def _located(self, keys: Iterable[str]) -> Iterator[tuple[str, int, int]]:
        """Each key with its place and its shard, looked up some thousand at a time."""
        waiting = iter(keys)
        while part := list(islice(waiting, SLICE)):
            places = self._index.find(np.array([key.encode() for key in part]))
            shard_of = np.searchsorted(self._starts, places, "right") - 1
            yield from zip(part, places.tolist(), shard_of.tolist(), strict=True)

    def _read(self, key: str, place: int, shard: int) -> tuple[shards.Row, bytes]:
        """A row and its image, the image not checked yet."""
        if place < 0:
            raise CorpusError(f"{self.corpus}: expected a pair {key}, found none")
        tar, number = self._tars[shard], place - int(self._starts[shard])
        if self._offsets[place] == NO_IMAGE:
            table = shards.read_table(tar.with_suffix(".parquet"), COLUMNS)
            return table.slice(number, 1).to_pylist()[0], b""
        if self._offsets[place] == UNKNOWN:
            self._find(shard)
        data = self._copies.read(tar, int(self._offsets[place]), int(self._sizes[place]))
        files = {
            name.partition(".")[2]: data[offset : offset + size]
            for name, offset, size in shards.member_places(tar, io.BytesIO(data + shards.ZEROS))
        }
        record = files.get("json", b"")
        if digest_of(record) != bytes(self._rows[place]).ljust(WIDTH, b"\0"):
            raise self._differs(key, tar.parent.name)
        row: shards.Row = json.loads(record)
        return row, files.get(row["ext"], b"")

    def _find(self, shard: int) -> None:
        """Note where the samples of a tar lie; they are in the order of the rows that have an image."""
        tar, here = self._tars[shard], slice(self._starts[shard], self._starts[shard + 1])
        places = np.flatnonzero(self._offsets[here] != NO_IMAGE) + self._starts[shard]
        starts, key, end = [], None, 0
        try:
            stream = self._copies.open(tar)
        except OSError as error:
            raise CorpusError(f"{tar}: expected a tar, found: {error}") from error
        with stream as file:
            for name, offset, size in shards.member_places(tar, file):
                if (stem := name.partition(".")[0]) != key:
                    key = stem
                    starts.append(offset - shards.BLOCK)
                end = offset + size + -size % shards.BLOCK
        if len(starts) != len(places):
            raise CorpusError(
                f"{tar}: expected {len(places)} images, found {len(starts)}",
                hint="the file was changed or damaged; `stylear curate run` mends it",
            )
        self._offsets[places] = starts
        self._sizes[places] = np.diff([*starts, end])

    def _differs(self, key: str, kind: str) -> CorpusError:
        return CorpusError(
            f"{self.corpus / kind}: the image of {key} differs from the hash in its table",
            hint="the file was changed or damaged; `stylear curate run` mends it",
        )


def columns_of(table: Any) -> dict[str, Any]:
    """What is kept of the rows of a table."""
    there = one(table["image_sha256"]).is_valid().to_numpy(zero_copy_only=False)
    rows = b"".join(digest_of(shards.record(row).encode()) for row in table.to_pylist())
    return {
        "key": texts(one(table["key"])),
        "row": np.frombuffer(rows, f"S{WIDTH}"),
        "offset": np.where(there, UNKNOWN, NO_IMAGE),
    }


def digest_of(record: bytes) -> bytes:
    """16 bytes for the json member of a row."""
    return hashlib.blake2b(record, digest_size=WIDTH).digest()
