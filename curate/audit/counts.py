"""Counts: every stage accounts for its pairs, and the manifest's numbers are those of the tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stylear.curate.audit.difference import Difference
from stylear.curate.audit.manifest import build_manifest
from stylear.curate.corpus.layout import LEDGER, MANIFEST
from stylear.curate.corpus.ledger import Ledger, flatten_settings
from stylear.errors import StylearError

COMPARED = (  # all of the manifest but the files, which are hashed, and the versions of its making
    "format", "name", "seed", "recipe_sha256", "stages", "counts", "ratio", "splits", "warnings",
)  # fmt: skip


def check_stages(corpus: Path) -> Iterator[Difference]:
    """Ledger entries whose kept and dropped pairs do not add up to the rows in."""
    ledger = Ledger(corpus)
    for stage in ledger.stages():
        for entry in ledger.entries(stage):
            out = entry.kept + sum(entry.dropped.values())
            if out != entry.rows_in:
                yield Difference(
                    "conservation",
                    f"{LEDGER}/{stage}/{entry.unit}.json",
                    f"{entry.rows_in} pairs kept or dropped",
                    f"{out}",
                )


def check_manifest(corpus: Path, manifest: Mapping[str, Any]) -> Iterator[Difference]:
    """Numbers of the manifest that differ from those of the tables."""
    try:
        current = build_manifest(corpus)
    except StylearError as error:
        yield Difference("counts", MANIFEST, "counts of the tables", error.message)
        return
    for name in COMPARED:
        old, new = flatten_settings(manifest.get(name)), flatten_settings(current[name])
        for key in sorted({*old, *new}):
            if old.get(key) != new.get(key):
                expected, found = old.get(key, "nothing"), new.get(key, "nothing")
                setting = f"{name}{f'.{key}' if key else ''}"
                yield Difference("counts", MANIFEST, expected, found, setting)
