"""Pairs, stages and corpora for tests of the mix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from builders.candidate_rows import Candidate, assign_splits
from builders.pictures_folder import encoded, tree
from stylear.curate.corpus.layout import ShardKind, score_path
from stylear.curate.corpus.parquet import write_table
from stylear.curate.corpus.shards import write_shard
from stylear.curate.corpus.split import assign_split
from stylear.curate.mix.mixing import mix_corpus
from stylear.curate.recipe import Recipe
from stylear.pair import Origin, Pair, digest

FRACTION = 0.3


def mix_recipe(**mix: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "test",
            "raw": [{"type": "mini"}],
            "filter": {"best_of": None, "duplicates": {"exact": False, "phash_distance": None}},
            "mix": {"val_fraction": FRACTION, "shard_pairs": 7, **mix},
        }
    )


def names_in(split: str, what: str, count: int, fraction: float = FRACTION) -> list[str]:
    """Identities that the hash puts into a split."""
    names = (f"{what} {number}" for number in range(10_000))
    return [name for name in names if assign_split(name, 0, fraction) == split][:count]


def raw_candidate(key: str, content: str, **changes: Any) -> Candidate:
    values: dict[str, Any] = {
        "key": key,
        "kind": "raw",
        "source": f"folder:{key}.png",
        "content": content,
        "parent": None,
        "reference": None,
        "group": None,
        "image_sha256": f"image of {key}",
        "source_sha256": f"source of {key}",
        "kept": True,
        "stage": None,
        "reason": None,
    }
    return Candidate(**values | changes)


def stylized_candidate(key: str, content: str, reference: str, **changes: Any) -> Candidate:
    return raw_candidate(
        key, content, kind="stylized", reference=reference, source_sha256=None, **changes
    )


def assigned(pairs: list[Candidate], recipe: Recipe) -> dict[str, str]:
    """Split or reason of every pair that the filter kept."""
    assignments = assign_splits(pairs, recipe)
    assert [assignment.key for assignment in assignments] == [
        pair.key for pair in pairs if pair.kept
    ]
    assert all(
        (assignment.split is None) != (assignment.reason is None) for assignment in assignments
    )
    return {
        assignment.key: assignment.split or str(assignment.reason) for assignment in assignments
    }


def stored_pair(number: int, content: str, reference: str | None = None, image: int = -1) -> Pair:
    origin = Origin(
        "raw" if reference is None else "stylized",
        f"folder:{number}.png",
        content,
        source_sha256=digest("source", number if image < 0 else image),
        reference=reference,
        reference_sha256=None if reference is None else "0" * 64,
    )
    return Pair(
        digest("mix", number), f"{content}", encoded(number if image < 0 else image), origin
    )


def write_stage(corpus: Path, kind: ShardKind, pairs: list[Pair]) -> None:
    """Shards of 10 pairs with the hashes that filtering asks for."""
    for index, start in enumerate(range(0, len(pairs), 10)):
        part = pairs[start : start + 10]
        write_shard(corpus / kind, index, part)
        keys = [pair.key for pair in part]
        colours = ["80" * 12] * len(part)
        table = pa.table({"key": keys, "phash": ["0" * 16] * len(part), "colour": colours})
        write_table(score_path(corpus, "phash", kind, index), table)


def mixed_files(corpus: Path) -> dict[str, bytes]:
    """What mixing wrote."""
    files = {f"{part}/{n}": d for part in ("train", "val") for n, d in tree(corpus / part).items()}
    return files | {"mix.parquet": (corpus / "mix.parquet").read_bytes()}


def mix_again(corpus: Path, to: Path, recipe: Recipe, workers: int = 1) -> dict[str, bytes]:
    """Mix the pairs of a corpus in another place; the files."""
    to.mkdir(exist_ok=True)
    for name in ("raw", "stylized", "scores", "verdicts.parquet"):
        if not (to / name).exists():
            (to / name).symlink_to(corpus / name)
    mix_corpus(to, recipe, workers=workers)
    return mixed_files(to)
