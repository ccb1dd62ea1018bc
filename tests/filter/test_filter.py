"""Filtering: what each rule drops, in which order, and what it leaves alone."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from builders.candidate_rows import Candidate, decide
from builders.pictures_folder import raw_pair, tree
from typer.testing import CliRunner

import stylear.curate.cli
from stylear.curate.corpus.layout import ShardKind, score_path
from stylear.curate.corpus.parquet import read_table, write_table
from stylear.curate.corpus.shards import write_shard
from stylear.curate.filter import filter_corpus
from stylear.curate.filter.gather import gather_rows
from stylear.curate.filter.ranking import harmonic_mean, rank_pairs, ranking_scores
from stylear.curate.filter.rows import to_float64
from stylear.curate.recipe import Recipe, dump_recipe
from stylear.errors import CorpusError
from stylear.pair import Origin, Pair

NAN = float("nan")
GREY = "80" * 12
OFF: dict[str, Any] = {"exact": False, "phash_distance": None}


def recipe(**rules: Any) -> Recipe:
    """A recipe with a text and a style score; rules that are not named are off."""
    return Recipe.model_validate(
        {
            "name": "test",
            "raw": [{"type": "mini"}],
            "score": [{"name": "text", "type": "clip-text"}, {"name": "style", "type": "texture"}],
            "filter": {"best_of": None, "duplicates": OFF, **rules},
        }
    )


def stylized(key: str, text: float | None = None, **changes: Any) -> Candidate:
    values: dict[str, Any] = {
        "key": key,
        "kind": "stylized",
        "source": "synthesizer:test",
        "content": f"content of {key}",
        "parent": None,
        "reference": "mosaic",
        "group": None,
        "image_sha256": f"sha of {key}",
        "source_sha256": None,
        "kept": True,
        "stage": None,
        "reason": None,
        "scores": {"text": text, "style": None},
    }
    return Candidate(**values | changes)


def raw(key: str, text: float | None = None, **changes: Any) -> Candidate:
    values = {"kind": "raw", "reference": None, "source": f"folder:{key}.png", **changes}
    return stylized(key, text, **values)


def reasons(pairs: list[Candidate], **rules: Any) -> dict[str, str | None]:
    """The reason of every pair after `rules`; None: kept."""
    keys = [pair.key for pair in pairs]
    found = decide(pairs, recipe(**rules))
    assert [pair.key for pair in found] == keys
    return {pair.key: pair.reason for pair in found}


# --- thresholds -------------------------------------------------------------------------------


def test_a_minimum_keeps_what_equals_it() -> None:
    pairs = [stylized("a", 0.29), stylized("b", 0.3), stylized("c", 0.31)]
    assert reasons(pairs, thresholds=[{"score": "text", "min": 0.3}]) == {
        "a": "text-below-min", "b": None, "c": None,
    }  # fmt: skip
    assert [(p.kept, p.stage) for p in pairs] == [(False, "filter"), (True, None), (True, None)]


def test_a_maximum_keeps_what_equals_it() -> None:
    pairs = [stylized("a", 0.9), stylized("b", 0.91)]
    assert reasons(pairs, thresholds=[{"score": "text", "max": 0.9}]) == {
        "a": None, "b": "text-above-max",
    }  # fmt: skip


def test_an_absolute_threshold_judges_raw_pairs_too() -> None:
    pairs = [raw("a", 0.1), raw("b", 0.2)]
    found = reasons(pairs, thresholds=[{"score": "text", "min": 0.15}])
    assert found == {"a": "text-below-min", "b": None}


def test_a_pair_without_the_score_passes() -> None:
    pairs = [raw("a", None), stylized("b", None), stylized("c", 0.1)]
    found = reasons(pairs, thresholds=[{"score": "text", "min": 0.5, "percentile": 50}])
    assert found == {"a": None, "b": None, "c": "text-below-min"}


def test_not_a_number_lies_outside_every_threshold() -> None:
    for threshold in ({"min": -1.0}, {"max": 2.0}, {"percentile": 1.0}):
        pairs = [stylized("a", NAN), raw("b", NAN), stylized("c", 0.5)]
        assert reasons(pairs, thresholds=[{"score": "text", **threshold}]) == {
            "a": "text-not-a-number", "b": "text-not-a-number", "c": None,
        }  # fmt: skip


def test_a_percentile_drops_that_share_of_the_stylized_pairs() -> None:
    pairs = [stylized(str(n), n / 10) for n in range(10)]
    found = reasons(pairs, thresholds=[{"score": "text", "percentile": 30}])
    assert [key for key, reason in found.items() if reason] == ["0", "1", "2"]
    assert found["0"] == "text-below-percentile"


def test_a_percentile_rounds_down() -> None:
    pairs = [stylized(str(n), n / 10) for n in range(10)]
    found = reasons(pairs, thresholds=[{"score": "text", "percentile": 39.9}])
    assert [key for key, reason in found.items() if reason] == ["0", "1", "2"]
    pairs = [stylized("only", 0.5)]
    assert reasons(pairs, thresholds=[{"score": "text", "percentile": 99}]) == {"only": None}


def test_a_percentile_drops_nothing_that_ties_with_what_it_keeps() -> None:
    values = {"a": 0.1, "b": 0.2, "c": 0.2, "d": 0.2, "e": 0.9}
    pairs = [stylized(key, value) for key, value in values.items()]
    found = reasons(pairs, thresholds=[{"score": "text", "percentile": 60}])
    assert found == {"a": "text-below-percentile", "b": None, "c": None, "d": None, "e": None}


def test_a_percentile_neither_counts_nor_drops_raw_pairs_and_nan() -> None:
    pairs = [raw("r", 0.0), stylized("n", NAN), stylized("a", 0.1), stylized("b", 0.2)]
    assert reasons(pairs, thresholds=[{"score": "text", "percentile": 50}]) == {
        "r": None, "n": "text-not-a-number", "a": "text-below-percentile", "b": None,
    }  # fmt: skip


def test_a_percentile_is_of_what_earlier_rules_kept() -> None:
    pairs = [stylized(str(n), n / 10) for n in range(4)]
    rules = [{"score": "text", "min": 0.2}, {"score": "text", "percentile": 50}]
    assert reasons(pairs, thresholds=rules) == {
        "0": "text-below-min", "1": "text-below-min", "2": "text-below-percentile", "3": None,
    }  # fmt: skip


# --- best of n --------------------------------------------------------------------------------


def group(*ranks: float | None) -> list[Candidate]:
    return [stylized("abcdef"[n], group="g", rank=rank_pairs) for n, rank_pairs in enumerate(ranks)]


def test_the_best_of_a_group_stay() -> None:
    assert reasons(group(0.2, 0.5, 0.4), best_of=1) == {"a": "not-best", "b": None, "c": "not-best"}
    assert reasons(group(0.2, 0.5, 0.4), best_of=2) == {"a": "not-best", "b": None, "c": None}
    assert reasons(group(0.2, 0.5, 0.4), best_of=3) == {"a": None, "b": None, "c": None}


def test_ties_go_to_the_lower_key_and_unranked_ones_last() -> None:
    assert reasons(group(0.5, 0.5, 0.5), best_of=1) == {"a": None, "b": "not-best", "c": "not-best"}
    assert reasons(group(None, NAN, 0.0), best_of=1) == {
        "a": "not-best",
        "b": "not-best",
        "c": None,
    }
    assert reasons(group(None, None), best_of=1) == {"a": None, "b": "not-best"}


def test_each_group_has_its_best_and_pairs_without_one_stay() -> None:
    pairs = [*group(0.1, 0.2), stylized("x", group="other", rank=0.01), stylized("y"), raw("z")]
    found = reasons(pairs, best_of=1)
    assert [key for key, reason in found.items() if reason] == ["a"]


def test_a_dropped_candidate_takes_no_place_in_its_group() -> None:
    pairs = group(0.9, 0.5, 0.4)
    pairs[0].drop("text-below-min")
    assert reasons(pairs, best_of=1) == {"a": "text-below-min", "b": None, "c": "not-best"}


@pytest.mark.parametrize(
    ("text", "style", "mean"),
    [
        (0.5, 0.5, 0.5),
        (0.25, 0.75, 0.375),
        (1.0, 0.0, 0.0),
        (0.0, 0.0, 0.0),
        (-0.5, 0.5, 0.0),
        (None, 0.5, None),
        (0.5, None, None),
        (NAN, 0.5, None),
        (0.5, NAN, None),
    ],
)
def test_the_harmonic_mean(text: float | None, style: float | None, mean: float | None) -> None:
    columns = (np.array([NAN if value is None else value]) for value in (text, style))
    [found] = harmonic_mean(*columns).tolist()
    assert math.isnan(found) if mean is None else found == mean


def test_candidates_are_ranked_by_both_scores_or_by_the_one_there_is() -> None:
    scores: dict[str, float | None] = {"text": 0.3, "style": 0.6, "bad": NAN, "none": None}

    columns = {name: pa.array([value] * 2, pa.float32()) for name, value in scores.items()}

    def ranked(text: str | None, style: str | None) -> list[float]:
        found: list[float] = rank_pairs(columns, np.array([True, False]), text, style).tolist()
        return found

    assert ranked("text", "style") == [pytest.approx(0.4), pytest.approx(0.3)]
    assert ranked("text", None) == [pytest.approx(0.3), pytest.approx(0.3)]
    made, came = ranked(None, "style")
    assert (made, math.isnan(came)) == (pytest.approx(0.6), True)
    for name in ("bad", "none", None):
        assert np.isnan(ranked(name, None)).all()


def test_the_ranking_scores_are_those_asked_for_or_the_first_of_their_kind() -> None:
    scores = [
        {"name": "look", "type": "clip-image"},
        {"name": "stroke", "type": "texture"},
        {"name": "words", "type": "clip-text"},
        {"name": "more", "type": "clip-text"},
    ]
    values: dict[str, Any] = {"name": "test", "raw": [{"type": "mini"}]}
    assert ranking_scores(Recipe.model_validate(values)) == (None, None)
    assert ranking_scores(Recipe.model_validate(values | {"score": scores})) == ("words", "stroke")
    assert ranking_scores(Recipe.model_validate(values | {"score": scores[:1]})) == (None, "look")
    asked = {"text_score": "more", "style_score": "look"}
    asked_for = Recipe.model_validate(values | {"score": scores, "filter": asked})
    assert ranking_scores(asked_for) == ("more", "look")


# --- duplicates -------------------------------------------------------------------------------

EXACT: dict[str, Any] = {"exact": True, "phash_distance": None}
NEAR: dict[str, Any] = {"exact": False, "phash_distance": 4}


def test_the_same_bytes_stay_once() -> None:
    pairs = [raw("a", image_sha256="s"), raw("b", image_sha256="s"), raw("c", image_sha256="s")]
    pairs.append(raw("d"))
    assert reasons(pairs, duplicates=EXACT) == {
        "a": None, "b": "duplicate", "c": "duplicate", "d": None,
    }  # fmt: skip
    assert [pair.duplicate_of for pair in pairs] == [None, "a", "a", None]


def test_pairs_without_an_image_are_no_duplicates() -> None:
    pairs = [raw("a", image_sha256=None), raw("b", image_sha256=None)]
    assert reasons(pairs, duplicates=EXACT) == {"a": None, "b": None}


def test_captions_of_one_image_are_no_duplicates_but_the_same_caption_is() -> None:
    one: dict[str, Any] = {"source": "folder:one.png", "image_sha256": "s"}
    pairs = [
        raw("a", content="a dog", **one),
        raw("b", content="an animal", **one),
        raw("c", content="an animal", **one),  # the second caption again
        raw("d", content="a cat", source="folder:other.png", image_sha256="s"),
    ]
    assert reasons(pairs, duplicates=EXACT) == {
        "a": None, "b": None, "c": "duplicate", "d": "duplicate",
    }  # fmt: skip
    assert [pair.duplicate_of for pair in pairs] == [None, None, "b", "a"]
    for pair in pairs:
        pair.kept, pair.reason, pair.phash, pair.colour = True, None, "0" * 16, GREY
    assert reasons(pairs, duplicates=NEAR) == {
        "a": None, "b": None, "c": "near-duplicate", "d": "near-duplicate",
    }  # fmt: skip


def test_bytes_are_compared_within_raw_and_within_each_reference_only() -> None:
    same = {"image_sha256": "s", "phash": "0" * 16, "colour": GREY}
    for rule, reason in ((EXACT, "duplicate"), (NEAR, "near-duplicate")):
        pairs = [
            raw("r", **same),
            stylized("m", **same),
            stylized("n", reference="neon", **same),
            stylized("o", reference="neon", **same),
        ]
        assert reasons(pairs, duplicates=rule) == {"r": None, "m": None, "n": None, "o": reason}
        assert [pair.duplicate_of for pair in pairs] == [None, None, None, "n"]


def hashed(key: str, bits: int, colour: str = GREY) -> Candidate:
    return raw(key, phash=f"{bits:016x}", colour=colour)


def test_near_duplicates_are_within_the_distance() -> None:
    pairs = [hashed("a", 0), hashed("b", 0b1111), hashed("c", 0b11111), hashed("d", 1 << 63)]
    assert reasons(pairs, duplicates=NEAR) == {
        "a": None, "b": "near-duplicate", "c": None, "d": "near-duplicate",
    }  # fmt: skip
    exact = {"exact": False, "phash_distance": 0}
    pairs = [hashed("a", 5), hashed("b", 5), hashed("c", 4)]
    assert reasons(pairs, duplicates=exact) == {"a": None, "b": "near-duplicate", "c": None}


def test_near_duplicates_have_like_colours() -> None:
    red, like, apart = "c81e1e" * 4, "c81e1e" * 3 + "b81e1e", "c81e1e" * 3 + "b71e1e"
    pairs = [hashed("a", 0, red), hashed("b", 0, apart), hashed("c", 0, like)]
    assert reasons(pairs, duplicates=NEAR) == {"a": None, "b": None, "c": "near-duplicate"}
    assert (
        pairs[2].duplicate_of == "a"
    )  # 16 levels from a, 1 from b: the earlier one keeps its place


def test_a_near_duplicate_takes_no_other_with_it() -> None:
    chain = [hashed("a", 0), hashed("b", 0b1111), hashed("c", 0b11111111)]
    assert reasons(chain, duplicates=NEAR) == {"a": None, "b": "near-duplicate", "c": None}


def test_pairs_without_a_hash_are_no_near_duplicates() -> None:
    assert reasons([raw("a"), raw("b")], duplicates=NEAR) == {"a": None, "b": None}


# --- all rules --------------------------------------------------------------------------------


def test_the_first_verdict_stands() -> None:
    failed = raw("a", 0.0, kept=False, stage="fetch", reason="timeout", image_sha256="s")
    twice = stylized("c", 0.0, image_sha256="s")
    pairs = [failed, stylized("b", 0.9, image_sha256="s"), twice]
    rules = {"thresholds": [{"score": "text", "min": 0.5}], "duplicates": EXACT}
    assert reasons(pairs, **rules) == {"a": "timeout", "b": None, "c": "duplicate"}
    assert (failed.stage, twice.stage) == ("fetch", "filter")


def test_every_rule_together_loses_no_pair_and_names_every_drop() -> None:
    draw = random.Random(7)
    pairs = []
    for number in range(400):
        make = draw.choice([raw, stylized])
        pair = make(
            f"{number:03d}",
            draw.choice([None, NAN, draw.random()]),
            group=None if make is raw else f"g{number // 4}",
            rank=draw.choice([None, draw.random()]),
            image_sha256=f"s{draw.randrange(150)}",
            phash=f"{draw.randrange(64):016x}",
            colour=GREY,
        )
        if draw.random() < 0.1:
            pair.kept, pair.stage, pair.reason = False, "fetch", "timeout"
        pairs.append(pair)
    gone = {pair.key for pair in pairs if not pair.kept}
    found = reasons(
        pairs,
        thresholds=[{"score": "text", "min": 0.1, "percentile": 20}],
        best_of=2,
        duplicates={"exact": True, "phash_distance": 0},
    )
    assert len(found) == 400
    assert all((pair.reason is None) == pair.kept for pair in pairs)
    assert {pair.key for pair in pairs if pair.stage == "fetch"} == gone
    assert set(found.values()) == {
        None, "timeout", "duplicate", "near-duplicate", "not-best", "text-not-a-number",
        "text-below-min", "text-below-percentile",
    }  # fmt: skip


# --- over a corpus ----------------------------------------------------------------------------


def stylized_pair(number: int, candidate: int) -> Pair:
    source = raw_pair(100 + 10 * number + candidate)
    origin = Origin(
        "stylized",
        "synthesizer:test",
        f"content {number}",
        parent=raw_pair(number).key,
        reference="mosaic",
        reference_sha256="0" * 64,
        details={"group": f"group {number}"},
    )
    return Pair(source.key, source.caption, source.image, origin)


def write_scores(corpus: Path, kind: ShardKind, pairs: list[Pair], **columns: list[Any]) -> None:
    """Score files of shard 0: text, style; hashes that are far from each other."""
    keys = [pair.key for pair in pairs]
    for name, values in columns.items():
        table = pa.table({"key": keys, name: pa.array(values, pa.float32())})
        write_table(score_path(corpus, name, kind, 0), table)
    hashes = [f"{(2**8 - 1) << 8 * n:016x}" for n in range(len(pairs))]
    table = pa.table({"key": keys, "phash": hashes, "colour": [GREY] * len(pairs)})
    write_table(score_path(corpus, "phash", kind, 0), table)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Three raw pairs, one without an image, and two groups of two candidates, with scores."""
    pairs = [raw_pair(0), raw_pair(1), raw_pair(2, image=False)]
    write_shard(tmp_path / "raw", 0, pairs)
    write_scores(tmp_path, "raw", pairs, text=[0.5, 0.25, None], style=[None] * 3)
    pairs = [stylized_pair(n, candidate) for n in (0, 1) for candidate in (0, 1)]
    write_shard(tmp_path / "stylized", 0, pairs)
    text, style = [0.5, 0.25, 0.7, 0.75], [0.5, 0.75, 0.7, 0.25]
    write_scores(tmp_path, "stylized", pairs, text=text, style=style)
    return tmp_path


