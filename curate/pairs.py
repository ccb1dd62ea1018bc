"""Preference pairs: of the candidates for one prompt and reference, the best against the worst.

Only what is in train/ can be chosen, so validation contents and references stay unseen. A sample has
`{key}.chosen.{ext}`, `{key}.rejected.{ext}`, `{key}.txt` (the caption) and `{key}.json` (the row).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate import shards
from curate.filter import Candidate, ranked, read_candidates
from curate.mix import WIDS, Pictures, apply_verdicts, shard_entry, wids_index
from curate.stage import MIX
from curate.storage import write_text
from stylear.pair import digest

if TYPE_CHECKING:
    import pyarrow as pa

    from curate.recipe import Recipe

FOLDER = "preferences"
TEXTS = ("key", "caption", "reference", "chosen", "rejected")
NUMBERS = ("chosen_score", "rejected_score", "margin")
DECIMALS = 6


def build_preferences(corpus: Path, recipe: Recipe) -> pa.Table:
    """Write preferences/ with its wids index; the table of all pairs. Empty without a ranking.

    Raises CorpusError when filter or mix are not finished.
    """
    candidates = apply_verdicts(corpus, read_candidates(corpus, recipe))
    mixed = shards.read_table(corpus / MIX, ["key", "split"])
    in_train = {
        key
        for key, split in zip(mixed["key"].to_pylist(), mixed["split"].to_pylist(), strict=True)
        if split == "train"
    }
    pictures = Pictures(corpus)
    chosen = choose_pairs(candidates, in_train, recipe.pairs.margin)
    chosen.sort(key=lambda two: digest("pairs", recipe.seed, two[0].group))
    rows = [row_of(best, worst, pictures) for best, worst in chosen]
    folder, size = corpus / FOLDER, recipe.mix.shard_pairs
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for index, start in enumerate(range(0, len(rows), size)):
        part, name = rows[start : start + size], shards.shard_name(index)
        tar = shards.write_tar(folder / f"{name}.tar", members(part, pictures))
        shards.write_table(folder / f"{name}.parquet", table_of(part))
        listed.append(shard_entry(tar, len(part)))
    write_text(folder / WIDS, wids_index(f"{recipe.name}-{FOLDER}", listed))
    return table_of(rows)


def choose_pairs(
    candidates: Sequence[Candidate], in_train: set[str], margin: float
) -> list[tuple[Candidate, Candidate]]:
    """(best, worst) of every group whose best is in `in_train` and leads by `margin` or more."""
    groups: dict[str, list[Candidate]] = {}
    for one in candidates:
        if one.group is not None and one.rank is not None and one.image_sha256 is not None:
            groups.setdefault(one.group, []).append(one)
    found = []
    for group in groups.values():
        best = min((one for one in group if one.key in in_train), key=ranked, default=None)
        worst = max(group, key=ranked)
        if best is None or best.image_sha256 == worst.image_sha256:
            continue
        lead = round(score_of(best) - score_of(worst), DECIMALS)
        if lead > 0 and lead >= margin:
            found.append((best, worst))
    return found


def score_of(one: Candidate) -> float:
    """The rank as it is written down; the margin is taken between these."""
    return round(one.rank or 0.0, DECIMALS)


def row_of(best: Candidate, worst: Candidate, pictures: Pictures) -> dict[str, Any]:
    """The row of a preference pair."""
    high, low = score_of(best), score_of(worst)
    return {
        "key": digest("preference", best.key, worst.key),
        "caption": pictures.row(best.key)["caption"],
        "reference": best.reference,
        "chosen": best.key,
        "rejected": worst.key,
        "chosen_score": high,
        "rejected_score": low,
        "margin": round(high - low, DECIMALS),
    }


def members(rows: Sequence[Mapping[str, Any]], pictures: Pictures) -> Iterator[tuple[str, bytes]]:
    """The tar members of the rows, in order."""
    for row in rows:
        for side in ("chosen", "rejected"):
            pair = pictures.pair(row[side])
            yield f"{row['key']}.{side}.{shards.image_ext(pair.image)}", pair.image
        yield f"{row['key']}.txt", str(row["caption"]).encode()
        yield f"{row['key']}.json", shards.canonical(dict(row)).encode()


def table_of(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The rows as a table."""
    import pyarrow as pa

    arrays = {name: pa.array([row[name] for row in rows], pa.string()) for name in TEXTS}
    arrays |= {name: pa.array([row[name] for row in rows], pa.float64()) for name in NUMBERS}
    return pa.table(arrays)
