"""The score step: every scorer over every raw and stylized shard, committed as scores/<scorer>/.

A shard is passed once, by all scorers that miss it; what each wrote has a ledger entry of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
from stylear.console import Bar, say

if TYPE_CHECKING:
    import pyarrow as pa

    from curate.recipe import Recipe
    from curate.score.scorer import Scorer

STAGE = "score"
MADE_BY: dict[ShardKind, str] = {"raw": "fetch", "stylized": "synthesize"}
RUN_PAIRS = (
    16_000  # of the shards that one worker passes at a time on a GPU, so that it never waits (ours)
)
NOTED = ("captions_cut", "halved_to")  # of what a table tells, what the ledger notes


@dataclass(frozen=True, slots=True)
class Work:
    """One shard, and the scorers that miss it."""

    kind: ShardKind
    tar: Path
    rows: int
    missing: tuple[tuple[Any, Path, Made], ...]  # settings, table to write, how it is made

    @property
    def unit(self) -> str:
        return f"{self.kind}-{self.tar.stem}"


Unit = tuple[Work, ...]  # a run of shards
Written = dict[str, tuple[FileInfo, dict[str, Any]]]  # by scorer: its file, and what to note


def scorers(recipe: Recipe) -> list[Any]:
    """The recipe's scorers, and the perceptual hash that is always there."""
    from curate.recipe import PhashScore

    specs = list(recipe.score)
    if not any(spec.type == "phash" for spec in specs):
        specs.append(PhashScore(type="phash"))
    return specs


def passes(recipe: Recipe) -> list[Any]:
    """What passes the shards: the scorers, those of the second phase as the embeddings they compare."""
    return [embeddings_of(spec) if compares(spec) else spec for spec in scorers(recipe)]


def compares(spec: Any) -> bool:
    """Whether a scorer needs the whole corpus, and so belongs to the second phase."""
    return bool(spec.type == "nearest")


def embeddings_of(spec: Any) -> Any:
    """The scorer of the first phase that writes what one of the second phase compares."""
    return spec.model_copy(update={"name": f"{spec.name}.embeddings"})


def ledger_stage(spec: Any) -> str:
    return f"{STAGE}.{spec.name}"


def how_made(spec: Any, fingerprint: str, inputs: Sequence[str] = ()) -> Made:
    """What decides the columns of one scorer on one shard."""
    from curate.score.device import settled

    settings = without(settled(spec).model_dump(mode="json"), "device")
    return Made({"score": settings}, str(shards.VERSION), inputs, [fingerprint])


