"""The tar + parquet format: byte-reproducible, atomic to write, checked when read.

A stage directory holds `NNNNN.tar` (WebDataset) with its `NNNNN.parquet`. The table has a row for every
pair, dropped ones too; the tar has, in row order, `{key}.{png|jpg|webp}`, `{key}.txt` (the caption) and
`{key}.json` (the row) for every pair that has image bytes. A file is written under a temporary name,
synced and renamed; the tar first, then the table. A shard counts once the ledger has its entry.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from stylear.curate.corpus.object_store import corpus_path, in_store
from stylear.curate.corpus.parquet import (
    read_rows,
    require_unique_keys,
    rows_to_table,
    write_table,
)
from stylear.curate.corpus.records import (
    IMAGE_EXTS,
    TYPES,
    Row,
    canonical_json,
    extract_details,
    pair_to_row,
    row_to_pair,
    row_values,
)
from stylear.curate.corpus.storage import AtomicFile, FileInfo
from stylear.curate.corpus.tars import encode_sample, finish_tar
from stylear.errors import CorpusError, SourceError
from stylear.pair import Pair

VERSION = 1  # raise when the same pairs give other bytes
MAX_MEMBER_BYTES = 256 << 20
KEY = re.compile(r"[A-Za-z0-9_-]{1,90}")


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """A written shard: its counts and its two files by name."""

    index: int
    rows: int
    kept: int
    images: int  # samples in the tar
    dropped: Mapping[str, int]  # reason -> pairs
    files: Mapping[str, FileInfo] = field(default_factory=dict)


def shard_name(index: int) -> str:
    """`00007` for 7."""
    return f"{index:05d}"


def write_shard(
    directory: Path | str,
    index: int,
    pairs: Iterable[Pair],
    *,
    expected: Mapping[str, str] | None = None,
) -> ShardInfo:
    """Write one shard, replacing an earlier one of that name.

    With `expected` (file name -> sha256) only these bytes replace it; others raise HashMismatch. Raises
    CorpusError for a duplicate key or one that cannot name a member, StorageError if the disk is full. No
    file gets its final name before all of it is on the disk.
    """
    rows = ((row, canonical_json(row), pair.image) for pair in pairs for row in [pair_to_row(pair)])
    return write_rows(directory, index, rows, expected=expected)


def write_rows(
    directory: Path | str,
    index: int,
    rows_with_images: Iterable[tuple[Row, str, bytes | memoryview]],
    *,
    expected: Mapping[str, str] | None = None,
    md5: bool = False,
) -> ShardInfo:
    """Write a shard from (row, record, image), as `write_shard` does; `md5` for a wids index."""
    folder, name, hashes = corpus_path(directory), shard_name(index), expected or {}
    rows: list[tuple[Any, ...]] = []
    images = 0
    with AtomicFile(folder / f"{name}.tar", hashes.get(f"{name}.tar"), md5=md5) as out:
        for row, written, image in rows_with_images:
            key = row["key"]
            if not KEY.fullmatch(key):
                raise CorpusError(f"key {key!r}: expected letters, digits, _ or - only")
            row["details"] = extract_details(written)
            rows.append(row_values(row))
            if image:
                images += 1
                out.write(
                    *encode_sample(
                        key, row["ext"], image, row["caption"].encode(), written.encode()
                    )
                )
        values = zip(*rows, strict=True) if rows else [()] * len(TYPES)
        columns = dict(zip(TYPES, values, strict=True))
        require_unique_keys(columns["key"], folder / name)
        finish_tar(out)
    path = folder / f"{name}.parquet"
    table = write_table(path, rows_to_table(columns), hashes.get(path.name))
    lost = zip(columns["kept"], columns["reason"], strict=True)
    dropped = Counter(reason or "dropped" for kept, reason in lost if not kept)
    return ShardInfo(
        index=index,
        rows=len(rows),
        kept=sum(columns["kept"]),
        images=images,
        dropped=dict(sorted(dropped.items())),
        files={out.info.name: out.info, table.name: table},
    )


def shard_paths(directory: Path | str) -> list[Path]:
    """The tars of a stage directory, in order."""
    return sorted(path for path in corpus_path(directory).glob("*.tar") if is_shard_name(path.name))


def is_shard_name(name: str) -> bool:
    """Whether a file name is that of a shard's tar, such as 00007.tar."""
    return re.fullmatch(r"\d{5,}\.tar", name) is not None


