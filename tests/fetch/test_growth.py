"""Claims about growth: new rows are appended as new shards, old shards stay, and no two truths are mixed."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders.picture_site import Site, running, write_list
from builders.pictures_folder import make_recipe, picture, tree

from stylear.curate import run as runner
from stylear.curate.corpus.layout import STAGES
from stylear.curate.corpus.ledger import Ledger
from stylear.curate.corpus.shards import iter_pairs
from stylear.curate.fetch.loopback import NETWORK
from stylear.errors import SettingsChanged, UsageError

RAW = ("raw/00000.tar", "raw/00000.parquet", "raw/00001.tar", "raw/00001.parquet")


def settings(*raw: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "name": "growing",
        "image": {"size": 16},
        "raw": list(raw) or [{"type": "folder", "path": "photos"}],
        "score": [{"name": "texture", "type": "texture"}],
        "filter": {"duplicates": {"phash_distance": None}},
        "mix": {"shard_pairs": 4, "val_fraction": 0.0},
        **changes,
    }


def add_photos(folder: Path, numbers: range, start: int = 0) -> None:
    """Pictures p000.png ... with a caption beside each."""
    folder.mkdir(exist_ok=True)
    for number in numbers:
        picture(start + number).save(folder / f"p{number:03d}.png")
        (folder / f"p{number:03d}.txt").write_text(f"thing number {number}", "utf-8")


def sources(corpus: Path) -> list[str]:
    return [pair.origin.source for pair in iter_pairs(corpus / "raw")]


def stages_new(root: Path, **changes: Any) -> dict[str, int]:
    recipe = make_recipe(root, settings(**changes))
    return {
        result.stage: result.new
        for result in runner.run(recipe, root / "corpus", workers=1).results
    }


@pytest.fixture(scope="module")
def six_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photos with even numbers, fetched as two shards of four and two."""
    root = tmp_path_factory.mktemp("growing")
    for number in range(0, 12, 2):
        add_photos(root / "photos", range(number, number + 1))
    runner.run(make_recipe(root, settings()), root / "corpus", workers=1)
    return root


@pytest.fixture
def home(tmp_path: Path, six_photos: Path) -> Path:
    """A copy of the six photos and their corpus."""
    return Path(shutil.copytree(six_photos, tmp_path, dirs_exist_ok=True))


def test_new_photos_become_new_shards_and_the_old_ones_keep_their_bytes(home: Path) -> None:
    before = tree(home / "corpus")
    scored = home / "corpus" / "ledger" / "score.texture" / "raw-00001.json"
    untouched = scored.stat().st_mtime_ns
    add_photos(home / "photos", range(5, 8))  # two of them new, by name between old ones
    assert stages_new(home) == {
        "fetch": 1, "synthesize": 0, "score": 2, "filter": 1, "mix": 1, "pairs": 1,
    }  # fmt: skip
    grown = tree(home / "corpus")
    assert [grown[name] for name in RAW] == [before[name] for name in RAW]
    assert grown["ledger/fetch/00001.json"] == before["ledger/fetch/00001.json"]
    assert scored.stat().st_mtime_ns == untouched
    assert sources(home / "corpus") == [
        f"folder:photos/p{number:03d}.png" for number in (0, 2, 4, 6, 8, 10, 5, 7)
    ]
    assert stages_new(home) == dict.fromkeys(STAGES, 0)


def test_a_new_source_is_appended_wherever_it_stands_in_the_recipe(home: Path) -> None:
    before = tree(home / "corpus")
    add_photos(home / "more", range(3), start=500)
    raw = [{"type": "folder", "path": "more"}, {"type": "folder", "path": "photos"}]
    assert stages_new(home, raw=raw)["fetch"] == 1
    grown = tree(home / "corpus")
    assert [grown[name] for name in RAW] == [before[name] for name in RAW]
    assert sources(home / "corpus")[6:] == [f"folder:more/p00{number}.png" for number in range(3)]
    assert stages_new(home, raw=raw) == dict.fromkeys(STAGES, 0)
    assert stages_new(home, raw=raw[::-1])["fetch"] == 0  # the order of sources decides nothing


