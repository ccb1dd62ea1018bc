"""The public Python API does what the commands do, and is imported when it is asked for."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builders.pictures_folder import make_folders, write_recipe

import stylear
from stylear import curate, train
from stylear.curate.corpus.answers import Answer, Side, append_answer
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


def test_a_corpus_is_audited_queried_explained_and_compared(home: Path) -> None:
    corpus = curate.open_corpus(home / "corpus")
    result = corpus.audit(share=0.5, seed=2)
    assert result.require().pairs == len(corpus.verdicts())
    assert result.not_examined[0].startswith("the images of ")
    [counted] = corpus.query("select count(*) as pairs from pairs")
    assert counted == {"pairs": result.pairs}
    raw = next(corpus.pairs("raw"))
    [history] = corpus.explain(raw.key)
    assert (history["key"], history["origin"]["source"]) == (raw.key, raw.origin.source)
    assert corpus.explain(raw.origin.source) == [history]
    assert corpus.diff(home / "corpus").is_empty
    assert corpus.diff(corpus).common == result.pairs


def test_pairs_are_forgotten_and_the_corpus_is_read_again(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "corpus", tmp_path / "corpus")
    corpus = curate.open_corpus(tmp_path / "corpus")
    raw = next(pair for pair in corpus.pairs("raw") if pair.kept)
    before = corpus.manifest["counts"]["pairs"]
    counted = corpus.forget(sources=[raw.origin.source], dry_run=True)
    assert corpus.image(raw.key) == raw.image
    done = corpus.forget(sources=[raw.origin.source])
    assert done.selection.keys == counted.selection.keys
    assert raw.key in done.selection.keys
    assert corpus.image(raw.key) == b""
    assert corpus.manifest["counts"]["pairs"] < before
    assert corpus.audit().passed
    assert not curate.open_corpus(home / "corpus").diff(corpus).is_empty


def test_win_rates_are_those_of_the_answers(tmp_path: Path) -> None:
    assert curate.win_rates(tmp_path) == []
    for number in range(4):
        sides = Side("a", f"a/{number}.png"), Side("b", f"b/{number}.png")
        answer = "left" if number else "right"
        append_answer(tmp_path, Answer("choice", f"t{number}", "ann", answer, f"g{number}", sides))
    rows = curate.win_rates(tmp_path)
    assert [(row["model"], row["comparisons"], row["wins"]) for row in rows] == [
        ("a", 4, 3),
        ("b", 4, 1),
    ]
    assert rows[0]["win_rate"].value == 0.75
    assert rows[0]["win_rate"].low < 0.75 < rows[0]["win_rate"].high


def test_the_page_of_the_api_names_what_there_is() -> None:
    page = (Path(stylear.__file__).parents[1] / "docs" / "python.md").read_text("utf-8")
    code = ast.parse(page.split("```python")[1].split("```")[0])
    known = {"curate": curate, "train": train, "corpus": curate.Corpus}
    used = {
        (node.value.id, node.attr)
        for node in ast.walk(code)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    assert [
        name for name in used if name[0] in known and not hasattr(known[name[0]], name[1])
    ] == []
    public = {name for name in vars(curate.Corpus) if not name.startswith("_")}
    assert {name for owner, name in used if owner == "corpus"} == public - {"recipe"}
    assert {name for owner, name in used if owner == "curate"} == set(curate.__all__) - {"Corpus"}


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
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert process.stdout == "[]\n"
