"""The mix stage: kept pairs into train/ and val/."""

from __future__ import annotations

from pathlib import Path

from stylear.console import say
from stylear.curate.corpus.layout import MIX
from stylear.curate.corpus.storage import FileInfo
from stylear.curate.mix.shortfall import describe_shortfalls, split_counts
from stylear.curate.references import load_references
from stylear.curate.stage import (
    Build,
    Counts,
    StageResult,
    file_digests,
    output_digests,
    pair_shards,
    read_verdict_counts,
    run_whole_corpus,
)


def run(build: Build) -> StageResult:
    """Write train/ and val/. Raises CorpusError when filter is not finished."""
    recipe = build.recipe
    inputs = [
        *output_digests(build, "filter"),
        *(d for _, e in pair_shards(build) for d in file_digests(e)),
    ]
    inputs += [f"{r.id} {r.sha256}" for r in load_references(recipe)]
    settings = {"mix": recipe.mix.model_dump(mode="json"), "seed": recipe.seed, "name": recipe.name}

    written: dict[Path, FileInfo] = {}

    def write() -> Counts:
        from stylear.curate.mix.mixing import mix_corpus

        written.update(mix_corpus(build.corpus, recipe, build.engine, build.workers))
        return read_verdict_counts(build.corpus / MIX, "mix")

    result = run_whole_corpus(build, "mix", settings, inputs, ["train", "val", MIX], write, written)
    splits = {split: split_counts(build.corpus / split) for split in ("train", "val")}
    for warning in describe_shortfalls(splits, recipe):
        say(f"warning: {warning}")
    return result
