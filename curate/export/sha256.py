"""Hashes in the format of `sha256sum`: of the corpus's files and of its pictures.

`corpus.sha256` is to be checked inside the corpus, `images.sha256` inside an export `--to folders`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from stylear.curate.corpus.layout import MANIFEST
from stylear.curate.export.base import Export
from stylear.curate.export.folders import pair_path

FILES = "corpus.sha256"
IMAGES = "images.sha256"
LINE_BYTES = 140  # of a picture, approximately


class Sha256Export(Export):
    """Two lists of hashes."""

    def write(self, folder: Path) -> None:
        with (folder / FILES).open("w", encoding="utf-8", newline="\n") as out:
            for name, info in sorted(self.corpus.manifest["files"].items()):
                out.write(hash_line(info["sha256"], name))
            out.write(hash_line(self.corpus.manifest_sha256, MANIFEST))
        with (folder / IMAGES).open("w", encoding="utf-8", newline="\n") as out:
            for split in self.corpus.split_sizes:
                for pair in self.track(self.corpus.pairs(split)):
                    sha256 = hashlib.sha256(pair.image).hexdigest()
                    out.write(hash_line(sha256, pair_path(pair, split)))

    def estimate_bytes(self) -> int:
        return LINE_BYTES * (self.corpus.num_pairs + len(self.corpus.manifest["files"]))


def hash_line(sha256: str, name: str) -> str:
    """One line; a name with a line break or a backslash is escaped as `sha256sum` escapes it."""
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == name else chr(92)}{sha256}  {escaped}\n"
