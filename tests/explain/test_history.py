"""What is told of a pair: its origin, its scores, the rule that dropped it, and where it is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from builders.finished_corpus import finished_settings, make_sources
from builders.pictures_folder import make_recipe

from stylear.curate import run as runner
from stylear.curate.corpus.parquet import read_table
from stylear.curate.corpus.shards import iter_pairs
from stylear.curate.explain.find import find_pairs
from stylear.curate.explain.history import explain
from stylear.curate.explain.text import format_history
from stylear.curate.recipe import load_recipe


def history_of(corpus: Path, key: str) -> dict[str, Any]:
    [history] = explain(corpus, find_pairs(corpus, key))
    return history


def last_step(corpus: Path, reason: str) -> dict[str, Any]:
    """What is told of the first pair that the filter dropped for a reason."""
    rows = read_table(corpus / "verdicts.parquet").to_pylist()
    key = next(row["key"] for row in rows if row["reason"] == reason)
    step: dict[str, Any] = history_of(corpus, key)["stages"][-1]
    return step


@pytest.fixture(scope="module")
def judged(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished corpus after a filter with thresholds, votes and a quota."""
    corpus = Path(shutil.copytree(finished, tmp_path_factory.mktemp("judged") / "corpus"))
    rules = {
        "filter.thresholds": [
            {"score": "texture", "min": 0.545},
            {"score": "texture", "percentile": 20},
        ],
        "filter.per_style": 3,
    }
    runner.run_stages(["filter"], load_recipe(corpus / "recipe.yaml", rules), corpus, workers=1)
    return corpus


def test_a_raw_pair_names_its_source_and_what_was_made_of_it(finished: Path) -> None:
    raw = {pair.key: pair for pair in iter_pairs(finished / "raw")}
    parents = {pair.origin.parent for pair in iter_pairs(finished / "stylized")}
    train = {pair.key for pair in iter_pairs(finished / "train")}
    key = next(key for key in raw if key in parents and key in train)
    pair, history = raw[key], history_of(finished, key)
    assert (history["key"], history["kind"], history["caption"]) == (key, "raw", pair.caption)
    assert history["origin"] == {
        "source": pair.origin.source, "sha256": pair.origin.source_sha256, **pair.origin.details,
    }  # fmt: skip
    assert [(step["stage"], step["outcome"]) for step in history["stages"]] == [
        ("fetch", "kept"), ("filter", "kept"), ("mix", "kept"),
    ]  # fmt: skip
    assert history["split"] == "train"
    assert key in {p.key for p in iter_pairs(finished / "train") if p.key == key}
    assert history["outcome"] == f"in {history['training_shard']}"
    children = {p.key: p for p in iter_pairs(finished / "stylized") if p.origin.parent == key}
    assert {child["key"] for child in history["children"]} == set(children)
    assert len(children) == 2
    for child in history["children"]:
        assert child["reference"] == children[child["key"]].origin.reference
        assert child["kept"] == (child["reason"] is None)


def test_a_stylized_pair_names_reference_prompt_seed_and_preference_pairs(finished: Path) -> None:
    rows = read_table(finished / "preferences" / "00000.parquet").to_pylist()
    best, worst = (history_of(finished, rows[0][side]) for side in ("chosen", "rejected"))
    pair = next(p for p in iter_pairs(finished / "stylized") if p.key == best["key"])
    assert best["origin"]["reference"] == rows[0]["reference"] == pair.origin.reference
    assert best["origin"]["reference_sha256"] == pair.origin.reference_sha256
    assert best["origin"]["parent"] == pair.origin.parent
    assert best["origin"]["seed"] == pair.origin.details["seed"]
    assert best["origin"]["prompt"] == pair.caption
    assert best["preferences"] == [
        {"key": rows[0]["key"], "role": "chosen", "other": worst["key"],
         "margin": rows[0]["margin"], "shard": "preferences/00000.tar"}
    ]  # fmt: skip
    assert worst["preferences"][0]["role"] == "rejected"
    assert best["scores"]["texture"]["texture"] == rows[0]["chosen_score"]
    assert best["scores"]["texture"]["measured_by"]["type"] == "texture"


