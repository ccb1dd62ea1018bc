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
    """The IP-Adapter's release: plain and plus adapters, each as flat keys (.safetensors) and as
    nested ones (.bin), and two image encoders; the `vit-h` adapters use that of models/."""
    large, huge = 24, 20  # embeddings of the encoder beside the adapters, of that of models/
    write_encoder(folder / "sdxl_models" / "image_encoder", hidden=16, embedding=large)
    write_encoder(folder / "models" / "image_encoder", hidden=8, embedding=huge)
    kinds = {
        "ip-adapter_sdxl": plain_projection(large),
        "ip-adapter_sdxl_vit-h": plain_projection(huge),
        "ip-adapter-plus_sdxl_vit-h": plus_projection(hidden=8),
    }
    for name, projection in kinds.items():
        parts = {"image_proj": projection, "ip_adapter": attention_matrices(unet)}
        flat = {f"{part}.{key}": value for part in parts for key, value in parts[part].items()}
        save_file(flat, folder / "sdxl_models" / f"{name}.safetensors")
        torch.save(parts, folder / "sdxl_models" / f"{name}.bin")


def write_encoder(folder: Path, hidden: int, embedding: int) -> None:
    vision = CLIPVisionConfig(
        hidden_size=hidden,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=embedding,
    )
    CLIPVisionModelWithProjection(vision).save_pretrained(folder)


def plain_projection(embedding: int) -> dict[str, torch.Tensor]:
    """image_proj of a plain adapter: 4 tokens of an image embedding."""
    return {
        "proj.weight": torch.randn(4 * CROSS, embedding),
        "proj.bias": torch.zeros(4 * CROSS),
        "norm.weight": torch.ones(CROSS),
        "norm.bias": torch.zeros(CROSS),
    }


def plus_projection(
    hidden: int, width: int = 16, queries: int = 3, heads: int = 2
) -> dict[str, torch.Tensor]:
    """image_proj of a plus adapter: a resampler of 4 layers over hidden states."""
    inner = 64 * heads
    tensors = {
        "latents": torch.randn(1, queries, width),
        "proj_in.weight": torch.randn(width, hidden),
        "proj_in.bias": torch.randn(width),
        "proj_out.weight": torch.randn(CROSS, width),
        "proj_out.bias": torch.randn(CROSS),
        "norm_out.weight": torch.ones(CROSS),
        "norm_out.bias": torch.zeros(CROSS),
    }
    for layer in range(4):
        tensors |= {
            f"layers.{layer}.0.norm1.weight": torch.ones(width),
            f"layers.{layer}.0.norm1.bias": torch.randn(width),
            f"layers.{layer}.0.norm2.weight": torch.ones(width),
            f"layers.{layer}.0.norm2.bias": torch.randn(width),
            f"layers.{layer}.0.to_q.weight": torch.randn(inner, width),
            f"layers.{layer}.0.to_kv.weight": torch.randn(2 * inner, width),
            f"layers.{layer}.0.to_out.weight": torch.randn(width, inner),
            f"layers.{layer}.1.0.weight": torch.ones(width),
            f"layers.{layer}.1.0.bias": torch.zeros(width),
            f"layers.{layer}.1.1.weight": torch.randn(4 * width, width),
            f"layers.{layer}.1.3.weight": torch.randn(width, 4 * width),
        }
    return tensors


def attention_matrices(unet: UNet2DConditionModel) -> dict[str, torch.Tensor]:
    """The ip_adapter part: keys and values of every cross attention, numbered as processors are."""
    tensors = {}
    for place, name in enumerate(unet.attn_processors):
        if name.endswith("attn2.processor"):
            block, number = name.split(".")[:2]
            widths = unet.config.block_out_channels
            if block == "up_blocks":
                width = widths[::-1][int(number)]
            else:
                width = widths[-1] if block == "mid_block" else widths[int(number)]
            tensors[f"{place}.to_k_ip.weight"] = torch.randn(width, CROSS)
            tensors[f"{place}.to_v_ip.weight"] = torch.randn(width, CROSS)
    return tensors


def write_lora(path: Path, unet: UNet2DConditionModel, rank: int = 2, kind: str = "peft") -> Path:
    """A LoRA over the UNet's attention, in one of the three ways in which releases name its keys."""
    torch.manual_seed(1)
    tensors = {}
    for name, module in unet.named_modules():
        if name.endswith(("to_q", "to_out.0")) and isinstance(module, torch.nn.Linear):
            down = torch.randn(rank, module.in_features) * 0.3
            up = torch.randn(module.out_features, rank) * 0.3
            if kind == "peft":
                both = (f"unet.{name}.lora_A.weight", f"unet.{name}.lora_B.weight")
            elif kind == "diffusers":
                both = (f"unet.{name}.lora.down.weight", f"unet.{name}.lora.up.weight")
            else:  # kohya, as the LCM and Lightning releases
                flat = f"lora_unet_{name.replace('.', '_')}"
                both = (f"{flat}.lora_down.weight", f"{flat}.lora_up.weight")
                tensors[f"{flat}.alpha"] = torch.tensor(float(rank))
            tensors |= zip(both, (down, up), strict=True)
    save_file(tensors, path)
    return path
