"""Mixing: the kept pairs, raw : stylized as asked, into shuffled train/ and val/ shards.

Contents and style references belong to a split by hash. Nothing of one identity is in both: pairs of the
same picture under different contents (duplicates, copies of one source, their stylized children) stay in
train only. `mix.parquet` has a row for every pair that the filter kept.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate import shards
from curate.filter import Candidate, read_candidates
from curate.hashing import with_sha256
from curate.split import Split, split_of
from curate.stage import KINDS, MIX, VERDICTS
from curate.steps.synthesize import ImageSource
from curate.storage import FileInfo, write_text
from stylear.errors import CorpusError
from stylear.pair import Pair, digest

if TYPE_CHECKING:
    import pyarrow as pa

    from curate.recipe import Recipe

STAGE = "mix"
SPLITS: tuple[Split, ...] = ("train", "val")
WIDS = "wids.json"


@dataclass(frozen=True, slots=True)
class Placed:
    """What mixing decided of a pair that the filter kept."""

    key: str
    kind: str
    split: Split | None  # None: left out
    reason: str | None = None


def mix_corpus(corpus: Path, recipe: Recipe) -> pa.Table:
    """Write train/ and val/ with their wids indexes, and mix.parquet; its table.

    Raises CorpusError for verdicts of other pairs and for images that are not where they should be.
    """
    placed = place(apply_verdicts(corpus, read_candidates(corpus, recipe)), recipe)
    pictures = Pictures(corpus)
    for split in SPLITS:
        keys = [one.key for one in placed if one.split == split]
        keys.sort(key=lambda key: digest("mix", recipe.seed, key))
        write_split(corpus / split, keys, pictures, recipe)
    table = mix_table(placed)
    shards.write_table(corpus / MIX, table)
    return table


def apply_verdicts(corpus: Path, pairs: list[Candidate]) -> list[Candidate]:
    """The pairs with the verdicts that the filter wrote. Raises CorpusError when it judged others."""
    table = shards.read_table(corpus / VERDICTS).to_pylist()
    if [row["key"] for row in table] != [pair.key for pair in pairs]:
        raise CorpusError(
            f"{corpus / VERDICTS}: it judges other pairs than the corpus has",
            hint="run `stylear curate filter` on this corpus again",
        )
    for pair, row in zip(pairs, table, strict=True):
        pair.kept, pair.stage, pair.reason = row["kept"], row["stage"], row["reason"]
        pair.twin, pair.group, pair.rank = row["twin"], row["group"], row["rank"]
    return pairs


def place(pairs: Sequence[Candidate], recipe: Recipe) -> list[Placed]:
    """Where every kept pair goes, in the order given: train, val, or out with a reason."""
    splits = splits_of(pairs, recipe)
    chosen: set[str] = set()
    for split in SPLITS:
        here = [p for p in pairs if p.kept and splits[p.key] == split]
        chosen |= at_ratio(here, recipe)
    return [
        Placed(
            key=pair.key,
            kind=pair.kind,
            split=splits[pair.key] if pair.key in chosen else None,
            reason=None
            if pair.key in chosen
            else ("split" if splits[pair.key] is None else "ratio"),
        )
        for pair in pairs
        if pair.kept
    ]


def at_ratio(pairs: Sequence[Candidate], recipe: Recipe) -> set[str]:
    """Keys of all stylized pairs and of raw ones to match, drawn by hash; all where raw is short.

    A split without stylized pairs keeps its raw ones: a ratio to nothing asks for nothing.
    """
    stylized = [pair.key for pair in pairs if pair.kind == "stylized"]
    raw = [pair.key for pair in pairs if pair.kind == "raw"]
    if stylized:
        wanted = math.floor(recipe.mix.raw_per_stylized * len(stylized) + 0.5)
        raw.sort(key=lambda key: digest("ratio", recipe.seed, key))
        raw = raw[:wanted]
    return {*stylized, *raw}


def splits_of(pairs: Sequence[Candidate], recipe: Recipe) -> dict[str, Split | None]:
    """The split of every pair; None for those that would cross.

    A stylized pair crosses when its content and its reference are of different splits. Pairs that
    show one picture under contents of both splits stay where they are in train and cross in val.
    """
    seed, fraction = recipe.seed, recipe.mix.val_fraction
    same = Identities()
    for pair in pairs:
        same.join(pair.key, f"content {pair.content}")
        for other in (pair.twin if pair.kind == "raw" else None, pair.parent):
            if other is not None:
                same.join(pair.key, other)
        if pair.kind == "raw":
            for digest_of in (pair.image_sha256, pair.source_sha256):
                if digest_of is not None:
                    same.join(pair.key, f"bytes {digest_of}")
    own = {pair.key: split_of(pair.content, seed, fraction) for pair in pairs}
    in_train = {same.of(key) for key, split in own.items() if split == "train"}
    found: dict[str, Split | None] = {}
    for pair in pairs:
        split: Split | None = own[pair.key]
        if split == "val" and same.of(pair.key) in in_train:
            split = None
        if pair.reference is not None and split != split_of(pair.reference, seed, fraction):
            split = None
        found[pair.key] = split
    return found


class Identities:
    """Names that mean the same thing: a union-find."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def of(self, name: str) -> str:
        """The representative of a name."""
        root = name
        while (parent := self._parent.setdefault(root, root)) != root:
            root = parent
        while self._parent[name] != root:
            self._parent[name], name = root, self._parent[name]
        return root

    def join(self, a: str, b: str) -> None:
        """Say that two names mean the same."""
        self._parent[self.of(a)] = self.of(b)


