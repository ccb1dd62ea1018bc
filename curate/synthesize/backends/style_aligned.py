"""`style-aligned`: SDXL that looks at the reference in its self-attention (Hertz et al. 2023).

The reference is inverted to noise once; then it is drawn again beside the images of a batch, step
by step as it was inverted, and they look at it (`shared_attention`). No weights beside SDXL's.

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

from stylear.curate.synthesize.diffusers.inversion import ddim, encode_image, invert
from stylear.curate.synthesize.diffusers.load import open_pipeline
from stylear.curate.synthesize.diffusers.lru_cache import Remembered
from stylear.curate.synthesize.diffusers.prompt_cache import PromptCache
from stylear.curate.synthesize.diffusers.shared_attention import share
from stylear.curate.synthesize.diffusers.synthesizer import Diffusion, Drawn
from stylear.curate.synthesize.job import Job
from stylear.pair import Scalar

TRAILS = 64  # references whose inversion is kept; 0.4 GB of main memory at 50 steps, 1024 px (ours)


class StyleAligned(Diffusion):
    """Draws prompts in the style of references. Raises WeightsError for parts that do not fit."""

    def open(self) -> tuple[Any, dict[str, str]]:
        settings = self.settings
        pipeline, sha256 = open_pipeline(
            StableDiffusionXLPipeline, settings, self.dtype, add_watermarker=False
        )
        pipeline.scheduler = ddim(pipeline)
        self.guided = settings.guidance > 1
        self.shared = share(
            pipeline.unet,
            2 if self.guided else 1,
            layers=settings.shared_layers,
            key_scale=settings.reference_scale,
            shift=settings.reference_shift,
            group_norm=settings.share_group_norm,
        )
        self.prompts = PromptCache(pipeline, self.device, self.guided)
        self._trails = Remembered[Tensor](TRAILS)
        return pipeline, {"model_sha256": sha256}

    def told(self) -> dict[str, Scalar]:
        negative = self.prompts.length(self.settings.negative_prompt)
        return {
            "shared_attention_layers": self.shared,
            **{f"negative_{name}": value for name, value in negative.items()},
        }

    def about(self, job: Job) -> dict[str, Scalar]:
        reference = {"reference_prompt": self.reference_prompt(job.reference)}
        return {**reference, **self.prompts.length(job.prompt)}

    def reference_prompt(self, reference: str) -> str:
        """What the inversion is told of a reference."""
        text: str = self.settings.reference_prompt
        return text.replace("{style}", self._references[reference].style)

    def draw(self, batch: Sequence[Job]) -> list[Drawn]:
        settings, generators = self.settings, self.generators(batch)
        told = self._told([job.prompt for job in batch], settings.negative_prompt)
        call = {
            "num_inference_steps": settings.steps,
            "guidance_scale": settings.guidance,
            "height": settings.size,
            "width": settings.size,
        }
        if not self.shared:
            return self.run(**told, generator=generators, **call)
        trail = self._trail(batch[0].reference)
        return self.run(
            **beside(self._told([self.reference_prompt(batch[0].reference)], ""), told),
            latents=torch.cat([trail[settings.inversion_skip][None], self._noise(generators)]),
            callback_on_step_end=self._follow(trail),
            **call,
        )

    def _follow(self, trail: Tensor) -> Any:
        """What keeps the reference on the way of its inversion, and leaves it out at the end."""
        steps, skip = self.settings.steps, self.settings.inversion_skip

        def follow(_: Any, step: int, time: Any, values: dict[str, Tensor]) -> dict[str, Tensor]:
            images = values["latents"][1:]
            if step + 1 == steps:
                return {"latents": images}  # the reference need not be decoded
            place = max(skip + 1, step + 1)
            return {"latents": torch.cat([trail[place][None].to(images), images])}

        return follow

    def _trail(self, reference: str) -> Tensor:
        """A reference's latents on the way from noise, (S + 1, c, h, w), inverted once."""
        return self._trails.get(reference, partial(self._inverted, reference)).to(self.device)

    def _inverted(self, reference: str) -> Tensor:
        """The trail of a reference, in main memory."""
        settings = self.settings
        side = (settings.size, settings.size)
        square = ImageOps.fit(self.picture(reference), side, Image.Resampling.LANCZOS)
        latents = encode_image(self.pipeline, np.asarray(square, np.float32) / np.float32(255))
        return invert(
            self.pipeline,
            latents,
            steps=settings.steps,
            guidance_scale=settings.inversion_guidance if self.guided else 1.0,
            height=settings.size,
            width=settings.size,
            **self._told([self.reference_prompt(reference)], ""),
        ).cpu()

    def _noise(self, generators: list[torch.Generator]) -> Tensor:
        """Where the images of a batch begin, (N, c, h, w): what plain diffusers would draw."""
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

    def _told(self, prompts: Sequence[str], negative: str) -> dict[str, Tensor]:
        """What the pipeline is told of prompts; no negative prompt is what diffusers makes of none."""
        told = self.prompts.embeddings(prompts, negative)
        if not negative and self.pipeline.config.force_zeros_for_empty_prompt:
            zeroed = {name: torch.zeros_like(value) for name, value in told.items()}
            told |= {name: value for name, value in zeroed.items() if name.startswith("negative")}
        return told


def beside(first: dict[str, Tensor], rest: dict[str, Tensor]) -> dict[str, Tensor]:
    """The arguments of two batches as those of one."""
    return {name: torch.cat([first[name], rest[name]]) for name in first}
