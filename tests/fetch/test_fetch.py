"""Claims about the sources of raw pairs: every row a pair, no key twice, nothing hostile gets through."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from builders.odd_tars import Member, write_tar
from PIL import Image

from stylear.curate.corpus.captions import MAX_CAPTION, clean_caption, clean_details, plain_source
from stylear.curate.fetch import fetch_raw, mini
from stylear.curate.fetch.blocks import classify_error
from stylear.curate.fetch.growth import source_settings
from stylear.curate.recipe import check_recipe
from stylear.errors import RecipeError, SourceError
from stylear.pair import Pair, content_id


def picture(shade: int = 0) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (24, 24), (shade, 100, 200)).save(out, "PNG")
    return out.getvalue()


def fetch(base: Path, *raw: dict[str, Any], seed: int = 0) -> list[Pair]:
    recipe = check_recipe(
        {"name": "test", "seed": seed, "image": {"size": 16}, "raw": list(raw)}, base
    )
    return list(fetch_raw(recipe, base / "work"))


def reasons(pairs: Sequence[Pair]) -> dict[str | None, int]:
    return dict(Counter(pair.verdict.reason for pair in pairs))


def write_csv(path: Path, rows: Sequence[Sequence[str]], header: Sequence[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


# captions


def test_captions_come_out_on_one_line_in_nfc_without_control_characters() -> None:
    assert clean_caption(" a\tred\r\n\x00apple\x1b[31m ") == ("a red apple[31m", {})
    assert clean_caption("cafe\u0301") == ("caf\u00e9", {})
    assert clean_caption("left \u202eright\u2069 \ufeffend") == ("left right end", {})
    assert clean_caption("תפוח אדום") == ("תפוח אדום", {})
    assert clean_caption("a \ud800 lone surrogate") == ("a lone surrogate", {})


def test_joiners_stay_because_words_need_them() -> None:
    assert clean_caption("family \U0001f468\u200d\U0001f469") == (
        "family \U0001f468\u200d\U0001f469",
        {},
    )


def test_a_megabyte_of_caption_is_cut_and_the_fact_is_kept() -> None:
    caption, notes = clean_caption("word " * 200_000)
    assert len(caption) <= MAX_CAPTION
    assert notes == {"caption_characters": 1_000_000}
    accents, _ = clean_caption("a\u0301\u0316" * 300_000)
    assert len(accents) <= MAX_CAPTION


@pytest.mark.parametrize("raw", [None, 5, float("nan"), "", " \n", "\x00\x00", ["a"]])
def test_what_is_no_text_is_no_caption(raw: object) -> None:
    assert clean_caption(raw) == ("", {})


def test_details_are_scalars_with_plain_names() -> None:
    columns = {"LICENSE ": "cc0\x00", "nan": float("nan"), "list": [1], "n": 3, "ok": True, "": 1}
    assert clean_details(columns) == {"license": "cc0", "n": 3, "ok": True}
    assert plain_source("a\udcffb\n") == "a\\udcffb\\x0a"


# folders


def test_a_folder_with_a_list_conserves_rows_and_files(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    (folder / "a.png").write_bytes(picture(1))
    (folder / "below" / "b.png").write_bytes(picture(2))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 junk")
    (folder / "unnamed.png").write_bytes(picture(3))
    (tmp_path / "secret.png").write_bytes(picture(4))
    rows = [
        ["a.png", "an apple", "cc0"],
        ["a.png", "a second caption", "cc0"],
        ["./b.png", "a boat", ""],
        ["broken.jpg", "a break", ""],
        ["missing.png", "a gap", ""],
        ["../secret.png", "a secret", ""],
        ["/etc/passwd", "a password", ""],
        ["a.png", "an apple", "cc0"],
        ["below/b.png", "", ""],
    ]
    write_csv(folder / "captions.csv", rows, ["image", "caption", "licence"])
    pairs = fetch(tmp_path, {"type": "folder", "path": "photos"})
    assert [pair.verdict.reason for pair in pairs] == [
        None,
        "extra-caption",
        None,
        "not-an-image",
        "missing-file",
        "outside-folder",
        "outside-folder",
        "duplicate-row",
        "no-caption",
        "no-caption",
    ]
    assert len({pair.key for pair in pairs}) == len(pairs)
    assert pairs[0].origin.source == "folder:photos/a.png"
    assert pairs[0].origin.details["licence"] == "cc0"
    assert pairs[0].origin.content == content_id("An  Apple")
    assert pairs[2].origin.source == "folder:photos/below/b.png"


def test_all_captions_of_an_image_may_be_pairs_of_one_content(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    write_csv(tmp_path / "list.csv", [["a.png", "one"], ["a.png", "two"]], ["file_name", "text"])
    source = {"type": "folder", "path": ".", "captions": "list.csv", "captions_per_image": "all"}
    pairs = fetch(tmp_path, source)
    assert [(pair.caption, pair.kept) for pair in pairs] == [("one", True), ("two", True)]
    assert len({pair.origin.content for pair in pairs}) == 1


def test_captions_may_be_beside_the_images(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        (tmp_path / f"{name}.png").write_bytes(picture(ord(name)))
    (tmp_path / "a.txt").write_text("an apple", "utf-8")
    (tmp_path / "b.json").write_text(json.dumps({"caption": "a boat"}), "utf-8")
    (tmp_path / "c.json").write_text("{broken", "utf-8")
    pairs = fetch(tmp_path, {"type": "folder", "path": "."})
    assert [pair.caption for pair in pairs] == ["an apple", "a boat", "", ""]
    assert reasons(pairs) == {None: 2, "no-caption": 2}


def test_a_folder_gives_the_same_pairs_wherever_it_lies(tmp_path: Path) -> None:
    fetched = []
    for place in ("here", "there"):
        folder = tmp_path / place / "photos"
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes(picture())
        (folder / "a.txt").write_text("an apple", "utf-8")
        fetched.append(fetch(tmp_path / place, {"type": "folder", "path": "photos"}))
    assert fetched[0] == fetched[1]


def test_the_folder_of_the_recipe_itself_gives_the_same_pairs_wherever_it_lies(
    tmp_path: Path,
) -> None:
    fetched, settings = [], []
    for place in ("here", "there"):
        (tmp_path / place / "below").mkdir(parents=True)
        (tmp_path / place / "below" / "a.png").write_bytes(picture())
        (tmp_path / place / "below" / "a.txt").write_text("an apple", "utf-8")
        source = {"type": "folder", "path": "."}
        fetched.append(fetch(tmp_path / place, source))
        recipe = check_recipe({"name": "test", "raw": [source]}, tmp_path / place)
        settings.append(source_settings(recipe.raw[0], recipe.base))
    assert fetched[0] == fetched[1]
    assert fetched[0][0].origin.source == "folder:below/a.png"
    assert settings[0] == settings[1]


def test_links_that_leave_the_folder_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(picture())
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "link.txt").write_text("a secret", "utf-8")
    (tmp_path / "secret.txt").write_text("root:x:0:0", "utf-8")
    (folder / "real.png").write_bytes(picture())
    (folder / "real.txt").symlink_to(tmp_path / "secret.txt")
    pairs = fetch(tmp_path, {"type": "folder", "path": "photos"})
    assert reasons(pairs) == {"outside-folder": 1, "no-caption": 1}


def test_folder_mistakes_name_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"nowhere: expected a folder"):
        fetch(tmp_path, {"type": "folder", "path": "nowhere"})
    with pytest.raises(SourceError, match=r"empty: expected images"):
        fetch(tmp_path, {"type": "folder", "path": "empty"})
    (tmp_path / "empty" / "a.png").write_bytes(picture())
    with pytest.raises(SourceError, match=r"captions.csv: expected the list of captions"):
        fetch(tmp_path, {"type": "folder", "path": "empty", "captions": "captions.csv"})
    write_csv(tmp_path / "empty" / "captions.csv", [["a.png", "x"]], ["pic", "words"])
    with pytest.raises(SourceError, match=r"image column called 'image'.*found 'pic', 'words'"):
        fetch(tmp_path, {"type": "folder", "path": "empty"})


def test_a_folder_with_metadata_of_hugging_face_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    row = {"file_name": "a.png", "text": "an apple"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row), "utf-8")
    pairs = fetch(tmp_path, {"type": "folder", "path": "."})
    assert [(pair.caption, pair.kept) for pair in pairs] == [("an apple", True)]


# the embedded corpus


@pytest.fixture
def drawings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An embedded corpus of ten concepts in two hands."""
    members: list[Member] = []
    for n in range(10):
        for vendor in ("noto", "twemoji"):
            key = f"{n}{vendor}"
            details = {"vendor": vendor, "category": "Food" if n < 4 else "Places", "licence": "x"}
            details["split"] = "val" if (n, vendor) == (9, "twemoji") else "train"
            members.append((f"{key}.png", picture(n * 2 + len(vendor))))
            members.append((f"{key}.txt", f"thing {n}".encode()))
            members.append((f"{key}.json", json.dumps({"details": details}).encode()))
    folder = tmp_path / "embedded"
    folder.mkdir()
    write_tar(folder / "00000.tar", members)
    monkeypatch.setattr(mini, "CORPUS", folder)
    return tmp_path


