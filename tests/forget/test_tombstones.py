"""Tombstones: what was forgotten does not come back with a later run, a new source or a repair."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
from builders.finished_corpus import finished_settings, make_sources
from builders.forgotten_corpus import Forgotten, forget_one, pair_to_forget
from builders.pictures_folder import make_recipe, picture, tree

from stylear.curate import run as runner
from stylear.curate.audit.auditor import audit
from stylear.curate.corpus.layout import STAGES
from stylear.curate.corpus.shards import iter_pairs
from stylear.curate.corpus.tombstones import Tombstones, hash_all, read_tombstones
from stylear.curate.fetch.urls import plan_rows, skip_forgotten
from stylear.curate.forget import forget_pairs
from stylear.curate.forget.request import Request
from stylear.curate.recipe import Recipe, load_recipe
from stylear.curate.recipe.sources import UrlsSource
from stylear.errors import CorpusError


@pytest.fixture
def done(finished: Path, tmp_path: Path) -> Forgotten:
    return forget_one(finished, tmp_path)


def recipe_of(corpus: Path) -> Recipe:
    return load_recipe(corpus / "recipe.yaml")


def reasons(corpus: Path, folder: str = "raw") -> list[str | None]:
    return [pair.verdict.reason for pair in iter_pairs(corpus / folder)]


def test_a_later_run_has_nothing_to_do(done: Forgotten) -> None:
    before = tree(done.corpus)
    result = runner.run(recipe_of(done.corpus), done.corpus, workers=1)
    assert [stage.new for stage in result.results] == [0] * len(STAGES)
    after = {n: d for n, d in tree(done.corpus).items() if not n.startswith("report/")}
    assert after == before


def test_fetching_all_of_it_again_gives_the_same_bytes(done: Forgotten) -> None:
    before = tree(done.corpus / "raw")
    runner.run_stages(["fetch"], recipe_of(done.corpus), done.corpus, workers=1, redo="fetch")
    assert tree(done.corpus / "raw") == before
    runner.run(recipe_of(done.corpus), done.corpus, workers=1)
    assert audit(done.corpus).passed
    assert done.raw.key not in {pair.origin.parent for pair in iter_pairs(done.corpus / "stylized")}


@pytest.mark.parametrize("name", ["raw/00000.tar", "raw/00000.parquet", "train/00000.tar"])
def test_a_damaged_shard_is_repaired_without_the_pair(done: Forgotten, name: str) -> None:
    before = tree(done.corpus / "raw")
    (done.corpus / name).write_bytes(b"damaged")
    runner.run(recipe_of(done.corpus), done.corpus, workers=1)
    assert tree(done.corpus / "raw") == before
    assert audit(done.corpus).passed


def test_a_stylized_pair_is_not_drawn_again(finished: Path, tmp_path: Path) -> None:
    corpus = Path(shutil.copytree(finished, tmp_path / "corpus"))
    _, children = pair_to_forget(corpus)
    forget_pairs(corpus, Request(keys=(children[0].key,)))
    stylized = tree(corpus / "stylized")
    runner.run_stages(["synthesize"], recipe_of(finished), corpus, workers=1, redo="synthesize")
    assert reasons(corpus, "stylized").count("forgotten") == 1
    assert tree(corpus / "stylized") == stylized


def test_the_same_bytes_under_another_name_do_not_come_in(tmp_path: Path) -> None:
    make_sources(tmp_path, ["one", "two", "three"])
    recipe = make_recipe(tmp_path, finished_settings())
    corpus = tmp_path / "corpus"
    runner.run_stages(["fetch"], recipe, corpus, workers=1)
    first = next(iter_pairs(corpus / "raw"))
    assert first.origin.source_sha256 is not None
    forget_pairs(corpus, Request(sha256=(first.origin.source_sha256,)))
    shutil.copy(tmp_path / "photos" / "p000.png", tmp_path / "photos" / "p009.png")
    add_row(tmp_path, "p009.png", "another caption")
    runner.run_stages(["fetch"], recipe, corpus, redo="fetch", workers=1)
    assert reasons(corpus) == ["forgotten", None, None, "not-an-image", "forgotten"]


def test_a_picture_that_looks_like_it_does_not_come_in(tmp_path: Path) -> None:
    make_sources(tmp_path, ["one", "two"])
    recipe = make_recipe(tmp_path, finished_settings())
    corpus = tmp_path / "corpus"
    runner.run_stages(["fetch"], recipe, corpus, workers=1)
    forget_pairs(corpus, Request(pictures=(tmp_path / "photos" / "p001.png",)))
    picture(1).convert("RGB").save(tmp_path / "photos" / "p009.jpg", quality=90)
    add_row(tmp_path, "p009.jpg", "two again")
    runner.run_stages(["fetch"], recipe, corpus, redo="fetch", workers=1)
    assert reasons(corpus) == [None, "forgotten", "not-an-image", "forgotten"]


def add_row(root: Path, name: str, caption: str) -> None:
    with (root / "photos" / "captions.csv").open("a", encoding="utf-8", newline="") as file:
        csv.writer(file).writerow([name, caption])


def test_a_growing_corpus_leaves_out_what_was_forgotten(tmp_path: Path) -> None:
    make_sources(tmp_path, ["one", "two", "three"])
    recipe = make_recipe(tmp_path, finished_settings())
    corpus = tmp_path / "corpus"
    runner.run_stages(["fetch"], recipe, corpus, workers=1)
    first = next(iter_pairs(corpus / "raw"))
    assert first.origin.source_sha256 is not None
    forget_pairs(corpus, Request(sha256=(first.origin.source_sha256,)))
    before = tree(corpus / "raw")
    shutil.copy(tmp_path / "photos" / "p000.png", tmp_path / "photos" / "p008.png")
    (tmp_path / "photos" / "p000.png").unlink()  # gone from the sources, which no other row may be
    picture(77).save(tmp_path / "photos" / "p009.png")
    add_row(tmp_path, "p008.png", "another caption")
    add_row(tmp_path, "p009.png", "a new thing")
    rows = (tmp_path / "photos" / "captions.csv").read_text("utf-8").splitlines()
    kept = [row for row in rows if not row.startswith("p000.png")]
    (tmp_path / "photos" / "captions.csv").write_text("\n".join(kept) + "\n", "utf-8")
    runner.run_stages(["fetch"], recipe, corpus, workers=1)
    assert reasons(corpus) == ["forgotten", None, None, "not-an-image", "forgotten", None]
    after = tree(corpus / "raw")
    assert {name: after[name] for name in before} == before


def test_a_url_that_was_forgotten_is_not_asked_for(tmp_path: Path) -> None:
    urls = ["https://a.example/1.png", "https://b.example/2.png", "https://sub.c.example/3.png"]
    with (tmp_path / "list.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["url", "caption"], *([url, "a thing"] for url in urls)])
    source = UrlsSource(type="urls", path=tmp_path / "list.csv")
    gone = Tombstones(sources=hash_all([urls[0]]), domains=hash_all(["c.example"]))
    requested = [plan.url for plan in skip_forgotten(plan_rows(source), gone)]
    assert requested == [None, urls[1], None]


def test_damaged_tombstones_stop_a_run(done: Forgotten) -> None:
    (done.corpus / "tombstones.json").write_text("{}")
    with pytest.raises(CorpusError, match=r"tombstones\.json: expected tombstones"):
        read_tombstones(done.corpus)
    with pytest.raises(CorpusError, match=r"tombstones\.json: expected tombstones"):
        runner.run_stages(["fetch"], recipe_of(done.corpus), done.corpus, redo="fetch", workers=1)
    assert (done.corpus / "raw" / "00000.tar").is_file()
    result = audit(done.corpus)
    assert "tombstones.json" in {difference.where for difference in result.differences}


def test_tombstones_of_several_requests_add_up(done: Forgotten) -> None:
    before = read_tombstones(done.corpus)
    forget_pairs(done.corpus, Request(domains=("gone.example",)))
    after = read_tombstones(done.corpus)
    assert (after.keys, after.sources) == (before.keys, before.sources)
    assert after.domains == hash_all(["gone.example"])
    assert len(after.manifests) == 2
    assert audit(done.corpus).passed
