"""Inputs of a training run: corpora and models, checked before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stylear.curate.corpus.shards import shard_paths
from stylear.errors import CorpusError


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
