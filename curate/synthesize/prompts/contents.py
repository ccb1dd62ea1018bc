"""The prompts that a plan chooses from, stored as columns, in seeded order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stylear.curate.corpus.columns import (
    SLICE,
    Ids,
    concatenate,
    first_occurrence,
    hash_identities,
    hash_values,
)
from stylear.curate.corpus.split import Split
from stylear.curate.synthesize.prompts.sources import Content
from stylear.pair import content_id, digest

CROSSES_SPLIT = "crosses-split"  # once de-stylised, it equals a prompt of the other split


class Contents:
    """Contents as columns of texts and digests, without an object for each.

    `split` returns the split of a content id. A de-stylised prompt that also belongs to a content of the
    other split is skipped and counted in `skipped`.
    """

    def __init__(
        self,
        rows: Iterable[Content],
        seed: int,
        split: Callable[[str], Split],
        skipped: Counter[str],
    ) -> None:
        def parts() -> Iterator[dict[str, Any]]:
            waiting = iter(rows)
            while True:
                part = list(islice(waiting, SLICE))
                columns = zip(*part, strict=True) if part else [()] * len(Content._fields)
                content = {
                    name: pa.array(column, pa.string())
                    for name, column in zip(Content._fields, columns, strict=True)
                }
                draws = (digest("content", seed, row.key, row.caption) for row in part)
                shown = [shown_content(row) for row in part]
                home = [
                    row.original is None or split(name) == split(row.content)
                    for name, row in zip(shown, part, strict=True)
                ]
                yield content | {
                    "drawn": hash_values(pa.array(draws, pa.string()), bytes.fromhex),
                    "shows": hash_identities(pa.array(shown, pa.string())),
                    "home": np.array(home, bool),
                }
                if not part:
                    return

        self._columns = concatenate(parts())
        order = np.argsort(self._columns["drawn"], kind="stable")
        at_home = self._find_own_split()
        if not at_home.all():
            skipped[CROSSES_SPLIT] += int((~at_home).sum())
            order = order[at_home[order]]
        self._order: NDArray[np.int64] = order

    def __getitem__(self, row: int) -> Content:
        return Content(*(self._columns[name][row].as_py() for name in Content._fields))

    def choose(self, quota: int | None) -> list[int]:
        """At most `quota` rows in seeded order; no content repeats before each was taken once.

        Nor does a prompt that de-stylising made equal to another repeat before each was taken once.
        """
        turns = self._count_earlier(hash_identities(self._columns["content"]))
        if self._columns["original"].null_count < len(self._columns["original"]):
            again = self._count_earlier(self._columns["shows"])
            turns = np.maximum(turns, again)
        chosen: list[int] = self._order[np.argsort(turns, kind="stable")[:quota]].tolist()
        return chosen

    def _count_earlier(self, names: Ids) -> NDArray[np.int64]:
        """How many earlier rows, in seeded order, have the same name as each row."""
        name = first_occurrence(names)[self._order]
        grouped = np.argsort(name, kind="stable")
        ordered = name[grouped]
        turn = np.empty(len(ordered), np.int64)
        turn[grouped] = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
        return turn

    def _find_own_split(self) -> NDArray[np.bool_]:
        """A mask of the rows that show no content which belongs to the other split."""
        home: NDArray[np.bool_] = self._columns["home"]
        if home.all():
            return home
        shown_content = first_occurrence(self._columns["shows"])
        own_split: NDArray[np.bool_] = home | ~np.isin(shown_content, shown_content[home])
        return own_split


def shown_content(row: Content) -> str:
    """The content id that a prompt shows: the row's own, unless de-stylising changed the prompt."""
    return row.content if row.original is None else content_id(row.caption)
