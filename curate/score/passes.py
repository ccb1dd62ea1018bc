"""The scorers of a recipe, the phase in which each runs, and the inputs of its columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stylear.curate.corpus import shards
from stylear.curate.corpus.ledger import StageInputs
from stylear.curate.entry_points import SCORERS, plugin_origin
from stylear.curate.recipe.base import FileNamesOnly
from stylear.curate.recipe.scores import BUILT_IN
from stylear.curate.stage import omit_keys

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe


STAGE = "score"


def list_scorers(recipe: Recipe) -> list[Any]:
    """The recipe's scorers, and the perceptual hash, which every corpus has."""
    from stylear.curate.recipe import PhashScore

    specs = list(recipe.score)
    if not any(spec.type == "phash" for spec in specs):
        specs.append(PhashScore(type="phash"))
    return specs


def list_passes(recipe: Recipe) -> list[Any]:
    """The scorers of the first phase: those of the second phase are replaced by their embeddings."""
    return [
        make_embedding_scorer(spec) if needs_whole_corpus(spec) else spec
        for spec in list_scorers(recipe)
    ]


def needs_whole_corpus(spec: Any) -> bool:
    """Whether a scorer needs the whole corpus, and so belongs to the second phase."""
    return bool(spec.type == "nearest")


def make_embedding_scorer(spec: Any) -> Any:
    """The first-phase scorer that writes the embeddings of a second-phase one."""
    return spec.model_copy(update={"name": f"{spec.name}.embeddings"})


def ledger_stage(spec: Any) -> str:
    return f"{STAGE}.{spec.name}"


def make_score_inputs(spec: Any, fingerprint: str, inputs: Sequence[str] = ()) -> StageInputs:
    """The inputs of one scorer's columns on one shard."""
    from stylear.curate.score.device import resolve_device

    settings = omit_keys(
        resolve_device(spec).map_paths(FileNamesOnly()).model_dump(mode="json"), "device"
    )
    plugin = plugin_origin(SCORERS, spec.type, BUILT_IN)
    return StageInputs({"score": settings, **plugin}, str(shards.VERSION), inputs, [fingerprint])
