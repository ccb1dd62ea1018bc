"""Find and open the scorer of a recipe's `score` entry by its type."""

from __future__ import annotations

from typing import Any

from stylear.curate.entry_points import SCORERS, describe_kinds, find_plugin, plugin_hint
from stylear.curate.recipe.scores import BUILT_IN
from stylear.curate.score.scorer import Context, Scorer
from stylear.errors import UsageError


def find_scorer_class(kind: str) -> type[Scorer]:
    """The scorer class of a type. Imports its module; loads no model."""
    if kind in ("clip-text", "clip-image"):
        from stylear.curate.score.clip import ClipImageScorer, ClipTextScorer

        return ClipTextScorer if kind == "clip-text" else ClipImageScorer
    if kind == "texture":
        from stylear.curate.score.texture import TextureScorer

        return TextureScorer
    if kind == "phash":
        from stylear.curate.score.phash import PhashScorer

        return PhashScorer
    if kind == "aesthetic":
        from stylear.curate.score.aesthetic import AestheticScorer

        return AestheticScorer
    if kind == "leakage":
        from stylear.curate.score.leakage import LeakageScorer

        return LeakageScorer
    if kind == "nearest":
        from stylear.curate.score.nearest import EmbeddingScorer

        return EmbeddingScorer
    if kind == "csd":
        from stylear.curate.score.csd import CsdScorer

        return CsdScorer
    if kind in ("dino", "cas"):
        from stylear.curate.score.dino import CasScorer, DinoScorer

        return DinoScorer if kind == "dino" else CasScorer
    plugin = find_plugin(SCORERS, kind)
    if plugin is None:
        raise UsageError(
            f"score: expected a scorer of type {describe_kinds(SCORERS, BUILT_IN)}, found {kind!r}",
            hint=plugin_hint(SCORERS),
        )
    if not issubclass(plugin.target, Scorer):
        raise plugin.error(
            f"expected a subclass of stylear.plugins.Scorer, found {plugin.target!r}"
        )
    scorer: type[Scorer] = plugin.target
    return scorer


def open_scorer(spec: Any, context: Context) -> Scorer:
    """Open the scorer of a `score` entry. Raises WeightsError if its model is missing."""
    return find_scorer_class(spec.type)(spec, context)


def compute_scorer_fingerprint(spec: Any) -> str:
    """A digest of what affects a scorer's numbers besides its settings: its code and its weights.

    Loads nothing. Raises WeightsError if the model is missing.
    """
    return find_scorer_class(spec.type).compute_fingerprint(spec)
