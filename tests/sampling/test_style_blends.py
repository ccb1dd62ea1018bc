"""Several references make one style by their weights, also on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.tiny_model import write_tiny_model
from PIL import Image
from typer.testing import CliRunner

from stylear.cli import app
from stylear.errors import UsageError
from stylear.model.style_model import StyleModel
from stylear.sampling.generate import generate
from stylear.sampling.references import load_blend, name_blend, split_weight
from stylear.sampling.styles import StyleBlend, encode_styles


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_model(folder)
    return folder


@pytest.fixture(scope="module")
def model(directory: Path) -> StyleModel:
    from stylear.model.open import load_model

    return load_model(directory)


def reference(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{name}.png" for name in ("a", "b")]
    for seed, path in enumerate(paths):
        reference(seed).save(path)
    return [str(path) for path in paths]


def encode(model: StyleModel, *styles: Image.Image | StyleBlend) -> list[torch.Tensor]:
    tokens = encode_styles(model, styles, [None] * len(styles))
    return [part for part in tokens if part is not None]


def test_tokens_of_a_blend_are_the_weighted_average(model: StyleModel) -> None:
    one, two = reference(0), reference(1)
    a, b, even, uneven, alone = encode(
        model,
        one,
        two,
        StyleBlend([one, two]),
        StyleBlend([one, two], [6.0, 2.0]),
        StyleBlend([two]),
    )
    assert torch.allclose(even, (a + b) / 2, atol=1e-6)
    assert torch.allclose(uneven, 0.75 * a + 0.25 * b, atol=1e-6)
    assert torch.equal(alone, b)


def test_masks_of_a_blend_are_those_of_its_pictures(model: StyleModel) -> None:
    mask = np.zeros((32, 32), dtype=bool)
    mask[4:20, 8:16] = True
    one, two = reference(0), reference(1)
    masked, plain = encode_styles(model, [one, two], [mask, None])
    (tokens,) = encode_styles(model, [StyleBlend([one, two], masks=[mask, None])], [None])
    assert masked is not None
    assert plain is not None
    assert tokens is not None
    assert torch.allclose(tokens, (masked + plain) / 2, atol=1e-6)
    with pytest.raises(UsageError, match="masks: expected those of a StyleBlend within it"):
        encode_styles(model, [StyleBlend([one, two])], [mask])


def test_a_blend_that_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="expected at least one picture of a style"):
        StyleBlend([])
    with pytest.raises(UsageError, match="weights: expected one for each of 2 references, found 1"):
        StyleBlend([reference(0), reference(1)], [1.0])
    for weight in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="expected a number above 0, found"):
            StyleBlend([reference(0)], [weight])


def test_a_weight_stands_behind_a_colon(tmp_path: Path) -> None:
    assert split_weight("style.png:0.7") == ("style.png", 0.7)
    assert split_weight("style.png") == ("style.png", 1.0)
    (tmp_path / "a:2").write_text("x")  # a file of that name
    assert split_weight(str(tmp_path / "a:2")) == (str(tmp_path / "a:2"), 1.0)
    with pytest.raises(UsageError, match=r"--reference a\.png:x: expected PICTURE:WEIGHT"):
        split_weight("a.png:x")
    with pytest.raises(UsageError, match="expected a number above 0, found -1"):
        split_weight("a.png:-1")


def test_a_blend_of_many_names_the_first() -> None:
    assert name_blend(["a", "b"]) == "a + b"
    assert name_blend(list("abcdef")) == "a + b + c + d + 2 more"


def test_the_weight_of_a_folder_is_shared_by_its_pictures(
    pictures: list[str], tmp_path: Path
) -> None:
    single = tmp_path / "other" / "c.png"
    single.parent.mkdir()
    reference(2).save(single)
    blend = load_blend([f"{tmp_path}:3", f"{single}:1"])
    assert [(part.reference.id, part.weight) for part in blend.parts] == [
        ("a", 0.375),
        ("b", 0.375),
        ("c", 0.25),
    ]
    assert (blend.id, blend.style, blend.picture.size) == ("a + b + c", "blend", (96, 32))
    assert load_blend([str(single)]).parts == ()


@pytest.mark.cpu  # on a GPU the command draws in half precision
def test_the_command_draws_with_the_average_and_records_the_weights(
    directory: Path, model: StyleModel, pictures: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["generate", "--model", str(directory), "--prompt", "a cat", "--out", str(out)]
    result = CliRunner().invoke(
        app, [*words, "--reference", f"{pictures[0]}:3", "--reference", pictures[1], "--json"]
    )
    assert result.exit_code == 0, result.exception
    (line,) = json.loads(result.stdout)["pictures"]
    assert line["style"] == "a + b"
    assert [(part["id"], part["weight"]) for part in line["references"]] == [
        ("a", 0.75),
        ("b", 0.25),
    ]
    blend = StyleBlend([reference(0), reference(1)], [0.75, 0.25])
    (expected,) = generate(model, ["a cat"], [blend], seeds=[0])
    with Image.open(out / line["file"]) as picture:
        assert picture.tobytes() == expected.tobytes()
