"""Summary of a review: what each reviewer did, win rates and strengths of models, with 95% intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stylear.curate.corpus.answers import Answer, count_votes
from stylear.curate.review.bradley_terry import (
    Numbers,
    fit_strengths,
    interval,
    is_connected,
    resample_clusters,
    win_rates,
)

SEED = 0  # of the bootstrap


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def fields(self) -> dict[str, float]:
        """For JSON."""
        return {
            "value": round(self.value, 6), "low": round(self.low, 6), "high": round(self.high, 6),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Comparisons:
    """Which model was preferred to which, in each group of one reference and prompt."""

    models: list[str]
    clusters: Numbers  # (C, K, K) wins of row over column; a tie counts half for both
    ties: Numbers  # (K, K)

    @property
    def wins(self) -> Numbers:
        """Wins over all groups (K, K)."""
        wins: Numbers = self.clusters.sum(axis=0)
        return wins


def compare_models(answers: Iterable[Answer]) -> Comparisons:
    """Count the choices between pictures of different models."""
    choices = [
        (answer, answer.sides)
        for answer in answers
        if answer.sides is not None and answer.sides[0].model != answer.sides[1].model
    ]
    models = sorted({side.model for _, sides in choices for side in sides})
    groups = sorted({answer.group for answer, _ in choices})
    place, number = ({name: n for n, name in enumerate(names)} for names in (models, groups))
    clusters = np.zeros((len(groups), len(models), len(models)))
    ties = np.zeros((len(models), len(models)))
    for answer, sides in choices:
        left, right = (place[side.model] for side in sides)
        of_group = clusters[number[answer.group]]
        of_group[left, right] += {"left": 1.0, "tie": 0.5, "right": 0.0}[answer.answer]
        of_group[right, left] += {"left": 0.0, "tie": 0.5, "right": 1.0}[answer.answer]
        if answer.answer == "tie":
            ties[left, right] += 1
            ties[right, left] += 1
    return Comparisons(models, clusters, ties)


def summarize(answers: Sequence[Answer]) -> dict[str, Any]:
    """All tables as JSON values; Estimates are left as they are."""
    comparisons = compare_models(answers)
    return {
        "reviewers": reviewer_rows(answers),
        "pairs": pair_counts(answers),
        "models": model_rows(comparisons),
        "duels": duel_rows(comparisons),
        "comparable": not comparisons.models or is_connected(comparisons.wins),
    }


def reviewer_rows(answers: Iterable[Answer]) -> list[dict[str, Any]]:
    """How often each reviewer gave each answer. A reviewer who favours one side shows here."""
    counts: dict[str, Counter[str]] = {}
    for answer in answers:
        counts.setdefault(answer.reviewer, Counter())[answer.answer] += 1
    names = ("keep", "drop", "left", "right", "tie")
    return [
        {"reviewer": reviewer, **{name: counter[name] for name in names}}
        for reviewer, counter in sorted(counts.items())
    ]


def pair_counts(answers: Iterable[Answer]) -> dict[str, int]:
    """How many pairs were judged, by several reviewers, and by several who all agree."""
    votes = list(count_votes(answers).values())
    several = [vote for vote in votes if vote.keep + vote.drop > 1]
    return {
        "judged": len(votes),
        "more_drop_than_keep": sum(vote.drop > vote.keep for vote in votes),
        "judged_by_several": len(several),
        "unanimous": sum(not (vote.keep and vote.drop) for vote in several),
    }


def model_rows(comparisons: Comparisons) -> list[dict[str, Any]]:
    """Win rate and Bradley-Terry strength of each model, the strongest first.

    The bootstrap draws whole groups of one reference and prompt. Strengths are None if comparisons do not
    connect all models.
    """
    if not comparisons.models:
        return []
    wins, draws = comparisons.wins, resample_clusters(comparisons.clusters, SEED)
    rates = estimate(win_rates(wins), win_rates(draws))
    strengths: list[Estimate | None] = [None] * len(comparisons.models)
    if is_connected(wins):
        strengths = list(estimate(fit_strengths(wins), fit_strengths(draws)))
    rows = [
        {
            "model": model,
            "comparisons": int((wins[k] + wins[:, k]).sum()),
            "wins": int((wins[k] - comparisons.ties[k] / 2).sum()),
            "ties": int(comparisons.ties[k].sum()),
            "win_rate": rates[k],
            "strength": strengths[k],
        }
        for k, model in enumerate(comparisons.models)
    ]
    return sorted(rows, key=lambda row: (-(row["strength"] or row["win_rate"]).value, row["model"]))


def duel_rows(comparisons: Comparisons) -> list[dict[str, Any]]:
    """How often each model was preferred to each other one, ties half."""
    if not comparisons.models:
        return []
    wins, draws = comparisons.wins, resample_clusters(comparisons.clusters, SEED)
    rows = []
    for a, model in enumerate(comparisons.models):
        for b in range(a + 1, len(comparisons.models)):
            couple = np.ix_([a, b], [a, b])
            count = wins[a, b] + wins[b, a]
            if count:
                [rate, _] = estimate(
                    win_rates(wins[couple]), win_rates(draws[:, [a, b]][:, :, [a, b]])
                )
                rows.append(
                    {
                        "model": model,
                        "against": comparisons.models[b],
                        "comparisons": int(count),
                        "win_rate": rate,
                    }
                )
    return rows


def estimate(values: Numbers, draws: Numbers) -> list[Estimate]:
    """Values (K,) with the intervals of their draws (D, K)."""
    low, high = interval(draws)
    return [Estimate(*map(float, each)) for each in zip(values, low, high, strict=True)]


def to_json(value: Any) -> Any:
    """The summary with Estimates as dictionaries."""
    if isinstance(value, Estimate):
        return value.fields()
    if isinstance(value, dict):
        return {name: to_json(each) for name, each in value.items()}
    return [to_json(each) for each in value] if isinstance(value, list) else value
