"""The filter stage: decide from their columns which pairs are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stylear.curate.corpus.answers import votes_digest
from stylear.curate.corpus.layout import COLUMNS, DIVERSITY, VERDICTS
from stylear.curate.score.passes import ledger_stage, list_scorers
from stylear.curate.stage import (
    Build,
    Counts,
    StageResult,
    list_file_digests,
    list_pair_shards,
    read_verdict_counts,
    run_whole_corpus,
)
from stylear.errors import CorpusError

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe


def run(build: Build) -> StageResult:
    """Decide which pairs are kept; writes verdicts, columns and diversity.

    Raises CorpusError if score is not finished.
    """
    recipe, ledger = build.recipe, build.ledger
    inputs = []
    for kind, entry in list_pair_shards(build):
        inputs += list_file_digests(entry)
        for spec in list_scorers(recipe):
            unit = f"{kind}-{entry.unit}"
            scored = ledger.entry(ledger_stage(spec), unit)
            if scored is None:
                raise CorpusError(
                    f"{build.corpus}: {spec.name} of {kind} {entry.unit} is not scored",
                    hint=f"run `stylear curate score --out {build.corpus}` first",
                )
            inputs += list_file_digests(scored)
    if recipe.filter.human is not None:
        inputs += votes_digest(build.corpus)

    def write() -> Counts:
        from stylear.curate.filter import filter_corpus

        filter_corpus(build.corpus, recipe)
        return read_verdict_counts(build.corpus / VERDICTS, "filter")

    return run_whole_corpus(
        build, "filter", make_filter_settings(recipe), inputs, [VERDICTS, COLUMNS, DIVERSITY], write
    )


def make_filter_settings(recipe: Recipe) -> dict[str, Any]:
    """The settings that decide the verdicts."""
    return {
        "filter": recipe.filter.model_dump(mode="json"),
        "score": [spec.name for spec in list_scorers(recipe)],
        "seed": recipe.seed,
    }
