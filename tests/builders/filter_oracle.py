"""The rules of the filter once more, pair by pair as docs/filter.md tells them: slow, and sharing no code."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from builders.candidate_rows import Candidate
from stylear.curate.recipe import FilterSettings, Threshold


def judged(
    pairs: list[Candidate], rules: FilterSettings
) -> dict[str, tuple[str | None, str | None]]:
    """(reason, twin) of every pair."""
    ranked = sorted(pairs, key=lambda p: (-value(p.rank, -1.0), p.key))
    place = {pair.key: number for number, pair in enumerate(ranked)}
    reason = {pair.key: pair.reason if not pair.kept else None for pair in pairs}
    gone = {pair.key for pair in pairs if not pair.kept}
    twin: dict[str, str] = {}

    def alive(some: Iterable[Candidate] = ranked) -> list[Candidate]:
        return [pair for pair in some if pair.key not in gone]

    def drop(pair: Candidate, why: str) -> None:
        if pair.key not in gone:
            gone.add(pair.key)
            reason[pair.key] = why

    def copies(groups: list[list[Candidate]], why: str) -> None:
        for group in groups:
            ranked = sorted(alive(group), key=lambda p: place[p.key])
            if len(ranked) < 2:
                continue
            stays: dict[str, Candidate] = {ranked[0].content: ranked[0]}
            for pair in ranked[1:]:
                best = ranked[0]
                if pair.kind == "raw" and pair.source == best.source:
                    best = stays.setdefault(pair.content, pair)
                if best is not pair:
                    twin[pair.key] = best.key
                    drop(pair, why)

    def top(some: list[Candidate], of: Callable[[Candidate], Hashable], n: int, why: str) -> None:
        seen: dict[Hashable, int] = defaultdict(int)
        for pair in some:
            seen[of(pair)] += 1
            if seen[of(pair)] > n:
                drop(pair, why)

    if rules.duplicates.exact:
        same = defaultdict(list)
        for pair in pairs:
            if pair.kept and pair.image_sha256:
                same[pool(pair), pair.image_sha256].append(pair)
        copies(list(same.values()), "duplicate")
    for threshold in rules.thresholds:
        now = alive()
        failed = {pair.key: outside(pair, threshold, now) for pair in now}
        for why in ("not-a-number", "below-min", "above-max", "below-percentile"):
            for pair in now:
                if why in failed[pair.key]:
                    drop(pair, f"{threshold.score}-{why}")
    if rules.votes:
        now = alive()
        against = {p.key: sum(bool(outside(p, vote, now)) for vote in rules.votes) for p in now}
        needed = rules.at_least or len(rules.votes) // 2 + 1
        for pair in now:
            if len(rules.votes) - against[pair.key] < needed:
                drop(pair, "outvoted")
    if rules.best_of is not None:
        top([p for p in alive() if p.group], lambda p: p.group, rules.best_of, "not-best")
    if rules.duplicates.phash_distance is not None:
        copies(near(pairs, place, rules.duplicates.phash_distance), "near-duplicate")
    if rules.per_content is not None:
        top(alive(), lambda p: (p.kind, p.content), rules.per_content, "content-quota")
    if rules.per_style is not None:
        stylized = [pair for pair in alive() if pair.kind == "stylized"]
        top(stylized, lambda p: str(p.reference).split("--")[0], rules.per_style, "style-quota")
    return {pair.key: (reason[pair.key], twin.get(pair.key)) for pair in pairs}


def value(number: float | None, otherwise: float) -> float:
    return otherwise if number is None or math.isnan(number) else number


def pool(pair: Candidate) -> str:
    return "raw" if pair.kind == "raw" else f"style {pair.reference}"


def outside(pair: Candidate, threshold: Threshold, among: list[Candidate]) -> set[str]:
    """In which ways a pair lies outside, `among` being those that are still there."""
    name = threshold.score
    score = pair.scores[name]
    if score is None:
        return set()
    if math.isnan(score):
        return {"not-a-number"}
    reasons = set()
    if threshold.min is not None and score < threshold.min:
        reasons.add("below-min")
    if threshold.max is not None and score > threshold.max:
        reasons.add("above-max")
    if threshold.percentile is not None and pair.kind == "stylized":
        scores = sorted(
            number
            for other in among
            if other.kind == "stylized"
            and (threshold.within is None or style(other) == style(pair))
            if (number := other.scores[name]) is not None and not math.isnan(number)
        )
        if score < scores[int(len(scores) * threshold.percentile / 100)]:
            reasons.add("below-percentile")
    return reasons


def style(pair: Candidate) -> Any:
    return str(pair.reference).split("--")[0]


def near(pairs: list[Candidate], place: dict[str, int], distance: int) -> list[list[Candidate]]:
    """The groups of near duplicates: the best that is in none takes all that are near it and in none."""
    waiting = sorted(
        (p for p in pairs if p.kept and p.phash and p.colour), key=lambda p: place[p.key]
    )
    groups = []
    while waiting:
        best, rest = waiting[0], waiting[1:]
        group = [best, *(pair for pair in rest if alike(best, pair, distance))]
        waiting = [pair for pair in rest if pair not in group]
        groups.append(group)
    return groups


def alike(one: Candidate, other: Candidate, distance: int) -> bool:
    if pool(one) != pool(other):
        return False
    bits = (int(str(one.phash), 16) ^ int(str(other.phash), 16)).bit_count()
    colours = (bytes.fromhex(str(pair.colour)) for pair in (one, other))
    return bits <= distance and all(abs(a - b) <= 16 for a, b in zip(*colours, strict=True))
