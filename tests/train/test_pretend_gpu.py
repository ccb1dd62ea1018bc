"""What trains, draws and scores keeps its tensors on one device: a pretend GPU raises where a real one does.

The device is registered for a whole process, so the tests that run on it run in one of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from builders.device import DEVICE

TESTS = Path(__file__).parents[1]
ON_DEVICE = (
    "train/test_pretend_gpu.py",
    "sampling/test_devices.py",
    "sampling/test_pretend_graphs.py",
    "train/test_dpo.py::test_first_step_costs_ln_2_and_later_ones_less",
    "train/test_dpo.py::test_bf16_starts_at_ln_2_too",
    "train/test_grpo.py::test_the_first_step_is_at_the_start_and_the_scorers_are_recorded",
    "train/test_sft.py::test_lora_leaves_the_base_as_it_was_and_trains_the_resampler",
)
inside = pytest.mark.skipif(DEVICE != "pretend", reason="runs where the pretend GPU is registered")


@pytest.mark.cpu
@pytest.mark.skipif(DEVICE == "pretend", reason="starts the others")
def test_training_drawing_and_scoring_run_on_a_pretend_gpu() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider",
         *(str(TESTS / name) for name in ON_DEVICE)],
        env={**os.environ, "STYLEAR_TEST_DEVICE": "pretend"},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout[-4000:]


@inside
def test_tensors_of_two_devices_are_refused() -> None:
    here, there = torch.ones(2, 2), torch.ones(2, 2, device=DEVICE)
    for mix in (
        lambda: there + here,
        lambda: here @ there,
        lambda: torch.cat([there, here]),
        lambda: there.index_copy_(0, torch.tensor([0]), there[:1]),
        lambda: torch.nn.functional.embedding(torch.tensor([0]), there),
        lambda: here[torch.tensor([0], device=DEVICE)],
    ):
        with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
            mix()
    with pytest.raises(RuntimeError, match="expected a generator of the device"):
        torch.rand(2, device=DEVICE, generator=torch.Generator())
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()


@inside
def test_what_a_gpu_allows_is_allowed() -> None:
    there = torch.arange(6.0, device=DEVICE).view(2, 3)
    assert (there * torch.tensor(2.0)).tolist() == [[0, 2, 4], [6, 8, 10]]
    assert there[torch.tensor([1])].tolist() == [[3, 4, 5]]
    assert there[[1]].cpu().numpy().tolist() == [[3, 4, 5]]
    there[:, 0] = torch.tensor(9.0)
    weight = torch.nn.Parameter(there.clone())
    (weight * there).sum().backward()
    assert weight.grad is not None
    assert weight.grad.device.type == DEVICE
    assert weight.grad.tolist() == [[9, 1, 2], [9, 4, 5]]
