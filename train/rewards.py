"""Scores of a model's own pictures by frozen models: how well they fit the prompt and the style.

J jobs, S samples of a job, D size of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from PIL import Image
from torch import Tensor

from stylear.encoders.clip import ClipEncoder
from stylear.evaluation.metrics import harmonic_mean
from stylear.train.settings import ScoringSettings

DEFAULT_JUDGE, DEFAULT_STYLE_SCORE = "mini-clip", "clip-image"
STYLE_SCORES = ("csd", "texture", "clip-image")
AnyScoring = TypeVar("AnyScoring", bound=ScoringSettings)


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


def choose_scorers(settings: AnyScoring, corpora: Sequence[Path]) -> AnyScoring:
    """The settings with the scores of the first corpus, by its recipe.yaml, where they name none.

    The text score is the one that ranks candidates there; so is the style score, unless this module
    lacks it, in which case clip-image is used. clip-image is always computed by the judge.
    """
    scores, rules = _read_scores(corpora[0])
    changes: dict[str, Any] = {}
    if settings.judge is None:
        text = _choose_score(scores, rules.get("text_score"), ("clip-text",))
        changes["judge"] = _find_weights(text, corpora[0]) or DEFAULT_JUDGE
    if settings.style_score is None:
        style = _choose_score(scores, rules.get("style_score"), STYLE_SCORES)
        changes["style_score"] = style.get("type", DEFAULT_STYLE_SCORE)
        if changes["style_score"] == "csd":
            changes["csd"] = Path(_find_weights(style, corpora[0]))
    return settings.model_copy(update=changes)


def _read_scores(corpus: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The scores and the filter's rules of a corpus's recipe; empty without one."""
    path = corpus / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text("utf-8")) if path.is_file() else {}
    return list(recipe.get("score") or ()), dict(recipe.get("filter") or {})


def _choose_score(
    scores: Sequence[dict[str, Any]], name: str | None, types: Sequence[str]
) -> dict[str, Any]:
    """The named score, else the first of the first type that there is, as when candidates are ranked.

    Empty if there is none of these types.
    """
    fitting = [score for kind in types for score in scores if score.get("type") == kind]
    return next((score for score in fitting if name in (None, score.get("name"))), {})


def _find_weights(score: dict[str, Any], corpus: Path) -> str:
    """The model of a score: a name, or a path, which a corpus's recipe states relative to the corpus."""
    model = str(score.get("model") or "")
    path = corpus / model
    return str(path) if model and path.exists() else model


def open_scorers(settings: ScoringSettings, device: str) -> Scorers:
    """The scorers of the settings, else the defaults. Raises WeightsError if a model cannot be read."""
    csd = None
    if settings.csd is not None:
        from stylear.encoders.style import CsdEncoder

        csd = CsdEncoder.open(settings.csd, device=device)
    judge = ClipEncoder.open(settings.judge or DEFAULT_JUDGE, device=device)
    return Scorers(judge, settings.style_score or DEFAULT_STYLE_SCORE, csd)
