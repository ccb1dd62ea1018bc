"""Conservation: each stage got what the one before kept, and its tables hold what its ledger entries say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from stylear.curate.audit.difference import Difference
from stylear.curate.corpus.layout import KINDS, LEDGER, MIX, VERDICTS
from stylear.curate.corpus.ledger import ALL, Entry, Ledger
from stylear.curate.corpus.parquet import count_table_rows, read_table
from stylear.curate.stage import STAGE_OF_KIND, Counts, count_verdicts, read_verdict_counts

KIND = "conservation"
PREFERENCES = "preferences"


def check_stages(corpus: Path) -> Iterator[Difference]:
    """Ledger entries whose kept and dropped pairs do not add up to the rows in."""
    ledger = Ledger(corpus)
    for stage in ledger.stages():
        for entry in ledger.entries(stage):
            out = entry.kept + sum(entry.dropped.values())
            if out != entry.rows_in:
                expected = f"{entry.rows_in} pairs kept or dropped"
                yield Difference(KIND, entry_file(stage, entry.unit), expected, f"{out}")


def check_conservation(corpus: Path) -> Iterator[Difference]:
    """Ledger entries whose counts are not those of their tables, or of the stage before."""
    ledger = Ledger(corpus)
    kept = 0
    for kind in KINDS:
        stage, total = STAGE_OF_KIND[kind], [0, 0]
        for entry in ledger.entries(stage):
            if entry.unit != ALL:
                path = corpus / kind / f"{entry.unit}.parquet"
                counts = count_verdicts(read_table(path, ["kept", "reason"]))
                yield from compare_counts(stage, entry, counts)
                total = [total[0] + counts[0], total[1] + counts[1]]
        if (whole := ledger.entry(stage, ALL)) is not None:
            yield from compare_numbers(
                stage, ALL, {"rows_in": total[0], "kept": total[1]}, list_numbers(whole)
            )
        kept += total[1]
    for stage, name in (("filter", VERDICTS), ("mix", MIX)):
        if (whole := ledger.entry(stage, ALL)) is not None:
            counts = read_verdict_counts(corpus / name, stage)
            yield from compare_counts(stage, whole, counts)
            if counts[0] != kept:
                expected = f"the {kept} pairs that the stages before kept"
                yield Difference(KIND, name, expected, f"{counts[0]} pairs")
            kept = counts[1]
    if (whole := ledger.entry("pairs", ALL)) is not None:
        rows = sum(count_table_rows(path) for path in (corpus / PREFERENCES).glob("*.parquet"))
        yield from compare_numbers("pairs", ALL, {"kept": rows}, list_numbers(whole))


def compare_counts(stage: str, entry: Entry, counts: Counts) -> Iterator[Difference]:
    """Counts of an entry that differ from those of its table."""
    rows, kept, dropped = counts
    expected = {
        "rows_in": rows,
        "kept": kept,
        **{f"dropped.{why}": n for why, n in dropped.items()},
    }
    found = list_numbers(entry)
    yield from compare_numbers(stage, entry.unit, dict.fromkeys(found, 0) | expected, found)


def compare_numbers(
    stage: str, unit: str, expected: Mapping[str, int], found: Mapping[str, int]
) -> Iterator[Difference]:
    """The expected numbers that an entry does not have."""
    for name, number in sorted(expected.items()):
        if found.get(name, 0) != number:
            file = entry_file(stage, unit)
            yield Difference(KIND, file, f"{number} pairs", f"{found.get(name, 0)}", name)


def list_numbers(entry: Entry) -> dict[str, int]:
    """The counts of an entry by name."""
    dropped = {f"dropped.{reason}": count for reason, count in entry.dropped.items()}
    return {"rows_in": entry.rows_in, "kept": entry.kept, **dropped}


def entry_file(stage: str, unit: str) -> str:
    """The path of a ledger entry in the corpus."""
    return f"{LEDGER}/{stage}/{unit}.json"
