"""Plug-ins that are missing, broken or have another interface are named with their distribution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from builders.finished_corpus import finished_settings, make_sources
from builders.plugin_distribution import SYNTHESIZERS, documented_modules, install_distribution

from stylear.curate import run as runner
from stylear.curate.recipe import check_recipe
from stylear.errors import PluginError, RecipeError

SHARP = {"name": "sharp", "type": "sharpness"}
TINT = {"backend": "tint", "contents": 4}


def check(root: Path, **changes: Any) -> Any:
    settings = finished_settings(filter={}, score=[])
    return check_recipe({**settings, **changes}, root)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    install_distribution(tmp_path / "site", monkeypatch)
    return tmp_path


def test_an_unknown_scorer_lists_built_in_and_installed_ones(installed: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        check(installed, score=[{"name": "a", "type": "sharpnes"}])
    assert caught.value.message == (
        "score.0.type: expected one of clip-text, clip-image, texture, phash, aesthetic, leakage,"
        " nearest, csd, dino, cas, or an installed plug-in (sharpness), found sharpnes"
    )
    assert caught.value.hint == "check the spelling, or install the plug-in that provides it"


def test_an_unknown_backend_lists_built_in_and_installed_ones(installed: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        check(installed, synthesize={"backend": "tin"})
    assert caught.value.message == (
        "synthesize.backend: expected one of patch, statistics, render, instantstyle, ip-adapter,"
        " style-aligned, flux-redux, pipeline, or an installed plug-in (tint), found 'tin'"
    )


def test_without_plug_ins_the_hint_says_how_they_come(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        check(tmp_path, score=[{"name": "a", "type": "sharpness"}])
    assert "installed plug-in" not in caught.value.message
    assert caught.value.hint == (
        "check the spelling, or install the plug-in that provides it; stylear.scorers has none so far"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score": [{**SHARP, "radius": 0}]}, r"score\.0\.radius: expected greater than or equal to 1"),
        ({"score": [{**SHARP, "colour": 1}]}, r"score\.0\.colour: unknown key; .* name, radius, type"),
        ({"score": [{**SHARP, "name": "key"}]}, r"score\.0\.name: expected a name other than key"),
        (
            {"synthesize": {**TINT, "settings": {"strength": 2}}},
            r"synthesize\.settings\.strength: .*less than or equal to 1, found 2",
        ),
    ],
)  # fmt: skip
def test_the_plug_ins_own_model_checks_its_settings(
    installed: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        check(installed, **changes)


BROKEN = "raise RuntimeError('no such device')\n"
NO_SETTINGS = "class SharpnessScorer:\n    pass\n"
NOT_A_CLASS = "def SharpnessScorer(spec, context):\n    return None\n"
LISTS = (
    "from stylear.plugins import Scorer, ScorerSettings\n"
    "class Lists(ScorerSettings):\n    sizes: list[int] = [1]\n"
    "class SharpnessScorer(Scorer):\n    Settings = Lists\n"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BROKEN, "cannot be imported: RuntimeError: no such device"),
        (NOT_A_CLASS, "expected stylear_example.sharpness:SharpnessScorer to be a class"),
        (
            NO_SETTINGS,
            "expected an attribute Settings, a subclass of stylear.plugins.ScorerSettings",
        ),
    ],
)
def test_a_broken_plug_in_is_named_with_its_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    modules = documented_modules() | {"stylear_example/sharpness.py": text}
    install_distribution(tmp_path / "site", monkeypatch, modules=modules)
    with pytest.raises(PluginError) as caught:
        check(tmp_path, score=[SHARP])
    assert "plug-in sharpness of stylear-example 1.0 (stylear.scorers): " in caught.value.message
    assert message in caught.value.message


def test_settings_that_cannot_be_hashed_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = documented_modules() | {"stylear_example/sharpness.py": LISTS}
    install_distribution(tmp_path / "site", monkeypatch, modules=modules)
    with pytest.raises(RecipeError, match="expected tuples instead of lists"):
        check(tmp_path, score=[SHARP])


def test_one_name_of_two_distributions_is_refused(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_distribution(
        installed / "other", monkeypatch, name="rival", scorers={"sharpness": "rival:X"}
    )
    with pytest.raises(
        PluginError, match=r"sharpness is provided by rival 1\.0 and by stylear-example 1\.0"
    ):
        check(installed, score=[SHARP])


NO_COLUMN = "return {self.spec.name: float_column(values)}, {}"
LOST = 'pairs.append(make_stylized_pair(job, pixels, self.encoding, {"strength": strength}))'


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("sharpness", NO_COLUMN, "return {'x': float_column(values)}, {}", "expected a column 'sharp'"),
        ("sharpness", NO_COLUMN, "return {'sharp': float_column(values[1:])}, {}", "in column 'sharp'"),
        ("tint", LOST, "pass", "expected a list of one pair for each of"),
    ],
)  # fmt: skip
def test_what_a_plug_in_returns_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, old: str, new: str, message: str
) -> None:
    modules = documented_modules()
    path = f"stylear_example/{file}.py"
    assert old in modules[path]
    modules[path] = modules[path].replace(old, new)
    install_distribution(tmp_path / "site", monkeypatch, modules=modules)
    make_sources(tmp_path)
    recipe = check(tmp_path, score=[SHARP], synthesize=TINT)
    with pytest.raises(PluginError, match=message):
        runner.run_stages(["fetch", "synthesize", "score"], recipe, tmp_path / "corpus", workers=1)


def test_a_synthesiser_without_the_base_class_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = documented_modules() | {
        "stylear_example/tint.py": "from stylear.plugins import BackendSettings\n"
        "class TintSynthesizer:\n    Settings = BackendSettings\n"
    }
    install_distribution(tmp_path / "site", monkeypatch, modules=modules, synthesizers=SYNTHESIZERS)
    make_sources(tmp_path)
    recipe = check(tmp_path, synthesize=TINT)
    with pytest.raises(
        PluginError, match=r"expected a subclass of stylear\.plugins\.SynthesizerPlugin"
    ):
        runner.run_stages(["fetch", "synthesize"], recipe, tmp_path / "corpus", workers=1)
