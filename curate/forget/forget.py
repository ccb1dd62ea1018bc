"""Forgetting: selects pairs, writes new files beside the corpus, then replaces all old ones at once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stylear.console import say
from stylear.curate.audit.absence import check_absence
from stylear.curate.audit.manifest import corpus_files, write_manifest
from stylear.curate.corpus.answers import forget_answers, preferences_digest, votes_digest
from stylear.curate.corpus.layout import (
    ANSWERS,
    FORGET,
    MANIFEST,
    RECIPE,
    REPORT,
    RETRY,
    VERDICTS,
)
from stylear.curate.corpus.ledger import ALL, Entry, Ledger, lock_corpus
from stylear.curate.corpus.object_store import in_store
from stylear.curate.corpus.parquet import file_sha256
from stylear.curate.corpus.storage import remove_path, remove_unfinished
from stylear.curate.corpus.tombstones import FORGOTTEN, REMOVED, Tombstones, read_tombstones
from stylear.curate.explain.find import committed_tables
from stylear.curate.forget.derived import update_derived
from stylear.curate.forget.journal import (
    JOURNAL,
    Journal,
    commit_entry,
    read_journal,
    replay,
    uncommitted_files,
    update_entries,
)
from stylear.curate.forget.request import Request
from stylear.curate.forget.rewrite import Rewriter, removed_counts
from stylear.curate.forget.select import Selection, select_pairs
from stylear.curate.recipe import load_recipe
from stylear.curate.report import write_report
from stylear.curate.stage import STAGE_OF_KIND, read_verdict_counts
from stylear.errors import CorpusError, UsageError


@dataclass(frozen=True, slots=True)
class ForgetResult:
    """What was forgotten, or would be."""

    corpus: Path
    selection: Selection
    resumed: bool = False  # an earlier forget was finished first
    forgotten_before: int = 0  # keys with a tombstone

    def rows(self) -> list[dict[str, Any]]:
        """For a table: one row per folder."""
        return self.selection.rows()

    def summary(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "corpus": str(self.corpus),
            "pairs": len(self.selection.keys),
            "folders": self.rows(),
            "keys": sorted(self.selection.keys),
            "copies_left": self.selection.copies,
            "resumed": self.resumed,
            "forgotten_before": self.forgotten_before,
        }


def forget_pairs(corpus: Path, request: Request, *, dry_run: bool = False) -> ForgetResult:
    """Remove the pairs that a request matches from a corpus, and leave tombstones for them.

    A forget that was killed is finished first. Raises UsageError for an empty request and for an unknown key,
    CorpusError while a retry is unfinished and when something is left of a forgotten pair, CorpusLocked
    while another process writes.
    """
    if dry_run:
        selection = select(corpus, request)
        return ForgetResult(corpus, selection, False, len(read_tombstones(corpus).keys))
    with lock_corpus(corpus):
        resumed = finish_forget(corpus)
        if not request and not resumed:
            raise UsageError(
                "forget: expected an option that selects pairs, found none",
                hint="give --key, --url, --sha256, --domain, --phash-of or --list",
            )
        before = read_tombstones(corpus)
        selection = select(corpus, request)
        after = before | selection.tombstones
        if replace(after, manifests=before.manifests) != before:
            prepare(corpus, selection, after)
            finish_forget(corpus)
            require_absence(corpus)
        return ForgetResult(corpus, selection, resumed, len(before.keys))


def select(corpus: Path, request: Request) -> Selection:
    """The pairs that a request matches. Raises UsageError for a key that the corpus never had."""
    recipe = load_recipe(corpus / RECIPE)
    selection = select_pairs(corpus, request.tombstones(recipe.image))
    known = selection.keys | read_tombstones(corpus).keys
    for key in request.keys:
        if key not in known:
            from stylear.curate.explain.find import find_pairs

            find_pairs(corpus, key)  # raises with the nearest keys
    return selection


def prepare(corpus: Path, selection: Selection, tombstones: Tombstones) -> None:
    """Write new files and the journal beside the corpus. Nothing of the corpus itself is changed.

    Raises CorpusError while a retry is unfinished.
    """
    if (corpus / RETRY).is_dir():
        raise CorpusError(
            f"{corpus}: a retry of downloads was not finished",
            hint="finish it with `stylear curate run RECIPE --out CORPUS`, then forget",
        )
    remove_path(corpus / FORGET)
    ledger = Ledger(corpus)
    manifest = corpus / MANIFEST
    if manifest.is_file():
        hashes = frozenset({file_sha256(manifest)})
        tombstones = replace(tombstones, manifests=tombstones.manifests | hashes)
    rewriter = Rewriter(corpus, selection)
    rewriter.write_all(tombstones, load_recipe(corpus / RECIPE))
    committed = {
        name for stage in ledger.stages() for e in ledger.entries(stage) for name in e.files
    }
    uncommitted = uncommitted_files(corpus_files(corpus), committed)
    files = {name: info for name, info in rewriter.files.items() if name not in uncommitted}
    journal = Journal(
        files={name: {"sha256": info.sha256, "bytes": info.bytes} for name, info in files.items()},
        entries=list(update_entries(ledger, files, changed_entries(ledger, rewriter))),
        remove_files=sorted(uncommitted),
        has_manifest=manifest.is_file(),
        has_report=(corpus / REPORT).is_dir(),
    )
    journal.write(corpus)


def finish_forget(corpus: Path) -> bool:
    """Finish a forget whose journal is written; returns whether there was one. The caller holds the lock.

    Files of a forget that was killed before its journal was written are removed.
    """
    journal = read_journal(corpus)
    if journal is None:
        remove_path(corpus / FORGET)
        return False
    say(f"forget: {len(journal.files)} files are replaced")
    remove_unfinished(corpus)
    replay(corpus, journal)
    forget_reviews(corpus)
    update_derived(corpus)
    if journal.has_manifest:
        write_manifest(corpus)
    if journal.has_report:
        write_report(corpus)
    (corpus / FORGET / JOURNAL).unlink()  # first: without a journal the folder is only removed
    remove_path(corpus / FORGET)
    return True


def forget_reviews(corpus: Path) -> None:
    """Remove what people answered about forgotten pairs, and note the votes that are left.

    The filter and the pairs of the ledger have hashes of votes and preferences among their inputs; if these
    were the present ones, they become those that are left, so that the next run finds both up to date.
    """
    if in_store(corpus) or not (corpus / ANSWERS).is_file():
        return
    digests = {"filter": votes_digest, "pairs": preferences_digest}
    before = {stage: list(digest(corpus)) for stage, digest in digests.items()}
    if not forget_answers(corpus, read_forgotten_keys(corpus)):
        return
    ledger = Ledger(corpus)
    for stage, digest in digests.items():
        entry = ledger.entry(stage, ALL)
        if entry is not None and before[stage] and list(entry.inputs[-1:]) == before[stage]:
            commit_entry(ledger, replace(entry, inputs=[*entry.inputs[:-1], *digest(corpus)]))


def read_forgotten_keys(corpus: Path) -> set[str]:
    """The keys of all forgotten pairs."""
    import pyarrow.compute as pc

    keys: set[str] = set()
    for _, _, table in committed_tables(corpus, ["key", "reason"]):
        mask = pc.fill_null(pc.equal(table["reason"], FORGOTTEN), False)
        keys.update(table["key"].filter(mask).to_pylist())
    return keys


def changed_entries(ledger: Ledger, rewriter: Rewriter) -> dict[tuple[str, str], Entry]:
    """The entries whose counts or notes change, by stage and unit."""
    entries: dict[tuple[str, str], Entry] = {}
    for (kind, unit), info in rewriter.shards.items():
        entry = ledger.entry(STAGE_OF_KIND[kind], unit)
        assert entry is not None
        entries[entry.stage, unit] = replace(entry, kept=info.kept, dropped=dict(info.dropped))
    for stage in ("fetch", "synthesize"):
        whole = ledger.entry(stage, ALL)
        if whole is not None:
            units = [
                entries.get((stage, e.unit), e) for e in ledger.entries(stage) if e.unit != ALL
            ]
            dropped: Counter[str] = Counter()
            for entry in units:
                dropped.update(entry.dropped)
            kept = sum(entry.kept for entry in units)
            entries[stage, ALL] = replace(whole, kept=kept, dropped=dict(sorted(dropped.items())))
    for stage, name in (("filter", VERDICTS), ("mix", "mix.parquet")):
        whole = ledger.entry(stage, ALL)
        if whole is not None and name in rewriter.files:
            rows, kept, dropped_now = read_verdict_counts(rewriter.beside / name, stage)
            entries[stage, ALL] = replace(whole, rows_in=rows, kept=kept, dropped=dict(dropped_now))
    mix = entries.get(("mix", ALL)) or ledger.entry("mix", ALL)
    if mix is not None and rewriter.removed:
        removed = removed_counts(mix.note.get(REMOVED, {}), rewriter.removed)
        entries["mix", ALL] = replace(mix, note={**mix.note, REMOVED: removed})
    pairs = ledger.entry("pairs", ALL)
    lost = rewriter.selection.count("preferences")
    if pairs is not None and lost:
        entries["pairs", ALL] = replace(pairs, rows_in=pairs.rows_in - lost, kept=pairs.kept - lost)
    return entries


def require_absence(corpus: Path) -> None:
    """Raise CorpusError if anything of a forgotten pair remains."""
    for difference in check_absence(corpus, read_tombstones(corpus)):
        raise CorpusError(f"{corpus}: {difference}")
