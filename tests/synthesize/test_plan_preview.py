"""`curate synthesize --dry-run`: the plan as a person sees it before anything is drawn."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from builders.pictures_folder import make_folders, settings, tree, write_recipe
from typer.testing import CliRunner, Result

from stylear.curate.cli import app
from stylear.curate.corpus.shards import iter_pairs
from stylear.errors import CorpusError

PER_STYLE = {"contents": 10, "candidates": 3, "per_style": 2, "destyle": True}


def call(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with fetched pairs, every third caption with words of style."""
    root = tmp_path_factory.mktemp("preview")
    make_folders(root)
    with (root / "photos" / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption"])
        for number in range(24):
            caption = ["thing {}", "an oil painting of thing {}", "oil painting, 8k"][number % 3]
            rows.writerow([f"p{number:03d}.png", caption.format(number)])
    values = settings(
        synthesize={"backend": "statistics", "shard_pairs": 6, **PER_STYLE},
        mix={"val_fraction": 0.0},
    )
    assert call("fetch", write_recipe(root, values), "--out", root / "corpus").exit_code == 0
    return root / "corpus"


def test_a_dry_run_counts_what_would_be_made_and_writes_nothing(corpus: Path) -> None:
    before = tree(corpus)
    printed = json.loads(call("synthesize", "--out", corpus, "--dry-run", "--json").stdout)
    assert tree(corpus) == before
    assert (printed["backend"], printed["images"], printed["shards"]) == ("statistics", 36, 6)
    whole = {"prompts": 10, "styles": 6, "references": 6, "candidates": 3, "images": 36}
    none = {"prompts": 0, "styles": 0, "references": 0, "candidates": 3, "images": 0}
    assert printed["splits"] == [
        {"split": "train", **whole},
        {"split": "val", **none},
        {"split": "all", **whole},
    ]
    assert printed["contents_per_style"] == {f"s{number:03d}": 2 for number in range(6)}
    assert printed["prompts_skipped"] == {"no-content": 8}
    assert printed["models"] == []
    assert len(printed["examples"]) == 5
    for example in printed["examples"]:  # changed ones first
        assert example["before"] == f"an oil painting of {example['prompt']}"
        assert example["removed"] == ["an oil painting of"]


def test_a_dry_run_is_what_is_made(corpus: Path) -> None:
    corpus = shutil.copytree(corpus, corpus.with_name("made"))
    printed = json.loads(call("synthesize", "--out", corpus, "--dry-run", "--json").stdout)
    done = call("synthesize", "--out", corpus, "--json")
    assert "synthesize: 8 prompts skipped: no-content" in done.stderr.splitlines()
    results = json.loads(done.stdout)
    assert results[0]["kept"] == printed["images"] == 36
    assert results[0]["units"] == printed["shards"] == 6
    pairs = list(iter_pairs(corpus / "stylized"))
    styled = [pair for pair in pairs if "style_removed" in pair.origin.details]
    assert len(pairs) == 36
    assert {pair.origin.details["style_removed"] for pair in styled} == {"an oil painting of"}
    assert {pair.caption.split()[0] for pair in pairs} == {"thing"}
    for pair in styled:
        assert pair.caption == pair.origin.details["prompt"]
        assert pair.origin.parent is not None
    again = json.loads(call("synthesize", "--out", corpus, "--dry-run", "--json").stdout)
    assert (again["images"], again["images_planned_before"]) == (0, 36)


def test_a_dry_run_reads_as_tables(corpus: Path) -> None:
    lines = call("synthesize", "--out", corpus, "--dry-run").stdout.splitlines()
    assert lines[0].split() == [
        *("split", "prompts", "styles", "references", "candidates", "images")
    ]
    assert lines[3].split() == ["all", "10", "6", "6", "3", "36"]
    assert "prompts skipped: no-content  8" in lines
    assert "fewest contents              2 (s000)" in lines
    assert sum(line.startswith("an oil painting of thing") for line in lines) == 5


def test_a_dry_run_names_models_that_are_missing(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    settings = f"{{model: no-such-model, ip_adapter: {tmp_path / 'adapter'}}}"
    changes = [
        "--set",
        "synthesize.backend=instantstyle",
        "--set",
        f"synthesize.settings={settings}",
    ]
    printed = json.loads(
        call("synthesize", "--out", corpus, "--dry-run", "--json", *changes).stdout
    )
    models = {model["setting"]: model for model in printed["models"]}
    assert models["ip_adapter"]["found"] == str(tmp_path / "adapter")
    assert (models["model"]["model"], models["model"]["found"]) == ("no-such-model", None)
    assert models["model"]["hint"].startswith("missing; ")
    text = call("synthesize", "--out", corpus, "--dry-run", *changes).stdout
    assert any(
        line.split()[:3] == ["model", "no-such-model", "missing;"] for line in text.split("\n")
    )


def test_a_dry_run_of_templates_needs_no_raw_pairs(corpus: Path, tmp_path: Path) -> None:
    make_folders(tmp_path, pictures=1)
    spec = {
        "backend": "instantstyle",
        "settings": {"model": "m", "ip_adapter": "a"},
        "templates": ["{animal} on {place}"],
        "words": {"animal": ["a cat", "a dog"], "place": ["a hill", "snow"]},
    }
    recipe = write_recipe(tmp_path, settings(synthesize=spec, mix={"val_fraction": 0.0}))
    new = tmp_path / "new"
    printed = json.loads(call("synthesize", recipe, "--out", new, "--dry-run", "--json").stdout)
    assert printed["splits"][2]["prompts"] == 4
    assert not new.exists()
    with pytest.raises(CorpusError, match="stage fetch is not finished"):
        call("synthesize", corpus / "recipe.yaml", "--out", new, "--dry-run")
    assert not new.exists()
