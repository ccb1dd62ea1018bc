"""Training batches, determined by (seed, step) alone so that resume is exact.

B examples, K style tokens, P patches + 1, W their width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stylear.model.layout import Batch, Example, collate
from stylear.model.style_model import StyleModel
from stylear.train.encode import encode_corpus, read_encoded


@dataclass(frozen=True)
class TrainingBatch:
    """One batch: token ids, codes, and the style features of its styled rows."""

    batch: Batch
    features: Tensor | None  # (B', P, W) of the rows that have style tokens
    repeated_pairs: int = 0  # examples whose pair occurs earlier in the same batch
    tokens_beyond_context: int = 0  # how far its longest sequence exceeds the context


class EncodedSet:
    """Encoded pairs in memory, and the batch of each seed and step."""

    def __init__(self, paths: Sequence[Path], model: StyleModel) -> None:
        tensors, self.rows = read_encoded(paths)
        self.codes = tensors["codes"]  # (N, C, L)
        self.features = tensors.get("features")  # (N, P, W) float16
        self.model = model

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def groups(self) -> dict[str, npt.NDArray[np.int64]]:
        """Row indices by group; images of a group share a style."""
        members: dict[str, list[int]] = {}
        for number, row in enumerate(self.rows):
            members.setdefault(row["group"], []).append(number)
        return {group: np.array(numbers) for group, numbers in members.items()}

    def draw_rows(self, seed: int, start: int, count: int) -> list[int]:
        """The row indices of examples `start` to `start + count`; each epoch is shuffled anew."""
        picks: list[int] = []
        while count > 0:
            epoch, offset = divmod(start, len(self))
            shuffled = np.random.default_rng([seed, epoch]).permutation(len(self))
            picked = shuffled[offset : offset + count].tolist()
            picks += picked
            start, count = start + len(picked), count - len(picked)
        return picks

    def build_step_batch(
        self, seed: int, step: int, batch_size: int, *, dropout: float, style_from: str
    ) -> TrainingBatch:
        """The batch of a step (counted from 0)."""
        rng = np.random.default_rng([seed, 1 + step])
        picks = self.draw_rows(seed, step * batch_size, batch_size)
        copies = rng.integers(self.codes.shape[1], size=len(picks)).tolist()
        dropped = (rng.random(len(picks)) < dropout).tolist()
        return self.build_batch(picks, copies, dropped, style_from, rng)

    def build_batch(
        self,
        picks: Sequence[int],
        copies: Sequence[int],
        dropped: Sequence[bool],
        style_from: str,
        rng: np.random.Generator,
    ) -> TrainingBatch:
        """The batch of these rows and copies; dropped rows are unconditional."""
        height, width = self.model.grid
        styled: list[int] = []
        examples: list[Example] = []
        for pick, copy, drop in zip(picks, copies, dropped, strict=True):
            codes = self.codes[pick, copy].view(height, width)
            if drop:
                examples.append(self.model.layout.unconditional(codes))
                continue
            examples.append(build_example(self.model, self.rows[pick]["caption"], codes))
            if self.features is not None:
                styled.append(self.draw_sibling(pick, rng) if style_from == "sibling" else pick)
        features = None
        if self.features is not None:
            features = self.features[styled].float()
        longest = max(len(example.ids) for example in examples)
        return TrainingBatch(
            collate(examples, self.model.layout.pad),
            features,
            repeated_pairs=len(picks) - len(set(picks)),
            tokens_beyond_context=max(
                0, longest - self.model.decoder.config.max_position_embeddings
            ),
        )

    def draw_sibling(self, pick: int, rng: np.random.Generator) -> int:
        """A random other row of the same style; the row itself if it is the only one."""
        group = self.groups[self.rows[pick]["group"]]
        if len(group) == 1:
            return pick
        other = int(group[int(rng.integers(len(group) - 1))])
        return int(group[-1]) if other == pick else other


def build_example(model: StyleModel, caption: str, codes: Tensor) -> Example:
    """The training sequence of a caption and codes (h, w), in the model's template."""
    if model.num_style_tokens:
        template = model.settings.prompt_template
        return model.layout.example(caption, codes, model.num_style_tokens, template)
    return model.layout.example(caption, codes, 0, model.settings.caption_template)


def open_encoded(
    model: StyleModel, corpora: Sequence[Path], split: str, cache: Path, *, copies: int
) -> EncodedSet:
    """The encoded pairs of a split of several corpora, encoding what is not cached."""
    paths = [
        path
        for corpus in corpora
        for path in encode_corpus(
            model, corpus, split, cache, copies=copies, features=model.num_style_tokens > 0
        )
    ]
    return EncodedSet(paths, model)


def forward_logits(model: StyleModel, batch: Batch, tokens: Tensor | None) -> Tensor:
    """Logits (N, V) at every code position of a batch, with style tokens (B', K, D) inserted."""
    from stylear.model.style_tokens import insert_style_tokens

    embeds = model.decoder.embed(batch.ids)
    if tokens is not None and len(batch.style_rows):
        embeds = insert_style_tokens(embeds, tokens, batch.style_rows, batch.style_columns)
    hidden: Any = model.decoder(embeds)
    return model.decoder.image_logits(hidden[batch.code_rows, batch.code_columns - 1])


def make_step_generator(seed: int, step: int) -> torch.Generator:
    """The random generator for the noise of a step."""
    return torch.Generator().manual_seed((seed << 32) + step)
