"""Synthesis: a prompt, a style reference and often a content image become stylized candidates.

`plan.py` decides which; `open_synthesizer` gives what makes them. One file a backend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from stylear.curate.recipe.synthesizers import backend_settings
from stylear.curate.references import StyleReference
from stylear.curate.synthesize.job import Encoding, Job
from stylear.pair import Pair

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe

__all__ = ["Job", "Synthesizer", "open_synthesizer", "settings_of"]

DRAWING = {  # the synthesisers that draw a prompt: module and class
    "instantstyle": "instantstyle:InstantStyle",
    "ip-adapter": "ip_adapter:IpAdapter",
    "style-aligned": "style_aligned:StyleAligned",
    "flux-redux": "flux_redux:FluxRedux",
    "pipeline": "pipeline:AnyPipeline",
}


class Synthesizer(Protocol):
    """Makes the pairs of jobs; loaded once per worker."""

    def __call__(self, jobs: Sequence[tuple[Job, bytes]]) -> list[Pair]:
        """One pair a job, in order. The bytes are the parent's image (b"" where none is needed)."""
        ...


def settings_of(recipe: Recipe) -> str:
    """Canonical JSON of the backend's resolved settings that decide an image."""
    import json

    settings = backend_settings(recipe.synthesize.backend, recipe.synthesize.settings)
    return json.dumps(settings.deciding(), sort_keys=True, separators=(",", ":"))


def open_synthesizer(recipe: Recipe, references: Sequence[StyleReference]) -> Synthesizer:
    """The recipe's synthesiser, its models loaded. Raises RecipeError or WeightsError."""
    spec, image = recipe.synthesize, recipe.image
    settings = backend_settings(spec.backend, spec.settings)
    encoding = Encoding(image.size, image.format, image.quality)
    by_id: Mapping[str, StyleReference] = {reference.id: reference for reference in references}
    if spec.backend in DRAWING:
        module, name = DRAWING[spec.backend].split(":")
        opener = getattr(import_module(f"stylear.curate.synthesize.backends.{module}"), name)
        opened: Synthesizer = opener(settings, by_id, encoding)
        return opened
    from stylear.curate.synthesize.texture.synthesizer import PictureSynthesizer

    return PictureSynthesizer(spec.backend, settings, by_id, encoding)
