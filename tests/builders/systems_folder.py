"""A folder with pictures of several systems, for reviews."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from builders.tiny_corpus import picture


def write_systems(
    folder: Path,
    systems: Sequence[str] = ("ours", "theirs"),
    prompts: Sequence[str] = ("a cat", "a dog"),
) -> Path:
    """`folder/SYSTEM/PROMPT.png`, and `folder/references/PROMPT.png`."""
    for number, name in enumerate([*systems, "references"]):
        (folder / name).mkdir(parents=True)
        for place, prompt in enumerate(prompts):
            (folder / name / f"{prompt}.png").write_bytes(picture(100 * number + place))
    return folder
