"""Synthesis: draw stylized candidates from a prompt, a style reference and sometimes a content image.

`plan.py` decides which candidates; `open_synthesizer` opens the backend that draws them (`backends/`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from stylear.curate.recipe.synthesizers import BACKENDS, parse_backend_settings
from stylear.curate.references import StyleReference
from stylear.curate.synthesize.job import Encoding, Job
from stylear.pair import Pair

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe

__all__ = ["Job", "Synthesizer", "dump_backend_settings", "open_synthesizer"]

PROMPT_BACKENDS = {  # backends that draw a prompt: module and class
    "instantstyle": "instantstyle:InstantStyle",
    "ip-adapter": "ip_adapter:IpAdapter",
    "style-aligned": "style_aligned:StyleAligned",
    "flux-redux": "flux_redux:FluxRedux",
    "pipeline": "pipeline:PipelineSynthesizer",
}


class Synthesizer(Protocol):
    """Draws the pairs of jobs; each worker opens one."""

    def __call__(self, jobs: Sequence[tuple[Job, bytes]]) -> list[Pair]:
        """One pair for each job, in order. The bytes are the parent's image, b"" if none is needed."""
        ...


def dump_backend_settings(recipe: Recipe) -> str:
    """Canonical JSON of the resolved settings that affect an image."""
    import json

    settings = parse_backend_settings(recipe.synthesize.backend, recipe.synthesize.settings)
    return json.dumps(settings.result_settings(), sort_keys=True, separators=(",", ":"))


def open_synthesizer(recipe: Recipe, references: Sequence[StyleReference]) -> Synthesizer:
    """Open the recipe's synthesiser and load its models. Raises RecipeError or WeightsError."""
    spec, image = recipe.synthesize, recipe.image
    settings = parse_backend_settings(spec.backend, spec.settings)
    encoding = Encoding(image.size, image.format, image.quality)
    by_id: Mapping[str, StyleReference] = {reference.id: reference for reference in references}
    if spec.backend in PROMPT_BACKENDS:
        module, name = PROMPT_BACKENDS[spec.backend].split(":")
        backend = getattr(import_module(f"stylear.curate.synthesize.backends.{module}"), name)
        synthesizer: Synthesizer = backend(settings, by_id, encoding)
        return synthesizer
    if spec.backend not in BACKENDS:
        from stylear.curate.synthesize.plugin import open_plugin

        return open_plugin(spec.backend, settings, by_id, encoding)
    from stylear.curate.synthesize.texture.synthesizer import TextureSynthesizer

    return TextureSynthesizer(spec.backend, settings, by_id, encoding)
