"""Claims about style references in scoring: each is measured alone, and a shard depends on its own only."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

from builders.pictures_folder import encoded
from PIL import Image

from stylear.curate.references import StyleReference
from stylear.curate.score.scorer import Context


class Widths:
    """Measures how many images came together."""

    name: Hashable = "widths"
    batch_size = 8

    def prepare(self, image: Image.Image) -> Any:
        return image.width

    def measure(self, prepared: Sequence[Any]) -> Any:
        return [(value, len(prepared)) for value in prepared]


def reference(name: str, size: int) -> StyleReference:
    return StyleReference(name, encoded(size, size), name, Path(f"{name}.png"), held_out=False)


def test_a_further_reference_changes_no_batch() -> None:
    few = Context([reference("a", 20), reference("b", 30)])
    more = Context([reference("a", 20), reference("aa", 40), reference("b", 30)])
    assert few.reference_rows(Widths()) == {"a": (20, 1), "b": (30, 1)}
    assert more.reference_rows(Widths()) == {"a": (20, 1), "aa": (40, 1), "b": (30, 1)}
