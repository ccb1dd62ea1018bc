"""What several test modules look at."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# rates that runs measure are kept in the user's cache, which tests leave alone
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="stylear-tests-cache-")
# unless a GPU is asked for, tests see none: exact bits are claims about a CPU
if "STYLEAR_TEST_DEVICE" not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # float32 on a GPU keeps all its bits
if os.environ.get("STYLEAR_TEST_DEVICE") == "pretend":
    import builders.pretend_gpu  # noqa: F401  registers the device before modules look for one


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
