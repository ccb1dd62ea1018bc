"""What can happen to a batch of a diffusers synthesiser: memory, retries, safety, encoding."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from builders.diffusion_jobs import draw_blank, draw_jobs
from builders.drawn_jobs import (
    REFERENCES,
    SIZE,
    jobs_of,
    pixels_of,
    recipe,
)

from stylear.curate.synthesize import open_synthesizer
from stylear.curate.synthesize.diffusers.synthesizer import (
    DrawnImage,
    crop_to_square,
    is_out_of_memory,
)
from stylear.curate.synthesize.job import Encoding
from stylear.pair import derive_seed

pytestmark = pytest.mark.filterwarnings(  # diffusers' Euler scheduler turns tensors into arrays
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("HIP: out of memory")]
)
def test_out_of_memory_halves_the_batch_and_goes_on(
    folder: Path, synthesizer: Any, error: Exception
) -> None:
    sizes = []

    def draw_two(batch: Any) -> list[DrawnImage]:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise error
        return draw_blank(batch)

    synthesizer.batch_size, synthesizer.draw = 5, draw_two
    pairs = draw_jobs(synthesizer, jobs_of(recipe(folder)))
    assert [pair.kept for pair in pairs] == [True] * 8
    assert sizes == [5, 3, 2, 1, 2, 2, 1]  # never again more than two
    details = [pair.origin.details for pair in pairs]
    assert [row["batch_size"] for row in details] == [2, 2, 1, 2, 2, 2, 2, 1]
    assert {row["batch_size_before_oom"] for row in details} == {5}
    assert all((pixels_of(p) == round(len(p.caption) * 25.5)).all() for p in pairs)


def test_an_image_that_does_not_fit_alone_is_dropped_and_the_others_are_made(
    folder: Path, synthesizer: Any
) -> None:
    def draw_no_owls(batch: Any) -> list[DrawnImage]:
        if any(job.prompt == "an owl" for job in batch):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return draw_blank(batch)

    synthesizer.batch_size, synthesizer.draw = 4, draw_no_owls
    pairs = draw_jobs(synthesizer, jobs_of(recipe(folder)))
    reasons = {pair.caption: pair.verdict.reason for pair in pairs}
    assert reasons == {"an owl": "out-of-memory", "a cat": None}
    assert [pair.image == b"" for pair in pairs] == [not pair.kept for pair in pairs]


def test_other_errors_of_a_pipeline_are_bugs_and_crash(folder: Path, synthesizer: Any) -> None:
    def broken(batch: Any) -> list[DrawnImage]:
        raise RuntimeError("shapes cannot be multiplied")

    synthesizer.draw = broken
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        draw_jobs(synthesizer, jobs_of(recipe(folder)))
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: 1 bytes"))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (DrawnImage(np.full((SIZE, SIZE, 3), np.nan, np.float32)), "not-finite"),
        (DrawnImage(np.zeros((SIZE, SIZE, 3), np.float32), {"safety": "flagged"}, True), "unsafe"),
    ],
)
def test_bad_images_are_tried_again_with_another_seed_and_then_dropped(
    folder: Path, bad: DrawnImage, reason: str
) -> None:
    spec = recipe(folder, retries=2)
    jobs = jobs_of(spec)
    seeds: dict[str, list[int]] = {}

    def draw_badly(batch: Any) -> list[DrawnImage]:
        for job in batch:
            seeds.setdefault(job.key, []).append(job.seed)
        lucky = [job.key == jobs[0].key and len(seeds[job.key]) == 2 for job in batch]
        lucky = [yes or job.key == jobs[1].key for yes, job in zip(lucky, batch, strict=True)]
        return [draw_blank([j])[0] if yes else bad for yes, j in zip(lucky, batch, strict=True)]

    synthesizer: Any = open_synthesizer(spec, REFERENCES)
    synthesizer.batch_size, synthesizer.draw = 3, draw_badly
    second, first, never = draw_jobs(synthesizer, jobs[:3])
    assert (first.kept, "attempt" in first.origin.details) == (True, False)
    assert (second.kept, second.origin.details["attempt"]) == (True, 1)
    assert second.origin.details["retried_after"] == reason
    assert second.origin.details["seed"] == derive_seed(f"{jobs[0].key}:1")
    assert (never.image, never.verdict.reason, never.origin.details["attempt"]) == (b"", reason, 2)
    assert seeds[jobs[2].key] == [
        derive_seed(jobs[2].key),
        derive_seed(f"{jobs[2].key}:1"),
        derive_seed(f"{jobs[2].key}:2"),
    ]


def test_the_outcome_of_a_safety_checker_is_recorded(folder: Path, synthesizer: Any) -> None:
    images = np.zeros((2, SIZE, SIZE, 3), np.float32)
    answer = SimpleNamespace(images=images, nsfw_content_detected=[False, True])
    synthesizer.pipeline = lambda **_: answer
    assert [(image.details, image.unsafe) for image in synthesizer.run_pipeline()] == [
        ({"safety": "passed"}, False),
        ({"safety": "flagged"}, True),
    ]


def test_images_are_encoded_beside_the_drawing(
    folder: Path, synthesizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[str, set[int]] = {"draw": set(), "encode": set()}
    encode = Encoding.encode

    def record_thread(self: Encoding, pixels: Any) -> bytes:
        threads["encode"].add(threading.get_ident())
        return encode(self, pixels)

    def draw_here(batch: Any) -> list[DrawnImage]:
        threads["draw"].add(threading.get_ident())
        return draw_blank(batch)

    monkeypatch.setattr(Encoding, "encode", record_thread)
    synthesizer.draw = draw_here
    draw_jobs(synthesizer, jobs_of(recipe(folder)))
    assert threads["draw"] == {threading.get_ident()}
    assert threads["encode"]
    assert not threads["encode"] & threads["draw"]


def test_images_are_cut_to_a_square_of_the_corpus_size() -> None:
    wide = np.zeros((8, 16, 3), np.float32)
    wide[:, 4:12] = 1
    assert crop_to_square(wide, 4).shape == (4, 4, 3)
    assert crop_to_square(wide, 4).mean() == pytest.approx(1, abs=0.02)
    square = wide[:, 2:10]
    assert crop_to_square(square, 8) is square
    assert np.isnan(crop_to_square(np.full((4, 4, 3), np.nan, np.float32), 8)).all()
