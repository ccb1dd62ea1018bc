"""What several test modules look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished corpus; tests that change one copy it first."""
    from builders.finished_corpus import finish

    return finish(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch on one thread, as synthesisers have it on a CPU: sums depend on how many there are."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
