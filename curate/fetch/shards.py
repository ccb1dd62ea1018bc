"""The shards source: WebDataset tars of any origin, read sample by sample."""

from __future__ import annotations

import glob
import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from stylear.console import say
from stylear.curate.corpus.captions import clean_caption, clean_details, plain_source
from stylear.curate.fetch.blocks import classify_error
from stylear.curate.fetch.braces import expand_braces
from stylear.curate.fetch.captions import caption_in, caption_reason, choose_captions
from stylear.curate.fetch.embedded import read_prompt
from stylear.curate.fetch.ingest import STAGE
from stylear.curate.fetch.samples import Members, Sample, find_separated_keys, read_samples
from stylear.curate.fetch.subset import Subset
from stylear.curate.fetch.tar_reader import TarReader
from stylear.errors import SourceEmpty, SourceError
from stylear.pair import Origin, Pair, content_id, digest

if TYPE_CHECKING:
    from stylear.curate.recipe import ShardsSource

TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")
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
OTHER_FIELDS = ("TEXT", "text", "status", "error_message", "sha256", "exif")  # of img2dataset
UNFIT = ("no-image", "ambiguous-image", "no-caption", "ambiguous-caption", "separated-members")
MANY = 100  # if none of so many samples is usable, the wrong members are looked for


def read_tars(source: ShardsSource, seed: int = 0) -> Iterator[Pair]:
    """A pair for every sample of the tars, by file name, and for every failed row of their tables.

    Dropped: hostile-member (a link out of the tar, a device, a name that leaves the folder),
    duplicate-member, too-large, no-image, no-caption, ambiguous-image and ambiguous-caption (several
    members could be it), separated-members (other samples lie between them), bad-json,
    caption-not-utf8, caption-not-text, dropped-before (by the run that made the shards), bad-shard
    (with `on_bad_shard: skip`), and img2dataset's failures under the names that a download would give
    them. Raises SourceError for a tar that is missing, no tar, or damaged, for tars without a sample,
    and when no sample has the members that are looked for.
    """
    pairs = read_pairs(source, seed)
    if source.uids is None:
        yield from islice(pairs, source.limit)
        return
    subset = Subset(source.uids)
    inside = (pair for pair in pairs if subset.has(pair.origin.details.get("uid")))
    yield from islice(inside, source.limit)
    subset.require_found(source.path)


def read_pairs(source: ShardsSource, seed: int) -> Iterator[Pair]:
    """The pairs of all tars. Raises SourceError when there is none, or none with the members wanted."""
    members = MemberCounts(source)
    count = 0
    for path in tar_paths(source.path):
        for pair in read_tar(path, source, seed, members):
            count += 1
            yield pair
    if not count:
        raise SourceEmpty(
            f"{source.path}: expected samples, found tars without any member",
            hint="check how the tars were written, or give others",
        )
    members.require_usable(last=True)
    members.warn()


class MemberCounts:
    """Counts samples that lack a member, and the endings of the members that they have."""

    def __init__(self, source: ShardsSource) -> None:
        self._source, self._samples = source, 0
        self._unfit: Counter[str] = Counter()
        self._endings: Counter[str] = Counter()

    def count(self, sample: Sample, reason: str | None) -> None:
        """Count a sample and its rejection reason, if any. Raises SourceError if none is usable."""
        self._samples += 1
        if reason in UNFIT:
            self._unfit[str(reason)] += 1
            if len(self._endings) < MANY:
                self._endings.update(sample.endings)
        self.require_usable(last=False)

    def require_usable(self, *, last: bool) -> None:
        """Raise SourceError if none of many samples (`last`: of all) has the members wanted."""
        unfit = self._unfit.total()
        if unfit and unfit == self._samples and (last or unfit == MANY):
            raise SourceError(
                f"{self._source.path}: expected a picture and a caption in each sample, found"
                f" {self._describe()}",
                hint=self._advise(),
            )

    def warn(self) -> None:
        """Report how many samples lack a member, and which members there are."""
        if self._unfit:
            say(f"{self._source.path}: dropped samples: {self._describe()}; {self._advise()}")

    def _describe(self) -> str:
        reasons = ", ".join(f"{reason} {count}" for reason, count in self._unfit.most_common())
        common = self._endings.most_common(12)
        endings = ", ".join(f".{plain_source(ending)[:60]} ({n})" for ending, n in common)
        return f"{reasons}; their members end in {endings}"

    def _advise(self) -> str:
        if self._unfit["separated-members"]:
            return "members of a sample must follow each other: pack them with `tar --sort=name`"
        if self._unfit["ambiguous-image"] and self._source.keys == "first-dot":
            return (
                "where names have dots in their keys, set keys: last-dot; else name the picture, e.g."
                " members: {image: input_image.png}"
            )
        return "name the members, e.g. members: {image: input_image.png, text: prompt.txt}"