def score(build: Build) -> Result:
    """Commit the columns of every scorer for every shard.

    Raises SettingsChanged for columns of other settings or weights, CorpusError when fetch or
    synthesize is not finished.
    """
    from curate.engine.gpus import visible_gpus
    from curate.score.device import loading_threads

    ledger, corpus = build.ledger, build.corpus
    references = load_references(build.recipe)
    specs = passes(build.recipe)
    works = plan(build, specs, references)
    gpu = on_gpu(specs)
    at_once = 1
    if gpu:  # two runs for each GPU at least, so that none is left without work
        gpus = build.workers or len(visible_gpus()) or 1
        at_once = min(RUN_PAIRS, sum(work.rows for work in works) // (2 * gpus))
    units = list(runs(works, at_once))
    total = sum(work.rows * len(work.missing) for work in works)
    with Bar("score", total=total, unit="scores") as bar:
        opened = partial(open_worker, references, corpus, loading_threads(gpu=gpu))
        results = build.map_units(opened, units, len(units), gpu=gpu)
        for unit, written in zip(units, results, strict=True):
            for work, files in zip(unit, written, strict=True):
                for spec, out, made in work.missing:
                    info, note = files[spec.name]
                    ledger.commit(
                        ledger_stage(spec),
                        work.unit,
                        made,
                        rows_in=work.rows,
                        kept=work.rows,
                        dropped={},
                        files={out.relative_to(corpus).as_posix(): info},
                        note=note,
                    )
                bar.advance(work.rows * len(work.missing), work.unit)
    tables = sum(len(work.missing) for work in works) + compare(build, references)
    specs += filter(compares, scorers(build.recipe))
    shards_there = [f"{kind}-{entry.unit}" for kind, entry in all_shards(build)]
    entries = [ledger.entry(ledger_stage(spec), unit) for spec in specs for unit in shards_there]
    committed = [entry for entry in entries if entry is not None]
    tell_cut(committed)
    return Result.of(STAGE, committed, tables)


def compare(build: Build, references: Sequence[StyleReference]) -> int:
    """Run the second phase; how many columns were written."""
    from curate.score import scorer_fingerprint

    written = 0
    for spec in filter(compares, scorers(build.recipe)):
        from curate.steps.nearest import score_nearest

        written += score_nearest(build, spec, scorer_fingerprint(spec), references)
    return written


def plan(build: Build, specs: Sequence[Any], references: Sequence[StyleReference]) -> list[Work]:
    """The shards that some scorer misses. Raises SettingsChanged for columns of other settings or weights."""
    from curate.score import scorer_fingerprint
    from curate.score.device import settled
    from curate.score.open import scorer_class

    styles = {
        spec.name: [scorer_class(spec.type).reads(spec, one) for one in references]
        for spec in specs
    }
    ready = [(settled(spec), scorer_fingerprint(spec)) for spec in specs]
    found = []
    for kind, entry in all_shards(build):
        missing = []
        for spec, fingerprint in ready:
            inputs = [*digests(entry), *(styles[spec.name] if kind == "stylized" else ())]
            made = how_made(spec, fingerprint, inputs)
            if not build.ledger.done(ledger_stage(spec), f"{kind}-{entry.unit}", made):
                out = score_path(build.corpus, spec.name, kind, int(entry.unit))
                missing.append((spec, out, made))
        if missing:
            tar = build.corpus / kind / f"{entry.unit}.tar"
            found.append(Work(kind, tar, entry.rows_in, tuple(missing)))
    return found


def runs(works: Sequence[Work], pairs: int) -> Iterator[Unit]:
    """Shards in runs of at least `pairs` pairs, which one worker passes without a stop."""
    run: list[Work] = []
    for work in works:
        run.append(work)
        if sum(one.rows for one in run) >= pairs:
            yield tuple(run)
            run = []
    if run:
        yield tuple(run)


def tell_cut(entries: Sequence[Entry]) -> None:
    """Say how many captions were longer than their text encoder reads."""
    cut: dict[str, int] = {}
    for entry in entries:
        if count := entry.note.get("captions_cut"):
            name = entry.stage.partition(".")[2]
            cut[name] = cut.get(name, 0) + count
    for name, count in cut.items():
        say(f"{name}: {count} captions are longer than its model reads; see column {name}.cut")


def all_shards(build: Build) -> list[tuple[ShardKind, Entry]]:
    """The committed raw shards, then the stylized ones where the recipe makes any."""
    kinds = KINDS if build.recipe.references else KINDS[:1]
    return [(kind, entry) for kind in kinds for entry in shards_of(build, MADE_BY[kind])]


def on_gpu(specs: Sequence[Any]) -> bool:
    """Whether a scorer will use a GPU: then one process does, instead of several that share it."""
    from curate.score.device import settled

    return any(getattr(settled(spec), "device", "cpu") != "cpu" for spec in specs)


def open_worker(
    references: Sequence[StyleReference], corpus: Path, threads: int
) -> Callable[[Unit], list[Written]]:
    """What a worker runs on each unit; each scorer is opened once, when it is first needed."""
    from curate.score import open_scorer
    from curate.score.scorer import Context
    from curate.score.sweep import Shard, sweep

    context = Context(references, corpus)
    opened: dict[str, Scorer] = {}

    def scorer(spec: Any) -> Scorer:
        if spec.name not in opened:
            opened[spec.name] = open_scorer(spec, context)
        return opened[spec.name]

    def run(unit: Unit) -> list[Written]:
        def finish(number: int, tables: dict[str, pa.Table]) -> Written:
            return {
                spec.name: (shards.write_table(out, tables[spec.name]), noted(tables[spec.name]))
                for spec, out, _ in unit[number].missing
            }

        given = [
            Shard(
                work.kind, shards.read_shard(work.tar), [scorer(spec) for spec, *_ in work.missing]
            )
            for work in unit
        ]
        return sweep(given, context, finish, threads)

    return run


def noted(table: pa.Table) -> dict[str, Any]:
    """What a table tells that the ledger notes too."""
    from curate.score import told_of

    told = told_of(table)
    return {name: told[name] for name in NOTED if name in told}
