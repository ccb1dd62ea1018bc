"""Pairs are found by key, source, hash or picture; a name that no pair has is answered with the nearest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from builders.pictures_folder import encoded
from builders.written_corpus import web_pair, write_corpus
from PIL import Image
from typer.testing import CliRunner

from stylear.curate.cli import app
from stylear.curate.corpus.shards import iter_pairs
from stylear.curate.explain.find import RowLocation, find_pairs
from stylear.errors import SourceError, UsageError

HOST = "https://pictures.example/"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    first = [web_pair(f"{HOST}{n}.png", n) for n in range(3)]
    moved = web_pair("http://old.example/4.png", 4, final_url=f"{HOST}new/4.png")
    return write_corpus(tmp_path / "corpus", [first, [web_pair(f"{HOST}3.png", 3), moved]])


def test_a_pair_is_found_by_key_by_url_and_by_hash(corpus: Path) -> None:
    pair = web_pair(f"{HOST}3.png", 3)
    location = (RowLocation("raw", "00001", 0),)
    stored = hashlib.sha256(encoded(3)).hexdigest()
    for text, by in [
        (pair.key, "key"),
        (pair.key[:8], "key"),
        (f"{HOST}3.png", "source"),
        (f"{HOST}3.png#part", "source"),
        (f"{3:064x}", "sha256"),
        (stored.upper(), "sha256"),
    ]:
        match = find_pairs(corpus, text)
        assert (match.by, match.locations) == (by, location), text


def test_a_pair_is_found_where_a_redirect_led(corpus: Path) -> None:
    assert find_pairs(corpus, f"{HOST}new/4.png").locations == (RowLocation("raw", "00001", 1),)


def test_a_picture_is_found_by_its_bytes_or_by_what_it_looks_like(
    corpus: Path, tmp_path: Path
) -> None:
    same, like = tmp_path / "same.png", tmp_path / "like.jpg"
    same.write_bytes(encoded(2))
    with Image.open(same) as image:
        image.convert("RGB").save(like, quality=95)
    match = find_pairs(corpus, str(same))
    assert (match.by, match.locations) == ("picture", (RowLocation("raw", "00000", 2),))
    match = find_pairs(corpus, str(like))
    assert (match.by, match.locations) == ("similar picture", (RowLocation("raw", "00000", 2),))


def test_a_picture_that_nobody_has_is_an_error(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "other.png").write_bytes(encoded(99))
    with pytest.raises(
        UsageError, match=r"other\.png: no pair of .* has the same bytes or looks similar"
    ):
        find_pairs(corpus, str(tmp_path / "other.png"))
    (tmp_path / "note.txt").write_text("a note")
    with pytest.raises(SourceError, match=r"note\.txt: expected an image, found: not-an-image"):
        find_pairs(corpus, str(tmp_path / "note.txt"))


def test_an_unknown_name_is_answered_with_the_nearest(corpus: Path) -> None:
    key = web_pair(f"{HOST}3.png", 3).key
    wrong = key[:-1] + ("0" if key[-1] != "0" else "1")
    with pytest.raises(UsageError, match=f"{wrong}: no pair of .* has this key") as error:
        find_pairs(corpus, wrong)
    assert error.value.hint == f"did you mean {key}?"
    with pytest.raises(UsageError) as error:
        find_pairs(corpus, f"{HOST}3.pgn")
    assert error.value.hint is not None
    assert f"{HOST}3.png" in error.value.hint
    with pytest.raises(UsageError) as error:
        find_pairs(corpus, "ftp://nowhere.example/x")
    assert error.value.hint is not None
    assert error.value.hint.startswith("`stylear curate query CORPUS")


def test_a_beginning_that_several_keys_have_is_no_key(corpus: Path) -> None:
    with pytest.raises(UsageError, match="no pair of"):
        find_pairs(corpus, web_pair(f"{HOST}3.png", 3).key[:2])


def test_an_unknown_key_mentions_an_unfinished_fetch(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", [[web_pair(f"{HOST}0.png", 0)]], finished=False)
    with pytest.raises(UsageError, match="or sha256 so far: fetch is not finished"):
        find_pairs(corpus, "0123456789")


def test_a_shard_without_a_ledger_entry_does_not_count(corpus: Path) -> None:
    (corpus / "ledger" / "fetch" / "00001.json").unlink()
    with pytest.raises(UsageError, match="no pair of"):
        find_pairs(corpus, f"{HOST}3.png")


def test_the_sides_of_a_preference_pair_are_found_by_its_key(finished: Path) -> None:
    from stylear.curate.corpus.parquet import read_table

    row = read_table(finished / "preferences" / "00000.parquet").to_pylist()[0]
    result = CliRunner().invoke(
        app, ["explain", str(finished), row["key"], "--json"], catch_exceptions=False
    )
    printed = json.loads(result.stdout)
    assert printed["matched_by"] == "preference pair"
    assert [history["key"] for history in printed["pairs"]] == [row["chosen"], row["rejected"]]


def test_the_command_explains_every_pair_of_one_source(finished: Path) -> None:
    pair = next(pair for pair in iter_pairs(finished / "raw"))
    result = CliRunner().invoke(
        app, ["explain", str(finished), pair.origin.source], catch_exceptions=False
    )
    assert result.stdout.splitlines()[0].startswith(f"pair              {pair.key} (raw), ")
