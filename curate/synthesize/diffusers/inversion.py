"""DDIM inversion: the noise, and every step on the way, from which a pipeline would draw an image.

Song et al. 2020 (arXiv 2010.02502, section 4.3), as StyleAligned uses it for a reference that is an
image. Axes: S steps, c latent channels, h and w latent sides.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stylear.curate.synthesize.diffusers.load import quiet
from stylear.curate.synthesize.job import Pixels


def ddim(pipeline: Any) -> Any:
    """A deterministic DDIM sampler with the pipeline's noise schedule (code: nothing is clipped)."""
    from diffusers import DDIMScheduler

    with quiet():  # of options that only the pipeline's own sampler has
        return DDIMScheduler.from_config(
            pipeline.scheduler.config,
            clip_sample=False,
            set_alpha_to_one=False,
            timestep_spacing="leading",
        )


def encode_image(pipeline: Any, pixels: Pixels) -> Tensor:
    """The latents (1, c, h, w) of an image (H, W, 3) in [0, 1]: the mean, nothing is drawn."""
    vae = pipeline.vae
    kept = dtype = vae.dtype
    if kept == torch.float16 and vae.config.force_upcast:  # SDXL's VAE overflows
        dtype = torch.float32
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(pipeline._execution_device, dtype)
    with quiet():  # of what diffusers says about parts that stay float32, though there are none
        if dtype != kept:
            vae.to(dtype=dtype)
        latents: Tensor = vae.encode(image * 2 - 1).latent_dist.mode() * vae.config.scaling_factor
        if dtype != kept:
            vae.to(dtype=kept)
    return latents.to(pipeline.unet.dtype)


def invert(pipeline: Any, latents: Tensor, *, steps: int, **call: Any) -> Tensor:
    """The latents (S + 1, c, h, w) on the way from noise to an image's, the noise first.

    The pipeline has the sampler of `ddim`; `call` is what it is told beside latents and steps
    (prompt, guidance_scale, height, width).
    """
    from diffusers import DDIMInverseScheduler

    trail = [latents]

    def keep(_: Any, step: int, time: Any, values: dict[str, Tensor]) -> dict[str, Tensor]:
        trail.append(values["latents"])
        return values

    forward = pipeline.scheduler
    with quiet():
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
