"""`pipeline`: any pipeline that diffusers exports, called with the arguments in the recipe.

The class is one of diffusers' own, the model a local directory, and the call is data with placeholders:
no code from a recipe or a model is run.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import diffusers
from diffusers import DiffusionPipeline
from PIL import Image, ImageOps

from stylear.curate.recipe.synthesizers.pipeline_call import fill_placeholders, is_per_image
from stylear.curate.synthesize.diffusers.load import open_pipeline, silence_libraries
from stylear.curate.synthesize.diffusers.lru_cache import LruCache
from stylear.curate.synthesize.diffusers.prompt_cache import measure_prompt_length
from stylear.curate.synthesize.diffusers.synthesizer import (
    CACHED_IMAGES,
    DiffusionSynthesizer,
    DrawnImage,
    is_out_of_memory,
)
from stylear.curate.synthesize.job import Job
from stylear.errors import RecipeError
from stylear.pair import Scalar

TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")


class PipelineSynthesizer(DiffusionSynthesizer):
    """Draws each job, or each batch of jobs, with one call.

    Raises RecipeError for an impossible class or argument, WeightsError if the weights do not fit.
    """

    def open(self) -> tuple[Any, dict[str, str]]:
        settings = self.settings
        kind = find_pipeline_class(settings.pipeline)
        self.parameters = check_arguments(kind, settings.call)
        has_watermark = "add_watermarker" in inspect.signature(kind).parameters
        options = {"add_watermarker": False} if has_watermark else {}
        pipeline, sha256 = open_pipeline(kind, settings, self.dtype, **options)
        self._square_references = LruCache[Image.Image](CACHED_IMAGES)
        return pipeline, {"model_sha256": sha256}

    def job_metadata(self, job: Job) -> dict[str, Scalar]:
        """The largest token count of any text encoder, and the smallest limit that truncates the prompt."""
        prompt = fill_placeholders(
            self.settings.call.get("prompt", "{prompt}"), self._placeholders(job)
        )
        components = [getattr(self.pipeline, name, None) for name in TOKENIZERS]
        tokenizers = [
            (tokenizer, self._token_limit(tokenizer))
            for tokenizer in components
            if tokenizer is not None
        ]
        return measure_prompt_length(prompt, tokenizers if isinstance(prompt, str) else [])

    def draw(self, batch: Sequence[Job]) -> list[DrawnImage]:
        generators = self.generators(batch)
        if len(batch) == 1:
            call = fill_placeholders(self.settings.call, self._placeholders(batch[0]))
            return self._call_pipeline(1, generator=generators[0], **self._add_size(call))
        call = {
            name: [fill_placeholders(value, self._placeholders(job)) for job in batch]
            if is_per_image(value)
            else fill_placeholders(value, self._placeholders(batch[0]))
            for name, value in self.settings.call.items()
        }
        return self._call_pipeline(len(batch), generator=generators, **self._add_size(call))

    def _call_pipeline(self, count: int, **call: Any) -> list[DrawnImage]:
        """One call. Raises RecipeError if the pipeline refuses it or does not return the images."""
        settings = self.settings
        try:
            with silence_libraries():  # the metadata records truncated prompts
                drawn = self.run_pipeline(**call)
        except (TypeError, ValueError, AttributeError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise RecipeError(
                f"synthesize.settings.call: {settings.pipeline} refused it: {lines[0]}",
                hint=f"its arguments: {', '.join(self.parameters)}",
            ) from error
        if len(drawn) != count or drawn[0].pixels.ndim != 3:
            raise RecipeError(
                f"synthesize.settings.pipeline: {settings.pipeline}: expected {count} images,"
                f" found {len(drawn)} of shape {drawn[0].pixels.shape if drawn else ()}",
                hint="set batch_size to 1, and name a pipeline that draws one image per prompt",
            )
        return drawn

    def _add_size(self, call: dict[str, Any]) -> dict[str, Any]:
        """The call with height and width added if the pipeline takes them and the recipe has neither."""
        sides = dict.fromkeys(("height", "width"), self.settings.size)
        if not sides.keys() <= set(self.parameters) or sides.keys() & call.keys():
            return call
        return {**call, **sides}

    def _placeholders(self, job: Job) -> dict[str, Any]:
        """The values of the placeholders for one job."""
        return {
            "prompt": job.prompt,
            "style": self._references[job.reference].style,
            "reference": self._square_reference(job.reference),
            "size": self.settings.size,
            "seed": job.seed,
        }

    def _square_reference(self, reference: str) -> Image.Image:
        """The central square of a reference, resized to the size drawn."""

        def cut() -> Image.Image:
            side = (self.settings.size, self.settings.size)
            return ImageOps.fit(self.reference_image(reference), side, Image.Resampling.LANCZOS)

        return self._square_references.get_or_make(reference, cut)

    def _token_limit(self, tokenizer: Any) -> int:
        """The number of tokens at which a tokenizer truncates: CLIP's own, else `max_sequence_length`."""
        limit: int = tokenizer.model_max_length
        if "CLIP" in type(tokenizer).__name__ or "max_sequence_length" not in self.parameters:
            return limit
        name = "max_sequence_length"
        longest = self.settings.call.get(name, self.parameters[name])
        return min(limit, longest) if isinstance(longest, int) else limit


def find_pipeline_class(name: str) -> Any:
    """The diffusers class that a recipe names. Raises RecipeError if it cannot be used here."""
    kind: Any = getattr(diffusers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, DiffusionPipeline)):
        raise RecipeError(
            f"synthesize.settings.pipeline: {name} needs a library that is not installed",
            hint=f"run python -c 'from diffusers import {name}; {name}()' to see which",
        )
    if getattr(kind, "_load_connected_pipes", False):
        raise RecipeError(
            f"synthesize.settings.pipeline: {name} loads a second model that the first one names",
            hint="use a pipeline with a single model",
        )
    return kind


def check_arguments(kind: Any, call: dict[str, Any]) -> dict[str, Any]:
    """The arguments that a pipeline takes, with their defaults.

    Raises RecipeError if the call has an unknown argument, or if the pipeline takes no generator.
    """
    parameters = {
        name: parameter.default
        for name, parameter in list(inspect.signature(kind.__call__).parameters.items())[1:]
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    for name in call:
        if name not in parameters:
            raise RecipeError(
                f"synthesize.settings.call.{name}: {kind.__name__} has no such argument",
                hint=f"its arguments: {', '.join(parameters)}",
            )
    missing = {"generator", "output_type"} - parameters.keys()
    if missing:
        raise RecipeError(
            f"synthesize.settings.pipeline: {kind.__name__} takes no {', '.join(sorted(missing))},"
            " so it draws no images that a seed reproduces",
            hint="use a pipeline that draws images",
        )
    return parameters
