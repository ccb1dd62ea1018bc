"""Tars, pictures and recipes of hostile input, for tests."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path
from typing import Any

from PIL import Image

from stylear.curate.fetch import fetch_raw
from stylear.curate.recipe import check_recipe
from stylear.pair import Pair


def recipe(folder: Path, *raw: dict[str, Any], **image: Any) -> Any:
    settings = {"size": 16, "min_side": 1, **image}
    return check_recipe({"name": "hostile", "image": settings, "raw": list(raw)}, folder)


def fetch(folder: Path, *raw: dict[str, Any], **image: Any) -> list[Pair]:
    return list(fetch_raw(recipe(folder, *raw, **image), folder / "work"))


Member = tuple[tarfile.TarInfo, bytes]


def plain(name: str, data: bytes, **header: Any) -> Member:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in header.items():
        setattr(member, key, value)
    return member, data


def write_tar(path: Path, members: list[Member]) -> None:
    with tarfile.open(path, "w") as tar:
        for member, data in members:
            tar.addfile(member, io.BytesIO(data))


def picture(seed: int = 0, format: str = "PNG", size: int = 24) -> bytes:
    rng = random.Random(seed)
    image = Image.frombytes("RGB", (size, size), rng.randbytes(3 * size * size))
    out = io.BytesIO()
    image.save(out, format)
    return out.getvalue()


def link(name: str, kind: bytes, target: str = "") -> Member:
    return plain(name, b"", type=kind, linkname=target)
