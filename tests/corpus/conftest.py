"""A corpus in an S3 store on loopback, behind a proxy that injects faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from builders.faulty_store import BUCKET, Proxy, faulty_store
from builders.pictures_folder import make_folders, make_recipe, tree, write_recipe

from stylear.curate import run as runner
from stylear.curate.corpus import store_client as client
from stylear.curate.corpus.object_store import ObjectPath, corpus_path
from stylear.curate.recipe import Recipe


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    make_folders(root)
    write_recipe(root)
    return root


@pytest.fixture(scope="module")
def recipe(home: Path) -> Recipe:
    return make_recipe(home)


@pytest.fixture(scope="module")
def expected(home: Path, recipe: Recipe) -> dict[str, bytes]:
    """Every file of the corpus as it is made on the disk."""
    runner.run(recipe, home / "local", workers=1)
    return tree(home / "local")


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    with faulty_store() as store, pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "BACKOFF_S", (0.01, 0.2))
        patch.setattr(client, "RETRIES", 3)
        patch.setattr(client, "PAUSES_S", (0.01, 0.05, 0.1))
        client.open_filesystem.cache_clear()
        yield store
        client.open_filesystem.cache_clear()


@pytest.fixture
def store(proxy: Proxy, request: pytest.FixtureRequest) -> ObjectPath:
    """An empty place, without faults until the test asks for them."""
    proxy.reset()
    return cast(ObjectPath, corpus_path(f"s3://{BUCKET}/{request.node.name}"))


@pytest.fixture(scope="module")
def stored(proxy: Proxy, recipe: Recipe, expected: dict[str, bytes]) -> tuple[Path, dict[str, int]]:
    """The corpus, built while every eighth request failed in some way, and the faults that it met."""
    corpus = corpus_path(f"s3://{BUCKET}/team/corpus")
    proxy.reset(share=0.125, seed=3)
    runner.run(recipe, corpus, workers=1)
    faults = {name: proxy.seen[name] for name in ("500", "503", "slow", "cut", "dropped")}
    proxy.reset()
    return corpus, faults
