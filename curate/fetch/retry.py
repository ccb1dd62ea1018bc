"""Retry: download again what failed, and rewrite the shards that it belongs to.

A raw shard cannot be repaired once its URLs are gone, so it must never be replaced halfway. The new shard
is first written beside the corpus with a ledger entry of its own; from then on it replaces the old one, in
this run or in the next.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylear.curate.corpus import parquet, shards
from stylear.curate.corpus.layout import FETCHED, RETRY, STAGES
from stylear.curate.corpus.ledger import ALL, Entry, Ledger, StageInputs
from stylear.curate.corpus.shards import ShardInfo
from stylear.curate.corpus.storage import remove_path, work_folder
from stylear.curate.corpus.tombstones import read_tombstones
from stylear.curate.fetch.forgotten import ingest_unless_forgotten
from stylear.curate.fetch.step import STAGE, finish, hash_inputs
from stylear.curate.fetch.times import strip_times, write_times
from stylear.curate.fetch.urls import download_rows, plan_rows
from stylear.curate.stage import Build, list_committed_shards, make_corpus_paths
from stylear.errors import UsageError
from stylear.pair import Pair

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe


@dataclass(slots=True)
class RetryResult:
    """The outcome of a retry by old reason: how many were retried and how many succeeded."""

    retried: Counter[str] = field(default_factory=Counter)
    recovered: Counter[str] = field(default_factory=Counter)
    units: list[str] = field(default_factory=list)  # shards that changed
    followed: list[str] = field(default_factory=list)  # finished stages that must be redone

    def rows(self) -> list[dict[str, Any]]:
        """For a table."""
        return [
            {"reason": reason, "retried": count, "recovered": self.recovered[reason]}
            for reason, count in sorted(self.retried.items())
        ]


def retry_downloads(
    build: Build,
    statuses: Sequence[str],
    followed: Sequence[str],
    before_change: Callable[[str], None],
) -> RetryResult:
    """Retry every URL that failed with one of `statuses` and rewrite the shards that change.

    A row that fails again gets its latest reason. `followed` are the stages that use these shards, and
    `before_change` is called with each shard before it is rewritten. A killed retry is finished first.
    Raises CorpusError if fetch is not finished, UsageError if the sources changed since and for a status
    that no row has.
    """
    result = resume_retry(build, before_change)
    result.followed = [s for s in STAGES if s in {*result.followed, *followed}]
    inputs = hash_inputs(build)
    entries = {entry.unit: entry for entry in list_committed_shards(build, STAGE)}
    finished = build.ledger.entry(STAGE, ALL)
    if finished is None or finished.fingerprint != inputs.fingerprint:
        raise UsageError(
            f"{build.corpus}: the sources or their settings have changed since they were fetched",
            hint="run `stylear curate run RECIPE --out CORPUS` first; it fetches what is new",
        )
    failed, all_reasons = find_failed(build, entries, statuses)
    if result.units and not failed:
        return result
    if not failed:
        raise UsageError(
            f"--status {','.join(statuses)}: no download failed that way",
            hint=f"downloads failed with: {', '.join(sorted(all_reasons)) or 'nothing'}",
        )
    remove_path(work_folder(build.corpus))  # failures there would be reused
    tombstones = read_tombstones(build.corpus)
    for unit, group in groupby(download_again(build, failed), key=lambda item: item[0]):
        times: dict[str, float] = {}
        pairs = strip_times((pair for _, pair in group), times)
        new = {
            pair.key: ingest_unless_forgotten(pair, build.recipe.image, tombstones)
            for pair in pairs
        }
        for key, pair in new.items():
            reason = failed[key][1]
            result.retried[reason] += 1
            result.recovered[reason] += pair.kept
        if any(pair.verdict.reason != failed[key][1] for key, pair in new.items()):
            write_times(build.corpus, unit, {**read_times(build, unit), **times})
            entry = write_beside(build, entries[unit], new, result.followed)
            replace_shard(build, entry, before_change)
            result.units += [] if unit in result.units else [unit]
    finish(build, inputs, len(result.units))
    remove_path(work_folder(build.corpus))
    return result


def resume_retry(build: Build, before_change: Callable[[str], None]) -> RetryResult:
    """Replace the shards that a killed retry had finished beside the corpus.

    They stay there for the next run to find until all stages that followed are redone (`finish_retry`).
    """
    result = RetryResult()
    entries = Ledger(build.corpus / RETRY).entries(STAGE)
    for entry in entries:
        replace_shard(build, entry, before_change)
        result.units.append(entry.unit)
        result.followed = list(entry.note["followed"])
    finished = build.ledger.entry(STAGE, ALL)
    if entries and finished is not None:
        finish(build, entry_inputs(finished), len(entries))
    return result


def finish_retry(corpus: Path, redone: Collection[str]) -> None:
    """Remove the shards beside the corpus once all stages that followed are among those redone."""
    entries = Ledger(corpus / RETRY).entries(STAGE)
    if all(set(entry.note["followed"]) <= set(redone) for entry in entries):
        remove_path(corpus / RETRY)


def find_failed(
    build: Build, entries: dict[str, Entry], statuses: Sequence[str]
) -> tuple[dict[str, tuple[str, str]], set[str]]:
    """{key: (unit, reason)} of rows that failed with one of `statuses`, and all reasons found."""
    pattern = "|".join(status_pattern(status) for status in statuses)
    failed: dict[str, tuple[str, str]] = {}
    all_reasons: set[str] = set()
    for unit in entries:
        path = build.corpus / "raw" / f"{unit}.parquet"
        table = parquet.read_table(path, ["key", "source", "stage", "reason"])
        for row in table.to_pylist():
            if row["stage"] == STAGE and row["source"].startswith(("http://", "https://")):
                all_reasons.add(row["reason"])
                if re.fullmatch(pattern, row["reason"]):
                    failed[row["key"]] = unit, row["reason"]
    return failed, all_reasons


def status_pattern(status: str) -> str:
    """The pattern of reasons for a status: http-429 for 429, http-5.. for 5xx, others unchanged."""
    if re.fullmatch(r"[1-5](\d\d|xx)", status):
        return "http-" + status.replace("xx", r"\d\d")
    return re.escape(status)


def download_again(build: Build, failed: dict[str, tuple[str, str]]) -> Iterator[tuple[str, Pair]]:
    """Download every failed row again and yield (unit, pair) in the order of the shards."""
    recipe: Recipe = build.recipe
    for source in recipe.raw:
        if source.type == "urls":
            again = source.model_copy(update={"min_success": 0.0})
            rows = (
                p
                for p in plan_rows(source, recipe.seed)
                if p.url is not None and p.pair.key in failed
            )
            for pair in download_rows(
                rows, again, work_folder(build.corpus), recipe.image.max_pixels
            ):
                yield failed[pair.key][0], pair


def write_beside(
    build: Build, entry: Entry, new: dict[str, Pair], followed: Sequence[str]
) -> Entry:
    """Write a shard with its new pairs in the places of the old ones, beside the corpus."""
    old = shards.read_shard(build.corpus / "raw" / f"{entry.unit}.tar")
    pairs = (new.get(pair.key, pair) for pair in old)
    beside = Ledger(build.corpus / RETRY)
    info = shards.write_shard(beside.corpus / "raw", int(entry.unit), pairs)
    note = {"shard": entry.note, "followed": list(followed)}
    return commit_shard(beside, entry.unit, entry_inputs(entry), info, note)


def replace_shard(build: Build, entry: Entry, before_change: Callable[[str], None]) -> None:
    """Replace a shard by the one beside the corpus, unless that is done."""
    old = build.ledger.entry(STAGE, entry.unit)
    if old is not None and old.files == entry.files:
        return
    before_change(entry.unit)
    pairs = shards.read_shard(build.corpus / RETRY / "raw" / f"{entry.unit}.tar")
    expected = {Path(name).name: str(info["sha256"]) for name, info in entry.files.items()}
    info = shards.write_shard(build.corpus / "raw", int(entry.unit), pairs, expected=expected)
    commit_shard(build.ledger, entry.unit, entry_inputs(entry), info, entry.note["shard"])


def commit_shard(
    ledger: Ledger, unit: str, inputs: StageInputs, info: ShardInfo, note: Mapping[str, Any]
) -> Entry:
    return ledger.commit(
        STAGE,
        unit,
        inputs,
        rows_in=info.rows,
        kept=info.kept,
        dropped=info.dropped,
        files=make_corpus_paths(ledger.corpus, ledger.corpus / "raw", info.files),
        note=note,
    )


def entry_inputs(entry: Entry) -> StageInputs:
    return StageInputs(entry.settings, entry.code_version, entry.inputs, entry.weights)


def read_times(build: Build, unit: str) -> dict[str, float]:
    path = build.corpus / FETCHED / f"{unit}.parquet"
    if not path.is_file():
        return {}
    rows = parquet.read_table(path, ["key", "fetched_at"]).to_pylist()
    return {row["key"]: row["fetched_at"].timestamp() for row in rows}
