"""`style-aligned`: SDXL whose self-attention attends to the reference (Hertz et al. 2023).

The reference is inverted to noise once. It is then redrawn in every batch along its inversion, and the
other images of the batch attend to it (`shared_attention`). No weights but SDXL's.

Axes: N images of a batch, S steps, c latent channels, h and w latent sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image, ImageOps
from torch import Tensor

from stylear.curate.synthesize.diffusers.inversion import (
    encode_image,
    invert_latents,
    make_ddim_scheduler,
)
from stylear.curate.synthesize.diffusers.load import open_pipeline
from stylear.curate.synthesize.diffusers.lru_cache import LruCache
from stylear.curate.synthesize.diffusers.prompt_cache import PromptCache
from stylear.curate.synthesize.diffusers.shared_attention import share_attention
from stylear.curate.synthesize.diffusers.synthesizer import DiffusionSynthesizer, DrawnImage
from stylear.curate.synthesize.job import Job
from stylear.pair import Scalar

CACHED_INVERSIONS = 64  # 0.4 GB of main memory at 50 steps, 1024 px (our choice)


class StyleAligned(DiffusionSynthesizer):
    """Draws prompts in the style of references. Raises WeightsError if the weights do not fit."""

    def open(self) -> tuple[Any, dict[str, str]]:
        settings = self.settings
        pipeline, sha256 = open_pipeline(
            StableDiffusionXLPipeline, settings, self.dtype, add_watermarker=False
        )
        pipeline.scheduler = make_ddim_scheduler(pipeline)
        self.guided = settings.guidance > 1
        self.shared = share_attention(
            pipeline.unet,
            2 if self.guided else 1,
            layers=settings.shared_layers,
            key_scale=settings.reference_scale,
            shift=settings.reference_shift,
            group_norm=settings.share_group_norm,
        )
        self.prompts = PromptCache(pipeline, self.device, self.guided)
        self._inversions = LruCache[Tensor](CACHED_INVERSIONS)
        return pipeline, {"model_sha256": sha256}

    def metadata(self) -> dict[str, Scalar]:
        negative = self.prompts.count_tokens(self.settings.negative_prompt)
        return {
            "shared_attention_layers": self.shared,
            **{f"negative_{name}": value for name, value in negative.items()},
        }

    def job_metadata(self, job: Job) -> dict[str, Scalar]:
        reference = {"reference_prompt": self.reference_prompt(job.reference)}
        return {**reference, **self.prompts.count_tokens(job.prompt)}

    def reference_prompt(self, reference: str) -> str:
        """The prompt with which a reference is inverted and redrawn."""
        text: str = self.settings.reference_prompt
        return text.replace("{style}", self._references[reference].style)

    def draw(self, batch: Sequence[Job]) -> list[DrawnImage]:
        settings, generators = self.settings, self.generators(batch)
        arguments = self._prompt_arguments([job.prompt for job in batch], settings.negative_prompt)
        call = {
            "num_inference_steps": settings.steps,
            "guidance_scale": settings.guidance,
            "height": settings.size,
            "width": settings.size,
        }
        if not self.shared:
            return self.run_pipeline(**arguments, generator=generators, **call)
        reference = batch[0].reference
        inversion, noise = self._inversion(reference), self._initial_noise(generators)
        reference_arguments = self._prompt_arguments([self.reference_prompt(reference)], "")
        return self.run_pipeline(
            **concatenate_arguments(reference_arguments, arguments),
            latents=torch.cat([inversion[settings.inversion_skip][None], noise]),
            callback_on_step_end=self._step_callback(inversion),
            **call,
        )

    def _step_callback(self, inversion: Tensor) -> Any:
        """A callback that sets the reference to its inversion at every step and removes it at the end."""
        steps, skip = self.settings.steps, self.settings.inversion_skip

        def callback(_: Any, step: int, time: Any, values: dict[str, Tensor]) -> dict[str, Tensor]:
            images = values["latents"][1:]
            if step + 1 == steps:
                return {"latents": images}  # the reference need not be decoded
            index = max(skip + 1, step + 1)
            return {"latents": torch.cat([inversion[index][None].to(images), images])}

        return callback

    def _inversion(self, reference: str) -> Tensor:
        """The cached inversion of a reference: its latents from noise to image, (S + 1, c, h, w)."""
        return self._inversions.get_or_make(
            reference, partial(self._invert_reference, reference)
        ).to(self.device)

    def _invert_reference(self, reference: str) -> Tensor:
        """Invert a reference; the latents are in main memory."""
        settings = self.settings
        side = (settings.size, settings.size)
        square = ImageOps.fit(self.reference_image(reference), side, Image.Resampling.LANCZOS)
        latents = encode_image(self.pipeline, np.asarray(square, np.float32) / np.float32(255))
        return invert_latents(
            self.pipeline,
            latents,
            steps=settings.steps,
            guidance_scale=settings.inversion_guidance if self.guided else 1.0,
            height=settings.size,
            width=settings.size,
            **self._prompt_arguments([self.reference_prompt(reference)], ""),
        ).cpu()

    def _initial_noise(self, generators: list[torch.Generator]) -> Tensor:
        """The initial noise of a batch, (N, c, h, w), as plain diffusers draws it."""
        size, unet = self.settings.size, self.pipeline.unet
        noise: Tensor = self.pipeline.prepare_latents(
            len(generators),
            unet.config.in_channels,
            size,
            size,
            unet.dtype,
            self.device,
            generators,
        )
        return noise

    def _prompt_arguments(self, prompts: Sequence[str], negative: str) -> dict[str, Tensor]:
        """The embedding arguments of the pipeline; an empty negative prompt is zeroed as in diffusers."""
        embeddings = self.prompts.embeddings(prompts, negative)
        if not negative and self.pipeline.config.force_zeros_for_empty_prompt:
            zeroed = {name: torch.zeros_like(value) for name, value in embeddings.items()}
            embeddings |= {
                name: value for name, value in zeroed.items() if name.startswith("negative")
            }
        return embeddings


def concatenate_arguments(first: dict[str, Tensor], second: dict[str, Tensor]) -> dict[str, Tensor]:
    """Join the arguments of two batches into those of one."""
    return {name: torch.cat([first[name], second[name]]) for name in first}
