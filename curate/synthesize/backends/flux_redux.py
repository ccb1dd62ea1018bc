"""`flux-redux`: FLUX conditioned on a reference through the Redux prior, as tokens beside the prompt's.

Redux (Black Forest Labs, 2024) projects SigLIP's image tokens into T5's token space. All of them
together produce variations of the reference; averaged over a coarser grid they carry more of its style
than of its content.

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

from stylear.curate.synthesize.diffusers.load import open_pipeline, silence_libraries
from stylear.curate.synthesize.diffusers.lru_cache import LruCache
from stylear.curate.synthesize.diffusers.prompt_cache import (
    EncodedPrompt,
    PromptCache,
    measure_prompt_length,
)
from stylear.curate.synthesize.diffusers.synthesizer import DiffusionSynthesizer, DrawnImage
from stylear.curate.synthesize.job import Job
from stylear.errors import WeightsError
from stylear.pair import Scalar

CACHED_PROMPTS = 64  # 0.3 GB for FLUX in bfloat16 (our choice)
CACHED_REFERENCES = 64  # 0.4 GB for Redux in bfloat16 (our choice)


class FluxPromptCache(PromptCache):
    """Prompt embeddings of FLUX: T5's tokens, and CLIP's pooled embedding of the first 77 tokens."""

    def __init__(self, pipeline: Any, device: str, tokens: int) -> None:
        super().__init__(pipeline, device, guided=False, size=CACHED_PROMPTS)
        self.tokens = tokens

    def count_tokens(self, prompt: str) -> dict[str, Scalar]:
        """The number of T5 tokens of a prompt, and where T5 and CLIP truncate it, if they do."""
        clip, t5 = self._pipeline.tokenizer, self._pipeline.tokenizer_2
        short = len(clip(prompt, verbose=False).input_ids)
        return {
            **measure_prompt_length(prompt, [(t5, self.tokens)]),
            "pooled_prompt_truncated_at": (
                clip.model_max_length if short > clip.model_max_length else None
            ),
        }

    def _encode(self, prompts: list[str]) -> EncodedPrompt:
        with silence_libraries():
            embeds, pool_tokens, _ = self._pipeline.encode_prompt(
                prompt=prompts, prompt_2=None, device=self._device, max_sequence_length=self.tokens
            )
        return embeds, pool_tokens


class FluxRedux(DiffusionSynthesizer):
    """Draws prompts after references. Raises WeightsError if the prior does not fit the pipeline."""

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
                hint="the prior and the pipeline must belong to one model family",
            )
        # it is small, so with offload it stays in main memory
        self.prior.to(self.device if settings.offload == "none" else "cpu")
        self.prompts = FluxPromptCache(pipeline, self.device, settings.prompt_tokens)
        self._tokens = LruCache[Tensor](CACHED_REFERENCES)
        return pipeline, {"model_sha256": sha256, "redux_sha256": redux_sha256}

    def metadata(self) -> dict[str, Scalar]:
        return {"prior": FluxPriorReduxPipeline.__name__}

    def job_metadata(self, job: Job) -> dict[str, Scalar]:
        tokens = self._reference_tokens(job.reference).shape[1]
        return {"reference_tokens": tokens, **self.prompts.count_tokens(job.prompt)}

    def draw(self, batch: Sequence[Job]) -> list[DrawnImage]:
        settings = self.settings
        embeddings = self.prompts.embeddings([job.prompt for job in batch], "")
        references = torch.cat([self._reference_tokens(job.reference) for job in batch])
        embeddings["prompt_embeds"] = torch.cat([embeddings["prompt_embeds"], references], 1)
        return self.run_pipeline(
            **embeddings,
            generator=self.generators(batch),
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            height=settings.size,
            width=settings.size,
        )

    def _reference_tokens(self, reference: str) -> Tensor:
        """The cached tokens of a reference, (1, N, D)."""
        return self._tokens.get_or_make(reference, partial(self._encode_reference, reference))

    @torch.inference_mode()
    def _encode_reference(self, reference: str) -> Tensor:
        seen = self.prior.encode_image(self.reference_image(reference), self.prior.device, 1)
        tokens: Tensor = self.prior.image_embedder(seen).image_embeds
        if self.settings.reference_grid is not None:
            tokens = pool_tokens(tokens, self.settings.reference_grid)
        tokens = self.settings.reference_scale * tokens
        return tokens.to(self.device)


def pool_tokens(tokens: Tensor, side: int) -> Tensor:
    """Average tokens (B, n n, D) of a grid to (B, m m, D), m at most `side`."""
    across = round(tokens.shape[1] ** 0.5)
    grid = tokens.transpose(1, 2).reshape(len(tokens), -1, across, across)
    return adaptive_avg_pool2d(grid, min(side, across)).flatten(2).transpose(1, 2)
