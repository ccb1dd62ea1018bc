"""Rules: which setting dropped a pair, its threshold and the pair's value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stylear.curate.explain.tables import HistoryTables
from stylear.curate.filter.human import REASONS as HUMAN
from stylear.curate.filter.votes import OUTVOTED

FETCH_RULES = {  # reason -> path of the setting that decides it, in the settings of fetch
    "too-small": ("image", "min_side"),
    "too-many-pixels": ("image", "max_pixels"),
    "too-large": ("raw", "max_bytes"),
    "unsupported-format": ("image", "format"),
}
QUOTAS = {"content-quota": "per_content", "style-quota": "per_style"}
BOUNDS = {"below-min": "min", "above-max": "max", "below-percentile": "percentile"}


@dataclass(frozen=True, slots=True)
class Rule:
    """Why a pair was dropped: the recipe's key, its value, and the value that the pair has."""

    name: str | None = None
    threshold: Any = None
    value: Any = None
    because: str | None = None  # an explanation where the numbers are not enough

    def fields(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "rule": self.name,
            "threshold": self.threshold,
            "value": self.value,
            "because": self.because,
        }


def fetch_rule(reason: str, row: Mapping[str, Any], settings: Mapping[str, Any]) -> Rule:
    """The setting by which fetch dropped a pair; some reasons (a timeout) have none."""
    if reason.startswith("http-"):
        return Rule(because=f"the server answered {reason.removeprefix('http-')}")
    if reason not in FETCH_RULES:
        return Rule()
    part, name = FETCH_RULES[reason]
    if part == "raw":
        limits = {source[name] for source in settings.get("raw", ()) if name in source}
        return Rule(f"raw.{name}", limits.pop() if len(limits) == 1 else None)
    return Rule(f"{part}.{name}", settings.get(part, {}).get(name))


def filter_rule(
    tables: HistoryTables,
    reason: str,
    verdict: Mapping[str, Any],
    style: str | None,
    rules: Mapping[str, Any],
) -> Rule:
    """The rule of the filter that dropped a pair of a style, with the settings of that run."""
    key = str(verdict["key"])
    if reason == "duplicate":
        return Rule(
            "filter.duplicates.exact", True, verdict["duplicate_of"], "the same stored bytes"
        )
    if reason == "near-duplicate":
        limit = rules["duplicates"]["phash_distance"]
        return Rule(
            "filter.duplicates.phash_distance",
            limit,
            verdict["duplicate_of"],
            "looks like a better pair",
        )
    if reason == "not-best":
        return best_rule(tables, verdict, rules)
    if reason in QUOTAS:
        quota = QUOTAS[reason]
        return Rule(f"filter.{quota}", rules[quota], None, "better pairs filled the quota")
    if reason in HUMAN:
        votes = tables.votes(key)
        setting = "at_least" if reason == HUMAN[0] else "require"
        words = f"reviewers: {votes.keep} keep it, {votes.drop} drop it"
        return Rule(f"filter.human.{setting}", rules["human"][setting], None, words)
    if reason == OUTVOTED:
        return votes_rule(verdict, rules)
    for number, threshold in enumerate(rules["thresholds"]):
        score = threshold["score"]
        bound = reason.removeprefix(f"{score}-")
        if bound == "not-a-number" and reason != bound:
            return Rule(f"filter.thresholds.{number}", None, "not a number", f"its {score}")
        name = BOUNDS.get(bound)
        if reason == f"{score}-{bound}" and name is not None and threshold[name] is not None:
            value = round_score(verdict.get(f"score.{score}"))
            if name != "percentile":
                return Rule(f"filter.thresholds.{number}.{name}", threshold[name], value)
            within = style if threshold["within"] == "style" else None
            lowest = round_score(tables.lowest_kept(score, within))
            words = (
                f"the lowest {score} that was kept{' of its style' if threshold['within'] else ''}"
            )
            return Rule(
                f"filter.thresholds.{number}.{name}", threshold[name], value, f"{words} is {lowest}"
            )
    return Rule()


def best_rule(tables: HistoryTables, verdict: Mapping[str, Any], rules: Mapping[str, Any]) -> Rule:
    """The position of a candidate in its group, and the best candidate."""
    group = tables.candidates(str(verdict["group"]))
    group.sort(key=lambda row: (-(row["rank"] if row["rank"] is not None else -1.0), row["key"]))
    position = [row["key"] for row in group].index(verdict["key"]) + 1
    best = next((row for row in group if row["kept"]), group[0])
    return Rule(
        "filter.best_of",
        rules["best_of"],
        position,
        f"position {position} of {len(group)} candidates by rank {round_score(verdict['rank'])};"
        f" {best['key']} has {round_score(best['rank'])}",
    )


def votes_rule(verdict: Mapping[str, Any], rules: Mapping[str, Any]) -> Rule:
    """The votes that a pair needs, and the values of all scores that vote."""
    votes = rules["votes"]
    min_votes = len(votes) // 2 + 1 if rules["at_least"] is None else rules["at_least"]
    values = ", ".join(
        f"{v['score']} {round_score(verdict.get('score.' + v['score']))}" for v in votes
    )
    return Rule("filter.at_least", min_votes, None, f"too few of its votes keep it: {values}")


def mix_rule(reason: str, row: Mapping[str, Any], settings: Mapping[str, Any]) -> Rule:
    """Why the mix left a kept pair out."""
    from stylear.curate.corpus.split import assign_split

    mix, seed = settings["mix"], settings["seed"]
    if reason == "ratio":
        return Rule(
            "mix.raw_per_stylized", mix["raw_per_stylized"], None, "others were drawn for the ratio"
        )
    content = assign_split(row["content"], seed, mix["val_fraction"])
    words = f"its content belongs to {content}, another pair of the same picture to the other split"
    if row["reference"] is not None:
        reference = assign_split(row["reference"], seed, mix["val_fraction"])
        if reference != content:
            words = f"its content belongs to {content}, its reference to {reference}"
    return Rule("mix.val_fraction", mix["val_fraction"], None, words)


def round_score(value: Any) -> Any:
    """A score rounded to five decimals, as it was stored; other values unchanged."""
    return round(float(value), 5) if isinstance(value, (float, np.floating)) else value
