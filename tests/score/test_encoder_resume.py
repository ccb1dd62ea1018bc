"""Encoder scores that are continued, repaired, or refused because something changed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from builders.encoder_scores import SCORES
from builders.pictures_folder import tree
from builders.scored_corpus import scoring
from builders.tiny_aesthetic import write_head
from builders.tiny_csd import write_tiny_csd
from builders.tiny_dino import write_tiny_dino

from stylear.curate.corpus.layout import score_path
from stylear.curate.corpus.ledger import Ledger, StageInputs
from stylear.curate.corpus.object_store import corpus_path
from stylear.curate.corpus.storage import FileInfo
from stylear.errors import SettingsChanged, SourceError, WeightsError


@pytest.mark.cpu
def test_scorers_added_later_write_the_same_bytes(home: Path, tmp_path: Path) -> None:
    """cas shares its pass with dino where both run, and the numbers do not show it."""
    corpus = tmp_path / "corpus"
    scoring(home, corpus, SCORES[2::2], before=("fetch", "synthesize"))
    scoring(home, corpus, SCORES)
    expected, found = tree(home / "corpus"), tree(corpus)
    found.pop("recipe.yaml"), expected.pop("recipe.yaml")
    assert found == expected


@pytest.mark.cpu
def test_going_on_after_a_kill_and_two_workers_write_the_same_bytes(
    home: Path, built: Path
) -> None:
    expected = tree(built)
    for scorer, unit in (
        ("near.embeddings", "raw-00000"),
        ("near", "stylized-00001"),
        ("cas", "stylized-00000"),
        ("leak", "raw-00000"),
    ):
        (built / "ledger" / f"score.{scorer}" / f"{unit}.json").unlink()
        (built / "scores" / scorer / f"{unit}.parquet").unlink()
    assert scoring(home, built, SCORES) == 4
    assert tree(built) == expected
    scoring(home, built, SCORES, workers=2, redo="score")
    assert tree(built) == expected


@pytest.mark.cpu
def test_a_corpus_in_a_store_has_the_same_scores(home: Path) -> None:
    corpus = corpus_path("memory://encoder-scores/corpus")
    scoring(home, corpus, SCORES, before=("fetch", "synthesize"))
    names = [
        path.relative_to(home / "corpus")
        for path in (home / "corpus" / "scores").rglob("*.parquet")
    ]
    assert len(names) == 6 * (len(SCORES) + 2)  # and embeddings, and perceptual hashes
    for name in names:
        assert (corpus / name.as_posix()).read_bytes() == (home / "corpus" / name).read_bytes()


def test_a_finished_score_step_does_nothing(home: Path, built: Path) -> None:
    assert scoring(home, built, SCORES) == 0


def test_a_damaged_neighbour_column_is_written_again(home: Path, built: Path) -> None:
    expected = tree(built)
    path = score_path(built, "near", "stylized", 0)
    path.write_bytes(path.read_bytes()[:-9] + b"damaged!!")
    assert scoring(home, built, SCORES) == 1
    assert tree(built) == expected


def test_neighbours_are_looked_for_again_when_the_corpus_changed(home: Path, built: Path) -> None:
    """Only what they are made of: other settings stop."""
    expected, ledger = tree(built), Ledger(built)
    entry = ledger.entry("score.near", "raw-00000")
    assert entry is not None
    inputs = StageInputs(
        entry.settings, entry.code_version, ["before the last retry"], entry.weights
    )
    counts = {"rows_in": entry.rows_in, "kept": entry.kept, "dropped": {}}
    files = {name: FileInfo.of(built / name) for name in entry.files}
    ledger.commit("score.near", "raw-00000", inputs, files=files, **counts)
    assert scoring(home, built, SCORES) == 1
    assert tree(built) == expected


CHANGES: list[tuple[int, dict[str, Any], str]] = [
    (0, {"batch_size": 5}, r"score\.batch_size: 4 -> 5"),
    (3, {"head": "other.pth"}, r"score\.head: "),
    (4, {"segment": "grabcut"}, r'score\.segment: null -> "grabcut"'),
    (6, {"batch_size": 5}, r"score\.batch_size: 4 -> 5"),
]


@pytest.mark.parametrize(("number", "change", "message"), CHANGES)
def test_other_settings_stop(
    home: Path, built: Path, number: int, change: dict[str, Any], message: str
) -> None:
    write_head(home / "other.pth", seed=1)
    scores = [
        {**settings, **change} if i == number else settings for i, settings in enumerate(SCORES)
    ]
    with pytest.raises(SettingsChanged, match=message):
        scoring(home, built, scores)


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_other_weights_stop(home: Path, built: Path, tmp_path: Path, number: int) -> None:
    csd, dino = write_tiny_csd(tmp_path / "csd.pth"), write_tiny_dino(tmp_path / "dino")
    head = write_head(tmp_path / "head.pth")
    files = [{"model": str(csd)}, *[{"model": str(dino)}] * 2, {"head": str(head)}]
    scores = [{**SCORES[number], **files[number]}]
    scoring(home, built, scores, redo="score")
    write_tiny_csd(csd, seed=5)
    write_tiny_dino(dino, seed=5)
    write_head(head, seed=5)
    with pytest.raises(SettingsChanged, match="the weights of the model differ"):
        scoring(home, built, scores)


def test_another_caption_of_a_reference_stops_the_leakage_score_alone(
    home: Path, built: Path, tmp_path: Path
) -> None:
    place = tmp_path / "home"
    shutil.copytree(home, place, ignore=shutil.ignore_patterns("corpus"))
    scoring(place, built, SCORES, redo="fetch", before=("fetch", "synthesize"))
    (place / "styles" / "warm--1.txt").write_text("something else")
    assert (
        scoring(place, built, [settings for settings in SCORES if settings["name"] != "leak"]) == 0
    )
    with pytest.raises(SettingsChanged, match=r"leak stylized-0000\d was built differently"):
        scoring(place, built, SCORES)


def test_a_reference_without_a_caption_is_named_before_anything_is_scored(
    home: Path, tmp_path: Path
) -> None:
    place = tmp_path / "home"
    shutil.copytree(home, place, ignore=shutil.ignore_patterns("corpus"))
    (place / "styles" / "cold--2.txt").unlink()
    with pytest.raises(SourceError, match=r"cold--2\.png: expected a caption") as caught:
        scoring(place, tmp_path / "corpus", SCORES, before=("fetch", "synthesize"))
    assert "cold--2.txt" in str(caught.value.hint)
    assert not (tmp_path / "corpus" / "scores").exists()


def test_a_head_of_another_clip_stops(home: Path, tmp_path: Path) -> None:
    write_head(home / "wide.pth", width=768)
    with pytest.raises(WeightsError, match="expected a head for embeddings of 24, found one for"):
        scoring(
            home,
            tmp_path / "corpus",
            [{**SCORES[3], "head": "wide.pth"}],
            before=("fetch", "synthesize"),
        )


@pytest.mark.parametrize(
    ("number", "change", "name"),
    [
        (0, {"model": "csd-vit-l"}, "csd-vit-l"),
        (2, {"model": "dinov2-base"}, "dinov2-base"),
        (3, {"head": "aesthetic-vit-l-14"}, "aesthetic-vit-l-14"),
        (4, {"segment": "sam:sam-vit-b"}, "sam-vit-b"),
    ],
)
def test_a_registered_model_that_is_not_there_is_reported_with_its_command(
    home: Path,
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    change: dict[str, Any],
    name: str,
) -> None:
    monkeypatch.setenv("STYLEAR_MODELS", str(tmp_path / "models"))
    with pytest.raises(WeightsError, match=name) as caught:
        scoring(home, built, [{**SCORES[number], **change}])
    assert f"stylear models fetch {name}" in str(caught.value.hint)
