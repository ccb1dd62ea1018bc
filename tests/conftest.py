"""What several test modules look at."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished corpus; tests that change one copy it first."""
    from finished_corpus import finish

    return finish(tmp_path_factory.mktemp("finished"))
