"""Filtering: rules compare numbers. Only columns are read, so a new threshold costs seconds.

Rules in order: what fetch and synthesize dropped stays dropped; the same stored bytes; thresholds; best of
n in each candidate group; perceptual duplicates, within raw and within each style reference (a stylized
image is a near copy of its parent by intent). The first verdict stands.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curate.candidates import Candidates, read_pairs
from curate.columns import NONE, Places, first_of, identities, joined, numbers, one, texts
from curate.near import neighbours
from curate.score import COLOUR, DECIMALS
from curate.shards import read_table, read_tables, write_table
from curate.stage import KINDS, VERDICTS, score_path
from stylear.errors import CorpusError

if TYPE_CHECKING:
    import pyarrow as pa

    from curate.recipe import Recipe, Threshold

STAGE = "filter"
PHASH = "phash"
COLOUR_DISTANCE = 16  # ours: levels; a red and a blue heart are no duplicates of each other


def filter_corpus(corpus: Path, recipe: Recipe) -> pa.Table:
    """Decide every pair of raw/ and stylized/ and write verdicts.parquet; its table.

    Raises CorpusError for tables and scores that do not have the same keys.
    """
    table = verdict_table(decide(read_candidates(corpus, recipe), recipe))
    write_table(corpus / VERDICTS, table)
    return table


def funnel(pairs: Candidates) -> list[dict[str, Any]]:
    """How many raw and stylized pairs are kept, and dropped for which reason, one row each."""
    reasons = np.where(pairs.kept, -1, pairs.reason.codes)
    found = []
    for code, verdict in [(-1, "kept"), *sorted(enumerate(pairs.reason.words), key=lambda w: w[1])]:
        here = reasons == code
        stylized = int((here & pairs.stylized).sum())
        counts = {"raw": int(here.sum()) - stylized, "stylized": stylized}
        if code < 0 or here.any():
            found.append({"verdict": verdict, **counts, "pairs": int(here.sum())})
    return found


def read_candidates(corpus: Path, recipe: Recipe) -> Candidates:
    """All pairs of a corpus with their scores, raw before stylized, in shard order."""
    import pyarrow as pa

    pairs = read_pairs(corpus)
    names = score_names(recipe)
    scores = joined(read_scores(corpus, names))
    pairs.scores = {name: scores.get(name, pa.array([], pa.float32())) for name in names}
    phash = next((s.name for s in recipe.score if s.type == "phash"), PHASH)
    for name, column in joined(read_hashes(corpus, phash)).items():
        setattr(pairs, name, column)
    rank(pairs, *ranking_scores(recipe))
    return pairs


def decide(pairs: Candidates, recipe: Recipe) -> Candidates:
    """The same pairs, every rule applied; none is lost or added."""
    rules = recipe.filter
    if rules.duplicates.exact:
        drop_exact(pairs)
    for threshold in rules.thresholds:
        apply_threshold(pairs, threshold)
    if rules.best_of is not None:
        keep_best(pairs, rules.best_of)
    if rules.duplicates.phash_distance is not None:
        drop_near(pairs, rules.duplicates.phash_distance)
    return pairs


def apply_threshold(pairs: Candidates, threshold: Threshold) -> None:
    """Drop what lies outside; NaN lies outside. A pair without the score (raw, for style) passes.

    A percentile is taken over the stylized pairs that are still kept, and drops stylized ones only:
    the lowest floor(n * percentile / 100), plus none that ties with the first one kept.
    """
    name = threshold.score
    scores, there = numbers_of(pairs.scores[name])
    there = there & pairs.kept
    low = -np.inf
    if threshold.percentile is not None:
        pool = scores[there & pairs.stylized & ~np.isnan(scores)]
        if len(pool):
            at = int(len(pool) * threshold.percentile / 100)
            low = np.partition(pool, at)[at]
    pairs.drop(there & np.isnan(scores), STAGE, f"{name}-not-a-number")
    if threshold.min is not None:
        pairs.drop(there & (scores < threshold.min), STAGE, f"{name}-below-min")
    if threshold.max is not None:
        pairs.drop(there & (scores > threshold.max), STAGE, f"{name}-above-max")
    pairs.drop(there & pairs.stylized & (scores < low), STAGE, f"{name}-below-percentile")


def keep_best(pairs: Candidates, best_of: int) -> None:
    """Keep the `best_of` highest of each group; ties go to the lower key, unranked ones last."""
    places = np.flatnonzero(pairs.kept & pairs.stylized & pairs.has("group"))
    order, starts = ranked(pairs, places)
    pairs.drop(order[np.arange(len(order)) - starts >= best_of], STAGE, "not-best")


def ranked(pairs: Candidates, places: Places) -> tuple[Places, Places]:
    """The places group by group, in each the best candidate first; and where its group starts.

    Groups come in the order of their first pair.
    """
    group = first_of(identities(pairs.group.take(places)))
    ranks = np.nan_to_num(pairs.rank[places], nan=-1.0)
    order = np.lexsort((texts(pairs.key.take(places)), -ranks, group))
    ordered = group[order]
    return places[order], np.searchsorted(ordered, ordered)


def rank(pairs: Candidates, text: str | None, style: str | None) -> None:
    """Rank the stylized pairs by the harmonic mean of both scores, or by the one that the recipe has."""
    found = [values_of(pairs.scores[name]) for name in (text, style) if name is not None]
    if found:
        pairs.rank = np.where(pairs.stylized, harmonic_mean(found[0], found[-1]), np.nan)


def harmonic_mean(text: NDArray[np.float64], style: NDArray[np.float64]) -> NDArray[np.float64]:
    """2ts / (t + s) of two scores, clamped at 0; NaN when one is missing or not a number."""
    text, style = np.maximum(0.0, text), np.maximum(0.0, style)
    total = text + style
    with np.errstate(invalid="ignore"):  # of infinite scores
        found: NDArray[np.float64] = np.divide(
            2 * text * style, total, out=np.zeros_like(total), where=total != 0
        )
    return found


def ranking_scores(recipe: Recipe) -> tuple[str | None, str | None]:
    """The scores that rank candidates: as asked, else the first clip-text and texture or clip-image."""

    def first(kind: str) -> str | None:
        return next((score.name for score in recipe.score if score.type == kind), None)

    text = recipe.filter.text_score or first("clip-text")
    style = recipe.filter.style_score or first("texture") or first("clip-image")
    return text, style


def pools(pairs: Candidates) -> NDArray[np.int64]:
    """A number for the pool in which duplicates of a pair are looked for: raw, or its style reference."""
    references = pairs.reference.fill_null("").dictionary_encode().indices
    numbers: NDArray[np.int64] = references.to_numpy().astype(np.int64)
    return 2 * numbers + pairs.stylized


def drop_exact(pairs: Candidates) -> None:
    """Drop pairs whose stored bytes came before; captions of one source image are no duplicates.

    So the first of a pool and its bytes stays, and of the raw pairs of its source the first of each
    content; every other pair repeats one of them.
    """
    places = np.flatnonzero(pairs.kept & (pairs.image != NONE))
    pool, image = pools(pairs)[places], numbers(pairs.image[places])
    source, content = pairs.source[places], identities(pairs.content.take(places))
    first = first_of(pool, image)
    caption = ~pairs.stylized[places] & (source == source[first])
    twin = np.where(caption, first_of(pool, image, content, caption), first)
    repeated = np.flatnonzero(twin != np.arange(len(places)))
    pairs.twin[places[repeated]] = places[twin[repeated]]
    pairs.drop(places[repeated], STAGE, "duplicate")


def drop_near(pairs: Candidates, distance: int) -> None:
    """Drop pairs whose hash is within `distance` bits of an earlier kept one of like colours."""
    places = np.flatnonzero(pairs.kept & pairs.hashed)
    pool = pools(pairs)[places]
    order = np.argsort(pool, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(pool[order])) + 1):
        if len(part) > 1:
            drop_near_in(pairs, places[part], distance)


def drop_near_in(pairs: Candidates, pool: Places, distance: int) -> None:
    """The same in one pool; captions of one source image are no duplicates."""
    source, content = pairs.source[pool], identities(pairs.content.take(pool))
    raw = not pairs.stylized[pool[0]]
    kept = np.ones(len(pool), bool)
    colours = pairs.colour[pool].astype(np.int16)
    for i, later in neighbours(pairs.phash[pool], distance, kept):
        like = np.abs(colours[later] - colours[i]).max(axis=1, initial=0) <= COLOUR_DISTANCE
        if raw:
            like &= (source[later] != source[i]) | (content[later] == content[i])
        near = later[like & kept[later]]
        kept[near] = False
        pairs.twin[pool[near]] = pool[i]
    pairs.drop(pool[~kept], STAGE, "near-duplicate")


def score_names(recipe: Recipe) -> list[str]:
    """The scorers that give numbers."""
    return [score.name for score in recipe.score if score.type != "phash"]


def numbers_of(column: pa.FloatArray) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores with the decimals that they were written with, and which pairs have one."""
    return values_of(column), column.is_valid().to_numpy(zero_copy_only=False)


