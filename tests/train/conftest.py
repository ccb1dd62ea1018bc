"""The inputs of training tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from builders.tiny_corpus import write_tiny_corpus
from builders.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny `corpus` and a tiny `model` with style tokens."""
    root = tmp_path_factory.mktemp("training")
    write_tiny_corpus(root / "corpus")
    write_tiny_model(root / "model")
    return root


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One thread of torch, as each rank of `run_ranks` has: sums in another order have other bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
