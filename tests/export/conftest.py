"""What the tests of the exports share."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.handmade_corpus import small_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small finished corpus; tests that change one make their own."""
    return small_corpus(tmp_path_factory.mktemp("export"))
