"""A tiny random FLUX pipeline and a Redux prior, on disk as their releases are."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxPriorReduxPipeline,
    FluxTransformer2DModel,
)
from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from builders.tiny_sdxl import write_tokenizer

POOLED, JOINT = 32, 24  # width of CLIP's pooled embedding, of T5's tokens


def write_flux(folder: Path) -> Path:
    """`flux` and `redux` below a folder: a pipeline that follows guidance, and its image prior."""
    torch.manual_seed(0)
    clip = write_tokenizer(folder / "words")
    text = CLIPTextConfig(
        vocab_size=len(clip),
        hidden_size=POOLED,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=2,
        projection_dim=POOLED,
        bos_token_id=clip.bos_token_id,
        eos_token_id=clip.eos_token_id,
        pad_token_id=clip.pad_token_id,
    )
    pieces = write_pieces()
    t5 = T5Config(vocab_size=len(pieces), d_model=JOINT, d_kv=8, d_ff=37, num_layers=2, num_heads=3)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=JOINT,
        pooled_projection_dim=POOLED,
        guidance_embeds=True,
        axes_dims_rope=(4, 4, 8),
    )
    vae = AutoencoderKL(
        block_out_channels=(4, 4),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=32,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.0609,
        scaling_factor=1.5035,
    )
    FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=clip,
        text_encoder_2=T5EncoderModel(t5),
        tokenizer_2=pieces,
        transformer=transformer,
    ).save_pretrained(folder / "flux")
    write_redux(folder / "redux")
    return folder


def write_pieces() -> T5TokenizerFast:
    """A T5 tokenizer whose pieces are letters."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + [",", "."]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    return T5TokenizerFast(vocab=[*pieces, *((letter, -3.0) for letter in letters)], extra_ids=0)


def write_redux(folder: Path, width: int = JOINT) -> Path:
    """The Redux release: image_encoder, feature_extractor and image_embedder, no text encoders."""
    torch.manual_seed(1)
    vision = SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=28,
        patch_size=7,
    )
    FluxPriorReduxPipeline(
        image_encoder=SiglipVisionModel(vision),
        feature_extractor=SiglipImageProcessor(size={"height": 28, "width": 28}),
        image_embedder=ReduxImageEncoder(redux_dim=16, txt_in_features=width),
    ).save_pretrained(folder)
    return folder
