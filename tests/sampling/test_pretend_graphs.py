"""Captured steps wait for nothing, keep their tensors in place and draw the codes of eager steps.

These run in the process that `tests/train/test_pretend_gpu.py` starts.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from builders.device import DEVICE
from builders.tiny_model import write_tiny_model

from stylear.model.open import load_model
from stylear.model.style_model import StyleModel
from stylear.sampling import decode
from stylear.sampling.decode import CodeSampler
from stylear.sampling.speculative import SpeculativeSampler

pytestmark = pytest.mark.skipif(
    DEVICE != "pretend", reason="runs where the pretend GPU is registered"
)
SETTINGS: dict[str, Any] = {"guidance": 4.0, "top_k": 50, "temperature": 1.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StyleModel:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    write_tiny_model(folder)
    return load_model(folder, DEVICE)


@pytest.mark.parametrize("window", [0, 3])
def test_replayed_steps_draw_the_codes_of_eager_steps(
    model: StyleModel, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    from builders.pretend_graph import Graph

    graphs: list[Graph] = []

    def capture(*arguments: Any) -> Graph:
        graphs.append(Graph(*arguments))
        return graphs[-1]

    monkeypatch.setattr(decode, "capture_graph", capture)
    kind: Any = SpeculativeSampler if window else CodeSampler
    settings = SETTINGS | ({"window": window} if window else {})
    eager = kind(model.decoder, model.layout, **settings)
    static = kind(model.decoder, model.layout, **settings, static=True, bucket=16)
    static.captures = True
    for seed, texts in enumerate((("a dog", "a red apple"), ("a cat", "a dog"))):
        prompts = [model.encode_prompt(text, style=False) for text in texts]
        generator = torch.Generator().manual_seed(seed)
        draws = torch.rand(2, 4, 4, generator=generator, dtype=torch.float64)
        found, expected = (one.draw(prompts, [None] * 2, draws) for one in (static, eager))
        assert found.tolist() == expected.tolist()
    assert sum(graph.replays for graph in graphs) > 4


def test_a_step_that_waits_for_the_gpu_cannot_be_captured() -> None:
    from builders.pretend_graph import Graph

    value = torch.ones(2, device=DEVICE)
    gpu = torch.device(DEVICE)
    for step in (lambda: value.sum().item(), lambda: value[value > 0], lambda: value.cpu()):
        with pytest.raises(RuntimeError, match="not permitted"):
            Graph(step, None, gpu)
    graph = Graph(lambda: value.add_(1), None, gpu)
    assert value.tolist() == [1, 1]
    graph.replay()
    assert value.tolist() == [2, 2]
