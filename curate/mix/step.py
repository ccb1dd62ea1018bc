"""The mix stage: kept pairs into train/ and val/."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylear.console import say
from stylear.curate.corpus.layout import MIX
from stylear.curate.corpus.ledger import ALL
from stylear.curate.corpus.storage import FileInfo
from stylear.curate.mix.shortfall import count_split, describe_shortfalls
from stylear.curate.references import load_references
from stylear.curate.stage import (
    Build,
    Counts,
    StageResult,
    list_file_digests,
    list_output_digests,
    list_pair_shards,
    read_verdict_counts,
    run_whole_corpus,
)
from stylear.errors import CorpusError

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe


def run(build: Build) -> StageResult:
    """Write train/ and val/. Raises CorpusError when filter is not finished or kept nothing."""
    recipe = build.recipe
    require_kept(build)
    inputs = [
        *list_output_digests(build, "filter"),
        *(d for _, e in list_pair_shards(build) for d in list_file_digests(e)),
    ]
    inputs += [f"{r.id} {r.sha256}" for r in load_references(recipe)]
    settings = make_mix_settings(recipe)

    written: dict[Path, FileInfo] = {}

    def write() -> Counts:
        from stylear.curate.mix.mixing import mix_corpus

        written.update(mix_corpus(build.corpus, recipe, build.engine, build.workers))
        return read_verdict_counts(build.corpus / MIX, "mix")

    result = run_whole_corpus(build, "mix", settings, inputs, ["train", "val", MIX], write, written)
    splits = {split: count_split(build.corpus / split) for split in ("train", "val")}
    for warning in describe_shortfalls(splits, recipe):
        say(f"warning: {warning}")
    return result


def make_mix_settings(recipe: Recipe) -> dict[str, Any]:
    """The settings that decide the training shards."""
    return {"mix": recipe.mix.model_dump(mode="json"), "seed": recipe.seed, "name": recipe.name}


def require_kept(build: Build) -> None:
    """Raise CorpusError when the filter kept no pair: an empty training set is not a success."""
    entry = build.ledger.entry("filter", ALL)
    if entry is None or entry.kept or not entry.rows_in:
        return
    reasons = ", ".join(f"{reason} {count}" for reason, count in entry.dropped.items())
    raise CorpusError(
        f"{build.corpus}: none of {entry.rows_in} pairs passed the filter: {reasons}",
        hint="lower the thresholds; `stylear curate filter --out CORPUS --set KEY=VALUE --dry-run`"
        " shows what other rules would keep",
    )
