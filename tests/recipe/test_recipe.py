"""Recipes: defaults, paths, and an error for every mistake that names the line, the key and the fix."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from builders.pictures_folder import settings

from stylear.curate.recipe import SCHEMA, dump_recipe, load_recipe, recipe_schema
from stylear.errors import RecipeError

SMALL = "name: x\nraw: [{type: mini}]\n"
SCORED = SMALL + "score: [{name: text, type: clip-text}]\n"
STYLED = SMALL + "references: [{type: mini}]\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, "utf-8")
    return path


def test_defaults_are_spelled_out_and_load_again(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, yaml.safe_dump(settings())))
    text = dump_recipe(recipe)
    assert load_recipe(write(tmp_path, text)) == recipe
    values = yaml.safe_load(text)
    assert values["mix"]["raw_per_stylized"] == 1.0
    assert values["pairs"] == {"margin": 0.02, "human": "first"}
    assert values["synthesize"]["settings"]["levels"] == 3
    assert values["raw"][0]["path"] == "photos"


def test_a_recipe_without_references_has_no_synthesize(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, SMALL))
    assert recipe.references == ()
    assert "synthesize" not in yaml.safe_load(dump_recipe(recipe))
    assert load_recipe(write(tmp_path, dump_recipe(recipe))) == recipe


def test_relative_paths_start_at_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "models" / "clip").mkdir(parents=True)
    text = """
name: x
raw:
  - {type: urls, path: lists/a.csv}
  - {type: shards, path: "old/*.tar"}
  - {type: folder, path: /elsewhere}
