"""Plug-ins: the documented example runs end to end, and its version is part of what was made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.finished_corpus import finished_settings, make_sources
from builders.pictures_folder import make_recipe
from builders.plugin_distribution import documented_modules, install_distribution

from stylear.curate import run as runner
from stylear.curate.api import open_corpus
from stylear.curate.corpus import parquet
from stylear.curate.corpus.ledger import Ledger
from stylear.curate.corpus.shards import iter_pairs
from stylear.curate.recipe import dump_recipe, load_recipe
from stylear.curate.score import read_metadata
from stylear.curate.synthesize.job import decode_square
from stylear.errors import SettingsChanged

ORIGIN = "stylear-example 1.0"
CHANGES: dict[str, Any] = {
    "synthesize": {
        "backend": "tint",
        "contents": 12,
        "candidates": 1,
        "settings": {"strength": 1.0},
    },
    "score": [
        {"name": "texture", "type": "texture"},
        {"name": "sharp", "type": "sharpness", "radius": 2},
    ],
}


def recipe_of(root: Path) -> Any:
    settings = finished_settings(**CHANGES)
    settings["filter"] = {**settings["filter"], "thresholds": [{"score": "sharp", "min": 0.0001}]}
    return make_recipe(root, settings)


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    install_distribution(tmp_path / "site", monkeypatch)
    make_sources(tmp_path)
    runner.run(recipe_of(tmp_path), tmp_path / "corpus", workers=2)
    return tmp_path / "corpus"


def test_a_recipe_with_plug_ins_runs_end_to_end(corpus: Path) -> None:
    stylized = list(iter_pairs(corpus / "stylized"))
    assert len(stylized) == 12
    references = {path.stem: path for path in (corpus.parent / "styles").iterdir()}
    for pair in stylized:
        assert (pair.kept, pair.origin.source) == (True, "synthesizer:tint")
        assert pair.origin.details["plugin"] == ORIGIN
        reference = decode_square(references[str(pair.origin.reference)].read_bytes(), 24)
        drawn = decode_square(pair.image, 24)
        kept = (drawn > 0) & (drawn < 1)  # the rest was clipped
        if kept.all():
            assert drawn.mean((0, 1)) == pytest.approx(reference.mean((0, 1)), abs=0.01)
    scores = {row["key"]: row["sharp"] for row in open_corpus(corpus).scores("sharp").to_pylist()}
    grey = [np.asarray(decode_grey(pair.image), np.float64) / 255 for pair in stylized]
    expected = [np.abs(one[:, 2:] - one[:, :-2]).mean() for one in grey]
    assert [scores[pair.key] for pair in stylized] == pytest.approx(expected, abs=1e-5)
    assert (
        open_corpus(corpus).verdicts()["score.sharp"].null_count == 1
    )  # the file that is no picture


def decode_grey(data: bytes) -> Any:
    import io

    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB").convert("L")


def test_ledger_tables_and_manifest_name_the_distribution_and_its_version(corpus: Path) -> None:
    ledger = Ledger(corpus)
    assert {entry.settings.get("plugin") for entry in ledger.entries("score.sharp")} == {ORIGIN}
    assert {entry.settings.get("plugin") for entry in ledger.entries("synthesize")} == {ORIGIN}
    assert {entry.settings.get("plugin") for entry in ledger.entries("score.texture")} == {None}
    tables = corpus / "scores"
    metadata = read_metadata(parquet.read_table(tables / "sharp" / "raw-00000.parquet"))
    assert (metadata["type"], metadata["plugin"]) == ("sharpness", ORIGIN)
    assert "plugin" not in read_metadata(
        parquet.read_table(tables / "texture" / "raw-00000.parquet")
    )
    manifest = json.loads((corpus / "manifest.json").read_text("utf-8"))
    assert manifest["versions"]["stylear-example"] == "1.0"


def test_another_version_stops_the_run_and_says_so(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = str(corpus.parent / "site")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != site])
    install_distribution(corpus.parent / "newer", monkeypatch, version="1.1")
    with pytest.raises(
        SettingsChanged, match=r'plugin: "stylear-example 1\.0" -> "stylear-example 1\.1"'
    ):
        runner.run_stages(["score"], recipe_of(corpus.parent), corpus, workers=1)


def test_a_resolved_recipe_keeps_the_plug_ins_settings(corpus: Path) -> None:
    loaded = load_recipe(corpus / "recipe.yaml")
    assert loaded.score[1].model_dump() == {"name": "sharp", "type": "sharpness", "radius": 2}
    assert loaded.synthesize.settings == {"batch_size": 16, "strength": 1.0}
    assert dump_recipe(loaded) == (corpus / "recipe.yaml").read_text("utf-8")


def test_built_in_kinds_look_up_no_entry_point() -> None:
    code = (
        "import stylear.curate.entry_points as e; e.entry_points = None\n"
        "from stylear.curate.recipe import load_recipe; from stylear.embedded import find_manifest\n"
        "print(load_recipe(find_manifest('demo')).synthesize.backend)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "patch\n"


def test_the_page_shows_both_modules() -> None:
    assert sorted(documented_modules()) == [
        *("stylear_example/__init__.py", "stylear_example/sharpness.py", "stylear_example/tint.py")
    ]
