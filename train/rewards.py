"""Scores of a model's own pictures by frozen models: how well they fit the prompt and the style.

J jobs, S samples of a job, D size of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from stylear.encoders.clip import ClipEncoder
from stylear.evaluation.metrics import harmonic_mean
from stylear.train.settings import ScoringSettings


@dataclass(frozen=True)
class Scorers:
    """The text score of CLIP and one style score, combined by their harmonic mean."""

    clip: ClipEncoder
    style_score: str  # clip-image, csd or texture
    csd: Any = None  # CsdEncoder, for style_score csd

    def describe(self) -> list[dict[str, str]]:
        """Names of the scores, with the model of each and the SHA-256 of its weights."""
        text = {"score": "clip-text", "name": self.clip.name, "sha256": self.clip.weights_sha256}
        if self.style_score == "texture":
            from stylear.encoders.texture import PREPROCESSING

            return [text, {"score": "texture", "name": PREPROCESSING}]
        judge = self.clip if self.style_score == "clip-image" else self.csd
        style = {"score": self.style_score, "name": judge.name, "sha256": judge.weights_sha256}
        return [text, style]

    def score(
        self,
        pictures: Sequence[Image.Image],
        captions: Sequence[str],
        style_pictures: Sequence[Sequence[Image.Image]],
    ) -> Tensor:
        """Scores (J, S) of pictures (J S,), S consecutive ones for each caption.

        The style score of a picture is its mean similarity to the style pictures of its job, of which each
        job has at least one.
        """
        samples = len(pictures) // len(captions)
        drawn = self.clip.embed_images(self.clip.preprocess(pictures))
        texts = self.clip.embed_texts(list(captions)).repeat_interleave(samples, dim=0)
        text = (drawn * texts).sum(-1).cpu()
        embed = self._embed_clip if self.style_score == "clip-image" else self._embed_style
        own = drawn.cpu() if self.style_score == "clip-image" else embed(pictures)
        # a job's style pictures are often those of another job: each is embedded once
        unique = list({id(p): p for group in style_pictures for p in group}.values())
        index = {id(picture): row for row, picture in enumerate(unique)}
        shown = embed(unique)
        style = torch.stack(
            [
                self._compare(own[i], shown[[index[id(p)] for p in style_pictures[i // samples]]])
                for i in range(len(pictures))
            ]
        )
        return harmonic_mean(text, style).view(len(captions), samples)

    def _embed_clip(self, pictures: Sequence[Image.Image]) -> Tensor:
        return self.clip.embed_images(self.clip.preprocess(pictures)).cpu()

    def _embed_style(self, pictures: Sequence[Image.Image]) -> Tensor:
        if self.style_score == "csd":
            embedded: Tensor = self.csd.embed_images(self.csd.preprocess(pictures)).cpu()
            return embedded
        from stylear.encoders.texture import texture_descriptor

        return texture_descriptor(list(pictures))

    def _compare(self, own: Tensor, shown: Tensor) -> Tensor:
        """Mean similarity of an embedding (D,) to others (M, D)."""
        if self.style_score == "texture":
            from stylear.encoders.texture import texture_similarity

            return texture_similarity(own.expand_as(shown), shown).mean()
        return (shown @ own).mean()


def open_scorers(settings: ScoringSettings, device: str) -> Scorers:
    """The scorers that the settings name. Raises WeightsError if a model cannot be read."""
    csd = None
    if settings.csd is not None:
        from stylear.encoders.style import CsdEncoder

        csd = CsdEncoder.open(settings.csd, device=device)
    return Scorers(ClipEncoder.open(settings.judge, device=device), settings.style_score, csd)
