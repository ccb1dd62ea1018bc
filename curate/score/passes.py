"""Which scorers a recipe runs, in which of the two phases, and what decides their columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stylear.curate.corpus import shards
from stylear.curate.corpus.ledger import StageInputs
from stylear.curate.recipe.base import PathNames
from stylear.curate.stage import omit_keys

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe


STAGE = "score"


def scorers(recipe: Recipe) -> list[Any]:
    """The recipe's scorers, and the perceptual hash that is always there."""
    from stylear.curate.recipe import PhashScore

    specs = list(recipe.score)
    if not any(spec.type == "phash" for spec in specs):
        specs.append(PhashScore(type="phash"))
    return specs


def passes(recipe: Recipe) -> list[Any]:
    """What passes the shards: the scorers, those of the second phase as the embeddings they compare."""
    return [embeddings_of(spec) if needs_whole_corpus(spec) else spec for spec in scorers(recipe)]


def needs_whole_corpus(spec: Any) -> bool:
    """Whether a scorer needs the whole corpus, and so belongs to the second phase."""
    return bool(spec.type == "nearest")


def embeddings_of(spec: Any) -> Any:
    """The scorer of the first phase that writes what one of the second phase compares."""
    return spec.model_copy(update={"name": f"{spec.name}.embeddings"})


def ledger_stage(spec: Any) -> str:
    return f"{STAGE}.{spec.name}"


def score_inputs(spec: Any, fingerprint: str, inputs: Sequence[str] = ()) -> StageInputs:
    """What decides the columns of one scorer on one shard."""
    from stylear.curate.score.device import resolve_device

    settings = omit_keys(
        resolve_device(spec).map_paths(PathNames()).model_dump(mode="json"), "device"
    )
    return StageInputs({"score": settings}, str(shards.VERSION), inputs, [fingerprint])
