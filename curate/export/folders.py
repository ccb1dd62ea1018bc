"""Plain folders in kohya's layout: `train/1_STYLE/KEY.png` with its caption in `KEY.txt`.

kohya's scripts read the number in front as how often a picture is repeated in an epoch. `provenance.jsonl`
has a line for each pair: its path and its record.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import IO

from stylear.curate.corpus.records import canonical_json
from stylear.curate.export.base import Export
from stylear.curate.export.record import SPLIT_NAMES, flatten_pair, image_name, parse_style
from stylear.pair import Pair, digest

REPEATS = 1
RAW = "raw"
SAFE = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")
UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
ROW_BYTES = 1000  # of a line of provenance and a caption, approximately


class FoldersExport(Export):
    """Pictures and captions as single files, one folder per split and style."""

    def write(self, folder: Path) -> None:
        with (folder / "provenance.jsonl").open("w", encoding="utf-8") as lines:
            for split in self.corpus.split_sizes:
                for pair in self.track(self.corpus.pairs(split)):
                    write_pair(folder, pair, split, lines)

    def estimate_bytes(self) -> int:
        return self.image_bytes() + ROW_BYTES * self.corpus.num_pairs


def write_pair(folder: Path, pair: Pair, split: str, lines: IO[str]) -> None:
    """Write the picture, the caption and the line of a pair."""
    path = pair_path(pair, split)
    image = folder / path
    image.parent.mkdir(parents=True, exist_ok=True)
    image.write_bytes(pair.image)
    image.with_suffix(".txt").write_text(pair.caption, "utf-8")
    lines.write(canonical_json({"path": path, **flatten_pair(pair, split)}) + "\n")


def pair_path(pair: Pair, split: str) -> str:
    """`train/1_watercolour/KEY.png`: the path of a picture inside the export."""
    style = style_folder(parse_style(pair.origin.reference))
    return f"{SPLIT_NAMES[split]}/{REPEATS}_{style}/{image_name(pair)}"


def style_folder(style: str | None) -> str:
    """The name of a style's folder. A style is an untrusted file name: it is reduced to letters, digits, _
    and -, and a suffix separates names that would then be equal, also where case is ignored."""
    if style is None:
        return RAW
    if SAFE.fullmatch(style) and style != RAW:
        return style
    return f"{UNSAFE.sub('_', style)[:50]}-{digest('style', style)[:8]}"
