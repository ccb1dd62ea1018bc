"""`instantstyle`: SDXL with an IP-Adapter that speaks to the style block only (InstantStyle).

The paper's own synthesiser (Wang et al. 2024, as StyleAR uses it): a reference drives the one block
of the UNet that decides style, so a prompt is drawn in its style without its content. Everything is
read from local directories in the layout that diffusers and the IP-Adapter release have.

Axes: B jobs of a batch, D embedding.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from curate.references import StyleReference
from curate.synthesize.job import Encoding, Job, Pixels, picture, stylized_pair
from curate.synthesize.settings import InstantStyleSettings
from stylear.errors import WeightsError
from stylear.pair import Pair, Scalar, digest
from stylear.weights import read_json, resolve, sha256_of


class InstantStyle:
    """Draws prompts in the style of references; one generator an image, seeded from its key.

    Raises WeightsError when the pipeline, the adapter or the image encoder cannot be loaded.
    """

    def __init__(
        self,
        settings: InstantStyleSettings,
        references: Mapping[str, StyleReference],
        encoding: Encoding,
    ) -> None:
        self.settings, self.encoding = settings, encoding
        self.device = choose_device(settings.device)
        self.dtype = choose_dtype(settings.dtype, self.device)
        self.pipeline, hashes = open_pipeline(settings, self.device, self.dtype)
        self.scale = block_scales(settings)
        self.pipeline.set_ip_adapter_scale(self.scale)
        self.details: dict[str, Scalar] = {
            "pipeline": type(self.pipeline).__name__,
            "scheduler": type(self.pipeline.scheduler).__name__,
            "model": settings.model,
            **hashes,
            "scale": json.dumps(self.scale),
            "steps": settings.steps,
            "guidance": settings.guidance,
            "negative_prompt": settings.negative_prompt,
            "size": settings.size,
            "dtype": str(self.dtype).removeprefix("torch."),
        }
        # a GPU's sums depend on the batch, so here the batch size is part of what made an image
        self.fingerprint = digest("instantstyle", settings.model_dump_json(), *hashes.values())
        self._references = references
        self._embeddings: dict[str, Tensor] = {}

    def __call__(self, jobs: Sequence[tuple[Job, bytes]]) -> list[Pair]:
        """One pair a job, in order; the content bytes are not looked at."""
        by_reference: dict[str, list[Job]] = {}
        for job, _ in jobs:
            by_reference.setdefault(job.reference, []).append(job)
        done: dict[str, Pair] = {}
        # one reference a batch: diffusers repeats the given embeddings for every prompt
        for same in by_reference.values():
            for start in range(0, len(same), self.settings.batch_size):
                batch = same[start : start + self.settings.batch_size]
                for job, pixels in zip(batch, self._draw(batch), strict=True):
                    fitted = fit(pixels, self.encoding.size)
                    done[job.key] = stylized_pair(job, fitted, self.encoding, self.details)
        return [done[job.key] for job, _ in jobs]

    def _draw(self, batch: Sequence[Job]) -> list[Pixels]:
        """The images of a batch of one reference, (size, size, 3) in [0, 1]."""
        with torch.inference_mode():
            images = self.pipeline(
                prompt=[job.prompt for job in batch],
                negative_prompt=[self.settings.negative_prompt] * len(batch),
                ip_adapter_image_embeds=[self._embedding(batch[0].reference)],
                generator=[torch.Generator("cpu").manual_seed(job.seed) for job in batch],
                num_inference_steps=self.settings.steps,
                guidance_scale=self.settings.guidance,
                height=self.settings.size,
                width=self.settings.size,
                output_type="np",
            ).images
        return list(np.asarray(images, dtype=np.float32))

    def _embedding(self, reference: str) -> Tensor:
        """A reference as the adapter reads it, computed once: (2, 1, D), unconditional first.

        Without guidance it is (1, 1, D).
        """
        if reference not in self._embeddings:
            image = picture(self._references[reference].image)
            with torch.inference_mode():
                self._embeddings[reference] = self.pipeline.prepare_ip_adapter_image_embeds(
                    image, None, self.device, 1, self.settings.guidance > 1
                )[0]
        return self._embeddings[reference]


def block_scales(settings: InstantStyleSettings) -> dict[str, dict[str, list[float]]]:
    """How strongly the adapter speaks to each block; blocks left out hear nothing."""
    scales = {"up": {"block_0": [0.0, settings.style_scale, 0.0]}}
    if settings.layout_scale:
        scales["down"] = {"block_2": [0.0, settings.layout_scale]}
    return scales


def choose_device(name: str) -> str:
    """The torch device that `auto` means here."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def choose_dtype(name: str, device: str) -> torch.dtype:
    """The number type that `auto` means on a device."""
    if name == "auto":
        return torch.float32 if device == "cpu" else torch.float16
    chosen: torch.dtype = getattr(torch, name)
    return chosen


