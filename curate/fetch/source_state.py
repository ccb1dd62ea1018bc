"""Digests of sources, over the contents of all their files, which notice any change.

Hashing all photos of a large folder takes minutes, so the hash of each file is cached beside the corpus with
its size and times. A file is hashed again only if one of these differs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from stylear.console import ByteBar
from stylear.curate.corpus.layout import SOURCE_HASHES
from stylear.curate.corpus.storage import write_text
from stylear.curate.fetch.folder_files import walk_files
from stylear.curate.fetch.lists import find_lists
from stylear.curate.fetch.shards import table_path, tar_paths
from stylear.errors import SourceEmpty

CHUNK = 1 << 20


class FileHashes:
    """Hashes files, with a cache that lasts from run to run."""

    def __init__(self, corpus: Path, base: Path | None) -> None:
        self._cache, self._base = corpus / SOURCE_HASHES, base
        self._known = self._read()
        self._seen: dict[str, list[Any]] = {}

    def hash_all(self, paths: list[Path], threads: int) -> list[str]:
        """The hash of each file, in order, from the cache if its size and times are unchanged."""
        states = [self._read_state(path) for path in paths]
        new = {
            path: state
            for path, state in zip(paths, states, strict=True)
            if self._known.get(self._name(path), [])[:3] != state
        }
        with (
            ByteBar("hash sources", sum(size for size, *_ in new.values())) as bar,
            ThreadPoolExecutor(threads) as pool,
        ):
            for path, hashed in zip(new, pool.map(hash_file, new), strict=True):
                self._seen[self._name(path)] = [*new[path], hashed]
                bar.advance_bytes(new[path][0])
        for path in paths:
            self._seen.setdefault(self._name(path), self._known.get(self._name(path), []))
        return [str(self._seen[self._name(path)][3]) for path in paths]

    def _name(self, path: Path) -> str:
        return str(path) if self._base is None else os.path.relpath(path, self._base)

    def _read_state(self, path: Path) -> list[int]:
        """The size and times of a file; zeros if it cannot be read."""
        try:
            stat = path.stat()
        except OSError:
            return [0, 0, 0]
        return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]

    def save(self) -> None:
        """Write the cache if it has changed; files that are gone are left out."""
        if self._seen != self._known:
            write_text(self._cache, json.dumps(dict(sorted(self._seen.items()))) + "\n")
            self._known = self._seen

    def _read(self) -> dict[str, list[Any]]:
        """Read the cache of the last run; a damaged one is ignored."""
        try:
            cached = json.loads(self._cache.read_text("utf-8"))
            return {
                name: [*map(int, values[:3]), str(values[3])] for name, values in cached.items()
            }
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            return {}


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes; of no bytes if it cannot be read: reading the source raises for that."""
    total = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while data := file.read(CHUNK):
                total.update(data)
    except OSError:
        return hashlib.sha256().hexdigest()
    return total.hexdigest()


def hash_source(source: Any, hashes: FileHashes, threads: int = 1) -> str:
    """A digest of the names and contents of a source's files. Raises SourceError when it is missing."""
    try:
        files = sorted(source_files(source), key=lambda item: (item[1], str(item[0])))
    except SourceEmpty:  # `require_pairs` decides whether that is allowed
        files = []
    contents = hashes.hash_all([path for path, _ in files], threads)
    total = hashlib.sha256()
    for (_, name), content in zip(files, contents, strict=True):
        total.update(f"{name}\0{content}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def source_files(source: Any) -> Iterator[tuple[Path, str]]:
    """The files that a source reads, each with a name that does not depend on the source's location."""
    match source.type:
        case "mini":
            from stylear.curate.fetch.mini import CORPUS

            yield from ((path, path.name) for path in CORPUS.glob("*.tar"))
        case "folder":
            yield from (
                (path, path.relative_to(source.path).as_posix())
                for path in walk_files(source.path)
                if path.is_file()
            )
        case "shards":
            tars = tar_paths(source.path)
            for path in (*tars, *map(table_path, tars)):
                if path.is_file():
                    yield path, path.name
        case _:
            yield from ((path, path.name) for path in find_lists(source.path))
    if getattr(source, "uids", None) is not None and source.uids.is_file():
        yield source.uids, source.uids.name