def test_a_raised_limit_takes_the_rows_behind_it(tmp_path: Path) -> None:
    add_photos(tmp_path / "photos", range(6))
    raw = {"type": "folder", "path": "photos", "limit": 2}
    assert stages_new(tmp_path, raw=[raw])["fetch"] == 1
    assert stages_new(tmp_path, raw=[{**raw, "limit": 5}])["fetch"] == 1
    assert len(sources(tmp_path / "corpus")) == 5
    with pytest.raises(SettingsChanged, match=r"raw\.0\.limit: 5 -> 4"):
        stages_new(tmp_path, raw=[{**raw, "limit": 4}])
    del raw["limit"]
    assert stages_new(tmp_path, raw=[raw])["fetch"] == 1
    assert len(sources(tmp_path / "corpus")) == 6


def test_files_that_are_no_rows_change_nothing(home: Path) -> None:
    before = tree(home / "corpus" / "raw")
    (home / "photos" / "notes.md").write_text("taken in May", "utf-8")
    assert stages_new(home) == dict.fromkeys(STAGES, 0)
    assert tree(home / "corpus" / "raw") == before


def replace_photo(photos: Path) -> None:
    """Another picture of the same size in bytes, as old as the one before."""
    path = photos / "p002.png"
    data, stat = path.read_bytes(), path.stat()
    new = bytearray(data)
    new[-20] ^= 1  # inside the last chunk before the end
    path.write_bytes(bytes(new))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def change_caption(photos: Path) -> None:
    (photos / "p002.txt").write_text("thing number 7", "utf-8")


def remove_photo(photos: Path) -> None:
    (photos / "p002.png").unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replace_photo, r"1 changed \(folder:photos/p002\.png\)"),
        (change_caption, r"1 changed \(folder:photos/p002\.png\)"),
        (remove_photo, r"1 gone \(folder:photos/p002\.png\)"),
    ],
)
def test_a_row_that_changed_is_named_and_nothing_is_written(
    home: Path, change: Any, message: str
) -> None:
    change(home / "photos")
    add_photos(home / "photos", range(20, 22))
    before = tree(home / "corpus")
    with pytest.raises(
        SettingsChanged, match=f"of the 6 rows that were fetched, {message}"
    ) as error:
        stages_new(home)
    assert "--redo fetch" in str(error.value.hint)
    assert tree(home / "corpus") == before
    recipe = make_recipe(home, settings())
    runner.run(recipe, home / "corpus", redo="fetch", workers=1)
    assert len(sources(home / "corpus")) == (7 if change is remove_photo else 8)


def test_a_detail_that_changed_in_a_list_is_noticed(tmp_path: Path) -> None:
    """Its key is made of the picture and the caption, so the key alone would not tell."""
    photos = tmp_path / "photos"
    add_photos(photos, range(2))

    def write(licence: str) -> None:
        with (photos / "captions.csv").open("w", newline="", encoding="utf-8") as file:
            rows = [["image", "caption", "licence"], ["p000.png", "a", "cc0"]]
            csv.writer(file).writerows([*rows, ["p001.png", "b", licence]])

    write("cc0")
    stages_new(tmp_path)
    write("all rights reserved")
    with pytest.raises(SettingsChanged, match=r"1 changed \(folder:photos/p001\.png\)"):
        stages_new(tmp_path)


def test_a_growth_that_is_refused_leaves_recipe_and_manifest(home: Path) -> None:
    add_photos(home / "more", range(3), start=500)
    (home / "photos" / "p002.png").unlink()
    before = tree(home / "corpus")
    raw = [{"type": "folder", "path": "photos"}, {"type": "folder", "path": "more"}]
    with pytest.raises(SettingsChanged, match="1 gone"):
        stages_new(home, raw=raw)
    assert tree(home / "corpus") == before


def test_another_setting_of_a_source_is_no_growth(home: Path) -> None:
    raw = [{"type": "folder", "path": "photos", "max_bytes": 1000}]
    with pytest.raises(SettingsChanged, match=r"raw\.0\.max_bytes: 64000000 -> 1000"):
        stages_new(home, raw=raw)


def test_a_source_that_is_left_out_is_no_growth(home: Path) -> None:
    add_photos(home / "more", range(3), start=500)
    with pytest.raises(SettingsChanged, match=r"raw\.0\.path"):
        stages_new(home, raw=[{"type": "folder", "path": "more"}])


def test_a_damaged_shard_of_a_grown_corpus_is_repaired_from_its_sources(home: Path) -> None:
    add_photos(home / "photos", range(5, 8))
    stages_new(home)
    before = tree(home / "corpus")
    for split in ("train", "val"):
        shutil.rmtree(home / "corpus" / split, ignore_errors=True)
    for name in ("raw/00000.tar", "raw/00002.tar", "raw/00002.parquet"):
        (home / "corpus" / name).write_bytes(b"")
    stages_new(home)
    assert tree(home / "corpus") == before


