"""Mixing: the kept pairs, raw : stylized as asked, into shuffled train/ and val/ shards.

Contents and style references belong to a split by hash. Nothing of one identity is in both: pairs of the
same picture under different contents (duplicates, copies of one source, their stylized children) stay in
train only. `mix.parquet` has a row for every pair that the filter kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stylear.console import Bar
from stylear.curate.corpus import parquet, shards
from stylear.curate.corpus.candidates import Candidates, read_pairs
from stylear.curate.corpus.columns import (
    NONE,
    Index,
    Places,
    Texts,
    combine_chunks,
    connected_components,
    first_occurrence,
    hash_identities,
    hash_values,
    to_bytes,
    to_objects,
)
from stylear.curate.corpus.layout import MIX
from stylear.curate.corpus.local_copies import LocalCopies
from stylear.curate.corpus.pair_reader import PairReader
from stylear.curate.corpus.split import Split, split_of
from stylear.curate.corpus.storage import FileInfo, write_text
from stylear.curate.corpus.wids import WIDS, shard_entry, wids_index
from stylear.curate.engine import LOCAL, Engine
from stylear.curate.mix.shuffle import write_shuffled
from stylear.curate.mix.verdicts import apply_verdicts
from stylear.errors import CorpusError
from stylear.pair import digest

if TYPE_CHECKING:
    import pyarrow as pa

    from stylear.curate.recipe import Recipe

STAGE = "mix"
SPLITS: tuple[Split, ...] = ("train", "val")
TRAIN, VAL, NEITHER = 0, 1, -1  # places in SPLITS
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
    return files | {corpus / MIX: parquet.write_table(corpus / MIX, table)}


def place(pairs: Candidates, recipe: Recipe) -> pa.Table:
    """Where every kept pair goes, in the order given: key, kind, split, stage, reason, kept.

    The split is train, val, or null with the reason why the pair is left out.
    """
    import pyarrow as pa

    splits = splits_of(pairs, recipe)
    taken = np.zeros(len(pairs), bool)
    for split in (TRAIN, VAL):
        members = np.flatnonzero(pairs.kept & (splits == split))
        taken[at_ratio(pairs, members, recipe, SPLITS[split])] = True
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


def at_ratio(pairs: Candidates, places: Places, recipe: Recipe, split: Split) -> Places:
    """Of the places all stylized pairs and raw ones to match, drawn by hash.

    Where raw is short, `mix.on_shortfall` decides: all raw pairs there are (warn), fewer stylized ones, drawn
    by hash (scale), or CorpusError (fail). A split without stylized pairs keeps its raw ones: a ratio to
    nothing asks for nothing.
    """
    stylized, raw = (places[pairs.stylized[places] == kind] for kind in (True, False))
    if len(stylized):
        ratio = recipe.mix.raw_per_stylized
        wanted = math.floor(ratio * len(stylized) + 0.5)
        if len(raw) < wanted and recipe.mix.on_shortfall == "fail":
            raise CorpusError(
                f"mix: {split} needs {wanted} raw pairs for its {len(stylized)} stylized ones"
                f" (mix.raw_per_stylized {ratio:g}), found {len(raw)}",
                hint="add raw pairs, lower mix.raw_per_stylized, or set mix.on_shortfall: scale",
            )
        if len(raw) < wanted and recipe.mix.on_shortfall == "scale":
            fewer = math.floor(len(raw) / ratio)
            order = seeded_order(pairs.key.take(stylized), "shortfall", recipe.seed)
            stylized = stylized[np.sort(order[:fewer])]
            wanted = math.floor(ratio * fewer + 0.5) if fewer else len(raw)
        raw = raw[seeded_order(pairs.key.take(raw), "ratio", recipe.seed)[:wanted]]
    return np.concatenate([stylized, raw])


def seeded_order(keys: pa.Array, use: str, seed: int) -> Places:
    """The order in which keys are drawn for one use."""
    drawn = hash_values(keys, lambda key: bytes.fromhex(digest(use, seed, key)))
    return np.argsort(drawn, kind="stable")


def splits_of(pairs: Candidates, recipe: Recipe) -> SplitColumn:
    """The split of every pair; NEITHER for those that would cross.

    A stylized pair crosses when its content and its reference are of different splits. Pairs that
    show one picture under contents of both splits stay where they are in train and cross in val.
    """
    content = first_occurrence(hash_identities(pairs.content))
    found = hashed_splits(pairs.content, recipe)
    root = connected_components(len(pairs), *edges(pairs, content))
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
    found = (SPLITS.index(split_of(name, seed, fraction)) for name in to_objects(names))
    return np.fromiter(found, np.int8, len(names))


def edges(pairs: Candidates, content: Places) -> tuple[Places, Places]:
    """Which pairs show the same: one content; of raw pairs a duplicate and its twin, and the same bytes
    stored or at the source; a stylized pair, its parent and what else was made of it."""
    again = np.flatnonzero(content != np.arange(len(pairs)))
    children = np.flatnonzero(pairs.has("parent"))
    parents = pairs.parent.take(children)
    parent = Index(to_bytes(pairs.key)).find(to_bytes(parents))
    parent = np.where(parent >= 0, parent, children[first_occurrence(hash_identities(parents))])
    raw = np.flatnonzero(~pairs.stylized)
    twins = raw[pairs.duplicate_of[raw] >= 0]
    byte_ids, owner = np.concatenate([pairs.image[raw], pairs.source_bytes[raw]]), np.tile(raw, 2)
    there = byte_ids != NONE
    byte_ids, owner = byte_ids[there], owner[there]
    alike = owner[first_occurrence(byte_ids)]
    copies = np.flatnonzero(alike != owner)
    return (
        np.concatenate([again, twins, owner[copies], children]),
        np.concatenate([content[again], pairs.duplicate_of[twins], alike[copies], parent]),
    )


def shuffled(table: pa.Table, split: Split, seed: int) -> Texts:
    """The keys of a split in the order in which they are written."""
    import pyarrow.compute as pc

    keys = combine_chunks(table.filter(pc.equal(table["split"], split))["key"])
    return to_bytes(keys.take(seeded_order(keys, "mix", seed)))


def write_splits(
    corpus: Path,
    keys: Mapping[Split, Texts],
    recipe: Recipe,
    engine: Engine = LOCAL,
    workers: int = 0,
) -> dict[Path, FileInfo]:
    """Shards of the keys of each split in that order, and the wids index over them; their files."""
    copies = LocalCopies()
    pictures = PairReader(corpus, copies=copies)
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