def test_a_candidate_that_lost_shows_its_position(finished: Path) -> None:
    step = last_step(finished, "not-best")
    assert (step["stage"], step["rule"], step["threshold"], step["value"]) == (
        "filter", "filter.best_of", 1, 2,
    )  # fmt: skip
    assert "position 2 of 2 candidates by rank 0." in step["because"]


def test_a_threshold_shows_its_rule_its_limit_and_the_score(judged: Path) -> None:
    step = last_step(judged, "texture-below-min")
    assert (step["rule"], step["threshold"]) == ("filter.thresholds.0.min", 0.545)
    assert 0 < step["value"] < 0.545


def test_a_percentile_shows_the_lowest_score_that_was_kept(judged: Path) -> None:
    step = last_step(judged, "texture-below-percentile")
    rows = read_table(judged / "verdicts.parquet").to_pylist()
    lowest = min(row["score.texture"] for row in rows if row["kept"] and row["score.texture"])
    assert (step["rule"], step["threshold"]) == ("filter.thresholds.1.percentile", 20)
    assert step["because"] == f"the lowest texture that was kept is {round(lowest, 5)}"
    assert step["value"] < lowest


def test_a_dropped_download_names_the_limit_that_it_exceeded(tmp_path: Path) -> None:
    make_sources(tmp_path, ["one", "two"])
    recipe = make_recipe(tmp_path, finished_settings(image={"size": 24, "min_side": 41}))
    with pytest.raises(Exception, match="none of 3 pairs can be used"):
        runner.run_stages(["fetch"], recipe, tmp_path / "corpus", workers=1)
    history = history_of(tmp_path / "corpus", "folder:photos/p000.png")
    assert history["outcome"] == "dropped by fetch: too-small"
    assert history["image"] is None


def test_an_unfinished_corpus_explains_what_is_known_so_far(finished: Path, tmp_path: Path) -> None:
    corpus = Path(shutil.copytree(finished, tmp_path / "corpus"))
    key = next(pair.key for pair in iter_pairs(corpus / "stylized"))
    for stage, outcome in (("mix", "mix has not run yet"), ("filter", "filter has not run yet")):
        shutil.rmtree(corpus / "ledger" / stage)
        history = history_of(corpus, key)
        assert history["outcome"] == f"kept so far; {outcome}"
        assert history["stages"][-1]["outcome"] == "not run yet"
        assert history["split"] is None
    shutil.rmtree(corpus / "ledger" / "score.texture")
    assert "texture" not in history_of(corpus, key)["scores"]


def test_what_the_mix_left_out_names_the_ratio(finished: Path) -> None:
    rows = read_table(finished / "mix.parquet").to_pylist()
    key = next(row["key"] for row in rows if row["reason"] == "ratio")
    history = history_of(finished, key)
    assert history["outcome"] == "dropped by mix: ratio"
    assert history["stages"][-1]["rule"] == "mix.raw_per_stylized"
    assert history["stages"][-1]["threshold"] == 1.0
    assert history["training_shard"] is None


def test_the_text_has_a_line_for_each_thing(judged: Path) -> None:
    rows = read_table(judged / "verdicts.parquet").to_pylist()
    key = next(row["key"] for row in rows if row["reason"] == "texture-below-min")
    lines = list(format_history(history_of(judged, key)))
    assert lines[0] == f"pair              {key} (stylized), dropped by filter: texture-below-min"
    assert "synthesize        kept" in lines
    filter_line = next(line for line in lines if line.startswith("filter"))
    assert filter_line.startswith(
        "filter            dropped: texture-below-min (filter.thresholds.0.min 0.545, found 0."
    )
