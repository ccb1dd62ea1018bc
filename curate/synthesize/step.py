"""The synthesize stage: workers draw the jobs of the plan, shard by shard, into stylized/NNNNN."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from stylear.console import Bar, say
from stylear.curate.corpus import parquet, shards
from stylear.curate.corpus.ledger import ALL, Entry, Ledger, StageInputs
from stylear.curate.corpus.pair_reader import PairReader
from stylear.curate.corpus.repair import repair_shard
from stylear.curate.corpus.shards import ShardInfo
from stylear.curate.engine.progress import WorkProgress
from stylear.curate.recipe.base import PathNames
from stylear.curate.recipe.synthesizers import NEEDS_CONTENT, BackendSettings, backend_settings
from stylear.curate.references import StyleReference, load_references
from stylear.curate.stage import (
    Build,
    StageResult,
    commit_stage,
    committed_shards,
    omit_keys,
    paths_in_corpus,
)
from stylear.curate.synthesize import Job, open_synthesizer
from stylear.curate.synthesize.job import VERSIONS
from stylear.curate.synthesize.plan import plan_jobs
from stylear.curate.synthesize.prompts.sources import Content
from stylear.errors import CorpusError, SettingsChanged, WeightsError
from stylear.pair import digest

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe

STAGE = "synthesize"


@dataclass(frozen=True, slots=True)
class Unit:
    """One shard to synthesise: its jobs, and their content images for backends that need them."""

    folder: Path
    index: int
    jobs: Sequence[Job]
    images: Sequence[bytes]

    @classmethod
    def from_jobs(
        cls, folder: Path, index: int, jobs: Sequence[Job], parents: ParentImages | None
    ) -> Unit:
        if parents is None:
            return cls(folder, index, jobs, [b""] * len(jobs))
        return cls(folder, index, jobs, [parents.image(job.parent) for job in jobs])


def synthesize_inputs(recipe: Recipe, ledger: Ledger) -> StageInputs:
    """What decides the stylized shards, except their contents.

    If a model is missing, its digest comes from the ledger: only images not drawn yet need the model.
    """
    spec = recipe.synthesize
    settings = backend_settings(spec.backend, spec.settings)
    values = omit_keys(spec.map_paths(PathNames()).model_dump(mode="json"), "settings")
    weights: Sequence[str]
    try:
        weights = [digest_model_files(settings)]
    except WeightsError:
        if not (entries := ledger.entries(STAGE)):
            raise
        weights = entries[0].weights
    return StageInputs(
        settings={
            "synthesize": values,
            "synthesize.settings": settings.deciding(),
            "image": {n: getattr(recipe.image, n) for n in ("size", "format", "quality")},
            "seed": recipe.seed,
            "mix.val_fraction": recipe.mix.val_fraction,
            "mix.shard_pairs": recipe.mix.shard_pairs,
        },
        code_version=f"1.{VERSIONS.get(spec.backend, 1)}.{shards.VERSION}",
        weights=weights,
    )


def pairs_per_shard(recipe: Recipe) -> int:
    """The number of images in a stylized shard."""
    return min(recipe.synthesize.shard_pairs, recipe.mix.shard_pairs)


def digest_model_files(settings: BackendSettings) -> str:
    """A digest of the names and sizes of the backend's model files; every pair has their hashes.

    Raises WeightsError if a model is missing.
    """
    if not (named := [name for name in settings.paths if getattr(settings, name) is not None]):
        return digest()
    from stylear.weights.names import resolve

    found = []
    for name in named:
        root = resolve(getattr(settings, name))
        files = sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else [root]
        found += [f"{name} {p.name} {p.stat().st_size}" for p in files if p.is_file()]
    return digest(*found)


def run(build: Build) -> StageResult:
    """Commit all stylized shards of the plan; a recipe without references has none.

    Raises SettingsChanged if the corpus has shards of another plan, CorpusError if fetch is not
    finished or kept nothing.
    """
    ledger, recipe, folder = build.ledger, build.recipe, build.corpus / "stylized"
    stage_inputs = synthesize_inputs(recipe, ledger)
    if not recipe.references:
        if ledger.entries(STAGE):
            raise SettingsChanged(
                f"{build.corpus}: has stylized pairs, but the recipe has no references",
                hint="remove them with "
                "`stylear curate run RECIPE --out CORPUS --redo synthesize`, or give another --out",
            )
        return StageResult(STAGE, 0, 0, 0, 0, {})
    references = load_references(recipe)
    if not has_contents(build):
        say("warning: synthesize: the sources held no pairs, so there is nothing to synthesize")
        result = StageResult(STAGE, 0, 0, 0, 0, {})
        if not ledger.is_current(STAGE, ALL, stage_inputs):
            commit_stage(ledger, STAGE, stage_inputs, result)
        return result
    jobs = plan_jobs(read_kept_contents(build), references, recipe)
    for reason, count in sorted(jobs.skipped.items()):
        say(f"synthesize: {count} prompts skipped: {reason}")
    size = pairs_per_shard(recipe)
    units = [slice(i, min(i + size, len(jobs))) for i in range(0, len(jobs), size)]
    repaired = 0
    for entry in _shard_entries(build):
        if not ledger.has_intact_files(entry) and repair_shard(build.corpus, entry):
            ledger.damaged -= set(entry.files)
            repaired += 1
    inputs = [replace(stage_inputs, inputs=_hash_jobs(jobs[unit])) for unit in units]
    todo = [
        i for i, how in enumerate(inputs) if not ledger.is_current(STAGE, shards.shard_name(i), how)
    ]
    extra = [e for e in _shard_entries(build) if int(e.unit) >= len(units)]
    if extra:
        raise SettingsChanged(
            f"{folder}: has {len(_shard_entries(build))} shards, the plan has {len(units)}",
            hint="draw them again with "
            "`stylear curate run RECIPE --out CORPUS --redo synthesize`, or give another --out",
        )
    draws_prompts = recipe.synthesize.backend not in NEEDS_CONTENT
    parents = None if draws_prompts else ParentImages(build.corpus)
    work = (Unit.from_jobs(folder, i, jobs[units[i]], parents) for i in todo)
    new = sum(units[i].stop - units[i].start for i in todo)
    with Bar("synthesize", total=len(jobs), unit="images") as bar:
        bar.skip(len(jobs) - new)
        progress = WorkProgress(bar, new)
        opened = partial(open_worker, recipe, references)
        results = build.map_units(
            opened, work, len(todo), gpu=draws_prompts, on_progress=progress.report
        )
        for i, info in zip(todo, results, strict=True):
            ledger.commit(
                STAGE,
                shards.shard_name(i),
                inputs[i],
                rows_in=units[i].stop - units[i].start,
                kept=info.kept,
                dropped=info.dropped,
                files=paths_in_corpus(build.corpus, folder, info.files),
            )
            progress.finish(info.rows)
    result = StageResult.from_entries(STAGE, _shard_entries(build), len(todo) + repaired)
    if todo or not ledger.is_current(STAGE, ALL, stage_inputs):
        commit_stage(ledger, STAGE, stage_inputs, result)
    return result


def open_worker(
    recipe: Recipe, references: Sequence[StyleReference]
) -> Callable[[Unit], ShardInfo]:
    """The function that a worker runs on each unit; it loads the models once, here."""
    synthesizer = open_synthesizer(recipe, references)

    def run(unit: Unit) -> ShardInfo:
        pairs = synthesizer(list(zip(unit.jobs, unit.images, strict=True)))
        expected = [job.key for job in unit.jobs]
        if [pair.key for pair in pairs] != expected:
            raise CorpusError(
                f"{recipe.synthesize.backend}: expected one pair for each of {len(expected)} jobs, in"
                f" order, found {len(pairs)} pairs with other keys"
            )
        return shards.write_shard(unit.folder, unit.index, pairs)

    return run


def has_contents(build: Build) -> bool:
    """Whether there is anything to plan from: prompts of the recipe, or pairs that fetch was given.

    Raises CorpusError when fetch is not finished.
    """
    spec = build.recipe.synthesize
    if spec.prompts is not None or spec.templates:
        return True
    return any(entry.rows_in for entry in committed_shards(build, "fetch"))


def read_kept_contents(build: Build) -> Iterator[Content]:
    """The contents of the kept raw pairs. Raises CorpusError if there are none."""
    entries = committed_shards(build, "fetch")
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


def _shard_entries(build: Build) -> list[Entry]:
    return [entry for entry in build.ledger.entries(STAGE) if entry.unit != ALL]


def _hash_jobs(jobs: Sequence[Job]) -> list[str]:
    """A hash of a shard's jobs; their keys identify the parents and the references."""
    return [hashlib.sha256("\n".join(job.key for job in jobs).encode()).hexdigest()]


class ParentImages:
    """Images of raw pairs by key; the index is built on first use."""

    def __init__(self, corpus: Path) -> None:
        self.corpus = corpus
        self._reader: PairReader | None = None

    def image(self, key: str | None) -> bytes:
        """The image of a pair; empty for no key. Raises CorpusError if tar and table differ."""
        if key is None:
            return b""
        self._reader = self._reader or PairReader(self.corpus, ["raw"])
        return self._reader.pair(key).image
