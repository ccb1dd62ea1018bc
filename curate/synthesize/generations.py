"""Generations of the plan: each growth of a corpus adds one, and earlier ones stay unchanged.

A generation is a table of candidate groups, `plan/NNNNN.parquet`, committed before its first image is drawn.
So a killed run resumes its own plan, and new contents or references change no earlier job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylear.console import say
from stylear.curate.corpus import parquet, shards
from stylear.curate.corpus.layout import MANIFEST, PLAN, PLAN_STAGE
from stylear.curate.corpus.ledger import Entry, StageInputs
from stylear.curate.references import StyleReference
from stylear.curate.stage import Build, list_committed_shards, list_file_digests
from stylear.curate.synthesize import dump_backend_settings
from stylear.curate.synthesize.job import CandidateJobs, Job
from stylear.curate.synthesize.plan import (
    EarlierGroups,
    Plan,
    name_content,
    plan_jobs,
    prompt_metadata,
)
from stylear.curate.synthesize.prompts.sources import Content
from stylear.curate.synthesize.raw_contents import read_kept_contents
from stylear.errors import CorpusError, SettingsChanged
from stylear.pair import digest

if TYPE_CHECKING:
    import pyarrow as pa

    from stylear.curate.recipe import Recipe

COLUMNS = (*Content._fields, "reference", "reference_sha256")
FORGOTTEN_GROUP = "forgotten_group"  # column of a generation with forgotten pairs: their groups
REDO = (
    "plan and draw everything again with"
    " `stylear curate run RECIPE --out CORPUS --redo synthesize`, or give another --out"
)


class PlannedJobs(CandidateJobs):
    """The jobs of a table of candidate groups, created on access."""

    def __init__(self, groups: pa.Table, recipe: Recipe) -> None:
        self.groups = groups
        self._backend, self._settings = recipe.synthesize.backend, dump_backend_settings(recipe)
        super().__init__(recipe.synthesize.candidates)

    @property
    def num_groups(self) -> int:
        return int(self.groups.num_rows)

    def create_job(self, group: int, candidate: int) -> Job:
        row = {name: self.groups[name][group].as_py() for name in COLUMNS}
        content = Content(*(row[name] for name in Content._fields))
        return Job(
            backend=self._backend,
            prompt=content.caption,
            reference=row["reference"],
            reference_sha256=row["reference_sha256"],
            content=content.content,
            parent=content.key,
            candidate=candidate,
            settings=self._settings,
            prompt_metadata=prompt_metadata(content),
            forgotten_group=self._forgotten_group(group),
        )

    def _forgotten_group(self, group: int) -> str | None:
        """The group's name before its raw pair was forgotten; None for any other group."""
        if FORGOTTEN_GROUP not in self.groups.column_names:
            return None
        name: str | None = self.groups[FORGOTTEN_GROUP][group].as_py()
        return name


@dataclass(frozen=True, slots=True)
class Generation:
    """The jobs that one growth of the corpus added, and the settings that they were planned with."""

    entry: Entry
    jobs: PlannedJobs

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.entry.settings

    @property
    def references(self) -> Mapping[str, str]:
        """The hash of each reference that was known, by id."""
        hashes: Mapping[str, str] = self.entry.note["references"]
        return hashes


def extend_plan(
    build: Build, references: Sequence[StyleReference], stage_inputs: StageInputs
) -> list[Generation]:
    """All generations; a new one is committed if contents, references or settings have changed.

    Raises SettingsChanged if a reference that images were drawn with is missing or has changed, and whatever
    planning raises.
    """
    generations = read_generations(build)
    require_references(build, generations, references)
    inputs = make_plan_inputs(build, references, stage_inputs)
    if generations and generations[-1].entry.fingerprint == inputs.fingerprint:
        return generations
    jobs = plan_jobs(
        read_kept_contents(build), references, build.recipe, list_earlier_groups(generations)
    )
    for reason, count in sorted(jobs.skipped.items()):
        say(f"synthesize: {count} prompts skipped: {reason}")
    if generations:
        num_planned = sum(len(generation.jobs) for generation in generations)
        say(f"synthesize: {num_planned} images planned, {len(jobs)} are new")
    return [*generations, commit_generation(build, len(generations), jobs, references, inputs)]


def list_earlier_groups(generations: Sequence[Generation]) -> EarlierGroups:
    """The candidate groups of earlier generations, which the next plan extends."""
    groups = [
        (name_content(Content(*row[:-2])), row[-2])
        for generation in generations
        for row in zip(*(generation.jobs.groups[n].to_pylist() for n in COLUMNS), strict=True)
    ]
    return EarlierGroups(groups, {name for earlier in generations for name in earlier.references})


