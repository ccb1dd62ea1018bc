"""A corpus that is not finished: what is missing, and the command that finishes it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from builders.pictures_folder import make_folders, make_recipe, settings
from typer.testing import CliRunner

from stylear.cli import mount
from stylear.curate import run as runner
from stylear.curate.api import open_corpus
from stylear.errors import CorpusError


def test_a_report_names_the_stages_that_are_missing_and_the_command(tmp_path: Path) -> None:
    make_folders(tmp_path, pictures=12)
    corpus = tmp_path / "my corpus"
    runner.run_stages(["fetch", "synthesize"], make_recipe(tmp_path), corpus, workers=1)
    with pytest.raises(
        CorpusError, match=r"unfinished stages: score, filter, mix, pairs$"
    ) as caught:
        runner.write_report(corpus)
    with pytest.raises(CorpusError) as same:
        _ = open_corpus(corpus).manifest
    assert same.value.hint == caught.value.hint
    command = (caught.value.hint or "").split("`")[1]
    assert CliRunner().invoke(mount(), shlex.split(command)[1:]).exit_code == 0
    assert runner.write_report(corpus).is_file()


def test_a_raw_corpus_lacks_no_synthesis(tmp_path: Path) -> None:
    make_folders(tmp_path, pictures=12)
    values = settings(references=[], score=[], filter={})
    del values["synthesize"]
    recipe, corpus = make_recipe(tmp_path, values), tmp_path / "corpus"
    runner.run_stages(["fetch"], recipe, corpus, workers=1)
    assert runner.find_missing_stages(corpus) == ["score", "filter", "mix", "pairs"]
    runner.run(recipe, corpus, workers=1)
    assert runner.find_missing_stages(corpus) == []
