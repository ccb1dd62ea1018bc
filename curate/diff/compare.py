"""Compare two corpora: recipes, counts, pairs, scores and styles. A pair takes some 90 bytes of memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from stylear.curate.audit.keys import KeyIndex
from stylear.curate.audit.manifest import stage_counts
from stylear.curate.corpus.columns import Indices, Mask
from stylear.curate.corpus.layout import MANIFEST, RECIPE
from stylear.curate.corpus.ledger import Ledger, flatten_settings
from stylear.curate.diff.outcomes import (
    ABSENT,
    TRAINED,
    Outcomes,
    Vocabulary,
    read_keys,
    read_outcomes,
    read_score,
)
from stylear.curate.explain.tables import EMBEDDINGS
from stylear.errors import RecipeError

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
DECIMALS = 5
Row = dict[str, Any]


@dataclass(slots=True, eq=False)
class CorpusDiff:
    """How corpus B differs from corpus A."""

    a: Path
    b: Path
    recipe: list[Row]  # keys with different values
    counts: list[Row]  # of each stage, where they differ
    common: int  # pairs that both have
    pairs: list[Row]  # how many pairs ended differently: from, to, kind
    scores: list[Row]  # over the common pairs that both scored
    styles: list[Row]  # pairs for training, where they differ
    unfinished: list[str]
    _sides: tuple[Outcomes, Outcomes]
    _match: tuple[Indices, Indices]  # index of each pair of A in B, and of B in A; -1: absent
    _outcomes: Vocabulary

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
        """For the terminal: the differences, one table per subject."""
        scores = []
        for row in self.scores:
            for side in ("a", "b") if row["changed"] else ():
                names = {"score": row["score"], "corpus": side.upper(), "pairs": row["pairs"]}
                scores.append(names | row[side])
        recipe = [{"recipe": row["key"], "a": row["a"], "b": row["b"]} for row in self.recipe]
        return [recipe, self.counts, self.pairs, scores, self.styles]

    def changed_pairs(self) -> Iterator[Row]:
        """Every pair with another outcome: those of A in their order, then those that only B has."""
        a, b = self._sides
        to = outcomes_in_other(b, self._match[0], self._outcomes)
        yield from self._listed(a, a.outcome != to, a.outcome, to)
        new = self._match[1] < 0
        absent = np.full(len(b), self._outcomes.encode(ABSENT), np.int16)
        yield from self._listed(b, new, absent, b.outcome)

    def _listed(self, side: Outcomes, mask: Mask, before: Any, after: Any) -> Iterator[Row]:
        words, indices = self._outcomes.words, np.flatnonzero(mask)
        for row, key in zip(indices.tolist(), read_keys(side.corpus, mask), strict=True):
            kind = "stylized" if side.stylized[row] else "raw"
            yield {"key": key, "kind": kind, "a": words[before[row]], "b": words[after[row]]}


def diff_corpora(a: Path, b: Path) -> CorpusDiff:
    """Compare two corpora. Raises CorpusError for one that is damaged or whose verdicts are stale."""
    outcomes, styles = Vocabulary(ABSENT, *TRAINED), Vocabulary("")
    sides = read_outcomes(a, outcomes, styles), read_outcomes(b, outcomes, styles)
    match = KeyIndex(sides[1].ids).find(sides[0].ids), KeyIndex(sides[0].ids).find(sides[1].ids)
    return CorpusDiff(
        a=a,
        b=b,
        recipe=diff_values(flat_recipe(a), flat_recipe(b)),
        counts=diff_counts(a, b),
        common=int((match[0] >= 0).sum()),
        pairs=diff_pairs(*sides, *match, outcomes),
        scores=diff_scores(a, b, match[0]),
        styles=diff_styles(*sides, styles.words),
        unfinished=[str(corpus) for corpus in (a, b) if not (corpus / MANIFEST).is_file()],
        _sides=sides,
        _match=match,
        _outcomes=outcomes,
    )


def flat_recipe(corpus: Path) -> dict[str, str]:
    """The recipe of a corpus as dotted keys; paths are not resolved."""
    path = corpus / RECIPE
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: expected a recipe, found: {error}") from error
    return flatten_settings(values)


def diff_values(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Row]:
    """Keys whose values differ; None for a missing one."""
    return [
        {"key": key, "a": a.get(key), "b": b.get(key)}
        for key in sorted({*a, *b})
        if a.get(key) != b.get(key)
    ]


def diff_counts(a: Path, b: Path) -> list[Row]:
    """Rows, kept and dropped pairs of each stage, where they differ."""
    differences = []
    stage_tables = stage_counts(Ledger(a)), stage_counts(Ledger(b))
    for stage in sorted({*stage_tables[0], *stage_tables[1]}):
        flat = []
        for counts in stage_tables:
            known = counts.get(stage, {})
            names = {name: known[name] for name in ("rows", "kept") if name in known}
            flat.append(names | known.get("dropped", {}))
        for row in diff_values(*flat):
            old, new = row["a"] or 0, row["b"] or 0
            differences.append(
                {"stage": stage, "count": row["key"], "a": old, "b": new, "change": new - old}
            )
    return differences


def outcomes_in_other(other: Outcomes, match: Indices, outcomes: Vocabulary) -> NDArray[np.int16]:
    """The outcome of each pair in the other corpus."""
    codes = np.full(len(match), outcomes.encode(ABSENT), np.int16)
    is_shared = match >= 0
    codes[is_shared] = other.outcome[match[is_shared]]
    return codes


def diff_pairs(
    a: Outcomes, b: Outcomes, in_b: Indices, in_a: Indices, outcomes: Vocabulary
) -> list[Row]:
    """The number of pairs of each kind by old and new outcome, most frequent first."""
    to, new = outcomes_in_other(b, in_b, outcomes), in_a < 0
    absent = np.full(int(new.sum()), outcomes.encode(ABSENT), np.int16)
    size, differs = len(outcomes.words), a.outcome != to
    codes = [
        (kind.astype(np.int32) * size + old) * size + now
        for kind, old, now in (
            (a.stylized[differs], a.outcome[differs], to[differs]),
            (b.stylized[new], absent, b.outcome[new]),
        )
    ]
    unique, counts = np.unique(np.concatenate(codes), return_counts=True)
    rows = []
    for code, count in zip(unique.tolist(), counts.tolist(), strict=True):
        (kind, old), now = divmod(code // size, size), code % size
        words = {"a": outcomes.words[old], "b": outcomes.words[now]}
        rows.append({"kind": "stylized" if kind else "raw", "pairs": count, **words})
    return sorted(rows, key=lambda row: (-row["pairs"], row["kind"], row["a"], row["b"]))


def diff_scores(a: Path, b: Path, match: Indices) -> list[Row]:
    """Mean and quantiles of each score that both have, over the common pairs that both scored."""
    is_shared = match >= 0
    return [
        row
        for name in sorted(set(scorer_names(a)) & set(scorer_names(b)))
        if (row := diff_score(a, b, name, is_shared, match)) is not None
    ]


def diff_score(a: Path, b: Path, name: str, is_shared: Mask, match: Indices) -> Row | None:
    """Mean and quantiles of one score in both corpora; None if it is not numeric."""
    first, second = read_score(a, name), read_score(b, name)
    if first is None or second is None:
        return None
    first, second = first[is_shared], second[match[is_shared]]
    scored = np.isfinite(first) & np.isfinite(second)
    before, after = (
        np.round(part[scored].astype(np.float64), DECIMALS) for part in (first, second)
    )
    return {
        "score": name,
        "pairs": len(before),
        "changed": int((before != after).sum()),
        "mean_shift": round_value((after - before).mean()) if len(before) else None,
        "a": describe_values(before),
        "b": describe_values(after),
    }


def describe_values(values: NDArray[Any]) -> Row:
    """Mean and quantiles; None without values."""
    names = [f"q{round(100 * quantile):02d}" for quantile in QUANTILES]
    if not len(values):
        return dict.fromkeys(["mean", *names])
    quantiles = np.quantile(values, QUANTILES)
    return {"mean": round_value(values.mean())} | {
        name: round_value(value) for name, value in zip(names, quantiles, strict=True)
    }


def round_value(value: Any) -> float:
    return round(float(value), DECIMALS)


def scorer_names(corpus: Path) -> list[str]:
    """The scorers with committed scores."""
    stages = (stage.partition(".") for stage in Ledger(corpus).stages())
    return [
        name for family, _, name in stages if family == "score" and not name.endswith(EMBEDDINGS)
    ]


def diff_styles(a: Outcomes, b: Outcomes, styles: list[str]) -> list[Row]:
    """Styles with different numbers of pairs in train and val: gained, lost, more or fewer."""
    counts = []
    for side in (a, b):
        trained = side.stylized & np.isin(side.outcome, [1, 2])
        counts.append(np.bincount(side.style[trained], minlength=len(styles)).tolist())
    differences = []
    for style, old, new in zip(styles, *counts, strict=True):
        if old != new:
            change = (
                "gained" if not old else "lost" if not new else "more" if new > old else "fewer"
            )
            differences.append({"style": style, "a": old, "b": new, "change": change})
    return sorted(differences, key=lambda row: str(row["style"]))
