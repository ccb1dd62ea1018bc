"""Synthesis: a prompt, a style reference and often a content image become stylized candidates.

`plan` decides which; `open_synthesizer` gives what makes them. One file a backend.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import nsmallest
from importlib import import_module
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, overload

from curate.references import StyleReference
from curate.split import split_of
from curate.synthesize.job import Encoding, Job
from curate.synthesize.settings import NEEDS_CONTENT, backend_settings
from stylear.errors import RecipeError, SourceError
from stylear.pair import Pair, content_id, digest

if TYPE_CHECKING:
    from pathlib import Path

    from curate.recipe import Recipe

__all__ = ["Content", "Job", "Plan", "Synthesizer", "open_synthesizer", "plan", "settings_of"]

DRAWING = {  # the synthesisers that draw a prompt: module and class
    "instantstyle": "instantstyle:InstantStyle",
    "ip-adapter": "ip_adapter:IpAdapter",
    "style-aligned": "style_aligned:StyleAligned",
    "flux-redux": "flux_redux:FluxRedux",
    "pipeline": "any_pipeline:AnyPipeline",
}


class Content(NamedTuple):
    """What planning has to know of a raw pair (a row of the raw tables, no image)."""

    key: str | None
    caption: str
    content: str


class Synthesizer(Protocol):
    """Makes the pairs of jobs; loaded once per worker."""

    def __call__(self, jobs: Sequence[tuple[Job, bytes]]) -> list[Pair]:
        """One pair a job, in order. The bytes are the parent's image (b"" where none is needed)."""
        ...


def settings_of(recipe: Recipe) -> str:
    """Canonical JSON of the backend's resolved settings that decide an image."""
    import json

    settings = backend_settings(recipe.synthesize.backend, recipe.synthesize.settings)
    return json.dumps(settings.deciding(), sort_keys=True, separators=(",", ":"))


class Plan(Sequence[Job]):
    """The jobs of a recipe, each made when it is asked for: some bytes a job, and a text a content."""

    def __init__(
        self, contents: Contents, references: Sequence[StyleReference], recipe: Recipe
    ) -> None:
        self._contents, self._references = contents, references
        self._backend, self._settings = recipe.synthesize.backend, settings_of(recipe)
        self._candidates = recipe.synthesize.candidates
        self._rows, self._styles = array("q"), array("l")  # of each group of candidates

    def add(self, row: int, style: int) -> None:
        """Plan the candidates of one content in the style of one reference."""
        self._rows.append(row)
        self._styles.append(style)

    def __len__(self) -> int:
        return self._candidates * len(self._rows)

    @overload
    def __getitem__(self, at: int) -> Job: ...
    @overload
    def __getitem__(self, at: slice) -> list[Job]: ...
    def __getitem__(self, at: int | slice) -> Job | list[Job]:
        if isinstance(at, slice):
            return [self[number] for number in range(len(self))[at]]
        group, candidate = divmod(range(len(self))[at], self._candidates)
        row, reference = self._contents[self._rows[group]], self._references[self._styles[group]]
        return Job(
            backend=self._backend,
            prompt=row.caption,
            reference=reference.id,
            reference_sha256=reference.sha256,
            content=row.content,
            parent=row.key,
            candidate=candidate,
            settings=self._settings,
        )


