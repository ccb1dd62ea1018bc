"""Keys and other names as 16 bytes each, for tables of many million rows."""

from __future__ import annotations

import os
import re
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stylear.curate.corpus.columns import WIDTH, Ids, Indices, combine_chunks, valid_mask

if TYPE_CHECKING:
    import pyarrow as pa

DIGEST = re.compile(
    r"[0-9a-f]{32}"
)  # what keys and contents are, unless another program wrote them
SALT = os.urandom(16)  # of this process, so that nobody can choose a key with the bytes of another
NIBBLES = np.full(256, 255, np.uint8)
NIBBLES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


def encode_keys(column: pa.Array | pa.ChunkedArray) -> Ids:
    """The 16 bytes of each key, equal for equal keys in this process; zeros for null."""
    array = combine_chunks(column)
    ids = np.zeros(len(array), f"S{WIDTH}")
    is_valid = valid_mask(array)
    ids[is_valid] = encode_digests(array.drop_null() if array.null_count else array)
    return ids


def encode_digests(column: pa.StringArray) -> Ids:
    """The bytes of 32 hex digits; of any other text a salted hash."""
    if not len(column):
        return np.zeros(0, f"S{WIDTH}")
    offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset :][: len(column) + 1]
    text = np.frombuffer(column.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    if (np.diff(offsets) == 2 * WIDTH).all():
        numbers = NIBBLES[text].reshape(-1, WIDTH, 2)
        if numbers.max() < 16:
            digests = (numbers[:, :, 0] << 4) | numbers[:, :, 1]
            return np.ascontiguousarray(digests).view(f"S{WIDTH}").ravel()
    return np.array([encode_key(key) for key in column.to_pylist()], f"S{WIDTH}")


def encode_key(key: str) -> bytes:
    """The bytes of one key."""
    if DIGEST.fullmatch(key):
        return bytes.fromhex(key)
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=WIDTH, salt=SALT).digest()


class KeyIndex:
    """Looks up rows by the 16 bytes of their key; sorted by half of them, which is ten times faster."""

    def __init__(self, ids: Ids) -> None:
        self._first, self._second = split_halves(ids)
        self._order = np.argsort(self._first, kind="stable")
        self._sorted = self._first[self._order]

    def find(self, ids: Ids) -> Indices:
        """The first row with each key; -1 without one."""
        first_rows = np.full(len(ids), -1, np.int64)
        if not len(self._order):
            return first_rows
        first, second = split_halves(ids)
        place = np.searchsorted(self._sorted, first)
        left = np.arange(len(ids))
        while len(left):  # once more for each further row with the same first half
            inside = place[left] < len(self._sorted)
            left = left[inside]
            left = left[self._sorted[place[left]] == first[left]]
            rows = self._order[place[left]]
            equal = self._second[rows] == second[left]
            first_rows[left[equal]] = rows[equal]
            left = left[~equal]
            place[left] += 1
        return first_rows

    def find_repeated(self) -> Indices:
        """The rows whose key an earlier row has."""
        again = np.zeros(len(self._sorted), bool)
        again[1:] = self._sorted[1:] == self._sorted[:-1]
        rows = np.sort(self._order[again])
        halves = np.stack([self._first[rows], self._second[rows]], axis=1)
        ids = np.ascontiguousarray(halves).view(f"S{WIDTH}").ravel()
        repeated: Indices = rows[self.find(ids) != rows]
        return repeated


def split_halves(ids: Ids) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Both halves of keys of 16 bytes as numbers."""
    halves = np.ascontiguousarray(ids).view(np.uint64).reshape(-1, 2)
    return np.ascontiguousarray(halves[:, 0]), np.ascontiguousarray(halves[:, 1])


class Words:
    """A growing list of the distinct texts of a column, as numbers; -1 for null."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self._numbers: dict[str | None, int] = {None: -1}

    def encode(self, column: pa.Array | pa.ChunkedArray) -> NDArray[np.int32]:
        """The number of each text."""
        encoded = combine_chunks(column).dictionary_encode()
        numbers = np.array([self.number(word) for word in [*encoded.dictionary.to_pylist(), None]])
        codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        encoded_rows: NDArray[np.int32] = numbers[codes].astype(np.int32)
        return encoded_rows

    def number(self, word: str | None) -> int:
        """The number of a text, which is added if it is new."""
        if word not in self._numbers:
            assert word is not None
            self._numbers[word] = len(self.words)
            self.words.append(word)
        return self._numbers[word]
