"""A batch that does not fit into memory names the batch size that does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from builders.tiny_model import write_tiny_base

from stylear.errors import UsageError
from stylear.model.decoder_config import DecoderConfig
from stylear.sampling.batch_memory import count_cache_bytes, require_batch_memory
from stylear.sampling.generate import generate
from stylear.weights import memory

GPU = torch.device("cuda")
SLOTS = 70 + 2355  # a prompt and a picture of 768 px: 2,560 slots


def test_a_row_of_chameleon_7b_takes_1342_megabytes_at_768_px() -> None:
    assert count_cache_bytes(DecoderConfig(), SLOTS, torch.bfloat16) == 2 * 32 * 4096 * 2560 * 2
    grouped = DecoderConfig(num_key_value_heads=8)
    assert count_cache_bytes(grouped, SLOTS, torch.float32) == 2 * 32 * 1024 * 2560 * 4


def test_the_batch_size_that_fits_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    free = [9 * 10**9]
    monkeypatch.setattr(memory, "measure_free_memory", lambda device: free[0])

    def require(pictures: int, sides: int) -> None:
        require_batch_memory(
            DecoderConfig(), pictures, SLOTS, sides=sides, dtype=torch.bfloat16, device=GPU
        )

    require(3, sides=2)
    require(6, sides=1)
    require(2, sides=3)
    with pytest.raises(UsageError) as caught:
        require(4, sides=2)
    assert caught.value.message == (
        "batch of 4 pictures: expected 10.7 GB of GPU memory for keys and values, found 9.0 GB free"
    )
    assert caught.value.hint == "--batch-size 3 fits"
    free[0] = 10**9
    with pytest.raises(UsageError) as caught:
        require(1, sides=2)
    assert "a picture takes 2.7 GB" in (caught.value.hint or "")
    with pytest.raises(UsageError) as caught:
        require_batch_memory(
            DecoderConfig(),
            4,
            SLOTS,
            sides=2,
            dtype=torch.bfloat16,
            device=GPU,
            quantization_frees=6 * 10**9,
        )
    assert (caught.value.hint or "").endswith("; with --quantize int8 --batch-size 2 fits")


def test_generate_checks_before_it_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_tiny_base(tmp_path / "base")
    monkeypatch.setattr(memory, "measure_free_memory", lambda device: 1000)
    with pytest.raises(UsageError, match=r"batch of 2 pictures: expected 0\.0 GB of main memory"):
        generate(model, ["a cat", "a dog"], seeds=[0, 1])
