"""Claims about digests of sources: any change is noticed, and an unchanged file is hashed once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from stylear.curate.fetch import source_state
from stylear.curate.fetch.source_state import FileHashes, hash_source
from stylear.curate.recipe import check_recipe


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files whose bytes are hashed."""
    names: list[str] = []
    genuine = source_state.hash_file

    def hash_file(path: Path) -> str:
        names.append(path.name)
        return genuine(path)

    monkeypatch.setattr(source_state, "hash_file", hash_file)
    return names


def digest(root: Path, source: dict[str, Any] | None = None) -> str:
    recipe = check_recipe(
        {"name": "t", "raw": [source or {"type": "folder", "path": "photos"}]}, root
    )
    hashes = FileHashes(root, root)
    sha256 = hash_source(recipe.raw[0], hashes)
    hashes.save()
    return sha256


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    for name in ("a.png", "below/b.png"):
        (folder / name).write_bytes(name.encode())
    return folder


def test_an_unchanged_file_is_hashed_once(photos: Path, hashed: list[str]) -> None:
    first = digest(photos.parent)
    assert sorted(hashed) == ["a.png", "b.png"]
    hashed.clear()
    assert digest(photos.parent) == first
    assert hashed == []
    (photos / "c.png").write_bytes(b"c")
    assert digest(photos.parent) != first
    assert hashed == ["c.png"]
    (photos / "c.png").unlink()
    assert digest(photos.parent) == first


def test_bytes_of_the_same_size_and_time_are_noticed(photos: Path, hashed: list[str]) -> None:
    first = digest(photos.parent)
    path = photos / "a.png"
    stat = path.stat()
    path.write_bytes(b"other"[: stat.st_size])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    hashed.clear()
    assert digest(photos.parent) != first
    assert hashed == ["a.png"]


def test_a_name_counts_and_a_place_does_not(photos: Path) -> None:
    first = digest(photos.parent)
    moved = photos.parent / "moved"
    moved.mkdir()
    photos.rename(moved / "photos")
    assert digest(moved) == first
    (moved / "photos" / "a.png").rename(moved / "photos" / "z.png")
    assert digest(moved) != first


def test_hidden_files_and_corpora_inside_are_no_part_of_a_folder(photos: Path) -> None:
    first = digest(photos.parent)
    (photos / ".DS_Store").write_bytes(b"x")
    (photos / "corpus" / "ledger").mkdir(parents=True)
    (photos / "corpus" / "recipe.yaml").write_text("name: inside")
    (photos / "corpus" / "page.png").write_bytes(b"y")
    assert digest(photos.parent) == first


def test_a_damaged_cache_is_ignored(photos: Path, hashed: list[str]) -> None:
    first = digest(photos.parent)
    (photos.parent / ".source-hashes.json").write_text('{"photos/a.png": [1, "x"]}')
    hashed.clear()
    assert digest(photos.parent) == first
    assert sorted(hashed) == ["a.png", "b.png"]


def test_a_link_to_nothing_is_a_file_without_bytes(photos: Path) -> None:
    (photos / "gone.png").symlink_to(photos / "nowhere.png")
    digest(photos.parent)
    (photos / "nowhere.png").mkdir()
    digest(photos.parent)