def verdicts(corpus: Path) -> list[tuple[bool, str | None, str | None]]:
    rows = read_table(corpus / "verdicts.parquet").to_pylist()
    return [(row["kept"], row["stage"], row["reason"]) for row in rows]


def test_a_corpus_is_judged_pair_by_pair(corpus: Path) -> None:
    table = filter_corpus(corpus, recipe(best_of=1))
    keep, lose = (True, None, None), (False, "filter", "not-best")
    assert verdicts(corpus) == [keep, keep, (False, "fetch", "timeout"), keep, lose, keep, lose]
    ranks = [0.5, 0.25, None, 0.5, 0.375, pytest.approx(0.7), 0.375]
    assert table["rank"].to_pylist() == ranks
    assert table["group"].to_pylist() == [None] * 3 + ["group 0"] * 2 + ["group 1"] * 2
    assert table.column_names == [
        "key", "kept", "stage", "reason", "group", "duplicate_of", "rank", "score.text", "score.style",
    ]  # fmt: skip


def test_another_threshold_touches_no_image(corpus: Path) -> None:
    """There are no tars left that could be touched."""
    for path in corpus.rglob("*.tar"):
        path.unlink()
    before = {path: path.read_bytes() for path in corpus.rglob("*.parquet")}
    filter_corpus(corpus, recipe(thresholds=[{"score": "text", "min": 0.5}]))
    assert [kept for kept, _, _ in verdicts(corpus)] == [
        True,
        False,
        False,
        True,
        False,
        True,
        True,
    ]
    filter_corpus(corpus, recipe(thresholds=[{"score": "text", "min": 0.2}]))
    assert [kept for kept, _, _ in verdicts(corpus)] == [True, True, False, True, True, True, True]
    assert {path: path.read_bytes() for path in before} == before


