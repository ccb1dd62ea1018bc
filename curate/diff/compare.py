"""Two corpora side by side: recipes, counts, pairs, scores and styles. Some 90 bytes a pair are in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from stylear.curate.audit.manifest import stage_counts
from stylear.curate.corpus.columns import Index, Mask, Places
from stylear.curate.corpus.layout import MANIFEST, RECIPE
from stylear.curate.corpus.ledger import Ledger, flatten_settings
from stylear.curate.diff.fates import (
    ABSENT,
    TRAINED,
    Fates,
    Words,
    read_fates,
    read_keys,
    read_score,
)
from stylear.curate.explain.life import EMBEDDINGS
from stylear.errors import RecipeError

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
DECIMALS = 5
Row = dict[str, Any]


@dataclass(slots=True, eq=False)
class CorpusDiff:
    """How corpus B differs from corpus A."""

    a: Path
    b: Path
    recipe: list[Row]  # keys with other values
    counts: list[Row]  # of each stage, where they differ
    common: int  # pairs that both have
    pairs: list[Row]  # how many pairs ended differently: from, to, kind
    scores: list[Row]  # over the common pairs that both scored
    styles: list[Row]  # pairs for training, where they differ
    unfinished: list[str]
    _sides: tuple[Fates, Fates]
    _match: tuple[Places, Places]  # where each pair of A stands in B, and of B in A; -1: nowhere
    _fates: Words

    @property
    def is_empty(self) -> bool:
        """Whether nothing differs."""
        shifted = any(row["changed"] for row in self.scores)
        return not (self.recipe or self.counts or self.pairs or self.styles or shifted)

    def summary(self) -> Row:
        """For JSON."""
        names = ("recipe", "counts", "common", "pairs", "scores", "styles", "unfinished")
        return {"a": str(self.a), "b": str(self.b)} | {name: getattr(self, name) for name in names}

    def tables(self) -> list[list[Row]]:
        """For the terminal: what differs, a table for each subject."""
        scores = []
        for row in self.scores:
            for side in ("a", "b") if row["changed"] else ():
                told = {"score": row["score"], "corpus": side.upper(), "pairs": row["pairs"]}
                scores.append(told | row[side])
        recipe = [{"recipe": row["key"], "a": row["a"], "b": row["b"]} for row in self.recipe]
        return [recipe, self.counts, self.pairs, scores, self.styles]

    def changed_pairs(self) -> Iterator[Row]:
        """Every pair that ended differently: those of A in their order, then those that only B has."""
        a, b = self._sides
        to = other_fates(b, self._match[0], self._fates)
        yield from self._listed(a, a.fate != to, a.fate, to)
        new = self._match[1] < 0
        absent = np.full(len(b), self._fates.code(ABSENT), np.int16)
        yield from self._listed(b, new, absent, b.fate)

    def _listed(self, side: Fates, mask: Mask, before: Any, after: Any) -> Iterator[Row]:
        words, places = self._fates.words, np.flatnonzero(mask)
        for place, key in zip(places.tolist(), read_keys(side.corpus, mask), strict=True):
            kind = "stylized" if side.stylized[place] else "raw"
            yield {"key": key, "kind": kind, "a": words[before[place]], "b": words[after[place]]}


def diff_corpora(a: Path, b: Path) -> CorpusDiff:
    """Compare two corpora. Raises CorpusError for one that is damaged or whose verdicts are stale."""
    fates, styles = Words(ABSENT, *TRAINED), Words("")
    sides = read_fates(a, fates, styles), read_fates(b, fates, styles)
    match = Index(sides[1].ids).find(sides[0].ids), Index(sides[0].ids).find(sides[1].ids)
    return CorpusDiff(
        a=a,
        b=b,
        recipe=diff_values(flat_recipe(a), flat_recipe(b)),
        counts=diff_counts(a, b),
        common=int((match[0] >= 0).sum()),
        pairs=diff_pairs(*sides, *match, fates),
        scores=diff_scores(a, b, match[0]),
        styles=diff_styles(*sides, styles.words),
        unfinished=[str(corpus) for corpus in (a, b) if not (corpus / MANIFEST).is_file()],
        _sides=sides,
        _match=match,
        _fates=fates,
    )


def flat_recipe(corpus: Path) -> dict[str, str]:
    """The recipe of a corpus as dotted keys, its paths as they are written."""
    path = corpus / RECIPE
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: expected a recipe, found: {error}") from error
    return flatten_settings(values)


def diff_values(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Row]:
    """Keys whose values differ; None where there is none."""
    return [
        {"key": key, "a": a.get(key), "b": b.get(key)}
        for key in sorted({*a, *b})
        if a.get(key) != b.get(key)
    ]


def diff_counts(a: Path, b: Path) -> list[Row]:
    """Rows, kept and dropped pairs of each stage, where they differ."""
    found = []
    both = stage_counts(Ledger(a)), stage_counts(Ledger(b))
    for stage in sorted({*both[0], *both[1]}):
        flat = []
        for counts in both:
            known = counts.get(stage, {})
            names = {name: known[name] for name in ("rows", "kept") if name in known}
            flat.append(names | known.get("dropped", {}))
        for row in diff_values(*flat):
            old, new = row["a"] or 0, row["b"] or 0
            found.append(
                {"stage": stage, "count": row["key"], "a": old, "b": new, "change": new - old}
            )
    return found


def other_fates(other: Fates, match: Places, fates: Words) -> NDArray[np.int16]:
    """What became of each pair in the other corpus."""
    found = np.full(len(match), fates.code(ABSENT), np.int16)
    there = match >= 0
    found[there] = other.fate[match[there]]
    return found


def diff_pairs(a: Fates, b: Fates, in_b: Places, in_a: Places, fates: Words) -> list[Row]:
    """How many pairs of each kind ended differently, most first."""
    to, new = other_fates(b, in_b, fates), in_a < 0
    absent = np.full(int(new.sum()), fates.code(ABSENT), np.int16)
    changes = np.concatenate(
        [
            np.stack([a.stylized, a.fate, to])[:, a.fate != to],
            np.stack([b.stylized[new], absent, b.fate[new]]),
        ],
        axis=1,
    )
    unique, counts = np.unique(changes, axis=1, return_counts=True)
    rows = [
        {
            "kind": "stylized" if kind else "raw",
            "pairs": count,
            "a": fates.words[old],
            "b": fates.words[now],
        }
        for (kind, old, now), count in zip(unique.T.tolist(), counts.tolist(), strict=True)
    ]
    return sorted(rows, key=lambda row: (-row["pairs"], row["kind"], row["a"], row["b"]))


def diff_scores(a: Path, b: Path, match: Places) -> list[Row]:
    """Mean and quantiles of each score that both have, over the common pairs that both scored."""
    there = match >= 0
    return [
        row
        for name in sorted(set(scorer_names(a)) & set(scorer_names(b)))
        if (row := diff_score(a, b, name, there, match)) is not None
    ]


def diff_score(a: Path, b: Path, name: str, there: Mask, match: Places) -> Row | None:
    """The same of one score; None for what is no number."""
    first, second = read_score(a, name), read_score(b, name)
    if first is None or second is None:
        return None
    first, second = first[there], second[match[there]]
    scored = np.isfinite(first) & np.isfinite(second)
    before, after = (
        np.round(part[scored].astype(np.float64), DECIMALS) for part in (first, second)
    )
    return {
        "score": name,
        "pairs": len(before),
        "changed": int((before != after).sum()),
        "mean_shift": rounded((after - before).mean()) if len(before) else None,
        "a": describe_values(before),
        "b": describe_values(after),
    }


def describe_values(values: NDArray[Any]) -> Row:
    """Mean and quantiles; None of nothing."""
    names = [f"q{round(100 * quantile):02d}" for quantile in QUANTILES]
    if not len(values):
        return dict.fromkeys(["mean", *names])
    quantiles = np.quantile(values, QUANTILES)
    return {"mean": rounded(values.mean())} | {
        name: rounded(value) for name, value in zip(names, quantiles, strict=True)
    }


def rounded(value: Any) -> float:
    return round(float(value), DECIMALS)


def scorer_names(corpus: Path) -> list[str]:
    """The scorers of which anything is committed."""
    stages = (stage.partition(".") for stage in Ledger(corpus).stages())
    return [
        name for family, _, name in stages if family == "score" and not name.endswith(EMBEDDINGS)
    ]


def diff_styles(a: Fates, b: Fates, styles: list[str]) -> list[Row]:
    """Styles that have another number of pairs in train and val; gained, lost, more or fewer."""
    counts = []
    for side in (a, b):
        trained = side.stylized & np.isin(side.fate, [1, 2])
        counts.append(np.bincount(side.style[trained], minlength=len(styles)).tolist())
    found = []
    for style, old, new in zip(styles, *counts, strict=True):
        if old != new:
            change = (
                "gained" if not old else "lost" if not new else "more" if new > old else "fewer"
            )
            found.append({"style": style, "a": old, "b": new, "change": change})
    return sorted(found, key=lambda row: str(row["style"]))
