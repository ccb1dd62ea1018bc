"""Columns: a million rows as arrays, a few bytes each, instead of a million objects.

A text that is only compared is kept as its identity: 16 bytes, equal when the texts are. A text that is
written down again stays an Arrow string. Rows are named by their place.
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
Places = NDArray[np.int64]  # (N,) rows of another column
Mask = NDArray[np.bool_]
NONE = b""
WIDTH = 16
SLICE = 1 << 12  # values that are Python objects at a time


def concatenate(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The columns of many small tables, one below the other: NumPy arrays or Arrow arrays."""
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
        name: array.done() for name, array in arrays.items()
    }


class GrowableArray:
    """An array that grows in place; many small ones to be joined would leave holes in the memory."""

    def __init__(self, first: NDArray[Any]) -> None:
        self._data, self._size = np.array(first), 0

    def add(self, column: NDArray[Any]) -> None:
        """Put rows below the others."""
        if column.dtype.itemsize > self._data.dtype.itemsize:  # wider texts
            self._data = self._data.astype(column.dtype)
        end = self._size + len(column)
        if end > len(self._data):
            room = (end + end // 8, *self._data.shape[1:])
            self._data.resize(room, refcheck=False)
        self._data[self._size : end] = column
        self._size = end

    def done(self) -> NDArray[Any]:
        """All rows."""
        self._data.resize((self._size, *self._data.shape[1:]), refcheck=False)
        return self._data


def combine_chunks(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column of a table as one array."""
    import pyarrow as pa

    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def valid_mask(column: pa.Array) -> Mask:
    """Which rows have a value."""
    return unpack_bits(column.buffers()[0], column.offset, len(column))


def bool_mask(column: pa.BooleanArray) -> Mask:
    """Which rows are true; none of them null."""
    return unpack_bits(column.buffers()[1], column.offset, len(column)).copy()


def unpack_bits(buffer: pa.Buffer | None, start: int, count: int) -> Mask:
    """Bits of an Arrow buffer; no buffer stands for ones. Its own functions for this take 0.2 s to load."""
    if buffer is None:
        return np.ones(count, bool)
    found = np.unpackbits(np.frombuffer(buffer, np.uint8), count=start + count, bitorder="little")
    return found[start:].view(bool)


def dictionary_codes(column: pa.Array) -> NDArray[np.int32]:
    """32-bit numbers, of words their places in the dictionary; -1 for null. Not to be written to."""
    numbers = getattr(column, "indices", column)
    start, count = numbers.offset, len(numbers)
    found = np.frombuffer(numbers.buffers()[1], np.int32)[start : start + count]
    return (
        found
        if numbers.buffers()[0] is None
        else np.where(valid_mask(numbers), found, np.int32(-1))
    )


def to_objects(column: pa.Array) -> Iterator[Any]:
    """The values of a column as Python objects, few of them at a time."""
    for start in range(0, len(column), SLICE):
        yield from column.slice(start, SLICE).to_pylist()


def to_bytes(column: pa.Array) -> Texts:
    """Texts as bytes of one width, which sort as the texts do; empty for none."""
    found = GrowableArray(np.zeros(0, "S1"))
    for start in range(0, len(column), SLICE):
        part = [(text or "").encode() for text in column.slice(start, SLICE).to_pylist()]
        found.add(np.array(part, "S"))
    return found.done()


def hash_identities(column: pa.Array) -> Ids:
    """16 bytes of BLAKE2b a text."""
    return hash_values(column, lambda text: blake2b(text.encode(), digest_size=WIDTH).digest())


def hash_values(column: pa.Array, of: Callable[[Any], bytes]) -> Ids:
    """`of` each value, 16 bytes; zeros for null."""
    empty = bytes(WIDTH)
    found = bytearray()
    for value in to_objects(column):
        found += empty if value is None else of(value)
    return np.frombuffer(bytes(found), f"S{WIDTH}")


def rank_values(column: Any) -> NDArray[np.int64]:
    """A number for each value, equal when the values are, in the order of the values."""
    return np.unique(column, return_inverse=True)[1]


def first_occurrence(*columns: NDArray[Any]) -> Places:
    """For each row the place of the first one with the same values in all columns."""
    return rank_within_group(None, *columns)[0]


def rank_within_group(order: NDArray[Any] | None, *columns: NDArray[Any]) -> tuple[Places, Places]:
    """Where each row stands among those with the same values in all columns.

    The place of the one that comes first in `order` (numbers, no two equal; without: as they lie), and
    how many come before this row, both (N,).
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
    """A column as numbers that sort: itself, identities as their two halves, other texts numbered."""
    if column.dtype.kind != "S":
        return [column]
    if column.dtype.itemsize != WIDTH:
        return [rank_values(column)]
    return list(np.ascontiguousarray(column).view(np.uint64).reshape(-1, 2).T)


def is_repeated(column: Texts) -> int:
    """How many texts stood before."""
    ordered = np.sort(column)
    return int((ordered[1:] == ordered[:-1]).sum())


class Index:
    """Where each text of a column stands. The first place counts."""

    def __init__(self, column: Texts) -> None:
        self.texts = column
        self._order = np.argsort(column, kind="stable")

    def find(self, wanted: Texts) -> Places:
        """The place of each wanted text; -1 where there is none."""
        if not len(self.texts):
            return np.full(len(wanted), -1, np.int64)
        at = np.searchsorted(self.texts, wanted, sorter=self._order)
        places = self._order[np.minimum(at, len(self.texts) - 1)]
        return np.where(self.texts[places] == wanted, places, -1)

    def repeated(self) -> Places:
        """Places of texts that stood before."""
        ordered = self.texts[self._order]
        return np.sort(self._order[1:][ordered[1:] == ordered[:-1]])


class DictionaryColumn:
    """A column of few distinct texts (reasons, stages) as small numbers; -1 for none."""

    def __init__(self, column: pa.Array) -> None:
        encoded = column.dictionary_encode()
        self.words: list[str] = encoded.dictionary.to_pylist()
        self.codes = dictionary_codes(encoded).copy()

    def set(self, where: Any, word: str) -> None:
        """Put a word into the rows of a mask or of places."""
        if word not in self.words:
            self.words.append(word)
        self.codes[where] = self.words.index(word)

    def word(self, place: int) -> str | None:
        """The word of one row."""
        code = int(self.codes[place])
        return None if code < 0 else self.words[code]

    def counts(self) -> dict[str, int]:
        """How often each word stands there."""
        found = np.bincount(self.codes + 1, minlength=len(self.words) + 1)[1:].tolist()
        return {word: count for word, count in zip(self.words, found, strict=True) if count}

    def array(self) -> pa.Array:
        """The texts as an Arrow array."""
        import pyarrow as pa

        codes = pa.array(self.codes, mask=self.codes < 0)
        return pa.DictionaryArray.from_arrays(codes, pa.array(self.words, pa.string())).cast(
            pa.string()
        )


def connected_components(size: int, a: Places, b: Places) -> Places:
    """For each of `size` places the lowest that edges a-b connect it with.

    Each round hangs the higher root of an edge below the lower one, then points every place at its
    root (Shiloach and Vishkin 1982).
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
