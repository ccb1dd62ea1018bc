"""A forget that is killed at any step and started again leaves the corpus that an undisturbed one leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from builders.pictures_folder import tree

from stylear.curate import run as runner
from stylear.curate.audit.auditor import audit
from stylear.curate.corpus.layout import STAGES
from stylear.curate.corpus.shards import iter_pairs
from stylear.curate.recipe import load_recipe

HERE = Path(__file__).parents[1] / "builders"
STEP = int(os.environ.get("FORGET_KILL_STEP", "4"))  # 1: killed before each change there is
Forget = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def source(finished: Path) -> str:
    """Where a raw pair came from that has stylized ones."""
    parents = {pair.origin.parent for pair in iter_pairs(finished / "stylized")}
    return next(p.origin.source for p in iter_pairs(finished / "raw") if p.key in parents)


@pytest.fixture(scope="module")
def forget(tmp_path_factory: pytest.TempPathFactory, source: str) -> Iterator[Forget]:
    """`forget(corpus, at)`: a forget that dies before its `at`-th change (0: never)."""
    words = tmp_path_factory.mktemp("words") / "stderr.txt"
    with words.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "forget_child.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stream, text=True,
        )  # fmt: skip

    def ask(corpus: Path, at: int = 0) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        request = {"corpus": str(corpus), "source": source, "at": at}
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        assert line, words.read_text()[-2000:]
        answer: dict[str, Any] = json.loads(line)
        return answer

    yield ask
    process.communicate("")


@pytest.fixture(scope="module")
def reported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished corpus with its page."""
    corpus = Path(shutil.copytree(finished, tmp_path_factory.mktemp("killed") / "whole"))
    runner.write_report(corpus)
    return corpus


@pytest.fixture(scope="module")
def expected(reported: Path, forget: Forget) -> tuple[dict[str, bytes], int]:
    """Every file after an undisturbed forget, and how many changes it made."""
    corpus = Path(shutil.copytree(reported, reported.parent / "undisturbed"))
    answer = forget(corpus)
    assert (answer["status"], answer["pairs"], answer["resumed"]) == (0, 3, False)
    assert answer["changes"] > 60
    return tree(corpus), answer["changes"]


def differing(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    return [name for name in {**found, **expected} if found.get(name) != expected.get(name)]


def test_killed_at_any_step_and_started_again(
    reported: Path, forget: Forget, expected: tuple[dict[str, bytes], int]
) -> None:
    files, changes = expected
    untouched = tree(reported)
    corpus = reported.parent / "killed"
    kinds = {"nothing was done": 0, "it was carried out": 0}
    for at in range(1, changes + 1, STEP):
        shutil.copytree(reported, corpus)
        assert forget(corpus, at)["status"] == -signal.SIGKILL, at
        if (corpus / ".forget" / "journal.json").is_file():
            kinds["it was carried out"] += 1
        elif (
            corpus / "tombstones.json"
        ).is_file():  # all that is left is to remove the journal's folder
            assert audit(corpus).passed
        else:
            kinds["nothing was done"] += 1
            left = {n: d for n, d in tree(corpus).items() if not n.startswith(".forget/")}
            assert differing(left, untouched) == [], at
        answer = forget(corpus)
        assert answer["status"] == 0, at
        assert differing(tree(corpus), files) == [], at
        shutil.rmtree(corpus)
    assert min(kinds.values()) > 20 // STEP


def test_a_run_finishes_what_a_killed_forget_had_decided(
    reported: Path, forget: Forget, expected: tuple[dict[str, bytes], int]
) -> None:
    files, changes = expected
    corpus = Path(shutil.copytree(reported, reported.parent / "run"))
    assert forget(corpus, changes // 2)["status"] == -signal.SIGKILL
    assert (corpus / ".forget" / "journal.json").is_file()
    results = runner.run_stages(STAGES, load_recipe(corpus / "recipe.yaml"), corpus, workers=1)
    assert [result.new for result in results] == [0] * len(STAGES)
    runner.write_report(corpus)
    assert differing(tree(corpus), files) == []
