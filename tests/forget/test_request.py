"""Pairs are forgotten by key, source, hash, domain, picture or list."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from builders.forgotten_corpus import pair_to_forget
from builders.pictures_folder import encoded
from builders.written_corpus import web_pair, write_corpus
from PIL import Image

from stylear.curate.corpus.shards import iter_pairs
from stylear.curate.forget import forget_pairs
from stylear.curate.forget.request import Request, read_request_list
from stylear.errors import SourceError, UsageError

URLS = [
    "https://pictures.example/a.png",
    "https://cdn.pictures.example/b.png",
    "https://other.example/c.png",
    "https://notpictures.example/d.png",
]


@pytest.fixture
def web(tmp_path: Path) -> Path:
    """Four downloads of four hosts, and one that was redirected to the first host; one failed."""
    pairs = [web_pair(url, number) for number, url in enumerate(URLS)]
    moved = web_pair("https://old.example/e.png", 4, final_url="https://pictures.example/e.png")
    failed = web_pair("https://pictures.example/f.png", 5).drop("fetch", "timeout")
    return write_corpus(tmp_path / "web", [pairs, [moved, failed]])


def forgotten(corpus: Path) -> list[int]:
    """The places of the forgotten raw pairs."""
    pairs = enumerate(iter_pairs(corpus / "raw"))
    return [place for place, pair in pairs if pair.verdict.reason == "forgotten"]


@pytest.mark.parametrize(
    ("request_", "places"),
    [
        (Request(sources=(URLS[2],)), [2]),
        (Request(sources=(f"{URLS[2]}#fragment",)), [2]),
        (Request(sources=("https://pictures.example/e.png",)), [4]),
        (Request(domains=("pictures.example",)), [0, 1, 4, 5]),
        (Request(domains=("Other.Example.",)), [2]),
        (Request(sha256=(f"{3:064X}",)), [3]),
        (Request(sha256=(hashlib.sha256(encoded(1)).hexdigest(),)), [1]),
        (Request(keys=(web_pair(URLS[3], 3).key,)), [3]),
        (Request(sources=("https://nobody.example/",)), []),
    ],
)
def test_each_way_of_asking_takes_its_pairs(
    web: Path, request_: Request, places: list[int]
) -> None:
    result = forget_pairs(web, request_)
    assert len(result.selection.keys) == len(places)
    assert forgotten(web) == places
    assert (web / "tombstones.json").is_file()


def test_a_picture_takes_all_that_look_like_it(web: Path, tmp_path: Path) -> None:
    (tmp_path / "same.png").write_bytes(encoded(2))
    with Image.open(tmp_path / "same.png") as image:
        image.convert("RGB").save(tmp_path / "like.jpg", quality=92)
    forget_pairs(web, Request(pictures=(tmp_path / "like.jpg",)))
    assert forgotten(web) == [2]


def test_a_stylized_pair_is_forgotten_without_its_parent(finished: Path, tmp_path: Path) -> None:
    corpus = Path(shutil.copytree(finished, tmp_path / "corpus"))
    raw, children = pair_to_forget(corpus)
    result = forget_pairs(corpus, Request(keys=(children[0].key,)))
    assert result.selection.keys == {children[0].key}
    assert forgotten(corpus) == []
    left = {pair.key: pair for pair in iter_pairs(corpus / "stylized")}
    assert left[children[0].key].verdict.reason == "forgotten"
    assert left[children[1].key].image == children[1].image
    assert raw.key in {pair.key for pair in iter_pairs(corpus / "raw") if pair.kept}


def test_a_list_has_keys_hashes_and_urls(web: Path, tmp_path: Path) -> None:
    listed = [web_pair(URLS[0], 0).key, "", "# a remark", f"{1:064x}", URLS[2]]
    (tmp_path / "list.txt").write_text("\n".join(listed))
    forget_pairs(web, read_request_list(tmp_path / "list.txt"))
    assert forgotten(web) == [0, 1, 2]


def test_a_bad_line_of_a_list_is_named(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("https://a.example/\nnonsense\n")
    with pytest.raises(
        UsageError, match=r"list\.txt:2: expected a key, a sha256 or a URL, found 'nonsense'"
    ):
        read_request_list(tmp_path / "list.txt")
    with pytest.raises(UsageError, match=r"none\.txt: expected a text file"):
        read_request_list(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(keys=("xyz",)), "--key xyz: expected a key of 32 hex digits"),
        (Request(sha256=("abc",)), "--sha256 abc: expected 64 hex digits"),
        (
            Request(domains=("https://a.example/b",)),
            "--domain https://a.example/b: expected a domain",
        ),
        (Request(keys=("0" * 32,)), "0: no pair of .* has this key"),
    ],
)
def test_what_cannot_be_meant_is_an_error_and_changes_nothing(
    web: Path, request_: Request, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        forget_pairs(web, request_)
    assert forgotten(web) == []
    assert not (web / "tombstones.json").exists()


def test_a_file_that_is_no_picture_is_an_error(web: Path, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("a note")
    with pytest.raises(SourceError, match=r"note\.txt: expected an image, found: not-an-image"):
        forget_pairs(web, Request(pictures=(tmp_path / "note.txt",)))
