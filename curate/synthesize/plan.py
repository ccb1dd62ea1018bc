"""The plan: which prompt meets which style reference, the same for the same rows, references and seed."""

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
from stylear.curate.synthesize import settings_of
from stylear.curate.synthesize.job import Job
from stylear.curate.synthesize.prompts.contents import Contents
from stylear.curate.synthesize.prompts.destyle import destyle
from stylear.curate.synthesize.prompts.quotas import Quotas
from stylear.curate.synthesize.prompts.sources import Content, prompts_of
from stylear.errors import RecipeError
from stylear.pair import Scalar

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe


class Plan(Sequence[Job]):
    """The jobs of a recipe, each made when it is asked for: some bytes a job, and a text a content."""

    def __init__(
        self,
        contents: Contents,
        references: Sequence[StyleReference],
        recipe: Recipe,
        skipped: Counter[str],
    ) -> None:
        self._contents, self._references = contents, references
        self.skipped = skipped  # prompts that were left out, by reason
        self._backend, self._settings = recipe.synthesize.backend, settings_of(recipe)
        self._candidates = recipe.synthesize.candidates
        self._rows, self._styles = array("q"), array("l")  # of each group of candidates

    def add(self, row: int, style: int) -> None:
        """Plan the candidates of one content in the style of one reference."""
        self._rows.append(row)
        self._styles.append(style)

    def columns(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The place of the content and of the reference of each group of candidates."""
        return np.array(self._rows, np.int64), np.array(self._styles, np.int64)

    def per_style(self) -> dict[str, int]:
        """How many contents each style meets, by style."""
        uses = np.bincount(self.columns()[1], minlength=len(self._references))
        found = Counter[str]()
        for reference, count in zip(self._references, uses.tolist(), strict=True):
            found[reference.style] += count
        return dict(sorted(found.items()))

    def groups(self) -> Iterator[tuple[Content, StyleReference]]:
        """The content and the reference of each group of candidates, in order."""
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
            told=told_of(row),
        )


def told_of(row: Content) -> Mapping[str, Scalar]:
    """What the lineage says of a de-stylised prompt: what was removed, and the prompt as it was.

    A raw pair has its caption still, so only the prompt of a file or a template is repeated.
    """
    if row.original is None:
        return {}
    told: dict[str, Scalar] = {"style_removed": " | ".join(destyle(row.original).removed)}
    return told if row.key is not None else {**told, "original_prompt": row.original}


def plan(raw: Iterable[Content], references: Sequence[StyleReference], recipe: Recipe) -> Plan:
    """The jobs of a recipe, the same for the same rows, references and seed.

    Contents are drawn in seeded order, distinct contents first; each meets the references of its
    own split that were used least so far. Styles with a quota meet no more contents than that; with
    `per_style` the contents are gone through again until each style has met as many. Raises
    RecipeError when no job is possible, or a style gets fewer than `per_style_min`.
    """
    spec, seed, fraction = recipe.synthesize, recipe.seed, recipe.mix.val_fraction
    settings_of(recipe)  # wrong ones are told before anything is read
    quotas = Quotas(references, spec, seed)
    by_split: dict[Split, list[int]] = {"train": [], "val": []}
    for style, reference in enumerate(references):
        by_split[split_of(reference.id, seed, fraction)].append(style)

    def split(content: str) -> Split:
        return split_of(content, seed, fraction)

    skipped: Counter[str] = Counter()
    rows: Iterable[Content] = prompts_of(recipe, raw, skipped) if references else ()
    rows = (row for row in rows if by_split[split(row.content)])
    if spec.templates:
        rows = islice(rows, spec.contents)
    contents = Contents(rows, seed, split, skipped)
    jobs = Plan(contents, references, recipe, skipped)
    chosen = contents.choose(spec.contents)
    places = [by_split[split(contents[row].content)] for row in chosen]
    assign(jobs, contents, chosen, places, quotas, again=spec.per_style is not None)
    if not jobs:
        raise RecipeError(
            f"synthesize: no reference shares a split with a content ({len(references)} references,"
            f" val_fraction {fraction})",
            hint="add references or contents, or lower mix.val_fraction",
        )
    quotas.check_least()
    return jobs


def assign(
    jobs: Plan,
    contents: Contents,
    chosen: Sequence[int],
    places: Sequence[Sequence[int]],
    quotas: Quotas,
    *,
    again: bool,
) -> None:
    """Let each chosen content meet references out of its `places`, the least used ones first.

    `again`: visit the contents until every style has its quota or has met all that it can.
    """
    met = [0] * len(chosen) if again else []  # a bit for each reference
    planned = -1
    while len(jobs) > planned:
        planned = len(jobs)
        for number, (row, near) in enumerate(zip(chosen, places, strict=True)):
            seen = met[number] if again else 0
            left = [place for place in near if quotas.open(place) and not seen >> place & 1]
            for place in quotas.least_used(contents[row], left) if left else ():
                if quotas.open(place):  # two references of one style may have been left
                    quotas.use(place)
                    jobs.add(row, place)
                    if again:
                        met[number] |= 1 << place
        if not again:
            break
