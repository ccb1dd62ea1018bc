"""The wheel: one package called stylear, with every recipe in it, that works from an empty directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("stylear", "curate", "train", "manifests")
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the sources."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    source.mkdir()
    skipped = shutil.ignore_patterns("__pycache__")
    for name in SOURCES:
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=skipped)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-c", BUILD, str(place)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    return next(place.glob("*.whl"))


@pytest.fixture(scope="module")
def site(wheel: Path) -> Path:
    """The wheel as it is installed."""
    site = wheel.parent / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def run(site: Path, cwd: Path, *words: str) -> str:
    """What a command prints on stdout, run from `cwd` with the wheel alone."""
    environment = {**os.environ, "PYTHONPATH": str(site), "STYLEAR_MODELS": str(cwd / "models")}
    result = subprocess.run(
        [sys.executable, "-m", "stylear", *words],
        cwd=cwd, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_an_installation_adds_one_package_of_our_name(site: Path) -> None:
    names = {path.name for path in site.iterdir() if not path.name.endswith(".dist-info")}
    assert names == {"stylear"}
    assert not any(path.is_symlink() for path in site.rglob("*"))


def test_every_file_of_manifests_is_in_the_wheel(site: Path) -> None:
    expected = {p.relative_to(ROOT / "manifests") for p in (ROOT / "manifests").rglob("*.*")}
    names = {
        p.relative_to(site / "stylear" / "manifests")
        for p in (site / "stylear" / "manifests").rglob("*.*")
    }
    assert len(expected) >= 10
    assert names == expected


def test_the_pages_are_in_the_wheel(site: Path) -> None:
    for name in ("report/page.css", "report/explorer/page", "review/page"):
        path = ROOT / "curate" / name
        files = [path] if path.is_file() else list(path.iterdir())
        assert files
        for file in files:
            shipped = site / "stylear" / file.relative_to(ROOT)
            assert shipped.read_bytes() == file.read_bytes()


def test_recipes_and_models_are_found_from_an_empty_directory(site: Path, tmp_path: Path) -> None:
    assert "fetch" in run(site, tmp_path, "curate", "run", "demo", "--out", "corpus", "--dry-run")
    assert "as recorded" in run(site, tmp_path, "models", "verify")
    assert "train-demo-sft" not in run(
        site, tmp_path, "train", "sft", "--config", "train-demo-sft", "--dry-run"
    )
    assert not (tmp_path / "corpus").exists()


def test_the_code_runs_from_the_wheel_and_not_from_the_checkout(site: Path, tmp_path: Path) -> None:
    script = "import stylear, stylear.curate.run, stylear.train; print(stylear.curate.run.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    process = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )  # fmt: skip
    assert process.stdout.strip() == str(site / "stylear" / "curate" / "run.py")
