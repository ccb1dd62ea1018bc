"""The train commands: flags and YAML build the same settings; mistakes name the key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stylear.errors import RecipeError, SourceError
from stylear.train.cli import app, print_result
from stylear.train.settings import DpoSettings, PairsSettings, SftSettings, load_settings

FLAGS = {"corpus": [Path("c")], "model": "mini-ar", "out": Path("o")}


def test_flags_and_yaml_build_the_same_settings(tmp_path: Path) -> None:
    config = tmp_path / "train.yaml"
    config.write_text("corpus: [c]\nmodel: mini-ar\nout: o\nsteps: 7\nlr: 1.0e-3\n")
    from_yaml = load_settings(SftSettings, config, {})
    assert from_yaml == load_settings(SftSettings, None, {**FLAGS, "steps": 7, "lr": 1e-3})
    assert load_settings(SftSettings, config, {"steps": 9}).steps == 9


def test_unknown_key_names_the_close_one(tmp_path: Path) -> None:
    config = tmp_path / "train.yaml"
    config.write_text("corpus: [c]\nmodel: m\nout: o\nbatchsize: 7\n")
    with pytest.raises(RecipeError, match="batchsize") as raised:
        load_settings(SftSettings, config, {})
    assert raised.value.hint == "did you mean batch_size?"
    assert raised.value.exit_code == 2


def test_missing_and_wrong_values_name_the_key(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="model: required"):
        load_settings(DpoSettings, None, {"corpus": [Path("c")], "out": Path("o")})
    with pytest.raises(RecipeError, match="steps"):
        load_settings(SftSettings, None, {**FLAGS, "steps": 0})
    with pytest.raises(SourceError, match=r"nothing\.yaml"):
        load_settings(SftSettings, tmp_path / "nothing.yaml", {})


def test_shipped_training_recipes_are_valid() -> None:
    kinds = {"sft": SftSettings, "dpo": DpoSettings, "pairs": PairsSettings}
    recipes = sorted((Path(__file__).parents[2] / "manifests").glob("train-*.yaml"))
    assert len(recipes) >= 3
    for path in recipes:
        settings = load_settings(kinds[path.stem.rpartition("-")[2]], path, {})
        assert settings.model_dump()["corpus"]


def test_dry_run_prints_the_resolved_settings() -> None:
    arguments = ["sft", "--corpus", "c", "--model", "mini-ar", "--out", "o", "--dry-run"]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 0
    assert json.loads(outcome.stdout)["condition_dropout"] == 0.1


def test_json_has_what_the_model_records_of_its_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = {"steps": 1, "pairs": 2, "warnings": ["batch_size 4 is more than the 2 pairs"]}
    (tmp_path / "stylear.json").write_text(json.dumps({"base": {"training": training}}))
    print_result(tmp_path, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"model": str(tmp_path), "training": training}


def test_ranges_and_numbers_are_read_from_flags() -> None:
    arguments = ["sft", "--corpus", "c", "--model", "mini-ar", "--out", "o", "--dry-run"]
    arguments += ["--sigma", "0.1:0.3", "--checkpoint-blocks", "2", "--base-dtype", "int8"]
    settings = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert (settings["sigma"], settings["checkpoint_blocks"]) == ([0.1, 0.3], 2)
    assert settings["base_dtype"] == "int8"
    with pytest.raises(RecipeError, match=r"sigma: .*low at most high"):
        load_settings(SftSettings, None, {**FLAGS, "sigma": "0.3:0.1"})
    with pytest.raises(
        RecipeError, match=r"checkpoint_blocks: .*expected none, all, or a number k"
    ):
        load_settings(SftSettings, None, {**FLAGS, "checkpoint_blocks": "some"})
    with pytest.raises(RecipeError, match="greater than or equal to 0, found '-1'") as raised:
        load_settings(SftSettings, None, {**FLAGS, "sigma": "-1"})
    assert raised.value.hint is not None
    assert raised.value.hint.startswith("Noise std on style tokens")


def test_only_the_first_process_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank, shown in (("0", f"model: {tmp_path}\n"), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        print_result(tmp_path, as_json=False)
        assert capsys.readouterr().err == shown
