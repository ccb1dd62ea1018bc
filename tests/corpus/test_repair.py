"""Damage in committed files is found by the audit, and repaired by running again, to the byte."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders.pictures_folder import make_folders, make_recipe, picture, settings, tree
from typer.testing import CliRunner

import stylear.curate.cli
from stylear.curate import run as runner
from stylear.curate.audit.auditor import audit
from stylear.curate.corpus.ledger import Ledger
from stylear.curate.corpus.shards import iter_pairs
from stylear.curate.fetch.loopback import serve
from stylear.curate.recipe import Recipe
from stylear.errors import CorpusError, StylearError


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders, a recipe that gives every kind of file, and the corpus that it makes."""
    root = tmp_path_factory.mktemp("repair")
    make_folders(root)
    ranked = {"text_score": "texture", "style_score": "texture", "best_of": None}
    recipe = make_recipe(root, settings(pairs={"margin": 0.0}, filter=ranked))
    runner.run(recipe, root / "corpus", workers=1)
    return root


@pytest.fixture
def built(home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(home / "corpus", tmp_path / "corpus"))


@pytest.fixture(scope="module")
def recipe(home: Path) -> Recipe:
    from stylear.curate.recipe import load_recipe

    return load_recipe(home / "recipe.yaml")


def flip(path: Path, part: float) -> None:
    """Flip one bit at that part of a file."""
    data = bytearray(path.read_bytes())
    data[int(part * (len(data) - 1))] ^= 4
    path.write_bytes(data)


def truncate(path: Path, part: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])


FILES = [
    "raw/00001.tar",
    "raw/00001.parquet",
    "stylized/00002.tar",
    "stylized/00002.parquet",
    "scores/texture/stylized-00001.parquet",
    "scores/phash/raw-00000.parquet",
    "verdicts.parquet",
    "columns.parquet",
    "diversity.json",
    "mix.parquet",
    "train/00000.tar",
    "train/00000.parquet",
    "train/wids.json",
    "val/00000.tar",
    "preferences/00000.tar",
    "preferences/00000.parquet",
    "preferences/wids.json",
    "ledger/score.texture/raw-00000.json",
    "ledger/mix/all.json",
    "recipe.yaml",
]
HARM = {"flipped": flip, "cut": truncate}


@pytest.mark.parametrize("how", HARM)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_by_the_audit_and_repaired_by_the_next_run(
    home: Path, built: Path, recipe: Recipe, name: str, how: str
) -> None:
    expected = tree(home / "corpus", (".lock", "report"))
    HARM[how](built / name, 0.4)
    assert (built / name).read_bytes() != expected[name]
    assert name in {difference.where for difference in audit(built).differences}
    done = runner.run(recipe, built, workers=1)
    assert tree(built, (".lock", "report")) == expected
    assert audit(built).passed
    assert sum(result.new for result in done.results) == (name != "recipe.yaml")


@pytest.mark.parametrize("part", [0.0, 0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.99])
def test_a_bit_anywhere_in_a_shard_is_repaired_without_its_source(
    home: Path, built: Path, recipe: Recipe, part: float, tmp_path: Path
) -> None:
    """Of kept pairs there are copies in train/ and val/."""
    ledger = Ledger(built)
    for kind, stage in (("raw", "fetch"), ("stylized", "synthesize")):
        flip(built / kind / "00000.tar", part)
        from stylear.curate.corpus.repair import repair_shard

        entry = ledger.entry(stage, "00000")
        assert entry is not None
        assert repair_shard(built, entry)
        name = f"{kind}/00000.tar"
        assert (built / name).read_bytes() == (home / "corpus" / name).read_bytes()


def test_without_verify_only_sizes_are_looked_at(built: Path, recipe: Recipe) -> None:
    flip(built / "scores/texture/raw-00000.parquet", 0.5)
    results = runner.run_stages(["score"], recipe, built, workers=1, verify=False)
    assert results[0].new == 0
    assert runner.run_stages(["score"], recipe, built, workers=1)[0].new == 1


