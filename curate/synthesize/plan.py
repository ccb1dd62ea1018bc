"""The plan: which prompt is drawn in which style; the same rows, references and seed give the same plan."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

from stylear.curate.corpus.split import Split, split_of
from stylear.curate.references import StyleReference
from stylear.curate.synthesize import canonical_settings
from stylear.curate.synthesize.job import Job
from stylear.curate.synthesize.prompts.contents import Contents
from stylear.curate.synthesize.prompts.destyle import destyle
from stylear.curate.synthesize.prompts.quotas import Quotas
from stylear.curate.synthesize.prompts.sources import Content, read_prompts
from stylear.errors import RecipeError
from stylear.pair import Scalar

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe


class Plan(Sequence[Job]):
    """The jobs of a recipe, created on access: it stores a few bytes a job and one text a content."""

    def __init__(
        self,
        contents: Contents,
        references: Sequence[StyleReference],
        recipe: Recipe,
        skipped: Counter[str],
    ) -> None:
        self._contents, self._references = contents, references
        self.skipped = skipped  # prompts by the reason they were skipped for
        self._backend, self._settings = recipe.synthesize.backend, canonical_settings(recipe)
        self._candidates = recipe.synthesize.candidates
        self._rows, self._styles = array("q"), array("l")  # of each group of candidates

    def add(self, row: int, style: int) -> None:
        """Plan the candidates of one content in the style of one reference."""
        self._rows.append(row)
        self._styles.append(style)

    def group_indices(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The indices of the content and of the reference of each candidate group."""
        return np.array(self._rows, np.int64), np.array(self._styles, np.int64)

    def contents_per_style(self) -> dict[str, int]:
        """The number of contents drawn in each style."""
        uses = np.bincount(self.group_indices()[1], minlength=len(self._references))
        found = Counter[str]()
        for reference, count in zip(self._references, uses.tolist(), strict=True):
            found[reference.style] += count
        return dict(sorted(found.items()))

    def groups(self) -> Iterator[tuple[Content, StyleReference]]:
        """The content and the reference of each candidate group, in order."""
        for row, style in zip(self._rows, self._styles, strict=True):
            yield self._contents[row], self._references[style]

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
            prompt_metadata=prompt_metadata(row),
        )


def prompt_metadata(row: Content) -> Mapping[str, Scalar]:
    """The metadata of a de-stylised prompt: the words removed, and the original prompt.

    A raw pair still has its caption, so the original is recorded only for prompts without one.
    """
    if row.original is None:
        return {}
    found: dict[str, Scalar] = {"style_removed": " | ".join(destyle(row.original).removed)}
    return found if row.key is not None else {**found, "original_prompt": row.original}


def plan_jobs(raw: Iterable[Content], references: Sequence[StyleReference], recipe: Recipe) -> Plan:
    """The jobs of a recipe; the same rows, references and seed give the same jobs.

    Contents come in seeded order, distinct ones first; each is drawn in the least used styles of its own
    split. A style with a quota gets at most that many contents; with `per_style` contents are visited
    again until each style has its number. Raises RecipeError if no job is possible, or a style gets fewer
    than `per_style_min`.
    """
    spec, seed, fraction = recipe.synthesize, recipe.seed, recipe.mix.val_fraction
    canonical_settings(recipe)  # raise for wrong settings before reading anything
    quotas = Quotas(references, spec, seed)
    by_split: dict[Split, list[int]] = {"train": [], "val": []}
    for style, reference in enumerate(references):
        by_split[split_of(reference.id, seed, fraction)].append(style)

    def split(content: str) -> Split:
        return split_of(content, seed, fraction)

    skipped: Counter[str] = Counter()
    rows: Iterable[Content] = read_prompts(recipe, raw, skipped) if references else ()
    rows = (row for row in rows if by_split[split(row.content)])
    if spec.templates:
        rows = islice(rows, spec.contents)
    contents = Contents(rows, seed, split, skipped)
    jobs = Plan(contents, references, recipe, skipped)
    chosen = contents.choose(spec.contents)
    places = [by_split[split(contents[row].content)] for row in chosen]
    assign_references(jobs, contents, chosen, places, quotas, again=spec.per_style is not None)
    if not jobs:
        raise RecipeError(
            f"synthesize: no reference shares a split with a content ({len(references)} references,"
            f" val_fraction {fraction})",
            hint="add references or contents, or lower mix.val_fraction",
        )
    quotas.check_minimum()
    return jobs


def assign_references(
    jobs: Plan,
    contents: Contents,
    chosen: Sequence[int],
    places: Sequence[Sequence[int]],
    quotas: Quotas,
    *,
    again: bool,
) -> None:
    """Assign references out of `places` to each chosen content, the least used ones first.

    `again`: keep visiting the contents until every style has its quota or has met all contents it can.
    """
    met = [0] * len(chosen) if again else []  # a bit for each reference
    planned = -1
    while len(jobs) > planned:
        planned = len(jobs)
        for number, (row, near) in enumerate(zip(chosen, places, strict=True)):
            seen = met[number] if again else 0
            left = [place for place in near if quotas.is_open(place) and not seen >> place & 1]
            for place in quotas.least_used(contents[row], left) if left else ():
                if quotas.is_open(place):  # two references of one style may have been left
                    quotas.count_use(place)
                    jobs.add(row, place)
                    if again:
                        met[number] |= 1 << place
        if not again:
            break
