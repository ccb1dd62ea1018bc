"""Models are named that were trained on what is forgotten, as their lineage tells."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from builders.forgotten_corpus import pair_to_forget

from stylear.curate.corpus.parquet import file_sha256
from stylear.curate.forget import forget_pairs
from stylear.curate.forget.models import find_models
from stylear.curate.forget.request import Request
from stylear.errors import UsageError


def write_model(folder: Path, name: str, sha256: str | None) -> str:
    folder.mkdir(parents=True)
    base = {"model": "mini-ar", "corpora": [{"name": name, "manifest_sha256": sha256}]}
    (folder / "stylear.json").write_text(json.dumps({"base": base}), "utf-8")
    return str(folder)


def test_models_are_known_by_the_manifest_that_they_record(finished: Path, tmp_path: Path) -> None:
    corpus, runs = Path(shutil.copytree(finished, tmp_path / "corpus")), tmp_path / "runs"
    raw, _ = pair_to_forget(corpus)
    sha256 = file_sha256(corpus / "manifest.json")
    own = write_model(runs / "sft" / "final", "corpus", sha256)
    named = write_model(runs / "old" / "final", "corpus", "0" * 64)
    write_model(runs / "other" / "final", "another", "0" * 64)
    (runs / "broken").mkdir()
    (runs / "broken" / "stylear.json").write_text("no JSON")
    assert find_models(corpus, [runs]) == [
        {"model": named, "trained_on": "another version"},
        {"model": own, "trained_on": "this version"},
    ]
    forget_pairs(corpus, Request(sources=(raw.origin.source,)))
    again = write_model(runs / "new", "corpus", file_sha256(corpus / "manifest.json"))
    assert find_models(corpus, [runs]) == [
        {"model": again, "trained_on": "this version"},
        {"model": named, "trained_on": "another version"},
        {"model": own, "trained_on": "an earlier version"},
    ]


def test_a_folder_that_is_not_there_is_an_error(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--runs .*nowhere: expected a folder with training runs"):
        find_models(finished, [tmp_path / "nowhere"])
