"""Shards: every tar holds the images of its table, and the wids indexes match the tars."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from stylear.curate.audit.difference import Difference
from stylear.curate.corpus.layout import KINDS
from stylear.curate.corpus.parquet import read_table
from stylear.curate.corpus.shards import read_shard, shard_paths
from stylear.curate.corpus.split import SPLITS
from stylear.curate.corpus.storage import FileInfo
from stylear.curate.corpus.wids import WIDS, shard_entry
from stylear.errors import CorpusError


def check_shards(corpus: Path) -> Iterator[Difference]:
    """Tars that do not hold exactly the images of their table."""
    for folder in (*KINDS, *SPLITS):
        for path in shard_paths(corpus / folder):
            try:
                for _ in read_shard(path):
                    pass
            except CorpusError as error:
                yield Difference(
                    "shard", f"{folder}/{path.name}", "the images of its table", error.message
                )


def check_indexes(corpus: Path, infos: Mapping[str, FileInfo]) -> Iterator[Difference]:
    """Wids indexes that do not list exactly the shards, in order, with their sizes and hashes."""
    for folder in (*SPLITS, "preferences"):
        where = f"{folder}/{WIDS}"
        expected, listed = [], []
        try:
            for path in shard_paths(corpus / folder):
                samples = read_table(path.with_suffix(".parquet"), ["key"]).num_rows
                info = infos.get(f"{folder}/{path.name}") or FileInfo.of(path, md5=True)
                expected.append(shard_entry(info, samples))
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
                wanted = {name: right[name] for name in wrong}
                yield Difference("index", f"{where} {right['url']}", f"{wanted}", f"{wrong}")