def values_of(column: pa.FloatArray) -> NDArray[np.float64]:
    """The same without telling a missing score from NaN."""
    found: NDArray[np.float64] = column.to_numpy(zero_copy_only=False).astype(np.float64)
    return np.round(found, DECIMALS, out=found)


def read_scores(corpus: Path, names: list[str]) -> Any:
    """The score columns of each shard, in the order of the pairs."""
    for kind in KINDS:
        for path, table in read_tables(corpus / kind, ["key"]):
            yield {
                name: one(scored(score_path(corpus, name, kind, int(path.stem)), table, name)[name])
                for name in names
            }


def read_hashes(corpus: Path, name: str) -> Any:
    """The perceptual hashes and colours of each shard, as numbers."""
    for kind in KINDS:
        for path, table in read_tables(corpus / kind, ["key"]):
            found = scored(score_path(corpus, name, kind, int(path.stem)), table, name, COLOUR)
            hashes, colours = found[name].to_pylist(), found[COLOUR].to_pylist()
            yield {
                "phash": np.array([int(text or "0", 16) for text in hashes], np.uint64),
                "colour": np.array(
                    [list(bytes.fromhex(text or "00" * 12)) for text in colours], np.uint8
                ).reshape(-1, 12),
                "hashed": np.array(
                    [a is not None and b is not None for a, b in zip(hashes, colours, strict=True)],
                    bool,
                ),
            }


