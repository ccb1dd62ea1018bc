"""The plan of a run: how much each stage will do, how large it gets, and how long it takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builders.pictures_folder import make_folders, make_recipe, settings, tree
from typer.testing import CliRunner

from stylear.cli import mount
from stylear.curate import run as runner
from stylear.curate.preflight import rates
from stylear.curate.preflight.plan import human_time
from stylear.curate.preflight.preview import preview_run
from stylear.curate.recipe import Recipe
from stylear.curate.stage import Build
from stylear.errors import SettingsChanged


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders, a recipe, and the corpus that it makes."""
    root = tmp_path_factory.mktemp("plan")
    make_folders(root)
    runner.run(make_recipe(root), root / "corpus", workers=1)
    return root


def plans(recipe: Recipe, corpus: Path, **more: Any) -> dict[str, dict[str, Any]]:
    return {plan.stage: plan.summary() for plan in preview_run(recipe, corpus, **more).stages}


def column(recipe: Recipe, corpus: Path, name: str, **more: Any) -> list[Any]:
    return [plan[name] for plan in plans(recipe, corpus, **more).values()]


def test_a_dry_run_changes_nothing_and_counts_what_would_be_made(
    home: Path, tmp_path: Path
) -> None:
    before = tree(home / "corpus")
    recipe = make_recipe(home)
    new = tmp_path / "new"
    assert column(recipe, new, "pairs") == [24, 24, 48, 48, 48, 12]
    assert column(recipe, new, "new_pairs") == [24, 24, 48, 48, 48, 12]
    assert column(recipe, new, "next") == ["build"] * 6
    assert not new.exists()
    assert column(recipe, home / "corpus", "committed") == [3, 4, 14, 1, 1, 1]
    assert column(recipe, home / "corpus", "new_pairs")[:3] == [0, 0, 0]
    assert column(recipe, home / "corpus", "next")[:3] == ["keep, add what is new"] * 3
    assert tree(home / "corpus") == before


def test_a_stage_that_would_stop_or_be_rebuilt_says_so(home: Path) -> None:
    changed = make_recipe(home, settings(image={"size": 24}))
    assert "image.size: 32 -> 24" in plans(changed, home / "corpus")["fetch"]["next"]
    errors = preview_run(changed, home / "corpus").problems
    assert [type(error) for error in errors] == [SettingsChanged, SettingsChanged]
    assert preview_run(changed, home / "corpus", "fetch").problems == []
    assert column(make_recipe(home), home / "corpus", "next", redo="score") == [
        "keep, add what is new", "keep, add what is new", "build", "build", "build", "build",
    ]  # fmt: skip
    redone = column(make_recipe(home), home / "corpus", "new_pairs", redo="synthesize")
    assert redone[:3] == [0, 24, 48]


def test_a_half_finished_stage_counts_what_is_left(home: Path, tmp_path: Path) -> None:
    recipe = make_recipe(home)
    runner.run_stages(["fetch"], recipe, tmp_path / "corpus", workers=1)
    (tmp_path / "corpus" / "ledger" / "fetch" / "all.json").unlink()
    (tmp_path / "corpus" / "ledger" / "fetch" / "00002.json").unlink()
    fetch = plans(recipe, tmp_path / "corpus")["fetch"]
    assert (fetch["pairs"], fetch["new_pairs"], fetch["next"]) == (24, 4, "continue")


def test_quotas_and_prompts_decide_how_many_images_are_planned(tmp_path: Path) -> None:
    make_folders(tmp_path, pictures=10, styles=3)
    spec = {"backend": "statistics", "candidates": 2, "per_style": 4}
    recipe = make_recipe(tmp_path, settings(synthesize=spec))
    assert plans(recipe, tmp_path / "c")["synthesize"]["pairs"] == 3 * 4 * 2
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n# no prompt\n")
    pictures = tmp_path / "model"
    pictures.mkdir()
    (pictures / "model.bin").write_bytes(b"weights")
    values = {"model": str(pictures), "ip_adapter": str(pictures)}
    drawn = {"backend": "instantstyle", "prompts": "prompts.txt", "settings": values}
    recipe = make_recipe(tmp_path, settings(synthesize={**drawn, "candidates": 3}))
    assert plans(recipe, tmp_path / "c")["synthesize"]["pairs"] == 2 * 3


def test_the_size_is_that_of_the_images_fetched_so_far(home: Path, tmp_path: Path) -> None:
    recipe = make_recipe(home)
    new = plans(recipe, tmp_path / "new")
    assert new["fetch"]["bytes"] == round(24 * (32 * 32 * 1.8 + 4096))
    raw = sum(path.stat().st_size for path in (home / "corpus" / "raw").glob("0*"))
    redone = plans(recipe, home / "corpus", redo="synthesize")["synthesize"]["bytes"]
    assert redone == pytest.approx(max(raw, 24 * 4096), abs=24)


def test_a_time_is_known_only_where_a_rate_was_measured(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    recipe = make_recipe(home)
    build = Build(tmp_path / "new", recipe)
    assert column(recipe, tmp_path / "new", "seconds")[:3] == [None, None, None]
    rates.record_rate("synthesize", build, 100, 10.0)
    plan = plans(recipe, tmp_path / "new")["synthesize"]
    assert (plan["seconds"], plan["rate_from"]) == (pytest.approx(2.4), "earlier runs here")
    other = make_recipe(home, settings(image={"size": 64}))
    assert plans(other, tmp_path / "new")["synthesize"]["seconds"] is None


def test_a_rate_is_measured_over_a_second_at_least_and_a_damaged_cache_is_none(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build = Build(tmp_path / "new", make_recipe(home))
    rates.record_rate("fetch", build, 100, 0.5)
    assert rates.find_rate("fetch", build) is None
    rates.record_rate("fetch", build, 100, 2.0)
    assert rates.find_rate("fetch", build) == rates.Rate(50.0, rates.HERE)
    rates.rates_path().write_text("[1, 2")
    assert rates.find_rate("fetch", build) is None


def test_times_are_written_for_a_reader() -> None:
    assert [human_time(s) for s in (0, 0.3, 45, 720, 12600)] == [
        "0 s", "under 1 s", "45 s", "12 min", "3.5 h",
    ]  # fmt: skip


def test_the_command_prints_checks_and_plan(home: Path, tmp_path: Path) -> None:
    words = [
        "curate",
        "run",
        str(home / "recipe.yaml"),
        "--out",
        str(tmp_path / "new"),
        "--dry-run",
    ]
    result = CliRunner().invoke(mount(), words)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert ["raw.0", "(folder)", "24", "pairs,"] in [line.split()[:4] for line in lines]
    assert "up to 24" in next(line for line in lines if line.startswith("synthesize"))
    printed = json.loads(CliRunner().invoke(mount(), [*words, "--json"]).stdout)
    assert (printed["ok"], printed["problems"]) == (True, [])
    assert printed["stages"][0]["stage"] == "fetch"
