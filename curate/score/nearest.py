"""Nearest neighbours: the similarity of an image to the most similar other image of its kind.

First every shard's CLIP embeddings are written like scores (`EmbeddingScorer`). Then each image is compared
with the others of its pool (`find_nearest_cosines`): raw with raw, stylized within their style.

Axes: N images of one pool, D embedding size, K neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stylear.curate.corpus.columns import combine_chunks
from stylear.curate.score.clip import ClipScorer
from stylear.curate.score.scorer import Context, MeasuredShard

if TYPE_CHECKING:
    import pyarrow as pa

EMBEDDING = "embedding"  # the column, half precision: 2 bytes per number (our choice)
COMPARED = "raw: other sources; stylized: others of the style, except candidates of the same job"
EXTRA_NEIGHBOURS = (
    8  # searched in addition, because nearly equal ones come in any order (our choice)
)
BLOCK = 1024  # images searched at a time
MAX_NUMBERS = 1 << 24  # numbers of neighbours held in memory

Vectors = NDArray[np.float16]


class EmbeddingScorer(ClipScorer):
    """The image embedding itself, of length one; null without an image."""

    def __init__(self, spec: Any, context: Context) -> None:
        super().__init__(spec, context)
        self.size = self.embed_texts([""]).shape[-1]

    def metadata(self) -> dict[str, Any]:
        return super().metadata() | {"compared": COMPARED}

    def columns(self, shard: MeasuredShard) -> tuple[dict[str, pa.Array], dict[str, Any]]:
        import pyarrow as pa

        images, size = shard.rows(self.images), self.size
        rows = np.zeros((len(shard.pairs), size), np.float16)
        for index, row in images.items():
            rows[index] = row.numpy()
        missing = pa.array([index not in images for index in range(len(rows))], pa.bool_())
        flat = pa.array(rows.ravel(), pa.float16())
        return {EMBEDDING: pa.FixedSizeListArray.from_arrays(flat, size, mask=missing)}, {}


def read_embedding_table(table: pa.Table) -> tuple[Vectors, NDArray[np.bool_]]:
    """The embeddings (M, D) of a table, and a mask of the rows (N,) that have one."""
    column = combine_chunks(table[EMBEDDING])
    valid: NDArray[np.bool_] = column.is_valid().to_numpy(zero_copy_only=False)
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(-1, column.type.list_size), valid


def find_nearest_cosines(
    vectors: Vectors, alike: NDArray[np.int64], advance: Callable[[int], None] = lambda n: None
) -> list[float | None]:
    """The cosine of each image with its nearest neighbour; None without one, NaN for a NaN embedding.

    `vectors` (N, D) of length one. Images with the same number in `alike` (N,) are the same image or
    alternatives to choose from, so they are not neighbours. The search is exact, and the cosines are
    recomputed in double precision, so that threads and libraries change no decimal.
    """
    import faiss

    finite = np.isfinite(vectors).all(axis=1)
    values: list[float | None] = [None] * len(vectors)
    for index in np.flatnonzero(~finite).tolist():
        values[index] = np.nan
    advance(int((~finite).sum()))
    indices: list[int] = np.flatnonzero(finite).tolist()
    searched, group = vectors[finite].astype(np.float32), alike[finite]
    if not indices:
        return values
    # rounding to half precision changed the lengths slightly
    searched /= np.linalg.norm(searched, axis=1, keepdims=True)
    k = min(len(searched), int(np.unique(group, return_counts=True)[1].max()) + EXTRA_NEIGHBOURS)
    block = max(1, min(BLOCK, MAX_NUMBERS // (k * searched.shape[1])))
    for start in range(0, len(searched), block):
        part = slice(start, start + block)
        _, neighbours = faiss.knn(searched[part], searched, k, metric=faiss.METRIC_INNER_PRODUCT)
        cosines = np.einsum("nd,nkd->nk", searched[part], searched[neighbours], dtype=np.float64)
        cosines[group[neighbours] == group[part, None]] = -np.inf
        for index, best in zip(indices[part], cosines.max(axis=1).tolist(), strict=True):
            values[index] = best if best > -np.inf else None
        advance(len(neighbours))
    return values
