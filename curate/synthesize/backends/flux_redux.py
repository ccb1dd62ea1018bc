"""`flux-redux`: FLUX that reads a reference, through the Redux prior, as tokens beside the prompt's.

Redux (Black Forest Labs, 2024) projects SigLIP's tokens of a picture to where T5's tokens lie. All
of them make variations of the reference; averaged over a coarser grid they tell more of its style
than of what it shows.

Axes: B prompts, T tokens of text, N tokens of a reference, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from diffusers import FluxPipeline, FluxPriorReduxPipeline
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from stylear.curate.synthesize.diffusers.load import open_pipeline, quiet
from stylear.curate.synthesize.diffusers.lru_cache import Remembered
from stylear.curate.synthesize.diffusers.prompt_cache import Encoded, PromptCache
from stylear.curate.synthesize.diffusers.synthesizer import Diffusion, Drawn
from stylear.curate.synthesize.job import Job
from stylear.errors import WeightsError
from stylear.pair import Scalar

PROMPTS = 64  # that are kept; 0.3 GB of FLUX in bfloat16 (ours)
TOKENS = 64  # references that are kept; 0.4 GB of Redux in bfloat16 (ours)


class FluxPrompts(PromptCache):
    """Prompts as FLUX reads them: T5's tokens, and CLIP's summary of the first 77."""

    def __init__(self, pipeline: Any, device: str, tokens: int) -> None:
        super().__init__(pipeline, device, guided=False, remembered=PROMPTS)
        self.tokens = tokens

    def length(self, prompt: str) -> dict[str, Scalar]:
        """T5 tokens of a prompt and where they are cut off; where CLIP's summary is."""
        clip, t5 = self._pipeline.tokenizer, self._pipeline.tokenizer_2
        count = len(t5(prompt, verbose=False).input_ids)
        short = len(clip(prompt, verbose=False).input_ids)
        return {
            "prompt_tokens": count,
            "prompt_truncated_at": self.tokens if count > self.tokens else None,
            "summary_truncated_at": (
                clip.model_max_length if short > clip.model_max_length else None
            ),
        }

    def _encode(self, prompts: list[str]) -> Encoded:
        with quiet():
            embeds, pooled, _ = self._pipeline.encode_prompt(
                prompt=prompts, prompt_2=None, device=self._device, max_sequence_length=self.tokens
            )
        return embeds, pooled


class FluxRedux(Diffusion):
    """Draws prompts after references. Raises WeightsError for a prior that does not fit."""

    mixes_references = True

    def open(self) -> tuple[Any, dict[str, str]]:
        settings = self.settings
        pipeline, sha256 = open_pipeline(FluxPipeline, settings, self.dtype)
        of_prior = settings.model_copy(update={"model": settings.redux, "variant": None})
        self.prior, redux_sha256 = open_pipeline(FluxPriorReduxPipeline, of_prior, self.dtype)
        found = self.prior.image_embedder.config.txt_in_features
        expected = pipeline.transformer.config.joint_attention_dim
        if found != expected:
            raise WeightsError(
                f"{settings.redux}: image_embedder: expected tokens of {expected} numbers, as the"
                f" transformer of {settings.model} reads them, found {found}",
                hint="the prior and the pipeline must be of one family",
            )
        # a small part: where layers wait in main memory, it stays there
        self.prior.to(self.device if settings.offload == "none" else "cpu")
        self.prompts = FluxPrompts(pipeline, self.device, settings.prompt_tokens)
        self._tokens = Remembered[Tensor](TOKENS)
        return pipeline, {"model_sha256": sha256, "redux_sha256": redux_sha256}

    def told(self) -> dict[str, Scalar]:
        return {"prior": FluxPriorReduxPipeline.__name__}

    def about(self, job: Job) -> dict[str, Scalar]:
        tokens = self._reference(job.reference).shape[1]
        return {"reference_tokens": tokens, **self.prompts.length(job.prompt)}

    def draw(self, batch: Sequence[Job]) -> list[Drawn]:
        settings = self.settings
        told = self.prompts.embeddings([job.prompt for job in batch], "")
        references = torch.cat([self._reference(job.reference) for job in batch])
        told["prompt_embeds"] = torch.cat([told["prompt_embeds"], references], 1)
        return self.run(
            **told,
            generator=self.generators(batch),
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            height=settings.size,
            width=settings.size,
        )

    def _reference(self, reference: str) -> Tensor:
        """A reference's tokens, (1, N, D), computed once."""
        return self._tokens.get(reference, partial(self._read, reference))

    @torch.inference_mode()
    def _read(self, reference: str) -> Tensor:
        seen = self.prior.encode_image(self.picture(reference), self.prior.device, 1)
        tokens: Tensor = self.prior.image_embedder(seen).image_embeds
        if self.settings.reference_grid is not None:
            tokens = pooled(tokens, self.settings.reference_grid)
        tokens = self.settings.reference_scale * tokens
        return tokens.to(self.device)


def pooled(tokens: Tensor, side: int) -> Tensor:
    """Tokens (B, n n, D) of a grid, averaged to (B, m m, D), m at most `side`."""
    across = round(tokens.shape[1] ** 0.5)
    grid = tokens.transpose(1, 2).reshape(len(tokens), -1, across, across)
    return adaptive_avg_pool2d(grid, min(side, across)).flatten(2).transpose(1, 2)
