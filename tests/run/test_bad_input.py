"""What a run does with bad input: a reason for each drop, and one line for what stops it."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.pictures_folder import make_folders, make_recipe, tree
from typer.testing import CliRunner

from stylear.curate import run as runner
from stylear.curate.corpus.ledger import lock_corpus
from stylear.errors import (
    CorpusError,
    CorpusLocked,
    SourceError,
    UsageError,
)

runner_cli = CliRunner()


def test_bad_pictures_are_dropped_with_a_reason_and_the_rest_stays(tmp_path: Path) -> None:
    make_folders(tmp_path, pictures=14)
    (tmp_path / "photos" / "p003.png").write_bytes(b"not a picture")
    (tmp_path / "photos" / "p004.png").write_bytes(b"")
    data = (tmp_path / "photos" / "p005.png").read_bytes()
    (tmp_path / "photos" / "p005.png").write_bytes(data[:-60])
    results = runner.run_stages(["fetch"], make_recipe(tmp_path), tmp_path / "corpus", workers=1)
    assert (results[0].rows_in, results[0].kept) == (14, 11)
    assert sum(results[0].dropped.values()) == 3
    assert {"not-an-image", "corrupt-image"} <= set(results[0].dropped)


def test_nothing_kept_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    make_folders(tmp_path, pictures=2)
    for path in (tmp_path / "photos").glob("*.png"):
        path.write_bytes(b"not a picture")
    with pytest.raises(SourceError, match=r"none of 2 pairs can be used: not-an-image 2"):
        runner.run(make_recipe(tmp_path), tmp_path / "corpus", workers=1)


def test_a_corpus_that_another_run_writes_is_refused_and_untouched(built: Path, home: Path) -> None:
    before = tree(built)
    with (
        lock_corpus(built),
        pytest.raises(CorpusLocked, match="another process is writing this corpus"),
    ):
        runner.run(make_recipe(home), built, workers=1, redo="filter")
    assert tree(built) == before


def test_an_empty_folder_is_a_source_error(tmp_path: Path) -> None:
    make_folders(tmp_path, pictures=0)
    with pytest.raises(SourceError, match="photos"):
        runner.run(make_recipe(tmp_path), tmp_path / "corpus", workers=1)


def test_a_folder_of_other_things_is_not_taken_for_a_corpus(home: Path) -> None:
    with pytest.raises(UsageError, match="expected a corpus or an empty folder, found"):
        runner.run(make_recipe(home), home / "photos", workers=1)
    with pytest.raises(UsageError, match="found a file"):
        runner.run(make_recipe(home), home / "recipe.yaml", workers=1)


def test_a_damaged_shard_is_named_not_scored(built: Path, home: Path) -> None:
    path = built / "raw" / "00001.tar"
    data = bytearray(path.read_bytes())
    data[600] ^= 255
    path.write_bytes(data)
    with pytest.raises(CorpusError, match=r"raw/00001\.tar"):
        runner.run_stages(["score"], make_recipe(home), built, workers=1, redo="score")
