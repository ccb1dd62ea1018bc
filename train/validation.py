"""The loss on the held-out split: of all its pairs, by kind, and by held-out style."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from stylear.model.style_model import StyleModel
from stylear.train.data import EncodedSet, Rows, open_encoded
from stylear.train.distributed import Ranks
from stylear.train.forward import compute_logits
from stylear.train.losses import sequence_log_probs
from stylear.train.settings import SftSettings

VALIDATION_BATCHES = 8
LOSS = "validation_loss"


def open_validation(model: StyleModel, settings: SftSettings, cache: Path) -> EncodedSet | None:
    """The encoded val split; None if no corpus has one."""
    corpora = [corpus for corpus in settings.corpus if any((corpus / "val").glob("*.tar"))]
    if not corpora:
        return None
    return open_encoded(
        model, corpora, "val", cache, features=settings.features, buckets=settings.buckets
    )


@torch.no_grad()
def validate(
    model: StyleModel, validation: EncodedSet, settings: SftSettings, ranks: Ranks
) -> dict[str, float]:
    """Mean losses in nats per code over the same pairs at every call, without noise or dropout.

    `validation_loss` is that of all pairs, `validation_loss_raw` and `validation_loss_stylized` are those by
    kind, `validation_loss/STYLE` is that of each held-out style.
    """
    model.decoder.eval()
    batches = choose_batches(validation, settings.batch_size)
    names = sorted(
        {name for rows in batches for each in name_losses(validation, rows) for name in each}
    )
    sums = dict.fromkeys(names, 0.0)
    counts = dict.fromkeys(names, 0.0)
    # ranks take turns; all run equally often, as a sharded base needs them to
    for first in range(0, len(batches), ranks.world_size):
        number = first + ranks.rank
        rows = batches[number % len(batches)]
        batch = validation.build_batch(rows, style_from=settings.style_from)
        logits = compute_logits(model, batch, settings.precision)
        codes, code_rows = (x.to(logits.device) for x in (batch.batch.codes, batch.batch.code_rows))
        losses = -sequence_log_probs(logits, codes, code_rows, len(rows)) / (len(codes) / len(rows))
        if number >= len(batches):
            continue
        for loss, of_row in zip(losses.tolist(), name_losses(validation, rows), strict=True):
            for name in of_row:
                sums[name] += loss
                counts[name] += 1
    model.decoder.train()
    totals = ranks.sum([*sums.values(), *counts.values()])
    return {
        name: total / count
        for name, total, count in zip(names, totals, totals[len(names) :], strict=False)
    }


def choose_batches(validation: EncodedSet, batch_size: int) -> list[Rows]:
    """At most VALIDATION_BATCHES batches of rows, spread evenly over the split."""
    batches = list(validation.split_rows(batch_size))
    count = min(VALIDATION_BATCHES, len(batches))
    return [batches[number * len(batches) // count] for number in range(count)]


def name_losses(validation: EncodedSet, rows: Rows) -> Iterator[list[str]]:
    """The names of the losses that each row counts in."""
    kinds = validation.read_column("kind", rows)
    for kind, group in zip(kinds, validation.read_column("group", rows), strict=True):
        by_style = [f"{LOSS}/{group}"] if kind == "stylized" else []
        yield [LOSS, f"{LOSS}_{kind}", *by_style]
