"""`stylear curate init` writes a recipe that loads; `stylear doctor` says what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from builders.pictures_folder import make_folders
from typer.testing import CliRunner, Result

from stylear import __version__
from stylear.cli import app, doctor
from stylear.curate.cli import app as curate_app
from stylear.curate.recipe import load_recipe
from stylear.errors import UsageError


def init(*words: object) -> Result:
    result = CliRunner().invoke(curate_app, ["init", *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_recipe_has_the_given_folders_relative_to_itself(tmp_path: Path) -> None:
    make_folders(tmp_path)
    recipe = tmp_path / "recipes" / "mine.yaml"
    result = init(
        *(recipe, "--photos", tmp_path / "photos", "--styles", tmp_path / "styles"),
        *("--name", "my-style", "--size", 64, "--json"),
    )
    printed = json.loads(result.stdout)
    assert printed == {
        "recipe": str(recipe),
        "next": f"stylear curate run {recipe} --out my-corpus",
    }
    text = recipe.read_text("utf-8")
    assert '    path: "../photos"' in text
    assert str(tmp_path) not in text
    loaded = load_recipe(recipe)
    assert (loaded.name, loaded.image.size) == ("my-style", 64)
    assert [str(source.path) for source in loaded.raw] == [str(tmp_path / "photos")]
    assert text.count("#") > 30  # the comments of the embedded recipe


def test_a_recipe_that_is_there_is_kept(tmp_path: Path) -> None:
    make_folders(tmp_path)
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("name: precious\n")
    words = (recipe, "--photos", tmp_path / "photos", "--styles", tmp_path / "styles")
    with pytest.raises(UsageError, match="expected no file, found one"):
        init(*words)
    assert recipe.read_text() == "name: precious\n"
    init(*words, "--force")
    assert load_recipe(recipe).name == "house-style"


@pytest.mark.parametrize(
    ("photos", "words", "message"),
    [
        ("nowhere", (), "--photos: expected a folder, found nothing"),
        ("recipe.txt", (), "--photos: expected a folder, found a file"),
        ("photos", ("--captions", "none.csv"), "--captions: expected none.csv in"),
    ],
)
def test_paths_that_do_not_exist_are_named(
    tmp_path: Path, photos: str, words: tuple[str, ...], message: str
) -> None:
    make_folders(tmp_path)
    (tmp_path / "recipe.txt").write_text("")
    with pytest.raises(UsageError, match=message):
        init(
            *(tmp_path / "r.yaml", "--photos", tmp_path / photos),
            *("--styles", tmp_path / "styles", *words),
        )
    assert not (tmp_path / "r.yaml").exists()


def test_without_a_terminal_nothing_is_asked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Folder of photos: expected an option") as caught:
        init(tmp_path / "r.yaml")
    assert caught.value.hint == "give --photos FOLDER and --styles FOLDER"


def test_the_version_is_printed() -> None:
    assert CliRunner().invoke(app, ["--version"]).output == f"stylear {__version__}\n"


def test_doctor_reports_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEAR_MODELS", str(tmp_path))
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0
    printed = json.loads(result.stdout)
    checks = {check["check"]: check for check in printed["checks"]}
    assert printed["ok"] is True
    assert checks["stylear"]["found"].startswith(f"{__version__} in ")
    assert checks["torch"]["status"] == "ok"
    assert "files as recorded" in checks["shipped models"]["found"]
    assert checks["fetched models"]["status"] == "optional"
    assert all(check["remedy"] for check in printed["checks"] if check["status"] != "ok")


def test_doctor_fails_when_a_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "no-such-package"))
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 1
    checks = json.loads(result.stdout)["checks"]
    missing = [check for check in checks if check["status"] == "missing"]
    assert [(check["check"], check["remedy"]) for check in missing] == [
        ("no-such-package", "pip install no-such-package, or run `make` again in a clone")
    ]
