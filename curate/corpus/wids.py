"""The wids index (version 1) of a stage directory, by which WebDataset reads samples at random."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from stylear.curate.corpus.storage import FileInfo

WIDS = "wids.json"


def shard_entry(tar: FileInfo, samples: int) -> dict[str, Any]:
    """The entry of one shard in a wids index."""
    return {"url": tar.name, "md5sum": tar.md5, "nsamples": samples, "filesize": tar.bytes}


def wids_index(name: str, shardlist: Iterable[Mapping[str, Any]]) -> str:
    """The wids index (version 1) of a stage directory; URLs are relative to it."""
    index = {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "name": name,
        "shardlist": list(shardlist),
    }
    return json.dumps(index, indent=1) + "\n"
