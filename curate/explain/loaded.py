"""The tables with the histories of many pairs, read once: suited to a page that shows them all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stylear.curate.corpus.answers import Votes, count_votes, read_answers
from stylear.curate.corpus.layout import FETCHED, MIX, VERDICTS, ShardKind
from stylear.curate.corpus.parquet import read_table, read_tables
from stylear.curate.corpus.records import TYPES
from stylear.curate.explain.find import RowLocation, select_rows
from stylear.curate.explain.tables import (
    GROUP,
    MIXED,
    SPLITS,
    HistoryTables,
    Row,
    find_children,
    find_preferences,
)
from stylear.curate.score import read_metadata

if TYPE_CHECKING:
    import pyarrow as pa


class LoadedTables(HistoryTables):
    """Finds the rows of given pairs without a scan for each.

    It holds a few kB per given pair. Shards are read one at a time, so ask for the pairs shard by shard.
    """

    def __init__(self, corpus: Path, keys: Collection[str]) -> None:
        super().__init__(corpus)
        names = list(keys)
        self._keys = frozenset(names)
        verdicts = select_rows(corpus / VERDICTS, "key", names) if self._has("filter") else []
        self._verdicts: dict[str, Row] = {row["key"]: row for row in verdicts}
        mixed = select_rows(corpus / MIX, "key", names, MIXED) if self._has("mix") else []
        self._mixed: dict[str, Row] = {row["key"]: row for row in mixed}
        self._groups: defaultdict[str, list[Row]] = defaultdict(list)
        groups = list({row["group"] for row in verdicts if row["group"] is not None})
        for row in select_rows(corpus / VERDICTS, "group", groups, GROUP) if groups else ():
            self._groups[row["group"]].append(row)
        self._shards = {
            (split, key): f"{split}/{path.stem}.tar"
            for split in SPLITS
            for path, table in read_tables(corpus / split, ["key"])
            for key in table["key"].to_pylist()
            if key in self._mixed
        }
        self._children = find_children(self, names)
        self._preferences = find_preferences(self, names)
        self._votes = count_votes(read_answers(corpus))
        self._rows = lru_cache(1)(self._read_rows)
        self._fetched = lru_cache(1)(self._read_times)
        self._scores = lru_cache(1)(self._read_scores)
        self._lowest = cache(super().lowest_kept)

    def read_row(self, location: RowLocation) -> Row:
        return dict(self._rows(location.kind, location.unit)[location.row])

    def read_scores(self, location: RowLocation) -> Iterator[tuple[str, Row, Mapping[str, Any]]]:
        for name, rows, metadata in self._scores(location.kind, location.unit):
            if location.row in rows:
                yield name, dict(rows[location.row]), metadata

    def fetched_at(self, unit: str, key: str) -> str | None:
        return self._fetched(unit).get(key)

    def verdict(self, key: str) -> Row | None:
        return self._verdicts.get(key)

    def candidates(self, group: str) -> list[Row]:
        return list(self._groups[group])

    def lowest_kept(self, score: str, style: str | None) -> float | None:
        return self._lowest(score, style)

    def votes(self, key: str) -> Votes:
        return self._votes.get(key, Votes())

    def mixed(self, key: str) -> Row | None:
        return self._mixed.get(key)

    def training_shard(self, split: str, key: str) -> str | None:
        return self._shards.get((split, key))

    def children(self, key: str) -> list[Row]:
        return self._children.get(key, [])

    def preferences(self, key: str) -> list[Row]:
        return self._preferences.get(key, [])

    def _has(self, stage: str) -> bool:
        return stage in self.finished

    def _read_rows(self, kind: ShardKind, unit: str) -> dict[int, Row]:
        path = self.corpus / kind / f"{unit}.parquet"
        return self._pick_rows(read_table(path, list(TYPES)))

    def _pick_rows(self, table: pa.Table) -> dict[int, Row]:
        """The rows of the given pairs, by their number in the table."""
        numbers = [n for n, key in enumerate(table["key"].to_pylist()) if key in self._keys]
        picked = table.take(np.array(numbers, np.int64))
        return dict(zip(numbers, picked.to_pylist(), strict=True))

    def _read_times(self, unit: str) -> dict[str, str]:
        path = self.corpus / FETCHED / f"{unit}.parquet"
        if not path.is_file():
            return {}
        rows = read_table(path, ["key", "fetched_at"]).to_pylist()
        return {row["key"]: row["fetched_at"].isoformat() for row in rows}

    def _read_scores(
        self, kind: ShardKind, unit: str
    ) -> list[tuple[str, dict[int, Row], dict[str, Any]]]:
        tables = [
            (name, read_table(path)) for name, path in self.score_files(RowLocation(kind, unit, 0))
        ]
        return [(name, self._pick_rows(table), read_metadata(table)) for name, table in tables]
