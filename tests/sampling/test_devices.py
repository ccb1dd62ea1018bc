"""What a model draws and learns on the device of the tests is what it does on a CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from builders.device import DEVICE
from builders.tiny_model import write_tiny_model
from PIL import Image

from stylear.model import lora
from stylear.model.layout import collate
from stylear.model.open import load_model
from stylear.model.style_model import StyleModel
from stylear.sampling.generate import generate, sample_codes
from stylear.sampling.styles import encode_styles


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    write_tiny_model(folder)
    return folder


@pytest.fixture(scope="module")
def model(directory: Path) -> StyleModel:
    return load_model(directory, DEVICE)


@pytest.fixture(scope="module")
def on_cpu(directory: Path) -> StyleModel:
    return load_model(directory)


REFERENCE = Image.radial_gradient("L").convert("RGB").resize((48, 48))


def test_style_tokens_are_those_of_a_cpu(model: StyleModel, on_cpu: StyleModel) -> None:
    (found,), (expected,) = (encode_styles(one, [REFERENCE], [None]) for one in (model, on_cpu))
    assert found is not None
    assert expected is not None
    assert found.device.type == DEVICE
    assert torch.allclose(found.cpu(), expected, atol=1e-3)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_codes_in_float32_are_those_of_a_cpu(
    model: StyleModel, on_cpu: StyleModel, temperature: float
) -> None:
    draws = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    codes = []
    for one in (model, on_cpu):
        ids = [one.encode_prompt(text, style=False) for text in ("a dog", "a red apple", "a cat")]
        drawn = sample_codes(
            one.decoder, one.layout, ids, [None] * 3, draws, top_k=50, temperature=temperature
        )
        codes.append(drawn.cpu())
    assert torch.equal(codes[0], codes[1])


def test_half_precision_draws_the_same_pictures_twice(directory: Path) -> None:
    half = load_model(directory, DEVICE, torch.bfloat16)
    assert half.decoder.model.norm.weight.dtype == torch.bfloat16
    pictures = [
        generate(half, ["a red apple", "a dog"], [REFERENCE, None], seeds=[1, 2]) for _ in range(2)
    ]
    assert [picture.size for picture in pictures[0]] == [(32, 32)] * 2
    assert [p.tobytes() for p in pictures[0]] == [p.tobytes() for p in pictures[1]]


def test_a_training_step_has_the_loss_and_gradients_of_a_cpu(directory: Path) -> None:
    losses, gradients = [], []
    for device in (DEVICE, "cpu"):
        one = load_model(directory, device)
        lora.apply_lora(one.decoder, 2)
        codes = torch.arange(16).view(4, 4)
        batch = collate([one.layout.example("a dog", codes)], one.layout.pad).to(device)
        hidden = one.decoder(one.decoder.embed(batch.ids))
        logits = one.decoder.image_logits(hidden[batch.code_rows, batch.code_columns - 1])
        loss = torch.nn.functional.cross_entropy(logits.float(), batch.codes)
        loss.backward()
        losses.append(loss.item())
        grads = [p.grad for p in lora.lora_parameters(one.decoder) if p.grad is not None]
        gradients.append(torch.cat([grad.flatten() for grad in grads]).cpu())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert gradients[1].norm() > 0
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-2, atol=1e-4)
