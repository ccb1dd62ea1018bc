"""SDXL with an IP-Adapter: what `instantstyle` and `ip-adapter` share.

Prompts are encoded once each and references once each; a batch may hold several of both.
Axes: B images of a batch, T tokens of a prompt, N tokens of a reference, D embedding.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from stylear.curate.synthesize.diffusers.ip_adapter_weights import (
    adapter_file,
    check_adapter,
    image_encoder_folder,
    is_plus,
    read_adapter,
)
from stylear.curate.synthesize.diffusers.load import (
    digest_files,
    files_of,
    loading,
    open_part,
    open_pipeline,
    quiet,
)
from stylear.curate.synthesize.diffusers.lru_cache import Remembered
from stylear.curate.synthesize.diffusers.prompt_cache import PromptCache
from stylear.curate.synthesize.diffusers.synthesizer import Diffusion, Drawn
from stylear.curate.synthesize.job import Job
from stylear.pair import Scalar
from stylear.weights.files import sha256_of
from stylear.weights.names import resolve

EMBEDDINGS = 256  # references kept as the adapter reads them; 0.3 GB of a plus adapter (ours)


class MixedPipeline(StableDiffusionXLPipeline):  # type: ignore[misc]
    """SDXL that takes one embedding for each image, where diffusers repeats one for all of a batch."""

    def prepare_ip_adapter_image_embeds(
        self,
        ip_adapter_image: Any,
        ip_adapter_image_embeds: list[Tensor] | None,
        device: Any,
        num_images_per_prompt: int,
        do_classifier_free_guidance: bool,
    ) -> list[Tensor]:
        """Embeddings that are given (2 B, N, D), the unconditional ones first, stay as they are."""
        if ip_adapter_image_embeds is not None:
            return [embeds.to(device) for embeds in ip_adapter_image_embeds]
        found: list[Tensor] = super().prepare_ip_adapter_image_embeds(
            ip_adapter_image, None, device, num_images_per_prompt, do_classifier_free_guidance
        )
        return found


class Sdxl(Diffusion):
    """Draws prompts with SDXL, the reference told through an IP-Adapter, plain or plus."""

    mixes_references = True

    @abstractmethod
    def scale(self) -> Any:
        """How strongly the adapter speaks, as diffusers' `set_ip_adapter_scale` takes it."""

    def open(self) -> tuple[Any, dict[str, str]]:
        settings = self.settings
        path = adapter_file(settings)
        folder = image_encoder_folder(settings, resolve(settings.model), path)
        adapter = read_adapter(path)
        encoder = open_part(CLIPVisionModelWithProjection, folder, None, self.dtype)
        pipeline, sha256 = open_pipeline(
            MixedPipeline, settings, self.dtype, image_encoder=encoder, add_watermarker=False
        )
        check_adapter(adapter, pipeline.unet, encoder, path)
        self.plus = is_plus(adapter)
        with (
            quiet(),
            loading(str(path), "the adapter must belong to an SDXL pipeline of this size"),
        ):
            pipeline.load_ip_adapter(adapter, subfolder="", weight_name="", local_files_only=True)
        pipeline.set_ip_adapter_scale(self.scale())
        self.prompts = PromptCache(pipeline, self.device, settings.guidance > 1)
        self._embeddings = Remembered[Tensor](EMBEDDINGS)
        return pipeline, {
            "model_sha256": sha256,
            "ip_adapter_sha256": sha256_of(path),
            "image_encoder_sha256": digest_files(folder, files_of(folder, None)),
        }

    def told(self) -> dict[str, Scalar]:
        negative = self.prompts.length(self.settings.negative_prompt)
        return {
            "pipeline": StableDiffusionXLPipeline.__name__,
            "adapter": "plus" if self.plus else "plain",
            **{f"negative_{name}": value for name, value in negative.items()},
        }

    def about(self, job: Job) -> dict[str, Scalar]:
        return self.prompts.length(job.prompt)

    def draw(self, batch: Sequence[Job]) -> list[Drawn]:
        settings = self.settings
        prompts = [job.prompt for job in batch]
        return self.run(
            **self.prompts.embeddings(prompts, settings.negative_prompt),
            ip_adapter_image_embeds=[self._references_of(batch)],
            generator=self.generators(batch),
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            height=settings.size,
            width=settings.size,
        )

    def _references_of(self, batch: Sequence[Job]) -> Tensor:
        """The references of a batch as the adapter reads them, (B, N, D) or twice that.

        With guidance the unconditional ones come first.
        """
        each = [self._embedding(job.reference) for job in batch]
        return torch.cat([one[half : half + 1] for half in range(len(each[0])) for one in each])

    def _embedding(self, reference: str) -> Tensor:
        """A reference as the adapter reads it, computed once: (2, N, D), unconditional first.

        Without guidance it is (1, N, D). For a plus adapter the hidden states have an axis more.
        """

        def embed() -> Tensor:
            found: Tensor = self.pipeline.prepare_ip_adapter_image_embeds(
                self.picture(reference), None, self.device, 1, self.settings.guidance > 1
            )[0]
            return found

        return self._embeddings.get(reference, embed)
