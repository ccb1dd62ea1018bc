"""Forgotten pairs are out of everything; what is not touched keeps its bytes; only hashes stay."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from builders.forgotten_corpus import Forgotten, forget_one, pair_to_forget, rows
from builders.pictures_folder import tree
from typer.testing import CliRunner

from stylear.curate import run as runner
from stylear.curate.audit.auditor import audit
from stylear.curate.cli import app
from stylear.curate.corpus.ledger import Ledger
from stylear.curate.corpus.shards import iter_pairs, tar_samples
from stylear.curate.explain.find import find_pairs
from stylear.curate.explain.history import explain
from stylear.curate.forget import forget_pairs
from stylear.curate.forget.request import Request
from stylear.errors import UsageError
from stylear.pair import content_id


@pytest.fixture(scope="module")
def done(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Forgotten:
    return forget_one(finished, tmp_path_factory.mktemp("forget"))


def test_a_forgotten_pair_keeps_its_key_and_nothing_else(done: Forgotten) -> None:
    pairs = {pair.key: pair for pair in iter_pairs(done.corpus / "raw")}
    left = pairs[done.raw.key]
    assert (left.caption, left.image, left.origin.source) == ("", b"", "forgotten")
    assert (left.origin.content, left.origin.source_sha256) == (content_id(""), None)
    assert left.origin.details == {}
    assert (left.verdict.stage, left.verdict.reason) == ("fetch", "forgotten")
    assert list(pairs) == [pair.key for pair in iter_pairs(done.before / "raw")]


def test_what_was_synthesised_from_it_is_forgotten_too(done: Forgotten) -> None:
    assert len(done.children) == 2
    pairs = {pair.key: pair for pair in iter_pairs(done.corpus / "stylized")}
    for child in done.children:
        left = pairs[child.key]
        assert (left.caption, left.image, left.origin.details) == ("", b"", {})
        assert (left.origin.parent, left.origin.reference) == (done.raw.key, child.origin.reference)
        assert (left.verdict.stage, left.verdict.reason) == ("synthesize", "forgotten")


def test_it_is_in_no_score_training_shard_or_preference_pair(done: Forgotten) -> None:
    for place in ("train", "val", "mix.parquet"):
        before = [row["key"] for row in rows(done.before, place)]
        left = [key for key in before if key not in done.keys]
        assert [row["key"] for row in rows(done.corpus, place)] == left
    assert done.raw.key in {row["key"] for row in rows(done.before, "train")}
    sides = [{row["chosen"], row["rejected"]} for row in rows(done.corpus, "preferences")]
    assert len(sides) == len(rows(done.before, "preferences")) - 1
    assert not [side for side in sides if side & done.keys]
    samples = {
        key for tar in (done.corpus / "preferences").glob("*.tar") for key, _ in tar_samples(tar)
    }
    assert samples == {row["key"] for row in rows(done.corpus, "preferences")}
    for scorer in ("phash", "texture"):
        scores = {row.pop("key"): row for row in rows(done.corpus, f"scores/{scorer}")}
        old = {row.pop("key"): row for row in rows(done.before, f"scores/{scorer}")}
        for key, values in scores.items():
            assert values == (dict.fromkeys(values) if key in done.keys else old[key])
    for row in rows(done.corpus, "verdicts.parquet"):
        if row["key"] in done.keys:
            assert (row["kept"], row["reason"], row["rank"]) == (False, "forgotten", None)
            assert row["score.texture"] is None


def test_only_the_files_that_held_it_are_rewritten(done: Forgotten) -> None:
    before, after = tree(done.before), tree(done.corpus)
    changed = {name for name in after if after[name] != before.get(name)}
    shards = {name for name in changed if name.endswith(".tar")}
    for folder, keys in (
        ("raw", {done.raw.key}), ("stylized", {c.key for c in done.children}), ("train", done.keys),
    ):  # fmt: skip
        held = {
            f"{folder}/{tar.name}"
            for tar in (done.before / folder).glob("*.tar")
            if keys & {key for key, _ in tar_samples(tar)}
        }
        assert {name for name in shards if name.startswith(f"{folder}/")} == held
        assert 0 < len(held) < len(list((done.before / folder).glob("*.tar")))
    assert {"tombstones.json", "manifest.json", "verdicts.parquet", "mix.parquet"} <= changed
    assert "recipe.yaml" not in changed
    assert not [name for name in changed if name.startswith("val/")]
    assert set(before) - set(after) == set()


def test_tombstones_hold_hashes_only(done: Forgotten) -> None:
    tombstones = json.loads((done.corpus / "tombstones.json").read_text("utf-8"))
    assert set(tombstones["keys"]) == done.keys
    words = [
        word for value in tombstones.values() for word in (value if isinstance(value, list) else [])
    ]
    assert all(set(word) <= set("0123456789abcdef") for word in words)
    names = [done.raw.caption, done.raw.origin.source]
    for place in ("raw", "stylized", "train", "val", "preferences"):
        for row in rows(done.corpus, place):
            assert not set(names) & set(map(str, row.values()))


def test_the_audit_passes_and_counts_the_tombstones(done: Forgotten) -> None:
    result = audit(done.corpus)
    assert result.passed, [str(difference) for difference in result.differences]
    check = next(check for check in result.checks if check.check == "forgotten")
    assert check.examined == "3 tombstones"


def test_the_ledger_counts_what_is_left(done: Forgotten) -> None:
    before, after = Ledger(done.before), Ledger(done.corpus)
    for stage, dropped in (("fetch", 1), ("synthesize", 2)):
        old, new = before.entry(stage, "all"), after.entry(stage, "all")
        assert old is not None
        assert new is not None
        assert (new.rows_in, new.kept) == (old.rows_in, old.kept - dropped)
        assert new.dropped == {**old.dropped, "forgotten": dropped}
    pairs = [ledger.entry("pairs", "all") for ledger in (before, after)]
    assert [entry.kept for entry in pairs if entry] == [
        len(rows(done.before, "preferences")), len(rows(done.corpus, "preferences")),
    ]  # fmt: skip


def test_the_result_counts_pairs_and_shards(done: Forgotten) -> None:
    counts = {row["folder"]: row for row in done.result.rows()}
    assert counts["raw"] == {"folder": "raw", "pairs": 1, "shards": 1}
    assert counts["stylized"]["pairs"] == 2
    assert counts["preferences"]["pairs"] == 1
    assert set(done.result.summary()["keys"]) == done.keys


def test_a_dry_run_counts_the_same_and_changes_nothing(finished: Path, done: Forgotten) -> None:
    before = tree(finished)
    result = forget_pairs(finished, Request(sources=(done.raw.origin.source,)), dry_run=True)
    assert result.rows() == done.result.rows()
    assert tree(finished) == before


def test_forgetting_again_changes_nothing(done: Forgotten) -> None:
    before = tree(done.corpus)
    result = forget_pairs(done.corpus, Request(sources=(done.raw.origin.source,)))
    assert (result.selection.keys, result.forgotten_before) == (set(), 3)
    result = forget_pairs(done.corpus, Request(keys=(done.raw.key,)))
    assert result.selection.keys == set()
    assert tree(done.corpus) == before


def test_a_page_that_was_there_is_drawn_without_it(finished: Path, tmp_path: Path) -> None:
    corpus = Path(shutil.copytree(finished, tmp_path / "corpus"))
    runner.write_report(corpus)
    raw, _ = pair_to_forget(corpus)
    forget_pairs(corpus, Request(sources=(raw.origin.source,)))
    drawn = tree(corpus / "report")
    shutil.rmtree(corpus / "report")
    runner.write_report(corpus)
    assert tree(corpus / "report") == drawn


def test_other_pairs_of_the_same_bytes_are_counted_and_stay(finished: Path, tmp_path: Path) -> None:
    from builders.finished_corpus import finished_settings, make_sources
    from builders.pictures_folder import make_recipe

    make_sources(tmp_path, ["one", "two", "three"])
    shutil.copy(tmp_path / "photos" / "p000.png", tmp_path / "photos" / "p002.png")
    recipe = make_recipe(tmp_path, finished_settings())
    runner.run_stages(["fetch"], recipe, tmp_path / "corpus", workers=1)
    request = Request(sources=("folder:photos/p000.png",))
    result = forget_pairs(tmp_path / "corpus", request)
    assert (len(result.selection.keys), result.selection.copies) == (1, 1)


def test_explain_says_that_a_source_was_forgotten(done: Forgotten) -> None:
    with pytest.raises(UsageError, match=r"folder:.*: was forgotten; .* keeps only its hash"):
        find_pairs(done.corpus, done.raw.origin.source)
    [history] = explain(done.corpus, find_pairs(done.corpus, done.raw.key))
    assert history["outcome"] == "dropped by fetch: forgotten"
    assert {child["key"] for child in history["children"]} == {c.key for c in done.children}
    assert {child["reason"] for child in history["children"]} == {"forgotten"}


def test_nothing_asked_for_is_an_error(finished: Path) -> None:
    with pytest.raises(UsageError, match="expected an option that selects pairs, found none"):
        forget_pairs(finished, Request())


def test_the_command_forgets_and_prints_json(finished: Path, tmp_path: Path) -> None:
    corpus = Path(shutil.copytree(finished, tmp_path / "corpus"))
    raw, children = pair_to_forget(corpus)
    arguments = ["forget", str(corpus), "--url", raw.origin.source, "--json"]
    printed = json.loads(
        CliRunner().invoke(app, [*arguments, "--dry-run"], catch_exceptions=False).stdout
    )
    assert (printed["dry_run"], printed["pairs"]) == (True, 1 + len(children))
    assert not (corpus / "tombstones.json").exists()
    printed = json.loads(CliRunner().invoke(app, arguments, catch_exceptions=False).stdout)
    assert (printed["dry_run"], printed["pairs"], printed["models"]) == (
        False,
        1 + len(children),
        [],
    )
    assert (corpus / "tombstones.json").is_file()
