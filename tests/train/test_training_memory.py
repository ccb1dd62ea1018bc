"""Memory is estimated before the first step, and an error says what would fit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stylear.errors import UsageError
from stylear.train.memory import StepShape, estimate_step_bytes, require_memory
from stylear.train.throughput import GIB

DECODER, RESAMPLER, LORA = 7_010_000_000, 609_000_000, 6_400_000
CHAMELEON = StepShape(
    sequences=4,
    tokens=2392,
    codes=2304,
    hidden=4096,
    intermediate=11008,
    blocks=32,
    num_codes=8192,
    frozen_bytes=2 * DECODER,
    trained=RESAMPLER + LORA,
    trained_bytes=16,
    activation_bytes=2,
    checkpoint_every=1,
)


def test_estimates_are_close_to_what_was_measured() -> None:
    assert estimate_step_bytes(CHAMELEON) / GIB == pytest.approx(26.1, rel=0.05)
    fp32 = replace(CHAMELEON, sequences=2, frozen_bytes=4 * DECODER, activation_bytes=4)
    assert estimate_step_bytes(fp32) / GIB == pytest.approx(38.3, rel=0.05)


def test_checkpointing_every_other_block_keeps_half_of_the_rest() -> None:
    kept = [
        estimate_step_bytes(replace(CHAMELEON, checkpoint_every=every)) / GIB for every in (1, 2, 0)
    ]
    assert kept == sorted(kept)
    assert kept[1] - kept[0] == pytest.approx((kept[2] - kept[0]) / 2, rel=0.05)


def test_too_little_memory_names_what_would_fit() -> None:
    plain = replace(CHAMELEON, checkpoint_every=0)
    require_memory(plain, 90 * GIB, 1)
    with pytest.raises(
        UsageError, match=r"expected about 76\.2 GiB .* 4 x 2392 tokens, found 38\.0"
    ) as raised:
        require_memory(plain, 40 * GIB, 1)
    assert raised.value.hint == ("what would fit: --checkpoint-blocks all or --accumulate 4")
    with pytest.raises(UsageError) as raised:
        require_memory(plain, int(26.5 * GIB), 2)
    assert raised.value.hint == "what would fit: --accumulate 4 --checkpoint-blocks all"
    with pytest.raises(UsageError) as raised:
        require_memory(replace(plain, is_bf16_base=True), 24 * GIB, 1)
    assert raised.value.hint == "what would fit: --base-dtype int8 --checkpoint-blocks all"
    with pytest.raises(UsageError) as raised:
        require_memory(plain, 12 * GIB, 1)
    assert raised.value.hint == "nothing smaller fits: use a larger GPU or --shard-base"
