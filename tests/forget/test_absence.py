"""The audit finds whatever is left of a forgotten pair, wherever it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from builders.forgotten_corpus import Forgotten, forget_one

from stylear.curate.audit.absence import find_remains
from stylear.curate.corpus.shards import iter_pairs
from stylear.curate.corpus.tombstones import Tombstones, hash_all, read_tombstones


@pytest.fixture
def done(finished: Path, tmp_path: Path) -> Forgotten:
    return forget_one(finished, tmp_path)


def remains(corpus: Path) -> list[tuple[str, str, str]]:
    return list(find_remains(corpus, read_tombstones(corpus)))


def put_back(done: Forgotten, folder: str) -> None:
    """The files of a folder, or a file, as they were before the forget."""
    old, new = done.before / folder, done.corpus / folder
    shutil.copytree(old, new, dirs_exist_ok=True) if old.is_dir() else shutil.copy(old, new)


def test_nothing_is_left_after_a_forget(done: Forgotten) -> None:
    assert remains(done.corpus) == []


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("raw", "its row with what it says"),
        ("stylized", "its row with what it says"),
        ("plan", "its prompt"),
        ("scores", "a score"),
        ("train", "its sample"),
        ("preferences", "one of its sides"),
        ("mix.parquet", "another verdict"),
        ("verdicts.parquet", "another verdict"),
    ],
)
def test_what_is_left_is_found_in_each_place(done: Forgotten, place: str, message: str) -> None:
    put_back(done, place)
    left = remains(done.corpus)
    assert {what for _, _, what in left} == {message}
    assert all(file.startswith(place) for file, _, _ in left)
    keys = {key for _, key, _ in left}
    if place != "preferences":
        assert keys <= done.keys
        assert keys


def test_a_pair_that_matches_a_tombstone_is_found_though_it_was_never_taken_out(
    done: Forgotten,
) -> None:
    other = next(p for p in iter_pairs(done.corpus / "raw") if p.kept)
    [(_, key, remains)] = [
        one
        for one in find_remains(done.corpus, Tombstones(sources=hash_all([other.origin.source])))
        if one[0].startswith("raw")
    ]
    assert (key, remains) == (other.key, "its row with what it says")
