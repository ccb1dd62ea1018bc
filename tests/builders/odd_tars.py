"""Tars as strangers make them, and a recipe's pairs of them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from stylear.curate.fetch import fetch_raw
from stylear.curate.recipe import check_recipe
from stylear.pair import Pair

Member = tuple[str, bytes]


def picture(shade: int = 0, format: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (24, 24), (shade, 100, 200)).save(out, format)
    return out.getvalue()


def hard_link(name: str, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.LNKTYPE, target
    return member


def pack(members: Sequence[Member | tarfile.TarInfo], mode: str = "w") -> bytes:
    """The bytes of a tar (`w:gz`: gzipped) with files, and headers without a body."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:  # type: ignore[call-overload]
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return out.getvalue()


def write_tar(path: Path, members: Sequence[Member | tarfile.TarInfo]) -> None:
    path.write_bytes(pack(members, "w:gz" if path.suffix in (".gz", ".tgz") else "w"))


def read_tars(base: Path, path: str, **settings: Any) -> list[Pair]:
    """The raw pairs of a recipe with one source of shards."""
    raw = {"type": "shards", "path": path, **settings}
    recipe = check_recipe({"name": "test", "image": {"size": 16}, "raw": [raw]}, base)
    return list(fetch_raw(recipe, base / "work"))


def outcomes(pairs: Sequence[Pair]) -> list[tuple[str, str, str | None]]:
    """(key, caption, rejection reason) of each pair."""
    return [
        (pair.origin.source.partition("#")[2], pair.caption, pair.verdict.reason) for pair in pairs
    ]
