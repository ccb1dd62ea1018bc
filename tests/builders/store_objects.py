"""The objects of a corpus in a store, compared with files of a disk, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from stylear.curate.corpus.object_store import ObjectPath

NOTES = (".recipe-folder.json", ".source-hashes.json")  # no part of a corpus


def objects_of(corpus: Path) -> dict[str, bytes]:
    """Every object of a corpus by its path in it, but the notes about recipe and sources."""
    files = cast(ObjectPath, corpus).files()
    objects = {path.relative_to(cast(Any, corpus)).as_posix(): path.read_bytes() for path in files}
    return {name: data for name, data in objects.items() if name not in NOTES}


def check(found: dict[str, bytes], expected: dict[str, bytes]) -> None:
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
