"""The plan: which prompt is drawn in which style; the same rows, references and seed give the same plan."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stylear.curate.corpus.split import Split, assign_split
from stylear.curate.references import StyleReference
from stylear.curate.synthesize import dump_backend_settings
from stylear.curate.synthesize.job import CandidateJobs, Job
from stylear.curate.synthesize.prompts.contents import Contents
from stylear.curate.synthesize.prompts.destyle import destyle
from stylear.curate.synthesize.prompts.quotas import Quotas
from stylear.curate.synthesize.prompts.sources import Content, read_prompts
from stylear.errors import RecipeError
from stylear.pair import Scalar, digest

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe


@dataclass(frozen=True, slots=True)
class EarlierGroups:
    """The candidate groups that a corpus has already, which a plan for its growth adds to."""

    groups: Sequence[tuple[str, str]] = ()  # name of the content, id of the reference
    references: Collection[str] = ()  # ids of the references that were known, used or not


class Plan(CandidateJobs):
    """The jobs of a recipe, created on access: it stores a few bytes per job and one text per content."""

    def __init__(
        self,
        contents: Contents,
        references: Sequence[StyleReference],
        recipe: Recipe,
        skipped: Counter[str],
    ) -> None:
        self._contents, self._references = contents, references
        self.skipped = skipped  # prompts by the reason they were skipped for
        self._backend, self._settings = recipe.synthesize.backend, dump_backend_settings(recipe)
        super().__init__(recipe.synthesize.candidates)
        self._seed = recipe.seed
        self._rows, self._styles = array("q"), array("l")  # of each group of candidates

    def add(self, row: int, style: int) -> None:
        """Plan the candidates of one content in the style of one reference."""
        self._rows.append(row)
        self._styles.append(style)

    def content(self, row: int) -> Content:
        """A content of the plan by its index."""
        return self._contents[row]

    def draw_order(self, row: int, style: int) -> str:
        """The seeded sort key of a content and a reference; the lowest are drawn first."""
        content = self._contents[row]
        return digest(self._seed, content.key, content.caption, self._references[style].id)

    def group_indices(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The indices of the content and of the reference of each candidate group."""
        return np.array(self._rows, np.int64), np.array(self._styles, np.int64)

    def contents_per_style(self) -> dict[str, int]:
        """The number of contents drawn in each style."""
        uses = np.bincount(self.group_indices()[1], minlength=len(self._references))
        counts = Counter[str]()
        for reference, count in zip(self._references, uses.tolist(), strict=True):
            counts[reference.style] += count
        return dict(sorted(counts.items()))

    def groups(self) -> Iterator[tuple[Content, StyleReference]]:
        """The content and the reference of each candidate group, in order."""
        for row, style in zip(self._rows, self._styles, strict=True):
            yield self._contents[row], self._references[style]

    @property
    def num_groups(self) -> int:
        return len(self._rows)

    def create_job(self, group: int, candidate: int) -> Job:
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
    metadata: dict[str, Scalar] = {"style_removed": " | ".join(destyle(row.original).removed)}
    return metadata if row.key is not None else {**metadata, "original_prompt": row.original}


def name_content(row: Content) -> str:
    """What identifies a content: the key of its raw pair, or else its prompt."""
    return row.key if row.key is not None else f"prompt {row.caption}"


