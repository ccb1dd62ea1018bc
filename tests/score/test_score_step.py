"""The score step over a corpus: one pass, resumable, no column of two models."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from builders.device import ON_DEVICE
from builders.pictures_folder import make_folders, tree
from builders.scored_corpus import recipe_of, scoring
from builders.tiny_clip import write_tiny_clip

from stylear.curate.audit.scores import check_scores
from stylear.curate.corpus import parquet, shards
from stylear.curate.corpus.layout import score_path
from stylear.curate.corpus.ledger import Ledger
from stylear.curate.score import read_metadata
from stylear.curate.score.step import ShardWork, group_shards
from stylear.errors import RecipeError, SettingsChanged

TEXT = {"name": "text", "type": "clip-text", "model": "clip", "batch_size": 4, **ON_DEVICE}
LOOK = {**TEXT, "name": "look", "type": "clip-image"}
TEXTURE = {"name": "texture", "type": "texture"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sources, a tiny model, and the corpus scored by all scorers together."""
    root = tmp_path_factory.mktemp("score")
    make_folders(root)
    write_tiny_clip(root / "clip", seed=3)
    scoring(root, root / "corpus", [TEXT, LOOK, TEXTURE], before=("fetch", "synthesize"))
    return root


@pytest.fixture
def built(home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(home / "corpus", tmp_path / "corpus"))


def forget(corpus: Path, scorer: str, *units: str) -> None:
    """What a kill leaves behind: neither entries nor files of some units."""
    for unit in units:
        (corpus / "ledger" / f"score.{scorer}" / f"{unit}.json").unlink()
        (corpus / "scores" / scorer / f"{unit}.parquet").unlink()


