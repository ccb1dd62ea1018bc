"""The record of a trained model: its base, its corpora and its training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stylear.curate.corpus.parquet import file_sha256
from stylear.model.lineage import describe_lineage
from stylear.model.style_model import StyleModel
from stylear.train.settings import Settings


def describe_training(settings: Settings, pairs: int) -> dict[str, Any]:
    """The training record of the final model: settings, number of pairs, warnings."""
    kept = {"steps", "batch_size", "lr", "optimizer", "full", "seed"}
    record = settings.model_dump(mode="json", include=kept)
    return {**record, "pairs": pairs, "warnings": []}


def describe_origin(
    base: StyleModel, settings: Settings, training: Mapping[str, Any]
) -> dict[str, Any]:
    """The lineage of the final model: its base, all corpora that shaped it, and its training record.

    The corpora of the base come first, since the model still contains them.
    """
    corpora = list(base.settings.base.get("corpora") or ())
    for corpus in settings.corpus:
        manifest = corpus / "manifest.json"
        digest = file_sha256(manifest) if manifest.is_file() else None
        named = {"name": corpus.resolve().name, "manifest_sha256": digest}
        corpora += [] if named in corpora else [named]
    first = describe_lineage(base)
    if settings.full and first.get("model"):
        # the base is no longer needed, so its name is enough
        first["model"] = Path(str(first["model"])).name
    return {**first, "corpora": corpora, "training": dict(training)}