def plan_jobs(
    raw: Iterable[Content],
    references: Sequence[StyleReference],
    recipe: Recipe,
    earlier: EarlierGroups = EarlierGroups(),
) -> Plan:
    """The jobs of a recipe; the same rows, references and seed give the same jobs.

    With `earlier` groups only further ones are planned: contents that were never drawn are drawn as in any
    plan, then each new reference gets as many of the old contents as the old references have on average.

    Contents come in seeded order, distinct ones first; each is drawn in the least used styles of its own
    split. A style with a quota gets at most that many contents; with `per_style` contents are visited
    again until each style has its number. Raises RecipeError if no job is possible, or a style gets fewer
    than `per_style_min`.
    """
    spec, seed, fraction = recipe.synthesize, recipe.seed, recipe.mix.val_fraction
    dump_backend_settings(recipe)  # raise for wrong settings before reading anything
    quotas = Quotas(references, spec, seed)
    by_split: dict[Split, list[int]] = {"train": [], "val": []}
    for style, reference in enumerate(references):
        by_split[assign_split(reference.id, seed, fraction)].append(style)

    def split(content: str) -> Split:
        return assign_split(content, seed, fraction)

    skipped: Counter[str] = Counter()
    rows: Iterable[Content] = read_prompts(recipe, raw, skipped) if references else ()
    rows = (row for row in rows if by_split[split(row.content)])
    if spec.templates:
        rows = islice(rows, spec.contents)
    contents = Contents(rows, seed, split, skipped)
    jobs = Plan(contents, references, recipe, skipped)
    met = count_earlier(earlier, references, quotas)
    drawn, chosen = choose_contents(contents, spec.contents, met)
    again = spec.per_style is not None
    if again:
        chosen = [*drawn, *chosen]
    allowed = [by_split[split(contents[row].content)] for row in chosen]
    assign_references(jobs, contents, chosen, allowed, quotas, met, repeat=again)
    if not again:
        for in_split in by_split.values():
            new = [index for index in in_split if references[index].id not in earlier.references]
            if 0 < len(new) < len(in_split):
                shared = [
                    row for row in drawn if by_split[split(contents[row].content)] is in_split
                ]
                draw_with_new_references(jobs, shared, in_split, new, quotas, met)
    if not jobs and not earlier.groups:
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
    allowed: Sequence[Sequence[int]],
    quotas: Quotas,
    earlier: Mapping[str, int],
    *,
    repeat: bool,
) -> None:
    """Assign some of the `allowed` references to each chosen content, the least used ones first.

    `repeat`: keep visiting the contents until every style has its quota or has met all contents it can.
    """
    met = []  # a bit for each reference
    if repeat:
        met = [earlier.get(name_content(contents[row]), 0) if earlier else 0 for row in chosen]
    planned = -1
    while len(jobs) > planned:
        planned = len(jobs)
        for number, (row, in_split) in enumerate(zip(chosen, allowed, strict=True)):
            seen = met[number] if repeat else 0
            unused = [
                index for index in in_split if quotas.is_open(index) and not seen >> index & 1
            ]
            for index in quotas.least_used(contents[row], unused) if unused else ():
                if quotas.is_open(
                    index
                ):  # the previous reference may have filled the style's quota
                    quotas.count_use(index)
                    jobs.add(row, index)
                    if repeat:
                        met[number] |= 1 << index
        if not repeat:
            break


def count_earlier(
    earlier: EarlierGroups, references: Sequence[StyleReference], quotas: Quotas
) -> dict[str, int]:
    """Count the uses of earlier groups; for each content a bit for each reference that it was drawn with."""
    indices = {reference.id: index for index, reference in enumerate(references)}
    met: dict[str, int] = {}
    for name, reference in earlier.groups:
        quotas.count_use(indices[reference])
        met[name] = met.get(name, 0) | 1 << indices[reference]
    return met


def choose_contents(
    contents: Contents, quota: int | None, met: Mapping[str, int]
) -> tuple[list[int], list[int]]:
    """The contents that were drawn before, and those to draw now, each in seeded order."""
    if not met:
        return [], contents.choose(quota)
    drawn, chosen = list[int](), list[int]()
    for row in contents.choose(None):
        (drawn if name_content(contents[row]) in met else chosen).append(row)
    return drawn, chosen if quota is None else chosen[: max(0, quota - len(met))]


def draw_with_new_references(
    jobs: Plan,
    rows: Sequence[int],
    in_split: Sequence[int],
    new: Sequence[int],
    quotas: Quotas,
    met: Mapping[str, int],
) -> None:
    """Draw old contents with new references until these are used as often as old ones on average."""
    old = [index for index in in_split if index not in new]
    target_uses = -(-sum(quotas.uses(index) for index in old) // len(old))
    for index in new:
        free = [row for row in rows if not met[name_content(jobs.content(row))] >> index & 1]
        count = max(0, target_uses - quotas.uses(index))
        for row in nsmallest(count, free, key=lambda row: jobs.draw_order(row, index)):
            if quotas.is_open(index):
                quotas.count_use(index)
                jobs.add(row, index)
