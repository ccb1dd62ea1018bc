"""Training batches, determined by (seed, step) alone so that resume is exact on any number of ranks.

N rows of the set, B rows of a batch, C copies, h w code grid, P patches + 1, W their width, K style tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stylear.errors import UsageError, WeightsError
from stylear.model.layout import Batch
from stylear.model.packing import pack_batch
from stylear.model.style_model import StyleModel
from stylear.train.encode import EncodedShard, Size, encode_corpus
from stylear.train.encoded_files import CODES, FEATURES, RowArrays
from stylear.train.features import ComputedFeatures
from stylear.train.precision import decoder_autocast
from stylear.train.sampler import Sampler
from stylear.train.style_groups import StyleGroups

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Dropout:
    """Independent probabilities of training a row without style, without text, and without both."""

    both: float = 0.0
    style: float = 0.0
    text: float = 0.0


@dataclass(frozen=True)
class TrainingBatch:
    """The rows of one rank in the global batch of a step."""

    batch: Batch
    features: (
        Tensor | None
    )  # (B', P, W) of the rows that have style tokens; None if the model has none
    rows: Rows  # (B,) row numbers of the encoded set
    positions: Rows  # (B,) positions in the global batch
    styled_positions: Rows  # (B',) positions in the global batch of the rows that have style tokens
    repeated_pairs: int = 0  # examples of the global batch whose pair occurs earlier in it
    tokens_beyond_context: int = 0  # how far its longest sequence exceeds the context


class EncodedSet:
    """Encoded pairs, read from disk as needed, and the batch of each seed and step.

    Rows are ordered by grid, then by corpus, then as in the shards. Without `computed`, features are read
    from disk. `weights` are the shares of the corpora, as `Sampler` takes them.
    """

    def __init__(
        self,
        model: StyleModel,
        corpora: Sequence[Sequence[EncodedShard]],
        *,
        weights: Sequence[float] | None = None,
        computed: ComputedFeatures | None = None,
    ) -> None:
        import pyarrow as pa

        self.model = model
        numbered = [
            (part, number)
            for number, shards in enumerate(corpora)
            for shard in shards
            for part in shard.parts
        ]
        self.grids = sorted({part.grid for part, _ in numbered})
        sizes = np.zeros((len(self.grids), len(corpora)), np.int64)
        for part, number in numbered:
            sizes[self.grids.index(part.grid), number] += part.rows
        self.sampler = Sampler(sizes, weights)
        parts = [part for part, _ in sorted(numbered, key=lambda item: (item[0].grid, item[1]))]
        self._table = pa.concat_tables([part.read_table() for part in parts])
        self._codes = RowArrays([part.folder / CODES for part in parts], np.uint16)
        self.has_features = model.num_style_tokens > 0
        self._computed = computed
        self._features = None
        if self.has_features and computed is None:
            self._features = RowArrays([part.folder / FEATURES for part in parts], np.float16)

    def __len__(self) -> int:
        return len(self.sampler)

    def read_column(self, name: str, rows: Sequence[int] | Rows | None = None) -> list[Any]:
        """Values of `key`, `caption`, `kind` or `group` of some rows, or of all."""
        column = self._table[name]
        if rows is None:
            values: list[Any] = column.to_pylist()
            return values
        return [column[int(row)].as_py() for row in rows]

    @property
    def caption_bytes(self) -> Rows:
        """Bytes (N,) of each caption in UTF-8."""
        import pyarrow.compute as pc

        lengths: Rows = pc.binary_length(self._table["caption"]).to_numpy()
        return lengths

    def read_codes(self, rows: Sequence[int] | Rows, copies: Rows | None = None) -> Tensor:
        """Codes (B, h, w) of some rows, all of one grid; `copies` (B,) chooses augmented copies."""
        chosen = np.zeros(len(rows), np.int64) if copies is None else copies
        read = zip(self._codes.read(rows), chosen, strict=True)
        return torch.from_numpy(np.stack([codes[copy] for codes, copy in read]).astype(np.int64))

    def read_features(self, rows: Sequence[int] | Rows) -> Tensor:
        """Style features (B, P, W) of some rows, float32."""
        source = self._computed or self._features
        if source is None:
            raise WeightsError(f"{self.model.name}: expected a style encoder, found none")
        if len(rows) == 0:
            return torch.empty(0, *source.row_shape)
        if isinstance(source, RowArrays):
            return torch.from_numpy(np.stack(source.read(rows))).float()
        cells = np.searchsorted(self.sampler.starts.flatten(), rows, side="right") - 1
        corpora = (cells % self.sampler.sizes.shape[1]).tolist()
        keys = self.read_column("key", rows)
        return source.read(zip(corpora, keys, strict=True)).float()

    @property
    def copies(self) -> int:
        """Augmented copies of each image."""
        return self._codes.row_shape[0]

    @cached_property
    def styles(self) -> StyleGroups:
        """Rows by the style they show."""
        return StyleGroups.of(self._table["group"])

    @cached_property
    def groups(self) -> dict[str, Rows]:
        """Row numbers by group; images of a group share a style."""
        members = np.split(self.styles.members, self.styles.ends[:-1])
        return dict(zip(self.styles.names, members, strict=True))

    def draw_rows(self, seed: int, step: int, batch_size: int) -> Rows:
        """The rows (B,) of the global batch of a step (counted from 0); each epoch is shuffled anew."""
        return self.sampler.draw(seed, step, batch_size)

    def split_rows(self, batch_size: int) -> Iterator[Rows]:
        """Every row once, in order, in batches of one grid; the last batch of a grid may be smaller."""
        start = 0
        for size in self.sampler.sizes.sum(1).tolist():
            for first in range(start, start + size, batch_size):
                yield np.arange(first, min(first + batch_size, start + size))
            start += size

    def build_step_batch(
        self,
        seed: int,
        step: int,
        batch_size: int,
        *,
        dropout: Dropout | float = 0.0,
        style_from: str = "self",
        rank: int = 0,
        world_size: int = 1,
    ) -> TrainingBatch:
        """One rank's rows in the batch of a step (counted from 0).

        `batch_size` is that of all ranks. The batches of ranks 0, 1, ... put together are the batch of
        a single process, whatever the number of ranks. A number as `dropout` drops style and text together.
        """
        rows = self.draw_rows(seed, step, batch_size)
        rng = np.random.default_rng([seed, 1 + step])
        return self.build_batch(
            rows, rng, dropout=dropout, style_from=style_from, rank=rank, world_size=world_size
        )

    def build_batch(
        self,
        rows: Rows,
        rng: np.random.Generator | None = None,
        *,
        dropout: Dropout | float = 0.0,
        style_from: str = "self",
        rank: int = 0,
        world_size: int = 1,
    ) -> TrainingBatch:
        """One rank's part of the batch of these rows, all of one grid."""
        rng = np.random.default_rng(0) if rng is None else rng
        rates = dropout if isinstance(dropout, Dropout) else Dropout(both=dropout)
        # drawn for the global batch, so that ranks agree
        copies = rng.integers(self.copies, size=len(rows))
        both_draw, style, text = rng.random((3, len(rows)))
        is_unstyled = (both_draw < rates.both) | (style < rates.style) | (not self.has_features)
        is_untexted = (both_draw < rates.both) | (text < rates.text)
        siblings = self.styles.draw_siblings(rows, rng) if style_from == "sibling" else rows
        own = np.arange(len(rows))[find_rank_slice(len(rows), rank, world_size)]
        styled = own[~is_unstyled[own]]
        captions = self.read_column("caption", rows[own])
        prompts = [
            build_prompt(self.model, caption, has_style=not unstyled, has_text=not untexted)
            for caption, unstyled, untexted in zip(
                captions, is_unstyled[own], is_untexted[own], strict=True
            )
        ]
        batch = pack_batch(self.model.layout, prompts, self.read_codes(rows[own], copies[own]))
        context = self.model.decoder.config.max_position_embeddings
        return TrainingBatch(
            batch,
            self.read_features(siblings[styled]) if self.has_features else None,
            rows=rows[own],
            positions=own,
            styled_positions=styled,
            repeated_pairs=len(rows) - len(np.unique(rows)),
            tokens_beyond_context=max(0, batch.ids.shape[1] - context),
        )


