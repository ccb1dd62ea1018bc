"""Claims about samples: which member is the picture, the caption and the record, and where names are cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builders.odd_tars import Member, outcomes, picture, read_tars, write_tar
from PIL import PngImagePlugin

from stylear.curate.fetch.samples import Members
from stylear.errors import RecipeError, SourceError


def as_json(record: Any) -> bytes:
    return json.dumps(record).encode()


def read_one(
    tmp_path: Path, *members: Member, **settings: Any
) -> list[tuple[str, str, str | None]]:
    """The outcomes of a tar with these members behind a sample that is well."""
    write_tar(tmp_path / "x.tar", [("well.png", picture()), ("well.txt", b"well"), *members])
    pairs = outcomes(read_tars(tmp_path, "x.tar", **settings))
    assert pairs[0] == ("well", "well", None)
    return pairs[1:]


@pytest.mark.parametrize(
    ("ending", "data"),
    [
        ("txt", b"a boat"),
        ("TXT", b"a boat"),
        ("caption", b"a boat"),
        ("text", b"a boat"),
        ("prompt", b"a boat"),
        ("cap", b"a boat"),
        ("caption.txt", b"a boat"),
        ("image.caption", b"a boat"),
        ("txt", "a boat".encode("utf-16")),
        ("txt", b"\xef\xbb\xbfa boat"),
        ("json", as_json({"caption": "a boat"})),
        ("json", as_json({"TEXT": "a boat"})),
        ("json", as_json({"captions": ["a boat", "a ship"]})),
        ("meta.json", as_json({"caption": "a boat"})),
    ],
)
def test_captions_are_found_under_their_usual_endings(
    tmp_path: Path, ending: str, data: bytes
) -> None:
    pairs = read_one(tmp_path, ("a.jpg", picture(format="JPEG")), (f"a.{ending}", data))
    assert pairs == [("a", "a boat", None)]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("a.txt", b"a")], "no-image"),
        ([("a.png", picture())], "no-caption"),
        ([("a.png", picture()), ("a.txt", b"caf\xe9")], "caption-not-utf8"),
        ([("a.png", picture()), ("a.json", b"{broken")], "bad-json"),
        ([("a.png", picture()), ("a.json", b'["list"]')], "bad-json"),
        ([("a.png", picture()), ("a.json", b'{"caption": 7}')], "no-caption"),
        ([("a.in.png", picture()), ("a.out.png", picture(9)), ("a.txt", b"a")], "ambiguous-image"),
        ([("a.png", picture()), ("a.x.txt", b"x"), ("a.y.txt", b"y")], "ambiguous-caption"),
    ],
)
def test_what_a_sample_lacks_is_its_reason(
    tmp_path: Path, members: list[Member], reason: str
) -> None:
    assert [why for _, _, why in read_one(tmp_path, *members)] == [reason]


def test_a_declared_encoding_is_used(tmp_path: Path) -> None:
    members = [("a.png", picture()), ("a.txt", b"caf\xe9")]
    assert read_one(tmp_path, *members, encoding="cp1252") == [("a", "caf\u00e9", None)]


def test_pictures_are_known_by_their_first_bytes_too(tmp_path: Path) -> None:
    names = ("a.image.png", "b.jpg_large", "c", "d.jfif", "e.input_image.webp", "f.data")
    members = [
        member
        for name in names
        for member in ((name, picture()), (f"{name.partition('.')[0]}.txt", b"seen"))
    ]
    assert read_one(tmp_path, *members) == [(key, "seen", None) for key in "abcdef"]
    jp2 = b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40)
    other = read_one(tmp_path, ("a.jp2", jp2), ("a.txt", b"seen"))
    assert other == [("a", "seen", "unsupported-format")]


EDIT = [
    ("1.input_image.png", picture(1)),
    ("1.edited_image.png", picture(2)),
    ("1.instruction.txt", b"make it blue"),
    ("1.edit.json", as_json({"caption": "a blue boat", "licence": "cc0"})),
]


def test_members_are_named_by_the_recipe(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", EDIT)
    with pytest.raises(SourceError, match=r"ambiguous-image 1; .*\.input_image\.png \(1\)") as no:
        read_tars(tmp_path, "x.tar")
    assert "members: {image: input_image.png}" in str(no.value.hint)
    named = {"image": "edited_image.png", "text": ".Instruction.txt", "record": "edit.json"}
    (pair,) = read_tars(tmp_path, "x.tar", members=named)
    assert (pair.caption, pair.verdict.reason) == ("make it blue", None)
    assert pair.origin.details["licence"] == "cc0"
    (pair,) = read_tars(
        tmp_path, "x.tar", members={"image": "input_image.png", "text": "edit.json"}
    )
    assert pair.caption == "a blue boat"
    with pytest.raises(SourceError, match="no-image 1"):
        read_tars(tmp_path, "x.tar", members={"image": "image.png"})
    with pytest.raises(RecipeError, match=r"an ending such as input_image\.png"):
        read_tars(tmp_path, "x.tar", members={"image": " "})


def test_names_are_cut_at_the_first_dot_or_on_request_at_the_last(tmp_path: Path) -> None:
    assert Members().split_name("a.b/22.05.JPG") == ("a.b/22", "05.jpg")
    assert Members(last_dot=True).split_name("a.b/22.05.JPG") == ("a.b/22.05", "jpg")
    assert Members(last_dot=True).split_name("a.b/none") == ("a.b/none", "")
    assert Members(image="in.png").split_name("v1.2.in.png") == ("v1.2", "in.png")
    days = [
        member
        for day in ("22.05", "22.06", "photo v1.2")
        for member in ((f"{day}.jpg", picture(format="JPEG")), (f"{day}.txt", day.encode()))
    ]
    pairs = read_one(tmp_path, *days, keys="last-dot")
    assert pairs == [(day, day, None) for day in ("22.05", "22.06", "photo v1.2")]
    write_tar(tmp_path / "x.tar", days[:4])
    with pytest.raises(SourceError, match=r"ambiguous-image 1; .*\.05\.jpg") as refused:
        read_tars(tmp_path, "x.tar")
    assert "keys: last-dot" in str(refused.value.hint)


def test_what_a_mac_or_windows_leaves_is_no_sample(tmp_path: Path) -> None:
    junk = (
        "__MACOSX/._a.png",
        "._a.png",
        ".DS_Store",
        "b/.DS_Store",
        "Thumbs.db",
        "__MACOSX/b.txt",
    )
    assert read_one(tmp_path, *((name, b"junk") for name in junk)) == []


def test_separated_members_are_reported(tmp_path: Path) -> None:
    apart = [(f"{n}.png", picture(n)) for n in range(3)] + [(f"{n}.txt", b"x") for n in range(3)]
    assert {why for _, _, why in read_one(tmp_path, *apart)} == {"separated-members"}
    write_tar(tmp_path / "x.tar", apart)
    with pytest.raises(SourceError, match="separated-members 6") as refused:
        read_tars(tmp_path, "x.tar")
    assert "tar --sort=name" in str(refused.value.hint)


def test_only_records_of_our_own_decide(tmp_path: Path) -> None:
    record = {"caption": "a boat", "kept": False, "stage": "x", "content": "zz"}
    members = [("a.png", picture()), ("a.json", as_json(record))]
    assert read_one(tmp_path, *members) == [("a", "a boat", None)]
    members[1] = ("a.json", as_json({**record, "source_sha256": None}))
    assert read_one(tmp_path, *members) == [("a", "a boat", "dropped-before")]


def test_all_captions_of_a_picture_are_pairs_on_request(tmp_path: Path) -> None:
    record = as_json({"captions": ["a boat", "a ship"]})
    members = [("a.png", picture()), ("a.json", record)]
    both = [("a", "a boat", None), ("a", "a ship", None)]
    assert read_one(tmp_path, *members, captions_per_image="all") == both
    pairs = read_tars(tmp_path, "x.tar", captions_per_image="all")
    assert len({pair.key for pair in pairs}) == 3
    assert pairs[1].origin.content == pairs[2].origin.content
    assert read_one(tmp_path, *members, captions_per_image="random") in ([both[0]], [both[1]])


def test_embedded_prompts_are_the_captions_on_request(tmp_path: Path) -> None:
    import io

    from PIL import Image

    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a red fox\nSteps: 20, Sampler: Euler")
    out = io.BytesIO()
    Image.new("RGB", (24, 24)).save(out, "PNG", pnginfo=info)
    write_tar(
        tmp_path / "x.tar", [("a.png", out.getvalue()), ("b.png", picture()), ("b.txt", b"b")]
    )
    pairs = outcomes(read_tars(tmp_path, "x.tar", captions="embedded"))
    assert pairs == [("a", "a red fox", None), ("b", "", "no-caption")]
