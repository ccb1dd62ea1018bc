"""The journal: the changes of a forget, written before any of them is made and replayed after a kill.

`.forget/` first gets the new version of every file that changes, then `journal.json`. Without a journal
nothing has been changed yet, and the folder is removed. With one all changes are made from the beginning:
each of them can be repeated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stylear.curate.corpus.layout import FORGET, KINDS, MANIFEST, PLAN, REPORT, TOMBSTONES
from stylear.curate.corpus.ledger import ALL, Entry, Ledger, StageInputs
from stylear.curate.corpus.storage import AtomicFile, FileInfo, remove_path, work_folder, write_text
from stylear.curate.stage import list_file_digests
from stylear.errors import CorpusError
from stylear.pair import digest

JOURNAL = "journal.json"
BLOCK_BYTES = 1 << 20


@dataclass(slots=True)
class Journal:
    """Files to replace, entries to commit, and files to remove."""

    files: dict[str, dict[str, Any]]  # path in the corpus -> {sha256, bytes} of its new version
    entries: list[Entry]
    remove_files: list[str] = field(default_factory=list)
    has_manifest: bool = False  # the corpus was finished, so it gets a manifest again
    has_report: bool = False

    def write(self, corpus: Path) -> None:
        """Write the journal beside the new files: from now on the changes will be made."""
        write_text(corpus / FORGET / JOURNAL, json.dumps(asdict(self), indent=1) + "\n")


def read_journal(corpus: Path) -> Journal | None:
    """The journal of a forget that is not finished; None when there is none."""
    path = corpus / FORGET / JOURNAL
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text("utf-8"))
        entries = [Entry(**entry) for entry in values.pop("entries")]
        return Journal(entries=entries, **values)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CorpusError(
            f"{path}: expected the journal of a forget, found: {error}",
            hint="restore the corpus from a backup and forget again",
        ) from error


def replay(corpus: Path, journal: Journal) -> None:
    """Make all changes of the journal, whether or not an earlier process made some of them."""
    (corpus / MANIFEST).unlink(missing_ok=True)
    remove_path(corpus / REPORT)
    remove_path(work_folder(corpus))
    ledger = Ledger(corpus)
    install(corpus, {TOMBSTONES: journal.files[TOMBSTONES]})
    for name in journal.remove_files:
        (corpus / name).unlink(missing_ok=True)
    install(corpus, journal.files)
    for entry in journal.entries:
        commit_entry(ledger, entry)


def install(corpus: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Replace old files by the new ones. Raises CorpusError for a new one that was damaged meanwhile."""
    for name, info in files.items():
        with (
            (corpus / FORGET / name).open("rb") as new,
            AtomicFile(corpus / name, info["sha256"]) as out,
        ):
            while block := new.read(BLOCK_BYTES):
                out.write(block)


def commit_entry(ledger: Ledger, entry: Entry) -> None:
    """Commit an entry with its own inputs, counts and note."""
    ledger.commit(
        entry.stage,
        entry.unit,
        StageInputs(entry.settings, entry.code_version, entry.inputs, entry.weights),
        rows_in=entry.rows_in,
        kept=entry.kept,
        dropped=entry.dropped,
        files={
            name: FileInfo(Path(name).name, info["sha256"], None, info["bytes"])
            for name, info in entry.files.items()
        },
        note=entry.note,
    )


def update_entries(
    ledger: Ledger, files: Mapping[str, FileInfo], changed: Mapping[tuple[str, str], Entry]
) -> Iterator[Entry]:
    """Every entry whose files or inputs have changed, updated to the new hashes.

    `changed` has the entries with new counts or notes.
    """
    new_hashes: dict[str, str] = {}
    entries = [
        changed.get((stage, entry.unit), entry)
        for stage in ledger.stages()
        for entry in ledger.entries(stage)
    ]
    for entry in entries:
        for name, info in entry.files.items():
            if name in files:
                new_hashes[str(info["sha256"])] = files[name].sha256
    new_hashes |= hash_raw_shards(entries, files)
    for entry in entries:
        inputs = [new_hashes.get(value, value) for value in entry.inputs]
        own = {
            name: {"sha256": files[name].sha256, "bytes": files[name].bytes}
            if name in files
            else info
            for name, info in entry.files.items()
        }
        old = ledger.entry(entry.stage, entry.unit)
        values = {**asdict(entry), "inputs": inputs, "files": own}
        if old is None or values != asdict(old):
            yield Entry(**values)


def hash_raw_shards(entries: Sequence[Entry], files: Mapping[str, FileInfo]) -> dict[str, str]:
    """The digest over all raw shards in the inputs of the plan: {the old one: the new one}."""
    raw = [e for e in entries if e.stage == "fetch" and e.unit != ALL]
    old = [value for entry in raw for value in list_file_digests(entry)]
    new = [
        files[name].sha256 if name in files else str(info["sha256"])
        for entry in raw
        for name, info in sorted(entry.files.items())
    ]
    return {digest(*old): digest(*new)}


def uncommitted_files(names: list[str], committed: set[str]) -> set[str]:
    """Outputs of unfinished stages: nothing reads them, and they may contain pairs to forget."""
    folders = (*KINDS, PLAN, "scores", "train", "val", "preferences")
    singles = ("verdicts.parquet", "columns.parquet", "diversity.json", "mix.parquet")
    return {
        name
        for name in names
        if name not in committed and (name.partition("/")[0] in folders or name in singles)
    }
