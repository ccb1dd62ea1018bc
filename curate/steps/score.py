"""The score step: every scorer over every raw and stylized shard, committed as scores/<scorer>/."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate import shards
from curate.ledger import Entry, Made
from curate.references import StyleReference, load_references
from curate.stage import KINDS, ShardKind, score_path
from curate.steps import Build, Result, digests, shards_of, without
from curate.storage import FileInfo
from stylear.console import Bar

if TYPE_CHECKING:
    from curate.recipe import Recipe
    from curate.score import Scorer

STAGE = "score"
MADE_BY: dict[ShardKind, str] = {"raw": "fetch", "stylized": "synthesize"}


@dataclass(frozen=True, slots=True)
class Unit:
    """One scorer on one shard."""

    spec: Any  # of the recipe
    tar: Path
    out: Path
    rows: int


def scorers(recipe: Recipe) -> list[Any]:
    """The recipe's scorers, and the perceptual hash that is always there."""
    from curate.recipe import PhashScore

    specs = list(recipe.score)
    if not any(spec.type == "phash" for spec in specs):
        specs.append(PhashScore(type="phash"))
    return specs


def ledger_stage(spec: Any) -> str:
    return f"{STAGE}.{spec.name}"


def how_made(spec: Any, fingerprint: str, inputs: Sequence[str] = ()) -> Made:
    """What decides the columns of one scorer on one shard."""
    settings = without(spec.model_dump(mode="json"), "device")
    return Made({"score": settings}, str(shards.VERSION), inputs, [fingerprint])


def score(build: Build) -> Result:
    """Commit the columns of every scorer for every shard.

    Raises SettingsChanged for columns of other settings or weights, CorpusError when fetch or
    synthesize is not finished.
    """
    from curate.score import scorer_fingerprint

    ledger, recipe, corpus = build.ledger, build.recipe, build.corpus
    references = load_references(recipe)
    styles = [f"{reference.id} {reference.sha256}" for reference in references]
    todo: list[tuple[str, str, Made, Unit]] = []
    stages: list[str] = []
    wanted: list[tuple[str, str]] = []
    for spec in scorers(recipe):
        stage, fingerprint = ledger_stage(spec), scorer_fingerprint(spec)
        stages.append(stage)
        for kind, entry in all_shards(build):
            unit = f"{kind}-{entry.unit}"
            wanted.append((stage, unit))
            inputs = [*digests(entry), *(styles if kind == "stylized" else ())]
            made = how_made(spec, fingerprint, inputs)
            if not ledger.done(stage, unit, made):
                out = score_path(corpus, spec.name, kind, int(entry.unit))
                tar = corpus / kind / f"{entry.unit}.tar"
                todo.append((stage, unit, made, Unit(spec, tar, out, entry.rows_in)))
    total = sum(unit.rows for *_, unit in todo)
    with Bar("score", total=total, unit="scores") as bar:
        opened, units = partial(open_worker, references), (unit for *_, unit in todo)
        results = build.map_units(opened, units, len(todo), gpu=on_gpu(recipe))
        for (stage, unit, made, work), info in zip(todo, results, strict=True):
            ledger.commit(
                stage,
                unit,
                made,
                rows_in=work.rows,
                kept=work.rows,
                dropped={},
                files={work.out.relative_to(corpus).as_posix(): info},
            )
            bar.advance(work.rows, work.spec.name)
    entries = [ledger.entry(stage, unit) for stage, unit in wanted]
    return Result.of(STAGE, [entry for entry in entries if entry is not None], len(todo))


def all_shards(build: Build) -> list[tuple[ShardKind, Entry]]:
    """The committed raw shards, then the stylized ones where the recipe makes any."""
    kinds = KINDS if build.recipe.references else KINDS[:1]
    return [(kind, entry) for kind in kinds for entry in shards_of(build, MADE_BY[kind])]


def on_gpu(recipe: Recipe) -> bool:
    """Whether a scorer will use a GPU: then one process does, instead of several that share it."""
    devices = {getattr(spec, "device", "cpu") for spec in recipe.score}
    if devices == {"auto"} or "auto" in devices:
        return Path("/dev/nvidia0").exists()
    return bool(devices - {"cpu"})


def open_worker(references: Sequence[StyleReference]) -> Callable[[Unit], FileInfo]:
    """What a worker runs on each unit; each scorer is opened once, when it is first needed."""
    from curate.score import open_scorer

    opened: dict[str, Scorer] = {}

    def run(unit: Unit) -> FileInfo:
        name = unit.spec.name
        if name not in opened:
            opened[name] = open_scorer(unit.spec, references)
        return shards.write_table(unit.out, opened[name](shards.read_shard(unit.tar)))

    return run