def find_rank_slice(batch_size: int, rank: int, world_size: int) -> slice:
    """The positions of a rank in the global batch: consecutive, in the order of ranks.

    Raises UsageError if a rank would have none.
    """
    if batch_size < world_size:
        raise UsageError(
            f"batch_size: expected at least one example for each of {world_size} processes, found"
            f" {batch_size}",
            hint="raise --batch-size, which counts the examples of all processes, or start fewer",
        )
    return slice(rank * batch_size // world_size, (rank + 1) * batch_size // world_size)


def build_prompt(
    model: StyleModel, caption: str, *, has_style: bool = True, has_text: bool = True
) -> list[int]:
    """Token ids of a prompt; without style the caption's template, without both the null prompt."""
    if has_style and model.num_style_tokens:
        return model.encode_prompt(caption if has_text else "")
    prompt = model.encode_prompt(caption, style=False)
    return prompt if has_text else model.layout.null_prompt(prompt)


def open_encoded(
    model: StyleModel,
    corpora: Sequence[Path],
    split: str,
    cache: Path,
    *,
    copies: int = 1,
    features: Literal["cache", "compute"] = "cache",
    buckets: Sequence[Size] = (),
    weights: Sequence[float] | None = None,
) -> EncodedSet:
    """The encoded pairs of a split of several corpora, encoding what is not in `cache`.

    `features` says whether features are kept on disk or computed when they are asked for; `buckets` are sizes
    (height, width) in pixels, and `weights` the shares of the corpora. Raises as `encode_corpus` does, and
    UsageError if there is not one weight for each corpus.
    """
    if weights is not None and len(weights) != len(corpora):
        raise UsageError(
            f"corpus_weights: expected one for each of {len(corpora)} corpora, found {len(weights)}"
        )
    is_styled = model.num_style_tokens > 0
    cached = is_styled and features == "cache"
    shards = [
        encode_corpus(model, corpus, split, cache, copies=copies, features=cached, buckets=buckets)
        for corpus in corpora
    ]
    computed = None
    if is_styled and not cached and model.clip is not None:
        computed = ComputedFeatures(model.clip, corpora, split)
    return EncodedSet(model, shards, weights=weights, computed=computed)


def forward_logits(model: StyleModel, batch: Batch, tokens: Tensor | None) -> Tensor:
    """Logits (N, V) at every code position of a batch, with style tokens (B', K, D) inserted."""
    from stylear.model.style_tokens import insert_style_tokens

    with decoder_autocast(model):
        embeds = model.decoder.embed(batch.ids)
        if tokens is not None and len(batch.style_rows):
            embeds = insert_style_tokens(embeds, tokens, batch.style_rows, batch.style_columns)
        hidden: Any = model.decoder(embeds)
        return model.decoder.image_logits(hidden[batch.code_rows, batch.code_columns - 1])


def make_step_generator(seed: int, step: int) -> torch.Generator:
    """The random generator for the noise of a step."""
    return torch.Generator().manual_seed((seed << 32) + step)
