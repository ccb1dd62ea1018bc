"""The public Python API does what the commands do, and is imported when it is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from builders.pictures_folder import make_folders, write_recipe

import stylear
from stylear import curate, train
from stylear.errors import CorpusError
from stylear.model.open import open_model
from stylear.sampling.generate import generate
from stylear.train import dpo_trainer, sft_trainer


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("api")
    make_folders(home)
    write_recipe(home)
    return home


def test_a_corpus_is_built_and_read(home: Path) -> None:
    done = curate.build(
        home / "recipe.yaml", home / "corpus", overrides={"mix.shard_pairs": 7}, workers=1
    )
    assert [result.stage for result in done.results] == [
        "fetch", "synthesize", "score", "filter", "mix", "pairs",
    ]  # fmt: skip
    corpus = curate.open_corpus(home / "corpus")
    assert corpus.recipe.mix.shard_pairs == 7
    pairs = list(corpus.pairs())
    assert len(pairs) == len(corpus.verdicts())
    assert {pair.key for pair in pairs} == set(corpus.verdicts()["key"].to_pylist())
    stylized = next(pair for pair in corpus.pairs("stylized") if pair.image)
    assert corpus.image(stylized.key) == stylized.image
    assert corpus.provenance(stylized.key) == stylized.origin
    assert corpus.provenance(stylized.key).reference is not None
    assert corpus.manifest["counts"]["pairs"] > 0
    scores = corpus.scores("texture")
    assert scores["key"].to_pylist() == [pair.key for pair in pairs if pair.image]


def test_what_is_not_there_is_named(home: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="expected a corpus"):
        curate.open_corpus(tmp_path)
    with pytest.raises(CorpusError, match="no scores of 'beauty'"):
        curate.open_corpus(home / "corpus").scores("beauty")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        stylear.nothing  # noqa: B018


def test_public_names_are_what_the_commands_call() -> None:
    assert stylear.load_model is open_model
    assert stylear.generate is generate
    assert train.sft is sft_trainer.run
    assert train.dpo is dpo_trainer.run


def test_importing_the_packages_imports_no_torch() -> None:
    script = (
        "import sys, stylear, stylear.curate, stylear.train; stylear.train.SftSettings;"
        " print(sorted({'torch', 'pyarrow', 'numpy'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert found.stdout == "[]\n"
