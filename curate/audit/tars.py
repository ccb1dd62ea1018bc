"""Tars: every byte of a shard follows from its table and from the hashes of its images.

The tar that the table implies is compared with the one that is there while it is read once: each header,
caption and record byte for byte, each image by its SHA-256. So keys, order, names and contents of all members
are proven together, and the hash of the file is taken in the same pass. With a share below 1 only the headers
of all members and the bytes of some samples are read.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from stylear.curate.audit.difference import Difference
from stylear.curate.audit.images import describe_image_fault
from stylear.curate.corpus.parquet import read_table
from stylear.curate.corpus.records import IMAGE_EXTS, TYPES, canonical_json, encode_records
from stylear.curate.corpus.shards import MAX_MEMBER_BYTES, read_shard
from stylear.curate.corpus.storage import FileInfo
from stylear.curate.corpus.tars import (
    BLOCK,
    RECORD,
    ZEROS,
    encode_header,
    encode_member,
    parse_size,
)
from stylear.curate.engine.progress import report_progress
from stylear.errors import CorpusError

if TYPE_CHECKING:
    import pyarrow as pa

REPORTED_BYTES = 8 << 20  # between two reports of progress


@dataclass(frozen=True, slots=True)
class Sampling:
    """How much of each shard is examined: a share of its samples, and whether images are decoded."""

    share: float = 1.0
    seed: int = 0
    decode: bool = False

    @property
    def is_full(self) -> bool:
        return self.share >= 1

    def choose(self, keys: Sequence[str]) -> set[int]:
        """The samples of a shard to examine: at least one, the same for the same keys and seed."""
        if self.is_full:
            return set(range(len(keys)))
        drawn = sorted(
            range(len(keys)),
            key=lambda n: hashlib.sha256(f"{self.seed} {keys[n]}".encode()).digest(),
        )
        return set(drawn[: math.ceil(self.share * len(keys))])


@dataclass(frozen=True, slots=True)
class Image:
    """An image that a tar must hold."""

    name: str  # of its member
    key: str  # of its pair
    sha256: str | None  # None: not known
    ext: str
    size: tuple[int, int] | None = None  # width, height in pixels


@dataclass(frozen=True, slots=True)
class Sample:
    """The members that a tar must hold for one row: images, then caption and record."""

    key: str
    images: tuple[Image, ...]
    texts: tuple[tuple[bytes, bytes], ...]  # name, content


@dataclass(slots=True)
class TarResult:
    """What was found in a tar. `info` is None if its bytes were not read in full."""

    samples: int = 0
    examined: int = 0
    info: FileInfo | None = None
    differences: list[Difference] = field(default_factory=list)


class UnexpectedMember(Exception):
    """The tar has other members than its table, so the rest of it cannot be compared."""


def check_pairs_tar(path: Path, file: str, sampling: Sampling, *, md5: bool) -> TarResult:
    """Compare a tar of pairs with its table. `file` is its path in the corpus, for the findings."""
    try:
        samples = list_pair_samples(read_table(path.with_suffix(".parquet"), list(TYPES)))
    except CorpusError as error:
        return unreadable_result(path, file, error, md5=md5)
    result = compare_tar(path, file, samples, sampling, md5=md5)
    if any(difference.key is None for difference in result.differences):
        result.differences = [describe_shard(path, file) or result.differences[-1]]
    return result


def check_preferences_tar(
    path: Path, file: str, hashes: dict[str, str], sampling: Sampling
) -> TarResult:
    """Compare a tar of preference pairs with its table; `hashes` are those of the sides' images by key."""
    try:
        table = read_table(path.with_suffix(".parquet"))
        samples = list(list_preference_samples(table, hashes))
    except (CorpusError, KeyError) as error:
        return unreadable_result(path, file, error, md5=True)
    return compare_tar(path, file, samples, sampling, md5=True)


