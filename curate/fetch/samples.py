"""Samples: the members of a tar that share a key, and which of them are image, caption and record.

A member `folder/key.ending` belongs to the sample `folder/key`. WebDataset cuts names at the first dot, so
that `a.caption.txt` is the member `caption.txt` of `a`, and `22.05.jpg` the member `05.jpg` of `22`.
"""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from stylear.curate.fetch.captions import caption_in
from stylear.curate.fetch.folder_files import JUNK_FOLDERS, SUFFIXES
from stylear.curate.fetch.lists.text import decode_bytes
from stylear.curate.fetch.sniff import NEEDED, sniff_format
from stylear.curate.fetch.tar_reader import TarReader
from stylear.errors import SourceError

if TYPE_CHECKING:
    from stylear.curate.recipe import ShardsSource

IMAGE_ENDINGS = tuple(suffix[1:] for suffix in SUFFIXES)
TEXT_ENDINGS = (
    "txt",
    "caption",
    "text",
    "prompt",
    "cap",
)  # the first that a sample has is its caption
FIRST_TEXTS = ("caption.txt", "cap.txt", "text.txt", "prompt.txt")  # of several with two endings
MAX_TEXT_BYTES = 4_000_000  # of a text or JSON member
MAX_ENDINGS = 50  # per sample, kept for messages
JUNK_FILES = (".DS_Store", "Thumbs.db", "desktop.ini")


@dataclass(frozen=True, slots=True)
class Members:
    """The rules that split member names into key and ending and give each member its role."""

    image: str | None = None
    text: str | None = None
    record: str | None = None
    last_dot: bool = False
    encoding: str | None = None  # of texts; None: by the byte order mark, else UTF-8

    @classmethod
    def from_source(cls, source: ShardsSource) -> Members:
        """The rules that a recipe gives."""
        named = source.members
        return cls(
            named.image, named.text, named.record, source.keys == "last-dot", source.encoding
        )

    def split_name(self, name: str) -> tuple[str, str]:
        """A member's key and ending: at an ending that is named, else at the first dot or the last."""
        folder, slash, base = name.rpartition("/")
        for ending in sorted(
            filter(None, (self.image, self.text, self.record)), key=len, reverse=True
        ):
            if base.lower().endswith(f".{ending}"):
                return folder + slash + base[: -len(ending) - 1], ending
        if self.last_dot:
            stem, dot, ending = base.rpartition(".")
            return folder + slash + (stem if dot else base), ending.lower() if dot else ""
        stem, _, ending = base.partition(".")
        return folder + slash + stem, ending.lower()

    def find_role(self, ending: str) -> str | None:
        """image, text, record, other (not read), or None for an ending that says nothing."""
        last = ending.rpartition(".")[2]
        for role, named in (("image", self.image), ("text", self.text), ("record", self.record)):
            if ending == named:
                return role
        if last in IMAGE_ENDINGS:
            return "image" if self.image is None else "other"
        if last in TEXT_ENDINGS:
            return "text" if self.text is None else "other"
        if last == "json":
            return "record" if self.record is None else "other"
        return None if self.image is None else "other"


@dataclass(slots=True)
class Sample:
    """The members of one key; `refused` is the reason why they cannot be used."""

    key: str
    rules: Members = field(default_factory=Members)
    images: dict[str, bytes | None] = field(default_factory=dict)  # by ending
    texts: dict[str, bytes] = field(default_factory=dict)
    records: dict[str, bytes] = field(default_factory=dict)
    endings: list[str] = field(default_factory=list)  # of all members, the first few
    refused: str | None = None

    def find_image(self) -> tuple[bytes, str | None]:
        """The image, or the reason why there is none: no-image, ambiguous-image, too-large."""
        plain = next((e for e in self.images if e in (*IMAGE_ENDINGS, self.rules.image)), None)
        if plain is None and len(self.images) > 1:
            return b"", "ambiguous-image"
        if not self.images:
            return b"", "no-image"
        data = self.images[plain if plain is not None else next(iter(self.images))]
        return (b"", "too-large") if data is None else (data, None)

    def read_record(self) -> tuple[Mapping[str, Any], str | None]:
        """The JSON member, and bad-json if it cannot be parsed."""
        data = self.records.get("json") or next(iter(self.records.values()), b"{}")
        record = parse_json(data)
        return (record, None) if isinstance(record, dict) else ({}, "bad-json")

    def find_caption(self, record: Mapping[str, Any]) -> tuple[object, str | None]:
        """The raw caption, a text or a list of texts, or the reason why it cannot be read."""
        ending = self._text_ending()
        if ending is None:
            return caption_in(record), None
        if ending not in self.texts:
            return None, "ambiguous-caption"
        if ending == self.rules.text and ending.rpartition(".")[2] == "json":
            return caption_in(parse_json(self.texts[ending])), None
        text = decode_text(self.texts[ending], self.rules.encoding)
        return (None, "caption-not-utf8") if text is None else (text, None)

    def _text_ending(self) -> str | None:
        """The ending of the text that is the caption; one that no text has if that is ambiguous."""
        for ending in (self.rules.text, *TEXT_ENDINGS, *FIRST_TEXTS):
            if ending in self.texts:
                return ending
        if len(self.texts) > 1:
            return "several"
        return next(iter(self.texts), None)


