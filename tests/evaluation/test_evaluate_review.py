"""`stylear evaluate --review`: people compare the pictures that were just evaluated."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from builders.page_commands import whole_app
from typer.testing import CliRunner

from stylear.errors import UsageError

CALL = ["evaluate", "--model", "mini-ar", "--styles", "mini", "--prompt", "a cat"]


def test_the_page_is_served_for_the_pictures_that_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[tuple[Any, ...]] = []
    written = SimpleNamespace(write=lambda out: out / "grid.png", table=lambda: [{"model": "m"}])
    monkeypatch.setattr("stylear.evaluation.evaluate.evaluate", lambda *_, **__: written)
    monkeypatch.setattr(
        "stylear.curate.cli.review.serve", lambda *words, **more: served.append((*words, more))
    )
    out = tmp_path / "pictures"
    done = CliRunner().invoke(whole_app(), [*CALL, "--out", str(out), "--seed", "3", "--review"])
    assert done.exit_code == 0, done.output
    assert served == [(out, "prefer", "anonymous", None, 3, 0, {"is_corpus": False})]
    CliRunner().invoke(whole_app(), [*CALL, "--out", str(out)])
    assert len(served) == 1


def test_pictures_without_a_folder_cannot_be_reviewed() -> None:
    done = CliRunner().invoke(whole_app(), [*CALL, "--review"])
    assert isinstance(done.exception, UsageError)
    assert done.exception.message.startswith("--review: expected --out FOLDER")
