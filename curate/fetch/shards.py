"""Shards: any WebDataset tars, img2dataset's and ours among them, read member by member."""

from __future__ import annotations

import glob
import gzip
import hashlib
import json
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, cast

from stylear.curate.corpus.captions import clean_caption, clean_details, plain_source
from stylear.curate.fetch.captions import caption_in
from stylear.curate.fetch.download import reason_of
from stylear.curate.fetch.folder_files import SUFFIXES
from stylear.curate.fetch.ingest import STAGE
from stylear.curate.fetch.subset import Subset
from stylear.errors import SourceError
from stylear.pair import Origin, Pair, content_id, digest

if TYPE_CHECKING:
    from stylear.curate.recipe import ShardsSource

IMAGE_ENDINGS = tuple(suffix[1:] for suffix in SUFFIXES)
MAX_TEXT_BYTES = 4_000_000  # of a .txt or .json member
OWN_FIELDS = (
    "key",
    "caption",
    "details",
    "image_sha256",
    "width",
    "height",
    "ext",
    "kept",
    "stage",
)
OTHER_FIELDS = ("TEXT", "text", "status", "error_message", "sha256", "exif")  # img2dataset's


@dataclass(slots=True)
class Sample:
    """The members of one key; `refused` names why they cannot be used."""

    key: str
    members: dict[str, bytes] = field(default_factory=dict)  # ending -> bytes
    refused: str | None = None

    @property
    def image(self) -> bytes:
        """The bytes of the first image member; empty when there is none."""
        return next((data for end, data in self.members.items() if end in IMAGE_ENDINGS), b"")


def shard_pairs(source: ShardsSource) -> Iterator[Pair]:
    """A pair for every sample of the tars, by file name, and for every failed row of their tables.

    Dropped: hostile-member (a link, a device, a name that leaves the folder), duplicate-member,
    too-large, no-image, no-caption, dropped-before (by the run that made the shards), and img2dataset's
    failures under the names that a download would give them. Raises SourceError for a tar that is
    missing, no tar, or cut off.
    """
    pairs = (
        pair for path in tar_paths(str(source.path)) for pair in tar_pairs(path, source.max_bytes)
    )
    if source.uids is None:
        yield from islice(pairs, source.limit)
        return
    subset = Subset(source.uids)
    inside = (pair for pair in pairs if subset.has(pair.origin.details.get("uid")))
    yield from islice(inside, source.limit)
    subset.require_found(source.path)


def tar_paths(pattern: str) -> list[Path]:
    """The tars that a path, folder or pattern names, sorted. Raises SourceError when none does."""
    path = Path(pattern)
    if path.is_dir():
        found = list(path.glob("*.tar"))
    elif glob.has_magic(pattern):
        found = [Path(name) for name in glob.glob(pattern, recursive=True)]  # noqa: PTH207 (absolute pattern)
    else:
        found = [path] if path.is_file() else []
    if not found:
        raise SourceError(
            f"{pattern}: expected WebDataset tars, found none",
            hint="give a tar, a folder of tars or a pattern such as shards/*.tar",
        )
    return sorted(found)


def tar_pairs(path: Path, max_bytes: int) -> Iterator[Pair]:
    """The pairs of one tar, then the rows of its table that have no sample."""
    seen: set[str] = set()
    for sample in read_tar(path, max_bytes):
        seen.add(sample.key.rpartition("/")[2])
        yield sample_pair(sample, path.name)
    for row in _table_rows(path.with_suffix(".parquet")):
        if str(row["key"]) not in seen:
            yield _missing(row, path.name)


def sample_pair(sample: Sample, shard: str) -> Pair:
    """The pair of one sample, its details taken from the .json member."""
    record = _record(sample)
    text = sample.members.get("txt")
    raw = text.decode("utf-8", "replace") if text is not None else caption_in(record)
    caption, notes = clean_caption(raw)
    image = sample.image
    sha256 = hashlib.sha256(image).hexdigest() if image else None
    reason = sample.refused
    if reason is None and not image:
        reason = "no-image"
    elif reason is None and record.get("kept") is False:
        reason = "dropped-before"
    elif reason is None and not caption:
        reason = "no-caption"
    origin = Origin(
        kind="raw",
        source=f"shard:{plain_source(f'{shard}#{sample.key}')}",
        content=_content(record, caption),
        source_sha256=sha256,
        details={**_details(record), **notes},
    )
    pair = Pair(digest("shard", shard, sample.key, sha256), caption, image, origin)
    return pair if reason is None else pair.drop(STAGE, reason)


def _missing(row: dict[str, Any], shard: str) -> Pair:
    """The dropped pair of a table row whose image is not in the tar."""
    caption, notes = clean_caption(caption_in(row))
    key = str(row["key"])
    origin = Origin(
        kind="raw",
        source=f"shard:{plain_source(f'{shard}#{key}')}",
        content=_content(row, caption),
        details={**_details(row), **notes},
    )
    failed = row.get("status") == "failed_to_download"
    reason = reason_of(row.get("error_message")) if failed else "dropped-before"
    return Pair(digest("shard", shard, key, None), caption, b"", origin).drop(STAGE, reason)


