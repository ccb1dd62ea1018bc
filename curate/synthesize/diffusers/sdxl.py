"""SDXL with an IP-Adapter: the base class of `instantstyle` and `ip-adapter`.

Every prompt and every reference is encoded once; a batch may hold several of both.
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
    check_adapter,
    find_adapter_file,
    find_image_encoder,
    is_plus,
    number_matrices,
    read_adapter,
)
from stylear.curate.synthesize.diffusers.load import (
    digest_files,
    list_files,
    open_component,
    open_pipeline,
    silence_libraries,
    wrap_load_errors,
)
from stylear.curate.synthesize.diffusers.lru_cache import LruCache
from stylear.curate.synthesize.diffusers.prompt_cache import PromptCache
from stylear.curate.synthesize.diffusers.synthesizer import DiffusionSynthesizer, DrawnImage
from stylear.curate.synthesize.job import Job
from stylear.pair import Scalar
from stylear.weights.files import hash_path
from stylear.weights.names import resolve_model

CACHED_REFERENCES = 256  # reference embeddings; 0.3 GB with a plus adapter (our choice)


class PerImagePipeline(StableDiffusionXLPipeline):  # type: ignore[misc]
    """SDXL that takes one adapter embedding per image; diffusers repeats one for the whole batch."""

    def prepare_ip_adapter_image_embeds(
        self,
        ip_adapter_image: Any,
        ip_adapter_image_embeds: list[Tensor] | None,
        device: Any,
        num_images_per_prompt: int,
        do_classifier_free_guidance: bool,
    ) -> list[Tensor]:
        """Return given embeddings (2 B, N, D), unconditional ones first, unchanged."""
        if ip_adapter_image_embeds is not None:
            return [embeds.to(device) for embeds in ip_adapter_image_embeds]
        own_embeds: list[Tensor] = super().prepare_ip_adapter_image_embeds(
            ip_adapter_image, None, device, num_images_per_prompt, do_classifier_free_guidance
        )
        return own_embeds


class SdxlSynthesizer(DiffusionSynthesizer):
    """Draws prompts with SDXL; a plain or plus IP-Adapter conditions it on the reference."""

    mixes_references = True

    @abstractmethod
    def adapter_scale(self) -> Any:
        """The adapter's scale, in the form that diffusers' `set_ip_adapter_scale` takes."""

    def open(self) -> tuple[Any, dict[str, str]]:
        settings = self.settings
        path = find_adapter_file(settings)
        folder = find_image_encoder(settings, resolve_model(settings.model), path)
        adapter = read_adapter(path)
        encoder = open_component(CLIPVisionModelWithProjection, folder, None, self.dtype)
        pipeline, sha256 = open_pipeline(
            PerImagePipeline, settings, self.dtype, image_encoder=encoder, add_watermarker=False
        )
        adapter = number_matrices(adapter, pipeline.unet)
        check_adapter(adapter, pipeline.unet, encoder, path)
        self.plus = is_plus(adapter)
        with (
            silence_libraries(),
            wrap_load_errors(str(path), "the adapter must belong to an SDXL pipeline of this size"),
        ):
            pipeline.load_ip_adapter(adapter, subfolder="", weight_name="", local_files_only=True)
        pipeline.set_ip_adapter_scale(self.adapter_scale())
        self.prompts = PromptCache(pipeline, self.device, settings.guidance > 1)
        self._embeddings = LruCache[Tensor](CACHED_REFERENCES)
        return pipeline, {
            "model_sha256": sha256,
            "ip_adapter_sha256": hash_path(path),
            "image_encoder_sha256": digest_files(folder, list_files(folder, None)),
        }

    def metadata(self) -> dict[str, Scalar]:
        negative = self.prompts.count_tokens(self.settings.negative_prompt)
        return {
            "pipeline": StableDiffusionXLPipeline.__name__,
            "adapter": "plus" if self.plus else "plain",
            **{f"negative_{name}": value for name, value in negative.items()},
        }

    def job_metadata(self, job: Job) -> dict[str, Scalar]:
        return self.prompts.count_tokens(job.prompt)

    def draw(self, batch: Sequence[Job]) -> list[DrawnImage]:
        settings = self.settings
        prompts = [job.prompt for job in batch]
        return self.run_pipeline(
            **self.prompts.embeddings(prompts, settings.negative_prompt),
            ip_adapter_image_embeds=[self._embed_references(batch)],
            generator=self.generators(batch),
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            height=settings.size,
            width=settings.size,
        )

    def _embed_references(self, batch: Sequence[Job]) -> Tensor:
        """The adapter embeddings of a batch, (B, N, D), or (2 B, N, D) with guidance.

        With guidance the unconditional ones come first.
        """
        each = [self._embed_reference(job.reference) for job in batch]
        return torch.cat(
            [embeds[half : half + 1] for half in range(len(each[0])) for embeds in each]
        )

    def _embed_reference(self, reference: str) -> Tensor:
        """The cached adapter embedding of a reference: (2, N, D), unconditional first.

        Without guidance it is (1, N, D). The hidden states of a plus adapter have one more axis.
        """

        def embed() -> Tensor:
            embeds: Tensor = self.pipeline.prepare_ip_adapter_image_embeds(
                self.reference_image(reference), None, self.device, 1, self.settings.guidance > 1
            )[0]
            return embeds

        return self._embeddings.get_or_make(reference, embed)
