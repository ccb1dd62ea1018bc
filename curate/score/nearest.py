"""Nearest neighbours: how like the most similar other image of its kind an image is.

First every shard's CLIP embeddings are written as scores are (`EmbeddingScorer`). Once all are there, each
image is compared with the others of its pool (`nearest`): raw with raw, stylized within their style.

Axes: N images of one pool, D embedding size, K neighbours looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stylear.curate.corpus.columns import combine_chunks
from stylear.curate.score.clip import ClipScorer
from stylear.curate.score.scorer import Context, Measured

if TYPE_CHECKING:
    import pyarrow as pa

EMBEDDING = "embedding"  # the column, half precision: 2 bytes a number (ours)
COMPARED = "raw: other sources; stylized: the style's others, not candidates of the same job"
SPARE = 8  # looked at beyond what is needed, as nearly equal ones come in any order (ours)
BLOCK = 1024  # images looked up at a time
AT_ONCE = 1 << 24  # numbers of neighbours held in memory

Vectors = NDArray[np.float16]


class EmbeddingScorer(ClipScorer):
    """The image embedding itself, of length one; null where there is no image."""

    def __init__(self, spec: Any, context: Context) -> None:
        super().__init__(spec, context)
        self.size = self.embed_texts([""]).shape[-1]

    def told(self) -> dict[str, Any]:
        return super().told() | {"compared": COMPARED}

    def columns(self, shard: Measured) -> tuple[dict[str, pa.Array], dict[str, Any]]:
        import pyarrow as pa

        images, size = shard.of(self.images), self.size
        rows = np.zeros((len(shard.pairs), size), np.float16)
        for place, row in images.items():
            rows[place] = row.numpy()
        missing = pa.array([place not in images for place in range(len(rows))], pa.bool_())
        flat = pa.array(rows.ravel(), pa.float16())
        return {EMBEDDING: pa.FixedSizeListArray.from_arrays(flat, size, mask=missing)}, {}


def vectors_of(table: pa.Table) -> tuple[Vectors, NDArray[np.bool_]]:
    """The embeddings (M, D) of a table that has any, and which rows (N,) have one."""
    column = combine_chunks(table[EMBEDDING])
    there: NDArray[np.bool_] = column.is_valid().to_numpy(zero_copy_only=False)
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(-1, column.type.list_size), there


def nearest(
    vectors: Vectors, alike: NDArray[np.int64], advance: Callable[[int], None] = lambda n: None
) -> list[float | None]:
    """The cosine of each image with its nearest neighbour; None without one, NaN for a NaN embedding.

    `vectors` (N, D) of length one. Images of one number in `alike` (N,) are the same picture or
    alternatives to choose from, so they are no neighbours. The search is exact, and the cosines are
    computed again in double precision, so that threads and libraries move no decimal.
    """
    import faiss

    finite = np.isfinite(vectors).all(axis=1)
    values: list[float | None] = [None] * len(vectors)
    for place in np.flatnonzero(~finite).tolist():
        values[place] = np.nan
    advance(int((~finite).sum()))
    places: list[int] = np.flatnonzero(finite).tolist()
    held, group = vectors[finite].astype(np.float32), alike[finite]
    if not places:
        return values
    held /= np.linalg.norm(held, axis=1, keepdims=True)  # half precision left them a little off
    k = min(len(held), int(np.unique(group, return_counts=True)[1].max()) + SPARE)
    block = max(1, min(BLOCK, AT_ONCE // (k * held.shape[1])))
    for start in range(0, len(held), block):
        here = slice(start, start + block)
        _, found = faiss.knn(held[here], held, k, metric=faiss.METRIC_INNER_PRODUCT)
        cosines = np.einsum("nd,nkd->nk", held[here], held[found], dtype=np.float64)
        cosines[group[found] == group[here, None]] = -np.inf
        for place, best in zip(places[here], cosines.max(axis=1).tolist(), strict=True):
            values[place] = best if best > -np.inf else None
        advance(len(found))
    return values
