"""Pairs as a test writes them down, one object each, put through the rules that work on columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from stylear.curate import filter as rules
from stylear.curate.corpus.candidates import Candidates, concatenate_candidates
from stylear.curate.corpus.columns import hash_identities
from stylear.curate.corpus.split import Split
from stylear.curate.filter.gather import build_rows
from stylear.curate.filter.rows import Rows
from stylear.curate.mix import mixing as mix
from stylear.curate.pairs import preferences as preferences
from stylear.curate.recipe import Recipe

TEXTS = ("key", "content", "reference", "parent", "stage", "reason", "group")
COMPARED = ("source", "image_sha256", "source_sha256")


@dataclass
class Candidate:
    """One pair: its row, its scores and its verdict."""

    key: str
    kind: str
    source: str
    content: str
    parent: str | None
    reference: str | None
    group: str | None
    image_sha256: str | None
    source_sha256: str | None
    kept: bool
    stage: str | None
    reason: str | None
    scores: dict[str, float | None] = field(default_factory=dict)
    phash: str | None = None
    colour: str | None = None
    duplicate_of: str | None = None
    rank: float | None = None

    def drop(self, reason: str) -> None:
        self.kept, self.stage, self.reason = False, "filter", reason


@dataclass(frozen=True)
class Assignment:
    """The split that the mix assigned to a pair, or the reason why it left it out."""

    key: str
    split: Split | None
    reason: str | None


def columns(pairs: Iterable[Candidate]) -> Candidates:
    """The pairs as the rules take them."""
    pairs = list(pairs)
    part = {n: pa.array([getattr(p, n) for p in pairs], pa.string()) for n in TEXTS}
    part |= {
        n: hash_identities(pa.array([getattr(p, n) for p in pairs], pa.string())) for n in COMPARED
    }
    part["stylized"] = np.array([pair.kind == "stylized" for pair in pairs], bool)
    part["kept"] = np.array([pair.kept for pair in pairs], bool)
    candidates = concatenate_candidates([part])
    candidates.rank = np.array([np.nan if p.rank is None else p.rank for p in pairs], np.float64)
    keys = [pair.key for pair in pairs]
    candidates.duplicate_of = np.array(
        [-1 if p.duplicate_of is None else keys.index(p.duplicate_of) for p in pairs], np.int64
    )
    return candidates


def rows(pairs: list[Candidate], distance: int | None) -> tuple[Candidates, Rows]:
    """The pairs as the filter takes them, near duplicates grouped at that distance."""
    candidates = columns(pairs)
    names = pairs[0].scores if pairs else ()
    scores = {n: pa.array([pair.scores[n] for pair in pairs], pa.float32()) for n in names}
    hashes = {
        "phash": np.array([int(p.phash or "0", 16) for p in pairs], np.uint64),
        "colour": np.array(
            [list(bytes.fromhex(p.colour or "00" * 12)) for p in pairs], np.uint8
        ).reshape(-1, 12),
        "hashed": np.array([None not in (p.phash, p.colour) for p in pairs], bool),
    }
    return candidates, build_rows(candidates, scores, hashes, distance)


def decide(pairs: list[Candidate], recipe: Recipe) -> list[Candidate]:
    """The same pairs with the verdicts of the filter."""
    decided = rules.apply_rules(
        *(rows(pairs, recipe.filter.duplicates.phash_distance)[1:]), recipe.filter
    )
    reasons = decided.reason.array().to_pylist()
    for number, pair in enumerate(pairs):
        if pair.kept and not decided.kept[number]:
            pair.drop(reasons[number])
        duplicate_of = int(decided.duplicate_of[number])
        pair.duplicate_of = None if duplicate_of < 0 else pairs[duplicate_of].key
    return pairs


def assign_splits(pairs: list[Candidate], recipe: Recipe) -> list[Assignment]:
    """What the mix does with every kept pair."""
    rows = mix.assign_splits(columns(pairs), recipe).to_pylist()
    return [Assignment(row["key"], row["split"], row["reason"]) for row in rows]


def choose_sides(
    pairs: list[Candidate], in_train: set[str], margin: float
) -> list[tuple[Candidate, Candidate]]:
    """The best and the worst of every group that gives a preference pair."""
    train = np.array([pair.key in in_train for pair in pairs], bool)
    best, worst = preferences.choose_best_and_worst(columns(pairs), train, margin)
    return [(pairs[a], pairs[b]) for a, b in zip(best, worst, strict=True)]
