"""Quotas: how many contents each style gets, and which references a content is drawn with next."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from heapq import nsmallest
from typing import TYPE_CHECKING

from stylear.curate.references import StyleReference
from stylear.curate.synthesize.prompts.sources import Content
from stylear.errors import RecipeError
from stylear.pair import digest

if TYPE_CHECKING:
    from stylear.curate.recipe.synthesis import SynthesizeSettings


class Quotas:
    """Counts how often each reference and style was used, and how often a style may still be used.

    References are given by index. Raises RecipeError for a quota of a style that no reference shows.
    """

    def __init__(
        self, references: Sequence[StyleReference], spec: SynthesizeSettings, seed: int
    ) -> None:
        self._references, self._spec, self._seed = references, spec, seed
        self._styles = [reference.style for reference in references]
        self._uses = [0] * len(references)
        self.met: Counter[str] = Counter(dict.fromkeys(self._styles, 0))  # contents of each style
        for name in spec.styles:
            if name not in self.met:
                close = difflib.get_close_matches(name, self.met, 1)
                raise RecipeError(
                    f"synthesize.styles.{name}: no reference has this style",
                    hint=f"did you mean {close[0]}?"
                    if close
                    else f"styles: {', '.join(sorted(self.met)) or 'none'}",
                )

    def style_limit(self, style: str) -> int | None:
        """The maximum number of contents of a style; None for no limit."""
        return self._spec.styles.get(style, self._spec.per_style)

    def is_open(self, reference: int) -> bool:
        """Whether the style of a reference may get another content."""
        limit = self.style_limit(self._styles[reference])
        return limit is None or self.met[self._styles[reference]] < limit

    def uses(self, reference: int) -> int:
        """How many contents were drawn with a reference so far."""
        return self._uses[reference]

    def count_use(self, reference: int) -> None:
        """Count one use of a reference and of its style."""
        self._uses[reference] += 1
        self.met[self._styles[reference]] += 1

    def least_used(self, row: Content, references: Iterable[int]) -> list[int]:
        """The references to draw a content with: the least used ones, ties in seeded order.

        With `per_style` the least used styles come first, and within them the least used references.
        """
        per_style, count = self._spec.per_style is not None, self._spec.references_per_content
        used = {
            index: (self.met[self._styles[index]] if per_style else 0, self._uses[index])
            for index in references
        }
        enough = max(nsmallest(count, used.values()), default=(0, 0))
        drawn = {
            index: (uses, digest(self._seed, row.key, row.caption, self._references[index].id))
            for index, uses in used.items()
            if uses <= enough
        }
        return nsmallest(count, drawn, key=drawn.__getitem__)

    def check_minimum(self) -> None:
        """Raise RecipeError if a style got fewer contents than `per_style_min`."""
        minimum, short = self._spec.per_style_min, []
        for style, met in sorted(self.met.items()):
            limit = self.style_limit(style)
            if met < (minimum if limit is None else min(minimum, limit)):
                short.append(f"{style} {met}")
        if short:
            raise RecipeError(
                f"synthesize.per_style_min: expected at least {minimum} contents for each style,"
                f" found {', '.join(short[:8])}{', ...' if len(short) > 8 else ''}",
                hint="add contents, raise references_per_content, or lower per_style_min;"
                " a style of the val split gets only contents of that split",
            )
