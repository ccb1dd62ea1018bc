"""Mixing: the kept pairs, raw : stylized as asked, into shuffled train/ and val/ shards.

Contents and style references belong to a split by hash. Nothing of one identity is in both: pairs of the
same picture under different contents (duplicates, copies of one source, their stylized children) stay in
train only. `mix.parquet` has a row for every pair that the filter kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curate import shards
from curate.candidates import Candidates, read_pairs
from curate.columns import (
    NONE,
    Index,
    Places,
    Texts,
    Words,
    components,
    first_of,
    hashed,
    identities,
    one,
    texts,
    values,
)
from curate.copies import Copies
from curate.engine import LOCAL, Engine
from curate.pictures import Pictures
from curate.shuffle import write_shuffled
from curate.split import Split, split_of
from curate.stage import MIX, VERDICTS
from curate.storage import FileInfo, write_text
from stylear.console import Bar
from stylear.errors import CorpusError
from stylear.pair import digest

if TYPE_CHECKING:
    import pyarrow as pa

    from curate.recipe import Recipe

STAGE = "mix"
SPLITS: tuple[Split, ...] = ("train", "val")
TRAIN, VAL, NEITHER = 0, 1, -1  # places in SPLITS
WIDS = "wids.json"
SplitColumn = NDArray[np.int8]  # (N,) TRAIN, VAL or NEITHER


def mix_corpus(
    corpus: Path, recipe: Recipe, engine: Engine = LOCAL, workers: int = 0
) -> dict[Path, FileInfo]:
    """Write train/ and val/ with their wids indexes, and mix.parquet; all these files.

    Raises CorpusError for verdicts of other pairs and for images that are not where they should be.
    """
    table = place(apply_verdicts(corpus, read_pairs(corpus)), recipe)
    keys = {split: shuffled(table, split, recipe.seed) for split in SPLITS}
    files = write_splits(corpus, keys, recipe, engine, workers)
    return files | {corpus / MIX: shards.write_table(corpus / MIX, table)}


def apply_verdicts(corpus: Path, pairs: Candidates) -> Candidates:
    """The pairs with the verdicts that the filter wrote. Raises CorpusError when it judged others."""

    def column(name: str) -> pa.Array:
        return one(shards.read_table(corpus / VERDICTS, [name])[name])

    if not column("key").equals(pairs.key):
        raise CorpusError(
            f"{corpus / VERDICTS}: it judges other pairs than the corpus has",
            hint="run `stylear curate filter` on this corpus again",
        )
    pairs.kept = column("kept").to_numpy(zero_copy_only=False)
    pairs.stage, pairs.reason = Words(column("stage")), Words(column("reason"))
    pairs.group = column("group")
    pairs.rank = column("rank").to_numpy(zero_copy_only=False).astype(np.float64)
    twins = column("twin")
    repeats = np.flatnonzero(twins.is_valid().to_numpy(zero_copy_only=False))
    pairs.twin = np.full(len(pairs), -1)
    pairs.twin[repeats] = Index(texts(pairs.key)).find(texts(twins.take(repeats)))
    return pairs


def place(pairs: Candidates, recipe: Recipe) -> pa.Table:
    """Where every kept pair goes, in the order given: key, kind, split, stage, reason, kept.

    The split is train, val, or null with the reason why the pair is left out.
    """
    import pyarrow as pa

    splits = splits_of(pairs, recipe)
    taken = np.zeros(len(pairs), bool)
    for split in (TRAIN, VAL):
        taken[at_ratio(pairs, np.flatnonzero(pairs.kept & (splits == split)), recipe)] = True
    kept = np.flatnonzero(pairs.kept)
    splits, taken = splits[kept], taken[kept]
    columns = {
        "key": pairs.key.take(kept),
        "kind": named(pairs.stylized[kept].astype(np.int8), ("raw", "stylized")),
        "split": named(np.where(taken, splits, NEITHER), SPLITS),
        "stage": named(np.where(taken, -1, 0), (STAGE,)),
        "reason": named(np.where(taken, -1, splits != NEITHER), ("split", "ratio")),
        "kept": pa.array(taken),
    }
    return pa.table(columns)


def named(numbers: NDArray[Any], names: Iterable[str]) -> pa.Array:
    """A column of texts from their numbers; null for a negative one."""
    import pyarrow as pa

    return pa.array(list(names), pa.string()).take(
        pa.array(numbers.astype(np.int8), mask=numbers < 0)
    )


def at_ratio(pairs: Candidates, places: Places, recipe: Recipe) -> Places:
    """Of the places all stylized pairs and raw ones to match, drawn by hash; all where raw is short.

    A split without stylized pairs keeps its raw ones: a ratio to nothing asks for nothing.
    """
    stylized, raw = (places[pairs.stylized[places] == kind] for kind in (True, False))
    if len(stylized):
        wanted = math.floor(recipe.mix.raw_per_stylized * len(stylized) + 0.5)
        raw = raw[by_hash(pairs.key.take(raw), "ratio", recipe.seed)[:wanted]]
    return np.concatenate([stylized, raw])


def by_hash(keys: pa.Array, use: str, seed: int) -> Places:
    """The order in which keys are drawn for one use."""
    drawn = hashed(keys, lambda key: bytes.fromhex(digest(use, seed, key)))
    return np.argsort(drawn, kind="stable")


def splits_of(pairs: Candidates, recipe: Recipe) -> SplitColumn:
    """The split of every pair; NEITHER for those that would cross.

    A stylized pair crosses when its content and its reference are of different splits. Pairs that
    show one picture under contents of both splits stay where they are in train and cross in val.
    """
    content = first_of(identities(pairs.content))
    found = hashed_splits(pairs.content, recipe)
    root = components(len(pairs), *edges(pairs, content))
    in_train = np.zeros(len(pairs), bool)
    in_train[root[found == TRAIN]] = True
    found[(found == VAL) & in_train[root]] = NEITHER
    styles = pairs.reference.dictionary_encode()
    style = styles.indices.fill_null(-1).to_numpy()
    of_style = np.append(hashed_splits(styles.dictionary, recipe), NEITHER)[style]
    found[(style >= 0) & (found != of_style)] = NEITHER
    return found


def hashed_splits(names: pa.Array, recipe: Recipe) -> SplitColumn:
    """The split that the hash of each name gives."""
    seed, fraction = recipe.seed, recipe.mix.val_fraction
    found = (SPLITS.index(split_of(name, seed, fraction)) for name in values(names))
    return np.fromiter(found, np.int8, len(names))


def edges(pairs: Candidates, content: Places) -> tuple[Places, Places]:
    """Which pairs show the same: one content; of raw pairs a duplicate and its twin, and the same bytes
    stored or at the source; a stylized pair, its parent and what else was made of it."""
    again = np.flatnonzero(content != np.arange(len(pairs)))
    children = np.flatnonzero(pairs.has("parent"))
    parents = pairs.parent.take(children)
    parent = Index(texts(pairs.key)).find(texts(parents))
    parent = np.where(parent >= 0, parent, children[first_of(identities(parents))])
    raw = np.flatnonzero(~pairs.stylized)
    twins = raw[pairs.twin[raw] >= 0]
    byte_ids, owner = np.concatenate([pairs.image[raw], pairs.source_bytes[raw]]), np.tile(raw, 2)
    there = byte_ids != NONE
    byte_ids, owner = byte_ids[there], owner[there]
    alike = owner[first_of(byte_ids)]
    copies = np.flatnonzero(alike != owner)
    return (
        np.concatenate([again, twins, owner[copies], children]),
        np.concatenate([content[again], pairs.twin[twins], alike[copies], parent]),
    )


def shuffled(table: pa.Table, split: Split, seed: int) -> Texts:
    """The keys of a split in the order in which they are written."""
    import pyarrow.compute as pc

    keys = one(table.filter(pc.equal(table["split"], split))["key"])
    return texts(keys.take(by_hash(keys, "mix", seed)))


def write_splits(
    corpus: Path,
    keys: Mapping[Split, Texts],
    recipe: Recipe,
    engine: Engine = LOCAL,
    workers: int = 0,
) -> dict[Path, FileInfo]:
    """Shards of the keys of each split in that order, and the wids index over them; their files."""
    copies = Copies()
    pictures = Pictures(corpus, copies=copies)
    folders = {corpus / split: pictures.samples(part) for split, part in keys.items()}
    del pictures  # the index of all pairs
    files: dict[Path, FileInfo] = {}
    listed: dict[Path, list[dict[str, Any]]] = {folder: [] for folder in folders}
    with Bar("mix", total=sum(map(len, folders.values())), unit="pairs") as bar:
        for folder, info in write_shuffled(
            folders, recipe.mix.shard_pairs, copies, engine, workers
        ):
            tar = info.files[f"{shards.shard_name(info.index)}.tar"]
            listed[folder].append(shard_entry(tar, info.images))
            files |= {folder / name: file for name, file in info.files.items()}
            bar.advance(info.rows)
    for folder, entries in listed.items():
        index = wids_index(f"{recipe.name}-{folder.name}", entries)
        files[folder / WIDS] = write_text(folder / WIDS, index)
    return files


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
