"""Columns of pairs as arrays: a few bytes per row instead of a Python object.

A text that is only compared is stored as a 16-byte hash (an identity); a text that is written again stays an
Arrow string. Rows are referred to by their index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

Texts = NDArray[np.bytes_]  # (N,) of one width
Ids = NDArray[np.bytes_]  # (N,) of 16 bytes; all zero for no text
Indices = NDArray[np.int64]  # (N,) rows of another column
Mask = NDArray[np.bool_]
NONE = b""
WIDTH = 16
SLICE = 1 << 12  # values converted to Python objects at a time


def concatenate(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Concatenate the columns of many small tables, each a NumPy or an Arrow array."""
    import pyarrow as pa

    arrays: dict[str, GrowableArray] = {}
    lists: dict[str, list[pa.Array]] = {}
    for part in parts:
        for name, column in part.items():
            if isinstance(column, np.ndarray):
                arrays.setdefault(name, GrowableArray(column[:0])).add(column)
            else:
                lists.setdefault(name, []).append(column)
    return {name: pa.concat_arrays(lists.pop(name)) for name in list(lists)} | {
        name: array.finish() for name, array in arrays.items()
    }


class GrowableArray:
    """An array that grows in place; concatenating many small ones would fragment the memory."""

    def __init__(self, first: NDArray[Any]) -> None:
        self._data, self._size = np.array(first), 0

    def add(self, column: NDArray[Any]) -> None:
        """Append rows."""
        if column.dtype.itemsize > self._data.dtype.itemsize:  # wider texts
            self._data = self._data.astype(column.dtype)
        end = self._size + len(column)
        if end > len(self._data):
            room = (end + end // 8, *self._data.shape[1:])
            self._data.resize(room, refcheck=False)
        self._data[self._size : end] = column
        self._size = end

    def finish(self) -> NDArray[Any]:
        """Shrink the array to its rows and return it."""
        self._data.resize((self._size, *self._data.shape[1:]), refcheck=False)
        return self._data


def combine_chunks(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column of a table as one array."""
    import pyarrow as pa

    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def valid_mask(column: pa.Array) -> Mask:
    """A mask of the rows that are not null."""
    return unpack_bits(column.buffers()[0], column.offset, len(column))


def bool_mask(column: pa.BooleanArray) -> Mask:
    """A boolean column without nulls as a mask."""
    return unpack_bits(column.buffers()[1], column.offset, len(column)).copy()


def unpack_bits(buffer: pa.Buffer | None, start: int, count: int) -> Mask:
    """The bits of an Arrow buffer as a mask; no buffer means all ones. Arrow's own need 0.2 s to load."""
    if buffer is None:
        return np.ones(count, bool)
    bits = np.unpackbits(np.frombuffer(buffer, np.uint8), count=start + count, bitorder="little")
    return bits[start:].view(bool)


def dictionary_codes(column: pa.Array) -> NDArray[np.int32]:
    """32-bit numbers, or the dictionary indices of texts; -1 for null. The array is read-only."""
    numbers = getattr(column, "indices", column)
    start, count = numbers.offset, len(numbers)
    codes = np.frombuffer(numbers.buffers()[1], np.int32)[start : start + count]
    return (
        codes
        if numbers.buffers()[0] is None
        else np.where(valid_mask(numbers), codes, np.int32(-1))
    )


def to_objects(column: pa.Array) -> Iterator[Any]:
    """The values of a column as Python objects, a slice at a time."""
    for start in range(0, len(column), SLICE):
        yield from column.slice(start, SLICE).to_pylist()


def to_bytes(column: pa.Array) -> Texts:
    """Texts as fixed-width bytes, which sort like the texts; empty for null."""
    texts = GrowableArray(np.zeros(0, "S1"))
    for start in range(0, len(column), SLICE):
        part = [(text or "").encode() for text in column.slice(start, SLICE).to_pylist()]
        texts.add(np.array(part, "S"))
    return texts.finish()


def hash_identities(column: pa.Array) -> Ids:
    """The identity of each text: 16 bytes of BLAKE2b."""
    return hash_values(column, lambda text: blake2b(text.encode(), digest_size=WIDTH).digest())


def hash_values(column: pa.Array, hash_one: Callable[[Any], bytes]) -> Ids:
    """Apply `hash_one`, which returns 16 bytes, to each value; zeros for null."""
    empty = bytes(WIDTH)
    hashes = bytearray()
    for value in to_objects(column):
        hashes += empty if value is None else hash_one(value)
    return np.frombuffer(bytes(hashes), f"S{WIDTH}")


def rank_values(column: Any) -> NDArray[np.int64]:
    """The rank of each value among the distinct values."""
    return np.unique(column, return_inverse=True)[1]


def first_occurrence(*columns: NDArray[Any]) -> Indices:
    """For each row the index of the first row with the same values in all columns."""
    return rank_within_group(None, *columns)[0]


def rank_within_group(
    order: NDArray[Any] | None, *columns: NDArray[Any]
) -> tuple[Indices, Indices]:
    """The position of each row among the rows with the same values in all columns.

    Returns the index of the row that comes first in `order` (distinct numbers; default: row order) and the
    number of rows before this one, both (N,).
    """
    keys = [key for column in columns for key in sortable_keys(column)]
    if order is not None and len(keys) == 1 and keys[0].dtype == order.dtype == np.int32:
        by = np.argsort((keys[0].astype(np.int64) << 32) + order)  # a third of the time
    else:
        by = np.lexsort([*([] if order is None else [order]), *keys])  # stable
    new = np.zeros(len(by), bool)
    new[:1] = True
    for key in keys:
        ordered = key[by]
        new[1:] |= ordered[1:] != ordered[:-1]
    starts = np.flatnonzero(new)
    run = np.cumsum(new) - 1
    first, position = np.empty(len(by), np.int64), np.empty(len(by), np.int64)
    first[by] = by[starts][run]
    position[by] = np.arange(len(by)) - starts[run]
    return first, position


def sortable_keys(column: NDArray[Any]) -> list[NDArray[Any]]:
    """A column as sort keys: numbers unchanged, identities as two halves, other texts as ranks."""
    if column.dtype.kind != "S":
        return [column]
    if column.dtype.itemsize != WIDTH:
        return [rank_values(column)]
    return list(np.ascontiguousarray(column).view(np.uint64).reshape(-1, 2).T)


def count_repeated(column: Texts) -> int:
    """The number of texts that repeat an earlier one."""
    ordered = np.sort(column)
    return int((ordered[1:] == ordered[:-1]).sum())


class TextIndex:
    """Looks up the rows of a column by text."""

    def __init__(self, column: Texts) -> None:
        self.texts = column
        self._order = np.argsort(column, kind="stable")

    def find(self, texts: Texts) -> Indices:
        """The first row with each of the wanted texts; -1 without one."""
        if not len(self.texts):
            return np.full(len(texts), -1, np.int64)
        at = np.searchsorted(self.texts, texts, sorter=self._order)
        indices = self._order[np.minimum(at, len(self.texts) - 1)]
        return np.where(self.texts[indices] == texts, indices, -1)

    def find_repeated(self) -> Indices:
        """The rows whose text repeats that of an earlier row."""
        ordered = self.texts[self._order]
        return np.sort(self._order[1:][ordered[1:] == ordered[:-1]])


class DictionaryColumn:
    """A column of few distinct texts (reasons, stages) as small integers; -1 for null."""

    def __init__(self, column: pa.Array) -> None:
        encoded = column.dictionary_encode()
        self.words: list[str] = encoded.dictionary.to_pylist()
        self.codes = dictionary_codes(encoded).copy()

    def set(self, where: Any, word: str) -> None:
        """Set the text of the rows given by a mask or by indices."""
        if word not in self.words:
            self.words.append(word)
        self.codes[where] = self.words.index(word)

    def text_at(self, row: int) -> str | None:
        """The text of one row."""
        code = int(self.codes[row])
        return None if code < 0 else self.words[code]

    def counts(self) -> dict[str, int]:
        """The number of rows of each text."""
        counts = np.bincount(self.codes + 1, minlength=len(self.words) + 1)[1:].tolist()
        return {word: count for word, count in zip(self.words, counts, strict=True) if count}

    def array(self) -> pa.Array:
        """The texts as an Arrow array."""
        import pyarrow as pa

        codes = pa.array(self.codes, mask=self.codes < 0)
        return pa.DictionaryArray.from_arrays(codes, pa.array(self.words, pa.string())).cast(
            pa.string()
        )


def connected_components(size: int, a: Indices, b: Indices) -> Indices:
    """For each of `size` nodes the lowest node of its connected component; a and b are the ends of the edges.

    Each round attaches the higher root of an edge to the lower one, then points every node at its root
    (Shiloach and Vishkin 1982).
    """
    root = np.arange(size)
    while True:
        low, high = np.minimum(root[a], root[b]), np.maximum(root[a], root[b])
        apart = low != high
        if not apart.any():
            return root
        a, b = a[apart], b[apart]
        np.minimum.at(root, high[apart], low[apart])
        while True:
            up = root[root]
            if (up == root).all():
                break
            root = up