def parse_json(data: bytes) -> object:
    """Parse untrusted JSON in any Unicode encoding; None if it is invalid."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def decode_text(data: bytes, encoding: str | None) -> str | None:
    """Decode a text member; a truncated last character is left out."""
    if len(data) < MAX_TEXT_BYTES:
        return decode_bytes(data, encoding)
    cut = (decode_bytes(data[: len(data) - n], encoding) for n in range(4))
    return next((text for text in cut if text is not None), None)


def read_samples(tar: TarReader, max_bytes: int, rules: Members) -> Iterator[Sample]:
    """The samples of a tar: adjacent members with one key; junk files of macOS and Windows are skipped."""
    sample: Sample | None = None
    for member in tar:
        if member.isdir() or is_junk(member.name):
            continue
        key, ending = rules.split_name(member.name)
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = Sample(key, rules)
        add_member(sample, ending, member, tar, max_bytes)
    if sample is not None:
        yield sample


def add_member(
    sample: Sample, ending: str, member: tarfile.TarInfo, tar: TarReader, max_bytes: int
) -> None:
    """Add one member to its sample, or record why it is refused."""
    if len(sample.endings) < MAX_ENDINGS:
        sample.endings.append(ending)
    target = (
        tar.find_link_target(member) if member.islnk() and is_safe_name(member.name) else member
    )
    if target is None or not is_safe(target) or not is_safe_name(member.name):
        sample.refused = sample.refused or "hostile-member"
        return
    role = sample.rules.find_role(ending)
    if role is None and sniff_format(tar.read(target, NEEDED)) is not None:
        role = "image"
    parts: dict[str | None, Any] = {
        "image": sample.images,
        "text": sample.texts,
        "record": sample.records,
    }
    part = parts.get(role)
    if part is None:
        return
    if ending in part:
        sample.refused = sample.refused or "duplicate-member"
    elif role != "image":
        part[ending] = tar.read(target, MAX_TEXT_BYTES)
    elif target.size > max_bytes:
        part[ending] = None
    else:  # of many that differ by more than the last ending, none is the picture: they are not kept
        is_used = ending in (*IMAGE_ENDINGS, sample.rules.image) or not part
        part[ending] = tar.read(target, max_bytes) if is_used else b""


def is_junk(name: str) -> bool:
    """Whether a member is junk: what macOS or Windows adds to archives, and WebDataset's `__` files."""
    path = PurePosixPath(name)
    return (
        path.name.startswith(("__", "._"))
        or path.name in JUNK_FILES
        or any(part in JUNK_FOLDERS for part in path.parts)
    )


def is_safe(member: tarfile.TarInfo) -> bool:
    """Whether a member is a plain file with a safe name."""
    return member.isreg() and not member.issparse() and is_safe_name(member.name)


def is_safe_name(name: str) -> bool:
    """Whether a name can be printed and stays inside its folder."""
    return (
        name.isprintable()
        and not name.startswith("/")
        and not (".." in PurePosixPath(name).parts or "\\" in name or ":" in name[:3])
    )


def find_separated_keys(path: Path, max_bytes: int, rules: Members) -> Collection[str]:
    """The keys whose members are not adjacent in a tar."""
    runs: Counter[str] = Counter()
    last = None
    with (
        suppress(SourceError),
        TarReader(path, max_bytes) as tar,
    ):  # a damaged tar raises when it is read
        for member in tar:
            if member.isdir() or is_junk(member.name):
                continue
            key = rules.split_name(member.name)[0]
            runs[key] += key != last
            last = key
    return {key for key, count in runs.items() if count > 1}
