"""The claim about every tar: a pair for every sample, kept exactly when it has a picture and a caption."""

from __future__ import annotations

import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from builders.odd_tars import Member, hard_link, outcomes, pack, picture, read_tars
from hypothesis import given, settings
from hypothesis import strategies as st

PICTURE = picture()


@dataclass(frozen=True)
class Odd:
    """One sample to be packed: its members' endings, and what else lies around it."""

    image: str | None
    text: str | None
    caption: bytes
    linked: bool  # its picture is a hard link to the first one
    extras: tuple[str, ...]
    junk: str | None
    folder: str


ODD = st.builds(
    Odd,
    image=st.sampled_from(["png", "PNG", "image.png", "jfif", "img", None]),
    text=st.sampled_from(["txt", "TXT", "caption", "caption.txt", "json", None]),
    caption=st.sampled_from([b"a boat", b"caf\xe9", b" ", "\ufeffa boat".encode("utf-16-le")]),
    linked=st.booleans(),
    extras=st.lists(st.sampled_from(["cls", "npy", "md5"]), max_size=2, unique=True).map(tuple),
    junk=st.sampled_from([None, "__MACOSX/._x.png", ".DS_Store", "._x.txt", "__x.json"]),
    folder=st.sampled_from(["", "./", "a/b.c/"]),
)


def members_of(number: int, odd: Odd) -> list[Member | tarfile.TarInfo]:
    key = f"{odd.folder}{number:03d}"
    members: list[Member | tarfile.TarInfo] = []
    if odd.image is not None:
        linked = hard_link(f"{key}.{odd.image}", "first.png")
        members.append(linked if odd.linked else (f"{key}.{odd.image}", PICTURE))
    if odd.text is not None:
        members.append((f"{key}.{odd.text}", odd.caption))
    members += [(f"{key}.{ending}", b"\x93 neither") for ending in odd.extras]
    if odd.junk is not None:
        members.insert(len(members) // 2, (odd.junk, b"junk"))
    return members


def is_sample(odd: Odd) -> bool:
    return odd.image is not None or odd.text is not None or bool(odd.extras)


def expected_reason(odd: Odd) -> str | None:
    if odd.image is None:
        return "no-image"
    if odd.text == "json":
        return "bad-json"
    if odd.text is None or odd.caption == b" ":
        return "no-caption"
    return "caption-not-utf8" if odd.caption == b"caf\xe9" else None


@settings(max_examples=60, deadline=None)
@given(
    odds=st.lists(ODD, max_size=12),
    cut=st.integers(0, 12),
    packed=st.booleans(),
    unclosed=st.booleans(),
)
def test_every_sample_of_an_odd_tar_is_a_pair(
    odds: list[Odd], cut: int, packed: bool, unclosed: bool
) -> None:
    """However its members are called, linked, joined from two tars, packed, or left without an end."""
    first: list[Member | tarfile.TarInfo] = [("first.png", PICTURE), ("first.txt", b"the first")]
    groups = [first, *(members_of(number, odd) for number, odd in enumerate(odds))]
    halves = (groups[: cut + 1], groups[cut + 1 :])
    bodies = [pack([m for group in half for m in group]) for half in halves if half]
    data = b"".join(bodies)
    if unclosed:
        data = data[: -(-len(data.rstrip(b"\0")) // 512) * 512]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.tar"
        path.write_bytes(data)
        if packed:
            import gzip

            path.write_bytes(gzip.compress(data, 1))
        pairs = outcomes(read_tars(Path(folder), "x.tar"))
    samples = [(n, odd) for n, odd in enumerate(odds) if is_sample(odd)]
    assert [(key, why) for key, _, why in pairs] == [
        ("first", None),
        *((f"{odd.folder}{n:03d}", expected_reason(odd)) for n, odd in samples),
    ]
    assert {caption for _, caption, why in pairs[1:] if why is None} <= {"a boat"}
