"""Growth: which rows of the sources a corpus already has, which are new, and which are missing or changed.

A finished corpus can grow: new photos, rows and sources become raw shards after the existing ones, which
keep their bytes. A row that is missing or has changed stops the run, because the shards would then describe
something that the sources no longer hold.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylear.curate.corpus import parquet
from stylear.curate.corpus.ledger import ALL, Entry, Ledger, canonical_json
from stylear.curate.corpus.tombstones import FORGOTTEN
from stylear.curate.fetch import read_raw
from stylear.curate.fetch.blocks import EVIDENCE
from stylear.curate.fetch.ingest import INGESTED
from stylear.curate.recipe.base import FileNamesOnly
from stylear.curate.stage import omit_keys
from stylear.errors import SettingsChanged
from stylear.pair import Pair

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe

STAGE = "fetch"
SPEED = (  # settings of a source that change no pair
    "threads",
    "processes",
    "retries",
    "timeout_s",
    "deadline_s",
    "contact",
    "host_requests_per_s",
    "min_success",
)
LIMIT = "limit"  # the setting of a source that may be raised while a corpus grows
ADDED = frozenset(
    {*EVIDENCE.values(), *INGESTED}
)  # details that come with the image, not from the source
COLUMNS = ["key", "caption", "source", "content", "source_sha256", "details", "reason"]
SHOWN = 3  # rows named in an error


def source_settings(source: Any, base: Path | None) -> dict[str, Any]:
    """The settings that determine the pairs of a source; paths count by their last part only."""
    return omit_keys(source.map_paths(FileNamesOnly(base)).model_dump(mode="json"), *SPEED)


def is_growth_of_source(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a source with the new settings gives all pairs of the old ones: only `limit` may grow."""
    if omit_keys(old, LIMIT) != omit_keys(new, LIMIT):
        return False
    limits = old.get(LIMIT), new.get(LIMIT)
    return limits[1] is None or (limits[0] is not None and limits[0] <= limits[1])


def is_growth_of_sources(
    old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]
) -> bool:
    """Whether every old source is among the new ones, unchanged or grown."""
    left = list(new)
    for source in old:
        match = next(
            (candidate for candidate in left if is_growth_of_source(source, candidate)), None
        )
        if match is None:
            return False
        left.remove(match)
    return True


def restore_source_order(recipe: Recipe, ledger: Ledger) -> Recipe:
    """The recipe with the sources that were fetched before in their old order, then the new ones.

    A new source can therefore be added anywhere in the recipe.
    """
    left: list[Any] = list(recipe.raw)
    arranged = []
    for old in recorded_sources(ledger):
        match = next(
            (
                candidate
                for candidate in left
                if is_growth_of_source(old, source_settings(candidate, recipe.base))
            ),
            None,
        )
        if match is not None:
            left.remove(match)
            arranged.append(match)
    return recipe.model_copy(update={"raw": (*arranged, *left)})


def recorded_sources(ledger: Ledger) -> list[dict[str, Any]]:
    """The settings of the sources that a corpus was last fetched from."""
    units = [unit for unit in ledger.units(STAGE) if unit != ALL]
    latest = [ledger.entry(STAGE, unit) for unit in (ALL, *units[-1:])]  # a unit may be of a growth
    recorded = [list(entry.settings["raw"]) for entry in latest if entry is not None]
    return max(recorded, key=len, default=[])


def finished_shards(entries: Sequence[Entry], finished: Entry | None) -> Sequence[Entry]:
    """The shards that existed when fetch last finished, out of all in order."""
    if finished is None:
        return ()
    ends = accumulate(entry.rows_in for entry in entries)
    return entries[: len(list(takewhile(lambda end: end <= finished.rows_in, ends)))]