def test_a_stage_alone_refuses_damaged_tables_of_the_stages_before_it(
    built: Path, recipe: Recipe
) -> None:
    flip(built / "raw" / "00000.parquet", 0.5)
    with pytest.raises(CorpusError, match=r"raw/00000\.parquet") as caught:
        runner.run_stages(["filter"], recipe, built, workers=1)
    assert "which rebuild it" in (caught.value.hint or "")


def test_a_changed_number_in_the_ledger_is_noticed(built: Path) -> None:
    path = built / "ledger" / "fetch" / "00000.json"
    path.write_text(path.read_text().replace('"kept": 10', '"kept": 11'))
    with pytest.raises(CorpusError, match="changed after it was written"):
        Ledger(built).entries("fetch")


# --- raw pairs whose source is another, or gone -----------------------------------------------


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Any]:
    """A recipe over a URL list whose pictures a server on loopback has, and the corpus of it."""
    site = tmp_path / "site"
    site.mkdir()
    for number in range(8):
        picture(number).save(site / f"{number}.png")
    with serve(site) as address:
        rows = [
            {"url": f"{address}/{number}.png", "caption": f"thing number {number}"}
            for number in range(8)
        ]
        (tmp_path / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        source = {"type": "urls", "path": "list.jsonl", "allow_networks": ["127.0.0.0/8"]}
        values = settings(raw=[source], references=[], score=[])
        values.pop("synthesize")
        values["mix"]["shard_pairs"] = 4
        web_recipe = make_recipe(tmp_path, values)
        runner.run_stages(["fetch"], web_recipe, tmp_path / "corpus", workers=1)
        yield web_recipe, tmp_path / "corpus", site


def lose(corpus: Path) -> str:
    """Damage the second image of the second shard; its key."""
    pair = list(iter_pairs(corpus / "raw"))[5]
    path = corpus / "raw" / "00001.tar"
    data = path.read_bytes()
    path.write_bytes(data.replace(pair.image, pair.image[:-9] + bytes(9)))
    assert path.read_bytes() != data
    return pair.key


def test_a_lost_image_is_fetched_again_and_nothing_else_is(web: Any) -> None:
    recipe, corpus, site = web
    expected = tree(corpus)
    lose(corpus)
    for number in (0, 1, 2, 3, 4, 6, 7):  # the others are not asked for
        (site / f"{number}.png").unlink()
    results = runner.run_stages(["fetch"], recipe, corpus, workers=1)
    assert (results[0].new, results[0].kept) == (1, 8)
    assert tree(corpus) == expected


@pytest.mark.parametrize("change", ["gone", "other"])
def test_an_image_whose_source_is_gone_is_named_and_nothing_is_lost(web: Any, change: str) -> None:
    recipe, corpus, site = web
    key = lose(corpus)
    expected = tree(corpus)
    if change == "gone":
        (site / "5.png").unlink()
    else:
        picture(99).save(site / "5.png")
    with pytest.raises(CorpusError, match=rf"raw/00001: damaged, and its source .*{key}") as caught:
        runner.run_stages(["fetch"], recipe, corpus, workers=1)
    assert ("http-404" if change == "gone" else "other bytes") in caught.value.message
    assert "Nothing was changed" in (caught.value.hint or "")
    assert tree(corpus) == expected


def test_the_command_repairs_and_can_skip_the_check(home: Path, built: Path) -> None:
    words = ["run", str(home / "recipe.yaml"), "--out", str(built), "--workers", "1", "--json"]
    flip(built / "stylized" / "00000.tar", 0.3)
    result = CliRunner().invoke(stylear.curate.cli.app, [*words, "--no-verify"])
    assert isinstance(result.exception, StylearError)  # the audit at the end
    assert "stylized/00000.tar" in result.exception.message
    result = CliRunner().invoke(stylear.curate.cli.app, words)
    assert (result.exit_code, result.exception) == (0, None)
    stages = {stage["stage"]: stage["new"] for stage in json.loads(result.stdout)["stages"]}
    assert stages == {"fetch": 0, "synthesize": 1, "score": 0, "filter": 0, "mix": 0, "pairs": 0}
