"""Random candidates and random rules of the filter."""

from __future__ import annotations

import random
from typing import Any

from builders.candidate_rows import Candidate
from builders.filter_candidates import NAN, raw, stylized


def random_pairs(draw: random.Random, count: int = 250) -> list[Candidate]:
    """Pairs with many ties, few sources, contents, hashes and styles."""
    pairs = []
    for number in range(count):
        key = f"{draw.randrange(10**6):06d}-{number:03d}"
        is_stylized = draw.random() < 0.6

        def score() -> float | None:
            return draw.choice([None, NAN, *(draw.randrange(20) / 20 for _ in range(8))])

        group = f"g{number // 4}"
        pair = (stylized if is_stylized else raw)(
            key,
            scores={"text": score(), "style": score() if is_stylized else None},
            rank=draw.choice([None, draw.randrange(10) / 10]),
            content=f"content {draw.randrange(30)}",
            group=group if is_stylized else None,
            image_sha256=draw.choice([None, *(f"s{draw.randrange(60)}" for _ in range(9))]),
            phash=draw.choice([None, f"{draw.getrandbits(9) << 20:016x}"]),
            colour=draw.choice(["808080" * 4, "8a8080" * 4, "a08080" * 4]),
        )
        if is_stylized:
            pair.reference = f"style{draw.randrange(3)}--{draw.randrange(2)}"
        else:
            pair.source = f"http://host/{draw.randrange(60)}"
        if draw.random() < 0.1:
            pair.kept, pair.stage, pair.reason = False, "fetch", "timeout"
        pairs.append(pair)
    return pairs


def random_rules(draw: random.Random) -> dict[str, Any]:
    """Settings of the filter, each rule there or not."""

    def limit(votes: bool = False) -> dict[str, Any]:
        threshold: dict[str, Any] = {"score": draw.choice(["text", "style"])}
        kind = draw.choice(["min", "max", "percentile", "within"])
        if kind in ("min", "max"):
            threshold[kind] = draw.randrange(20) / 20
        else:
            threshold["percentile"] = draw.choice([5, 33.3, 60])
            threshold["within"] = "style" if kind == "within" else None
        return threshold

    votes = [limit() for _ in range(draw.choice([0, 0, 2, 3]))]
    return {
        "thresholds": [limit() for _ in range(draw.randrange(3))],
        "votes": votes,
        "at_least": draw.choice([None, *range(1, len(votes) + 1)]),
        "best_of": draw.choice([None, 1, 2]),
        "duplicates": {
            "exact": draw.random() < 0.7,
            "phash_distance": draw.choice([None, 0, 2, 4]),
        },
        "per_content": draw.choice([None, None, 3]),
        "per_style": draw.choice([None, None, 15]),
    }