class CommittedRows:
    """The rows of a corpus, as two digests each."""

    def __init__(self, corpus: Path, entries: Iterable[Entry]) -> None:
        self._corpus, self._entries = corpus, list(entries)
        self._rows: dict[
            bytes, bytes
        ] = {}  # key -> hash of what the source says, followed by that of the image
        self._reasons: dict[bytes, str] = {}
        self._forgotten: set[bytes] = set()  # the sources may or may not still have them
        for row in self._read_rows():
            key, details = bytes.fromhex(row["key"]), json.loads(row["details"])
            token = hash_row(row["caption"], row["source"], row["content"], details)
            self._rows[key] = token + truncate_image_hash(row["source_sha256"])
            if row["reason"] is not None:
                self._reasons[key] = row["reason"]
            if row["reason"] == FORGOTTEN:
                self._forgotten.add(key)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and bytes.fromhex(key) in self._rows

    def has_changed(self, pair: Pair) -> bool:
        """Whether a row of the sources differs from the row of the same key in the corpus."""
        origin, key = pair.origin, bytes.fromhex(pair.key)
        if key in self._forgotten:
            return False
        token = hash_row(pair.caption, origin.source, origin.content, origin.details)
        image = truncate_image_hash(origin.source_sha256)  # empty where nothing was downloaded
        if not self._rows[key].startswith(token) or not self._rows[key].endswith(image):
            return True
        return not pair.kept and pair.verdict.reason != self._reasons.get(key)

    def require_unchanged(self, recipe: Recipe, *, allow_empty: bool = False) -> int:
        """Compare the rows with the sources, without downloads, and count the new rows.

        Raises SettingsChanged naming rows that are gone from the sources or have changed.
        """
        new, missing, changed = 0, set(self._rows) - self._forgotten, list[str]()
        for pair in read_raw(recipe, None, allow_empty=allow_empty):
            if pair.key not in self:
                new += 1
                continue
            missing.discard(bytes.fromhex(pair.key))
            if self.has_changed(pair):
                changed.append(pair.origin.source)
        if changed or missing:
            raise self._changed_rows_error(recipe, missing, changed)
        return new

    def _read_rows(self) -> Iterator[dict[str, Any]]:
        for entry in self._entries:
            table = parquet.read_table(self._corpus / "raw" / f"{entry.unit}.parquet", COLUMNS)
            yield from table.to_pylist()

    def _changed_rows_error(
        self, recipe: Recipe, missing: Collection[bytes], changed: list[str]
    ) -> SettingsChanged:
        """The error that names the rows; a row with another key counts as changed."""
        lost = [r["source"] for r in self._read_rows() if bytes.fromhex(r["key"]) in missing]
        in_sources = {pair.origin.source for pair in read_raw(recipe, None, allow_empty=True)}
        replaced = dict.fromkeys([*changed, *(name for name in lost if name in in_sources)])
        removed = dict.fromkeys(name for name in lost if name not in in_sources)
        parts = [
            f"{len(names)} {word} ({', '.join(list(names)[:SHOWN])}{', ...' * (len(names) > SHOWN)})"
            for names, word in ((removed, "gone"), (replaced, "changed"))
            if names
        ]
        return SettingsChanged(
            f"{self._corpus}: of the {len(self)} rows that were fetched, {' and '.join(parts)}",
            hint="restore them; or fetch everything again with"
            " `stylear curate run RECIPE --out CORPUS --redo fetch`; or give another --out to keep both."
            " Nothing was changed",
        )


@dataclass(frozen=True, slots=True)
class NewKeys(Container[str]):
    """The keys that are not among some rows: those to download."""

    rows: CommittedRows

    def __contains__(self, key: object) -> bool:
        return key not in self.rows


def hash_row(caption: str, source: str, content: str, details: Mapping[str, Any]) -> bytes:
    """A hash of what a source says about a row, without its image: 16 bytes."""
    source_details = {name: value for name, value in details.items() if name not in ADDED}
    text = canonical_json([caption, source, content, source_details])
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def truncate_image_hash(sha256: str | None) -> bytes:
    """The first 16 bytes of an image's SHA-256; empty without an image."""
    return b"" if sha256 is None else bytes.fromhex(sha256[:32])
