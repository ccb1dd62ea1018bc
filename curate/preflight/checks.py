"""Checks of everything that a run needs: output folder, sources, references, prompts, models, disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylear.curate.corpus.candidates import parse_style
from stylear.curate.corpus.layout import LEDGER, RECIPE, STAGES
from stylear.curate.corpus.ledger import ALL
from stylear.curate.corpus.object_store import in_store
from stylear.curate.engine import LOCAL
from stylear.curate.fetch.check import check_source
from stylear.curate.preflight.models import RequiredModel, check_model_files, required_models
from stylear.curate.references import (
    load_references,
    read_reference,
    reference_files,
    reference_paths,
)
from stylear.curate.stage import Build
from stylear.errors import SeveralErrors, SourceEmpty, StorageError, StylearError, UsageError
from stylear.sampling.scenes import read_notes

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe

UNUSABLE = "PROBLEM (see below)"


@dataclass(frozen=True, slots=True)
class Check:
    """The check of one requirement: its key in the recipe, what was found, and the error if it failed."""

    key: str
    found: str
    error: StylearError | None = None
    pairs: int | None = None  # of a source, where that is known
    bytes: int | None = None  # of a source's images

    def row(self) -> dict[str, Any]:
        """For a table; the error is printed below it."""
        return {"check": self.key, "found": self.found}

    def summary(self) -> dict[str, Any]:
        """For JSON."""
        error = self.error
        return {
            "check": self.key,
            "found": self.found,
            "problem": error and error.message,
            "hint": error and error.hint,
        }


def check_recipe(
    build: Build, stages: Collection[str] = STAGES, redo: str | None = None
) -> list[Check]:
    """Run all checks for the remaining work; nothing is written or downloaded.

    `redo` is the first stage to rebuild from scratch. Finished stages need no prompts and no models.
    """
    todo = unfinished_stages(build, stages, redo)
    checks = [attempt("--out", lambda: check_output(build.corpus))]
    if "fetch" in stages:  # of a finished corpus too, which grows with its sources
        accepted = "fetch" not in todo  # an empty source was accepted when it was fetched
        checks += check_sources(replace(build, allow_empty=build.allow_empty or accepted))
    if build.recipe.references and set(stages) & {"synthesize", "score", "mix"}:
        checks += check_references(build.recipe)
    if "synthesize" in todo:
        checks += check_prompts(build.recipe)
    checks += check_models(build, todo)
    return checks


def require_checks(checks: Sequence[Check]) -> None:
    """Raise the error of a check that failed, or SeveralErrors with all of them."""
    errors = [check.error for check in checks if check.error is not None]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise SeveralErrors(errors)


def unfinished_stages(build: Build, stages: Collection[str], redo: str | None) -> list[str]:
    """The stages that still have work to do, according to the ledger."""
    again = STAGES[STAGES.index(redo) :] if redo in STAGES else ()
    return [
        stage
        for stage in STAGES
        if stage in stages and (stage in again or build.ledger.entry(stage, ALL) is None)
    ]


def attempt(key: str, check: Callable[[], Check]) -> Check:
    """The result of a check, or a failed check with the error that it raised."""
    try:
        return check()
    except StylearError as error:
        return Check(key, UNUSABLE, error)
    except OSError as error:
        failed = StorageError(f"{key}: {error.filename}: {error.strerror}", hint="check the path")
        return Check(key, UNUSABLE, failed)


def check_output(corpus: Path) -> Check:
    """The output folder. Raises UsageError if it holds something else."""
    require_output_folder(corpus)
    return Check("--out", "a corpus" if (corpus / LEDGER).is_dir() else "new")


def require_output_folder(corpus: Path) -> None:
    """Raise UsageError if `corpus` is a file, or a folder that holds something else."""
    if corpus.is_file():
        raise UsageError(
            f"{corpus}: expected a folder for the corpus, found a file",
            hint="give a new folder as --out",
        )
    if corpus.is_dir() and not (corpus / LEDGER).is_dir() and not (corpus / RECIPE).is_file():
        strange = sorted(p.name for p in corpus.iterdir() if not p.name.startswith("."))
        if strange:
            raise UsageError(
                f"{corpus}: expected a corpus or an empty folder, found {strange[0]}",
                hint="give a new folder as --out",
            )


def check_sources(build: Build) -> Iterator[Check]:
    """One check per source."""
    for number, source in enumerate(build.recipe.raw):
        key = f"raw.{number} ({source.type})"
        yield attempt(key, partial(describe_source, key, source, build))


def describe_source(key: str, source: Any, build: Build) -> Check:
    """The size of a source. Raises the same errors as fetching it."""
    try:
        size = check_source(source, build.recipe)
    except SourceEmpty as error:
        if build.allow_empty:
            return Check(key, "no pairs (allowed)", pairs=0)
        raise SourceEmpty(
            f"{key}: {error.message}",
            hint=f"{error.hint or 'check the source'}; --allow-empty accepts a source without pairs",
        ) from error
    except StylearError as error:
        raise type(error)(f"{key}: {error.message}", hint=error.hint) from error
    pairs = "unknown number of pairs" if size.pairs is None else count_noun(size.pairs, "pair")
    held = f", {human_bytes(size.bytes)}" if size.bytes else ""
    return Check(key, pairs + held, pairs=size.pairs, bytes=size.bytes)


def check_references(recipe: Recipe) -> Iterator[Check]:
    """One check per source of references, and one for all of them together."""
    failed = False
    for number, source in enumerate(recipe.references):
        key = f"references.{number} ({source.type})"
        check = attempt(key, partial(count_references, key, number, source))
        failed |= check.error is not None
        yield check
    if not failed:
        yield attempt("references", lambda: describe_references(recipe))


def count_references(key: str, number: int, source: Any) -> Check:
    """Read and count the images of a source of references. Raises RecipeError and SourceError."""
    paths = reference_paths(number, source)
    for path in paths:
        read_reference(path)
    for folder in {path.parent for path in paths}:
        read_notes(folder)
    return Check(key, count_noun(len(paths), "image"))


def describe_references(recipe: Recipe) -> Check:
    """All references together, as the scorers need them. Raises RecipeError and SourceError."""
    ids = reference_files(recipe)
    for spec in recipe.score:
        if spec.type == "leakage":  # it needs to know what each reference shows
            from stylear.curate.score.open import find_scorer_class

            for reference in load_references(recipe):
                find_scorer_class(spec.type).reference_fingerprint(spec, reference)
    styles = len(set(map(parse_style, ids)))
    return Check("references", f"{count_noun(len(ids), 'image')} of {count_noun(styles, 'style')}")


def check_prompts(recipe: Recipe) -> list[Check]:
    """The prompt file, or the templates and their word files."""
    spec = recipe.synthesize
    if spec.prompts is None and not spec.templates:
        return []
    key = "synthesize.prompts" if spec.prompts is not None else "synthesize.templates"
    return [attempt(key, partial(describe_prompts, key, recipe))]


def describe_prompts(key: str, recipe: Recipe) -> Check:
    """How many prompts there are. Raises RecipeError and SourceError."""
    from stylear.curate.synthesize.prompts.sources import count_prompts

    count = count_prompts(recipe)
    return Check(key, count_noun(count, "prompt"), pairs=count)


def check_models(build: Build, stages: Collection[str]) -> Iterator[Check]:
    """One check per model that the stages load, and per device that the recipe names."""
    for model in required_models(build.recipe, stages):
        yield attempt(model.key, partial(describe_model, model))
    if build.engine.name == LOCAL.name:  # on a cluster the workers' machines decide
        for key, device in required_devices(build.recipe, stages):
            yield attempt(key, partial(check_device, key, device))


def describe_model(model: RequiredModel) -> Check:
    """The path of a model. Raises WeightsError if it is missing or incomplete."""
    return Check(model.key, check_model_files(model))


def required_devices(recipe: Recipe, stages: Collection[str]) -> list[tuple[str, str]]:
    """The keys and names of the devices that the recipe names, except the CPU."""
    devices = [
        (f"score.{spec.name}.device", spec.device)
        for spec in recipe.score
        if "score" in stages and hasattr(spec, "device")
    ]
    if "synthesize" in stages and recipe.references:
        device = recipe.synthesize.settings.get("device", "cpu")
        devices.append(("synthesize.settings.device", device))
    return [(key, device) for key, device in devices if device not in ("auto", "cpu")]


def check_device(key: str, device: str) -> Check:
    """A device of this machine. Raises UsageError if it does not exist."""
    from stylear.device import pick_device

    return Check(key, pick_device(device, key))


def check_disk(corpus: Path, needed_bytes: int | None) -> Check:
    """Compare the free disk space at the output with what the corpus needs at least.

    Raises StorageError if the space is too small.
    """
    if in_store(corpus):
        return Check("disk", "an object store; its free space is not known")
    existing = corpus.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if needed_bytes is None:
        return Check("disk", f"{human_bytes(free)} free; the size of the corpus is not known")
    if needed_bytes > free:
        raise StorageError(
            f"{corpus}: expected about {human_bytes(needed_bytes)} of free disk space, found"
            f" {human_bytes(free)}",
            hint="free some space, give an --out on another disk, or lower image.size or"
            " synthesize.contents",
        )
    return Check("disk", f"{human_bytes(free)} free, about {human_bytes(needed_bytes)} needed")


def count_noun(count: int, noun: str) -> str:
    """A count with its noun: 1 pair, 1,200 pairs."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def human_bytes(count: int) -> str:
    """A human-readable number of bytes: 1.2 GB."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
