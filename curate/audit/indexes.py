"""Indexes: each wids.json lists the tars that are there, with their sizes and hashes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stylear.curate.audit.difference import Difference
from stylear.curate.audit.tars import TarResult
from stylear.curate.corpus.parquet import read_table
from stylear.curate.corpus.shards import shard_paths
from stylear.curate.corpus.split import SPLITS
from stylear.curate.corpus.storage import FileInfo, file_size
from stylear.curate.corpus.wids import WIDS, shard_entry
from stylear.errors import CorpusError


def check_indexes(corpus: Path, results: Mapping[str, TarResult]) -> Iterator[Difference]:
    """Wids indexes that do not list exactly the shards, in order, with their sizes and hashes.

    The hash of a tar that was not read in full is not compared.
    """
    for folder in (*SPLITS, "preferences"):
        where = f"{folder}/{WIDS}"
        expected, listed = [], []
        try:
            for path in shard_paths(corpus / folder):
                samples = read_table(path.with_suffix(".parquet"), ["key"]).num_rows
                expected.append(
                    describe_shard_entry(path, samples, results.get(f"{folder}/{path.name}"))
                )
            listed = json.loads((corpus / where).read_text("utf-8"))["shardlist"]
            urls = [entry["url"] for entry in listed]
        except (OSError, ValueError, KeyError, TypeError, CorpusError) as error:
            yield Difference("index", where, "a wids index", f"{error!r}")
            continue
        if urls != (tars := [entry["url"] for entry in expected]):
            yield Difference("index", where, f"{tars}", f"{urls}")
            continue
        for entry, right in zip(listed, expected, strict=True):
            wrong = {name: entry.get(name) for name in right if entry.get(name) != right[name]}
            if wrong:
                correct = {name: right[name] for name in wrong}
                yield Difference("index", where, f"{correct}", f"{wrong}", right["url"])


def describe_shard_entry(path: Path, samples: int, result: TarResult | None) -> dict[str, Any]:
    """The entry that an index should have of a shard, without MD5 if its tar was not read in full."""
    if result is None:
        return shard_entry(FileInfo.of(path, md5=True), samples)
    if result.info is not None:
        return shard_entry(result.info, samples)
    entry = shard_entry(FileInfo(path.name, "", None, file_size(path) or 0), samples)
    return {name: value for name, value in entry.items() if name != "md5sum"}