def test_the_embedded_corpus_is_chosen_from(drawings: Path) -> None:
    assert len(fetch(drawings, {"type": "mini"})) == 20
    assert len(fetch(drawings, {"type": "mini", "split": "train"})) == 19
    assert len(fetch(drawings, {"type": "mini", "vendors": ["noto"]})) == 10
    food = fetch(drawings, {"type": "mini", "categories": ["Food"]})
    assert {pair.origin.details["category"] for pair in food} == {"Food"}
    assert len(food) == 8


def test_a_limit_draws_whole_concepts_with_the_seed(drawings: Path) -> None:
    chosen = fetch(drawings, {"type": "mini", "limit": 6})
    assert len(chosen) == 6
    assert sorted(Counter(pair.origin.content for pair in chosen).values()) == [2, 2, 2]
    assert chosen == fetch(drawings, {"type": "mini", "limit": 6})
    others = [fetch(drawings, {"type": "mini", "limit": 6}, seed=seed) for seed in (1, 2, 3)]
    assert any(other != chosen for other in others)


def test_mini_mistakes_name_what_there_is(drawings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match=r"no category 'Foods'") as error:
        fetch(drawings, {"type": "mini", "categories": ["Foods"]})
    assert error.value.hint == "there are: Food, Places"
    monkeypatch.setattr(mini, "CORPUS", drawings / "absent")
    with pytest.raises(SourceError, match="expected the embedded corpus"):
        fetch(drawings, {"type": "mini"})


