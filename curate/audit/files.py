"""Files: each has the bytes that the manifest records, and the corpus has no other file.

Tars are compared with their tables in the same pass that hashes them, several files at the same time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from stylear.console import ByteBar
from stylear.curate.audit.difference import Difference
from stylear.curate.audit.manifest import corpus_files
from stylear.curate.audit.sides import SideHashes
from stylear.curate.audit.tars import (
    Sampling,
    TarResult,
    check_pairs_tar,
    check_preferences_tar,
)
from stylear.curate.corpus.layout import KINDS, MANIFEST
from stylear.curate.corpus.object_store import in_process
from stylear.curate.corpus.shards import is_shard_name
from stylear.curate.corpus.split import SPLITS
from stylear.curate.corpus.storage import FileInfo, file_size
from stylear.curate.engine import LOCAL, cores
from stylear.curate.engine.progress import report_progress
from stylear.errors import CorpusError

PREFERENCES = "preferences"
INDEXED = (*SPLITS, PREFERENCES)  # folders with a wids index, which has MD5
PROCESS_BYTES = 8 << 30  # that are worth starting processes; hashing lets other threads run, too
UNIT_FILES, UNIT_BYTES = 256, 1 << 25  # small files that are one unit of work


@dataclass(frozen=True, slots=True)
class Unit:
    """Files that one worker reads in a row; `hashes` are those of the images of preference pairs, by key."""

    names: tuple[str, ...]
    hashes: dict[str, str] = field(default_factory=dict)


def read_manifest(corpus: Path) -> tuple[dict[str, Any], str]:
    """The manifest and its own hash. Raises CorpusError if there is none or it is damaged."""
    path = corpus / MANIFEST
    try:
        data = path.read_bytes()
        manifest = json.loads(data)
        for name, info in manifest["files"].items():
            if not (isinstance(info["bytes"], int) and isinstance(info["sha256"], str)):
                raise TypeError(f"{name}: {info}")
    except FileNotFoundError:
        raise CorpusError(
            f"{corpus}: expected a finished corpus, found no {MANIFEST}",
            hint="finish it with `stylear curate run RECIPE --out CORPUS`",
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorpusError(
            f"{path}: expected a manifest, found: {error!r}",
            hint="rewrite it with `stylear curate run RECIPE --out CORPUS`",
        ) from error
    return manifest, hashlib.sha256(data).hexdigest()


def check_files(
    corpus: Path,
    files: Mapping[str, Mapping[str, Any]],
    results: dict[str, TarResult],
    sampling: Sampling,
    workers: int = 0,
) -> Iterator[Difference]:
    """Files that are missing, unknown, or different from the manifest.

    Puts the result for each file into `results`; `check_shards` reports the contents of tars.
    """
    present = set(corpus_files(corpus))
    for name in sorted(set(files) - present):
        yield Difference("missing", name, "a file", "none")
    sizes = {name: int(files[name]["bytes"]) for name in sorted(set(files) & present)}
    for name, result in examine_files(corpus, sizes, sampling, workers):
        results[name], info = result, files[name]
        size = result.info.bytes if result.info else file_size(corpus / name)
        if size != info["bytes"]:
            yield Difference("changed", name, f"{info['bytes']} bytes", f"{size} bytes")
        elif result.info is not None and result.info.sha256 != info["sha256"]:
            yield Difference(
                "changed", name, f"sha256 {info['sha256']}", f"sha256 {result.info.sha256}"
            )
    for name in sorted(present - set(files)):
        yield Difference("extra", name, "no such file", f"a file that {MANIFEST} does not list")


def examine_files(
    corpus: Path, sizes: Mapping[str, int], sampling: Sampling, workers: int = 0
) -> Iterator[tuple[str, TarResult]]:
    """The result for each file, in the order of their names; a bar shows the bytes, rate and time left."""
    units, sides = list(group_files(sizes)), SideHashes(corpus)
    total = sum(sizes.values())
    work = (
        Unit(names, sides.select(names[0]) if tar_folder(names[0]) == PREFERENCES else {})
        for names in units
    )
    with ByteBar("audit", total) as bar:
        if (workers > 1 or (not workers and total >= PROCESS_BYTES)) and not in_process(corpus):
            opened = partial(open_worker, corpus, sampling)
            results = LOCAL.map_units(
                opened, work, len(units), workers, on_progress=bar.advance_bytes
            )
            for names, contents in zip(units, results, strict=True):
                yield from zip(names, contents, strict=True)
        else:
            with ThreadPoolExecutor(workers or cores()) as pool:
                results = pool.map(open_worker(corpus, sampling), work)
                for names, contents in zip(units, results, strict=True):
                    yield from zip(names, contents, strict=True)
                    bar.advance_bytes(sum(sizes[name] for name in names))
        bar.finish_bytes()


def group_files(sizes: Mapping[str, int]) -> Iterator[tuple[str, ...]]:
    """The files of each unit of work: a shard's tar alone, other files several at a time."""
    names: list[str] = []
    size = 0
    for name, count in sizes.items():
        is_tar = tar_folder(name) is not None
        if names and (is_tar or len(names) == UNIT_FILES or size + count > UNIT_BYTES):
            yield tuple(names)
            names, size = [], 0
        names.append(name)
        size += count
        if is_tar:
            yield tuple(names)
            names, size = [], 0
    if names:
        yield tuple(names)


def tar_folder(name: str) -> str | None:
    """The folder of a shard's tar; None for any other file."""
    folder, _, file = name.rpartition("/")
    return folder if folder in (*KINDS, *INDEXED) and is_shard_name(file) else None


def open_worker(corpus: Path, sampling: Sampling) -> Callable[[Unit], list[TarResult]]:
    """The function that a worker runs on each unit."""
    return partial(examine_unit, corpus, sampling)


def examine_unit(corpus: Path, sampling: Sampling, unit: Unit) -> list[TarResult]:
    """Hash the files of a unit, and compare tars with their tables."""
    return [examine_file(corpus, name, sampling, unit.hashes) for name in unit.names]


def examine_file(corpus: Path, name: str, sampling: Sampling, hashes: dict[str, str]) -> TarResult:
    """Hash a file, and compare a tar with its table."""
    path, folder = corpus / name, tar_folder(name)
    if folder == PREFERENCES:
        return check_preferences_tar(path, name, hashes, sampling)
    if folder is not None:
        return check_pairs_tar(path, name, sampling, md5=folder in INDEXED)
    info = FileInfo.of(path)
    report_progress(info.bytes)
    return TarResult(info=info)


def check_shards(results: Iterable[tuple[str, TarResult]]) -> Iterator[Difference]:
    """Tars that do not hold exactly the members that their table implies."""
    for _, result in results:
        yield from result.differences
