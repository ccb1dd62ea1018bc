"""The ledger: a record of every committed unit, its inputs and its files, for resuming and for the manifest.

`ledger/<stage>/<unit>.json` is one entry. A unit is a shard (`00007`, for scores `raw-00007`) or, for stages
that process a whole corpus at once, `all`. An entry is written after its files, so output without an entry is
unfinished.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stylear.curate.corpus.layout import CHEAP, LEDGER, LOCK
from stylear.curate.corpus.lease import Lease, current_lease, hold_lease
from stylear.curate.corpus.object_store import in_store
from stylear.curate.corpus.storage import (
    FileInfo,
    file_size,
    list_files,
    map_storage_errors,
    write_text,
)
from stylear.errors import CorpusError, CorpusLocked, SettingsChanged

ALL = "all"
READERS = 16  # entries of a store read at the same time


@dataclass(frozen=True, slots=True)
class StageInputs:
    """The inputs of a unit: everything that determines its bytes."""

    settings: Mapping[str, Any]
    code_version: str
    inputs: Sequence[str] = ()  # sha256 of the input files
    weights: Sequence[str] = ()  # fingerprints of the models
    growable: Mapping[str, Callable[[Any, Any], bool]] = field(default_factory=dict)
    """Settings that may differ from those of an older unit: whether (old, new) is such a growth."""

    @property
    def fingerprint(self) -> str:
        """64 hex digits; equal for inputs that give the same bytes."""
        return fingerprint(self.settings, self.code_version, self.inputs, self.weights)


@dataclass(frozen=True, slots=True)
class Entry:
    """One committed unit."""

    stage: str
    unit: str
    fingerprint: str
    settings: Mapping[str, Any]
    code_version: str
    inputs: Sequence[str]
    weights: Sequence[str]
    rows_in: int
    kept: int
    dropped: Mapping[str, int]  # reason -> pairs
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # path -> {sha256, bytes}
    note: Mapping[str, Any] = field(default_factory=dict)  # further data of some stages


def fingerprint(
    settings: Mapping[str, Any], code_version: str, inputs: Sequence[str], weights: Sequence[str]
) -> str:
    """SHA-256 of the canonical JSON of everything that determines a unit's bytes."""
    text = canonical_json([settings, code_version, list(inputs), list(weights)])
    return hashlib.sha256(text.encode()).hexdigest()


