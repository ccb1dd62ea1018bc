"""Filtering: rules compare numbers. Only columns are read, so a new threshold costs seconds.

Rules in order: what fetch and synthesize dropped stays dropped; the same stored bytes; thresholds; best of
n in each candidate group; perceptual duplicates, within raw and within each style reference (a stylized
image is a near copy of its parent by intent). The first verdict stands.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curate.score import COLOUR, DECIMALS
from curate.shards import read_table, write_table
from curate.stage import KINDS, VERDICTS, score_path
from stylear.errors import CorpusError

if TYPE_CHECKING:
    import pyarrow as pa

    from curate.recipe import Recipe, Threshold

STAGE = "filter"
PHASH = "phash"
COLOUR_DISTANCE = 16  # ours: levels; a red and a blue heart are no duplicates of each other
COLUMNS = (
    "key", "kind", "source", "content", "parent", "reference", "details", "image_sha256",
    "source_sha256", "kept", "stage", "reason",
)  # fmt: skip


@dataclass(slots=True)
class Candidate:
    """What the rules know of a pair: its row, its scores, and the verdict so far."""

    key: str
    kind: str
    source: str
    content: str
    parent: str | None
    reference: str | None
    group: str | None  # candidates of one prompt, content and reference
    image_sha256: str | None
    source_sha256: str | None
    kept: bool
    stage: str | None
    reason: str | None
    scores: dict[str, float | None] = field(default_factory=dict)
    phash: str | None = None
    colour: str | None = None
    twin: str | None = None  # key of the pair that a duplicate repeats
    rank: float | None = None  # see rank_of

    def drop(self, reason: str) -> None:
        """Drop with this stage's verdict, unless one stands already."""
        if self.kept:
            self.kept, self.stage, self.reason = False, STAGE, reason


def filter_corpus(corpus: Path, recipe: Recipe) -> pa.Table:
    """Decide every pair of raw/ and stylized/ and write verdicts.parquet; its table.

    Raises CorpusError for tables and scores that do not have the same keys.
    """
    found = decide(read_candidates(corpus, recipe), recipe)
    table = verdict_table(found, score_names(recipe))
    write_table(corpus / VERDICTS, table)
    return table


def read_candidates(corpus: Path, recipe: Recipe) -> list[Candidate]:
    """All pairs of a corpus with their scores, raw before stylized, in shard order."""
    found: list[Candidate] = []
    phash = next((s.name for s in recipe.score if s.type == "phash"), PHASH)
    for kind in KINDS:
        for path in sorted((corpus / kind).glob("*.parquet")):
            rows = read_table(path, list(COLUMNS)).to_pylist()
            here = [_candidate(row) for row in rows]
            index = int(path.stem)
            for name in score_names(recipe):
                for one, value in zip(
                    here, _scores(score_path(corpus, name, kind, index), name, here), strict=True
                ):
                    one.scores[name] = None if value is None else round(value, DECIMALS)
            hashes = score_path(corpus, phash, kind, index)
            for one, value in zip(here, _scores(hashes, phash, here), strict=True):
                one.phash = value
            for one, value in zip(here, _scores(hashes, COLOUR, here), strict=True):
                one.colour = value
            found += here
    keys = {one.key for one in found}
    if len(keys) != len(found):
        raise CorpusError(f"{corpus}: {len(found) - len(keys)} keys come twice in raw and stylized")
    text, style = ranking_scores(recipe)
    for one in found:
        if one.kind == "stylized":
            one.rank = rank_of(one.scores, text, style)
    return found


def decide(pairs: list[Candidate], recipe: Recipe) -> list[Candidate]:
    """The same pairs, every rule applied; none is lost or added."""
    rules = recipe.filter
    if rules.duplicates.exact:
        for pool in pools(pairs):
            drop_exact(pool)
    for threshold in rules.thresholds:
        apply_threshold(pairs, threshold)
    if rules.best_of is not None:
        keep_best(pairs, rules.best_of)
    if rules.duplicates.phash_distance is not None:
        for pool in pools(pairs):
            drop_near(pool, rules.duplicates.phash_distance)
    return pairs


def apply_threshold(pairs: Iterable[Candidate], threshold: Threshold) -> None:
    """Drop what lies outside; NaN lies outside. A pair without the score (raw, for style) passes.

    A percentile is taken over the stylized pairs that are still kept, and drops stylized ones only:
    the lowest floor(n * percentile / 100), plus none that ties with the first one kept.
    """
    name, low = threshold.score, -math.inf
    with_score = [(p, s) for p in pairs if p.kept and (s := p.scores[name]) is not None]
    if threshold.percentile is not None:
        values = sorted(s for p, s in with_score if p.kind == "stylized" and not math.isnan(s))
        if values:
            low = values[int(len(values) * threshold.percentile / 100)]
    for pair, score in with_score:
        if math.isnan(score):
            pair.drop(f"{name}-not-a-number")
        elif threshold.min is not None and score < threshold.min:
            pair.drop(f"{name}-below-min")
        elif threshold.max is not None and score > threshold.max:
            pair.drop(f"{name}-above-max")
        elif pair.kind == "stylized" and score < low:
            pair.drop(f"{name}-below-percentile")


def keep_best(pairs: Iterable[Candidate], best_of: int) -> None:
    """Keep the `best_of` highest of each group; ties go to the lower key, unranked ones last."""
    groups: dict[str, list[Candidate]] = {}
    for pair in pairs:
        if pair.kept and pair.kind == "stylized" and pair.group is not None:
            groups.setdefault(pair.group, []).append(pair)
    for group in groups.values():
        for pair in sorted(group, key=ranked)[best_of:]:
            pair.drop("not-best")