@pytest.mark.parametrize(
    "point",
    [
        "raw/00002.parquet",  # its tar is there
        "ledger/fetch/00002.json",
        "ledger/fetch/00003.json",
        "ledger/fetch/all.json",
        "ledger/filter/all.json",
    ],
)
def test_a_growth_that_is_killed_ends_with_the_same_bytes(home: Path, point: str) -> None:
    add_photos(home / "photos", range(5, 20))
    whole = home / "whole"
    shutil.copytree(home / "corpus", whole)
    recipe = make_recipe(home, settings())
    runner.run(recipe, whole, workers=1)
    child = [sys.executable, str(Path(__file__).parents[1] / "builders" / "killed_child.py")]
    killed = subprocess.run(
        [*child, "run", str(home / "recipe.yaml"), str(home / "corpus"), point],
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    runner.run(recipe, home / "corpus", workers=1)
    assert tree(home / "corpus") == tree(whole)


# --- downloads ------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running(tmp_path) as running_site:
        yield running_site


LISTED = {"type": "urls", "path": "list.csv", "allow_networks": [NETWORK], "threads": 2}


def test_only_new_urls_are_downloaded(tmp_path: Path, site: Site) -> None:
    write_list(tmp_path, site, range(6))
    site.failing = {"/2.png": 404}
    stages_new(tmp_path, raw=[LISTED])
    before = tree(tmp_path / "corpus")
    site.failing = {}
    site.asked.clear()
    write_list(tmp_path, site, [8, *range(7)])
    assert stages_new(tmp_path, raw=[LISTED])["fetch"] == 1
    assert sorted(site.asked) == ["/6.png", "/8.png"]  # what failed before is for `retry`
    grown = tree(tmp_path / "corpus")
    assert [grown[name] for name in RAW] == [before[name] for name in RAW]
    assert [name.rpartition("/")[2] for name in sources(tmp_path / "corpus")[6:]] == [
        "8.png",
        "6.png",
    ]
    assert not (tmp_path / "corpus" / ".work").exists()


def test_a_retry_of_a_grown_corpus_fills_each_shard_in_its_place(
    tmp_path: Path, site: Site
) -> None:
    write_list(tmp_path, site, range(5))
    site.failing = {"/1.png": 503, "/8.png": 503}
    stages_new(tmp_path, raw=[LISTED])
    write_list(tmp_path, site, range(9))
    recipe = make_recipe(tmp_path, settings(LISTED))
    with pytest.raises(UsageError, match="the sources or their settings have changed"):
        runner.retry(recipe, tmp_path / "corpus", ["5xx"], workers=1)
    stages_new(tmp_path, raw=[LISTED])
    site.failing = {}
    refilled, _ = runner.retry(recipe, tmp_path / "corpus", ["5xx"], workers=1)
    assert refilled.units == ["00000", "00002"]
    assert all(pair.kept for pair in iter_pairs(tmp_path / "corpus" / "raw"))
    entry = Ledger(tmp_path / "corpus").entry("fetch", "all")
    assert entry is not None
    assert len(entry.inputs) == 1
    write_list(tmp_path, site, range(10))
    assert stages_new(tmp_path, raw=[LISTED])["fetch"] == 1
    assert len(sources(tmp_path / "corpus")) == 10


def test_a_retry_keeps_what_was_drawn_and_draws_what_it_filled(tmp_path: Path, site: Site) -> None:
    (tmp_path / "styles").mkdir()
    picture(99).save(tmp_path / "styles" / "warm.png")
    changes = {
        "raw": [LISTED],
        "references": [{"type": "folder", "path": "styles"}],
        "synthesize": {"backend": "statistics", "candidates": 1, "shard_pairs": 4},
    }
    write_list(tmp_path, site, range(6))
    site.failing = {"/1.png": 503}
    stages_new(tmp_path, **changes)
    drawn = tree(tmp_path / "corpus" / "stylized")
    site.failing = {}
    recipe = make_recipe(tmp_path, settings(**changes))
    _, results = runner.retry(recipe, tmp_path / "corpus", ["5xx"], workers=1)
    assert {result.stage: result.new for result in results}["synthesize"] == 1
    after = tree(tmp_path / "corpus" / "stylized")
    assert {name: after[name] for name in drawn} == drawn
    captions = [pair.caption for pair in iter_pairs(tmp_path / "corpus" / "stylized")]
    assert (len(captions), captions[-1]) == (6, "thing number 1")
