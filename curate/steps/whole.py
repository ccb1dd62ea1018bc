"""The cheap steps: filter, mix and pairs read columns or copy bytes, for the whole corpus at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate import shards
from curate.ledger import ALL, Made
from curate.references import load_references
from curate.stage import COLUMNS, DIVERSITY, MIX, VERDICTS
from curate.steps import Build, Result, digests
from curate.steps.score import all_shards, ledger_stage, scorers
from curate.storage import FileInfo, files_below, remove, remove_unfinished
from stylear.console import say
from stylear.errors import CorpusError

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 3  # raise when filter, mix or pairs decide otherwise from the same input
Counts = tuple[int, int, Mapping[str, int]]  # rows in, kept, dropped by reason


def filter_step(build: Build) -> Result:
    """Decide which pairs stay; writes verdicts, columns and diversity.

    Raises CorpusError when score is not finished.
    """
    recipe, ledger = build.recipe, build.ledger
    inputs = []
    for kind, entry in all_shards(build):
        inputs += digests(entry)
        for spec in scorers(recipe):
            unit = f"{kind}-{entry.unit}"
            scored = ledger.entry(ledger_stage(spec), unit)
            if scored is None:
                raise CorpusError(
                    f"{build.corpus}: {spec.name} of {kind} {entry.unit} is not scored",
                    hint="run `stylear curate score` on this corpus first",
                )
            inputs += digests(scored)
    settings = {
        "filter": recipe.filter.model_dump(mode="json"),
        "score": [spec.name for spec in scorers(recipe)],
        "seed": recipe.seed,
    }

    def run() -> Counts:
        from curate.filter import filter_corpus

        filter_corpus(build.corpus, recipe)
        return verdict_counts(build.corpus / VERDICTS)

    return whole(build, "filter", settings, inputs, [VERDICTS, COLUMNS, DIVERSITY], run)


def mix_step(build: Build) -> Result:
    """Write train/ and val/. Raises CorpusError when filter is not finished."""
    recipe = build.recipe
    inputs = [*after(build, "filter"), *(d for _, e in all_shards(build) for d in digests(e))]
    inputs += [f"{r.id} {r.sha256}" for r in load_references(recipe)]
    settings = {"mix": recipe.mix.model_dump(mode="json"), "seed": recipe.seed, "name": recipe.name}

    written: dict[Path, FileInfo] = {}

    def run() -> Counts:
        from curate.mix import mix_corpus

        written.update(mix_corpus(build.corpus, recipe, build.engine, build.workers))
        return verdict_counts(build.corpus / MIX)

    return whole(build, "mix", settings, inputs, ["train", "val", MIX], run, written)


def pairs_step(build: Build) -> Result:
    """Write preferences/. Raises CorpusError when mix is not finished."""
    recipe = build.recipe
    inputs = [*after(build, "filter"), *after(build, "mix")]
    inputs += [d for _, entry in all_shards(build) for d in digests(entry)]
    settings = {
        "pairs": recipe.pairs.model_dump(mode="json"),
        "filter": recipe.filter.model_dump(mode="json"),
        "mix": recipe.mix.model_dump(mode="json"),
        "seed": recipe.seed,
    }

    def run() -> Counts:
        from curate.manifest import rows_in
        from curate.pairs import build_preferences

        build_preferences(build.corpus, recipe)
        made = rows_in(build.corpus / "preferences")
        return made, made, {}

    return whole(build, "pairs", settings, inputs, ["preferences"], run)


def whole(
    build: Build,
    stage: str,
    settings: Mapping[str, Any],
    inputs: Iterable[str],
    outputs: Iterable[str],
    run: Callable[[], Counts],
    written: Mapping[Path, FileInfo] | None = None,
) -> Result:
    """Run a cheap stage unless its output is of the same settings and inputs.

    `written`: after `run`, the files whose hashes it took as it wrote them; the others are read again.
    """
    ledger = build.ledger
    made = Made(settings, str(VERSION), list(inputs))
    if ledger.done(stage, ALL, made):
        return Result.of(stage, ledger.entries(stage), 0)
    ledger.remove(stage)
    for name in outputs:
        remove(build.corpus / name)
    rows_in, kept, dropped = run()
    remove_unfinished(build.corpus)
    files = {
        path.relative_to(build.corpus).as_posix(): (written or {}).get(path) or FileInfo.of(path)
        for name in outputs
        for path in _files(build.corpus / name)
    }
    entry = ledger.commit(
        stage, ALL, made, rows_in=rows_in, kept=kept, dropped=dropped, files=files
    )
    say(f"{stage}: {rows_in} in, {kept} kept")
    return Result.of(stage, [entry], 1)


def after(build: Build, stage: str) -> list[str]:
    """The hashes of what later stages read of a cheap one. Raises CorpusError when it is not finished."""
    entry = build.ledger.entry(stage, ALL)
    if entry is None:
        raise CorpusError(
            f"{build.corpus}: stage {stage} is not finished",
            hint=f"run `stylear curate {stage}` on this corpus first",
        )
    read = {name: info for name, info in entry.files.items() if name not in (COLUMNS, DIVERSITY)}
    return digests(replace(entry, files=read))


def verdict_counts(path: Path) -> Counts:
    """Pairs, kept pairs and drops by reason, of a table of verdicts."""
    return counts_of(shards.read_table(path, ["kept", "reason"]))


def counts_of(table: pa.Table) -> Counts:
    """The same of a table in memory."""
    from curate.columns import Words, one

    kept = one(table["kept"]).to_numpy(zero_copy_only=False)
    lost = one(table["reason"]).fill_null("dropped").filter(~kept)
    return len(kept), int(kept.sum()), dict(sorted(Words(lost).counts().items()))


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else files_below(path)
