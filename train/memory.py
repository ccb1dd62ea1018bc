"""Memory of a training step, estimated before the first one.

B sequences of a part of the batch, T their tokens, N their image codes, D hidden, I intermediate, L blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from stylear.errors import UsageError
from stylear.model.layout import Batch
from stylear.model.style_model import StyleModel
from stylear.train.data import TrainingBatch
from stylear.train.distributed import Ranks
from stylear.train.precision import choose_base_format
from stylear.train.settings import SftSettings
from stylear.train.throughput import GIB

INT8_SHARE = 0.55  # of a bf16 base is what it takes in 8 bits: head, embeddings and VQ model stay
RESERVE = 0.05  # of the memory: fragments, kernels' work space, what torch itself needs


@dataclass(frozen=True)
class StepShape:
    """Inputs of the memory estimate of a step; bytes of the frozen and numbers of trained parameters."""

    sequences: int  # B
    tokens: int  # T
    codes: int  # N of one sequence
    hidden: int
    intermediate: int
    blocks: int
    num_codes: int  # image codes in the vocabulary
    frozen_bytes: int
    trained: int
    trained_bytes: (
        int  # of a trained parameter: itself, its gradient, the optimiser's state, its average
    )
    activation_bytes: int  # of a number: 2 in bf16, 4 in fp32
    checkpoint_every: int  # 0: none
    is_bf16_base: bool = False


def estimate_step_bytes(shape: StepShape) -> int:
    """Peak bytes of a step: weights, gradients and optimiser state, kept activations, logits.

    A block keeps, per token, its two norms' inputs in fp32, eight tensors of D and four of I; a checkpointed
    one only its input, and one block's activations exist again while it is computed again. Measured with
    Chameleon-7B on an H100, LoRA and all blocks checkpointed: 38.3 GiB (fp32 base, 2 x 2392 tokens; estimated
    39.7) and 26.1 GiB (bf16 base, 4 x 2392 tokens; estimated 27.1).
    """
    size, tokens = shape.activation_bytes, shape.sequences * shape.tokens
    kept = tokens * (8 * shape.hidden + size * (8 * shape.hidden + 4 * shape.intermediate))
    every = shape.checkpoint_every
    checkpointed = -(-shape.blocks // every) if every else 0
    activations = (shape.blocks - checkpointed) * kept
    if checkpointed:
        activations += checkpointed * tokens * size * shape.hidden + kept
    # in the dtype of activations, in fp32, and the gradients of both
    logits = shape.sequences * shape.codes * shape.num_codes * (2 * size + 8)
    return shape.frozen_bytes + shape.trained * shape.trained_bytes + activations + logits


def describe_step(model: StyleModel, settings: SftSettings, batch: Batch) -> StepShape:
    """The shape of a step with parts like this batch."""
    config = model.decoder.config
    parts = [part for part in (model.decoder, model.resampler, model.vq) if part is not None]
    parameters = [p for part in parts for p in part.parameters()]
    states = 1 if settings.optimizer == "muon" else 2
    sequences, tokens = batch.ids.shape
    return StepShape(
        sequences=sequences,
        tokens=tokens,
        codes=-(-len(batch.codes) // sequences),
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        blocks=config.num_hidden_layers,
        num_codes=model.layout.num_codes,
        frozen_bytes=sum(p.nbytes for p in parameters if not p.requires_grad),
        trained=sum(p.numel() for p in parameters if p.requires_grad),
        trained_bytes=4 * (2 + states + (settings.ema_decay > 0)),
        activation_bytes=2 if model.decoder.model.norm.weight.dtype == torch.bfloat16 else 4,
        checkpoint_every=model.decoder.checkpoint_every,
        is_bf16_base=choose_base_format(settings) == "bf16",
    )


def require_memory(shape: StepShape, available: int, accumulate: int) -> None:
    """Raise UsageError, with what would fit, if a step needs more than the available bytes."""
    limit = int(available * (1 - RESERVE))
    needed = estimate_step_bytes(shape)
    if needed <= limit:
        return
    fits = " or ".join(suggest_settings(shape, limit, accumulate))
    raise UsageError(
        f"device: expected about {needed / GIB:.1f} GiB of free memory for steps of {shape.sequences} x"
        f" {shape.tokens} tokens, found {limit / GIB:.1f}",
        hint=f"what would fit: {fits}"
        if fits
        else "nothing smaller fits: use a larger GPU or --shard-base",
    )


def suggest_settings(shape: StepShape, limit: int, accumulate: int) -> list[str]:
    """Settings that would make a step fit into `limit` bytes, each on its own if one is enough."""
    checkpointed = replace(shape, checkpoint_every=1)
    suggestions = []
    if estimate_step_bytes(checkpointed) <= limit:
        suggestions.append("--checkpoint-blocks all")
    if divided := find_division(shape, limit):
        suggestions.append(f"--accumulate {accumulate * divided}")
    if not suggestions and (divided := find_division(checkpointed, limit)):
        suggestions.append(f"--accumulate {accumulate * divided} --checkpoint-blocks all")
    smaller = replace(checkpointed, frozen_bytes=int(INT8_SHARE * shape.frozen_bytes))
    if not suggestions and shape.is_bf16_base and estimate_step_bytes(smaller) <= limit:
        suggestions.append("--base-dtype int8 --checkpoint-blocks all")
    return suggestions


def find_division(shape: StepShape, limit: int) -> int | None:
    """Into how many parts, a power of two, the sequences of a step fit `limit` bytes; None if into none."""
    parts = 2
    while parts < 2 * shape.sequences:
        if estimate_step_bytes(replace(shape, sequences=-(-shape.sequences // parts))) <= limit:
            return parts
        parts *= 2
    return None


def check_memory(
    model: StyleModel, settings: SftSettings, ranks: Ranks, first: TrainingBatch
) -> None:
    """Raise UsageError before the first step if a GPU has too little memory for it.

    `first` is the first part of a batch that this rank computes.
    """
    if not ranks.device.startswith("cuda"):
        return
    shape = describe_step(model, settings, first.batch)
    if settings.shard_base:
        blocks = sum(
            p.nbytes for p in model.decoder.model.layers.parameters() if not p.requires_grad
        )
        # each rank holds its share, and the one or two blocks that are computed now and next
        held = blocks / ranks.world_size + 2 * blocks / shape.blocks
        shape = replace(shape, frozen_bytes=int(shape.frozen_bytes - blocks + held))
    free, _ = torch.cuda.mem_get_info(ranks.device)
    unused = torch.cuda.memory_reserved(ranks.device) - torch.cuda.memory_allocated(ranks.device)
    resident = shape.frozen_bytes + 4 * shape.trained
    require_memory(shape, free + unused + resident, settings.accumulate)
