"""A Janus model is trained, drawn with and measured by the commands that serve every family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.tiny_clip import write_tiny_clip
from builders.tiny_corpus import write_tiny_corpus
from builders.tiny_janus import write_tiny_janus
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from stylear.cli import app
from stylear.encoders.preprocess import to_rgb
from stylear.errors import UsageError
from stylear.model.lineage import hash_decoder
from stylear.model.open import load_model
from stylear.train.cli import app as train_app
from stylear.train.metrics import read_metrics

PROMPT = "a red apple"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("janus")
    write_tiny_corpus(root / "corpus")
    write_tiny_janus(root / "janus")
    write_tiny_clip(root / "clip")
    settings = {
        "clip": str(root / "clip"),
        "resampler": {"depth": 1, "heads": 2, "dim_head": 8},
        "style_tokens": 3,
        "sample_every": 100,
        "condition_dropout": 0.4,
        "lora_rank": 2,
    }
    (root / "sft.yaml").write_text(json.dumps(settings))
    for seed in range(2):
        noise = torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8).numpy()
        folder = root / "styles"
        folder.mkdir(exist_ok=True)
        Image.fromarray(noise).save(folder / f"style{seed}--0.png")
    return root


def run(*arguments: object) -> str:
    """stdout of `stylear ...`; `train` has an application of its own."""
    words = [str(argument) for argument in arguments]
    own = words[0] == "train"
    result = CliRunner().invoke(train_app if own else app, words[own:])
    assert result.exit_code == 0, result.output
    return result.stdout


def train(place: Path, kind: str, model: Path, out: str, *more: object) -> Path:
    config = ("--config", place / "sft.yaml") if kind == "sft" else ()
    printed = run(
        *("train", kind, *config, "--corpus", place / "corpus", "--model", model),
        *("--out", place / out, "--encoded", place / "encoded", "--batch-size", 4, "--lr", 0.01),
        *("--device", "cpu", *more, "--json"),
    )
    return Path(json.loads(printed)["model"])


@pytest.fixture(scope="module")
def tuned(place: Path) -> Path:
    return train(place, "sft", place / "janus", "sft", "--steps", 10)


def test_style_tokens_and_lora_are_trained_on_a_janus_base(place: Path, tuned: Path) -> None:
    model = load_model(tuned)
    assert (model.num_style_tokens, model.grid) == (3, (4, 4))
    expected = {"model": str(place / "janus"), "sha256": hash_decoder(place / "janus")}
    assert {key: model.settings.base[key] for key in expected} == expected
    changed = load_file(tuned / "adapter_model.safetensors")
    up = [value for name, value in changed.items() if name.endswith("lora_B.weight")]
    assert len(up) == 2 * 5 + 1
    assert all(bool(value.any()) for value in up)
    losses = [line["loss"] for line in read_metrics(tuned.parent / "metrics.jsonl")]
    assert sum(losses[-3:]) < sum(losses[:3])
    assert (tuned.parent / "samples" / "step-0000010.png").is_file()


def test_preferences_are_learned_on_top(place: Path, tuned: Path) -> None:
    final = train(place, "dpo", tuned.parent, "dpo", "--steps", 3)
    lines = read_metrics(final.parent / "metrics.jsonl")
    assert lines[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert load_model(final).num_style_tokens == 3


def test_all_weights_can_be_trained_and_saved(place: Path) -> None:
    final = train(place, "sft", place / "janus", "full", "--steps", 2, "--full")
    before, after = (load_model(path) for path in (place / "janus", final))
    for name in ("generation_embeddings.weight", "model.layers.0.mlp.up_proj.weight"):
        first, second = (model.decoder.state_dict()[name] for model in (before, after))
        assert not torch.allclose(first, second, atol=1e-3)
    found, expected = after.vq.state_dict(), before.vq.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_pictures_are_drawn_in_a_style_and_measured(place: Path, tuned: Path) -> None:
    shared: tuple[Any, ...] = ("--prompt", PROMPT, "--device", "cpu", "--model", tuned)
    run("generate", *shared, "--style", place / "styles", "--out", place / "drawn", "--count", 2)
    pictures = sorted((place / "drawn").glob("0*.png"))
    assert len(pictures) == 4
    assert {to_rgb(path.read_bytes()).size for path in pictures} == {(16, 16)}
    lines = (place / "drawn" / "generations.jsonl").read_text().splitlines()
    assert {json.loads(line)["tokens_beyond_context"] for line in lines} == {0}
    printed = run(
        *("evaluate", *shared, "--styles", place / "styles", "--clip", place / "clip", "--json"),
    )
    assert json.loads(printed) is not None


def test_a_size_that_janus_cannot_draw_is_an_error(place: Path) -> None:
    arguments = ["generate", "--model", str(place / "janus"), "--prompt", PROMPT, "--size", "64"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(place / "large")])
    assert isinstance(result.exception, UsageError)
    assert "expected 16 pixels, the only size of Janus" in result.exception.message
