"""Preference pairs: the best and the worst of the candidates for one prompt and style reference.

Only pairs of train/ can be chosen by their scores, so contents and references of val stay unseen. People's
preferences come before scores. A sample has `{key}.chosen.{ext}`, `{key}.rejected.{ext}`, `{key}.txt` (the
caption) and `{key}.json` (the row).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stylear.curate.corpus import parquet, records, shards
from stylear.curate.corpus.candidates import Candidates, rank_candidates, read_pairs
from stylear.curate.corpus.columns import NONE, Indices, Mask, TextIndex, combine_chunks, to_bytes
from stylear.curate.corpus.layout import MIX
from stylear.curate.corpus.pair_reader import PairReader
from stylear.curate.corpus.storage import write_text
from stylear.curate.corpus.tars import write_tar
from stylear.curate.corpus.wids import WIDS, shard_entry, wids_index
from stylear.curate.mix.mixing import order_by_hash
from stylear.curate.mix.verdicts import apply_verdicts
from stylear.curate.pairs.human import find_human_pairs, leave_out_groups
from stylear.pair import Pair, digest

if TYPE_CHECKING:
    import pyarrow as pa

    from stylear.curate.recipe import Recipe

FOLDER = "preferences"
TEXTS = ("key", "caption", "reference", "chosen", "rejected")
NUMBERS = ("chosen_score", "rejected_score", "margin")
DECIMALS = 6
Row = dict[str, Any]


def build_preferences(corpus: Path, recipe: Recipe) -> pa.Table:
    """Write preferences/ with its wids index; returns the table of all pairs, empty without a ranking.

    Raises CorpusError if filter or mix is not finished.
    """
    import pyarrow as pa

    pairs = apply_verdicts(corpus, read_pairs(corpus))
    best, worst, is_human = choose_all(corpus, recipe, pairs, find_train_pairs(corpus, pairs))
    order = order_by_hash(pairs.group.take(best), "pairs", recipe.seed)
    best, worst, is_human = best[order], worst[order], is_human[order]
    pictures = PairReader(corpus, ["stylized"]) if len(best) else None
    folder, size = corpus / FOLDER, recipe.mix.shard_pairs
    folder.mkdir(parents=True, exist_ok=True)
    listed, tables = [], [preferences_to_table([])]
    for index, start in enumerate(range(0, len(best), size)):
        assert pictures is not None
        part, name = slice(start, start + size), shards.shard_name(index)
        rows: list[Row] = []
        tar = write_tar(
            folder / f"{name}.tar",
            list_members(
                read_sides(pairs, best[part], worst[part], pictures, is_human[part]), rows
            ),
        )
        tables.append(preferences_to_table(rows))
        parquet.write_table(folder / f"{name}.parquet", tables[-1])
        listed.append(shard_entry(tar, len(rows)))
    write_text(folder / WIDS, wids_index(f"{recipe.name}-{FOLDER}", listed))
    return pa.concat_tables(tables)


def find_train_pairs(corpus: Path, pairs: Candidates) -> Mask:
    """Which pairs are in train/."""
    mixed = parquet.read_table(corpus / MIX, ["key", "split"])
    split = combine_chunks(mixed["split"]).fill_null("").to_numpy(zero_copy_only=False)
    train = combine_chunks(mixed["key"]).take(np.flatnonzero(split == "train"))
    in_train = np.zeros(len(pairs), bool)
    indices = TextIndex(to_bytes(pairs.key)).find(to_bytes(train))
    in_train[indices[indices >= 0]] = True
    return in_train


def choose_all(
    corpus: Path, recipe: Recipe, pairs: Candidates, in_train: Mask
) -> tuple[Indices, Indices, Mask]:
    """(chosen, rejected, whether people chose) by scores and by reviewers, as `pairs.human` says."""
    settings = recipe.pairs
    best, worst = choose_best_and_worst(pairs, in_train, settings.margin)
    if settings.human == "ignore":
        return best, worst, np.zeros(len(best), bool)
    liked, other = find_human_pairs(corpus, pairs, in_train)
    by_score = leave_out_groups(pairs, best, liked) & (settings.human == "first")
    is_human = np.repeat([False, True], [int(by_score.sum()), len(liked)])
    best, worst = np.append(best[by_score], liked), np.append(worst[by_score], other)
    return best, worst, is_human


def choose_best_and_worst(
    pairs: Candidates, in_train: Mask, margin: float
) -> tuple[Indices, Indices]:
    """Of each group the best candidate in train and the worst one, if they differ by `margin` or more."""
    judged = pairs.has("group") & ~np.isnan(pairs.rank) & (pairs.image != NONE)
    order, starts = rank_candidates(pairs, np.flatnonzero(judged))
    indices = np.flatnonzero(in_train[order])
    groups, at = np.unique(starts[indices], return_index=True)
    best = order[indices[at]]
    ends = np.searchsorted(starts, groups, "right")
    worst = order[ends - 1]
    lead = np.round(round_ranks(pairs, best) - round_ranks(pairs, worst), DECIMALS)
    chosen = (pairs.image[best] != pairs.image[worst]) & (lead > 0) & (lead >= margin)
    return best[chosen], worst[chosen]


def round_ranks(pairs: Candidates, indices: Indices) -> NDArray[np.float64]:
    """The ranks rounded as they are written, so that the margin is their exact difference."""
    return np.round(pairs.rank[indices], DECIMALS)


def read_sides(
    pairs: Candidates, best: Indices, worst: Indices, pictures: PairReader, is_human: Mask
) -> Iterator[tuple[Row, Pair, Pair]]:
    """The row of each preference pair and its two sides with their images.

    What people chose has no scores and no margin.
    """
    high, low = round_ranks(pairs, best).tolist(), round_ranks(pairs, worst).tolist()
    for chosen_row, rejected_row, chosen_score, rejected_score, human in zip(
        best, worst, high, low, is_human.tolist(), strict=True
    ):
        chosen, rejected = (
            pictures.pair(pairs.key[row].as_py()) for row in (chosen_row, rejected_row)
        )
        yield (
            {
                "key": digest("preference", chosen.key, rejected.key),
                "caption": chosen.caption,
                "reference": chosen.origin.reference,
                "chosen": chosen.key,
                "rejected": rejected.key,
                "chosen_score": None if human else chosen_score,
                "rejected_score": None if human else rejected_score,
                "margin": None if human else round(chosen_score - rejected_score, DECIMALS),
            },
            chosen,
            rejected,
        )


def list_members(
    samples: Iterable[tuple[Row, Pair, Pair]], rows: list[Row]
) -> Iterator[tuple[str, bytes]]:
    """The tar members of the samples, in order. Appends each row to `rows`."""
    for row, chosen, rejected in samples:
        rows.append(row)
        for side, pair in (("chosen", chosen), ("rejected", rejected)):
            yield f"{row['key']}.{side}.{records.image_extension(pair.image)}", pair.image
        yield f"{row['key']}.txt", str(row["caption"]).encode()
        yield f"{row['key']}.json", records.canonical_json(row).encode()


def preferences_to_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The rows as a table."""
    import pyarrow as pa

    arrays = {name: pa.array([row[name] for row in rows], pa.string()) for name in TEXTS}
    arrays |= {name: pa.array([row[name] for row in rows], pa.float64()) for name in NUMBERS}
    return pa.table(arrays)
