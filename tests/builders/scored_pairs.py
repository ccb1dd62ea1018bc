"""Pairs and references to score, and their scores by one pass and by hand."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from PIL import Image

from builders.device import ON_DEVICE
from builders.pictures_folder import encoded
from stylear.curate.corpus.layout import ShardKind
from stylear.curate.recipe import ClipImageScore, ClipTextScore, PhashScore, TextureScore
from stylear.curate.references import StyleReference
from stylear.curate.score import open_scorer
from stylear.curate.score.scorer import Context
from stylear.curate.score.sweep import ShardToScore, score_shards
from stylear.pair import Origin, Pair, content_id, digest

CAPTIONS = ["a red apple", "the blue boat in the house", "green tree", "zebra", ""]


def pair(caption: str, image: bytes, reference: str | None = None) -> Pair:
    kind: Any = "raw" if reference is None else "stylized"
    origin = Origin(kind, "test", content_id(caption), reference=reference)
    return Pair(digest(caption, len(image), reference), caption, image, origin)


def reference(name: str, image: bytes) -> StyleReference:
    return StyleReference(name, image, "0" * 64, Path(f"{name}.png"), False)


REFERENCES = [reference("warm", encoded(900, 48)), reference("cold", encoded(901, 20))]


RAW = [pair(caption, encoded(n, 24 + n)) for n, caption in enumerate(CAPTIONS)]


STYLIZED = [
    pair(caption, encoded(50 + n, 32), ("warm", "cold")[n % 2])
    for n, caption in enumerate(CAPTIONS)
]


FAILED = replace(pair("no image", b""), key="f" * 32).drop("fetch", "timeout")


def clip_text(model: Path | str, **changes: Any) -> ClipTextScore:
    return ClipTextScore(name="text", type="clip-text", model=str(model), **(ON_DEVICE | changes))


def clip_image(model: Path | str, **changes: Any) -> ClipImageScore:
    return ClipImageScore(name="look", type="clip-image", model=str(model), **(ON_DEVICE | changes))


TEXTURE = TextureScore(name="stroke", type="texture")


PHASH = PhashScore(type="phash")


def swept(
    specs: Sequence[Any], pairs: Sequence[Pair], context: Context | None = None
) -> dict[str, pa.Table]:
    """The tables of scorers that pass one shard together."""
    context = context or Context(REFERENCES)
    kind: ShardKind = pairs[0].origin.kind if pairs else "raw"
    shard = ShardToScore(kind, iter(pairs), [open_scorer(spec, context) for spec in specs])
    [tables] = score_shards([shard], context, lambda number, tables: tables)
    return tables


def scored(spec: Any, pairs: Sequence[Pair]) -> pa.Table:
    return swept([spec], pairs)[spec.name]


class ByHand:
    """open_clip as its documentation uses it."""

    def __init__(self, directory: Path) -> None:
        import open_clip

        name = f"local-dir:{directory}"
        self.model, _, self.preprocess = open_clip.create_model_and_transforms(name)
        self.model.eval()
        self.tokenizer = open_clip.get_tokenizer(name, local_files_only=True)

    @torch.no_grad()
    def image(self, data: bytes) -> torch.Tensor:
        pixels = self.preprocess(Image.open(io.BytesIO(data)).convert("RGB"))[None]
        embeds: torch.Tensor = self.model.encode_image(pixels, normalize=True)
        return embeds

    @torch.no_grad()
    def text(self, caption: str) -> torch.Tensor:
        embeds: torch.Tensor = self.model.encode_text(self.tokenizer([caption]), normalize=True)
        return embeds