def canonical_json(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, no NaN."""
    return json.dumps(
        value, ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False
    )


class Ledger:
    """The ledger of one corpus.

    A snapshot is for reading a corpus that nobody writes meanwhile: in a store it is read once, and a damaged
    entry counts as never written, because the next run builds its unit again.
    """

    def __init__(self, corpus: Path, *, snapshot: bool = False) -> None:
        self.corpus, self.is_snapshot = corpus, snapshot
        self._texts: dict[str, dict[str, str]] | None = None
        self.root = corpus / LEDGER
        self.damaged: set[str] = set()  # paths of files that are known to be damaged

    def path(self, stage: str, unit: str) -> Path:
        return self.root / stage / f"{unit}.json"

    def entry(self, stage: str, unit: str) -> Entry | None:
        """The entry of a unit; None if it was never committed. Raises CorpusError if it is unreadable."""
        path = self.path(stage, unit)
        try:
            values = json.loads(self._text(stage, unit))
            if values.pop("sha256", None) != entry_hash(values):
                raise ValueError("an entry that was changed after it was written")
            return Entry(**values)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, TypeError, AttributeError) as error:
            if self.is_snapshot:
                return None
            raise CorpusError(
                f"{path}: expected a ledger entry, found: {error}",
                hint=f"delete {path}; the unit is then built again",
            ) from error

    def entries(self, stage: str) -> list[Entry]:
        """The entries of a stage, sorted by unit."""
        entries = (self.entry(stage, unit) for unit in self.units(stage))
        return [entry for entry in entries if entry is not None]

    def units(self, stage: str) -> list[str]:
        """The names of the committed units of a stage."""
        if (texts := self._read_cached_texts()) is not None:
            return sorted(texts.get(stage, {}))
        return sorted(path.stem for path in (self.root / stage).glob("*.json"))

    def stages(self) -> list[str]:
        """The stages that have entries, sorted."""
        if (texts := self._read_cached_texts()) is not None:
            return sorted(stage for stage, units in texts.items() if units)
        return sorted(path.name for path in self.root.glob("*") if any(path.glob("*.json")))

    def _text(self, stage: str, unit: str) -> str:
        """The text of an entry. Raises FileNotFoundError if there is none."""
        if (texts := self._read_cached_texts()) is None:
            return self.path(stage, unit).read_text("utf-8")
        try:
            return texts[stage][unit]
        except KeyError:
            raise FileNotFoundError(str(self.path(stage, unit))) from None

    def _read_cached_texts(self) -> dict[str, dict[str, str]] | None:
        """The entries of a store, read once by a snapshot or under a lease; None where files are read."""
        if (lease := current_lease(self.corpus)) is not None:
            return self._read_all(lease)
        if self.is_snapshot and in_store(self.corpus):
            self._texts = read_entries(self.root) if self._texts is None else self._texts
        return self._texts

    def _read_all(self, lease: Lease) -> dict[str, dict[str, str]]:
        """The ledger of a store, read once: while the lease is held nobody else writes it."""
        if lease.ledger is None:
            lease.ledger = read_entries(self.root)
        return lease.ledger

    def commit(
        self,
        stage: str,
        unit: str,
        inputs: StageInputs,
        *,
        rows_in: int,
        kept: int,
        dropped: Mapping[str, int],
        files: Mapping[str, FileInfo],
        note: Mapping[str, Any] | None = None,
    ) -> Entry:
        """Record a unit whose files (by path in the corpus) are completely written."""
        entry = Entry(
            stage=stage,
            unit=unit,
            fingerprint=inputs.fingerprint,
            settings=dict(inputs.settings),
            code_version=inputs.code_version,
            inputs=list(inputs.inputs),
            weights=list(inputs.weights),
            rows_in=rows_in,
            kept=kept,
            dropped=dict(dropped),
            files={
                path: {"sha256": info.sha256, "bytes": info.bytes}
                for path, info in sorted(files.items())
            },
            note=dict(note or {}),
        )
        values = asdict(entry)
        sealed = {**values, "sha256": entry_hash(values)}
        text = json.dumps(sealed, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
        if (lease := current_lease(self.corpus)) is not None:
            lease.assert_held()
        write_text(self.path(stage, unit), text)
        if lease is not None:
            self._read_all(lease).setdefault(stage, {})[unit] = text
        self.damaged -= set(files)
        return entry

    def is_current(self, stage: str, unit: str, inputs: StageInputs) -> bool:
        """Whether a unit can be skipped: committed with the same inputs, and its files are intact.

        Raises SettingsChanged if an expensive unit was committed with other inputs.
        """
        entry = self.entry(stage, unit)
        if entry is None:
            return False
        if entry.fingerprint != inputs.fingerprint:
            if stage_family(stage) in CHEAP:
                return False
            raise self.settings_changed_error(entry, inputs)
        return self.has_intact_files(entry)

    def has_intact_files(self, entry: Entry) -> bool:
        """Whether the files of a unit exist, have the right size and are not known to be damaged."""
        return all(
            name not in self.damaged and file_size(self.corpus / name) == info["bytes"]
            for name, info in entry.files.items()
        )

    def check_settings(self, stage: str, inputs: StageInputs) -> None:
        """Raise SettingsChanged if an expensive stage has output of other settings or models."""
        if stage_family(stage) in CHEAP:
            return
        for entry in self.entries(stage):
            if describe_differences(entry, inputs, inputs=False):
                raise self.settings_changed_error(entry, inputs, inputs=False)

    def settings_changed_error(
        self, entry: Entry, stage_inputs: StageInputs, *, inputs: bool = True
    ) -> SettingsChanged:
        """The error that names the differences and the ways out."""
        differences = describe_differences(entry, stage_inputs, inputs=inputs)
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        stage = stage_family(entry.stage)
        return SettingsChanged(
            f"{self.corpus}: {entry.stage} {entry.unit} was built differently:"
            f" {'; '.join(differences[:3])}{more}",
            hint=f"build it again with `stylear curate run RECIPE --out CORPUS --redo {stage}`, or give"
            " another --out to keep both",
        )

    def remove(self, stage: str) -> None:
        """Remove the entries of a stage, so that it is redone."""
        for path in sorted((self.root / stage).glob("*.json")):
            with map_storage_errors(path):
                path.unlink()
        if (lease := current_lease(self.corpus)) is not None:
            self._read_all(lease).pop(stage, None)


def read_entries(root: Path) -> dict[str, dict[str, str]]:
    """The texts of all entries below the folder of a ledger, by stage and unit."""
    paths = [path for path in list_files(root) if path.suffix == ".json"]
    entries: dict[str, dict[str, str]] = {}
    with ThreadPoolExecutor(READERS) as pool:
        texts = pool.map(lambda path: path.read_text("utf-8"), paths)
        for path, text in zip(paths, texts, strict=True):
            entries.setdefault(path.parent.name, {})[path.stem] = text
    return entries


def entry_hash(values: Mapping[str, Any]) -> str:
    """The hash of an entry's values, which is stored in it."""
    return hashlib.sha256(canonical_json(values).encode()).hexdigest()


def stage_family(stage: str) -> str:
    """The command that a ledger stage belongs to: score for score.text."""
    return stage.partition(".")[0]


def describe_differences(
    entry: Entry, stage_inputs: StageInputs, *, inputs: bool = True
) -> list[str]:
    """The differences between a committed unit and its current inputs, in words."""
    grown = {
        key: entry.settings[key]
        for key, extends in stage_inputs.growable.items()
        if key in entry.settings and extends(entry.settings[key], stage_inputs.settings[key])
    }
    old, new = (
        flatten_settings(entry.settings),
        flatten_settings({**stage_inputs.settings, **grown}),
    )
    differences = [
        f"{key}: {old.get(key, 'nothing')} -> {new.get(key, 'nothing')}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]
    if entry.code_version != stage_inputs.code_version:
        differences.append(
            f"code of the stage: version {entry.code_version} -> {stage_inputs.code_version}"
        )
    if list(entry.weights) != list(stage_inputs.weights):
        differences.append("the weights of the model differ")
    if inputs and list(entry.inputs) != list(stage_inputs.inputs):
        differences.append("what it is made of has changed since")
    return differences


def flatten_settings(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted keys and short JSON values."""
    if isinstance(value, Mapping) and value:
        items: Any = value.items()
    elif isinstance(value, (list, tuple)) and value:
        items = enumerate(value)
    else:
        return {prefix.rstrip("."): json.dumps(value, ensure_ascii=False)}
    return {
        k: v for key, part in items for k, v in flatten_settings(part, f"{prefix}{key}.").items()
    }


@contextmanager
def lock_corpus(corpus: Path) -> Iterator[None]:
    """Lock a corpus for writing. Raises CorpusLocked if another running process holds it.

    The kernel releases the lock of a killed process. In an object store the lock is a lease that must be
    renewed; that of a killed process expires.
    """
    if in_store(corpus):
        with hold_lease(corpus):
            yield
        return
    path = corpus / LOCK
    with map_storage_errors(path):
        corpus.mkdir(parents=True, exist_ok=True)
        stream = path.open("wb")
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CorpusLocked(
                f"{corpus}: another process is writing this corpus",
                hint="wait for it to end, or give another --out",
            ) from None
        yield
