"""Mixing: writes the kept pairs into shuffled train/ and val/ shards at the configured raw:stylized ratio.

A hash decides the split of each content and of each style reference. No picture is in both splits: if pairs
show one picture under several contents (duplicates, copies of one source, their stylized children), only
those in train stay. `mix.parquet` has a row for every pair that the filter kept.
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
    Indices,
    TextIndex,
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
from stylear.curate.corpus.split import SPLITS, Split, assign_split
from stylear.curate.corpus.storage import FileInfo, write_text
from stylear.curate.corpus.wids import WIDS, shard_entry, wids_index
from stylear.curate.engine import LOCAL, Engine
from stylear.curate.mix.shuffle import write_shards
from stylear.curate.mix.verdicts import apply_verdicts
from stylear.errors import CorpusError
from stylear.pair import digest

if TYPE_CHECKING:
    import pyarrow as pa

    from stylear.curate.recipe import Recipe

STAGE = "mix"
TRAIN, VAL, NEITHER = 0, 1, -1  # indices into SPLITS
SplitColumn = NDArray[np.int8]  # (N,) TRAIN, VAL or NEITHER


def mix_corpus(
    corpus: Path, recipe: Recipe, engine: Engine = LOCAL, workers: int = 0
) -> dict[Path, FileInfo]:
    """Write train/ and val/ with their wids indexes, and mix.parquet; returns the files written.

    Raises CorpusError if the verdicts are of other pairs, or an image is missing from its shard.
    """
    table = assign_splits(apply_verdicts(corpus, read_pairs(corpus)), recipe)
    keys = {split: shuffle_split(table, split, recipe.seed) for split in SPLITS}
    files = write_splits(corpus, keys, recipe, engine, workers)
    return files | {corpus / MIX: parquet.write_table(corpus / MIX, table)}


def assign_splits(pairs: Candidates, recipe: Recipe) -> pa.Table:
    """A row for each kept pair, in order: key, kind, split, stage, reason, kept.

    The split is train, val, or null with the reason for which the pair is left out.
    """
    import pyarrow as pa

    splits = find_splits(pairs, recipe)
    is_taken = np.zeros(len(pairs), bool)
    for split in (TRAIN, VAL):
        members = np.flatnonzero(pairs.kept & (splits == split))
        is_taken[sample_at_ratio(pairs, members, recipe, SPLITS[split])] = True
    kept = np.flatnonzero(pairs.kept)
    splits, is_taken = splits[kept], is_taken[kept]
    columns = {
        "key": pairs.key.take(kept),
        "kind": column_of_names(pairs.stylized[kept].astype(np.int8), ("raw", "stylized")),
        "split": column_of_names(np.where(is_taken, splits, NEITHER), SPLITS),
        "stage": column_of_names(np.where(is_taken, -1, 0), (STAGE,)),
        "reason": column_of_names(np.where(is_taken, -1, splits != NEITHER), ("split", "ratio")),
        "kept": pa.array(is_taken),
    }
    return pa.table(columns)


def column_of_names(numbers: NDArray[Any], names: Iterable[str]) -> pa.Array:
    """A column of names from their indices in `names`; null for a negative index."""
    import pyarrow as pa

    return pa.array(list(names), pa.string()).take(
        pa.array(numbers.astype(np.int8), mask=numbers < 0)
    )


def sample_at_ratio(pairs: Candidates, indices: Indices, recipe: Recipe, split: Split) -> Indices:
    """All stylized pairs among `indices` and as many raw ones as the ratio asks for, drawn by hash.

    With too few raw pairs `mix.on_shortfall` decides: take all of them (warn), take fewer stylized pairs,
    drawn by hash (scale), or raise CorpusError (fail). Without stylized pairs all raw ones are taken.
    """
    stylized, raw = (indices[pairs.stylized[indices] == kind] for kind in (True, False))
    if len(stylized):
        ratio = recipe.mix.raw_per_stylized
        num_raw = math.floor(ratio * len(stylized) + 0.5)
        if len(raw) < num_raw and recipe.mix.on_shortfall == "fail":
            raise CorpusError(
                f"mix: {split} needs {num_raw} raw pairs for its {len(stylized)} stylized ones"
                f" (mix.raw_per_stylized {ratio:g}), found {len(raw)}",
                hint="add raw pairs, lower mix.raw_per_stylized, or set mix.on_shortfall: scale",
            )
        if len(raw) < num_raw and recipe.mix.on_shortfall == "scale":
            fewer = math.floor(len(raw) / ratio)
            order = order_by_hash(pairs.key.take(stylized), "shortfall", recipe.seed)
            stylized = stylized[np.sort(order[:fewer])]
            num_raw = math.floor(ratio * fewer + 0.5) if fewer else len(raw)
        raw = raw[order_by_hash(pairs.key.take(raw), "ratio", recipe.seed)[:num_raw]]
    return np.concatenate([stylized, raw])


def order_by_hash(keys: pa.Array, use: str, seed: int) -> Indices:
    """The indices of keys in a random order that depends on the seed, the keys and `use` alone."""
    drawn = hash_values(keys, lambda key: bytes.fromhex(digest(use, seed, key)))
    return np.argsort(drawn, kind="stable")


def find_splits(pairs: Candidates, recipe: Recipe) -> SplitColumn:
    """The split of every pair; NEITHER for a pair that would leak across splits.

    That is a stylized pair whose content and reference belong to different splits, and a pair of val whose
    picture is in train under another content.
    """
    content = first_occurrence(hash_identities(pairs.content))
    splits = hash_splits(pairs.content, recipe)
    root = connected_components(len(pairs), *link_same_pictures(pairs, content))
    in_train = np.zeros(len(pairs), bool)
    in_train[root[splits == TRAIN]] = True
    splits[(splits == VAL) & in_train[root]] = NEITHER
    styles = pairs.reference.dictionary_encode()
    style = styles.indices.fill_null(-1).to_numpy()
    of_style = np.append(hash_splits(styles.dictionary, recipe), NEITHER)[style]
    splits[(style >= 0) & (splits != of_style)] = NEITHER
    return splits


def hash_splits(names: pa.Array, recipe: Recipe) -> SplitColumn:
    """The split of each name by its hash."""
    seed, fraction = recipe.seed, recipe.mix.val_fraction
    splits = (SPLITS.index(assign_split(name, seed, fraction)) for name in to_objects(names))
    return np.fromiter(splits, np.int8, len(names))


def link_same_pictures(pairs: Candidates, content: Indices) -> tuple[Indices, Indices]:
    """Links between pairs that must not be in different splits, as two columns of indices.

    Linked are pairs of one content; raw pairs that are duplicates, or have the same bytes in the corpus or at
    the source; and a stylized pair with its parent and its siblings.
    """
    again = np.flatnonzero(content != np.arange(len(pairs)))
    children = np.flatnonzero(pairs.has("parent"))
    parents = pairs.parent.take(children)
    parent = TextIndex(to_bytes(pairs.key)).find(to_bytes(parents))
    parent = np.where(parent >= 0, parent, children[first_occurrence(hash_identities(parents))])
    raw = np.flatnonzero(~pairs.stylized)
    twins = raw[pairs.duplicate_of[raw] >= 0]
    byte_ids, owner = np.concatenate([pairs.image[raw], pairs.source_bytes[raw]]), np.tile(raw, 2)
    known = byte_ids != NONE
    byte_ids, owner = byte_ids[known], owner[known]
    alike = owner[first_occurrence(byte_ids)]
    copies = np.flatnonzero(alike != owner)
    return (
        np.concatenate([again, twins, owner[copies], children]),
        np.concatenate([content[again], pairs.duplicate_of[twins], alike[copies], parent]),
    )


def shuffle_split(table: pa.Table, split: Split, seed: int) -> Texts:
    """The keys of a split, shuffled: the order in which they are written."""
    import pyarrow.compute as pc

    keys = combine_chunks(table.filter(pc.equal(table["split"], split))["key"])
    return to_bytes(keys.take(order_by_hash(keys, "mix", seed)))


def write_splits(
    corpus: Path,
    keys: Mapping[Split, Texts],
    recipe: Recipe,
    engine: Engine = LOCAL,
    workers: int = 0,
) -> dict[Path, FileInfo]:
    """Write the shards and the wids index of each split, its keys in order; returns the files written."""
    copies = LocalCopies()
    pictures = PairReader(corpus, copies=copies)
    folders = {corpus / split: pictures.samples(part) for split, part in keys.items()}
    del pictures  # the index of all pairs
    files: dict[Path, FileInfo] = {}
    listed: dict[Path, list[dict[str, Any]]] = {folder: [] for folder in folders}
    with Bar("mix", total=sum(map(len, folders.values())), unit="pairs") as bar:
        for folder, info in write_shards(folders, recipe.mix.shard_pairs, copies, engine, workers):
            tar = info.files[f"{shards.shard_name(info.index)}.tar"]
            listed[folder].append(shard_entry(tar, info.images))
            files |= {folder / name: file for name, file in info.files.items()}
            bar.advance(info.rows)
    for folder, entries in listed.items():
        index = wids_index(f"{recipe.name}-{folder.name}", entries)
        files[folder / WIDS] = write_text(folder / WIDS, index)
    return files
