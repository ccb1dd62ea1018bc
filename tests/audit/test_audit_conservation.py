"""The audit of counts: a ledger whose numbers are not those of its tables is named, entry by entry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from builders.damaged_corpus import edit_entry, edit_table

from stylear.curate.audit.conservation import check_conservation
from stylear.curate.audit.difference import Difference


def differences_of(corpus: Path) -> list[tuple[str, str, str]]:
    return [
        (difference.where, difference.expected, difference.found)
        for difference in check_conservation(corpus)
    ]


def test_an_untouched_corpus_conserves_its_pairs(finished: Path) -> None:
    assert list(check_conservation(finished)) == []


def test_a_row_that_its_entry_does_not_count_is_found_at_the_shard_and_at_the_stage(
    corpus: Path,
) -> None:
    edit_table(corpus / "raw" / "00001.parquet", lambda rows: rows.pop())
    file = "ledger/fetch/00001.json"
    assert differences_of(corpus) == [
        (f"{file} kept", "7 pairs", "8"),
        (f"{file} rows_in", "7 pairs", "8"),
        ("ledger/fetch/all.json kept", "15 pairs", "16"),
        ("ledger/fetch/all.json rows_in", "16 pairs", "17"),
        ("verdicts.parquet", "the 39 pairs that the stages before kept", "40 pairs"),
    ]


def test_a_reason_that_was_renamed_in_the_ledger_is_found(corpus: Path) -> None:
    def rename(entry: dict[str, Any]) -> None:
        entry["dropped"] = {"too-small": entry["dropped"].pop("not-an-image")}

    edit_entry(corpus, "fetch", "00002", rename)
    file = "ledger/fetch/00002.json"
    assert differences_of(corpus) == [
        (f"{file} dropped.not-an-image", "1 pairs", "0"),
        (f"{file} dropped.too-small", "0 pairs", "1"),
    ]


def test_pairs_lost_between_filter_and_mix_are_found(corpus: Path) -> None:
    edit_table(corpus / "mix.parquet", lambda rows: rows.pop())
    assert (
        "mix.parquet",
        "the 28 pairs that the stages before kept",
        "27 pairs",
    ) in differences_of(corpus)


def test_a_preference_pair_that_was_taken_out_is_found(corpus: Path) -> None:
    edit_table(next((corpus / "preferences").glob("*.parquet")), lambda rows: rows.pop())
    assert list(check_conservation(corpus)) == [
        Difference("conservation", "ledger/pairs/all.json", "8 pairs", "9", "kept")
    ]
