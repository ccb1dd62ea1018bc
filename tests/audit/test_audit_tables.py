"""The audit of tables: pairs that were lost, invented or judged again are named, also in a forged corpus."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from builders.damaged_corpus import (
    edit_json,
    edit_table,
    find_differences,
    forge,
)

from stylear.curate.audit.auditor import audit
from stylear.curate.corpus.parquet import read_table, write_table
from stylear.curate.corpus.shards import read_shard, write_shard


def drop_first_kept(rows: list[dict[str, Any]]) -> None:
    next(row for row in rows if row["kept"]).update(kept=False, stage="filter", reason="x")


def drop_without_reason(rows: list[dict[str, Any]]) -> None:
    next(row for row in rows if not row["kept"]).update(reason=None)


def twice(rows: list[dict[str, Any]]) -> None:
    rows.append(rows[0])


def lose(rows: list[dict[str, Any]]) -> None:
    rows.pop(0)


def keep_what_failed(rows: list[dict[str, Any]]) -> None:
    next(r for r in rows if r["reason"] == "not-an-image").update(
        kept=True, stage=None, reason=None
    )


def swap_sides(rows: list[dict[str, Any]]) -> None:
    row = rows[0]
    row["chosen_score"], row["rejected_score"] = row["rejected_score"], row["chosen_score"]


def cross_groups(rows: list[dict[str, Any]]) -> None:
    rows[0]["rejected"] = rows[1]["rejected"]


def choose_the_unseen(rows: list[dict[str, Any]]) -> None:
    rows[0]["chosen"] = rows[0]["rejected"]


FORGERIES = [
    ("verdicts.parquet", drop_first_kept, "keys", "mix.parquet"),
    ("verdicts.parquet", drop_without_reason, "verdict", "verdicts.parquet "),
    ("verdicts.parquet", lose, "keys", "verdicts.parquet"),
    ("verdicts.parquet", twice, "keys", "verdicts.parquet"),
    ("verdicts.parquet", keep_what_failed, "verdict", ""),
    ("mix.parquet", lose, "keys", "mix.parquet"),
    ("preferences/00000.parquet", swap_sides, "verdict", "preferences/"),
    ("preferences/00000.parquet", cross_groups, "lineage", "preferences/"),
    ("preferences/00000.parquet", choose_the_unseen, "split", "preferences/"),
]


@pytest.mark.parametrize(
    ("name", "change", "kind", "where"),
    FORGERIES,
    ids=[change.__name__ for _, change, *_ in FORGERIES],
)
def test_a_forged_table_is_found(
    corpus: Path, name: str, change: Callable[[list[dict[str, Any]]], None], kind: str, where: str
) -> None:
    edit_table(corpus / name, change)
    forge(corpus)
    result = audit(corpus)
    assert [d for d in result.differences if d.kind == kind and d.where.startswith(where)]
    assert "changed" not in {d.kind for d in result.differences}


def test_a_tar_with_other_members_than_its_table_is_found(corpus: Path) -> None:
    pairs = list(read_shard(corpus / "raw" / "00000.tar"))
    table = (corpus / "raw" / "00000.parquet").read_bytes()
    write_shard(corpus / "raw", 0, pairs[:-1])
    (corpus / "raw" / "00000.parquet").write_bytes(table)
    forge(corpus)
    [difference] = audit(corpus).differences
    assert (difference.kind, difference.where) == ("shard", "raw/00000.tar")
    assert f"expected the image of {pairs[-1].key}, found the end" in difference.found


def test_a_ledger_entry_that_does_not_add_up_is_found(corpus: Path) -> None:
    path = corpus / "ledger" / "synthesize" / "00001.json"
    edit_json(path, lambda entry: entry.update(kept=entry["kept"] - 1))
    forge(corpus)
    file = "ledger/synthesize/00001.json"
    assert find_differences(corpus) == {("conservation", file), ("conservation", f"{file} kept")}


def without_kept(table: pa.Table) -> pa.Table:
    return table.drop_columns(["kept"])


def kept_as_text(table: pa.Table) -> pa.Table:
    place = table.column_names.index("kept")
    return table.set_column(place, "kept", table["kept"].cast(pa.string()))


def without_a_key(table: pa.Table) -> pa.Table:
    keys = pa.array([None, *table["key"].to_pylist()[1:]], pa.string())
    return table.set_column(table.column_names.index("key"), "key", keys)


SHAPES = [
    (without_kept, "expected a column 'kept', found key, stage"),
    (kept_as_text, "expected kept as bool, found string"),
    (without_a_key, "expected a value for key in every row, found 1 without"),
]


@pytest.mark.parametrize(("change", "message"), SHAPES)
def test_a_table_of_another_shape_is_named(
    corpus: Path, change: Callable[[pa.Table], pa.Table], message: str
) -> None:
    path = corpus / "verdicts.parquet"
    write_table(path, change(read_table(path)))
    forge(corpus)
    [difference] = audit(corpus).differences
    assert (difference.kind, difference.where) == ("unreadable", "tables")
    assert f"verdicts.parquet: {message}" in difference.found
