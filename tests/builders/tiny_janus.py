"""A tiny random Janus-Pro in transformers' own format, for tests: written by transformers, not by us."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from builders.tiny_clip import WORDS

BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
IMAGE, START, END = "<image_placeholder>", "<begin_of_image>", "<end_of_image>"
SPECIAL = [BOS, EOS, PAD, IMAGE, "<|User|>", "<|Assistant|>", START, END]
SIDE, CODES, VOCABULARY, HIDDEN = 4, 24, 320, 32


def janus_tokenizer() -> Any:
    """Byte-level BPE with DeepSeek's token names behind the text, as in the published tokenizer.json."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from tokenizers.processors import TemplateProcessing

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in SPECIAL]
    )
    start = (BOS, tokenizer.token_to_id(BOS))
    tokenizer.post_processor = TemplateProcessing(single=f"{BOS} $A", special_tokens=[start])
    return tokenizer


def tiny_janus(seed: int = 0, **changes: Any) -> Any:
    """A random JanusForConditionalGeneration: pictures of 16 px, 4 x 4 codes out of 24."""
    from transformers import JanusConfig, JanusForConditionalGeneration, LlamaConfig
    from transformers.models.janus import JanusVisionConfig, JanusVQVAEConfig

    ids = {name: janus_tokenizer().token_to_id(name) for name in SPECIAL}
    text = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=ids[BOS],
        eos_token_id=ids[EOS],
        pad_token_id=ids[PAD],
    )
    vision = JanusVisionConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=4,
        projection_dim=HIDDEN, num_image_tokens=SIDE**2,
    )  # fmt: skip
    vq = JanusVQVAEConfig(
        embed_dim=6, num_embeddings=CODES, latent_channels=8, base_channels=32, num_res_blocks=1,
        channel_multiplier=[1, 2, 1], projection_dim=HIDDEN, image_token_embed_dim=HIDDEN,
    )  # fmt: skip
    config = JanusConfig(
        text_config=text, vision_config=vision, vq_config=vq, image_token_id=ids[IMAGE], **changes
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = JanusForConditionalGeneration(config).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.dim() > 1:  # norms stay; codes and words become unlike each other
                    large = "generation" in name or "embed" in name
                    weight.normal_(std=0.5 if large else 0.04 if "vqmodel" in name else 0.15)
            codes = model.model.vqmodel.quantize.embedding.weight
            codes.copy_(torch.nn.functional.normalize(torch.randn_like(codes), dim=-1))
    generation = model.generation_config
    generation.bos_token_id, generation.pad_token_id = ids[BOS], ids[PAD]
    generation.eos_token_id = ids[EOS]
    return model


def write_tiny_janus(directory: Path, seed: int = 0, **saving: Any) -> Path:
    """The directory that `save_pretrained` writes, with the tokenizer of the checkpoint."""
    from transformers import PreTrainedTokenizerFast

    tiny_janus(seed).save_pretrained(directory, **saving)
    PreTrainedTokenizerFast(
        tokenizer_object=janus_tokenizer(), bos_token=BOS, eos_token=EOS, pad_token=PAD
    ).save_pretrained(directory)
    return directory
