"""The synthesize stage: workers draw the jobs of the plan, shard by shard, into stylized/NNNNN."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylear.console import Bar, say
from stylear.curate.corpus import shards
from stylear.curate.corpus.layout import MANIFEST
from stylear.curate.corpus.ledger import ALL, Entry, Ledger, StageInputs
from stylear.curate.corpus.pair_reader import PairReader
from stylear.curate.corpus.repair import repair_shard
from stylear.curate.corpus.shards import ShardInfo
from stylear.curate.corpus.tombstones import read_tombstones
from stylear.curate.engine.progress import WorkProgress
from stylear.curate.entry_points import SYNTHESIZERS, plugin_origin
from stylear.curate.recipe.base import FileNamesOnly
from stylear.curate.recipe.synthesizers import (
    BACKENDS,
    BackendSettings,
    needs_content,
    parse_backend_settings,
    uses_gpu,
)
from stylear.curate.references import StyleReference, load_references
from stylear.curate.stage import (
    Build,
    StageResult,
    commit_stage,
    make_corpus_paths,
    omit_keys,
)
from stylear.curate.synthesize import Job, open_synthesizer
from stylear.curate.synthesize.generations import Generation, extend_plan
from stylear.curate.synthesize.job import VERSIONS, make_forgotten_pair
from stylear.curate.synthesize.raw_contents import has_contents
from stylear.curate.synthesize.truncation import describe_truncation, note_truncation
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


@dataclass(frozen=True, slots=True)
class PlannedShard:
    """A shard of the plan: a slice of the jobs of a generation."""

    index: int
    generation: Sequence[Job]
    part: slice
    inputs: StageInputs

    def __len__(self) -> int:
        return int(self.part.stop - self.part.start)

    @property
    def unit(self) -> str:
        return shards.shard_name(self.index)

    @property
    def jobs(self) -> Sequence[Job]:
        return self.generation[self.part]


def make_synthesize_inputs(recipe: Recipe, ledger: Ledger) -> StageInputs:
    """The inputs of the stylized shards, except their contents.

    If a model is missing, its digest comes from the ledger: only images not drawn yet need the model.
    """
    spec = recipe.synthesize
    settings = parse_backend_settings(spec.backend, spec.settings)
    weights: Sequence[str]
    try:
        weights = [digest_model_files(settings)]
    except WeightsError:
        if not (entries := ledger.entries(STAGE)):
            raise
        weights = entries[0].weights
    return StageInputs(
        settings=make_synthesize_settings(recipe),
        code_version=f"1.{VERSIONS.get(spec.backend, 1)}.{shards.VERSION}",
        weights=weights,
        growable={"synthesize": extends_synthesis},
    )


def make_synthesize_settings(recipe: Recipe) -> dict[str, Any]:
    """The settings that decide the stylized images."""
    spec = recipe.synthesize
    settings = parse_backend_settings(spec.backend, spec.settings)
    return {
        "synthesize": omit_keys(
            spec.map_paths(FileNamesOnly()).model_dump(mode="json"), "settings"
        ),
        "synthesize.settings": settings.result_settings(),
        "image": {n: getattr(recipe.image, n) for n in ("size", "format", "quality")},
        "seed": recipe.seed,
        "mix.val_fraction": recipe.mix.val_fraction,
        "mix.shard_pairs": recipe.mix.shard_pairs,
        **plugin_origin(SYNTHESIZERS, spec.backend, BACKENDS),
    }


def extends_synthesis(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether the new settings give all images of the old ones, and possibly more."""
    names = ("contents", "per_style", "styles")
    if omit_keys(old, *names) != omit_keys(new, *names):
        return False
    if (old["per_style"] is None) != (new["per_style"] is None):
        return False
    styles = all(new["styles"].get(name, -1) >= count for name, count in old["styles"].items())
    numbers = (old["per_style"] or 0) <= (new["per_style"] or 0)
    contents = new["contents"] is None or (
        old["contents"] is not None and old["contents"] <= new["contents"]
    )
    return styles and numbers and contents


def pairs_per_shard(recipe: Recipe) -> int:
    """The number of images in a stylized shard."""
    return min(recipe.synthesize.shard_pairs, recipe.mix.shard_pairs)


def digest_model_files(settings: BackendSettings) -> str:
    """A digest of the names and sizes of the backend's model files; every pair has their hashes.

    Raises WeightsError if a model is missing.
    """
    if not (named := [name for name in settings.paths if getattr(settings, name) is not None]):
        return digest()
    from stylear.weights.names import resolve_model

    files_listed = []
    for name in named:
        root = resolve_model(getattr(settings, name))
        files = sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else [root]
        files_listed += [f"{name} {p.name} {p.stat().st_size}" for p in files if p.is_file()]
    return digest(*files_listed)