def test_a_score_that_equals_the_threshold_as_written_is_kept(corpus: Path) -> None:
    """0.7 as a 32-bit float lies below 0.7; scores are compared with the decimals they have."""
    filter_corpus(corpus, recipe(thresholds=[{"score": "text", "min": 0.7}]))
    assert [reason for _, _, reason in verdicts(corpus)][3:] == [
        "text-below-min", "text-below-min", None, None,
    ]  # fmt: skip
    filter_corpus(corpus, recipe(thresholds=[{"score": "text", "max": 0.7}]))
    assert [reason for _, _, reason in verdicts(corpus)][5:] == [None, "text-above-max"]


def test_scores_come_back_with_their_decimals_and_gaps(corpus: Path) -> None:
    pairs = [raw_pair(0), raw_pair(1), raw_pair(2, image=False)]
    write_scores(corpus, "raw", pairs, text=[0.12345, NAN, None], style=[None] * 3)
    found = gather_rows(corpus, recipe())[1].scores["text"].slice(0, 3)
    assert to_float64(found)[0] == 0.12345
    assert np.isnan(to_float64(found)).tolist() == [False, True, True]
    assert found.is_valid().to_pylist() == [True, True, False]


def test_a_dry_run_tells_the_funnel_and_writes_nothing(corpus: Path) -> None:
    (corpus / "recipe.yaml").write_text(dump_recipe(recipe(best_of=1)))
    before = tree(corpus)
    words = ["filter", "--out", str(corpus), "--dry-run", "--json"]
    words += ["--set", "filter.thresholds=[{score: text, min: 0.3}]"]
    done = CliRunner().invoke(stylear.curate.cli.app, words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {
        "funnel": [
            {"verdict": "kept", "raw": 1, "stylized": 2, "pairs": 3},
            {"verdict": "not-best", "raw": 0, "stylized": 1, "pairs": 1},
            {"verdict": "text-below-min", "raw": 1, "stylized": 1, "pairs": 2},
            {"verdict": "timeout", "raw": 1, "stylized": 0, "pairs": 1},
        ],
        "kept": {"pairs": 3, "contents": 3, "styles": 1},
    }
    assert tree(corpus) == before


def test_missing_and_strange_scores_are_named(corpus: Path) -> None:
    path = score_path(corpus, "style", "stylized", 0)
    table = read_table(path)
    write_table(path, table.slice(1))
    with pytest.raises(
        CorpusError, match=r"style/stylized-00000\.parquet: its pairs differ from those"
    ):
        filter_corpus(corpus, recipe())
    write_table(path, table.rename_columns(["key", "other"]))
    with pytest.raises(CorpusError, match=r"expected a column 'style', found key, other"):
        filter_corpus(corpus, recipe())
    path.unlink()
    with pytest.raises(CorpusError, match=r"expected scores, found none") as caught:
        filter_corpus(corpus, recipe())
    assert caught.value.hint == "run `stylear curate score` on this corpus first"
    assert not (corpus / "verdicts.parquet").exists()


def test_a_key_that_is_raw_and_stylized_is_refused(corpus: Path) -> None:
    pairs = [raw_pair(0), raw_pair(1)]
    write_shard(corpus / "stylized", 0, pairs)
    write_scores(corpus, "stylized", pairs, text=[0.5] * 2, style=[0.5] * 2)
    with pytest.raises(CorpusError, match="2 keys come twice in raw and stylized"):
        filter_corpus(corpus, recipe())


def test_the_same_input_gives_the_same_verdicts_file(corpus: Path) -> None:
    filter_corpus(corpus, recipe(best_of=1))
    first = (corpus / "verdicts.parquet").read_bytes()
    filter_corpus(corpus, recipe(best_of=2))
    assert (corpus / "verdicts.parquet").read_bytes() != first
    filter_corpus(corpus, recipe(best_of=1))
    assert (corpus / "verdicts.parquet").read_bytes() == first
    assert json.loads(read_table(corpus / "raw/00000.parquet")["details"][0].as_py())["place"] == 0
