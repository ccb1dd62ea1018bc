"""Killed at any point and started again, a run continues, and the corpus is the same to the byte."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from builders.pictures_folder import make_folders, tree, write_recipe

from stylear.curate.corpus.shards import iter_pairs

pytestmark = pytest.mark.alone

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "10"))
HERE = Path(__file__).parents[1] / "builders"
Play = Callable[..., dict[str, Any]]
ALIKE = (".lock",)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("chaos")
    make_folders(root)
    write_recipe(root)
    return root


@pytest.fixture(scope="module")
def play(sources: Path) -> Iterator[Play]:
    """`play(corpus, at, how)`: a run that ends at its `at`-th event (0: never), in a forked process."""
    output = sources / "told.txt"  # a pipe that nobody empties would stop a long test
    with output.open("w") as words:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "chaos_child.py"), str(sources / "recipe.yaml")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def ask(corpus: Path, at: int = 0, how: str = "kill") -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"corpus": str(corpus), "at": at, "how": how}) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        assert line, output.read_text()[-2000:]
        answer: dict[str, Any] = json.loads(line)
        return answer

    yield ask
    process.communicate("")


@pytest.fixture(scope="module")
def whole(sources: Path, play: Play) -> tuple[dict[str, bytes], int]:
    """Every file of the undisturbed corpus, and how many things were done to make it."""
    answer = play(sources / "whole")
    assert answer["status"] == 0, answer
    return tree(sources / "whole", ALIKE), answer["events"]


def check(found: dict[str, bytes], expected: dict[str, bytes]) -> None:
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []


def test_the_undisturbed_corpus_is_whole_and_has_each_key_once(
    sources: Path, whole: tuple[dict[str, bytes], int]
) -> None:
    files, events = whole
    assert {"manifest.json", "recipe.yaml", "verdicts.parquet", "report/index.html"} <= set(files)
    assert {"raw/00002.tar", "stylized/00003.tar", "train/00000.tar", "val/00000.tar"} <= set(files)
    assert not [name for name in files if name.endswith(".tmp") or name.startswith(".work")]
    assert events > 200
    for place in ("raw", "stylized", "train", "val"):
        keys = [pair.key for pair in iter_pairs(sources / "whole" / place)]
        assert len(keys) == len(set(keys)) > 0


@pytest.mark.parametrize("number", range(ROUNDS))
def test_killed_at_a_random_point_and_started_again(
    sources: Path, play: Play, whole: tuple[dict[str, bytes], int], number: int
) -> None:
    files, events = whole
    draw = random.Random(number)
    corpus = sources / f"killed-{number}"
    for _ in range(1 + number % 2):  # every second corpus is killed twice
        answer = play(corpus, draw.randrange(1, events))
        assert answer["status"] in (-signal.SIGKILL, 0)
    answer = play(corpus)
    assert answer["status"] == 0, answer
    check(tree(corpus, ALIKE), files)


@pytest.mark.parametrize("number", range(3))
def test_a_full_disk_is_an_error_and_the_next_run_continues(
    sources: Path, play: Play, whole: tuple[dict[str, bytes], int], number: int
) -> None:
    files, events = whole
    corpus = sources / f"full-{number}"
    answer = play(corpus, random.Random(1000 + number).randrange(1, events), "full")
    assert answer["status"] == 0, answer
    assert "No space left on device" in answer["error"]
    assert "free some space" in answer["hint"]
    assert play(corpus)["status"] == 0
    check(tree(corpus, ALIKE), files)


def test_killed_with_its_workers_from_the_command_line(
    sources: Path, whole: tuple[dict[str, bytes], int]
) -> None:
    corpus = sources / "command"
    command = [sys.executable, "-c", "from stylear.cli import main; main()", "curate", "run"]
    command += [str(sources / "recipe.yaml"), "--out", str(corpus), "--workers", "2", "--json"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env, start_new_session=True
    )
    entry = corpus / "ledger" / "synthesize" / "00001.json"
    deadline = time.monotonic() + 120
    while not entry.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    output = process.communicate()[1].decode()
    assert process.returncode == -signal.SIGKILL, output
    assert entry.exists()
    assert not (corpus / "manifest.json").exists()
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    stages = {stage["stage"]: stage for stage in json.loads(done.stdout)["stages"]}
    assert stages["fetch"]["new"] == 0
    assert stages["synthesize"]["new"] <= 2
    assert sum(stage["new"] for stage in stages.values()) > 0
    check(tree(corpus, ALIKE), whole[0])