def test_a_shard_is_read_once_for_all_scorers(
    home: Path, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: Counter[str] = Counter()
    read_shard = shards.read_shard

    def counted(tar: Path) -> Any:
        read[f"{tar.parent.name}-{tar.stem}"] += 1
        return read_shard(tar)

    monkeypatch.setattr(shards, "read_shard", counted)
    expected = tree(built)
    assert scoring(home, built, [TEXT, LOOK, TEXTURE], redo="score") == 7 * 4
    units = [f"raw-{n:05d}" for n in range(3)] + [f"stylized-{n:05d}" for n in range(4)]
    assert read == dict.fromkeys(units, 1)
    assert tree(built) == expected


@pytest.mark.cpu
def test_scorers_added_one_by_one_write_the_same_bytes(home: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    scoring(home, corpus, [LOOK], before=("fetch", "synthesize"))
    assert scoring(home, corpus, [LOOK, TEXTURE]) == 7
    assert scoring(home, corpus, [TEXT, LOOK, TEXTURE]) == 7
    assert tree(corpus) == tree(home / "corpus")


@pytest.mark.cpu
def test_going_on_after_a_kill_writes_the_same_bytes(home: Path, built: Path) -> None:
    expected = tree(built)
    forget(built, "text", "raw-00001", "stylized-00002")
    forget(built, "look", "stylized-00002", "stylized-00003")
    forget(built, "phash", "raw-00000")
    assert scoring(home, built, [TEXT, LOOK, TEXTURE]) == 5
    assert tree(built) == expected


@pytest.mark.cpu
def test_runs_of_several_shards_as_on_a_gpu_write_the_same_bytes(
    home: Path, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stylear.curate.score import sweep as module

    together: list[int] = []
    sweep = module.score_shards

    def counted(shards: Any, *args: Any) -> Any:
        together.append(len(shards))
        return sweep(shards, *args)

    monkeypatch.setattr(module, "score_shards", counted)
    monkeypatch.setattr("stylear.curate.score.step.uses_gpu", lambda specs: True)
    expected = tree(built)
    scoring(home, built, [TEXT, LOOK, TEXTURE], redo="score")
    assert tree(built) == expected
    assert together == [3, 4]  # 24 pairs each


@pytest.mark.cpu
def test_two_workers_write_the_same_bytes(home: Path, built: Path) -> None:
    expected = tree(built)
    scoring(home, built, [TEXT, LOOK, TEXTURE], redo="score", workers=2)
    assert tree(built) == expected


CHANGES = [
    ({"model": "other"}, r"score\.model: "),
    ({"dtype": "bfloat16"}, r'score\.dtype: "float32" -> "bfloat16"'),
    ({"batch_size": 5}, r"score\.batch_size: 4 -> 5"),
    ({"type": "clip-image"}, r'score\.type: "clip-text" -> "clip-image"'),
]


@pytest.mark.parametrize(("change", "message"), CHANGES, ids=[next(iter(c)) for c, _ in CHANGES])
def test_a_column_is_never_continued_by_another_model(
    home: Path, built: Path, change: dict[str, Any], message: str
) -> None:
    write_tiny_clip(home / "other", seed=4)
    forget(built, "text", "raw-00001")
    before = tree(built)
    with pytest.raises(SettingsChanged, match=message) as caught:
        scoring(home, built, [{**TEXT, **change}, LOOK, TEXTURE])
    assert "--redo score" in (caught.value.hint or "")
    assert tree(built) == before


def test_other_weights_in_the_same_place_stop_and_are_redone_when_asked(
    home: Path, built: Path, tmp_path: Path
) -> None:
    model = write_tiny_clip(tmp_path / "model", seed=7)
    scores = [{**TEXT, "model": str(model)}]
    scoring(home, built, scores, redo="score")
    old = column(built, "text")
    write_tiny_clip(tmp_path / "model", seed=8)
    forget(built, "text", "raw-00001")
    with pytest.raises(SettingsChanged, match="the weights of the model differ"):
        scoring(home, built, scores)
    assert scoring(home, built, scores, redo="score") == 7 * 2
    assert column(built, "text") != old
    assert list(check_scores(built, recipe_of(home, scores))) == []


def column(corpus: Path, scorer: str) -> list[float]:
    path = score_path(corpus, scorer, "raw", 0)
    values: list[float] = parquet.read_table(path, [scorer])[scorer].to_pylist()
    return values


def test_the_audit_finds_a_column_of_two_models(home: Path, built: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(built, tmp_path / "other"))
    model = write_tiny_clip(tmp_path / "model", seed=9)
    scoring(home, other, [{**TEXT, "model": str(model)}], redo="score")
    strange = score_path(other, "text", "raw", 1)
    shutil.copy(strange, score_path(built, "text", "raw", 1))
    differences = list(check_scores(built, recipe_of(home, [TEXT, LOOK, TEXTURE])))
    assert [(difference.kind, difference.where) for difference in differences] == [
        ("score", f"scores/text/raw-00001.parquet {name}")
        for name in ("fingerprint", "model", "weights_sha256")
    ]
    theirs = read_metadata(parquet.read_table(strange))["weights_sha256"]
    ours = read_metadata(parquet.read_table(score_path(built, "text", "raw", 0)))["weights_sha256"]
    assert (differences[2].expected, differences[2].found) == (ours, theirs)


def test_truncated_captions_are_noted_in_the_ledger_and_reported(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folders(tmp_path, pictures=12)
    shutil.copytree(home / "clip", tmp_path / "clip")
    captions = tmp_path / "photos" / "captions.csv"
    long = captions.read_text("utf-8").replace(
        "thing number 3\n", "thing number 3" + " a" * 12 + "\n"
    )
    assert long.count(" a" * 12) == 1
    captions.write_text(long, "utf-8")
    scoring(tmp_path, tmp_path / "corpus", [TEXT], before=("fetch", "synthesize"))
    notes = [entry.note for entry in Ledger(tmp_path / "corpus").entries("score.text")]
    truncated = sum(note.get("captions_truncated", 0) for note in notes)
    table = [
        row["text.truncated"]
        for path in sorted((tmp_path / "corpus" / "scores" / "text").iterdir())
        for row in parquet.read_table(path).to_pylist()
    ]
    assert truncated == table.count(True) >= 1
    warning = (
        f"text: {truncated} captions are longer than the model's context; see column text.truncated"
    )
    assert warning in capsys.readouterr().err


def test_runs_of_shards_hold_enough_pairs_and_every_shard_once() -> None:
    works = [ShardWork("raw", Path(f"raw/{n:05d}.tar"), 10, ()) for n in range(7)]
    assert [[work.tar.stem[-1] for work in run] for run in group_shards(works, 30)] == [
        ["0", "1", "2"],
        ["3", "4", "5"],
        ["6"],
    ]
    assert [len(run) for run in group_shards(works, 1)] == [1] * 7
    assert list(group_shards([], 5)) == []


def test_the_old_name_of_clip_image_is_reported(home: Path) -> None:
    with pytest.raises(RecipeError, match="found clip-style") as caught:
        recipe_of(home, [{**LOOK, "type": "clip-style"}])
    assert caught.value.hint == "clip-style is now called clip-image"


@pytest.mark.parametrize("name", ["key", "colour"])
def test_a_scorer_is_not_called_as_a_column_that_is_there(home: Path, name: str) -> None:
    with pytest.raises(
        RecipeError, match=r"score\.0\.name: expected a name other .* found '" + name
    ):
        recipe_of(home, [{**TEXTURE, "name": name}])
