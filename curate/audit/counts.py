"""Counts: the manifest's numbers are those of the tables and of the ledger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stylear.curate.audit.difference import Difference
from stylear.curate.audit.manifest import build_manifest
from stylear.curate.corpus.layout import MANIFEST
from stylear.curate.corpus.ledger import flatten_settings
from stylear.errors import StylearError

COMPARED = (  # all of the manifest but the files, which are hashed, and the versions of its making
    "format", "name", "seed", "recipe_sha256", "stages", "counts", "ratio", "splits", "warnings",
)  # fmt: skip


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