def tar_paths(pattern: str) -> list[Path]:
    """The tars of a path, folder or pattern, sorted; braces expand in their order.

    Raises SourceError when there is none.
    """
    path = Path(pattern)
    names = [pattern] if path.exists() else expand_braces(pattern)
    if path.is_dir():
        paths = sorted(file for file in path.iterdir() if is_tar_name(file.name))
        if not paths and (deep := [p for p in path.rglob("*") if is_tar_name(p.name)]):
            raise SourceError(
                f"{pattern}: expected WebDataset tars, found none but {len(deep)} in subfolders",
                hint=f"give a pattern: {pattern}/**/*.tar",
            )
    elif len(names) > 1:
        paths = [path for name in names for path in glob_paths(name)]
    else:
        paths = glob_paths(pattern) if glob.has_magic(pattern) or path.is_file() else []
    if not paths:
        raise (SourceEmpty if path.is_dir() else SourceError)(
            f"{pattern}: expected WebDataset tars, found none",
            hint="give a tar, a folder of tars or a pattern such as shards/*.tar or"
            " {000000..000123}.tar; tars behind URLs must be downloaded first",
        )
    return paths


def glob_paths(name: str) -> list[Path]:
    """The matches of a pattern, sorted; a plain name is returned even if no such file exists."""
    if Path(name).is_file() or not glob.has_magic(name):
        return [Path(name)]
    return sorted(Path(path) for path in glob.glob(name, recursive=True))  # noqa: PTH207 (absolute pattern)


def is_tar_name(name: str) -> bool:
    """Whether a file of a folder is a tar and not hidden."""
    return name.lower().endswith(TAR_ENDINGS) and not name.startswith(".")


def table_path(tar: Path) -> Path:
    """The path of a tar's table: 00000.parquet for 00000.tar or 00000.tar.gz."""
    ending = next((e for e in TAR_ENDINGS if tar.name.lower().endswith(e)), "")
    return tar.with_name(f"{tar.name[: len(tar.name) - len(ending)]}.parquet")


def read_tar(path: Path, source: ShardsSource, seed: int, members: MemberCounts) -> Iterator[Pair]:
    """The pairs of one tar, then the rows of its table that have no sample.

    With `on_bad_shard: skip` a damaged tar gives the pairs before the damage, then one dropped as
    bad-shard.
    """
    seen: set[str] = set()
    try:
        for sample, pairs in read_tar_samples(path, source, seed):
            seen.add(sample.key.rpartition("/")[2])
            yield from pairs
            members.count(sample, pairs[0].verdict.reason)
        for row in read_failed_rows(table_path(path)):
            if str(row["key"]) not in seen:
                yield make_missing_pair(row, path.name)
    except BadShard as error:
        if source.on_bad_shard == "stop":
            raise error.error from error
        say(f"skipped, including everything after the damage: {error.error.message}")
        origin = Origin("raw", f"shard:{plain_source(path.name)}", content_id(""))
        yield Pair(digest("bad-shard", path.name), "", b"", origin).drop(STAGE, "bad-shard")


class BadShard(Exception):
    """A tar that cannot be read to the end."""

    def __init__(self, error: SourceError) -> None:
        super().__init__(error.message)
        self.error = error


def read_tar_samples(
    path: Path, source: ShardsSource, seed: int
) -> Iterator[tuple[Sample, list[Pair]]]:
    """The samples of one tar with their pairs. Raises BadShard."""
    rules = Members.from_source(source)
    separated: Collection[str] | None = None
    count = 0
    try:
        with TarReader(path, source.max_bytes) as tar:
            for sample in read_samples(tar, source.max_bytes, rules):
                pairs = make_pairs(sample, path.name, source, seed)
                if pairs[0].verdict.reason in UNFIT:  # intact tars are never read twice
                    if separated is None:
                        separated = find_separated_keys(path, source.max_bytes, rules)
                    if sample.key in separated:
                        sample.refused = "separated-members"
                        pairs = make_pairs(sample, path.name, source, seed)
                count += 1
                yield sample, pairs
    except SourceError as error:
        raise BadShard(error) from error
    if not tar.is_closed:
        say(
            f"{path}: has no end block, as if it was truncated; its members are complete and were read"
        )
    elif not count and not table_path(path).is_file():
        say(f"{path}: holds no sample")


