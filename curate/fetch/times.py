"""The times of downloads, stored beside the corpus because they differ in every run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from stylear.curate.corpus import parquet
from stylear.curate.corpus.layout import FETCHED
from stylear.curate.fetch.blocks import FETCHED_AT
from stylear.pair import Pair


def strip_times(pairs: Iterable[Pair], times: dict[str, float]) -> Iterator[Pair]:
    """Remove the time of its download from each pair and put it into `times` by key.

    It is not stored in the shards, because it differs in every run.
    """
    for pair in pairs:
        if FETCHED_AT in pair.origin.details:
            details = dict(pair.origin.details)
            times[pair.key] = float(details.pop(FETCHED_AT) or 0)
            pair = replace(pair, origin=replace(pair.origin, details=details))
        yield pair


def write_times(corpus: Path, unit: str, times: dict[str, float]) -> None:
    """Write `fetched/NNNNN.parquet`: when each download of a shard was made (UTC)."""
    import pyarrow as pa

    if times:
        at = pa.array([round(t * 1000) for t in times.values()], pa.timestamp("ms", tz="UTC"))
        table = pa.table({"key": pa.array(list(times), pa.string()), "fetched_at": at})
        parquet.write_table(corpus / FETCHED / f"{unit}.parquet", table)