def unreadable_result(path: Path, file: str, error: Exception, *, md5: bool) -> TarResult:
    """The result for a tar whose table cannot be read: only its own hash is taken."""
    message = error.message if isinstance(error, CorpusError) else f"no column {error}"
    difference = Difference("shard", file, "the images of its table", message)
    return TarResult(info=FileInfo.of(path, md5=md5), differences=[difference])


def list_pair_samples(table: pa.Table) -> list[Sample]:
    """The samples that a table of pairs implies. Raises CorpusError for columns of other types."""
    import pyarrow as pa

    for name, kind in TYPES.items():
        if table.schema.field(name).type != getattr(pa, kind)():
            raise CorpusError(f"expected {name} as {kind}, found {table.schema.field(name).type}")
    table = table.filter(table["image_sha256"].is_valid())
    names = ("key", "ext", "image_sha256", "width", "height", "caption")
    columns = [table[name].to_pylist() for name in names]
    samples = []
    for key, ext, sha256, width, height, caption, record in zip(
        *columns, encode_records(table).to_pylist(), strict=True
    ):
        image = Image(f"{key}.{ext}", key, sha256, ext or "", (width, height))
        texts = (f"{key}.txt", caption or ""), (f"{key}.json", record or "")
        samples.append(Sample(key, (image,), tuple((n.encode(), t.encode()) for n, t in texts)))
    return samples


def list_preference_samples(table: pa.Table, hashes: dict[str, str]) -> Iterator[Sample]:
    """The samples that a table of preference pairs implies; the extension of a side is found in the tar."""
    for row in table.to_pylist():
        key = row["key"]
        images = tuple(
            Image(f"{key}.{side}.", row[side], hashes.get(row[side]), "")
            for side in ("chosen", "rejected")
        )
        texts = (f"{key}.txt", str(row["caption"])), (f"{key}.json", canonical_json(row))
        yield Sample(key, images, tuple((name.encode(), text.encode()) for name, text in texts))


def compare_tar(
    path: Path, file: str, samples: Sequence[Sample], sampling: Sampling, *, md5: bool
) -> TarResult:
    """Read a tar once and compare it with the samples that it must hold."""
    chosen = sampling.choose([sample.key for sample in samples])
    result = TarResult(len(samples), len(chosen))
    try:
        with path.open("rb") as stream:
            reader = TarReader(stream, sampling.is_full, md5=md5)
            try:
                for number, sample in enumerate(samples):
                    result.differences += compare_sample(
                        reader, file, sample, sampling.decode, read=number in chosen
                    )
                reader.expect_end()
            except UnexpectedMember as error:
                result.differences.append(
                    Difference("shard", file, "the members of its table", str(error))
                )
            result.info = reader.finish(path.name)
    except OSError as error:
        raise CorpusError(f"{path}: expected a file, found: {error.strerror or error}") from error
    return result


def compare_sample(
    reader: TarReader, file: str, sample: Sample, decode: bool, *, read: bool
) -> Iterator[Difference]:
    """Differences between a sample and the next members of a tar."""
    for image in sample.images:
        name, size = reader.read_image_header(image.name)
        if not read:
            reader.skip(size)
            continue
        data = reader.read(size)
        found = hashlib.sha256(data).hexdigest()
        if image.sha256 is not None and found != image.sha256:
            expected = f"an image of sha256 {image.sha256}"
            yield Difference("shard", file, expected, f"sha256 {found}", image.key)
            continue
        fault = describe_image_fault(data, name.rpartition(".")[2], image.size, decode=decode)
        if fault is not None:
            yield Difference("image", file, fault.expected, fault.found, image.key)
    for name_bytes, content in sample.texts:
        if not reader.read_member(name_bytes, content):
            expected = f"{name_bytes.decode()} as its table implies"
            yield Difference("shard", file, expected, "another text", sample.key)