references: [{type: folder, path: ../styles}]
synthesize: {backend: statistics, prompts: prompts.txt}
score: [{name: text, type: clip-text, model: models/clip}, {name: b, type: clip-text}]
"""
    recipe = load_recipe(write(tmp_path, text))
    root = tmp_path.resolve()
    paths = [str(getattr(source, "path", "")) for source in recipe.raw]
    assert paths == [str(root / "lists/a.csv"), str(root / "old/*.tar"), "/elsewhere"]
    assert getattr(recipe.references[0], "path", None) == root.parent / "styles"
    assert recipe.synthesize.prompts == root / "prompts.txt"
    models = [getattr(score, "model", None) for score in recipe.score]
    assert models == [str(root / "models/clip"), "mini-clip"]


def test_overrides_change_dotted_keys(tmp_path: Path) -> None:
    changes = {"mix.val_fraction": 0.3, "raw.0.limit": 5, "image.size": 32}
    recipe = load_recipe(write(tmp_path, SMALL), changes)
    assert (recipe.mix.val_fraction, recipe.raw[0].limit, recipe.image.size) == (0.3, 5, 32)
    with pytest.raises(RecipeError, match=r"raw\.7\.limit: expected a key of the recipe"):
        load_recipe(write(tmp_path, SMALL), {"raw.7.limit": 5})
    with pytest.raises(RecipeError, match=r"mix\.val: unknown key"):
        load_recipe(write(tmp_path, SMALL), {"mix.val": 5})


MISTAKES = [
    ("name: x\nraws: []\n", r":2: raws: unknown key", "did you mean raw?"),
    (
        SMALL + "mix:\n  val_fracton: 0.1\n",
        r":4: mix\.val_fracton: unknown key",
        "did you mean val_fraction?",
    ),
    (
        "name: x\nraw:\n- type: mini\n  limt: 3\n",
        r":4: raw\.0\.limt: unknown key",
        "did you mean limit?",
    ),
    ("name: x\n", r"recipe\.yaml: raw: expected a value, found nothing", "add raw"),
    ("name: x\nraw: [{type: folder}]\n", r":2: raw\.0\.path: expected a value", "add raw.0.path"),
    (
        "name: x\nraw: [{type: min}]\n",
        r"raw\.0\.type: expected one of mini, urls, folder, parquet, shards, found min",
        "",
    ),
    ("name: x\nraw: [{path: a}]\n", r"raw\.0\.type: expected one of .*, found nothing", ""),
    ("name: x\nraw: []\n", r":2: raw: expected at least one entry", ""),
    ("name: x\nraw: {type: mini}\n", r":2: raw: expected a list", ""),
    (
        "name: x\nraw: [{type: mini, limit: many}]\n",
        r"raw\.0\.limit: expected a whole number, found 'many'",
        "",
    ),
    (
        "name: x\nraw: [{type: mini, limit: 0}]\n",
        r"raw\.0\.limit: expected greater than or equal to 1, found 0",
        "",
    ),
    ("name: a/b\nraw: [{type: mini}]\n", r":1: name: ", ""),
    (
        SMALL + "image: {format: gif}\n",
        r":3: image\.format: expected 'png', 'jpg' or 'webp', found 'gif'",
        "",
    ),
    (SMALL + "mix: 3\n", r":3: mix: expected keys and values, found 3", ""),
    (SMALL + "mix: {val_fraction: 1}\n", r"mix\.val_fraction: expected less than 1, found 1", ""),
    (SMALL + "synthesize: {}\n", r"references: synthesize needs at least one style reference", ""),
    (
        STYLED + "synthesize: {backend: patc}\n",
        r"synthesize\.backend: expected one of patch, .* found 'patc'",
        "",
    ),
    (
        STYLED + "synthesize:\n  backend: patch\n  settings: {sten: 3}\n",
        r":6: synthesize\.settings\.sten: ",
        "settings of backend patch",
    ),
    (
        SMALL + "raw: [{type: urls, path: a, allow_networks: [home]}]\n",
        r":3: raw: expected each key once, found it twice",
        "",
    ),
    (
        "name: x\nraw: [{type: urls, path: a, allow_networks: [home]}]\n",
        r"raw\.0\.allow_networks: 'home' does not appear to be an IPv4 or IPv6 network",
        "",
    ),
    (
        SCORED + "filter: {thresholds: [{score: txt, min: 0}]}\n",
        r":4: filter: no scorer is called 'txt'; did you mean text",
        "",
    ),
    (
        SCORED + "filter: {text_score: style}\n",
        r"no scorer is called 'style' \(scorers: text\)",
        "",
    ),
    (
        SCORED + "filter: {thresholds: [{score: text}]}\n",
        r"thresholds\.0: expected min, max or percentile",
        "",
    ),
    (
        SMALL + "score: [{name: a, type: texture}, {name: a, type: phash}]\n",
        r":3: score: two scorers are called 'a'",
        "",
    ),
    (
        SMALL + "score: [{name: a, type: clip-text, device: 'cuda:1'}]\n",
        r":3: score\..*device: string should match pattern",
        "",
    ),
    ("- 3\n", r"expected keys such as name and raw, found \[3\]", ""),
    ("", r"expected keys such as name and raw, found nothing", ""),
    ("name: [\n", r":2: expected valid YAML", ""),
    (
        "name: !!python/object:os.system x\n",
        r":1: expected valid YAML, found: could not determine a constructor",
        "",
    ),
]


@pytest.mark.parametrize(("text", "message", "hint"), MISTAKES, ids=lambda value: value[:50])
def test_a_mistake_is_named_with_its_place_and_its_fix(
    tmp_path: Path, text: str, message: str, hint: str
) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(write(tmp_path, text))
    assert str(tmp_path) in caught.value.message
    assert "\n" not in caught.value.message
    assert hint in (caught.value.hint or "")
    assert caught.value.exit_code == 2


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="No such file"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="Is a directory"):
        load_recipe(tmp_path)
    path = tmp_path / "bytes.yaml"
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(RecipeError, match="not UTF-8"):
        load_recipe(path)


def test_the_committed_schema_is_current_and_every_recipe_here_fits() -> None:
    assert SCHEMA.read_text("utf-8") == recipe_schema()
    schema = json.loads(recipe_schema())
    assert schema["additionalProperties"] is False
    recipes = [p for p in sorted(SCHEMA.parent.glob("*.yaml")) if not p.name.startswith("train-")]
    assert recipes
    for path in recipes:
        recipe = load_recipe(path)
        assert set(yaml.safe_load(path.read_text("utf-8"))) <= set(schema["properties"]), path
        assert recipe.name