def scored(path: Path, pairs: pa.Table, *columns: str) -> pa.Table:
    """Score columns in the order of `pairs`. Raises CorpusError when they are of other pairs."""
    if not path.is_file():
        raise CorpusError(
            f"{path}: expected scores, found none",
            hint="run `stylear curate score` on this corpus first",
        )
    table = read_table(path, ["key", *columns])
    if not table["key"].equals(pairs["key"]):
        raise CorpusError(
            f"{path}: it scores other pairs than its shard has",
            hint="run again with --redo score",
        )
    return table


def verdict_table(pairs: Candidates) -> pa.Table:
    """One row a pair: key, kept, stage, reason, group, twin, rank and the scores."""
    import pyarrow as pa

    twins = pa.array(pairs.twin.astype(np.int32), mask=pairs.twin < 0)
    columns: dict[str, Any] = {
        "key": pairs.key,
        "kept": pa.array(pairs.kept),
        "stage": pairs.stage.array(),
        "reason": pairs.reason.array(),
        "group": pairs.group,
        "twin": pairs.key.take(twins),
        "rank": pa.array(pairs.rank.astype(np.float32), mask=np.isnan(pairs.rank)),
    }
    for name, column in pairs.scores.items():
        missing = column.is_null().to_numpy(zero_copy_only=False)
        columns[f"score.{name}"] = pa.array(values_of(column).astype(np.float32), mask=missing)
    return pa.table(columns)