def run(build: Build) -> StageResult:
    """Commit all stylized shards of the plan; a recipe without references has none.

    Raises SettingsChanged if the corpus has shards of another plan, CorpusError if fetch is not
    finished or kept nothing.
    """
    ledger, recipe, folder = build.ledger, build.recipe, build.corpus / "stylized"
    stage_inputs = make_synthesize_inputs(recipe, ledger)
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
        say("warning: synthesize: the sources contain no pairs, so there is nothing to synthesize")
        result = StageResult(STAGE, 0, 0, 0, 0, {})
        if not ledger.is_current(STAGE, ALL, stage_inputs):
            commit_stage(ledger, STAGE, stage_inputs, result)
        return result
    repaired = repair_shards(build)
    planned = list_shards(build, extend_plan(build, references, stage_inputs), stage_inputs)
    pending = [shard for shard in planned if not ledger.is_current(STAGE, shard.unit, shard.inputs)]
    if pending:
        (build.corpus / MANIFEST).unlink(missing_ok=True)
    backend = recipe.synthesize.backend
    parents = ParentImages(build.corpus) if needs_content(backend) else None
    work = (Unit.from_jobs(folder, shard.index, shard.jobs, parents) for shard in pending)
    total, new = sum(map(len, planned)), sum(map(len, pending))
    with Bar("synthesize", total=total, unit="images") as bar:
        bar.skip(total - new)
        progress = WorkProgress(bar, new)
        opened = partial(open_worker, recipe, references, read_tombstones(build.corpus).keys)
        results = build.map_units(
            opened, work, len(pending), gpu=uses_gpu(backend), on_progress=progress.report
        )
        for shard, (info, note) in zip(pending, results, strict=True):
            ledger.commit(
                STAGE,
                shard.unit,
                shard.inputs,
                rows_in=len(shard),
                kept=info.kept,
                dropped=info.dropped,
                files=make_corpus_paths(build.corpus, folder, info.files),
                note=note,
            )
            progress.finish(info.rows)
    entries = _shard_entries(build)
    result = StageResult.from_entries(STAGE, entries, len(pending) + repaired)
    finished = ledger.entry(STAGE, ALL)
    if pending or finished is None or finished.fingerprint != stage_inputs.fingerprint:
        commit_stage(ledger, STAGE, stage_inputs, result)
    warnings = tuple(describe_truncation(entries))
    for warning in warnings:
        say(f"warning: {warning}")
    return replace(result, warnings=warnings)


def repair_shards(build: Build) -> int:
    """Rebuild damaged shards from their intact files; returns how many were rebuilt."""
    repaired = 0
    for entry in _shard_entries(build):
        if not build.ledger.has_intact_files(entry) and repair_shard(build.corpus, entry):
            build.ledger.damaged -= set(entry.files)
            repaired += 1
    return repaired


def list_shards(
    build: Build, generations: Sequence[Generation], stage_inputs: StageInputs
) -> list[PlannedShard]:
    """The shards of all generations, those of a later one after those of the earlier ones.

    Raises SettingsChanged if the corpus has more shards than the plan.
    """
    size, planned = pairs_per_shard(build.recipe), list[PlannedShard]()
    for generation in generations:
        jobs = generation.jobs
        for start in range(0, len(jobs), size):
            part = slice(start, min(start + size, len(jobs)))
            hashed = _hash_jobs(jobs[part])
            inputs = replace(stage_inputs, settings=generation.settings, inputs=hashed)
            planned.append(PlannedShard(len(planned), jobs, part, inputs))
    if len(entries := _shard_entries(build)) > len(planned):
        raise SettingsChanged(
            f"{build.corpus / 'stylized'}: has {len(entries)} shards, the plan has {len(planned)}",
            hint="draw them again with "
            "`stylear curate run RECIPE --out CORPUS --redo synthesize`, or give another --out",
        )
    return planned


def open_worker(
    recipe: Recipe, references: Sequence[StyleReference], forgotten: Collection[str] = ()
) -> Callable[[Unit], tuple[ShardInfo, dict[str, Any]]]:
    """The function that a worker runs on each unit: it writes the shard and returns a ledger note.

    The models are loaded once, here. Jobs whose keys are `forgotten` are not drawn: their pairs are dropped
    with that reason.
    """
    synthesizer = open_synthesizer(recipe, references)

    def run(unit: Unit) -> tuple[ShardInfo, dict[str, Any]]:
        work = zip(unit.jobs, unit.images, strict=True)
        drawn = iter(synthesizer([(job, image) for job, image in work if job.key not in forgotten]))
        pairs = [
            make_forgotten_pair(job) if job.key in forgotten else next(drawn) for job in unit.jobs
        ]
        expected = [job.key for job in unit.jobs]
        if [pair.key for pair in pairs] != expected:
            raise CorpusError(
                f"{recipe.synthesize.backend}: expected one pair for each of {len(expected)} jobs, in"
                f" order, found {len(pairs)} pairs with other keys"
            )
        return shards.write_shard(unit.folder, unit.index, pairs), note_truncation(pairs)

    return run


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
