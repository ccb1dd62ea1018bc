"""Refill: ask again for the downloads that failed, and put what comes into the shards that lack it.

A raw shard that is not the one of its ledger entry can be mended by nobody once its URLs are gone, so it must
not be replaced by halves. The new shard is first written beside the corpus, with a ledger entry of its own;
from that entry on it takes the old one's place, in this run or in the next.
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
from stylear.curate.corpus.layout import FETCHED, REFILL, STAGES
from stylear.curate.corpus.ledger import ALL, Entry, Ledger, StageInputs
from stylear.curate.corpus.shards import ShardInfo
from stylear.curate.corpus.storage import remove_path, work_folder
from stylear.curate.fetch import ingest
from stylear.curate.fetch.step import STAGE, fetch_inputs, finish, state_of
from stylear.curate.fetch.times import untimed, write_times
from stylear.curate.fetch.urls import downloaded, plans
from stylear.curate.stage import Build, committed_shards, paths_in_corpus
from stylear.errors import UsageError
from stylear.pair import Pair

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe

STATUSES = ("429", "5xx", "timeout")  # what is often better at another time


@dataclass(slots=True)
class Refilled:
    """What came of asking again: by old reason, how many were asked for and how many are there now."""

    asked: Counter[str] = field(default_factory=Counter)
    filled: Counter[str] = field(default_factory=Counter)
    units: list[str] = field(default_factory=list)  # shards that changed
    followed: list[str] = field(default_factory=list)  # stages that were there, to be redone

    def rows(self) -> list[dict[str, Any]]:
        """For a table."""
        return [
            {"reason": reason, "asked": count, "filled": self.filled[reason]}
            for reason, count in sorted(self.asked.items())
        ]


def refill(
    build: Build,
    statuses: Sequence[str],
    followed: Sequence[str],
    before_change: Callable[[str], None],
) -> Refilled:
    """Ask again for every URL that failed with one of `statuses`; rewrite the shards that change.

    A row that fails again has its latest reason. `followed` are the stages that use these shards, and
    `before_change` is called with each shard before it is rewritten. What a killed run left half done is
    done first. Raises CorpusError when fetch is not finished, SettingsChanged when the lists changed
    since, UsageError for a status that no row has.
    """
    result = take_over(build, before_change)
    result.followed = [s for s in STAGES if s in {*result.followed, *followed}]
    made = fetch_inputs(build.recipe)
    made = StageInputs(made.settings, made.code_version, [state_of(s) for s in build.recipe.raw])
    entries = {entry.unit: entry for entry in committed_shards(build, STAGE)}
    build.ledger.is_current(STAGE, ALL, made)  # raises when settings or sources are others
    wanted, found = failed(build, entries, statuses)
    if result.units and not wanted:
        return result
    if not wanted:
        raise UsageError(
            f"--status {','.join(statuses)}: no download failed that way",
            hint=f"downloads failed with: {', '.join(sorted(found)) or 'nothing'}",
        )
    remove_path(work_folder(build.corpus))  # what failed there would fail again
    for unit, group in groupby(_asked_again(build, wanted), key=lambda item: item[0]):
        times: dict[str, float] = {}
        pairs = untimed((pair for _, pair in group), times)
        new = {pair.key: ingest.ingest(pair, build.recipe.image) for pair in pairs}
        for key, pair in new.items():
            reason = wanted[key][1]
            result.asked[reason] += 1
            result.filled[reason] += pair.kept
        if any(pair.verdict.reason != wanted[key][1] for key, pair in new.items()):
            write_times(build.corpus, unit, {**_times(build, unit), **times})
            entry = _prepare(build, entries[unit], made, new, result.followed)
            _replace(build, entry, before_change)
            result.units += [] if unit in result.units else [unit]
    finish(build, made, len(result.units))
    remove_path(work_folder(build.corpus))
    return result


def take_over(build: Build, before_change: Callable[[str], None]) -> Refilled:
    """Put the shards that were finished beside the corpus in their places; which, and what followed.

    They stay there, to be known by the next run, until all that followed was redone (`forget`).
    """
    result = Refilled()
    entries = Ledger(build.corpus / REFILL).entries(STAGE)
    for entry in entries:
        _replace(build, entry, before_change)
        result.units.append(entry.unit)
        result.followed = list(entry.note["followed"])
    if entries:
        finish(build, _made(entries[0]), len(entries))
    return result


def forget(corpus: Path, redone: Collection[str]) -> None:
    """Remove what lies beside the corpus once all the stages that followed are among those redone."""
    entries = Ledger(corpus / REFILL).entries(STAGE)
    if all(set(entry.note["followed"]) <= set(redone) for entry in entries):
        remove_path(corpus / REFILL)


def failed(
    build: Build, entries: dict[str, Entry], statuses: Sequence[str]
) -> tuple[dict[str, tuple[str, str]], set[str]]:
    """{key: (unit, reason)} of rows that failed in one of the ways, and every way that rows failed."""
    pattern = "|".join(_pattern(status) for status in statuses)
    wanted: dict[str, tuple[str, str]] = {}
    found: set[str] = set()
    for unit in entries:
        path = build.corpus / "raw" / f"{unit}.parquet"
        table = parquet.read_table(path, ["key", "source", "stage", "reason"])
        for row in table.to_pylist():
            if row["stage"] == STAGE and row["source"].startswith(("http://", "https://")):
                found.add(row["reason"])
                if re.fullmatch(pattern, row["reason"]):
                    wanted[row["key"]] = unit, row["reason"]
    return wanted, found


def _pattern(status: str) -> str:
    """The reasons that a status means: 429 is http-429, 5xx is http-500 and so on, others themselves."""
    if re.fullmatch(r"[1-5](\d\d|xx)", status):
        return "http-" + status.replace("xx", r"\d\d")
    return re.escape(status)


def _asked_again(build: Build, wanted: dict[str, tuple[str, str]]) -> Iterator[tuple[str, Pair]]:
    """(unit, pair) of every wanted row, in the order of the shards."""
    recipe: Recipe = build.recipe
    for source in recipe.raw:
        if source.type == "urls":
            again = source.model_copy(update={"min_success": 0.0})
            rows = (
                p for p in plans(source, recipe.seed) if p.url is not None and p.pair.key in wanted
            )
            for pair in downloaded(rows, again, work_folder(build.corpus), recipe.image.max_pixels):
                yield wanted[pair.key][0], pair


def _prepare(
    build: Build, entry: Entry, made: StageInputs, new: dict[str, Pair], followed: Sequence[str]
) -> Entry:
    """One shard with its new pairs in their old places, beside the corpus."""
    old = shards.read_shard(build.corpus / "raw" / f"{entry.unit}.tar")
    pairs = (new.get(pair.key, pair) for pair in old)
    beside = Ledger(build.corpus / REFILL)
    info = shards.write_shard(beside.corpus / "raw", int(entry.unit), pairs)
    note = {"shard": entry.note, "followed": list(followed)}
    return _commit(beside, entry.unit, made, info, note)


def _replace(build: Build, entry: Entry, before_change: Callable[[str], None]) -> None:
    """The shard of an entry beside the corpus in the place of the old one, unless it is there."""
    old = build.ledger.entry(STAGE, entry.unit)
    if old is not None and old.files == entry.files:
        return
    before_change(entry.unit)
    pairs = shards.read_shard(build.corpus / REFILL / "raw" / f"{entry.unit}.tar")
    expected = {Path(name).name: str(info["sha256"]) for name, info in entry.files.items()}
    info = shards.write_shard(build.corpus / "raw", int(entry.unit), pairs, expected=expected)
    _commit(build.ledger, entry.unit, _made(entry), info, entry.note["shard"])


def _commit(
    ledger: Ledger, unit: str, made: StageInputs, info: ShardInfo, note: Mapping[str, Any]
) -> Entry:
    return ledger.commit(
        STAGE,
        unit,
        made,
        rows_in=info.rows,
        kept=info.kept,
        dropped=info.dropped,
        files=paths_in_corpus(ledger.corpus, ledger.corpus / "raw", info.files),
        note=note,
    )


def _made(entry: Entry) -> StageInputs:
    return StageInputs(entry.settings, entry.code_version, entry.inputs, entry.weights)


def _times(build: Build, unit: str) -> dict[str, float]:
    path = build.corpus / FETCHED / f"{unit}.parquet"
    if not path.is_file():
        return {}
    rows = parquet.read_table(path, ["key", "fetched_at"]).to_pylist()
    return {row["key"]: row["fetched_at"].timestamp() for row in rows}
