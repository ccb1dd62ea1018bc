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
import struct
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from stylear.curate.corpus.object_store import corpus_path as corpus_path
from stylear.curate.corpus.object_store import in_store
from stylear.curate.corpus.storage import AtomicFile, FileInfo, write_bytes
from stylear.curate.corpus.tars import encode_sample, finish_tar
from stylear.errors import CorpusError, SourceError
from stylear.pair import Kind, Origin, Pair, Verdict

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 1  # raise when the same pairs give other bytes
SHARD_PAIRS = 1000
MAX_MEMBER_BYTES = 256 << 20
IMAGE_EXTS = ("png", "jpg", "webp")
TYPES = {
    "key": "string",
    "caption": "string",
    "kind": "string",
    "source": "string",
    "content": "string",
    "source_sha256": "string",
    "parent": "string",
    "reference": "string",
    "reference_sha256": "string",
    "details": "string",  # JSON; an object in the json member
    "image_sha256": "string",
    "width": "int32",
    "height": "int32",
    "ext": "string",
    "kept": "bool_",
    "stage": "string",
    "reason": "string",
}
Row = dict[str, Any]
values_of = itemgetter(*TYPES)
KEY = re.compile(r"[A-Za-z0-9_-]{1,90}")

ESCAPED = r'["\\\x00-\x1f]'  # what a text in JSON cannot have as it is
DETAILS, AFTER_DETAILS = ',"details":', ',"image_sha256":'  # in a record; in strings it is \"


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """What was written: counts and the two files by name."""

    index: int
    rows: int
    kept: int
    images: int  # samples in the tar
    dropped: Mapping[str, int]  # reason -> pairs
    files: Mapping[str, FileInfo] = field(default_factory=dict)


def shard_name(index: int) -> str:
    """`00007` for 7."""
    return f"{index:05d}"


def image_extension(data: bytes) -> str | None:
    """png, jpg or webp by the first bytes; None for anything else."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpg"
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def image_size(data: bytes) -> tuple[int, int]:
    """(width, height) in pixels from the header alone. Raises CorpusError when there is none."""
    if image_extension(data) == "png" and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        return width, height
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise CorpusError(f"expected a png, jpg or webp image, found: {error}") from error


def pair_to_row(pair: Pair) -> Row:
    """The row of a pair; `details` is still a mapping."""
    origin, image = pair.origin, pair.image
    ext: str | None = None
    width, height = None, None
    if image:
        ext = image_extension(image)
        if ext is None:
            raise CorpusError(
                f"pair {pair.key}: expected a png, jpg or webp image, found {image[:8]!r}"
            )
        width, height = image_size(image)
    return {
        "key": pair.key,
        "caption": pair.caption,
        "kind": origin.kind,
        "source": origin.source,
        "content": origin.content,
        "source_sha256": origin.source_sha256,
        "parent": origin.parent,
        "reference": origin.reference,
        "reference_sha256": origin.reference_sha256,
        "details": dict(origin.details),
        "image_sha256": hashlib.sha256(image).hexdigest() if image else None,
        "width": width,
        "height": height,
        "ext": ext,
        "kept": pair.verdict.kept,
        "stage": pair.verdict.stage,
        "reason": pair.verdict.reason,
    }


def row_to_pair(row: Mapping[str, Any], image: bytes) -> Pair:
    """The pair of a row (`details` as an object or as JSON) and its image bytes."""
    details = row["details"]
    return Pair(
        key=row["key"],
        caption=row["caption"],
        image=image,
        origin=Origin(
            kind=cast(Kind, row["kind"]),
            source=row["source"],
            content=row["content"],
            source_sha256=row["source_sha256"],
            parent=row["parent"],
            reference=row["reference"],
            reference_sha256=row["reference_sha256"],
            details=json.loads(details) if isinstance(details, str) else details,
        ),
        verdict=Verdict(row["kept"], row["stage"], row["reason"]),
    )


ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def canonical_json(value: Any) -> str:
    """JSON with one spelling: no spaces, keys in the order given, no NaN."""
    return ENCODER.encode(value)


def write_shard(
    directory: Path | str,
    index: int,
    pairs: Iterable[Pair],
    *,
    expected: Mapping[str, str] | None = None,
) -> ShardInfo:
    """Write one shard; an earlier file of that name is replaced.

    With `expected` (file name -> sha256) it is replaced by those bytes only; Differs is raised else.

    Raises CorpusError for a key that comes twice or cannot name a member, StorageError when the
    disk is full. Nothing of the final name exists until all of it is on the disk.
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
    """`write_shard` of rows, the record of each and its image; `md5` for a wids index."""
    folder, name, hashes = corpus_path(directory), shard_name(index), expected or {}
    rows: list[tuple[Any, ...]] = []
    images = 0
    with AtomicFile(folder / f"{name}.tar", hashes.get(f"{name}.tar"), md5=md5) as out:
        for row, written, image in rows_with_images:
            key = row["key"]
            if not KEY.fullmatch(key):
                raise CorpusError(f"key {key!r}: expected letters, digits, _ or - only")
            row["details"] = extract_details(written)
            rows.append(values_of(row))
            if image:
                images += 1
                out.write(
                    *encode_sample(
                        key, row["ext"], image, row["caption"].encode(), written.encode()
                    )
                )
        values = zip(*rows, strict=True) if rows else [()] * len(TYPES)
        columns = dict(zip(TYPES, values, strict=True))
        _check_unique(columns["key"], folder / name)
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