def make_pairs(sample: Sample, shard: str, source: ShardsSource | None, seed: int) -> list[Pair]:
    """The pairs of one sample: one, or one for each caption; details come from its record."""
    image, reason = sample.find_image()
    record, bad_record = sample.read_record()
    raw: object = None
    if source is not None and source.captions == "embedded":
        raw, no_caption = read_prompt(image), None
    else:
        raw, no_caption = sample.find_caption(record)
    reason = sample.refused or reason
    if reason is None and is_own_record(record) and record.get("kept") is False:
        reason = "dropped-before"
    rule = "first" if source is None else source.captions_per_image
    captions = choose_captions(raw, rule, seed, f"{shard}#{sample.key}")
    sha256 = hashlib.sha256(image).hexdigest() if image else None
    content: str | None = None
    pairs: list[Pair] = []
    for number, text in enumerate(captions):
        caption, notes = clean_caption(text)
        content = content or read_content(
            record, caption
        )  # all captions of an image are one content
        why = reason
        if why is None and not caption:
            why = no_caption or bad_record or caption_reason(raw if text is None else text, caption)
        origin = Origin(
            kind="raw",
            source=f"shard:{plain_source(f'{shard}#{sample.key}')}",
            content=content,
            source_sha256=sha256,
            details={**read_details(record), **notes},
        )
        further = (number,) if number else ()
        key = digest("shard", shard, plain_source(sample.key), sha256, *further)
        pair = Pair(key, caption, image, origin)
        pairs.append(pair if why is None else pair.drop(STAGE, why))
    return pairs


def make_missing_pair(row: dict[str, Any], shard: str) -> Pair:
    """The dropped pair of a table row without a sample in the tar."""
    caption, notes = clean_caption(caption_in(row))
    key = str(row["key"])
    origin = Origin(
        kind="raw",
        source=f"shard:{plain_source(f'{shard}#{key}')}",
        content=read_content(row, caption),
        details={**read_details(row), **notes},
    )
    failed = row.get("status") == "failed_to_download"
    reason = classify_error(row.get("error_message")) if failed else "dropped-before"
    return Pair(digest("shard", shard, key, None), caption, b"", origin).drop(STAGE, reason)


def is_own_record(record: Mapping[str, Any]) -> bool:
    """Whether this project wrote a record; only then its verdict and content are trusted."""
    return isinstance(record.get("content"), str) and "source_sha256" in record


def read_content(record: Mapping[str, Any], caption: str) -> str:
    """The content id in a record that this project wrote, or else that of the caption."""
    content = record.get("content")
    if is_own_record(record) and isinstance(content, str) and 0 < len(content) <= 64:
        return plain_source(content)
    return content_id(caption)


def read_details(record: Mapping[str, Any]) -> dict[str, Any]:
    """The other fields of a record; the details of one that this project wrote are merged in."""
    own = record.get("details")
    try:
        inner = json.loads(own) if isinstance(own, str) else own
    except (ValueError, RecursionError):
        inner = None
    outer = {k: v for k, v in record.items() if k not in (*OWN_FIELDS, *OTHER_FIELDS)}
    return clean_details({**outer, **(inner if isinstance(inner, dict) else {})})


def read_failed_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of failed samples in the table beside a tar (img2dataset), or of dropped ones (this project).

    Tables of other origin are skipped. Raises BadShard for one that cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        return
    try:
        with pq.ParquetFile(path) as file:
            names = set(file.schema_arrow.names)
            foreign = {"key", "status", "error_message"} <= names
            if not foreign and not {"key", "kept", "content", "source_sha256"} <= names:
                return
            for batch in file.iter_batches(batch_size=1024):
                for row in cast("list[dict[str, Any]]", batch.to_pylist()):
                    if row["status"] != "success" if foreign else row["kept"] is False:
                        yield row
    except (pa.ArrowException, OSError) as error:
        damaged = SourceError(f"{path}: expected the table of its tar: {error}")
        raise BadShard(damaged) from error
