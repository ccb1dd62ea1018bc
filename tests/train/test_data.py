"""Batches of ranks, dropout, and what a step depends on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from builders.tiny_corpus import pair
from builders.wide_pictures import wide_pair

from stylear.curate.corpus.shards import write_shard
from stylear.errors import UsageError
from stylear.model.open import load_model
from stylear.train.data import Dropout, EncodedSet, TrainingBatch, open_encoded


@pytest.fixture(scope="module")
def data(place: Path) -> EncodedSet:
    model = load_model(place / "model")
    return open_encoded(model, [place / "corpus"], "train", place / "encoded", copies=2)


def build(data: EncodedSet, step: int, size: int, rank: int = 0, ranks: int = 1) -> TrainingBatch:
    return data.build_step_batch(
        3, step, size, dropout=0.3, style_from="sibling", rank=rank, world_size=ranks
    )


def put_together(parts: list[TrainingBatch]) -> tuple[list[list[int]], torch.Tensor, list[int]]:
    """Unpadded ids, features and codes of the batches of all ranks."""
    ids = [
        row[:length].tolist()
        for part in parts
        for row, length in zip(part.batch.ids, part.batch.lengths, strict=True)
    ]
    features = torch.cat([part.features for part in parts if part.features is not None])
    return ids, features, torch.cat([part.batch.codes for part in parts]).tolist()


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_ranks_together_have_the_batch_of_one_process(data: EncodedSet, ranks: int) -> None:
    for step in range(3):
        whole = build(data, step, 5)
        parts = [build(data, step, 5, rank, ranks) for rank in range(ranks)]
        (ids, features, codes), (own_ids, own_features, own_codes) = map(
            put_together, ([whole], parts)
        )
        assert (own_ids, own_codes) == (ids, codes)
        assert torch.equal(own_features, features)
        for name in ("rows", "positions", "styled_positions"):
            joined = np.concatenate([getattr(part, name) for part in parts])
            assert joined.tolist() == getattr(whole, name).tolist()
        assert {part.repeated_pairs for part in parts} == {whole.repeated_pairs}


def test_a_run_resumed_by_another_number_of_ranks_has_the_same_next_batches(
    data: EncodedSet,
) -> None:
    before = [
        row for step in range(2) for rank in (0, 1) for row in build(data, step, 5, rank, 2).rows
    ]
    after = [
        row for step in (2, 3) for rank in range(3) for row in build(data, step, 5, rank, 3).rows
    ]
    alone = [row for step in range(4) for row in build(data, step, 5).rows]
    assert before + after == alone
    assert sorted(alone[:12]) == list(range(12))


def test_a_batch_smaller_than_the_number_of_processes_is_refused(data: EncodedSet) -> None:
    with pytest.raises(UsageError, match=r"batch_size: .* each of 4 processes, found 3"):
        build(data, 0, 3, 0, 4)


def test_style_text_and_both_are_dropped_independently(data: EncodedSet) -> None:
    layout = data.model.layout
    for dropout, styled, prompt in (
        (Dropout(both=1.0), False, []),
        (Dropout(style=1.0, text=1.0), False, []),
        (Dropout(style=1.0), False, data.model.encode_prompt("a house", style=False)),
        (Dropout(text=1.0), True, data.model.encode_prompt("")),
    ):
        rows = np.array([data.read_column("caption").index("a house")])
        batch = data.build_batch(rows, dropout=dropout)
        assert batch.batch.styled.tolist() == [styled]
        assert batch.features is not None
        assert len(batch.features) == styled
        length = len(prompt)
        assert batch.batch.ids[0, :length].tolist() == prompt
        assert batch.batch.ids[0, length] == layout.image_start


def test_rows_split_into_batches_cover_the_set_once(data: EncodedSet) -> None:
    sizes = [rows.tolist() for rows in data.split_rows(5)]
    assert sizes == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]


def test_a_sibling_is_another_image_of_the_same_known_style(data: EncodedSet) -> None:
    rng = np.random.default_rng(0)
    groups = data.read_column("group")
    for row in range(12):
        siblings = set(data.styles.draw_siblings(np.full(40, row), rng).tolist())
        same = {other for other, name in enumerate(groups) if name == groups[row]}
        assert siblings == (same - {row} if groups[row] else {row})
    assert sorted(map(len, data.groups.values())) == [4, 4, 4]


def test_computed_features_equal_those_on_disk(
    data: EncodedSet, place: Path, tmp_path: Path
) -> None:
    corpus = place / "corpus"
    computed = open_encoded(data.model, [corpus], "train", tmp_path, features="compute")
    assert not list(tmp_path.rglob("features.npy"))
    rows = np.array([5, 0, 11])
    torch.testing.assert_close(
        computed.read_features(rows), data.read_features(rows), atol=2e-3, rtol=0
    )
    assert computed.read_features([]).shape == data.read_features([]).shape


def test_corpora_are_mixed_by_their_weights(place: Path, tmp_path: Path) -> None:
    write_shard(tmp_path / "small" / "train", 0, [pair("a cat", None, 1), pair("a cow", None, 2)])
    model = load_model(place / "model")
    corpora = [place / "corpus", tmp_path / "small"]
    mixed = open_encoded(model, corpora, "train", tmp_path, features="compute", weights=(1, 1))
    rows = np.concatenate([mixed.draw_rows(0, step, 7) for step in range(8)])
    assert (rows < 12).sum() == (rows >= 12).sum() == 28
    assert sorted(mixed.read_column("caption", [12, 13])) == ["a cat", "a cow"]
    assert mixed.read_features([13, 0]).shape[0] == 2
    with pytest.raises(UsageError, match="corpus_weights: expected one for each of 2 corpora"):
        open_encoded(model, corpora, "train", tmp_path, weights=(1,))


def test_a_batch_has_one_grid_and_every_pair_comes_once(place: Path, tmp_path: Path) -> None:
    sizes = [(32, 32), (32, 16)] * 4
    pairs = [wide_pair(number, size) for number, size in enumerate(sizes)]
    write_shard(tmp_path / "corpus" / "train", 0, pairs)
    model = load_model(place / "model")
    model.layout.vocabulary["<reserved08801>"] = model.layout.vocabulary["<reserved08802>"]
    mixed = open_encoded(
        model, [tmp_path / "corpus"], "train", tmp_path, buckets=[(32, 32), (16, 32)]
    )
    batches = [mixed.build_step_batch(0, step, 2) for step in range(4)]
    assert sorted(row for batch in batches for row in batch.rows) == list(range(8))
    assert sorted(len(batch.batch.codes) for batch in batches) == [16, 16, 32, 32]