class TarReader:
    """Reads the members of a tar in order, and hashes all of its bytes if it is read in full."""

    def __init__(self, stream: IO[bytes], is_full: bool, *, md5: bool) -> None:
        self._stream, self._is_full = stream, is_full
        self._hashes: list[Any] = [hashlib.sha256()] if is_full else []
        if is_full and md5:
            self._hashes.append(hashlib.md5(usedforsecurity=False))
        self._unreported = self.position = 0

    def read_image_header(self, name: str) -> tuple[str, int]:
        """The name and the size of the next member, an image called `name`, or `name` and an extension.

        Raises UnexpectedMember for any other header.
        """
        header = self._take(BLOCK)
        found, expected = header[:100].rstrip(b"\0"), name.encode()
        shown = found.decode("utf-8", "replace")
        try:
            size = parse_size(header)
        except ValueError:
            raise UnexpectedMember(f"no header at byte {self.position - BLOCK}") from None
        if name.endswith("."):
            stem, _, ext = found.rpartition(b".")
            expected = (
                found if stem + b"." == expected and ext.decode("latin1") in IMAGE_EXTS else b""
            )
        if found != expected or size < 0 or header != encode_header(expected, size):
            raise UnexpectedMember(f"{shown or 'the end'} in the place of {name}")
        if size > MAX_MEMBER_BYTES:
            raise UnexpectedMember(f"{shown} of {size:,} bytes, more than {MAX_MEMBER_BYTES:,}")
        return shown, size

    def read(self, size: int) -> bytes | memoryview:
        """The content of a member, without its padding."""
        padded = size + -size % BLOCK
        data = self._take(padded)
        if data[size:] != ZEROS[: padded - size]:
            raise UnexpectedMember(f"padding that is not zero before byte {self.position}")
        return memoryview(data)[:size]

    def skip(self, size: int) -> None:
        """Pass over the content of a member."""
        padded = size + -size % BLOCK
        self._stream.seek(padded, 1)
        self.position += padded
        self._report(padded)

    def read_member(self, name: bytes, content: bytes) -> bool:
        """Whether the next member has this content. Raises UnexpectedMember if its header is another."""
        expected = b"".join(encode_member(name, content))
        found = self._take(len(expected))
        if found == expected:
            return True
        if found[:BLOCK] != expected[:BLOCK]:
            raise UnexpectedMember(f"another member in the place of {name.decode()}")
        return False

    def expect_end(self) -> None:
        """Read the end of the tar. Raises UnexpectedMember if there is anything else."""
        size = 2 * BLOCK + -(self.position + 2 * BLOCK) % RECORD
        if self._take(size) != bytes(size) or self._stream.read(1):
            raise UnexpectedMember(f"more members after byte {self.position - size}")

    def finish(self, name: str) -> FileInfo | None:
        """The hashes and the size of the file; None unless all of it was read."""
        if not self._is_full:
            return None
        self._stream.seek(self.position)
        while data := self._stream.read(1 << 20):
            self._add(data)
        report_progress(self._unreported)
        digests = [digest.hexdigest() for digest in self._hashes]
        return FileInfo(name, digests[0], digests[1] if len(digests) > 1 else None, self.position)

    def _take(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._add(data)
        if len(data) < size:
            raise UnexpectedMember(f"the end of the file at byte {self.position}")
        return data

    def _add(self, data: bytes) -> None:
        for digest in self._hashes:
            digest.update(data)
        self.position += len(data)
        self._report(len(data))

    def _report(self, count: int) -> None:
        self._unreported += count
        if self._unreported >= REPORTED_BYTES:
            report_progress(self._unreported)
            self._unreported = 0


def describe_shard(path: Path, file: str) -> Difference | None:
    """The first difference of a shard that has other members than its table, as reading it reports it."""
    try:
        for _ in read_shard(path):
            pass
    except CorpusError as error:
        return Difference("shard", file, "the images of its table", error.message)
    return None
