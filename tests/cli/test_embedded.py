"""Recipes and training settings by name, from any directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from stylear.embedded import MANIFESTS, find_manifest
from stylear.errors import SourceError


def test_a_bare_name_means_an_embedded_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_manifest("demo") == MANIFESTS / "demo.yaml"
    assert find_manifest("demo.yaml") == MANIFESTS / "demo.yaml"
    assert find_manifest("train-demo-sft") == MANIFESTS / "train-demo-sft.yaml"


def test_a_file_wins_over_an_embedded_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo.yaml").write_text("name: mine\n")
    assert find_manifest("demo.yaml") == Path("demo.yaml")
    assert find_manifest("other/demo") == Path("other/demo")  # a path is never looked up
    assert find_manifest("new.yaml") == Path("new.yaml")  # whoever reads it says that it is missing


def test_a_folder_does_not_hide_an_embedded_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo").mkdir()  # as `stylear curate run demo --out demo` leaves one
    assert find_manifest("demo") == MANIFESTS / "demo.yaml"
    Path("mine").mkdir()
    assert find_manifest("mine") == Path("mine")  # whoever reads it says that it is a folder


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(SourceError, match="hous-style: expected a file") as caught:
        find_manifest("hous-style")
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("did you mean house-style")
    with pytest.raises(SourceError) as caught:
        find_manifest("zzz")
    assert caught.value.hint is not None
    assert "embedded: demo, house-style" in caught.value.hint
