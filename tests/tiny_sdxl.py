"""A tiny random SDXL pipeline, image encoder and IP-Adapter, on disk as their releases are."""

from __future__ import annotations

import json
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

WIDTH, CROSS = 32, 64  # of a text encoder, of both together


def write_tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer that knows letters only."""
    folder.mkdir(parents=True)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + [",", "."]
    words = [*letters, *(letter + "</w>" for letter in letters)]
    vocabulary = {word: place for place, word in enumerate(words)}
    vocabulary["<|startoftext|>"] = len(vocabulary)
    vocabulary["<|endoftext|>"] = len(vocabulary)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\na n</w>\n")
    vocabulary["an</w>"] = len(vocabulary)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77
    )


def write_sdxl(folder: Path) -> Path:
    """An SDXL pipeline directory with random weights; UNet blocks stand where SDXL's do."""
    torch.manual_seed(0)
    tokenizer = write_tokenizer(folder / "words")
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=3,
        projection_dim=WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16, 16),
        norm_num_groups=4,
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
        transformer_layers_per_block=(1, 1, 1),
        cross_attention_dim=CROSS,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        sample_size=16,
    )
    pipeline = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        text_encoder_2=CLIPTextModelWithProjection(text),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
        ),
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder / "sdxl")
    write_adapter(folder / "adapter", unet)
    return folder


def write_adapter(folder: Path, unet: UNet2DConditionModel) -> None:
    """The IP-Adapter's release: sdxl_models/ip-adapter_sdxl.safetensors and image_encoder/."""
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=24,
    )
    CLIPVisionModelWithProjection(vision).save_pretrained(folder / "sdxl_models" / "image_encoder")
    tensors = {
        "image_proj.proj.weight": torch.randn(4 * CROSS, 24),
        "image_proj.proj.bias": torch.zeros(4 * CROSS),
        "image_proj.norm.weight": torch.ones(CROSS),
        "image_proj.norm.bias": torch.zeros(CROSS),
    }
    for place, name in enumerate(unet.attn_processors):
        if name.endswith("attn2.processor"):
            block, number = name.split(".")[:2]
            widths = unet.config.block_out_channels
            if block == "up_blocks":
                width = widths[::-1][int(number)]
            else:
                width = widths[-1] if block == "mid_block" else widths[int(number)]
            tensors[f"ip_adapter.{place}.to_k_ip.weight"] = torch.randn(width, CROSS)
            tensors[f"ip_adapter.{place}.to_v_ip.weight"] = torch.randn(width, CROSS)
    save_file(tensors, folder / "sdxl_models" / "ip-adapter_sdxl.safetensors")
