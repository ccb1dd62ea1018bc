"""The tasks of a corpus: its pairs, and its candidates for one prompt, content and reference."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from stylear.curate.corpus.answers import Side
from stylear.curate.corpus.layout import KINDS, RECIPE, VERDICTS
from stylear.curate.corpus.pair_reader import PairReader
from stylear.curate.corpus.parquet import read_table, read_tables
from stylear.curate.filter.human import REASONS
from stylear.curate.recipe import load_recipe
from stylear.curate.references import reference_files
from stylear.curate.review.tasks import Ask, Task, choice
from stylear.errors import StylearError

COLUMNS = ("key", "caption", "kind", "reference", "source", "details", "kept", "image_sha256")


class CorpusMaterial:
    """The pairs of a corpus whose fetch is finished; a finished filter leaves out what it dropped."""

    def __init__(self, corpus: Path, kinds: tuple[str, ...] = KINDS) -> None:
        self.corpus, self.kinds = corpus, kinds
        self._pictures: PairReader | None = None
        self._lock = threading.Lock()  # the server reads pictures in several threads
        try:
            self._references = reference_files(load_recipe(corpus / RECIPE))
        except StylearError:
            self._references = {}  # they have moved since; tasks are shown without

    def tasks(self, ask: Ask) -> list[Task]:
        """One task a pair, or one for each two candidates that differ."""
        return list(self._pair_tasks() if ask == "keep" else self._choice_tasks())

    def _pair_tasks(self) -> Iterator[Task]:
        dropped = self._dropped_by_filter()
        for row in self._rows(self.kinds):
            if row["key"] not in dropped:
                yield Task(
                    row["key"],
                    "pair",
                    row["caption"],
                    row["reference"],
                    (side_of(row),),
                    row["key"],
                )

    def _choice_tasks(self) -> Iterator[Task]:
        groups: dict[str, dict[str, dict[str, Any]]] = {}
        for row in self._rows(("stylized",)):
            if (group := row["details"].get("group")) is not None:
                groups.setdefault(group, {}).setdefault(row["image_sha256"], row)
        for group, rows in groups.items():
            for first, second in combinations(rows.values(), 2):
                sides = side_of(first), side_of(second)
                yield choice(group, first["caption"], first["reference"], *sides)

    def _rows(self, kinds: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        """The rows with a picture that fetch and synthesize kept, with their details."""
        for kind in kinds:
            for _, table in read_tables(self.corpus / kind, COLUMNS):
                for row in table.to_pylist():
                    if row["kept"] and row["image_sha256"]:
                        yield {**row, "details": json.loads(row["details"])}

    def _dropped_by_filter(self) -> set[str]:
        """The keys that other rules than people's drops took out, if the filter has run."""
        path = self.corpus / VERDICTS
        if not path.is_file():
            return set()
        rows = read_table(path, ["key", "kept", "reason"]).to_pylist()
        return {row["key"] for row in rows if not row["kept"] and row["reason"] not in REASONS}

    def read_picture(self, side: Side) -> bytes:
        """The picture of a pair. Raises CorpusError for a pair that is gone or damaged."""
        with self._lock:
            if self._pictures is None:
                self._pictures = PairReader(self.corpus, self.kinds)
            return self._pictures.pair(side.picture).image

    def read_reference(self, reference: str) -> bytes | None:
        """The picture of a style reference; None if it is not where the recipe says."""
        path = self._references.get(reference)
        return path.read_bytes() if path is not None and path.is_file() else None


def side_of(row: dict[str, Any]) -> Side:
    """A pair as a side of a choice; its model is the one that drew it, or its source."""
    return Side(str(row["details"].get("model") or row["source"]), row["key"])
