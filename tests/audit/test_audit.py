"""The audit: each kind of damage is found and named, an untouched corpus passes.

A forged corpus is one whose ledger and manifest were made to fit the damage: there, hashes prove nothing,
and what is found is found by following pairs through the tables.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from builders.pictures_folder import tree

from stylear.curate.audit.auditor import AuditResult, audit
from stylear.curate.audit.manifest import build_manifest, corpus_files, write_manifest
from stylear.curate.corpus.ledger import entry_hash
from stylear.curate.corpus.parquet import read_table, write_table
from stylear.curate.corpus.shards import iter_pairs, read_shard, write_shard
from stylear.curate.corpus.storage import FileInfo
from stylear.curate.corpus.wids import shard_entry, wids_index
from stylear.errors import AuditFailed, CorpusError
from stylear.pair import Pair


@pytest.fixture
def corpus(finished: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(finished, tmp_path / "corpus"))


def found(corpus: Path) -> set[tuple[str, str]]:
    """(kind, where) of every difference."""
    return {(one.kind, one.where) for one in audit(corpus).differences}


def forge(corpus: Path) -> None:
    """Make ledger and manifest fit the files that lie there."""
    for path in sorted((corpus / "ledger").rglob("*.json")):
        entry = json.loads(path.read_text())
        there = [name for name in entry["files"] if (corpus / name).is_file()]
        infos = {name: FileInfo.of(corpus / name) for name in there}
        entry["files"] = {n: {"sha256": i.sha256, "bytes": i.bytes} for n, i in infos.items()}
        del entry["sha256"]
        path.write_text(json.dumps({**entry, "sha256": entry_hash(entry)}))
    write_manifest(corpus)


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def edit_table(path: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    table = read_table(path)
    rows = table.to_pylist()
    change(rows)
    write_table(path, pa.Table.from_pylist(rows, schema=table.schema))


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def rewrite_split(corpus: Path, split: str, pairs: list[Pair]) -> None:
    """A split of other pairs, with the index that belongs to it."""
    shutil.rmtree(corpus / split)
    listed = []
    for index, start in enumerate(range(0, len(pairs), 8)):
        info = write_shard(corpus / split, index, pairs[start : start + 8])
        listed.append(shard_entry(info.files[f"{index:05d}.tar"], info.images))
    (corpus / split / "wids.json").write_text(wids_index(f"small-{split}", listed))


def move_a_row(corpus: Path, kind: str) -> str:
    """The first pair of a kind goes from train to val; its key."""
    train, val = (list(iter_pairs(corpus / split)) for split in ("train", "val"))
    pair = next(pair for pair in train if pair.origin.kind == kind)
    rewrite_split(corpus, "train", [other for other in train if other.key != pair.key])
    rewrite_split(corpus, "val", [*val, pair])

    def moved(rows: list[dict[str, Any]]) -> None:
        next(row for row in rows if row["key"] == pair.key)["split"] = "val"

    edit_table(corpus / "mix.parquet", moved)
    return pair.key


# --- an untouched corpus ----------------------------------------------------------------------


def test_an_untouched_corpus_passes(finished: Path) -> None:
    result = audit(finished)
    assert result.differences == ()
    assert result.passed
    assert result.require() is result
    assert (result.pairs, result.samples) == (17 + 24, 24)
    names = corpus_files(finished)
    assert result.files == len(names)
    assert result.bytes == sum((finished / name).stat().st_size for name in names)
    assert result.summary() == {
        "corpus": str(finished),
        "passed": True,
        "manifest_sha256": FileInfo.of(finished / "manifest.json").sha256,
        "files": result.files,
        "bytes": result.bytes,
        "pairs": 41,
        "samples": 24,
        "warnings": [],
        "differences": [],
    }


def test_the_audit_changes_nothing(corpus: Path) -> None:
    (corpus / "stray.txt").write_text("x")
    before = tree(corpus)
    audit(corpus)
    assert tree(corpus) == before


def test_a_forged_but_untouched_corpus_passes(corpus: Path) -> None:
    """So what the forgery tests find is the damage, not the forging."""
    forge(corpus)
    assert audit(corpus).differences == ()


def test_a_report_and_unfinished_files_are_not_the_corpus(corpus: Path) -> None:
    (corpus / "report").mkdir(exist_ok=True)
    (corpus / "report" / "index.html").write_text("<html>")
    (corpus / "raw" / ".00009.tar.tmp").write_bytes(b"half")
    assert audit(corpus).passed


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [100, 700])  # a header, an image
@pytest.mark.parametrize("name", ["raw/00001", "stylized/00000", "train/00000", "val/00000"])
def test_a_flipped_bit_in_a_tar_is_found(corpus: Path, name: str, place: int) -> None:
    flip(corpus / f"{name}.tar", place)
    assert found(corpus) >= {("changed", f"{name}.tar"), ("shard", f"{name}.tar")}


def test_a_flipped_bit_in_a_preference_tar_is_found(corpus: Path) -> None:
    flip(corpus / "preferences" / "00000.tar", 700)
    assert ("changed", "preferences/00000.tar") in found(corpus)


def test_a_truncated_tar_is_found(corpus: Path) -> None:
    path = corpus / "train" / "00001.tar"
    path.write_bytes(path.read_bytes()[:3000])
    assert found(corpus) >= {("changed", "train/00001.tar"), ("shard", "train/00001.tar")}


@pytest.mark.parametrize(
    "name", ["train/00000.tar", "raw/00000.parquet", "mix.parquet", "train/wids.json"]
)
def test_a_deleted_file_is_found(corpus: Path, name: str) -> None:
    (corpus / name).unlink()
    assert found(corpus) == {("missing", name)}


def test_an_extra_file_is_found(corpus: Path) -> None:
    (corpus / "notes.txt").write_text("mine")
    shutil.copy(corpus / "raw" / "00000.tar", corpus / "raw" / "backup.tar")
    assert found(corpus) == {("extra", "notes.txt"), ("extra", "raw/backup.tar")}


def test_an_extra_shard_is_not_taken_for_training_data(corpus: Path) -> None:
    for ext in ("tar", "parquet"):
        shutil.copy(corpus / "val" / f"00000.{ext}", corpus / "train" / f"00009.{ext}")
    assert found(corpus) >= {
        ("extra", "train/00009.tar"), ("extra", "train/00009.parquet"), ("index", "train/wids.json"),
    }  # fmt: skip


def test_edited_verdicts_are_found(corpus: Path) -> None:
    def keep_all(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row.update(kept=True, stage=None, reason=None)

    edit_table(corpus / "verdicts.parquet", keep_all)
    assert found(corpus) >= {("changed", "verdicts.parquet"), ("keys", "mix.parquet")}


@pytest.mark.parametrize("name", ["ledger/mix/all.json", "recipe.yaml"])
def test_a_damaged_record_is_listed_with_the_rest(corpus: Path, name: str) -> None:
    """It does not end the audit: the shard that is damaged too is named as well."""
    (corpus / name).write_text("{")
    flip(corpus / "train" / "00000.tar", 700)
    kinds = found(corpus)
    assert kinds >= {
        ("changed", name),
        ("changed", "train/00000.tar"),
        ("shard", "train/00000.tar"),
    }
    assert ("unreadable", name.partition("/")[0]) in kinds


def test_an_edited_recipe_is_found(corpus: Path) -> None:
    text = (corpus / "recipe.yaml").read_text()
    (corpus / "recipe.yaml").write_text(text.replace("name: small", "name: other"))
    assert found(corpus) >= {
        ("changed", "recipe.yaml"),
        ("counts", "manifest.json name"),
        ("counts", "manifest.json recipe_sha256"),
    }


# --- the manifest -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("counts.raw", 13),
        ("counts.preferences", 0),
        ("ratio.raw_per_stylized", 3.0),
        ("splits.val.contents", 1),
        ("stages.fetch.dropped.not-an-image", 0),
        ("stages.filter.kept", 41),
        ("seed", 1),
        ("name", "other"),
    ],
)
def test_an_edited_number_of_the_manifest_is_found(corpus: Path, place: str, value: Any) -> None:
    def change(manifest: Any) -> None:
        *way, last = place.split(".")
        for part in way:
            manifest = manifest[part]
        assert manifest[last] != value
        manifest[last] = value

    edit_json(corpus / "manifest.json", change)
    [difference] = audit(corpus).differences
    assert (difference.kind, difference.where) == ("counts", f"manifest.json {place}")
    assert difference.expected == json.dumps(value)
    assert difference.found != difference.expected


def test_a_hash_or_a_file_taken_out_of_the_manifest_is_found(corpus: Path) -> None:
    edit_json(corpus / "manifest.json", lambda m: m["files"].pop("train/00000.tar"))
    assert found(corpus) == {("extra", "train/00000.tar")}
    edit_json(corpus / "manifest.json", lambda m: m["files"]["mix.parquet"].update(sha256="0" * 64))
    assert found(corpus) == {("extra", "train/00000.tar"), ("changed", "mix.parquet")}


def test_a_corpus_without_a_manifest_was_never_finished(corpus: Path) -> None:
    (corpus / "manifest.json").unlink()
    with pytest.raises(CorpusError, match=r"expected a finished corpus, found no manifest\.json"):
        audit(corpus)


@pytest.mark.parametrize("text", ["", "[]", '{"files": {"a": {"bytes": "1", "sha256": "x"}}}'])
def test_a_manifest_that_is_none_is_one_error(corpus: Path, text: str) -> None:
    (corpus / "manifest.json").write_text(text)
    with pytest.raises(CorpusError, match=r"manifest\.json: expected a manifest, found") as caught:
        audit(corpus)
    assert "\n" not in caught.value.message


def test_the_manifest_is_the_same_when_it_is_built_again(finished: Path) -> None:
    assert build_manifest(finished) == json.loads((finished / "manifest.json").read_text())


def test_the_manifest_counts_shards_and_not_their_sum_too(finished: Path) -> None:
    stages = build_manifest(finished)["stages"]
    assert stages["fetch"] == {
        "units": 3, "rows": 17, "kept": 16, "dropped": {"not-an-image": 1},
    }  # fmt: skip
    assert stages["synthesize"] == {"units": 3, "rows": 24, "kept": 24, "dropped": {}}
    assert stages["score.texture"] == {"units": 6, "rows": 41}


# --- splits -----------------------------------------------------------------------------------


@pytest.mark.parametrize("forged", [False, True])
def test_a_row_moved_between_splits_is_found(corpus: Path, forged: bool) -> None:
    key = move_a_row(corpus, "stylized")
    if forged:
        forge(corpus)
    pair = next(p for p in read_shard(corpus / "val" / "00000.tar") if p.key == key)
    result = audit(corpus)
    assert {(d.where, d.expected) for d in result.differences if d.kind == "split"} >= {
        (f"content {pair.origin.content}", "train"), (f"reference {pair.origin.reference}", "train"),
    }  # fmt: skip
    assert any(d.kind == "changed" for d in result.differences) is not forged


def test_one_picture_in_both_splits_is_found(corpus: Path) -> None:
    """The same stored bytes under another content: only the picture crosses."""
    train, val = (list(iter_pairs(corpus / split)) for split in ("train", "val"))
    picture = next(pair.image for pair in train if pair.origin.kind == "raw")
    at = next(n for n, pair in enumerate(val) if pair.origin.kind == "raw")
    val[at] = replace(val[at], image=picture)
    rewrite_split(corpus, "val", val)
    forge(corpus)
    crossing = [d for d in audit(corpus).differences if d.kind == "split"]
    assert [(d.expected, d.found) for d in crossing] == [("one split", "train and val")]
    assert crossing[0].where.startswith("picture ")
    assert ("lineage", f"val {val[at].key}") in found(corpus)


# --- forged tables ----------------------------------------------------------------------------


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
    ("preferences/00000.parquet", swap_sides, "verdict", "preferences "),
    ("preferences/00000.parquet", cross_groups, "lineage", "preferences "),
    ("preferences/00000.parquet", choose_the_unseen, "split", "preferences "),
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


def test_a_pair_left_out_for_a_ratio_that_is_not_reached_is_found(corpus: Path) -> None:
    train = list(iter_pairs(corpus / "train"))
    raw = next(pair for pair in train if pair.origin.kind == "raw")
    rewrite_split(corpus, "train", [pair for pair in train if pair.key != raw.key])

    def left_out(rows: list[dict[str, Any]]) -> None:
        row = next(row for row in rows if row["key"] == raw.key)
        row.update(split=None, kept=False, stage="mix", reason="ratio")

    edit_table(corpus / "mix.parquet", left_out)
    forge(corpus)
    ratio = [d for d in audit(corpus).differences if d.kind == "ratio"]
    assert [d.where for d in ratio] == ["train"]
    assert ratio[0].found.endswith("left out for the ratio")


def test_more_raw_pairs_than_asked_are_found(corpus: Path) -> None:
    text = (corpus / "recipe.yaml").read_text()
    recipe = text.replace("raw_per_stylized: 1.0", "raw_per_stylized: 0.5")
    assert recipe != text
    (corpus / "recipe.yaml").write_text(recipe)
    forge(corpus)
    assert found(corpus) == {("ratio", "train"), ("ratio", "val")}


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
    assert found(corpus) == {("conservation", "synthesize 00001")}


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
    (without_a_key, "expected a value for key in every row"),
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


# --- the wids index ---------------------------------------------------------------------------

INDEXES: list[tuple[str, Callable[[Any], None], str]] = [
    ("a shard is missing", lambda i: i["shardlist"].pop(), "train/wids.json"),
    ("the order is another", lambda i: i["shardlist"].reverse(), "train/wids.json"),
    ("no list", lambda i: i.pop("shardlist"), "train/wids.json"),
    ("samples", lambda i: i["shardlist"][0].update(nsamples=9), "train/wids.json 00000.tar"),
    ("length", lambda i: i["shardlist"][1].update(filesize=1), "train/wids.json 00001.tar"),
    ("hash", lambda i: i["shardlist"][1].update(md5sum="0" * 32), "train/wids.json 00001.tar"),
]


@pytest.mark.parametrize(("name", "change", "where"), INDEXES, ids=[name for name, *_ in INDEXES])
def test_a_broken_wids_index_is_found(
    corpus: Path, name: str, change: Callable[[Any], None], where: str
) -> None:
    edit_json(corpus / "train" / "wids.json", change)
    assert found(corpus) == {("changed", "train/wids.json"), ("index", where)}
    forge(corpus)
    assert found(corpus) == {("index", where)}, name


def test_an_index_that_is_no_json_is_found(corpus: Path) -> None:
    (corpus / "preferences" / "wids.json").write_bytes(b"\xff{")
    assert ("index", "preferences/wids.json") in found(corpus)


# --- how it is told ---------------------------------------------------------------------------


def test_a_failed_audit_is_one_error_with_the_first_differences(corpus: Path) -> None:
    for number in range(5):
        (corpus / f"extra{number}").write_text("x")
    result: AuditResult = audit(corpus)
    assert not result.passed
    with pytest.raises(AuditFailed) as caught:
        result.require()
    extra = "expected no such file, found one the manifest does not know"
    assert caught.value.message == (
        f"{corpus}: extra0: {extra}; extra1: {extra}; extra2: {extra}; and 2 more"
    )
    assert "curate audit CORPUS --json" in (caught.value.hint or "")
    assert result.summary()["differences"][4] == {
        "kind": "extra",
        "where": "extra4",
        "expected": "no such file",
        "found": "one the manifest does not know",
    }


def test_random_damage_is_named_and_never_a_crash(corpus: Path) -> None:
    draw = random.Random(11)
    names = [name for name in corpus_files(corpus) if (corpus / name).stat().st_size]
    unnamed = []
    for round_ in range(36):
        path = corpus / (name := draw.choice(names))
        data = path.read_bytes()
        damaged = bytearray(data)
        place = draw.randrange(len(data))
        if round_ % 3 == 0:
            del damaged[place:]
        else:
            damaged[place] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        if name not in {d.where for d in audit(corpus).differences}:
            unnamed.append((name, place))
        path.write_bytes(data)
    assert unnamed == []
    assert audit(corpus).passed
