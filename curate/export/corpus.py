"""The corpus that is exported: its splits, read shard by shard and checked against the manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stylear.curate.audit.files import read_manifest
from stylear.curate.corpus import shards
from stylear.curate.corpus.layout import RECIPE
from stylear.curate.corpus.object_store import in_store
from stylear.curate.corpus.split import SPLITS
from stylear.curate.corpus.storage import AtomicFile, FileInfo
from stylear.curate.recipe import Recipe, load_recipe
from stylear.errors import CorpusError
from stylear.pair import Pair

PREFERENCES = "preferences"
CHUNK_BYTES = 1 << 20
UNFINISHED = "`stylear curate run` finishes the corpus and repairs damaged files"


@dataclass(frozen=True)
class ExportedCorpus:
    """A finished corpus and its manifest. Raises CorpusError for an unfinished one."""

    path: Path
    manifest: Mapping[str, Any]
    manifest_sha256: str

    @classmethod
    def open(cls, path: Path) -> ExportedCorpus:
        """The corpus at `path`."""
        manifest, sha256 = read_manifest(path)
        return cls(path, manifest, sha256)

    @cached_property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return load_recipe(self.path / RECIPE)

    @property
    def name(self) -> str:
        """The name of the corpus: letters, digits, - and _ only."""
        return self.recipe.name

    @property
    def num_pairs(self) -> int:
        """Pairs in all splits."""
        return sum(self.split_sizes.values())

    @property
    def split_sizes(self) -> dict[str, int]:
        """Pairs of each split that has any."""
        sizes = {split: int(self.manifest["splits"][split]["pairs"]) for split in SPLITS}
        return {split: pairs for split, pairs in sizes.items() if pairs}

    def shards(self, split: str) -> list[Path]:
        """The tars of a split as the manifest lists them, in order; reading a missing one fails."""
        listed = sorted(name for name in self.manifest["files"] if name.startswith(f"{split}/"))
        return [self.path / name for name in listed if name.endswith(".tar")]

    def preference_shards(self) -> list[Path]:
        """The tars with preference pairs, in order."""
        return self.shards(PREFERENCES)

    def pairs(self, split: str) -> Iterator[Pair]:
        """The pairs of a split, one in memory at a time."""
        for tar in self.shards(split):
            yield from self.shard_pairs(tar)

    def shard_pairs(self, tar: Path) -> Iterator[Pair]:
        """The pairs of a shard. Raises CorpusError unless table and images match the manifest."""
        self.require_unchanged(tar.with_suffix(".parquet"))
        for pair in shards.read_shard(tar):
            if not shards.KEY.fullmatch(pair.key):
                raise CorpusError(
                    f"{tar}: expected keys of letters, digits, _ and -, found {pair.key!r}"
                )
            yield pair

    def copy_file(self, source: Path, target: Path) -> FileInfo:
        """Copy a file and return its hashes. Raises CorpusError unless they match the manifest."""
        with AtomicFile(target) as out:
            try:
                with source.open("rb") as stream:
                    while chunk := stream.read(CHUNK_BYTES):
                        out.write(chunk)
            except FileNotFoundError as error:
                raise CorpusError(
                    f"{source}: expected a file of the manifest, found none", hint=UNFINISHED
                ) from error
        self.require_hash(source, out.info.sha256)
        return out.info

    def require_unchanged(self, path: Path) -> FileInfo:
        """The hashes of a file. Raises CorpusError unless they match the manifest."""
        info = FileInfo.of(path)
        self.require_hash(path, info.sha256)
        return info

    def require_hash(self, path: Path, sha256: str) -> None:
        """Raise CorpusError if the manifest has another hash for a file."""
        expected = self.manifest_entry(path)["sha256"]
        if sha256 != expected:
            raise CorpusError(
                f"{path}: expected sha256 {expected[:12]} as in the manifest, found {sha256[:12]}",
                hint=UNFINISHED,
            )

    def manifest_entry(self, path: Path) -> Mapping[str, Any]:
        """The manifest's entry of a file: sha256 and bytes. Raises CorpusError if there is none."""
        name = path.relative_to(self.path).as_posix()
        try:
            entry: Mapping[str, Any] = self.manifest["files"][name]
        except KeyError:
            raise CorpusError(
                f"{path}: expected a file of the manifest, found one that it does not list",
                hint=UNFINISHED,
            ) from None
        return entry

    def total_bytes(self, paths: list[Path]) -> int:
        """The total size of some files in bytes, by the manifest."""
        return sum(int(self.manifest_entry(path)["bytes"]) for path in paths)

    def drop_counts(self, stage: str) -> dict[str, int]:
        """How many pairs a stage dropped, by reason."""
        dropped = self.manifest["stages"].get(stage, {}).get("dropped", {})
        return {str(reason): int(count) for reason, count in dropped.items()}

    def contains(self, target: Path) -> bool:
        """Whether a local path is inside the corpus."""
        return not in_store(self.path) and target.resolve().is_relative_to(self.path.resolve())


def canonical_text(value: Any) -> str:
    """Indented JSON: keys in the order given, no NaN, one newline at the end."""
    return json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
