"""CLIP scores against open_clip used by hand, and what one pass shares."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from builders.scored_pairs import (
    FAILED,
    PHASH,
    RAW,
    REFERENCES,
    STYLIZED,
    TEXTURE,
    ByHand,
    clip_image,
    clip_text,
    scored,
    swept,
)
from PIL import Image

from stylear.curate.score import compute_scorer_fingerprint, open_scorer
from stylear.curate.score.scorer import Context
from stylear.curate.score.sweep import ShardToScore, score_shards
from stylear.errors import WeightsError
from stylear.pair import Pair


def test_the_text_score_is_open_clip_used_by_hand(clip: Path) -> None:
    by_hand = ByHand(clip)
    expected = [float(by_hand.image(p.image) @ by_hand.text(p.caption).T) for p in RAW]
    scores = scored(clip_text(clip), RAW)
    assert scores["key"].to_pylist() == [p.key for p in RAW]
    assert scores["text"].to_pylist() == pytest.approx(expected, abs=6e-6)  # half of 5 decimals
    assert len({round(value, 3) for value in expected}) == len(RAW)  # five different scores


def test_the_style_score_is_open_clip_used_by_hand(clip: Path) -> None:
    by_hand = ByHand(clip)
    images = {r.id: by_hand.image(r.image) for r in REFERENCES}
    expected = [float(by_hand.image(p.image) @ images[str(p.origin.reference)].T) for p in STYLIZED]
    scores = scored(clip_image(clip), STYLIZED)["look"].to_pylist()
    assert scores == pytest.approx(expected, abs=6e-6)


def test_batches_move_a_score_by_its_last_digit_at_most(clip: Path) -> None:
    pairs = [*RAW, *STYLIZED]
    single = scored(clip_text(clip, batch_size=1), pairs)["text"].to_pylist()
    for size in (3, 64):
        scores = scored(clip_text(clip, batch_size=size), pairs)["text"].to_pylist()
        assert scores == pytest.approx(single, abs=1.1e-5)


Seen = list[int]


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """The sizes of the batches of images that were embedded, by a CLIP whose embeddings depend plainly
    on how many are computed together."""
    from stylear.encoders.clip import ClipEncoder

    seen: Seen = []
    embed = ClipEncoder.embed_images

    def uneven(self: ClipEncoder, pixels: torch.Tensor) -> torch.Tensor:
        seen.append(len(pixels))
        return embed(self, pixels) * (1 + len(pixels) / 10)

    monkeypatch.setattr(ClipEncoder, "embed_images", uneven)
    return seen


def test_what_runs_beside_it_or_ran_before_decides_no_score(clip: Path, batches: Seen) -> None:
    text, look = clip_text(clip, batch_size=2), clip_image(clip, batch_size=2)
    alone = {spec.name: swept([spec], STYLIZED)[spec.name] for spec in (text, look)}
    worker = Context(REFERENCES)
    swept([look], STYLIZED[:3], worker)  # another shard, of the same references
    swept([text, TEXTURE], STYLIZED[1:], worker)
    batches.clear()
    assert swept([look, TEXTURE, text, PHASH], STYLIZED, worker) == {
        **swept([PHASH, TEXTURE], STYLIZED),
        **alone,
    }
    assert batches == [2, 2, 1]


def test_scorers_of_one_model_embed_an_image_once_and_a_reference_once(
    clip: Path, batches: Seen
) -> None:
    worker = Context(REFERENCES)
    swept([clip_text(clip)], STYLIZED, worker)
    assert batches == [5]
    swept([clip_text(clip), clip_image(clip)], STYLIZED, worker)
    assert batches == [5, 5, 1, 1]  # the two references, each alone
    swept([clip_text(clip), clip_image(clip)], STYLIZED, worker)
    assert batches == [5, 5, 1, 1, 5]


def test_batches_are_of_images_so_that_failed_downloads_leave_no_gaps(
    clip: Path, batches: Seen
) -> None:
    failed = [replace(FAILED, key=f"{n:032d}") for n in range(3)]
    swept([clip_text(clip, batch_size=2)], [RAW[0], *failed, RAW[1], RAW[2]])
    assert batches == [2, 1]


def test_a_raw_shard_has_no_style_and_is_not_embedded_for_it(clip: Path, batches: Seen) -> None:
    assert scored(clip_image(clip), RAW)["look"].to_pylist() == [None] * len(RAW)
    assert batches == []


def test_an_image_is_decoded_once_for_all_scorers(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stylear.curate.score import sweep as module

    decoded: list[str] = []
    decode = module.decode_pair_image

    def counted(pair: Pair) -> Image.Image:
        decoded.append(pair.key)
        return decode(pair)

    monkeypatch.setattr(module, "decode_pair_image", counted)
    swept([clip_text(clip), clip_image(clip), TEXTURE, PHASH], STYLIZED)
    assert sorted(decoded) == sorted(pair.key for pair in STYLIZED)


def test_shards_of_one_sweep_are_scored_as_each_would_be_alone(clip: Path, batches: Seen) -> None:
    context = Context(REFERENCES)
    scorers = [open_scorer(spec, context) for spec in (clip_text(clip, batch_size=2), PHASH)]
    parts = [RAW[:3], [], [FAILED], RAW[3:]]
    shards = [ShardToScore("raw", iter(part), scorers) for part in parts]
    results = score_shards(shards, context, lambda number, tables: (number, tables))
    alone = [swept([clip_text(clip, batch_size=2), PHASH], part) for part in parts]
    assert results == list(enumerate(alone))
    assert batches[:3] == [2, 1, 2]  # no batch crosses a border


def test_a_model_that_is_not_there_is_named_before_anything_is_scored(tmp_path: Path) -> None:
    spec = clip_text(tmp_path / "absent")
    with pytest.raises(WeightsError, match="absent"):
        compute_scorer_fingerprint(spec)
    with pytest.raises(WeightsError, match="absent"):
        open_scorer(spec, Context(REFERENCES))
