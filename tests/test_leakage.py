"""Leakage: what a reference shows is told by its captions or cut out of its picture."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pictures_folder import encoded

from curate.references import load_references
from stylear.errors import SourceError
from stylear.references import load_styles

# --- scenes -----------------------------------------------------------------------------------


def recipe(folder: Path) -> Any:
    source = SimpleNamespace(type="folder", path=folder)
    return SimpleNamespace(references=[source], seed=0, mix=SimpleNamespace(val_fraction=0))


def test_a_scene_stands_beside_the_picture_or_in_the_notes(tmp_path: Path) -> None:
    for n, name in enumerate(("dots--1", "dots--2", "lines")):
        (tmp_path / f"{name}.png").write_bytes(encoded(n, 24))
    (tmp_path / "dots--1.txt").write_text("a house\n by the sea ")
    (tmp_path / "dots--2.txt").write_text("not this")
    (tmp_path / "references.json").write_text('[{"file": "dots--2.png", "scene": "a cat"}]')
    expected = {"dots--1": "a house by the sea", "dots--2": "a cat", "lines": None}
    assert {r.id: r.scene for r in load_references(recipe(tmp_path))} == expected
    assert {r.id: r.scene for r in load_styles(tmp_path)} == expected
    (tmp_path / "lines.txt").write_text("  \n")
    assert load_references(recipe(tmp_path))[-1].scene is None
    (tmp_path / "lines.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceError, match=r"lines\.txt: expected the caption of lines\.png"):
        load_references(recipe(tmp_path))


def test_the_embedded_references_tell_their_scenes() -> None:
    source = SimpleNamespace(type="mini", names=["mosaic"])
    mini = SimpleNamespace(references=[source], seed=0, mix=SimpleNamespace(val_fraction=0))
    found = load_references(mini)
    assert [r.scene for r in found] == [r.scene for r in load_styles("mosaic")]
    assert found[0].scene == "a garden gate"
