"""Janus is transformers': hidden states, logits of codes, pixels, and the codes that it draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from builders.tiny_janus import (
    CODES,
    SIDE,
    VOCABULARY,
    janus_tokenizer,
    tiny_janus,
    write_tiny_janus,
)
from safetensors.torch import load_file

from stylear.model.families.janus import FAMILY, VQ_PREFIX, turn_levels
from stylear.model.fuse import fuse_decoder
from stylear.model.open import load_model
from stylear.model.style_model import StyleModel
from stylear.model.vq import VQModel
from stylear.sampling.decode import CodeSampler
from stylear.sampling.generate import sample_codes
from stylear.sampling.speculative import SpeculativeSampler

PROMPT = "<|User|>: a red apple\n\n<|Assistant|>:"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_janus(tmp_path_factory.mktemp("janus") / "tiny-janus")


@pytest.fixture(scope="module")
def theirs(place: Path) -> Any:
    from transformers import JanusForConditionalGeneration

    model = JanusForConditionalGeneration.from_pretrained(place).eval()
    start = janus_tokenizer().token_to_id("<begin_of_image>")
    model.generation_config.generation_kwargs = {"boi_token_id": start}
    return model


@pytest.fixture(scope="module")
def model(place: Path) -> StyleModel:
    return load_model(place)


@torch.no_grad()
def test_hidden_states_and_generation_logits_equal_transformers(
    theirs: Any, model: StyleModel
) -> None:
    text, codes = torch.randint(0, VOCABULARY, (2, 7)), torch.randint(0, CODES, (2, 9))
    drawn = theirs.prepare_embeddings_for_image_generation(codes)
    embeds = torch.cat([theirs.get_input_embeddings()(text), drawn], dim=1)
    expected = theirs.model.language_model(inputs_embeds=embeds).last_hidden_state
    embedded = model.decoder.embed(torch.cat([text, codes + VOCABULARY], dim=1))
    assert torch.allclose(embedded, embeds, atol=1e-6)
    hidden = model.decoder(embedded)
    assert torch.allclose(hidden, expected, atol=1e-5)
    logits = theirs.model.generation_head(expected)
    assert logits.std() > 0.5
    assert torch.allclose(model.decoder.image_logits(hidden), logits, atol=1e-5)


@torch.no_grad()
def test_codes_and_pixels_equal_transformers(theirs: Any, model: StyleModel) -> None:
    torch.manual_seed(0)
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    expected = theirs.model.vqmodel.encode(pixels).image_tokens.view(2, SIDE, SIDE)
    found = model.vq.encode(pixels)
    assert torch.equal(found, expected)
    assert len(found.unique()) > 3
    drawn = theirs.decode_image_tokens(expected.flatten(1)).permute(0, 3, 1, 2)
    assert drawn.std() > 0.1
    assert torch.allclose(model.vq.decode(found), drawn, atol=1e-5)


@torch.no_grad()
def test_codes_are_compared_by_direction_as_in_the_published_code(model: StyleModel) -> None:
    codes = model.vq.quantize.embedding.weight
    latents = torch.randn(40, codes.shape[1])
    expected = torch.nn.functional.cosine_similarity(latents[:, None], codes[None], dim=-1)
    before = codes.clone()
    try:
        codes.mul_(torch.rand(len(codes), 1) * 3 + 0.1)
        assert torch.equal(model.vq.quantize.nearest(latents), expected.argmax(1))
    finally:
        codes.copy_(before)


@torch.no_grad()
@pytest.mark.parametrize("guidance", [2.0, 5.0])
def test_drawn_codes_equal_those_of_transformers(
    theirs: Any, model: StyleModel, guidance: float
) -> None:
    ids = model.layout.encode_prompt("a red apple", 0, model.settings.caption_template)
    start = model.layout.prefix(SIDE, SIDE)
    prompt = torch.tensor([[*ids, *start]])
    expected = theirs.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        generation_mode="image",
        do_sample=False,
        guidance_scale=guidance,
    )
    draws = torch.zeros(1, SIDE, SIDE)
    found = sample_codes(
        model.decoder, model.layout, [ids], [None], draws, guidance=guidance, temperature=0
    )
    assert torch.equal(found.flatten(1), expected)
    assert len(found.unique()) > 2


def test_prompts_of_different_lengths_are_drawn_together_as_alone(model: StyleModel) -> None:
    prompts = [model.encode_prompt(text) for text in ("cat", "a red apple in the house")]
    draws = torch.rand(2, SIDE, SIDE, dtype=torch.float64)

    def draw(part: slice) -> torch.Tensor:
        styles = [None] * len(prompts[part])
        return sample_codes(model.decoder, model.layout, prompts[part], styles, draws[part])

    alone = torch.cat([draw(slice(0, 1)), draw(slice(1, 2))])
    assert torch.equal(draw(slice(0, 2)), alone)


def test_static_steps_of_a_fused_decoder_draw_the_same_codes(
    place: Path, model: StyleModel
) -> None:
    prompts = [model.encode_prompt(text) for text in ("cat", "a red apple in the house")]
    draws = torch.rand(2, SIDE, SIDE, dtype=torch.float64)
    settings: dict[str, Any] = {"guidance": 5.0, "top_k": 12, "temperature": 1.0}
    expected = sample_codes(model.decoder, model.layout, prompts, [None] * 2, draws, **settings)
    fused = load_model(place).decoder
    fuse_decoder(fused)
    sampler = CodeSampler(fused, model.layout, static=True, bucket=16, **settings)
    assert torch.equal(sampler.draw(prompts, [None] * 2, draws), expected)


def test_speculation_draws_the_same_codes_at_temperature_0(model: StyleModel) -> None:
    prompts = [model.encode_prompt(text) for text in ("cat", "a red apple in the house")]
    draws = torch.zeros(2, SIDE, SIDE, dtype=torch.float64)
    settings: dict[str, Any] = {"guidance": 5.0, "top_k": 12, "temperature": 0}
    expected = sample_codes(model.decoder, model.layout, prompts, [None] * 2, draws, **settings)
    sampler = SpeculativeSampler(model.decoder, model.layout, window=4, **settings)
    assert torch.equal(sampler.draw(prompts, [None] * 2, draws), expected)


def test_a_prompt_is_the_chat_turn_that_transformers_tokenizer_writes(
    place: Path, model: StyleModel
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(place)
    assert model.encode_prompt("a red apple") == tokenizer(PROMPT).input_ids
    layout = model.layout
    styled = layout.encode_prompt("a dog", 3, model.settings.prompt_template)
    assert styled.count(layout.style_placeholder) == 3
    names = [layout.tokenizer.id_to_token(i) for i in layout.null_prompt(styled)]
    assert names == ["<｜begin▁of▁sentence｜>", *["<｜▁pad▁｜>"] * (len(styled) - 1)]


@pytest.mark.parametrize("name", ["<image_placeholder>", "<begin_of_image>", "<|User|>"])
def test_a_caption_cannot_smuggle_special_tokens(model: StyleModel, name: str) -> None:
    plain = model.encode_prompt("a  dog")
    ids = model.encode_prompt(f"a {name}{name} dog")
    special = set(model.layout.tokenizer.get_added_tokens_decoder())
    assert [i for i in ids if i in special] == [i for i in plain if i in special]


def test_a_training_sequence_has_codes_behind_the_vocabulary(model: StyleModel) -> None:
    layout, codes = model.layout, torch.arange(16).view(4, 4)
    example = layout.example("a dog", codes, 2, model.settings.prompt_template)
    span = example.ids[example.image_start :].tolist()
    assert span == [layout.vocabulary["<begin_of_image>"], *range(320, 336), layout.image_end]
    assert example.ids[example.code_positions].tolist() == list(range(320, 336))
    assert len(example.style_positions) == 2
    prompt = example.ids[: example.image_start].tolist()
    free = layout.unconditional(codes, prompt)
    assert free.ids.tolist() == [*layout.null_prompt(prompt), *span]
    assert torch.equal(free.code_positions, example.code_positions)
    assert len(free.style_positions) == 0


@torch.no_grad()
@pytest.mark.parametrize("saving", [{"max_shard_size": "40KB"}, {"safe_serialization": True}])
def test_every_way_of_saving_is_read(place: Path, tmp_path: Path, saving: dict[str, Any]) -> None:
    write_tiny_janus(tmp_path / "again", **saving)
    assert (tmp_path / "again" / "model.safetensors.index.json").exists() == (
        "max_shard_size" in saving
    )
    found, expected = (load_model(d).decoder.state_dict() for d in (tmp_path / "again", place))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_settings_that_transformers_leaves_out_have_its_defaults(place: Path) -> None:
    from transformers import JanusConfig

    full = JanusConfig().to_dict()
    short = {"model_type": "janus", "text_config": {"hidden_size": 2048}, "vq_config": {}}
    full["text_config"]["hidden_size"] = 2048
    full["text_config"].pop("head_dim")
    assert FAMILY.read_config(short) == FAMILY.read_config(full)
    layout = load_model(place).layout
    with torch.device("meta"):
        one, two = (FAMILY.build_decoder(config, layout) for config in (short, full))
    shapes = {name: tuple(value.shape) for name, value in two.state_dict().items()}
    assert {name: tuple(value.shape) for name, value in one.state_dict().items()} == shapes
    assert shapes["generation_head.vision_head.weight"] == (16384, 2048)


@pytest.mark.parametrize(
    ("hidden", "inner", "layers", "parameters"), [(2048, 5632, 24, 1.5), (4096, 11008, 30, 6.6)]
)
def test_every_tensor_of_the_published_sizes_has_its_place(
    model: StyleModel, hidden: int, inner: int, layers: int, parameters: float
) -> None:
    from transformers import JanusConfig, JanusForConditionalGeneration

    heads = hidden // 128
    text = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers}
    text |= {"num_attention_heads": heads, "num_key_value_heads": heads, "vocab_size": 102400}
    config = JanusConfig(
        text_config={"model_type": "llama", "max_position_embeddings": 16384, **text},
        vq_config={"projection_dim": hidden, "image_token_embed_dim": hidden},
        vision_config={"projection_dim": hidden, "num_hidden_layers": 1},
    ).to_dict()
    with torch.device("meta"):
        theirs = JanusForConditionalGeneration(JanusConfig(**config))
        decoder = FAMILY.build_decoder(config, model.layout)
        vq = VQModel(FAMILY.read_vq_config(config))
    own = {decoder.checkpoint_name(name): v.shape for name, v in decoder.state_dict().items()}
    own |= {
        VQ_PREFIX + turn_levels(name, vq.config): value.shape
        for name, value in vq.state_dict().items()
    }
    unused = ("model.vision_model.", "model.aligner.", "lm_head.")
    shapes = {name: value.shape for name, value in theirs.state_dict().items()}
    assert own == {name: v for name, v in shapes.items() if not name.startswith(unused)}
    assert (vq.config.resolution, vq.config.factor) == (384, 16)
    assert round(decoder.num_parameters / 1e9, 1) == parameters


def test_a_decoder_loads_no_part_that_takes_none_in_drawing(place: Path, model: StyleModel) -> None:
    stored = load_file(place / "model.safetensors")
    unused = ("model.vision_model.", "model.aligner.", "lm_head.", "model.vqmodel.")
    kept = {name for name in stored if not name.startswith(unused)}
    own = {model.decoder.checkpoint_name(name) for name in model.decoder.state_dict()}
    assert own == kept


def test_the_tiny_model_is_the_same_for_the_same_seed() -> None:
    one, two = tiny_janus(3).state_dict(), tiny_janus(3).state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)
