"""Engines: where work runs changes no byte; what dies is replaced, and what can't be is told."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from builders.pictures_folder import make_folders, make_recipe, tree
from typer.testing import CliRunner

import stylear.curate.cli
from stylear.curate import run as runner
from stylear.curate.corpus.shards import iter_pairs
from stylear.curate.engine import Engine, cores
from stylear.errors import StylearError, UsageError

pytestmark = pytest.mark.alone

HERE = Path(__file__).parents[1] / "builders"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders, a recipe, and the corpus that the local engine makes of them."""
    root = tmp_path_factory.mktemp("engines")
    make_folders(root)
    runner.run(make_recipe(root), root / "local", workers=1)
    return root


@pytest.fixture(scope="module")
def report(root: Path) -> dict[str, Any]:
    """What a Ray cluster of two nodes, one of them killed, came to."""
    done = subprocess.run(
        [sys.executable, str(HERE / "ray_child.py"), str(root)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_units_of_a_node_that_died_run_again_and_results_stay_in_order(
    report: dict[str, Any],
) -> None:
    assert report["units"].pop("tries") <= 2  # the node may have died between two units
    assert report["units"] == {
        "right": True,
        "enough": True,
        "nodes": 2,
        "at the end": 1,
        "built": 2,
        "processes": 2,
    }


def test_a_corpus_made_on_ray_while_a_node_died_is_the_local_one(
    report: dict[str, Any], root: Path
) -> None:
    assert report["run"]["killed"]
    assert report["run"]["made"]["synthesize"] == 4
    assert report["run"]["made"]["score"] == 14
    found, expected = tree(root / "on-ray"), tree(root / "local")
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    for place in ("raw", "stylized"):
        keys = [pair.key for pair in iter_pairs(root / "on-ray" / place)]
        assert len(keys) == len(set(keys)) == 24


def test_errors_of_units_arrive_whole_and_retries_are_bounded(report: dict[str, Any]) -> None:
    assert report["fails"]["raises"] == ["CorpusError", "a bad number", "take another"]
    kind, message, hint = report["fails"]["dies"]
    assert kind == "StylearError"
    assert message.startswith("the Ray worker of a unit of work died 3 times")
    assert "run the same command again" in hint
    assert report["fails"]["tries"] == 3


def test_a_cluster_that_does_not_answer_is_named(report: dict[str, Any]) -> None:
    assert report["nobody"] == ["StylearError", "127.0.0.1:9"]


def test_missing_ray_is_named_with_the_install_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="expected the package ray") as caught:
        list(Engine("ray").map_units(lambda: abs, iter([1]), 1))
    assert caught.value.hint == "pip install 'stylear[ray]'"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--engine", "spark"], "--engine: expected local or ray, found 'spark'"),
        (["--ray-address", "127.0.0.1:9"], "--ray-address: expected --engine ray with it"),
    ],
)
def test_engines_that_are_none_are_refused(root: Path, words: list[str], message: str) -> None:
    recipe, out = str(root / "recipe.yaml"), str(root / "none")
    result = CliRunner().invoke(stylear.curate.cli.app, ["run", recipe, "--out", out, *words])
    assert isinstance(result.exception, StylearError)
    assert result.exception.exit_code == 2
    assert result.exception.message.startswith(message)
    assert not (root / "none").exists()


# --- this machine -----------------------------------------------------------------------------


def die(number: int) -> int:
    if number < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def build_die() -> Callable[[int], int]:
    return die


def test_no_more_than_two_units_a_worker_are_taken_before_their_results() -> None:
    taken = []
    units = (taken.append(number) or number for number in range(20))  # type: ignore[func-returns-value]
    ahead = []
    for result in Engine().map_units(build_die, units, 20, workers=2):
        ahead.append(len(taken) - result)
    assert len(ahead) == 20
    assert max(ahead) == 4


def test_a_killed_worker_is_reported_and_the_next_run_resumes(root: Path) -> None:
    with pytest.raises(StylearError, match="a worker process died") as caught:
        list(Engine().map_units(build_die, iter([1, -1, 2]), 3, workers=2))
    assert "run the same command again" in (caught.value.hint or "")
    recipe, corpus = make_recipe(root), root / "killed"
    runner.run_stages(["fetch"], recipe, corpus, workers=1)
    killer = Thread(target=kill_a_worker)
    killer.start()
    with pytest.raises(StylearError, match="a worker process died"):
        runner.run(recipe, corpus, workers=2)
    killer.join()
    done = runner.run(recipe, corpus, workers=1)
    assert {result.stage: result.new for result in done.results}["fetch"] == 0
    assert tree(corpus) == tree(root / "local")


def kill_a_worker() -> None:
    """kill -9 the first worker process that this process starts."""
    while True:
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGKILL)
            return
        time.sleep(0.002)


def test_without_a_number_there_is_a_worker_for_each_core() -> None:
    assert cores() >= 1
    assert list(Engine().map_units(lambda: abs, iter([-1, 2]), 2, workers=1)) == [1, 2]
    assert list(Engine().map_units(lambda: abs, iter([-1, 2]), 2, gpu=True)) == [1, 2]


def seen_gpu(folder: Path, number: int) -> tuple[int, str | None]:
    """The GPU that this worker sees, once two workers have told theirs."""
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
    (folder / str(gpu)).touch()
    deadline = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    return number, gpu


def build_seen_gpu(folder: Path) -> Callable[[int], tuple[int, str | None]]:
    return partial(seen_gpu, folder)


def fake_gpus(monkeypatch: pytest.MonkeyPatch, count: int, visible: str | None = None) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)


def test_each_worker_sees_a_gpu_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpus(monkeypatch, 2, "5, 7")
    build = partial(build_seen_gpu, tmp_path)
    results = list(Engine().map_units(build, iter(range(6)), 6, gpu=True))
    assert [number for number, _ in results] == list(range(6))
    assert {gpu for _, gpu in results} == {"5", "7"}


def test_gpus_are_as_many_as_there_are_and_as_many_as_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[int, list[str]]] = []

    def record(
        build: Any, units: Any, workers: int, gpus: list[str], on_progress: Any
    ) -> list[None]:
        calls.append((workers, gpus))
        return []

    monkeypatch.setattr("stylear.curate.engine.local.map_units", record)
    for gpus, workers, units in [(3, 0, 9), (3, 2, 9), (2, 8, 9), (3, 0, 2), (0, 0, 9), (0, 2, 9)]:
        fake_gpus(monkeypatch, gpus)
        Engine().map_units(build_die, iter([]), units, workers, gpu=True)
    names = [str(number) for number in range(3)]
    assert calls == [(3, names), (2, names), (2, names[:2]), (2, names), (1, []), (2, [])]
