"""Static steps, as a GPU replays them, draw the same codes as steps that attend to exactly what is filled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from builders.tiny_clip import WORDS
from torch import Tensor

from stylear.model.decoder_config import DecoderConfig
from stylear.model.families.chameleon import ChameleonLayout
from stylear.model.fuse import fuse_decoder
from stylear.model.open import open_model
from stylear.model.style_model import StyleModel
from stylear.model.tokenizer import build_tokenizer
from stylear.model.transformer import Decoder
from stylear.sampling import decode
from stylear.sampling.decode import CodeSampler

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
LAYOUT = ChameleonLayout(build_tokenizer(WORDS, 64, size_units=[2, 3], text_vocabulary=64))
SETTINGS: dict[str, Any] = {"guidance": 4.0, "top_k": 40, "temperature": 1.0}


def random_decoder(**changes: Any) -> Decoder:
    torch.manual_seed(0)
    config = DecoderConfig(vocab_size=len(LAYOUT.vocabulary), **SIZES | changes)
    decoder = Decoder(config, LAYOUT.image_token_ids).eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return decoder


def draws(batch: int, height: int = 4, width: int = 4, seed: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, height, width, generator=generator, dtype=torch.float64)


def prompts(*texts: str) -> list[list[int]]:
    return [LAYOUT.encode_prompt(text) for text in texts]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"swin_norm": True, "num_key_value_heads": 2},  # Chameleon-34B
        {"qk_norm": False, "num_key_value_heads": 1},
    ],
)
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_static_steps_draw_the_codes_of_exact_steps(
    changes: dict[str, Any], guidance: float
) -> None:
    decoder = random_decoder(**changes)
    ids, numbers = prompts("a red apple", "cat"), draws(2, 4, 6)
    settings = SETTINGS | {"guidance": guidance}
    exact = CodeSampler(decoder, LAYOUT, **settings).draw(ids, [None] * 2, numbers)
    fuse_decoder(decoder)
    static = CodeSampler(decoder, LAYOUT, **settings, static=True, bucket=8)
    assert torch.equal(static.draw(ids, [None] * 2, numbers), exact)
    assert len(torch.unique(exact)) > 5


@pytest.fixture(scope="module")
def mini() -> StyleModel:
    return open_model("mini-ar", device="cpu")


def test_static_steps_draw_the_codes_of_exact_steps_with_the_mini_model(mini: StyleModel) -> None:
    ids = [mini.encode_prompt(text, style=False) for text in ("a red apple", "a dog")]
    numbers = draws(2, *mini.grid)
    exact, static = (
        CodeSampler(mini.decoder, mini.layout, **SETTINGS, static=static, bucket=32).draw(
            ids, [None] * 2, numbers
        )
        for static in (False, True)
    )
    assert torch.equal(static, exact)
    assert len(torch.unique(exact)) > 20


class Replayed:
    """A captured step for a CPU: a replay runs it again."""

    def __init__(self, run: Callable[[], None], pool: Any) -> None:
        self.run, self.shared_pool, self.replays = run, pool, 0

    def replay(self) -> None:
        self.replays += 1
        self.run()

    def pool(self) -> str:
        return "pool"


def test_each_kind_of_step_is_captured_once_and_then_replayed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    captured: list[Replayed] = []

    def capture(run: Callable[[], None], pool: Any, device: torch.device) -> Replayed:
        captured.append(Replayed(run, pool))
        return captured[-1]

    monkeypatch.setattr(decode, "capture_graph", capture)
    decoder = random_decoder()
    exact = CodeSampler(decoder, LAYOUT, **SETTINGS)
    sampler = CodeSampler(decoder, LAYOUT, **SETTINGS, static=True, bucket=16)
    sampler.captures = True
    first, second = prompts("a red apple", "cat"), prompts("dog", "a blue boat")
    for ids, seed in ((first, 1), (second, 2), (first, 3)):
        numbers = draws(2, 4, 6, seed)
        codes = sampler.draw(ids, [None] * 2, numbers)
        assert torch.equal(codes, exact.draw(ids, [None] * 2, numbers))
    # slots 18 to 43 lie in two buckets, and rows end in both
    assert len(captured) == 4
    assert sum(graph.replays for graph in captured) == 3 * 23 - 4
    assert [graph.shared_pool for graph in captured] == [None, *["pool"] * 3]


def test_a_step_is_captured_on_the_gpu_of_the_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[Any] = []
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: "graph")
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: f"a stream of {device}")
    for name in ("device", "graph"):
        monkeypatch.setattr(
            torch.cuda, name, lambda it, **options: nullcontext(entered.append((it, options)))
        )
    fifth = torch.device("cuda", 5)
    assert decode.capture_graph(lambda: None, "pool", fifth) == "graph"
    (device, _), (_, options) = entered
    assert device == fifth
    assert (options["stream"], options["pool"]) == ("a stream of cuda:5", "pool")
    decode.open_capture_stream.cache_clear()


def test_what_was_captured_is_dropped_with_another_shape_or_other_weights() -> None:
    decoder = random_decoder()
    sampler = CodeSampler(decoder, LAYOUT, **SETTINGS, static=True, bucket=64)

    def batch_of(*texts: str) -> Any:
        sampler.draw(prompts(*texts), [None] * len(texts), draws(len(texts)))
        return sampler._batch

    first = batch_of("cat")
    assert batch_of("a red dog") is first
    assert batch_of("cat", "dog") is not first
    first = batch_of("cat")
    fuse_decoder(decoder)
    assert batch_of("cat") is not first


def test_a_step_reads_nothing_back_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a GPU fails on it during capture; here every way of reading a tensor is counted."""
    decoder = random_decoder()
    calls: Counter[str] = Counter()
    for name in ("item", "tolist", "cpu", "__bool__", "__int__", "__float__", "__index__"):
        plain = getattr(Tensor, name)

        def counted(self: Tensor, *args: Any, name: str = name, plain: Any = plain) -> Any:
            calls[name] += 1
            return plain(self, *args)

        monkeypatch.setattr(Tensor, name, counted)
    sampler = CodeSampler(decoder, LAYOUT, **SETTINGS, static=True, bucket=8)
    numbers = [draws(1, 4, 4), draws(1, 6, 6)]
    counts = []
    for number in numbers:
        calls.clear()
        sampler.draw(prompts("cat"), [None], number)
        counts.append(sum(calls.values()))
    assert counts[0] == counts[1] > 0
