"""`pipeline`: any pipeline that diffusers exports, called as the recipe says.

The class is one of diffusers' own, the model a local directory, the call data with places to fill:
nothing that a recipe or a model holds is run.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import diffusers
from diffusers import DiffusionPipeline
from PIL import Image, ImageOps

from stylear.curate.recipe.synthesizers.pipeline_call import fill, varies
from stylear.curate.synthesize.diffusers.load import open_pipeline, quiet
from stylear.curate.synthesize.diffusers.lru_cache import Remembered
from stylear.curate.synthesize.diffusers.synthesizer import (
    PICTURES,
    Diffusion,
    Drawn,
    out_of_memory,
)
from stylear.curate.synthesize.job import Job
from stylear.errors import RecipeError
from stylear.pair import Scalar

TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")


class AnyPipeline(Diffusion):
    """Draws jobs with one call each, or one a batch.

    Raises RecipeError for a class or an argument that cannot be, WeightsError for its weights.
    """

    def open(self) -> tuple[Any, dict[str, str]]:
        settings = self.settings
        kind = pipeline_class(settings.pipeline)
        self.takes = arguments_of(kind, settings.call)
        marks = "add_watermarker" in inspect.signature(kind).parameters
        options = {"add_watermarker": False} if marks else {}
        pipeline, sha256 = open_pipeline(kind, settings, self.dtype, **options)
        self._squares = Remembered[Image.Image](PICTURES)
        return pipeline, {"model_sha256": sha256}

    def about(self, job: Job) -> dict[str, Scalar]:
        """Tokens of the prompt, most of any text encoder, and the least at which one cuts it off."""
        prompt = fill(self.settings.call.get("prompt", "{prompt}"), self._places(job))
        tokens, cuts = 0, list[int]()
        for tokenizer in (getattr(self.pipeline, name, None) for name in TOKENIZERS):
            if tokenizer is not None and isinstance(prompt, str):
                with quiet():
                    count = len(tokenizer(prompt).input_ids)
                limit = self._limit(tokenizer)
                tokens = max(tokens, count)
                if count > limit:
                    cuts.append(limit)
        return {"prompt_tokens": tokens, "prompt_truncated_at": min(cuts, default=None)}

    def draw(self, batch: Sequence[Job]) -> list[Drawn]:
        generators = self.generators(batch)
        if len(batch) == 1:
            call = fill(self.settings.call, self._places(batch[0]))
            return self._run(1, generator=generators[0], **self._sides(call))
        call = {
            name: [fill(value, self._places(job)) for job in batch]
            if varies(value)
            else fill(value, self._places(batch[0]))
            for name, value in self.settings.call.items()
        }
        return self._run(len(batch), generator=generators, **self._sides(call))

    def _run(self, count: int, **call: Any) -> list[Drawn]:
        """One call. Raises RecipeError for what the pipeline does not understand or give."""
        settings = self.settings
        try:
            with quiet():  # what is cut off stands in the lineage
                drawn = self.run(**call)
        except (TypeError, ValueError, AttributeError, RuntimeError) as error:
            if out_of_memory(error):
                raise
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise RecipeError(
                f"synthesize.settings.call: {settings.pipeline} refused it: {lines[0]}",
                hint=f"its arguments: {', '.join(self.takes)}",
            ) from error
        if len(drawn) != count or drawn[0].pixels.ndim != 3:
            raise RecipeError(
                f"synthesize.settings.pipeline: {settings.pipeline}: expected {count} images,"
                f" found {len(drawn)} of shape {drawn[0].pixels.shape if drawn else ()}",
                hint="set batch_size to 1, and name a pipeline that draws one image a prompt",
            )
        return drawn

    def _sides(self, call: dict[str, Any]) -> dict[str, Any]:
        """The call with height and width, where the pipeline takes them and the recipe has none."""
        sides = dict.fromkeys(("height", "width"), self.settings.size)
        if not sides.keys() <= set(self.takes) or sides.keys() & call.keys():
            return call
        return {**call, **sides}

    def _places(self, job: Job) -> dict[str, Any]:
        """What the places of the call stand for in one job."""
        return {
            "prompt": job.prompt,
            "style": self._references[job.reference].style,
            "reference": self._square(job.reference),
            "size": self.settings.size,
            "seed": job.seed,
        }

    def _square(self, reference: str) -> Image.Image:
        """A reference as the pipeline is given it: its middle, a square of the size drawn."""

        def cut() -> Image.Image:
            side = (self.settings.size, self.settings.size)
            return ImageOps.fit(self.picture(reference), side, Image.Resampling.LANCZOS)

        return self._squares.get(reference, cut)

    def _limit(self, tokenizer: Any) -> int:
        """At how many tokens a prompt is cut off: CLIP has a length, others are told one."""
        limit: int = tokenizer.model_max_length
        if "CLIP" in type(tokenizer).__name__ or "max_sequence_length" not in self.takes:
            return limit
        told = self.settings.call.get("max_sequence_length", self.takes["max_sequence_length"])
        return min(limit, told) if isinstance(told, int) else limit


def pipeline_class(name: str) -> Any:
    """The class of diffusers that a recipe names. Raises RecipeError where it cannot be used here."""
    kind: Any = getattr(diffusers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, DiffusionPipeline)):
        raise RecipeError(
            f"synthesize.settings.pipeline: {name} needs a library that is not installed",
            hint=f"run python -c 'from diffusers import {name}; {name}()' to see which",
        )
    if getattr(kind, "_load_connected_pipes", False):
        raise RecipeError(
            f"synthesize.settings.pipeline: {name} fetches a second model by the first one's words",
            hint="name the pipeline of one model",
        )
    return kind


def arguments_of(kind: Any, call: dict[str, Any]) -> dict[str, Any]:
    """The arguments that a pipeline takes, with their defaults.

    Raises RecipeError for one in the call that it does not, and for a pipeline without a seed.
    """
    takes = {
        name: parameter.default
        for name, parameter in list(inspect.signature(kind.__call__).parameters.items())[1:]
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    for name in call:
        if name not in takes:
            raise RecipeError(
                f"synthesize.settings.call.{name}: {kind.__name__} has no such argument",
                hint=f"its arguments: {', '.join(takes)}",
            )
    missing = {"generator", "output_type"} - takes.keys()
    if missing:
        raise RecipeError(
            f"synthesize.settings.pipeline: {kind.__name__} takes no {', '.join(sorted(missing))},"
            " so it draws no images that a seed repeats",
            hint="name a pipeline that draws images",
        )
    return takes