def encode_records(table: pa.Table) -> pa.Array:
    """The json member of every row of a table: its `details`, which is JSON, is an object in it.

    It is what `canonical` makes of the row, for whole columns at once.
    """
    import pyarrow.compute as pc

    parts = [
        (f'{"," if n else "{"}"{name}":', encode_column(table, name))
        for n, name in enumerate(TYPES)
    ]
    return pc.binary_join_element_wise(*chain.from_iterable(parts), "}", "")


def encode_column(table: pa.Table, name: str) -> pa.Array:
    """The values of a column as JSON."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = table[name].combine_chunks()
    if name == "details":
        return column
    if not pa.types.is_string(column.type):
        return column.cast(pa.string()).fill_null("null")
    if pc.any(pc.match_substring_regex(column, ESCAPED)).as_py():
        return pa.array(map(canonical_json, column.to_pylist()), pa.string())
    return pc.binary_join_element_wise('"', column, '"', "").fill_null("null")


def extract_details(record: str) -> str:
    """The `details` of a record, as JSON: what the table has."""
    return record[record.index(DETAILS) + len(DETAILS) : record.rindex(AFTER_DETAILS)]


def rows_to_table(columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """Columns, the `details` as JSON, as a table of the shard schema."""
    import pyarrow as pa

    schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in TYPES.items()])
    return pa.table(dict(columns), schema=schema)


def write_table(path: Path, table: pa.Table, sha256: str | None = None) -> FileInfo:
    """A table as parquet: zstd, atomic, the same rows giving the same bytes; Differs for another hash."""
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd", store_schema=True)
    return write_bytes(path, out.getvalue(), sha256)


def read_table(path: Path | str, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of a parquet file. Raises CorpusError naming the file, and the column that is not there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(_source(path)) as file:
            missing = [name for name in columns or () if name not in file.schema_arrow.names]
            if missing:
                raise CorpusError(
                    f"{path}: expected a column {missing[0]!r}, found {', '.join(file.schema_arrow.names)}"
                )
            table = file.read(columns=columns, use_threads=False)
            table.validate(full=True)  # a damaged page may hold anything, not only text
            return table
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(
            f"{path}: expected a readable parquet file, found: {str(error).splitlines()[0]}",
            hint="run the stage that writes it again",
        ) from error


def _source(path: Path | str) -> Any:
    """What pyarrow reads a file from: its name, or of an object a stream."""
    place = corpus_path(path)
    return place.open("rb") if in_store(place) else place


def file_sha256(path: Path | str) -> str:
    """The hash of a file's bytes."""
    return FileInfo.of(corpus_path(path)).sha256


