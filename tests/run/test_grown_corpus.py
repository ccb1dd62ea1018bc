"""Claims about growth behind fetch: new contents and styles are drawn and scored alone, the rest is kept."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from builders.pictures_folder import make_folders, make_recipe, picture, settings, tree

from stylear.curate import run as runner
from stylear.curate.corpus.layout import STAGES
from stylear.curate.corpus.parquet import read_table
from stylear.curate.corpus.shards import iter_pairs
from stylear.curate.corpus.split import assign_split
from stylear.errors import SettingsChanged

SYNTHESIZE = {"backend": "statistics", "contents": 12, "candidates": 2, "shard_pairs": 6}


def run(root: Path, corpus: Path | None = None, **synthesize: Any) -> dict[str, int]:
    """How many units of each stage a run committed."""
    recipe = make_recipe(root, settings(synthesize={**SYNTHESIZE, **synthesize}))
    done = runner.run(recipe, corpus or root / "corpus", workers=1)
    return {result.stage: result.new for result in done.results}


def add_style(root: Path) -> str:
    """A further style reference of the train split; its id."""
    name = next(name for n in range(6, 99) if assign_split(name := f"s{n:03d}", 0, 0.25) == "train")
    picture(2000).save(root / "styles" / f"{name}.png")
    return name


def add_photos(root: Path, numbers: range) -> None:
    with (root / "photos" / "captions.csv").open("a", encoding="utf-8") as file:
        for number in numbers:
            picture(number).save(root / "photos" / f"p{number:03d}.png")
            file.write(f"p{number:03d}.png,thing number {number}\n")


def uses(corpus: Path) -> Counter[str]:
    """How many images were drawn with each reference."""
    return Counter(str(pair.origin.reference) for pair in iter_pairs(corpus / "stylized"))


def kept_files(corpus: Path) -> dict[str, tuple[bytes, int]]:
    """Raw and stylized shards and their scores, with the time when they were written."""
    folders = ("raw", "stylized", "scores", "plan", "ledger/score.texture", "ledger/synthesize")
    return {
        path.relative_to(corpus).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for folder in folders
        for path in (corpus / folder).rglob("*")
        if path.is_file() and path.name != "all.json"
    }


def require_kept(before: dict[str, tuple[bytes, int]], corpus: Path) -> None:
    after = kept_files(corpus)
    assert {name: after[name] for name in before} == before


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("growth")
    make_folders(root, pictures=24, styles=6)
    run(root)
    return root


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    """Sources and a corpus of 12 contents, each drawn in one of 6 styles, in 4 shards of 6 images."""
    return Path(shutil.copytree(made, tmp_path / "home"))


def test_a_new_style_is_drawn_as_often_as_the_others_and_nothing_else_is(home: Path) -> None:
    before, old = kept_files(home / "corpus"), uses(home / "corpus")
    new = add_style(home)
    new_units = run(home)
    use_counts = uses(home / "corpus")
    assert {name: use_counts[name] for name in old} == old
    assert 0 < use_counts[new] <= max(old.values())
    assert (new_units["fetch"], new_units["synthesize"], new_units["score"]) == (
        0,
        1,
        2,
    )  # texture and phash
    require_kept(before, home / "corpus")
    pairs = [pair.origin for pair in iter_pairs(home / "corpus" / "stylized")]
    assert {p.reference for p in pairs[24:]} == {new}
    assert len({(p.content, p.reference) for p in pairs}) * 2 == len(pairs)
    assert run(home) == dict.fromkeys(STAGES, 0)


def test_new_photos_are_new_contents(home: Path) -> None:
    run(home, contents=None)
    before = kept_files(home / "corpus")
    add_photos(home, range(24, 30))
    new_units = run(home, contents=None)
    require_kept(before, home / "corpus")
    assert new_units["fetch"] == 1
    pairs = list(iter_pairs(home / "corpus" / "stylized"))
    assert len(pairs) == 60
    assert {pair.caption for pair in pairs[48:]} == {f"thing number {n}" for n in range(24, 30)}


def test_photos_beyond_the_number_of_contents_are_only_raw(home: Path) -> None:
    add_photos(home, range(24, 30))
    new_units = run(home)
    assert (new_units["fetch"], new_units["synthesize"]) == (1, 0)
    assert len(list(iter_pairs(home / "corpus" / "stylized"))) == 24
    assert run(home) == dict.fromkeys(STAGES, 0)


def test_more_contents_are_drawn_behind_the_others(home: Path) -> None:
    before = kept_files(home / "corpus")
    assert run(home, contents=15)["synthesize"] == 1
    require_kept(before, home / "corpus")
    pairs = list(iter_pairs(home / "corpus" / "stylized"))
    assert len(pairs) == 30
    assert len({pair.origin.parent for pair in pairs}) == 15
    with pytest.raises(SettingsChanged, match=r"synthesize\.contents: 15 -> 14"):
        run(home, contents=14)


def test_a_style_with_a_quota_meets_its_contents(home: Path) -> None:
    run(home, corpus=home / "quota", per_style=2)
    before = kept_files(home / "quota")
    new = add_style(home)
    run(home, corpus=home / "quota", per_style=2)
    require_kept(before, home / "quota")
    assert uses(home / "quota")[new] == 4  # two contents, two candidates
    run(home, corpus=home / "quota", per_style=3)
    assert uses(home / "quota")[new] == 6


@pytest.mark.parametrize("change", ["missing", "changed"])
def test_a_style_that_is_used_must_stay_as_it_is(home: Path, change: str) -> None:
    name = sorted(uses(home / "corpus"))[0]
    path = home / "styles" / f"{name}.png"
    path.unlink() if change == "missing" else picture(77).save(path)
    before = kept_files(home / "corpus")
    with pytest.raises(SettingsChanged, match=rf"no longer the same: {name} \({change}\)") as error:
        run(home)
    assert "--redo synthesize" in str(error.value.hint)
    require_kept(before, home / "corpus")
    run_again = make_recipe(home, settings(synthesize=SYNTHESIZE))
    runner.run(run_again, home / "corpus", workers=1, redo="synthesize")


def test_another_setting_of_the_backend_is_no_growth(home: Path) -> None:
    with pytest.raises(SettingsChanged, match=r"synthesize\.candidates: 2 -> 3"):
        run(home, candidates=3)


def kill(home: Path, corpus: Path, point: str) -> None:
    child = [sys.executable, str(Path(__file__).parents[1] / "builders" / "killed_child.py")]
    killed = subprocess.run(
        [*child, "run", str(home / "recipe.yaml"), str(corpus), point],
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr


@pytest.mark.parametrize(
    "point",
    [
        "plan/00001.parquet",
        "ledger/synthesize.plan/00001.json",
        "stylized/00004.parquet",
        "ledger/synthesize/00005.json",
        "ledger/synthesize/all.json",
        "ledger/score.texture/stylized-00005.json",
    ],
)
def test_a_growth_that_is_killed_ends_with_the_same_bytes(home: Path, point: str) -> None:
    add_style(home)
    add_photos(home, range(24, 27))
    shutil.copytree(home / "corpus", home / "whole")
    run(home, home / "whole", contents=21)
    kill(home, home / "corpus", point)
    run(home, contents=21)
    assert tree(home / "corpus") == tree(home / "whole")


def test_a_synthesis_that_was_killed_ends_its_plan_before_it_grows(home: Path) -> None:
    make_recipe(home, settings(synthesize=SYNTHESIZE))
    kill(home, home / "killed", "ledger/synthesize/00002.json")
    new = add_style(home)
    run(home, home / "killed")
    for name in ("tar", "parquet"):
        for number in range(4):
            path = f"stylized/{number:05d}.{name}"
            assert (home / "killed" / path).read_bytes() == (home / "corpus" / path).read_bytes()
    assert uses(home / "killed")[new] > 0


def test_a_damaged_plan_is_planned_again(home: Path) -> None:
    before = tree(home / "corpus")
    (home / "corpus" / "plan" / "00000.parquet").write_bytes(b"")
    run(home)
    assert tree(home / "corpus") == before


def test_the_plan_lists_what_each_growth_added(home: Path) -> None:
    new = add_style(home)
    run(home)
    tables = [read_table(home / "corpus" / "plan" / f"0000{n}.parquet") for n in range(2)]
    assert tables[0].num_rows == 12
    assert set(tables[1]["reference"].to_pylist()) == {new}
    assert tables[0].column_names == [
        "key", "caption", "content", "original", "reference", "reference_sha256",
    ]  # fmt: skip
