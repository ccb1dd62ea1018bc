"""SDXL with an IP-Adapter of any size, random weights, on disk in the layout of their releases."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)


@dataclass(frozen=True, slots=True)
class Size:
    """How large each part is: (width, layers, heads) of the encoders."""

    channels: tuple[int, int, int]  # of the UNet's blocks
    depths: tuple[int, int, int]  # transformer layers in them
    text: tuple[int, int, int]
    text_2: tuple[int, int, int]
    vision: tuple[int, int, int]
    embedding: int  # of the image encoder
    vae: tuple[int, ...]
    head: int  # width of an attention head of the UNet
    groups: int  # of its norms


FULL = Size(  # SDXL base 1.0, IP-Adapter with OpenCLIP ViT-H/14
    channels=(320, 640, 1280),
    depths=(1, 2, 10),
    text=(768, 12, 12),
    text_2=(1280, 32, 20),
    vision=(1280, 32, 16),
    embedding=1024,
    vae=(128, 256, 512, 512),
    head=64,
    groups=32,
)
SMALL = Size(  # the same shape, some hundred times fewer parameters
    channels=(32, 64, 128),
    depths=(1, 1, 2),
    text=(64, 4, 4),
    text_2=(128, 8, 4),
    vision=(128, 8, 4),
    embedding=96,
    vae=(16, 32, 32, 32),
    head=16,
    groups=8,
)
SIZES = {"full": FULL, "small": SMALL}


def write_sdxl(folder: Path, size: Size, device: str, dtype: torch.dtype) -> None:
    """`folder/sdxl`, and `folder/adapter` as one file with its image encoder beside it."""
    torch.manual_seed(0)
    tokenizer = write_tokenizer(folder / "words")
    cross = size.text[0] + size.text_2[0]
    with torch.device(device):
        unet = UNet2DConditionModel(
            sample_size=128,
            block_out_channels=size.channels,
            norm_num_groups=size.groups,
            layers_per_block=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=tuple(width // size.head for width in size.channels),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=6 * 256 + size.text_2[0],
            transformer_layers_per_block=size.depths,
            cross_attention_dim=cross,
        )
        vae = AutoencoderKL(
            block_out_channels=size.vae,
            down_block_types=("DownEncoderBlock2D",) * len(size.vae),
            up_block_types=("UpDecoderBlock2D",) * len(size.vae),
            layers_per_block=2,
            norm_num_groups=size.groups,
            sample_size=1024,
            scaling_factor=0.13025,
        )
        texts = [
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=width,
                intermediate_size=4 * width,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                projection_dim=width,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
            for width, layers, heads in (size.text, size.text_2)
        ]
        text, text_2 = CLIPTextModel(texts[0]), CLIPTextModelWithProjection(texts[1])
        width, layers, heads = size.vision
        vision = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=width,
                intermediate_size=4 * width,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                image_size=224,
                patch_size=14,
                projection_dim=size.embedding,
            )
        )
    pipeline = StableDiffusionXLPipeline(
        vae=vae.to(dtype),
        text_encoder=text.to(dtype),
        text_encoder_2=text_2.to(dtype),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet.to(dtype),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            timestep_spacing="leading",
            steps_offset=1,
        ),
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder / "sdxl")
    vision.to(dtype).save_pretrained(folder / "adapter" / "image_encoder")
    tensors = {
        "image_proj.proj.weight": torch.randn(4 * cross, size.embedding) * 0.02,
        "image_proj.proj.bias": torch.zeros(4 * cross),
        "image_proj.norm.weight": torch.ones(cross),
        "image_proj.norm.bias": torch.zeros(cross),
    }
    for place, (name, processor) in enumerate(unet.attn_processors.items()):
        if name.endswith("attn2.processor"):
            attention = unet.get_submodule(name.removesuffix(".processor"))
            assert processor is attention.processor
            for matrix, like in (("to_k_ip", attention.to_k), ("to_v_ip", attention.to_v)):
                tensors[f"ip_adapter.{place}.{matrix}.weight"] = like.weight.detach().cpu().float()
    save_file(
        {key: value.to(dtype) for key, value in tensors.items()},
        folder / "adapter" / "adapter.safetensors",
    )


def write_tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer that knows letters only."""
    folder.mkdir(parents=True)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "an</w>"]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: place for place, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\na n</w>\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77
    )