def read_tables(
    folder: Path, columns: Sequence[str] | None = None
) -> Iterator[tuple[Path, pa.Table]]:
    """The tables of a stage directory in shard order, one in memory at a time."""
    for path in sorted(folder.glob("*.parquet")):
        yield path, read_table(path, columns)


def read_rows(path: Path | str) -> list[Row]:
    """The rows of a shard's table, checked against the shard schema."""
    rows: list[Row] = read_table(path, list(TYPES)).to_pylist()
    _check_unique([row["key"] for row in rows], corpus_path(path))
    return rows


def count_rows(folder: Path) -> int:
    """Rows of the tables in a folder."""
    return sum(table.num_rows for _, table in read_tables(folder, ["key"]))


def shard_paths(directory: Path | str) -> list[Path]:
    """The tars of a stage directory, in order; empty when there are none."""
    return sorted(
        p for p in corpus_path(directory).glob("*.tar") if re.fullmatch(r"\d{5,}", p.stem)
    )


def read_shard(tar_path: Path | str) -> Iterator[Pair]:
    """The pairs of a shard in row order, tar and table joined and every image hash checked.

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
                    hint="the file was changed or damaged; make this shard again",
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
    """(key, {extension: bytes}) of any WebDataset tar, in order; trusts nothing in it.

    The key is the name up to the first dot. Raises CorpusError naming the member that is no regular
    file, has a path in its name, comes twice, lies apart from its sample, or exceeds `max_bytes`;
    SourceError when the file is missing.
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
            hint="the file is truncated or damaged; make or fetch it again",
        ) from error


def read_samples(source: Path | str | Sequence[Path | str]) -> Iterator[dict[str, Any]]:
    """What a trainer reads, through webdataset: {"key", "image": bytes, "txt": str, "json": dict}.

    `source` is a stage directory or a list of tars. Raises CorpusError when there is none.
    """
    from webdataset.tariterators import group_by_keys, tar_file_expander

    if isinstance(source, (str, Path)) or in_store(source):
        paths = shard_paths(cast(Path, source))
    else:
        paths = [corpus_path(path) for path in source]
    if not paths:
        raise CorpusError(f"{source}: expected shards (00000.tar ...), found none")
    for sample in group_by_keys(tar_file_expander(_streams(paths))):
        ext = next((ext for ext in IMAGE_EXTS if ext in sample), None)
        if ext is None or "txt" not in sample or "json" not in sample:
            raise CorpusError(
                f"{sample.get('__url__')}: {sample.get('__key__')} is no whole sample"
            )
        yield {
            "key": sample["__key__"],
            "image": sample[ext],
            "txt": sample["txt"].decode(),
            "json": json.loads(sample["json"]),
        }


def _streams(paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Open tars in webdataset's terms, each closed before the next."""
    for path in paths:
        with path.open("rb") as stream:
            yield {"url": str(path), "stream": stream}


def verify_shard(tar_path: Path | str, info: ShardInfo) -> None:
    """Re-hash the files of a shard and read every pair. Raises CorpusError naming what differs."""
    tar_path = corpus_path(tar_path)
    for name, file in info.files.items():
        path = tar_path.parent / name
        found = FileInfo.of(path)
        if (found.sha256, found.bytes) != (file.sha256, file.bytes):
            raise CorpusError(
                f"{path}: expected {file.bytes} bytes of sha256 {file.sha256[:12]}, found"
                f" {found.bytes} of {found.sha256[:12]}"
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


def _check_unique(keys: Sequence[str], where: Path) -> None:
    """Raise CorpusError for a key that comes twice."""
    if len(set(keys)) != len(keys):
        key = Counter(keys).most_common(1)[0][0]
        raise CorpusError(f"{where}: key {key} comes twice")
