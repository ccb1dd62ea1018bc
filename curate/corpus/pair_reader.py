"""Random access to the pairs of raw/ and stylized/ by key, straight from the tars.

The index holds about 70 bytes per pair: its key, a hash of its row and the offset of its sample. The row is
read from the tar together with the image, and is trusted only if it hashes to the row of the table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stylear.curate.corpus import parquet, records
from stylear.curate.corpus.columns import (
    WIDTH,
    Ids,
    Indices,
    TextIndex,
    Texts,
    combine_chunks,
    concatenate,
    to_bytes,
)
from stylear.curate.corpus.layout import KINDS
from stylear.curate.corpus.local_copies import LocalCopies
from stylear.curate.corpus.tars import BLOCK, locate_samples, parse_sample
from stylear.errors import CorpusError
from stylear.pair import Pair

if TYPE_CHECKING:
    import pyarrow as pa

UNKNOWN, NO_IMAGE = -2, -1
COLUMNS = list(records.TYPES)


@dataclass(frozen=True, slots=True)
class SampleLocations:
    """The locations of samples in tars, in a given order; small enough to send to a worker."""

    tars: Sequence[Path]
    tar: NDArray[np.int32]  # (N,) indices into tars
    offset: NDArray[np.int64]  # (N,)
    size: NDArray[np.int32]  # (N,) bytes
    row: Ids  # (N,) hash of the sample's record

    def __len__(self) -> int:
        return len(self.tar)

    def part(self, where: slice) -> SampleLocations:
        """A slice of the locations, with only the tars that it uses."""
        used, tar = np.unique(self.tar[where], return_inverse=True)
        tars = [self.tars[n] for n in used]
        return SampleLocations(
            tars, tar.astype(np.int32), self.offset[where], self.size[where], self.row[where]
        )


def read_samples_at(
    samples: SampleLocations, copies: LocalCopies
) -> Iterator[tuple[records.Row, str, memoryview]]:
    """Read the row, the record and the image of each sample.

    Raises CorpusError for a record or an image that is not the one of the table.
    """
    locations = zip(
        samples.tar.tolist(), samples.offset.tolist(), samples.size.tolist(), strict=True
    )
    for (number, offset, size), expected in zip(locations, samples.row.tolist(), strict=True):
        tar = samples.tars[number]
        data = copies.read(tar, offset, size)
        try:
            image, record = parse_sample(data)
        except ValueError:
            record = b""
        if record_digest(record) != expected.ljust(WIDTH, b"\0"):
            raise mismatch_error(tar, data[:BLOCK].partition(b".")[0].decode("ascii", "replace"))
        written = record.decode()
        row: records.Row = json.loads(written)
        if hashlib.sha256(image).hexdigest() != row["image_sha256"]:
            raise mismatch_error(tar, row["key"])
        yield row, written, image


class PairReader:
    """Reads the pairs of a corpus by key."""

    def __init__(
        self, corpus: Path, kinds: Iterable[str] = KINDS, copies: LocalCopies | None = None
    ) -> None:
        self.corpus, self._copies = corpus, copies or LocalCopies()
        self._tars: list[Path] = []
        starts = [0]

        def parts() -> Iterator[dict[str, Any]]:
            yield index_columns(parquet.rows_to_table(dict.fromkeys(COLUMNS, ())))
            for kind in kinds:
                for path, table in parquet.read_tables(corpus / kind, COLUMNS):
                    self._tars.append(path.with_suffix(".tar"))
                    starts.append(starts[-1] + table.num_rows)
                    yield index_columns(table)

        columns = concatenate(parts())
        self._starts = np.array(starts)
        self._index, self._rows = TextIndex(columns["key"]), columns["row"]
        self._offsets, self._sizes = columns["offset"], columns["size"]

    def pair(self, key: str) -> Pair:
        """The pair of a key with its image, which is empty for a dropped pair.

        Raises CorpusError for an unknown key, and for bytes that do not match the table.
        """
        indices = self._find_rows(np.array([key.encode()]))
        if self._offsets[indices[0]] == NO_IMAGE:
            shard = int(self._shards_of(indices)[0])
            table = parquet.read_table(self._tars[shard].with_suffix(".parquet"), COLUMNS)
            number = int(indices[0] - self._starts[shard])
            return records.row_to_pair(table.slice(number, 1).to_pylist()[0], b"")
        [(row, _, image)] = read_samples_at(self._samples(indices), self._copies)
        return records.row_to_pair(row, bytes(image))

    def samples(self, keys: Texts) -> SampleLocations:
        """The locations of samples by key. Raises CorpusError for an unknown key or a pair without image."""
        indices = self._find_rows(keys)
        if (without := self._offsets[indices] == NO_IMAGE).any():
            raise CorpusError(
                f"{self.corpus}: expected an image of {keys[without][0].decode()}, found none"
            )
        return self._samples(indices)

    def _find_rows(self, keys: Texts) -> Indices:
        indices = self._index.find(keys)
        if (indices < 0).any():
            raise CorpusError(
                f"{self.corpus}: expected a pair {keys[indices < 0][0].decode()}, found none"
            )
        return indices

    def _shards_of(self, indices: Indices) -> Indices:
        return np.searchsorted(self._starts, indices, "right") - 1

    def _samples(self, indices: Indices) -> SampleLocations:
        """The locations of pairs that have an image; tars not scanned yet are scanned."""
        shard_of = self._shards_of(indices)
        for shard in np.unique(shard_of[self._offsets[indices] == UNKNOWN]).tolist():
            self._find(shard)
        return SampleLocations(
            self._tars,
            shard_of.astype(np.int32),
            self._offsets[indices],
            self._sizes[indices],
            self._rows[indices],
        )

    def _find(self, shard: int) -> None:
        """Scan a tar for its samples, which are in the order of the rows that have an image."""
        tar, rows = self._tars[shard], slice(self._starts[shard], self._starts[shard + 1])
        indices = np.flatnonzero(self._offsets[rows] != NO_IMAGE) + self._starts[shard]
        try:
            stream = self._copies.open(tar)
        except OSError as error:
            raise CorpusError(f"{tar}: expected a tar, found: {error}") from error
        with stream as file:
            samples = zip(
                self._index.texts[indices].tolist(), self._sizes[indices].tolist(), strict=True
            )
            locations = list(locate_samples(tar, file, samples))
        self._offsets[indices], self._sizes[indices] = (
            np.array(locations, np.int64).reshape(-1, 2).T
        )


def index_columns(table: pa.Table) -> dict[str, Any]:
    """The index columns of a table's rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    has_image = combine_chunks(table["image_sha256"]).is_valid().to_numpy(zero_copy_only=False)
    encoded = records.encode_records(table).cast(pa.binary())
    rows = b"".join(map(record_digest, encoded.to_pylist()))
    captions = combine_chunks(table["caption"]).cast(pa.binary())
    caption, record = (pc.binary_length(c).to_numpy() for c in (captions, encoded))
    behind = 2 * BLOCK + caption + -caption % BLOCK + record + -record % BLOCK
    return {
        "key": to_bytes(combine_chunks(table["key"])),
        "row": np.frombuffer(rows, f"S{WIDTH}"),
        "offset": np.where(has_image, UNKNOWN, NO_IMAGE),
        "size": behind.astype(np.int32),
    }


def record_digest(record: bytes) -> bytes:
    """A 16-byte hash of the json member of a row."""
    return hashlib.blake2b(record, digest_size=WIDTH).digest()


def mismatch_error(tar: Path, key: str) -> CorpusError:
    return CorpusError(
        f"{tar}: the image of {key} differs from the hash in its table",
        hint="the file was changed or damaged; `stylear curate run RECIPE --out CORPUS` rebuilds it",
    )
