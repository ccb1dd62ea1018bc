"""Diversity: how different the kept pairs are from each other, raw, stylized and in each style.

The Vendi score (Friedman and Dieng 2023) is the number of entirely different images that would be as diverse:
exp of the entropy of the eigenvalues of K / n, where K holds the similarities of n images.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stylear.curate.corpus.columns import Indices
from stylear.curate.corpus.layout import DIVERSITY
from stylear.curate.corpus.storage import write_text
from stylear.curate.filter.rows import Numbers, Rows
from stylear.errors import CorpusError
from stylear.pair import digest

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe

SAMPLE = 1000  # images sampled from all raw or all stylized pairs (our choice)
STYLE_SAMPLE = 256  # images sampled from one style (our choice)
BITS, LEVELS = 8.0, 32.0  # a difference of either divides the similarity by e (our choice)
DECIMALS = 2
Matrix = NDArray[np.float64]


def count_kept(rows: Rows) -> dict[str, int]:
    """The numbers of kept pairs, distinct contents and distinct styles."""
    return count_pairs(rows, np.flatnonzero(rows.kept))


def count_pairs(rows: Rows, indices: Indices) -> dict[str, int]:
    """The numbers of pairs, distinct contents and distinct styles of these rows."""
    return {
        "pairs": len(indices),
        "contents": count_distinct(rows["content"][indices]),
        "styles": count_distinct(rows["style"][indices][rows.stylized[indices]]),
    }


def count_distinct(numbers: Numbers) -> int:
    """The number of distinct values of non-negative numbers."""
    return int(np.count_nonzero(np.bincount(numbers)))


def measure_all_diversity(rows: Rows, recipe: Recipe) -> list[dict[str, Any]]:
    """One row for all kept pairs, one for raw, one for stylized, and one per style.

    {kind, style, pairs, contents, styles, sample, distance, nearest, vendi}: `distance` is the mean
    number of bits to the nearest perceptual hash in the sample, `nearest` the mean of the recipe's
    `nearest` score of all these pairs, null without one. Pairs without a hash are not sampled.
    """
    kinds = {
        "all": np.flatnonzero(rows.kept),
        "raw": np.flatnonzero(rows.kept & ~rows.stylized),
        "stylized": np.flatnonzero(rows.kept & rows.stylized),
    }
    measured = [
        measure_diversity(rows, recipe, kind, None, chosen) for kind, chosen in kinds.items()
    ]
    stylized = kinds["stylized"]
    stylized = stylized[np.argsort(rows["style"][stylized], kind="stable")]
    edges = np.searchsorted(rows["style"][stylized], np.arange(len(rows.styles) + 1))
    for style, start, end in zip(rows.styles, edges, edges[1:], strict=False):
        if start < end:
            measured.append(measure_diversity(rows, recipe, "stylized", style, stylized[start:end]))
    return measured


def measure_diversity(
    rows: Rows, recipe: Recipe, kind: str, style: str | None, indices: Indices
) -> dict[str, Any]:
    """The diversity row of the pairs of these rows."""
    row: dict[str, Any] = {
        "kind": kind,
        "style": style,
        **count_pairs(rows, indices),
        "sample": 0,
        "distance": None,
        "nearest": average_nearest(rows, recipe, indices),
        "vendi": None,
    }
    if rows.phash is not None and rows.colour is not None and rows.hashed is not None:
        seed = digest("diversity", recipe.seed, kind, style)
        sample = draw_sample(indices[rows.hashed[indices]], STYLE_SAMPLE if style else SAMPLE, seed)
        bits, levels = compute_pairwise_distances(rows.phash[sample], rows.colour[sample])
        row["sample"] = len(sample)
        if len(sample):
            row["vendi"] = round_value(compute_vendi_score(np.exp(-bits / BITS - levels / LEVELS)))
        if len(sample) > 1:
            np.fill_diagonal(bits, np.inf)
            row["distance"] = round_value(bits.min(axis=1).mean())
    return row


def average_nearest(rows: Rows, recipe: Recipe, indices: Indices) -> float | None:
    """The mean of the recipe's `nearest` score; None without one."""
    if (name := find_nearest_score(recipe)) is None:
        return None
    values = rows.score(name)[0][indices]
    values = values[np.isfinite(values)]
    return round_value(values.mean()) if len(values) else None


def find_nearest_score(recipe: Recipe) -> str | None:
    """The name of the recipe's first `nearest` scorer."""
    return next((spec.name for spec in recipe.score if spec.type == "nearest"), None)


def round_value(value: Any) -> float:
    return round(float(value), DECIMALS)


def draw_sample(indices: Indices, size: int, seed: str) -> Indices:
    """Draw at most `size` of the row indices, in order; the same seed draws the same."""
    if len(indices) <= size:
        return indices
    draw = np.random.default_rng(int(seed, 16))
    return np.sort(draw.choice(indices, size, replace=False))


def compute_pairwise_distances(
    phash: NDArray[np.uint64], colour: NDArray[np.uint8]
) -> tuple[Matrix, Matrix]:
    """Between all images: the differing bits of their hashes, and the mean difference of their colours."""
    bits = np.bitwise_count(phash[:, None] ^ phash).astype(np.float64)
    levels = np.zeros_like(bits)
    for channel in colour.T.astype(np.float64):
        levels += np.abs(channel[:, None] - channel)
    return bits, levels / colour.shape[1]


def compute_vendi_score(similarity: Matrix) -> float:
    """The Vendi score of a matrix (N, N) of similarities: positive semidefinite, ones on its diagonal."""
    values = np.linalg.eigvalsh(similarity / len(similarity))
    values = values[values > 0]
    return float(np.exp(-(values * np.log(values)).sum()))


def write_diversity(corpus: Path, recipe: Recipe, rows: Rows) -> None:
    """Write diversity.json."""
    measured = measure_all_diversity(rows, recipe)
    write_text(corpus / DIVERSITY, json.dumps(measured, ensure_ascii=False, indent=1) + "\n")


def read_diversity(corpus: Path) -> list[dict[str, Any]]:
    """The rows of diversity.json; none if it is missing. Raises CorpusError if it is not JSON."""
    path = corpus / DIVERSITY
    try:
        measured: list[dict[str, Any]] = (
            json.loads(path.read_text("utf-8")) if path.is_file() else []
        )
    except ValueError as error:
        raise CorpusError(
            f"{path}: expected JSON, found: {error}", hint="run `stylear curate filter` again"
        ) from error
    return measured