def _record(sample: Sample) -> dict[str, Any]:
    """The .json member; a broken one counts as absent."""
    try:
        found = json.loads(sample.members.get("json", b"{}"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _content(record: dict[str, Any], caption: str) -> str:
    """What the record says is shown when it is ours, else what the caption names."""
    content = record.get("content")
    ours = isinstance(content, str) and "source_sha256" in record and 0 < len(content) <= 64
    return plain_source(content) if ours and isinstance(content, str) else content_id(caption)


def _details(record: dict[str, Any]) -> dict[str, Any]:
    """The other fields of a record; a pair of ours brings its own details along."""
    own = record.get("details")
    try:
        inner = json.loads(own) if isinstance(own, str) else own
    except ValueError:
        inner = None
    outer = {k: v for k, v in record.items() if k not in (*OWN_FIELDS, *OTHER_FIELDS)}
    return clean_details({**outer, **(inner if isinstance(inner, dict) else {})})


def _table_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of the table beside a tar that say a sample failed or was dropped."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        return
    try:
        with pq.ParquetFile(path) as file:
            names = set(file.schema_arrow.names)
            if "key" not in names or not names & {"status", "kept"}:
                return
            for batch in file.iter_batches(batch_size=1024):
                for row in cast("list[dict[str, Any]]", batch.to_pylist()):
                    if row.get("status") not in (None, "success") or row.get("kept") is False:
                        yield row
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path}: expected the table of its tar: {error}") from error


def read_tar(path: Path, max_bytes: int) -> Iterator[Sample]:
    """The samples of a tar: adjacent regular members with one key. Nothing is written anywhere."""
    opener: Any = gzip.open if path.suffix.lower() in (".gz", ".tgz") else open
    sample: Sample | None = None
    try:
        with opener(path, "rb") as whole:
            file = _Bounded(whole, max_bytes)
            tar = tarfile.open(fileobj=cast("IO[bytes]", file), mode="r:")  # noqa: SIM115 (holds nothing)
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # the index of a large tar is not kept
                if member.isdir() or PurePosixPath(member.name).name.startswith("__"):
                    continue
                key, ending = split_name(member.name)
                if sample is None or sample.key != key:
                    if sample is not None:
                        yield sample
                    sample = Sample(key)
                _add(sample, ending, member, tar, max_bytes)
            _check_end(path, file, tar.offset)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise SourceError(
            f"{path}: expected a whole tar: {error}", hint="replace the file"
        ) from error
    if sample is not None:
        yield sample


class _Bounded:
    """A file that refuses long reads: tarfile reads a header's extension as long as it says it is."""

    def __init__(self, file: IO[bytes], max_bytes: int) -> None:
        self._file, self._most = file, max(max_bytes, MAX_TEXT_BYTES)
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        """At most `size` bytes. Raises tarfile.ReadError when that is more than a member may have."""
        if size > self._most + tarfile.RECORDSIZE:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)


def split_name(name: str) -> tuple[str, str]:
    """A member's key (up to the first dot of its last part) and ending, as WebDataset splits it."""
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return folder + slash + stem, ending.lower()


def _add(
    sample: Sample, ending: str, member: tarfile.TarInfo, tar: tarfile.TarFile, max_bytes: int
) -> None:
    """Put one member into its sample, or say why not."""
    if not is_safe(member):
        sample.refused = sample.refused or "hostile-member"
    elif ending in sample.members:
        sample.refused = sample.refused or "duplicate-member"
    elif ending in IMAGE_ENDINGS and member.size > max_bytes:
        sample.refused = sample.refused or "too-large"
    elif ending in IMAGE_ENDINGS or ending in ("txt", "json"):
        file = tar.extractfile(member)
        limit = max_bytes if ending in IMAGE_ENDINGS else MAX_TEXT_BYTES
        data = file.read(limit) if file is not None else b""
        if len(data) < min(member.size, limit):
            raise tarfile.ReadError(f"{member.name} is cut off")
        sample.members[ending] = data


def is_safe(member: tarfile.TarInfo) -> bool:
    """Whether a member is a plain file whose name stays inside its folder."""
    name = member.name
    parts = PurePosixPath(name).parts
    plain = member.isreg() and not member.issparse()
    return (
        plain
        and name.isprintable()
        and not name.startswith("/")
        and not (".." in parts or "\\" in name or ":" in name[:3])
    )


def _check_end(path: Path, file: _Bounded, offset: int) -> None:
    """tarfile takes any damage between members for the end; the real end is a block of zeros."""
    file.seek(offset)
    if file.read(512) != bytes(512):
        raise SourceError(
            f"{path}: expected the end of the tar at byte {offset}, found damage or nothing",
            hint="the file is cut off or corrupt; replace it",
        )
