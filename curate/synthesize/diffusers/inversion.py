"""DDIM inversion: the noise from which a pipeline would draw a given image, and every step in between.

Song et al. 2020 (arXiv 2010.02502, section 4.3), as StyleAligned uses it for a reference image.
Axes: S steps, c latent channels, h and w latent sides.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stylear.curate.synthesize.diffusers.load import silence_libraries
from stylear.curate.synthesize.job import Pixels


def make_ddim_scheduler(pipeline: Any) -> Any:
    """A deterministic DDIM scheduler with the pipeline's noise schedule (code: no clipping)."""
    from diffusers import DDIMScheduler

    with silence_libraries():  # warnings about options that only the pipeline's own scheduler has
        return DDIMScheduler.from_config(
            pipeline.scheduler.config,
            clip_sample=False,
            set_alpha_to_one=False,
            timestep_spacing="leading",
        )


def encode_image(pipeline: Any, pixels: Pixels) -> Tensor:
    """The latents (1, c, h, w) of an image (H, W, 3) in [0, 1]: the mean of the posterior, no sample."""
    vae = pipeline.vae
    kept = dtype = vae.dtype
    if kept == torch.float16 and vae.config.force_upcast:  # SDXL's VAE overflows
        dtype = torch.float32
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(pipeline._execution_device, dtype)
    with silence_libraries():  # a false warning about parts that stay float32
        if dtype != kept:
            vae.to(dtype=dtype)
        latents: Tensor = vae.encode(image * 2 - 1).latent_dist.mode() * vae.config.scaling_factor
        if dtype != kept:
            vae.to(dtype=kept)
    return latents.to(pipeline.unet.dtype)


def invert_latents(pipeline: Any, latents: Tensor, *, steps: int, **call: Any) -> Tensor:
    """The latents (S + 1, c, h, w) of every step from noise to image, the noise first.

    The pipeline's scheduler must be that of `make_ddim_scheduler`; `call` holds its other arguments
    (prompt, guidance_scale, height, width).
    """
    from diffusers import DDIMInverseScheduler

    trail = [latents]

    def keep(_: Any, step: int, time: Any, values: dict[str, Tensor]) -> dict[str, Tensor]:
        trail.append(values["latents"])
        return values

    forward = pipeline.scheduler
    with silence_libraries():
        pipeline.scheduler = DDIMInverseScheduler.from_config(forward.config)
    try:
        pipeline(
            latents=latents,
            num_inference_steps=steps,
            output_type="latent",
            callback_on_step_end=keep,
            **call,
        )
    finally:
        pipeline.scheduler = forward
    return torch.cat(trail[::-1])
