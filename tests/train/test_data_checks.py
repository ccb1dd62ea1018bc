"""Data that a run should not start with is said before the first step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from builders.tiny_corpus import CAPTIONS, STYLES, pair, write_tiny_corpus
from builders.tiny_model import write_tiny_model
from builders.wide_pictures import wide_pair

from stylear.curate.corpus.shards import write_shard
from stylear.errors import CorpusError, UsageError
from stylear.model.open import load_model
from stylear.model.style_model import StyleModel
from stylear.pair import Pair
from stylear.train.data import EncodedSet, open_encoded
from stylear.train.data_checks import check_data, count_image_tokens


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StyleModel:
    root = tmp_path_factory.mktemp("checks")
    write_tiny_model(root / "model")
    return load_model(root / "model")


def open_pairs(model: StyleModel, root: Path, pairs: list[Pair]) -> EncodedSet:
    write_shard(root / "corpus" / "train", 0, pairs)
    return open_encoded(model, [root / "corpus"], "train", root / "encoded")


def test_a_usual_corpus_has_no_warnings(model: StyleModel, tmp_path: Path) -> None:
    write_tiny_corpus(tmp_path / "corpus")
    data = open_encoded(model, [tmp_path / "corpus"], "train", tmp_path / "encoded")
    assert check_data(data, 4, "sibling") == []
    assert check_data(data, 4, "self") == []


def test_a_corpus_of_one_style_is_said(model: StyleModel, tmp_path: Path) -> None:
    data = open_pairs(model, tmp_path, [pair(c, "warm", i) for i, c in enumerate(CAPTIONS)])
    [warning] = check_data(data, 4, "self")
    assert warning.startswith("all 4 pairs show one style (warm);")


def test_styles_without_siblings_are_refused_or_said(model: StyleModel, tmp_path: Path) -> None:
    lone = [pair(CAPTIONS[0], style, i) for i, style in enumerate(STYLES)]
    data = open_pairs(model, tmp_path, [*lone, pair(CAPTIONS[1], None, 9)])
    with pytest.raises(CorpusError, match="found 2 styles, none with more than one image"):
        check_data(data, 2, "sibling")
    assert check_data(data, 2, "self") == []
    more = open_pairs(model, tmp_path, [*lone, pair(CAPTIONS[1], STYLES[0], 9)])
    [warning] = check_data(more, 2, "sibling")
    assert warning == "style_from sibling: 1 of 2 styles have one image, which is its own sibling"


def test_prompts_beyond_the_context_are_counted_and_the_longest_named(
    model: StyleModel, tmp_path: Path
) -> None:
    captions = ["a cat", "a cat " * 30, "a cat " * 20]
    pairs = [pair(caption, None, i) for i, caption in enumerate(captions)]
    data = open_pairs(model, tmp_path, pairs)
    lengths = [
        len(model.encode_prompt(caption)) + count_image_tokens(model, (4, 4))
        for caption in captions
    ]
    config = model.decoder.config
    model.decoder.config = replace(config, max_position_embeddings=lengths[2] - 1)
    try:
        [warning] = check_data(data, 2, "self")
        model.decoder.config = replace(config, max_position_embeddings=lengths[1])
        assert check_data(data, 2, "self") == []
        model.decoder.config = replace(config, max_position_embeddings=20)
        with pytest.raises(UsageError, match=r"expected images of at most 20 tokens, .* found 24"):
            check_data(data, 2, "self")
    finally:
        model.decoder.config = config
    assert warning.startswith(
        f"2 of 3 sequences exceed the context of model, {lengths[2] - 1} tokens"
    )
    assert f"of {pairs[1].key}, has {lengths[1]}." in warning


def test_a_bucket_smaller_than_a_batch_is_said(model: StyleModel, tmp_path: Path) -> None:
    model.layout.vocabulary["<reserved08801>"] = model.layout.vocabulary["<reserved08802>"]
    pairs = [wide_pair(number, (32, 32 if number else 16)) for number in range(5)]
    write_shard(tmp_path / "corpus" / "train", 0, pairs)
    data = open_encoded(
        model, [tmp_path / "corpus"], "train", tmp_path, buckets=[(32, 32), (16, 32)]
    )
    [warning] = check_data(data, 4, "self")
    assert warning.startswith("buckets: batch_size 4 is more than the 1 pairs of 2x4 codes;")