class Contents:
    """Contents in columns: their texts and a digest, but no object for each."""

    def __init__(self, rows: Iterable[Content], seed: int) -> None:
        import numpy as np
        import pyarrow as pa

        from curate.columns import SLICE, hashed, joined

        def parts() -> Iterator[dict[str, Any]]:
            waiting = iter(rows)
            while True:
                part = list(islice(waiting, SLICE))
                columns = zip(*part, strict=True) if part else ((), (), ())
                found = {
                    name: pa.array(column, pa.string())
                    for name, column in zip(Content._fields, columns, strict=True)
                }
                draws = (digest("content", seed, row.key, row.caption) for row in part)
                yield found | {"drawn": hashed(pa.array(draws, pa.string()), bytes.fromhex)}
                if not part:
                    return

        self._columns = joined(parts())
        self._order = np.argsort(self._columns["drawn"], kind="stable")

    def __getitem__(self, row: int) -> Content:
        return Content(*(self._columns[name][row].as_py() for name in Content._fields))

    def choose(self, quota: int | None) -> list[int]:
        """At most `quota` rows in seeded order, no content twice before each was taken once."""
        import numpy as np

        from curate.columns import first_of, identities

        content = first_of(identities(self._columns["content"]))[self._order]
        grouped = np.argsort(content, kind="stable")
        ordered = content[grouped]
        turn = np.empty(len(ordered), np.int64)
        turn[grouped] = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
        chosen: list[int] = self._order[np.argsort(turn, kind="stable")[:quota]].tolist()
        return chosen


def plan(raw: Iterable[Content], references: Sequence[StyleReference], recipe: Recipe) -> Plan:
    """The jobs of a recipe, the same for the same rows, references and seed.

    Contents are drawn in seeded order, distinct contents first; each meets the references of its
    own split that were used least so far. Raises RecipeError when no job is possible.
    """
    spec, seed, fraction = recipe.synthesize, recipe.seed, recipe.mix.val_fraction
    settings_of(recipe)  # wrong ones are told before anything is read
    if spec.prompts is not None:
        if spec.backend in NEEDS_CONTENT:
            raise RecipeError(
                f"synthesize.prompts: backend {spec.backend} stylises pictures and takes its"
                " prompts from their captions",
                hint="remove synthesize.prompts, or use a backend that draws them (instantstyle)",
            )
        raw = read_prompts(spec.prompts)
    by_split: dict[str, list[int]] = {"train": [], "val": []}
    for style, reference in enumerate(references):
        by_split[split_of(reference.id, seed, fraction)].append(style)
    contents = Contents((r for r in raw if by_split[split_of(r.content, seed, fraction)]), seed)
    jobs = Plan(contents, references, recipe)
    uses = [0] * len(references)
    for place in contents.choose(spec.contents):
        row = contents[place]
        drawn = {
            style: (uses[style], digest(seed, row.key, row.caption, references[style].id))
            for style in by_split[split_of(row.content, seed, fraction)]
        }
        for style in nsmallest(spec.references_per_content, drawn, key=drawn.__getitem__):
            uses[style] += 1
            jobs.add(place, style)
    if not jobs:
        raise RecipeError(
            f"synthesize: no reference shares a split with a content ({len(references)} references,"
            f" val_fraction {fraction})",
            hint="add references or contents, or lower mix.val_fraction",
        )
    return jobs


def read_prompts(path: Path) -> list[Content]:
    """The prompts of a text file, one a line, without blank lines and lines that start with #."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(
            f"synthesize.prompts: cannot read {path}: {error}",
            hint="a UTF-8 text, one prompt a line",
        ) from error
    prompts = [line.strip() for line in lines]
    prompts = list(dict.fromkeys(p for p in prompts if p and not p.startswith("#")))
    if not prompts:
        raise SourceError(f"synthesize.prompts: {path} holds no prompt", hint="one prompt a line")
    return [Content(None, prompt, content_id(prompt)) for prompt in prompts]


def open_synthesizer(recipe: Recipe, references: Sequence[StyleReference]) -> Synthesizer:
    """The recipe's synthesiser, its models loaded. Raises RecipeError or WeightsError."""
    spec, image = recipe.synthesize, recipe.image
    settings = backend_settings(spec.backend, spec.settings)
    encoding = Encoding(image.size, image.format, image.quality)
    by_id: Mapping[str, StyleReference] = {reference.id: reference for reference in references}
    if spec.backend in DRAWING:
        module, name = DRAWING[spec.backend].split(":")
        opener = getattr(import_module(f"curate.synthesize.{module}"), name)
        opened: Synthesizer = opener(settings, by_id, encoding)
        return opened
    from curate.synthesize.pictures import PictureSynthesizer

    return PictureSynthesizer(spec.backend, settings, by_id, encoding)
