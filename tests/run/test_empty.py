"""Nothing in is an error that names the source; --allow-empty accepts it; nothing kept is an error too."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders.pictures_folder import encoded, make_folders, settings
from typer.testing import CliRunner

from stylear.cli import mount
from stylear.curate import run as runner
from stylear.curate.corpus.shards import iter_pairs
from stylear.curate.recipe import Recipe, check_recipe
from stylear.errors import CorpusError, SourceEmpty


def empty_folder(root: Path) -> dict[str, Any]:
    (root / "nothing").mkdir()
    return {"type": "folder", "path": "nothing"}


def empty_tar(root: Path) -> dict[str, Any]:
    tarfile.open(root / "nothing.tar", "w").close()
    return {"type": "shards", "path": "nothing.tar"}


def folder_without_tars(root: Path) -> dict[str, Any]:
    (root / "nothing").mkdir()
    return {"type": "shards", "path": "nothing"}


def header_only_list(root: Path) -> dict[str, Any]:
    (root / "nothing.csv").write_text("url,caption\n")
    return {"type": "urls", "path": "nothing.csv"}


def header_only_parts(root: Path) -> dict[str, Any]:
    (root / "nothing").mkdir()
    for name in ("a.csv", "b.csv"):
        (root / "nothing" / name).write_text("url,caption\n")
    return {"type": "urls", "path": "nothing"}


def parquet_without_rows(root: Path) -> dict[str, Any]:
    columns = {"image": pa.array([], pa.binary()), "caption": pa.array([], pa.string())}
    pq.write_table(pa.table(columns), root / "nothing.parquet")
    return {"type": "parquet", "path": "nothing.parquet"}


EMPTY = [
    empty_folder,
    empty_tar,
    folder_without_tars,
    header_only_list,
    header_only_parts,
    parquet_without_rows,
]


def raw_recipe(root: Path, *sources: dict[str, Any], **changes: Any) -> Recipe:
    """A recipe of raw pairs only."""
    values = settings(raw=list(sources), references=[], score=[], filter={}, **changes)
    del values["synthesize"]
    return check_recipe(values, root)


@pytest.mark.parametrize("make", EMPTY)
def test_a_source_without_pairs_is_an_error_that_names_it(tmp_path: Path, make: Any) -> None:
    recipe = raw_recipe(tmp_path, make(tmp_path))
    with pytest.raises(SourceEmpty, match=r"raw\.0 \(\w+\): .*nothing.*: expected .*") as caught:
        runner.run(recipe, tmp_path / "corpus", workers=1)
    assert caught.value.hint is not None
    assert "--allow-empty" in caught.value.hint
    assert not (tmp_path / "corpus" / "manifest.json").exists()


@pytest.mark.parametrize("make", EMPTY)
def test_allow_empty_builds_a_corpus_of_nothing_and_says_so(tmp_path: Path, make: Any) -> None:
    recipe = raw_recipe(tmp_path, make(tmp_path))
    done = runner.run(recipe, tmp_path / "corpus", workers=1, allow_empty=True)
    assert [(result.rows_in, result.kept) for result in done.results] == [(0, 0)] * 6
    assert len(done.warnings) == 1
    assert "train has no pair" in done.warnings[0]


def test_nothing_is_synthesized_from_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folders(tmp_path, pictures=0)
    recipe = check_recipe(settings(), tmp_path)
    done = runner.run(recipe, tmp_path / "corpus", workers=1, allow_empty=True)
    assert [(result.rows_in, result.kept) for result in done.results] == [(0, 0)] * 6
    stderr = capsys.readouterr().err
    assert "warning: raw.0 (folder) is empty: " in stderr
    assert "there is nothing to synthesize" in stderr


def test_an_empty_source_takes_nothing_from_the_one_beside_it(tmp_path: Path) -> None:
    make_folders(tmp_path, pictures=12)
    photos = {"type": "folder", "path": "photos"}
    recipe = raw_recipe(tmp_path, empty_folder(tmp_path), photos)
    done = runner.run_stages(["fetch"], recipe, tmp_path / "corpus", workers=1, allow_empty=True)
    assert (done[0].rows_in, done[0].kept) == (12, 12)
    again = runner.run_stages(["fetch"], recipe, tmp_path / "corpus", workers=1)
    assert (again[0].rows_in, again[0].new) == (12, 0)


def test_an_empty_part_takes_nothing_from_the_next_part(tmp_path: Path) -> None:
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "a.csv").write_text("url,caption\n")
    (tmp_path / "list" / "b.csv").write_text("url,caption\nftp://x/y.png,a cat\n")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.png").write_bytes(encoded(1))
    (tmp_path / "photos" / "one.txt").write_text("a cat")
    sources = {"type": "urls", "path": "list"}, {"type": "folder", "path": "photos"}
    runner.run_stages(["fetch"], raw_recipe(tmp_path, *sources), tmp_path / "corpus", workers=1)
    reasons = [pair.verdict.reason for pair in iter_pairs(tmp_path / "corpus" / "raw")]
    assert reasons == ["not-http", None]


def test_a_filter_that_keeps_nothing_stops_the_mix_with_the_reasons(tmp_path: Path) -> None:
    make_folders(tmp_path, pictures=12)
    values = settings(
        references=[],
        score=[{"name": "text", "type": "clip-text", "model": "mini-clip"}],
        filter={"thresholds": [{"score": "text", "min": 0.99}]},
    )
    del values["synthesize"]
    recipe = check_recipe(values, tmp_path)
    with pytest.raises(CorpusError, match=r"none of 12 pairs passed the filter: .* 12") as caught:
        runner.run(recipe, tmp_path / "corpus", workers=1)
    assert "--dry-run" in (caught.value.hint or "")


def test_the_commands_take_allow_empty(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    text = json.dumps({"name": "t", "raw": [{"type": "folder", "path": "nothing"}]})
    (tmp_path / "recipe.yaml").write_text(text)
    for command in ("fetch", "run"):
        words = ["curate", command, str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / command)]
        failed = CliRunner().invoke(mount(), words)
        assert isinstance(failed.exception, SourceEmpty)
        assert CliRunner().invoke(mount(), [*words, "--allow-empty", "--dry-run"]).exit_code == 0
        assert CliRunner().invoke(mount(), [*words, "--allow-empty"]).exit_code == 0