def open_pipeline(
    settings: InstantStyleSettings, device: str, dtype: torch.dtype
) -> tuple[Any, dict[str, str]]:
    """The SDXL pipeline with its adapter, and the sha256 of all that was loaded, by part."""
    from diffusers import StableDiffusionXLPipeline
    from safetensors import SafetensorError
    from transformers import CLIPVisionModelWithProjection

    model = resolve(settings.model)
    adapter = adapter_file(settings)
    parts: dict[str, Any] = {}
    hashes = {
        "model_sha256": digest_files(model, pipeline_files(model, settings.variant)),
        "ip_adapter_sha256": sha256_of(adapter),
    }
    encoder = image_encoder_path(settings, model, adapter)
    hashes["image_encoder_sha256"] = digest_files(encoder, weight_files(encoder, None))
    try:
        if encoder != model / "image_encoder":
            parts["image_encoder"] = CLIPVisionModelWithProjection.from_pretrained(
                encoder, dtype=dtype, local_files_only=True
            )
        pipeline = StableDiffusionXLPipeline.from_pretrained(
            model,
            dtype=dtype,
            variant=settings.variant,
            use_safetensors=True,
            local_files_only=True,
            add_watermarker=False,
            **parts,
        ).to(device)
        pipeline.load_ip_adapter(
            str(adapter.parent),
            subfolder="",
            weight_name=adapter.name,
            image_encoder_folder=None,
            local_files_only=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()
        raise WeightsError(
            f"instantstyle: {model} with {adapter.name} cannot be loaded:"
            f" {reason[0] if reason else type(error).__name__}",
            hint="the adapter and its image encoder must belong to an SDXL pipeline of this size",
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, hashes


def adapter_file(settings: InstantStyleSettings) -> Path:
    """The IP-Adapter's weights: the path itself, or `weight_name` in its subfolder."""
    path = resolve(settings.ip_adapter)
    if path.is_dir():
        path = path / settings.ip_adapter_subfolder / settings.ip_adapter_weight_name
    if not path.is_file():
        raise WeightsError(
            f"instantstyle: no IP-Adapter weights at {path}",
            hint="set ip_adapter to the file, or also ip_adapter_subfolder, ip_adapter_weight_name",
        )
    return path


def image_encoder_path(settings: InstantStyleSettings, model: Path, adapter: Path) -> Path:
    """The CLIP image encoder's directory: the setting, the model's own, or the adapter's."""
    if settings.image_encoder is not None:
        return resolve(settings.image_encoder)
    for path in (model / "image_encoder", adapter.parent / "image_encoder"):
        if path.is_dir():
            return path
    raise WeightsError(
        f"instantstyle: no image_encoder directory in {model} or {adapter.parent}",
        hint="set image_encoder to the directory of the adapter's CLIP image encoder",
    )


def pipeline_files(model: Path, variant: str | None) -> list[Path]:
    """The files of a pipeline directory that make up what is loaded, other variants left out."""
    index = read_json(model / "model_index.json")
    parts = [name for name, value in index.items() if isinstance(value, list) and value[0]]
    return [
        model / "model_index.json",
        *(file for part in sorted(parts) for file in weight_files(model / part, variant)),
    ]


def weight_files(folder: Path, variant: str | None) -> Iterator[Path]:
    """The configs, vocabularies and safetensors of one part of a pipeline."""
    for file in sorted(folder.glob("*")):
        if file.suffix in (".json", ".txt") and ".index." not in file.name:
            yield file
        elif file.suffix == ".safetensors":
            tags = file.name.removesuffix(".safetensors").split(".")[1:]
            if (variant in tags) if variant else not tags:
                yield file


def digest_files(root: Path, files: Sequence[Path] | Iterator[Path]) -> str:
    """One digest of files' names and contents."""
    return digest(*(f"{file.relative_to(root).as_posix()} {sha256_of(file)}" for file in files))


def fit(pixels: Pixels, size: int) -> Pixels:
    """A square image (H, H, 3) at `size` pixels a side; NaN stays NaN."""
    if pixels.shape[:2] == (size, size) or not np.isfinite(pixels).all():
        return pixels
    channels = [
        Image.fromarray(np.ascontiguousarray(pixels[..., c])).resize(
            (size, size), Image.Resampling.LANCZOS
        )
        for c in range(3)
    ]
    resized: Pixels = np.stack([np.asarray(channel) for channel in channels], axis=-1)
    return resized