def commit_generation(
    build: Build,
    number: int,
    jobs: Plan,
    references: Sequence[StyleReference],
    inputs: StageInputs,
) -> Generation:
    """Write the groups of a plan as a generation; a plan without groups has no table."""
    unit, files, table = shards.shard_name(number), {}, make_groups_table(jobs)
    (build.corpus / MANIFEST).unlink(missing_ok=True)
    if table.num_rows:
        path = build.corpus / PLAN / f"{unit}.parquet"
        files = {path.relative_to(build.corpus).as_posix(): parquet.write_table(path, table)}
    entry = build.ledger.commit(
        PLAN_STAGE,
        unit,
        inputs,
        rows_in=table.num_rows,
        kept=table.num_rows,
        dropped={},
        files=files,
        note={"references": {reference.id: reference.sha256 for reference in references}},
    )
    return Generation(entry, PlannedJobs(encode_table(table), build.recipe))


def read_generations(build: Build) -> list[Generation]:
    """The committed generations; a damaged last one is left out and planned again.

    Raises CorpusError if a generation is missing that later ones build on.
    """
    ledger, generations = build.ledger, list[Generation]()
    entries = ledger.entries(PLAN_STAGE)
    for number, entry in enumerate(entries):
        if entry.unit != shards.shard_name(number) or not ledger.has_intact_files(entry):
            if number + 1 < len(entries) or entry.unit != shards.shard_name(number):
                raise CorpusError(
                    f"{build.corpus / PLAN}: expected generation {number:05d} of the plan, found it missing"
                    " or damaged",
                    hint=f"restore its file from a backup; or {REDO}",
                )
            break
        tables = [read_groups(build.corpus / name) for name in entry.files]
        table = tables[0] if tables else make_empty_table()
        generations.append(Generation(entry, PlannedJobs(encode_table(table), build.recipe)))
    return generations


def require_references(
    build: Build, generations: Sequence[Generation], references: Sequence[StyleReference]
) -> None:
    """Raise SettingsChanged if a reference that is used is missing or has changed."""
    known = {reference.id: reference.sha256 for reference in references}
    used: dict[str, str] = {}
    for generation in generations:
        groups = generation.jobs.groups
        used |= dict(zip(*(groups[n].to_pylist() for n in COLUMNS[-2:]), strict=True))
    changed = [
        f"{name} ({'changed' if name in known else 'missing'})"
        for name, sha256 in sorted(used.items())
        if known.get(name) != sha256
    ]
    if changed:
        more = ", ..." if len(changed) > 3 else ""
        raise SettingsChanged(
            f"{build.corpus}: images were drawn with style references that are no longer the same:"
            f" {', '.join(changed[:3])}{more}",
            hint=f"restore the original files; or {REDO}",
        )


def make_plan_inputs(
    build: Build, references: Sequence[StyleReference], stage_inputs: StageInputs
) -> StageInputs:
    """The inputs of a plan, besides the earlier generations."""
    spec = build.recipe.synthesize
    prompts: list[Path] = [] if spec.prompts is None else [spec.prompts]
    prompts += [words for words in spec.words.values() if isinstance(words, Path)]
    if spec.prompts is not None or spec.templates:
        contents = [parquet.file_sha256(path) for path in prompts]
    else:
        raw = list_committed_shards(build, "fetch")
        contents = [digest(*(value for entry in raw for value in list_file_digests(entry)))]
    known = digest(*(f"{reference.id} {reference.sha256}" for reference in references))
    return StageInputs(stage_inputs.settings, stage_inputs.code_version, [*contents, known])


def make_groups_table(jobs: Plan) -> pa.Table:
    """The candidate groups of a plan, one per row."""
    import pyarrow as pa

    rows = [(*content, reference.id, reference.sha256) for content, reference in jobs.groups()]
    columns = zip(*rows, strict=True) if rows else [()] * len(COLUMNS)
    return pa.table(
        {n: pa.array(column, pa.string()) for n, column in zip(COLUMNS, columns, strict=True)}
    )


def read_groups(path: Path) -> pa.Table:
    """The candidate groups of a generation, with those that were forgotten, if any were."""
    table = parquet.read_table(path)
    if set(COLUMNS) <= set(table.column_names) <= {*COLUMNS, FORGOTTEN_GROUP}:
        return table
    return parquet.read_table(path, COLUMNS)  # raises for the column that is missing


def make_empty_table() -> pa.Table:
    """A table of no groups."""
    import pyarrow as pa

    return pa.table({name: pa.array([], pa.string()) for name in COLUMNS})


def encode_table(table: pa.Table) -> pa.Table:
    """The table dictionary-encoded, because many groups share few contents and references."""
    import pyarrow as pa

    return pa.table({n: table[n].combine_chunks().dictionary_encode() for n in table.column_names})