class Pictures:
    """Pairs of raw/ and stylized/ by key, their images read from where they lie in the tars."""

    def __init__(self, corpus: Path) -> None:
        self.corpus = corpus
        self._rows: dict[str, Mapping[str, Any]] = {}
        self._sources: dict[str, ImageSource] = {}
        for kind in KINDS:
            shard_of: dict[str, str] = {}
            for path in sorted((corpus / kind).glob("*.parquet")):
                for row in shards.read_rows(path):
                    self._rows[row["key"]] = row
                    shard_of[row["key"]] = path.stem
            self._sources[kind] = ImageSource(corpus / kind, shard_of)

    def row(self, key: str) -> Mapping[str, Any]:
        """The row of a pair in its table."""
        return self._rows[key]

    def image(self, key: str) -> bytes:
        """The image of a pair. Raises CorpusError when the bytes are not those of the table."""
        row = self._rows[key]
        image = self._sources[row["kind"]].read(key)
        self._check(row, hashlib.sha256(image).hexdigest())
        return image

    def read(self, keys: Iterable[str]) -> Iterator[tuple[dict[str, Any], bytes]]:
        """The rows and the images of pairs, in order. Raises CorpusError as `image` does."""
        read = ((self._rows[key], self._sources[self._rows[key]["kind"]].read(key)) for key in keys)
        for (row, image), sha256 in with_sha256(read, lambda found: found[1]):
            self._check(row, sha256)
            yield dict(row), image

    def _check(self, row: Mapping[str, Any], sha256: str | None) -> None:
        if sha256 != row["image_sha256"]:
            raise CorpusError(
                f"{self.corpus / row['kind']}: the image of {row['key']} differs from the hash in its"
                " table",
                hint="the file was changed or damaged; `stylear curate run` mends it",
            )

    def pair(self, key: str) -> Pair:
        """The pair with its image."""
        return shards.pair_of(self._rows[key], self.image(key))


def write_split(folder: Path, keys: Sequence[str], pictures: Pictures, recipe: Recipe) -> None:
    """Shards of the keys in that order, and the wids index over them."""
    folder.mkdir(parents=True, exist_ok=True)
    size = recipe.mix.shard_pairs
    listed = []
    for index, start in enumerate(range(0, len(keys), size)):
        rows = pictures.read(keys[start : start + size])
        info = shards.write_rows(folder, index, rows, md5=True)
        tar = info.files[f"{shards.shard_name(index)}.tar"]
        listed.append(shard_entry(tar, info.images))
    write_text(folder / WIDS, wids_index(f"{recipe.name}-{folder.name}", listed))


def shard_entry(tar: FileInfo, samples: int) -> dict[str, Any]:
    """One shard as a wids index lists it."""
    return {"url": tar.name, "md5sum": tar.md5, "nsamples": samples, "filesize": tar.bytes}


def wids_index(name: str, shardlist: Iterable[Mapping[str, Any]]) -> str:
    """The wids index (version 1) of a stage directory; URLs are relative to it."""
    index = {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "name": name,
        "shardlist": list(shardlist),
    }
    return json.dumps(index, indent=1) + "\n"


def mix_table(placed: Sequence[Placed]) -> pa.Table:
    """One row for every pair that the filter kept: key, kind, kept, split, stage, reason."""
    import pyarrow as pa

    columns = {
        "key": [one.key for one in placed],
        "kind": [one.kind for one in placed],
        "split": [one.split for one in placed],
        "stage": [None if one.split else STAGE for one in placed],
        "reason": [one.reason for one in placed],
    }
    arrays: dict[str, Any] = {n: pa.array(v, pa.string()) for n, v in columns.items()}
    arrays["kept"] = pa.array([one.split is not None for one in placed], pa.bool_())
    return pa.table(arrays)
