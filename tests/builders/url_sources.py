"""Recipes with a list of URLs on loopback, and the lists, for tests."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stylear.curate.fetch import fetch_raw
from stylear.curate.fetch.loopback import NETWORK
from stylear.curate.recipe import check_recipe
from stylear.pair import Pair


def source(path: str = "list.csv", **changes: Any) -> dict[str, Any]:
    return {"type": "urls", "path": path, "allow_networks": [NETWORK], "threads": 4, **changes}


def stream(base: Path, raw: dict[str, Any], work: str = "work") -> Iterator[Pair]:
    recipe = check_recipe({"name": "test", "image": {"size": 16}, "raw": [raw]}, base)
    return fetch_raw(recipe, base / work)


def write_list(path: Path, rows: list[tuple[Any, ...]], header: tuple[str, ...]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def rows_of(tmp_path: Path, name: str, **changes: Any) -> list[tuple[str, str]]:
    pairs = stream(tmp_path, source(name, **changes))
    return [(pair.caption, str(pair.verdict.reason)) for pair in pairs]
