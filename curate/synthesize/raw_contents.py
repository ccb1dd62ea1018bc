"""Read the kept raw pairs as contents to plan with."""

from __future__ import annotations

from collections.abc import Iterator

from stylear.curate.corpus import parquet
from stylear.curate.stage import Build, StageResult, list_committed_shards
from stylear.curate.synthesize.prompts.sources import Content
from stylear.errors import CorpusError


def has_contents(build: Build) -> bool:
    """Whether there is anything to plan from: prompts of the recipe, or pairs of the sources.

    Raises CorpusError when fetch is not finished.
    """
    spec = build.recipe.synthesize
    if spec.prompts is not None or spec.templates:
        return True
    return any(entry.rows_in for entry in list_committed_shards(build, "fetch"))


def read_kept_contents(build: Build) -> Iterator[Content]:
    """The contents of the kept raw pairs. Raises CorpusError if there are none."""
    entries = list_committed_shards(build, "fetch")
    if not sum(entry.kept for entry in entries):
        reasons = StageResult.from_entries("fetch", entries, 0).dropped
        counts = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
        raise CorpusError(
            f"{build.corpus}: none of the raw pairs was kept ({counts})",
            hint="check the sources of the recipe, then "
            "`stylear curate run RECIPE --out CORPUS --redo fetch`",
        )
    names = ["key", "caption", "content", "kept"]
    for entry in entries:
        table = parquet.read_table(build.corpus / "raw" / f"{entry.unit}.parquet", names)
        for row in table.to_pylist():
            if row["kept"]:
                yield Content(row["key"], row["caption"], row["content"])
