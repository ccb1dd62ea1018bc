"""Export a finished corpus: check the output folder, write beside it, rename."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylear.console import Bar
from stylear.curate.corpus.storage import list_files
from stylear.curate.export.base import Export
from stylear.curate.export.corpus import ExportedCorpus
from stylear.curate.export.declared import Declared
from stylear.curate.export.folder import fresh_folder, require_free
from stylear.curate.export.registry import open_export
from stylear.errors import StorageError, UsageError


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What was written, or with `dry_run` what would be."""

    corpus: Path
    format: str
    out: Path
    pairs: dict[str, int]  # by split
    files: int  # 0 in a dry run: not known yet
    bytes: int  # in a dry run an estimate
    manifest_sha256: str
    warnings: tuple[str, ...] = ()
    dry_run: bool = False

    def row(self) -> dict[str, Any]:
        """For a table."""
        size = (
            {"bytes (about)": self.bytes}
            if self.dry_run
            else {"files": self.files, "bytes": self.bytes}
        )
        return {
            "format": self.format,
            "pairs": sum(self.pairs.values()),
            **size,
            "out": str(self.out),
        }

    def summary(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "corpus": str(self.corpus),
            "manifest_sha256": self.manifest_sha256,
            "format": self.format,
            "out": str(self.out),
            "pairs": self.pairs,
            "files": None if self.dry_run else self.files,
            "bytes": self.bytes,
            "dry_run": self.dry_run,
            "warnings": list(self.warnings),
        }


def export(
    path: Path, to: str, out: Path, declared: Declared | None = None, *, dry_run: bool = False
) -> ExportResult:
    """Write a finished corpus into the new folder `out` in another format.

    The same corpus gives the same bytes. Raises CorpusError for an unfinished or damaged corpus, UsageError
    if `out` is not new or is inside the corpus, StorageError if the disk has no room.
    """
    corpus = ExportedCorpus.open(path)
    opened = open_export(to, corpus, declared or Declared())
    if corpus.contains(out):
        raise UsageError(
            f"--out {out}: expected a folder outside the corpus, found one inside {path}",
            hint="the audit would report its files as unexpected",
        )
    require_free(out.absolute())
    about = opened.estimate_bytes()
    files, size = 0, about
    if not dry_run:
        require_room(out, about)
        files, size = write_folder(opened, to, out)
    return ExportResult(
        corpus=path,
        format=to,
        out=out,
        pairs=corpus.split_sizes,
        files=files,
        bytes=size,
        manifest_sha256=corpus.manifest_sha256,
        warnings=tuple(opened.warnings),
        dry_run=dry_run,
    )


def write_folder(opened: Export, to: str, out: Path) -> tuple[int, int]:
    """Write an export; returns its numbers of files and bytes."""
    with (
        fresh_folder(out) as folder,
        Bar(f"export {to}", total=opened.corpus.num_pairs, unit="pairs") as bar,
    ):
        opened.bar = bar
        opened.write(folder)
        sizes = [path.stat().st_size for path in list_files(folder)]
    return len(sizes), sum(sizes)


def require_room(out: Path, about: int) -> None:
    """Raise StorageError if the disk of `out` has less free space than the export needs."""
    free = shutil.disk_usage(next(existing_parents(out))).free
    if about > free:
        raise StorageError(
            f"{out}: the export takes about {about:,} bytes, found {free:,} free",
            hint="free some space, or give an --out on another disk",
        )


def existing_parents(path: Path) -> Iterator[Path]:
    """The folders above a path that exist, the nearest first."""
    return (parent for parent in path.absolute().parents if parent.is_dir())
