"""Preference pairs: of the candidates for one prompt and reference, the best against the worst.

Only what is in train/ can be chosen, so validation contents and references stay unseen. A sample has
`{key}.chosen.{ext}`, `{key}.rejected.{ext}`, `{key}.txt` (the caption) and `{key}.json` (the row).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stylear.curate.corpus import parquet, records, shards
from stylear.curate.corpus.candidates import Candidates, rank_candidates, read_pairs
from stylear.curate.corpus.columns import NONE, Index, Mask, Places, combine_chunks, to_bytes
from stylear.curate.corpus.layout import MIX
from stylear.curate.corpus.pair_reader import PairReader
from stylear.curate.corpus.storage import write_text
from stylear.curate.corpus.tars import write_tar
from stylear.curate.corpus.wids import WIDS, shard_entry, wids_index
from stylear.curate.mix.mixing import seeded_order
from stylear.curate.mix.verdicts import apply_verdicts
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
    """Write preferences/ with its wids index; the table of all pairs. Empty without a ranking.

    Raises CorpusError when filter or mix are not finished.
    """
    import pyarrow as pa

    pairs = apply_verdicts(corpus, read_pairs(corpus))
    best, worst = choose_pairs(pairs, read_train(corpus, pairs), recipe.pairs.margin)
    order = seeded_order(pairs.group.take(best), "pairs", recipe.seed)
    best, worst = best[order], worst[order]
    pictures = PairReader(corpus, ["stylized"]) if len(best) else None
    folder, size = corpus / FOLDER, recipe.mix.shard_pairs
    folder.mkdir(parents=True, exist_ok=True)
    listed, tables = [], [table_of([])]
    for index, start in enumerate(range(0, len(best), size)):
        assert pictures is not None
        part, name = slice(start, start + size), shards.shard_name(index)
        rows: list[Row] = []
        tar = write_tar(
            folder / f"{name}.tar",
            members(pairs_read(pairs, best[part], worst[part], pictures), rows),
        )
        tables.append(table_of(rows))
        parquet.write_table(folder / f"{name}.parquet", tables[-1])
        listed.append(shard_entry(tar, len(rows)))
    write_text(folder / WIDS, wids_index(f"{recipe.name}-{FOLDER}", listed))
    return pa.concat_tables(tables)


def read_train(corpus: Path, pairs: Candidates) -> Mask:
    """Which pairs the mix put into train/."""
    mixed = parquet.read_table(corpus / MIX, ["key", "split"])
    split = combine_chunks(mixed["split"]).fill_null("").to_numpy(zero_copy_only=False)
    train = combine_chunks(mixed["key"]).take(np.flatnonzero(split == "train"))
    found = np.zeros(len(pairs), bool)
    places = Index(to_bytes(pairs.key)).find(to_bytes(train))
    found[places[places >= 0]] = True
    return found


def choose_pairs(pairs: Candidates, in_train: Mask, margin: float) -> tuple[Places, Places]:
    """The best and the worst of every group whose best is in train and leads by `margin` or more."""
    judged = pairs.has("group") & ~np.isnan(pairs.rank) & (pairs.image != NONE)
    order, starts = rank_candidates(pairs, np.flatnonzero(judged))
    places = np.flatnonzero(in_train[order])
    groups, at = np.unique(starts[places], return_index=True)
    best = order[places[at]]
    ends = np.searchsorted(starts, groups, "right")
    worst = order[ends - 1]
    lead = np.round(score_of(pairs, best) - score_of(pairs, worst), DECIMALS)
    chosen = (pairs.image[best] != pairs.image[worst]) & (lead > 0) & (lead >= margin)
    return best[chosen], worst[chosen]


def score_of(pairs: Candidates, places: Places) -> NDArray[np.float64]:
    """The ranks as they are written down; the margin is taken between these."""
    return np.round(pairs.rank[places], DECIMALS)


def pairs_read(
    pairs: Candidates, best: Places, worst: Places, pictures: PairReader
) -> Iterator[tuple[Row, Pair, Pair]]:
    """The row of each preference pair and its two sides with their images."""
    high, low = score_of(pairs, best).tolist(), score_of(pairs, worst).tolist()
    for place, other, chosen_score, rejected_score in zip(best, worst, high, low, strict=True):
        chosen, rejected = (pictures.pair(pairs.key[at].as_py()) for at in (place, other))
        yield (
            {
                "key": digest("preference", chosen.key, rejected.key),
                "caption": chosen.caption,
                "reference": chosen.origin.reference,
                "chosen": chosen.key,
                "rejected": rejected.key,
                "chosen_score": chosen_score,
                "rejected_score": rejected_score,
                "margin": round(chosen_score - rejected_score, DECIMALS),
            },
            chosen,
            rejected,
        )


def members(
    samples: Iterable[tuple[Row, Pair, Pair]], rows: list[Row]
) -> Iterator[tuple[str, bytes]]:
    """The tar members of the samples, in order; their rows are put into `rows`."""
    for row, chosen, rejected in samples:
        rows.append(row)
        for side, pair in (("chosen", chosen), ("rejected", rejected)):
            yield f"{row['key']}.{side}.{records.image_extension(pair.image)}", pair.image
        yield f"{row['key']}.txt", str(row["caption"]).encode()
        yield f"{row['key']}.json", records.canonical_json(row).encode()


def table_of(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The rows as a table."""
    import pyarrow as pa

    arrays = {name: pa.array([row[name] for row in rows], pa.string()) for name in TEXTS}
    arrays |= {name: pa.array([row[name] for row in rows], pa.float64()) for name in NUMBERS}
    return pa.table(arrays)
