"""Stop before a step whose loss or gradients are not finite."""

from __future__ import annotations

import math
from collections.abc import Sequence

from stylear.errors import TrainingError
from stylear.train.data import EncodedSet, TrainingBatch
from stylear.train.distributed import Ranks

KEYS_SHOWN = 8


def require_finite(
    step: int,
    loss: float,
    norm: float,
    losses: Sequence[float],
    batches: Sequence[TrainingBatch],
    data: EncodedSet,
    ranks: Ranks,
) -> None:
    """Raise TrainingError with the keys of the batch if its loss or gradients are not finite.

    `loss` and `norm` (of the gradients) are those of all ranks, `losses` those of `batches`, the parts of
    this rank. Named are the pairs of the parts whose loss is not finite, or all pairs if it is the gradients.
    """
    if math.isfinite(loss) and math.isfinite(norm):
        return
    suspects = [
        batch for loss, batch in zip(losses, batches, strict=True) if not math.isfinite(loss)
    ]
    own = [key for batch in suspects for key in data.read_column("key", batch.rows)]
    everything = [key for batch in batches for key in data.read_column("key", batch.rows)]
    keys = [key for rank in ranks.gather(own) for key in rank]
    what, verb = ("a loss", "is") if keys else ("gradients", "are")
    keys = keys or [key for rank in ranks.gather(everything) for key in rank]
    more = f" and {len(keys) - KEYS_SHOWN} more" if len(keys) > KEYS_SHOWN else ""
    raise TrainingError(
        f"step {step}: expected finite numbers, found {what} that {verb} infinite or not a number (loss"
        f" {loss:g}, gradient norm {norm:g}); stopped before the step. Pairs:"
        f" {', '.join(keys[:KEYS_SHOWN])}{more}",
        hint="look at the pairs with `stylear curate explain`; if they are sound, lower lr or raise warmup",
    )


def require_finite_step(step: int, loss: float, norm: float, examples: Sequence[str]) -> None:
    """Raise TrainingError naming the examples of the batch if its loss or gradients are not finite."""
    if math.isfinite(loss) and math.isfinite(norm):
        return
    more = f" and {len(examples) - KEYS_SHOWN} more" if len(examples) > KEYS_SHOWN else ""
    raise TrainingError(
        f"step {step}: expected finite numbers, found loss {loss:g} and gradient norm {norm:g}; stopped"
        f" before the step. Its examples: {', '.join(examples[:KEYS_SHOWN])}{more}",
        hint="look at them; if they are sound, lower lr or beta, or raise warmup",
    )