# all together


def test_sources_follow_each_other_and_no_key_comes_twice(drawings: Path) -> None:
    (drawings / "photos").mkdir()
    (drawings / "photos" / "a.png").write_bytes(picture())
    (drawings / "photos" / "a.txt").write_text("an apple", "utf-8")
    folder = {"type": "folder", "path": "photos"}
    pairs = fetch(drawings, folder, {"type": "mini"}, folder, folder)
    assert len(pairs) == 23
    assert len({pair.key for pair in pairs}) == 23
    assert reasons(pairs) == {None: 21, "duplicate-row": 2}
    assert pairs == fetch(drawings, folder, {"type": "mini"}, folder, folder)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("HTTP Error 404: Not Found", "http-404"),
        ("<urlopen error timed out>", "timeout"),
        (
            "<urlopen error refused[not-public-address] localhost is 127.0.0.1>",
            "not-public-address",
        ),
        ("Use of image disallowed by X-Robots-Tag directive", "opted-out"),
        ("<urlopen error [Errno 111] Connection refused>", "connection-refused"),
        ("Remote end closed connection without response", "connection-lost"),
        ("HTTP Error 302: The HTTP server returned a redirect error", "too-many-redirects"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", "tls-failed"),
        ("something else", "download-failed"),
        (None, "download-failed"),
    ],
)
def test_errors_of_others_have_names_of_ours(message: str | None, reason: str) -> None:
    assert classify_error(message) == reason
