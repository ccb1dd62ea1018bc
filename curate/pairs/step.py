"""The pairs stage: preference pairs into preferences/."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stylear.console import say
from stylear.curate.corpus.answers import preferences_digest
from stylear.curate.corpus.no_preferences import explain_no_preferences
from stylear.curate.stage import (
    Build,
    Counts,
    StageResult,
    list_file_digests,
    list_output_digests,
    list_pair_shards,
    run_whole_corpus,
)

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe


def run(build: Build) -> StageResult:
    """Write preferences/. Raises CorpusError when mix is not finished."""
    recipe = build.recipe
    inputs = [*list_output_digests(build, "filter"), *list_output_digests(build, "mix")]
    inputs += [d for _, entry in list_pair_shards(build) for d in list_file_digests(entry)]
    if recipe.pairs.human != "ignore":
        inputs += preferences_digest(build.corpus)
    settings = make_pairs_settings(recipe)

    def write() -> Counts:
        from stylear.curate.corpus.parquet import count_rows
        from stylear.curate.pairs.preferences import build_preferences

        build_preferences(build.corpus, recipe)
        num_pairs = count_rows(build.corpus / "preferences")
        return num_pairs, num_pairs, {}

    result = run_whole_corpus(build, "pairs", settings, inputs, ["preferences"], write)
    if not result.kept and recipe.references:
        reason, remedy = explain_no_preferences(recipe.model_dump(mode="json"))
        say(f"warning: 0 preference pairs: {reason}; {remedy}")
    return result


def make_pairs_settings(recipe: Recipe) -> dict[str, Any]:
    """The settings that decide the preference pairs."""
    return {
        "pairs": recipe.pairs.model_dump(mode="json"),
        "filter": recipe.filter.model_dump(mode="json"),
        "mix": recipe.mix.model_dump(mode="json"),
        "seed": recipe.seed,
    }
