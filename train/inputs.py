"""Inputs of a training run: corpora and models, checked before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stylear.curate.corpus.shards import shard_paths
from stylear.errors import CorpusError, UsageError
from stylear.train.settings import SftSettings


def check_shards(corpora: Sequence[Path]) -> None:
    """Raise CorpusError for a corpus without training shards, before anything is written."""
    for corpus in corpora:
        if not shard_paths(corpus / "train"):
            raise CorpusError(
                f"{corpus / 'train'}: expected shards to train on, found none",
                hint="check --corpus; build one with `stylear curate run RECIPE --out CORPUS`",
            )


def find_final_model(model: str) -> str:
    """The final model of a finished run; any other name unchanged."""
    final = Path(model) / "final"
    return str(final) if final.is_dir() else model


def check_division(settings: SftSettings, pairs: int, world_size: int) -> None:
    """Raise UsageError for a batch larger than the corpus, or for what cannot be divided among processes."""
    if settings.shard_base and (settings.full or world_size == 1):
        found = "full training" if settings.full else "one process"
        raise UsageError(
            f"shard_base: expected LoRA on several processes, found {found}",
            hint="start it with torchrun --nproc-per-node N, without --full; or leave shard_base out",
        )
    parts = world_size * settings.accumulate
    if settings.batch_size > pairs:
        raise UsageError(
            f"batch_size: expected at most the {pairs} pairs of the corpus, found {settings.batch_size}",
            hint=f"give --batch-size {pairs} or less, or build a larger corpus",
        )
    if settings.batch_size < parts:
        raise UsageError(
            f"batch_size: expected at least {parts}, one pair for each of {world_size} processes times"
            f" accumulate {settings.accumulate}, found {settings.batch_size}",
            hint="batch_size counts the pairs of a step over all processes and parts; raise it",
        )
