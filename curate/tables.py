"""The rows of a finished corpus, read for the audit: columns, types and gaps checked first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curate import shards
from curate.mix import SPLITS
from curate.stage import KINDS, MIX, VERDICTS
from stylear.errors import CorpusError

Row = Mapping[str, Any]
PAIRS = {
    name: {"bool_": "bool"}.get(kind, kind)
    + ("" if name in {"key", "caption", "kind", "source", "content", "details", "kept"} else "?")
    for name, kind in shards.TYPES.items()
}
JUDGED = {"key": "string", "kept": "bool", "reason": "string?", "group": "string?"}
MIXED = {"key": "string", "kind": "string", "kept": "bool", "split": "string?", "reason": "string?"}
PREFERENCES = {
    **dict.fromkeys(("key", "chosen", "rejected"), "string"),
    **dict.fromkeys(("chosen_score", "rejected_score", "margin"), "double"),
}


class Tables:
    """Of the pairs, of the verdicts, of the training splits and of the preference pairs.

    Raises CorpusError naming the table that is not as it should be.
    """

    def __init__(self, corpus: Path) -> None:
        self.made: list[Row] = [r for kind in KINDS for r in rows_of(corpus / kind, PAIRS)]
        self.verdicts: list[Row] = checked(corpus / VERDICTS, JUDGED)
        self.mixed: list[Row] = checked(corpus / MIX, MIXED)
        self.splits = {split: rows_of(corpus / split, PAIRS) for split in SPLITS}
        self.preferences = rows_of(corpus / "preferences", PREFERENCES)


def rows_of(folder: Path, types: Mapping[str, str]) -> list[Row]:
    """The rows of all tables of a stage directory."""
    return [row for path in sorted(folder.glob("*.parquet")) for row in checked(path, types)]


def checked(path: Path, types: Mapping[str, str]) -> list[Row]:
    """The rows of a table; `types` says what each column holds, with ? where it may have gaps.

    Raises CorpusError naming the file and the column.
    """
    table = shards.read_table(path, list(types))
    for name, expected in types.items():
        found = str(table.schema.field(name).type)
        if found != expected.rstrip("?"):
            raise CorpusError(f"{path}: expected {name} as {expected.rstrip('?')}, found {found}")
        if table[name].null_count and not expected.endswith("?"):
            raise CorpusError(
                f"{path}: expected a value for {name} in every row, found none in some"
            )
    rows: list[Row] = table.to_pylist()
    return rows
