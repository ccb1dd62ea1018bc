"""Progress moves with images, while the units that they belong to are still at work."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from builders.pictures_folder import make_folders, make_recipe

from stylear.console import Bar
from stylear.curate import run as runner
from stylear.curate.engine import Engine
from stylear.curate.engine.progress import WorkProgress, report_progress


def wait_until_seen(seen: Path, number: int) -> bool:
    """Report an image, and end only when the parent has seen it, or after a minute."""
    report_progress()
    deadline = time.monotonic() + 60
    while not seen.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return seen.exists()


def build_wait(seen: Path) -> Callable[[int], bool]:
    return partial(wait_until_seen, seen)


@pytest.mark.parametrize("workers", [1, 2])
def test_images_are_counted_before_their_unit_ends(tmp_path: Path, workers: int) -> None:
    counts: list[int] = []

    def see(count: int) -> None:
        counts.append(count)
        (tmp_path / "seen").touch()

    work = partial(build_wait, tmp_path / "seen")
    ended = Engine().map_units(work, iter(range(4)), 4, workers, on_progress=see)
    assert list(ended) == [True] * 4
    assert sum(counts) == 4


def test_a_process_reports_to_nobody_once_the_work_is_over() -> None:
    counts: list[int] = []

    def report(number: int) -> int:
        report_progress(number)
        return number

    units = Engine().map_units(lambda: report, iter([3, 4]), 2, 1, on_progress=counts.append)
    assert list(units) == [3, 4]
    report_progress(5)
    assert counts == [3, 4]


def test_a_unit_that_ran_twice_is_counted_once() -> None:
    bar = Bar("draw", total=8, unit="images")
    with bar:
        progress = WorkProgress(bar, 8)
        for _ in range(6):
            progress.report(1)
        assert bar.done == 6
        progress.report(4)  # a worker died, and another one draws its images again
        assert bar.done == 8
        progress.finish(4)
        progress.finish(4, "raw-00001")
        assert (bar.done, bar.note) == (8, "raw-00001")


def test_units_that_report_nothing_are_counted_when_they_end() -> None:
    bar = Bar("draw", total=8, unit="images")
    with bar:
        progress = WorkProgress(bar, 8)
        progress.finish(5)
        assert bar.done == 5


@pytest.mark.parametrize(("stage", "images"), [("synthesize", 24), ("score", 48)])
def test_every_image_of_a_stage_is_reported_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, images: int
) -> None:
    make_folders(tmp_path)
    recipe, corpus = make_recipe(tmp_path), tmp_path / "corpus"
    before = ["fetch", "synthesize"] if stage == "score" else ["fetch"]
    runner.run_stages(before, recipe, corpus, workers=1)
    reports: list[int] = []
    monkeypatch.setattr(
        "stylear.curate.engine.progress.WorkProgress.report",
        lambda self, count: reports.append(count),
    )
    runner.run_stages([stage], recipe, corpus, workers=1)
    assert reports == [1] * images