def read_shard(tar_path: Path | str) -> Iterator[Pair]:
    """Read the pairs of a shard in row order; every image hash is checked.

    Raises CorpusError naming the file and the key.
    """
    tar_path = corpus_path(tar_path)
    samples = tar_samples(tar_path)
    for row in read_rows(tar_path.with_suffix(".parquet")):
        image = b""
        if row["image_sha256"] is not None:
            key, files = next(samples, ("the end", {}))
            if key != row["key"] or row["ext"] not in files:
                raise CorpusError(f"{tar_path}: expected the image of {row['key']}, found {key}")
            image = files[row["ext"]]
            if hashlib.sha256(image).hexdigest() != row["image_sha256"]:
                raise CorpusError(
                    f"{tar_path}: {key}.{row['ext']} differs from the hash in its table",
                    hint="the file was changed or damaged;"
                    " `stylear curate run RECIPE --out CORPUS` rebuilds it",
                )
        try:
            yield row_to_pair(row, image)
        except ValueError as error:
            raise CorpusError(
                f"{tar_path}: expected the details of {row['key']} as JSON, found: {error}"
            ) from error
    extra = next(samples, None)
    if extra is not None:
        raise CorpusError(f"{tar_path}: {extra[0]} has no row in {tar_path.stem}.parquet")


def iter_pairs(directory: Path | str) -> Iterator[Pair]:
    """All pairs of a stage directory, shard by shard."""
    for path in shard_paths(directory):
        yield from read_shard(path)


def tar_samples(
    path: Path | str, *, max_bytes: int = MAX_MEMBER_BYTES
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Read (key, {extension: bytes}) of an untrusted WebDataset tar, in order.

    The key is the name up to the first dot. Raises CorpusError naming a member that is not a regular file,
    has a path in its name, is repeated, is separated from its sample, or exceeds `max_bytes`; SourceError if
    the file is missing.
    """
    path = corpus_path(path)
    seen: set[str] = set()
    key: str | None = None
    files: dict[str, bytes] = {}
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                stem, dot, ext = member.name.partition(".")
                if not member.isreg() or not stem or not dot or not ext or _has_path(member.name):
                    raise CorpusError(
                        f"{path}: member {member.name!r}: expected a plain file called KEY.EXTENSION"
                    )
                if member.size > max_bytes:
                    raise CorpusError(
                        f"{path}: member {member.name!r} has {member.size:,} bytes; expected at most"
                        f" {max_bytes:,}"
                    )
                if stem != key:
                    if key is not None:
                        yield key, files
                    if stem in seen:
                        raise CorpusError(f"{path}: the members of {stem!r} are not together")
                    seen.add(stem)
                    key, files = stem, {}
                if ext in files:
                    raise CorpusError(f"{path}: member {member.name!r} comes twice")
                stream = tar.extractfile(member)
                files[ext] = stream.read() if stream is not None else b""
            if tar.offset > file.seek(0, io.SEEK_END):
                raise CorpusError(f"{path}: the file ends inside {key!r}")
        if key is not None:
            yield key, files
    except FileNotFoundError as error:
        raise SourceError(f"{path}: expected a tar, found nothing") from error
    except (tarfile.TarError, EOFError, OSError) as error:
        raise CorpusError(
            f"{path}: expected a complete tar, found: {error}",
            hint="the file is truncated or damaged; create or fetch it again",
        ) from error


def read_samples(source: Path | str | Sequence[Path | str]) -> Iterator[dict[str, Any]]:
    """Read samples through webdataset, as a trainer does: {"key", "image": bytes, "txt": str, "json": dict}.

    `source` is a stage directory or a list of tars. Raises CorpusError if there are no shards.
    """
    from webdataset.tariterators import group_by_keys, tar_file_expander

    if isinstance(source, (str, Path)) or in_store(source):
        paths = shard_paths(cast(Path, source))
    else:
        paths = [corpus_path(path) for path in source]
    if not paths:
        raise CorpusError(f"{source}: expected shards (00000.tar ...), found none")
    for sample in group_by_keys(tar_file_expander(_open_streams(paths))):
        ext = next((ext for ext in IMAGE_EXTS if ext in sample), None)
        if ext is None or "txt" not in sample or "json" not in sample:
            raise CorpusError(
                f"{sample.get('__url__')}: {sample.get('__key__')} is an incomplete sample"
            )
        yield {
            "key": sample["__key__"],
            "image": sample[ext],
            "txt": sample["txt"].decode(),
            "json": json.loads(sample["json"]),
        }


def _open_streams(paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Open tars as webdataset expects them, one at a time."""
    for path in paths:
        with path.open("rb") as stream:
            yield {"url": str(path), "stream": stream}


def verify_shard(tar_path: Path | str, info: ShardInfo) -> None:
    """Re-hash the files of a shard and read every pair. Raises CorpusError naming what differs."""
    tar_path = corpus_path(tar_path)
    for name, file in info.files.items():
        path = tar_path.parent / name
        actual = FileInfo.of(path)
        if (actual.sha256, actual.bytes) != (file.sha256, file.bytes):
            raise CorpusError(
                f"{path}: expected {file.bytes} bytes of sha256 {file.sha256[:12]}, found"
                f" {actual.bytes} of {actual.sha256[:12]}"
            )
    rows = kept = 0
    for pair in read_shard(tar_path):
        rows, kept = rows + 1, kept + pair.kept
    if (rows, kept) != (info.rows, info.kept):
        raise CorpusError(
            f"{tar_path}: expected {info.rows} pairs, {info.kept} kept, found {rows}, {kept}"
        )


def _has_path(name: str) -> bool:
    return "/" in name or "\\" in name or "\0" in name
