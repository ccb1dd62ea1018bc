"""The root commands, run as a user runs them, on tiny random models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from builders.tiny_csd import write_tiny_csd
from builders.tiny_dino import write_tiny_dino
from builders.tiny_model import write_tiny_base, write_tiny_model
from PIL import Image
from typer.testing import CliRunner, Result

from stylear.cli import app
from stylear.console import run_app
from stylear.curate.review.folder_tasks import FolderMaterial
from stylear.errors import StylearError, UsageError, WeightsError
from stylear.model.open import open_model
from stylear.sampling.generate import generate
from stylear.weights import catalog as models
from stylear.weights.files import hash_path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its final model, a base model, two styles and a prompt list."""
    place = tmp_path_factory.mktemp("place")
    write_tiny_model(place / "run" / "final")
    write_tiny_base(place / "base")
    (place / "styles").mkdir()
    for seed, name in enumerate(["dots--1", "dots--2", "lines--1"]):
        pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / "styles" / f"{name}.png")
    (place / "prompts.txt").write_text("# what to draw\na red apple\n\nthe cat\n")
    return place


def stylear(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def test_generate_writes_pictures_their_record_and_a_grid(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = stylear(
        *("generate", "--model", place / "run", "--style", place / "styles", "--count", 2),
        *(
            "--prompts",
            place / "prompts.txt",
            "--prompt",
            "a dog",
            "--out",
            out,
            "--seed",
            5,
            "--json",
        ),
    )
    printed = json.loads(result.stdout)
    lines = [json.loads(line) for line in (out / "generations.jsonl").read_text().splitlines()]
    assert printed["pictures"] == lines
    assert len(lines) == 3 * 3 * 2
    assert [line["seed"] for line in lines[:4]] == [5, 6, 5, 6]
    assert {line["model"] for line in lines} == {"run"}
    assert [line["prompt"] for line in lines[:6:2]] == ["a dog", "a red apple", "the cat"]
    assert sorted(p.name for p in out.glob("0*.png")) == [f"{i:04d}.png" for i in range(18)]
    last = lines[-1]
    assert (last["style"], last["prompt"], last["seed"]) == ("lines--1", "the cat", 6)
    model = open_model(str(place / "run"))
    style = (place / "styles" / "lines--1.png").read_bytes()
    again = generate(model, ["the cat"], [style], seeds=[6])[0]
    with Image.open(out / last["file"]) as stored, Image.open(out / "grid.png") as grid:
        assert np.array_equal(np.asarray(stored), np.asarray(again))
        assert grid.width > 3 * 96


def test_generate_without_a_style_draws_the_prompt_alone(place: Path, tmp_path: Path) -> None:
    stylear("generate", "--model", place / "base", "--prompt", "a cat", "--out", tmp_path / "out")
    line = json.loads((tmp_path / "out" / "generations.jsonl").read_text())
    assert line["style"] is None
    assert line["segment"] is None


def test_generate_does_not_overwrite_unless_forced(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["generate", "--model", place / "run", "--prompt", "a cat", "--out", out]
    stylear(*arguments, "--count", 3)
    with pytest.raises(UsageError, match="expected an empty directory, found files"):
        stylear(*arguments)
    (out / "mine.txt").write_text("keep")
    stylear(*arguments, "--force")
    assert sorted(p.name for p in out.iterdir()) == [
        "0000.png",
        "generations.jsonl",
        "grid.png",
        "mine.txt",
    ]


def test_generate_takes_a_subject_out(place: Path, tmp_path: Path) -> None:
    mask = np.zeros((32, 32), dtype=bool)
    mask[8:20, 8:20] = True
    Image.fromarray(mask).save(tmp_path / "mask.png")
    style = place / "styles" / "dots--1.png"
    common = ["generate", "--model", place / "run", "--style", style, "--prompt", "a cat"]
    stylear(*common, "--segment", tmp_path / "mask.png", "--out", tmp_path / "with")
    stylear(*common, "--out", tmp_path / "without")
    with_mask = (tmp_path / "with" / "0000.png").read_bytes()
    assert with_mask != (tmp_path / "without" / "0000.png").read_bytes()
    with pytest.raises(UsageError, match="expected one style for one mask, found 3"):
        stylear(
            *("generate", "--model", place / "run", "--style", place / "styles", "--prompt", "x"),
            *("--segment", tmp_path / "mask.png", "--out", tmp_path / "many"),
        )


def test_evaluate_measures_every_model(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = stylear(
        *("evaluate", "--model", place / "run", "--model", place / "base", "--out", out),
        *("--styles", place / "styles", "--prompts", place / "prompts.txt", "--seeds", 2),
        *("--clip", place / "run" / "final-clip", "--json"),
    )
    printed = json.loads(result.stdout)
    assert printed == json.loads((out / "evaluation.json").read_text())
    assert [(row["model"], row["pictures"]) for row in printed["models"]] == [
        ("run", 12),
        ("base", 12),
    ]
    run = printed["models"][0]
    assert set(run) == {
        *(
            "model",
            "pictures",
            "clip_t",
            "recall",
            "clip_i",
            "csd",
            "dino",
            "texture",
            "harmonic",
            "leakage",
        ),
    }
    assert (run["csd"], run["dino"]) == (None, None)  # no model for them was given
    assert run["clip_t"]["low"] <= run["clip_t"]["mean"] <= run["clip_t"]["high"]
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 24
    own = [sample["clip_t"] for sample in samples if sample["model"] == "run"]
    assert run["clip_t"]["mean"] == pytest.approx(np.mean(own), abs=1e-6)
    assert all((out / sample["file"]).is_file() for sample in samples)
    assert (out / "grid.png").is_file()
    pictures = FolderMaterial(out)
    choices = pictures.tasks("prefer")
    assert [sorted(side.model for side in task.sides) for task in choices] == [["base", "run"]] * 12
    assert {task.reference for task in choices} == {"dots--1", "dots--2", "lines--1"}
    assert all(pictures.read_reference(str(task.reference)) for task in choices)


def test_evaluate_prints_a_table(place: Path) -> None:
    result = stylear(
        *("evaluate", "--model", place / "run", "--styles", place / "styles" / "dots--1.png"),
        *("--prompt", "a cat", "--seeds", 1, "--clip", place / "run" / "final-clip"),
    )
    head, row = result.stdout.splitlines()
    assert head.split() == ["model", "clip_t", "recall", "clip_i", "texture", "harmonic", "leakage"]
    assert row.split()[0] == "run"
    assert row.split()[-1] == "-"  # one reference alone has no other content


def test_evaluate_reports_csd_and_dino_when_their_models_are_given(
    place: Path, tmp_path: Path
) -> None:
    csd, dino = write_tiny_csd(tmp_path / "csd.pth"), write_tiny_dino(tmp_path / "dino")
    arguments = ("--model", place / "base", "--styles", place / "styles" / "dots--1.png")
    arguments += ("--prompt", "a cat", "--seeds", 1, "--clip", place / "run" / "final-clip")
    result = stylear("evaluate", *arguments, "--csd", csd, "--dino", dino, "--json")
    printed = json.loads(result.stdout)
    assert (printed["settings"]["csd"], printed["settings"]["dino"]) == ("csd.pth", "dino")
    assert printed["settings"]["csd_sha256"] == hash_path(csd)
    assert all(0 < abs(printed["models"][0][name]["mean"]) <= 1 for name in ("csd", "dino"))
    head = stylear("evaluate", *arguments, "--csd", csd).stdout.splitlines()[0]
    assert head.split() == [
        "model",
        "clip_t",
        "recall",
        "clip_i",
        "csd",
        "texture",
        "harmonic",
        "leakage",
    ]
    with pytest.raises(WeightsError, match=r"none\.pth: expected a model .* found nothing"):
        stylear("evaluate", *arguments, "--csd", tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        (["--model", "no-such", "--prompt", "x"], WeightsError, "no-such: expected a model"),
        (["--model", "{run}"], UsageError, "expected at least one prompt"),
        (["--model", "{run}", "--prompts", "none.txt"], StylearError, "none.txt: expected a text"),
        (["--model", "{run}", "--prompt", "x", "--style", "none"], StylearError, "none: expected"),
        (
            ["--model", "{run}", "--prompt", "x", "--device", "tpu9"],
            UsageError,
            "--device: expected",
        ),
        (["--model", "{run}", "--prompt", "x", "--dtype", "int8"], UsageError, "dtype: expected"),
        (
            ["--model", "{run}", "--prompt", "x", "--guidance", "-1"],
            UsageError,
            "guidance: expected",
        ),
    ],
)
def test_mistakes_are_named_in_one_line(
    place: Path, tmp_path: Path, arguments: list[str], kind: type[StylearError], text: str
) -> None:
    options = [argument.format(run=place / "run") for argument in arguments]
    with pytest.raises(kind) as caught:
        stylear("generate", *options, "--out", tmp_path / "out")
    assert text in caught.value.message
    assert "\n" not in caught.value.message


def test_the_boundary_prints_one_line_and_a_hint(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["stylear", "generate", "--model", "x", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        run_app(app)
    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: --prompt: expected at least one prompt, found none",
        'hint: give --prompt "a red apple" or --prompts FILE',
    ]


@pytest.fixture
def family(tmp_path: Path) -> Path:
    """Two shipped models of a few bytes."""
    for name in ("mini-a", "mini-b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text(name)
        (tmp_path / name / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Card\n")
    models.write_hashes(tmp_path)
    return tmp_path


def test_models_verify_names_what_differs(family: Path) -> None:
    assert models.verify_shipped(family) == 4
    (family / "mini-a" / "weights").write_text("changed")
    with pytest.raises(WeightsError, match=r"mini-a/weights: expected sha256 .*, found"):
        models.verify_shipped(family)
    (family / "mini-a" / "weights").unlink()
    (family / "mini-b" / "more").write_text("new")
    with pytest.raises(WeightsError, match=r"mini-a/weights: .*found nothing \(and 1 more\)"):
        models.verify_shipped(family)
    models.write_hashes(family)
    assert models.verify_shipped(family) == 4


def test_models_list_shows_size_hash_and_licence(family: Path) -> None:
    first, second = models.list_shipped(family)
    assert (first.name, first.bytes, first.licence) == ("mini-a", 41, "apache-2.0")
    assert len(first.sha256) == 64
    assert first.sha256 != second.sha256


def test_the_shipped_family_is_as_recorded_and_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STYLEAR_MODELS", str(tmp_path))
    names = {model.name for model in models.list_shipped()}
    assert {"mini-clip", "mini-vq", "mini-ar"} <= names
    printed = json.loads(stylear("models", "verify", "--json").stdout)
    count = len(models.hash_files())
    assert printed == {"files": count, "shipped": count, "fetched": 0, "ok": True}
    assert sum(model.bytes for model in models.list_shipped()) <= 24 * 2**20
    listed = json.loads(stylear("models", "list", "--json").stdout)
    assert {row["name"] for row in listed if row["state"] == "shipped"} == names


def test_an_unfinished_run_is_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(WeightsError, match="expected a finished run with final/"):
        open_model(str(tmp_path))
