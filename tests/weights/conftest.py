"""An empty models directory and a hub on loopback, for tests of fetching."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.fake_hub import FakeHub, fake_hub
from builders.fetched_models import CONFIG, CONFIG_PATH, TENSORS, W_PATH

from stylear.weights import http as web
from stylear.weights import registry


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty models directory, an empty registry, no pauses, no token."""
    monkeypatch.setenv("STYLEAR_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(registry, "MODELS", {})
    monkeypatch.setattr(web, "pause", lambda seconds: None)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return tmp_path / "models"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with one repository: weights that it keeps apart, a config in git."""
    with fake_hub() as hub_:
        hub_.files = {W_PATH: TENSORS, CONFIG_PATH: CONFIG, "org/repo/README.md": b"# no"}
        hub_.small = {CONFIG_PATH, "org/repo/README.md"}
        monkeypatch.setenv("HF_ENDPOINT", hub_.url)
        yield hub_
