"""Repair: finds damaged files by their hash, and rebuilds shards from their intact pairs and copies.

A damaged raw shard may hold the only copy of an image, so it is not simply fetched again. Its pairs are
taken from the shard itself, then from their copies in train/ and val/, and only the rest from the source. A
shard is replaced only by one with the hash recorded in the ledger.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from stylear.console import ByteBar, say
from stylear.curate.corpus import parquet, records, shards
from stylear.curate.corpus.layout import STAGES
from stylear.curate.corpus.ledger import Entry, Ledger, stage_family
from stylear.curate.corpus.storage import FileInfo, HashMismatch
from stylear.errors import CorpusError
from stylear.pair import Pair

BLOCK = tarfile.BLOCKSIZE
TABLE = ".parquet"


def drop_unreadable_entries(ledger: Ledger, stages: Sequence[str]) -> None:
    """Remove unreadable entries of the stages that will run; fetch raises, as it cannot be redone."""
    for stage in ledger.stages():
        for unit in ledger.units(stage) if stage_family(stage) in stages else ():
            try:
                ledger.entry(stage, unit)
            except CorpusError as error:
                if stage_family(stage) == "fetch":
                    raise
                say(f"{error.message}; {stage} {unit} is redone")
                ledger.path(stage, unit).unlink()


def verify_committed(ledger: Ledger, stages: Sequence[str], threads: int) -> None:
    """Hash the files that a run of `stages` would trust; damaged ones are recorded and will be rebuilt.

    These are all files of the stages and the tables of the stages before them, whose images are checked when
    they are read. Raises CorpusError for damage in a stage that will not run.
    """
    last = max(STAGES.index(stage) for stage in stages)
    files: dict[str, Mapping[str, Any]] = {}
    others: dict[str, str] = {}
    for name in ledger.stages():
        if STAGES.index(stage_family(name)) > last:
            continue
        own = stage_family(name) in stages
        for entry in ledger.entries(name):
            for path, info in entry.files.items():
                if own or path.endswith(TABLE):
                    files[path] = info
                    if not own:
                        others[path] = stage_family(name)
    with (
        ThreadPoolExecutor(threads) as pool,
        ByteBar("verify", sum(int(info["bytes"]) for info in files.values())) as bar,
    ):
        for path, intact in zip(
            files, pool.map(lambda p: is_intact(ledger.corpus / p, files[p]), files), strict=True
        ):
            bar.advance_bytes(int(files[path]["bytes"]))
            if not intact and path in others:
                raise CorpusError(
                    f"{ledger.corpus / path}: missing, or not the file that {others[path]} committed",
                    hint=f"run `stylear curate {others[path]} --out CORPUS` or `stylear curate run RECIPE"
                    " --out CORPUS`, which rebuild it",
                )
            if not intact:
                say(f"verify: {path} is missing or damaged")
                ledger.damaged.add(path)


def is_intact(path: Path, info: Mapping[str, Any]) -> bool:
    """Whether a file has the size and the hash recorded in the ledger."""
    if not path.is_file() or path.stat().st_size != info["bytes"]:
        return False
    return FileInfo.of(path).sha256 == str(info["sha256"])


@dataclass(slots=True)
class SalvagedShard:
    """The intact rows and images of a damaged shard, by key; every image matches its row."""

    rows: dict[str, records.Row] = field(default_factory=dict)
    images: dict[str, bytes] = field(default_factory=dict)

    def pair(self, key: str) -> Pair | None:
        """The pair of a key; None if its row or image is lost."""
        row = self.rows.get(key)
        if row is None or (row["image_sha256"] is not None and key not in self.images):
            return None
        return records.row_to_pair(row, self.images.get(key, b""))

    def same_image(self, key: str, image: bytes) -> bool:
        """Whether an image has the hash in the row of a key."""
        expected = self.rows[key]["image_sha256"]
        return bool((hashlib.sha256(image).hexdigest() if image else None) == expected)

    def find_lost_keys(self) -> list[str]:
        """The known keys whose image is lost."""
        return [key for key in self.rows if self.pair(key) is None]


def repair_shard(corpus: Path, entry: Entry) -> bool:
    """Rebuild a damaged shard from its intact pairs and their copies; returns whether that succeeded."""
    salvaged = salvage_shard(corpus, entry)
    pairs = [salvaged.pair(key) for key in salvaged.rows]
    if len(pairs) != entry.rows_in or None in pairs:
        return False
    return replace_shard(corpus, entry, (pair for pair in pairs if pair is not None))


def replace_shard(corpus: Path, entry: Entry, pairs: Iterable[Pair]) -> bool:
    """Replace a damaged shard by these pairs if that gives the committed bytes; returns whether it did."""
    folder = (corpus / next(iter(entry.files))).parent
    expected = {Path(name).name: str(info["sha256"]) for name, info in entry.files.items()}
    try:
        shards.write_shard(folder, int(entry.unit), pairs, expected=expected)
    except HashMismatch:
        return False
    say(f"repaired: {folder.name}/{entry.unit}")
    return True


def salvage_shard(corpus: Path, entry: Entry) -> SalvagedShard:
    """Collect the intact parts of a shard: rows from its table, or else from the tar; then images."""
    salvaged = SalvagedShard()
    name = next(name for name in entry.files if name.endswith(TABLE))
    members = dict(_members(corpus / Path(name).with_suffix(".tar")))
    if is_intact(corpus / name, entry.files[name]):
        salvaged.rows = {row["key"]: row for row in parquet.read_rows(corpus / name)}
    else:
        for member, data in members.items():
            if member.endswith(".json") and (row := _row(data)) is not None:
                salvaged.rows[row["key"]] = row
    for key, row in salvaged.rows.items():
        image = members.get(f"{key}.{row['ext']}")
        if image is not None and _is_image_of(row, image):
            salvaged.images[key] = image
    lost = salvaged.find_lost_keys()
    for split in ("train", "val"):
        for path in shards.shard_paths(corpus / split) if lost else ():
            copies = {key: salvaged.rows[key] for key in _keys(path) if key in salvaged.rows}
            if not any(key in copies for key in lost):
                continue
            for member, data in _members(path):
                key, _, ext = member.partition(".")
                if key in copies and ext == copies[key]["ext"] and _is_image_of(copies[key], data):
                    salvaged.images[key] = data
    return salvaged


def _is_image_of(row: records.Row, data: bytes) -> bool:
    return hashlib.sha256(data).hexdigest() == str(row["image_sha256"])


def _keys(tar: Path) -> list[str]:
    """The keys of a shard; none if its table is damaged."""
    try:
        keys: list[str] = parquet.read_table(tar.with_suffix(TABLE), ["key"])["key"].to_pylist()
    except CorpusError:
        return []
    return keys


def _row(data: bytes) -> records.Row | None:
    """The row in a json member; None if it is damaged."""
    try:
        row = json.loads(data)
        return row if list(row) == list(records.TYPES) else None
    except (ValueError, TypeError):
        return None


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """The name and bytes of every member with an intact header, also after a damaged one."""
    try:
        stream = path.open("rb")
    except OSError:
        return
    with stream:
        while header := stream.read(BLOCK):
            member = _header(header)
            if member is None:
                continue
            offset = stream.tell()
            data = stream.read(member.size)
            if len(data) == member.size:
                yield member.name, data
            _skip(stream, offset, member.size)


def _skip(stream: BinaryIO, offset: int, size: int) -> None:
    """Seek to the end of a member, or back to its start if no header follows it there."""
    end = offset + -(-size // BLOCK) * BLOCK
    stream.seek(end)
    following = stream.read(BLOCK)
    whole = not following.strip(b"\0") or _header(following) is not None
    stream.seek(end if whole else offset)


def _header(block: bytes) -> tarfile.TarInfo | None:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
