"""Folders as people and other tools leave them: every picture is a row, no caption is lost."""

from __future__ import annotations

import io
import json
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders.pictures_folder import encoded
from PIL import Image, PngImagePlugin

from stylear.curate.fetch import read_raw
from stylear.curate.fetch.embedded import read_prompt
from stylear.curate.fetch.folder_names import ImageIndex
from stylear.curate.fetch.ingest import ImageRejected, convert_image
from stylear.curate.fetch.png import strip_text
from stylear.curate.recipe import ImageSettings, check_recipe
from stylear.errors import SourceError

Found = dict[str, tuple[str, str | None]]


def fetch(root: Path, **changes: Any) -> Found:
    """source -> (caption, reason) of every pair of a folder source."""
    raw = {"type": "folder", "path": "photos", **changes}
    recipe = check_recipe({"name": "t", "raw": [raw]}, root)
    pairs = list(read_raw(recipe, root / "work"))
    captions = {
        pair.origin.source.removeprefix("folder:photos/"): (pair.caption, pair.verdict.reason)
        for pair in pairs
    }
    assert len(captions) == len(pairs)
    return captions


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


def put(folder: Path, *names: str) -> None:
    """Different pictures of these names."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        kind = "JPEG" if name.lower().endswith((".jpg", ".jpe", ".jfif", "_large")) else "PNG"
        (folder / name).write_bytes(encoded(number, kind=kind))


def test_caption_files_of_training_scripts_are_read(photos: Path, capsys: Any) -> None:
    put(photos, "10_sks style/a.png", "10_sks style/b.jpg")
    (photos / "10_sks style" / "a.caption").write_text("an apple")
    (photos / "10_sks style" / "b.txt").write_text("a text")
    (photos / "10_sks style" / "b.caption").write_text("a caption")
    assert fetch(photos.parent) == {
        "10_sks style/a.png": ("an apple", None),
        "10_sks style/b.jpg": ("a text", None),  # .txt wins
    }
    assert "'10_sks style' are read once" in capsys.readouterr().err
    captions = fetch(photos.parent, caption_files=[".caption", ".txt"])
    assert captions["10_sks style/b.jpg"] == ("a caption", None)


def test_caption_files_are_decoded_by_their_mark_or_dropped_aloud(photos: Path) -> None:
    put(photos, "a.png", "b.png", "c.png", "d.png")
    (photos / "a.txt").write_bytes("café".encode("utf-16"))
    (photos / "b.txt").write_bytes("café".encode("cp1252"))
    (photos / "c.txt").write_bytes(b"")
    (photos / "d.txt").write_bytes("one\r\ntwo".encode("utf-8-sig"))
    assert fetch(photos.parent) == {
        "a.png": ("café", None),
        "b.png": ("", "caption-not-utf8"),
        "c.png": ("", "no-caption"),
        "d.png": ("one two", None),
    }
    assert fetch(photos.parent, encoding="cp1252")["b.png"] == ("café", None)


def test_names_are_compared_in_one_form_of_unicode(photos: Path) -> None:
    put(photos, unicodedata.normalize("NFD", "é.png"))
    (photos / unicodedata.normalize("NFC", "é.txt")).write_text("an apple")
    assert list(fetch(photos.parent).values()) == [("an apple", None)]


def test_pictures_are_known_by_their_first_bytes(photos: Path) -> None:
    put(photos, "a.jfif", "b.jpe", "c.jpg_large", "d")
    (photos / "e.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(20))
    (photos / "f.jp2").write_bytes(b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40))
    (photos / "g").write_bytes(b"\xff\x0a" + bytes(40))
    (photos / "notes").write_text("no picture")
    for name in "abcdefg":
        (photos / f"{name}.txt").write_text(name)
    captions = fetch(photos.parent)
    assert set(captions) == {"a.jfif", "b.jpe", "c.jpg_large", "d", "e.heic", "f.jp2", "g"}
    assert {caption for caption, _ in captions.values()} == set("abcdefg")
    for name in ("f.jp2", "g"):
        with pytest.raises(ImageRejected, match="unsupported-format"):
            convert_image((photos / name).read_bytes(), ImageSettings())


def test_what_a_mac_leaves_is_no_picture(photos: Path) -> None:
    put(photos, "a.png", "__MACOSX/a.png", ".hidden/b.png", "._a.png")
    (photos / ".DS_Store").write_bytes(b"\0")
    (photos / "a.txt").write_text("an apple")
    assert fetch(photos.parent) == {"a.png": ("an apple", None)}


def test_links_to_outside_are_rows_with_a_reason_until_they_are_followed(
    photos: Path, capsys: Any
) -> None:
    put(photos.parent / "disk", "more/b.png", "c.png")
    (photos.parent / "disk" / "more" / "b.txt").write_text("b")
    (photos.parent / "disk" / "c.txt").write_text("c")
    (photos / "linked").symlink_to(photos.parent / "disk" / "more")
    (photos / "c.png").symlink_to(photos.parent / "disk" / "c.png")
    (photos / "c.txt").symlink_to(photos.parent / "disk" / "c.txt")
    (photos / "loop").symlink_to(photos)
    assert {name: reason for name, (_, reason) in fetch(photos.parent).items()} == {
        "c.png": "outside-folder",
        "linked/b.png": "outside-folder",
    }
    assert "2 images are links to files outside the folder" in capsys.readouterr().err
    assert fetch(photos.parent, follow_links=True) == {
        "c.png": ("c", None),
        "linked/b.png": ("b", None),
    }


def test_two_lists_beside_each_other_are_an_error_that_names_both(photos: Path) -> None:
    put(photos, "a.png")
    (photos / "captions.csv").write_text("image,caption\na.png,from csv\n")
    (photos / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "from jsonl"}\n')
    with pytest.raises(SourceError, match=r"found captions\.csv and metadata\.jsonl") as caught:
        fetch(photos.parent)
    assert "captions: metadata.jsonl" in (caught.value.hint or "")
    assert fetch(photos.parent, captions="metadata.jsonl") == {"a.png": ("from jsonl", None)}


def test_lists_at_any_depth_name_files_beside_them(photos: Path) -> None:
    put(photos, "train/a.png", "test/a.png")
    for split in ("train", "test"):
        table = pa.table({"file_name": ["a.png"], "text": [f"of {split}"]})
        pq.write_table(table, photos / split / "metadata.parquet")
    assert fetch(photos.parent) == {
        "test/a.png": ("of test", None),
        "train/a.png": ("of train", None),
    }


def test_captions_of_coco_and_caption_lists_are_read(photos: Path) -> None:
    put(photos, "a.png", "b.png")
    value = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "annotations": [
            {"image_id": 1, "caption": "one"},
            {"image_id": 2, "caption": "two"},
            {"image_id": 1, "caption": "uno"},
        ],
    }
    (photos / "captions_train.json").write_text(json.dumps(value))
    listed = {"captions": "captions_train.json"}
    assert fetch(photos.parent, **listed) == {"a.png": ("one", None), "b.png": ("two", None)}
    raw = {"type": "folder", "path": "photos", "captions_per_image": "all", **listed}
    pairs = list(read_raw(check_recipe({"name": "t", "raw": [raw]}, photos.parent), photos))
    assert [(pair.caption, pair.verdict.kept) for pair in pairs] == [
        ("one", True),
        ("uno", True),
        ("two", True),
    ]
    assert pairs[0].origin.content == pairs[1].origin.content


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train\\a.jpg", ("train/a.jpg", None)),  # slashes of Windows
        ("photos/train/a.jpg", ("train/a.jpg", None)),  # a leading folder
        ("/data/photos/train/a.jpg", ("train/a.jpg", None)),  # absolute
        ("C:\\photos\\train\\a.jpg", ("train/a.jpg", None)),
        ("train/A.JPG", ("train/a.jpg", None)),  # another case
        ("train/a", ("train/a.jpg", None)),  # no ending
        ("./train/a.jpg", ("train/a.jpg", None)),
        ("b.png", ("b.png", "ambiguous-file")),  # in two folders
        ("c.jpg", ("c.jpg", "missing-file")),
        ("", ("", "missing-file")),
        ("../train/a.jpg", ("../train/a.jpg", None)),  # refused by whoever reads it
        ("/etc/passwd", ("/etc/passwd", None)),
    ],
)
def test_a_listed_name_means_the_one_picture_that_it_can_mean(
    name: str, expected: tuple[str, str | None]
) -> None:
    assert ImageIndex(["train/a.jpg", "train/b.png", "test/b.png"]).find(name) == expected


def test_names_that_mean_nothing_name_the_nearest_and_no_absolute_path_is_kept(
    photos: Path,
) -> None:
    put(photos, "apples.png")
    (photos / "captions.csv").write_text("image,caption\naples.png,one\n/home/me/secret.png,two\n")
    recipe = check_recipe(
        {"name": "t", "raw": [{"type": "folder", "path": "photos"}]}, photos.parent
    )
    pairs = list(read_raw(recipe, photos.parent / "work"))
    assert [(p.origin.source, p.verdict.reason) for p in pairs] == [
        ("folder:photos/aples.png", "missing-file"),
        ("folder:photos/secret.png", "outside-folder"),
        ("folder:photos/apples.png", "no-caption"),
    ]
    assert pairs[0].origin.details["nearest_file"] == "apples.png"


def workflow_png(**texts: str) -> bytes:
    """A PNG with text chunks, packed and plain."""
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text, zip=len(text) > 1000)
    stream = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


def test_large_text_chunks_do_not_stop_a_picture() -> None:
    data = workflow_png(workflow="x" * (3 << 20), prompt="y" * 2000)
    assert convert_image(data, ImageSettings()).details["source_width"] == 32
    plain = strip_text(data)
    assert len(plain) < 1000
    assert strip_text(plain) is plain


GRAPH = {
    "3": {"class_type": "KSampler", "inputs": {"positive": ["6", 0], "negative": ["7", 0]}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["9", 0]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "ugly"}},
    "9": {"class_type": "String", "inputs": {"string": "a red apple"}},
}


@pytest.mark.parametrize(
    ("texts", "caption"),
    [
        (
            {"parameters": "a dog,\nrunning\nNegative prompt: cat\nSteps: 20, Seed: 1"},
            "a dog, running",
        ),
        ({"prompt": json.dumps(GRAPH)}, "a red apple"),
        ({"prompt": json.dumps({"1": {"inputs": {"positive": ["1", 0]}}})}, None),  # a circle
        ({"prompt": "no json"}, None),
        ({"Description": "a cat"}, "a cat"),
        ({}, None),
    ],
)
def test_the_prompt_inside_a_picture_is_its_caption_on_request(
    photos: Path, texts: dict[str, str], caption: str | None
) -> None:
    data = workflow_png(**texts)
    assert read_prompt(data) == caption
    (photos / "a.png").write_bytes(data)
    expected = (caption or "", None if caption else "no-caption")
    assert fetch(photos.parent, captions="embedded") == {"a.png": expected}
    assert fetch(photos.parent)["a.png"] == ("", "no-caption")


def test_a_bomb_in_a_text_chunk_is_no_caption() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a" * (20 << 20), zip=True)
    stream = io.BytesIO()
    Image.new("RGB", (32, 32)).save(stream, "PNG", pnginfo=info)
    assert read_prompt(stream.getvalue()) is None


def test_a_cut_off_picture_is_kept_on_request() -> None:
    whole = encoded(1, size=64, kind="JPEG")
    cut = whole[: len(whole) * 3 // 4]
    with pytest.raises(ImageRejected, match="corrupt-image"):
        convert_image(cut, ImageSettings())
    stored = convert_image(cut, ImageSettings(truncated="keep"))
    assert stored.details["truncated"] is True
    assert Image.open(io.BytesIO(stored.data)).size == (64, 64)


def test_pictures_inside_parquet_are_a_source(tmp_path: Path) -> None:
    table = pa.table(
        {
            "image": [
                {"bytes": encoded(1), "path": "x/a.png"},
                {"bytes": None, "path": "b.png"},
                {"bytes": encoded(3), "path": None},
                {"bytes": encoded(1), "path": "again.png"},
            ],
            "text": [["one", "uno"], ["two"], [], ["one"]],
            "label": [3, 4, 5, 6],
        }
    )
    pq.write_table(table, tmp_path / "train.parquet")
    raw = {"type": "parquet", "path": "train.parquet"}
    pairs = list(read_raw(check_recipe({"name": "t", "raw": [raw]}, tmp_path), tmp_path))
    assert [(p.origin.source, p.caption, p.verdict.reason) for p in pairs] == [
        ("parquet:train.parquet/a.png", "one", None),
        ("parquet:train.parquet/b.png", "two", "missing-image"),
        ("parquet:train.parquet/3", "", "no-caption"),
        ("parquet:train.parquet/again.png", "one", "duplicate-row"),
    ]
    assert pairs[0].image == encoded(1)
    assert pairs[0].origin.details["label"] == 3
    pq.write_table(pa.table({"image": ["a.png"], "text": ["x"]}), tmp_path / "b.parquet")
    raw = {"type": "parquet", "path": "b.parquet"}
    with pytest.raises(SourceError, match="expected pictures in column 'image'"):
        list(read_raw(check_recipe({"name": "t", "raw": [raw]}, tmp_path), tmp_path))


def test_a_folder_that_cannot_be_written_is_read(photos: Path) -> None:
    put(photos, "a.png")
    (photos / "a.txt").write_text("an apple")
    photos.chmod(0o555)
    try:
        assert fetch(photos.parent) == {"a.png": ("an apple", None)}
    finally:
        photos.chmod(0o755)
