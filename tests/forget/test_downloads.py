"""A URL that was forgotten is asked for neither by a retry nor by a fetch from the beginning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from builders.picture_site import Site, running, write_list
from builders.pictures_folder import tree

from stylear.curate import run as runner
from stylear.curate.corpus.parquet import read_table
from stylear.curate.corpus.shards import iter_pairs
from stylear.curate.fetch.loopback import NETWORK
from stylear.curate.forget import forget_pairs
from stylear.curate.forget.request import Request
from stylear.curate.recipe import Recipe, load_recipe
from stylear.errors import UsageError


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running(tmp_path) as running_site:
        yield running_site


@pytest.fixture
def recipe(tmp_path: Path, site: Site) -> Recipe:
    write_list(tmp_path, site, range(6))
    source = {"type": "urls", "path": "list.csv", "allow_networks": [NETWORK], "threads": 2}
    values = {
        "name": "test",
        "image": {"size": 16},
        "raw": [source],
        "mix": {"shard_pairs": 4, "val_fraction": 0.0},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values), "utf-8")
    return load_recipe(tmp_path / "recipe.yaml")


def reasons(corpus: Path) -> list[str | None]:
    return [pair.verdict.reason for pair in iter_pairs(corpus / "raw")]


def test_a_failed_download_that_was_forgotten_is_not_tried_again(
    tmp_path: Path, site: Site, recipe: Recipe
) -> None:
    site.failing = {"/1.png": 503, "/2.png": 503}
    corpus = tmp_path / "corpus"
    runner.run_stages(["fetch"], recipe, corpus, workers=1)
    forget_pairs(corpus, Request(sources=(f"{site.base}/1.png",)))
    assert reasons(corpus) == [None, "forgotten", "http-503", None, None, None]
    site.failing, site.asked[:] = {}, []
    runner.retry(recipe, corpus, ["5xx"], workers=1)
    assert site.asked == ["/2.png"]
    assert reasons(corpus) == [None, "forgotten", None, None, None, None]
    with pytest.raises(UsageError, match="no download failed that way"):
        runner.retry(recipe, corpus, ["5xx"], workers=1)


def test_a_fetch_from_the_beginning_does_not_ask_for_it(
    tmp_path: Path, site: Site, recipe: Recipe
) -> None:
    corpus = tmp_path / "corpus"
    runner.run_stages(["fetch"], recipe, corpus, workers=1)
    key = next(iter_pairs(corpus / "raw")).key
    forget_pairs(corpus, Request(sources=(f"{site.base}/0.png",)))
    times = read_table(corpus / "fetched" / "00000.parquet", ["key"])["key"].to_pylist()
    assert key not in times
    assert len(times) == 3
    before = tree(corpus / "raw")
    site.asked.clear()
    runner.run_stages(["fetch"], recipe, corpus, redo="fetch", workers=1)
    assert sorted(site.asked) == [f"/{n}.png" for n in range(1, 6)]
    assert tree(corpus / "raw") == before


def test_a_domain_is_refused_for_rows_that_come_later(
    tmp_path: Path, site: Site, recipe: Recipe
) -> None:
    corpus = tmp_path / "corpus"
    runner.run_stages(["fetch"], recipe, corpus, workers=1)
    forget_pairs(corpus, Request(domains=("127.0.0.1",)))
    assert reasons(corpus) == ["forgotten"] * 6
    write_list(tmp_path, site, range(8))
    site.asked.clear()
    with pytest.raises(Exception, match="none of 8 pairs can be used: forgotten 8"):
        runner.run_stages(["fetch"], recipe, corpus, workers=1)
    assert site.asked == []
