"""The audit of the wids indexes: each entry is compared with its tar."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders.damaged_corpus import (
    edit_json,
    find_differences,
    forge,
)

INDEXES: list[tuple[str, Callable[[Any], None], str]] = [
    ("a shard is missing", lambda i: i["shardlist"].pop(), "train/wids.json"),
    ("the order is another", lambda i: i["shardlist"].reverse(), "train/wids.json"),
    ("no list", lambda i: i.pop("shardlist"), "train/wids.json"),
    ("samples", lambda i: i["shardlist"][0].update(nsamples=9), "train/wids.json 00000.tar"),
    ("length", lambda i: i["shardlist"][1].update(filesize=1), "train/wids.json 00001.tar"),
    ("hash", lambda i: i["shardlist"][1].update(md5sum="0" * 32), "train/wids.json 00001.tar"),
]


@pytest.mark.parametrize(("name", "change", "where"), INDEXES, ids=[name for name, *_ in INDEXES])
def test_a_broken_wids_index_is_found(
    corpus: Path, name: str, change: Callable[[Any], None], where: str
) -> None:
    edit_json(corpus / "train" / "wids.json", change)
    assert find_differences(corpus) == {("changed", "train/wids.json"), ("index", where)}
    forge(corpus)
    assert find_differences(corpus) == {("index", where)}, name


def test_an_index_that_is_no_json_is_found(corpus: Path) -> None:
    (corpus / "preferences" / "wids.json").write_bytes(b"\xff{")
    assert ("index", "preferences/wids.json") in find_differences(corpus)