def ranked(pair: Candidate) -> tuple[float, str]:
    """Sorts the best candidate first."""
    rank = -1.0 if pair.rank is None or math.isnan(pair.rank) else pair.rank
    return -rank, pair.key


def harmonic_mean(text: float | None, style: float | None) -> float | None:
    """2ts / (t + s) of two scores, clamped at 0; None when one is missing or not a number."""
    if text is None or style is None or math.isnan(text) or math.isnan(style):
        return None
    text, style = max(0.0, text), max(0.0, style)
    return 2 * text * style / (text + style) if text + style > 0 else 0.0


def rank_of(
    scores: Mapping[str, float | None], text: str | None, style: str | None
) -> float | None:
    """What orders candidates: the harmonic mean of both scores, or the one that the recipe has."""
    values = [scores[name] for name in (text, style) if name is not None]
    return harmonic_mean(values[0], values[-1]) if values else None


def ranking_scores(recipe: Recipe) -> tuple[str | None, str | None]:
    """The scores that rank candidates: as asked, else the first clip-text and texture or clip-style."""

    def first(kind: str) -> str | None:
        return next((score.name for score in recipe.score if score.type == kind), None)

    text = recipe.filter.text_score or first("clip-text")
    style = recipe.filter.style_score or first("texture") or first("clip-style")
    return text, style


def pools(pairs: Iterable[Candidate]) -> Iterator[list[Candidate]]:
    """The pairs among which duplicates are looked for: raw, then each style reference."""
    found: dict[tuple[str, str], list[Candidate]] = {}
    for pair in pairs:
        found.setdefault((pair.kind, pair.reference or ""), []).append(pair)
    yield from found.values()


def drop_exact(pool: Iterable[Candidate]) -> None:
    """Drop pairs whose stored bytes came before; captions of one source image are no duplicates."""
    stay: dict[str, list[Candidate]] = {}  # several where they are captions of one image
    for pair in pool:
        if not pair.kept or pair.image_sha256 is None:
            continue
        same = stay.setdefault(pair.image_sha256, [])
        twin = next((one for one in same if not _captions_of_one(one, pair)), None)
        if twin is None:
            same.append(pair)
        else:
            pair.twin = twin.key
            pair.drop("duplicate")


def drop_near(pool: Iterable[Candidate], distance: int) -> None:
    """Drop pairs whose hash is within `distance` bits of an earlier kept one of like colours."""
    kept = [p for p in pool if p.kept and p.phash is not None and p.colour is not None]
    if len(kept) < 2:
        return
    hashes = np.array([int(p.phash or "", 16) for p in kept], dtype=np.uint64)
    colours = np.array([list(bytes.fromhex(p.colour or "")) for p in kept], dtype=np.int16)
    for i, pair in enumerate(kept):
        if not pair.kept:
            continue
        for j in near(hashes, colours, i, distance):
            if kept[j].kept and not _captions_of_one(pair, kept[j]):
                kept[j].twin = pair.key
                kept[j].drop("near-duplicate")


def near(
    hashes: NDArray[np.uint64], colours: NDArray[np.int16], i: int, distance: int
) -> list[int]:
    """Places after `i` whose hash and colours are near those of `i`."""
    bits = np.bitwise_count(hashes[i + 1 :] ^ hashes[i])
    places = np.flatnonzero(bits <= distance) + i + 1
    apart = np.abs(colours[places] - colours[i]).max(axis=1, initial=0)
    return [int(j) for j in places[apart <= COLOUR_DISTANCE]]


def score_names(recipe: Recipe) -> list[str]:
    """The scorers that give numbers."""
    return [score.name for score in recipe.score if score.type != "phash"]


def verdict_table(pairs: Iterable[Candidate], names: Iterable[str]) -> pa.Table:
    """One row a pair: key, kept, stage, reason, group, twin, rank and the scores."""
    import pyarrow as pa

    pairs = list(pairs)
    columns: dict[str, Any] = {
        name: pa.array([getattr(p, name) for p in pairs], kind)
        for name, kind in (
            ("key", pa.string()),
            ("kept", pa.bool_()),
            ("stage", pa.string()),
            ("reason", pa.string()),
            ("group", pa.string()),
            ("twin", pa.string()),
            ("rank", pa.float32()),
        )
    }
    for name in names:
        columns[f"score.{name}"] = pa.array([p.scores[name] for p in pairs], pa.float32())
    return pa.table(columns)


def _candidate(row: Mapping[str, Any]) -> Candidate:
    details = json.loads(row["details"])
    values = {name: row[name] for name in COLUMNS if name != "details"}
    return Candidate(**values, group=details.get("group") if row["kind"] == "stylized" else None)


def _scores(path: Path, column: str, pairs: list[Candidate]) -> list[Any]:
    """A score column in the order of `pairs`. Raises CorpusError when it is of other pairs."""
    if not path.is_file():
        raise CorpusError(
            f"{path}: expected scores, found none",
            hint="run `stylear curate score` on this corpus first",
        )
    table = read_table(path, ["key", column])
    if table["key"].to_pylist() != [pair.key for pair in pairs]:
        raise CorpusError(
            f"{path}: it scores other pairs than its shard has",
            hint="run again with --redo score",
        )
    values: list[Any] = table[column].to_pylist()
    return values


def _captions_of_one(a: Candidate, b: Candidate) -> bool:
    """Whether two pairs are captions of one source image, which the recipe asked for."""
    return a.kind == "raw" and a.source == b.source and a.content != b.content
