"""The validation loss is that of every held-out pair, by kind and by style."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from builders.tiny_corpus import CAPTIONS, pair, write_tiny_corpus
from builders.tiny_model import write_tiny_model
from builders.tiny_training import sft_settings

from stylear.curate.corpus.shards import write_shard
from stylear.model.open import load_model
from stylear.train.data import open_encoded
from stylear.train.distributed import Ranks
from stylear.train.forward import compute_logits
from stylear.train.validation import choose_batches, open_validation, validate


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("validation")
    write_tiny_corpus(root / "corpus")
    styles = ["warm", "warm", "cold", None]
    pairs = [pair(CAPTIONS[i % 4], styles[i % 4], 300 + i) for i in range(7)]
    write_shard(root / "corpus" / "val", 0, pairs)
    write_tiny_model(root / "model")
    return root


def test_losses_by_kind_and_style_are_means_of_their_pairs(place: Path) -> None:
    model = load_model(place / "model")
    settings = sft_settings(place, "unused", batch_size=3)
    validation = open_validation(model, settings, place / "encoded")
    assert validation is not None
    losses = validate(model, validation, settings, Ranks())
    assert sorted(losses) == [
        "validation_loss",
        "validation_loss/cold",
        "validation_loss/warm",
        "validation_loss_raw",
        "validation_loss_stylized",
    ]
    model.decoder.eval()
    each = []
    for row in range(7):
        batch = validation.build_batch(np.array([row]))
        with torch.no_grad():
            logits = compute_logits(model, batch, "fp32")
        each.append(torch.nn.functional.cross_entropy(logits, batch.batch.codes).item())
    kinds, groups = validation.read_column("kind"), validation.read_column("group")
    for name, chosen in {
        "validation_loss": each,
        "validation_loss_raw": [x for x, kind in zip(each, kinds, strict=True) if kind == "raw"],
        "validation_loss/warm": [
            x for x, group in zip(each, groups, strict=True) if group == "warm"
        ],
    }.items():
        assert losses[name] == pytest.approx(sum(chosen) / len(chosen), rel=1e-5)
    assert len(set(losses.values())) == 5


def test_a_large_split_is_sampled_evenly_and_the_same_each_time(place: Path) -> None:
    model = load_model(place / "model")
    data = open_encoded(model, [place / "corpus"], "train", place / "encoded", copies=1)
    chosen = choose_batches(data, 1)
    assert [rows.tolist() for rows in chosen] == [[0], [1], [3], [4], [6], [7], [9], [10]]
