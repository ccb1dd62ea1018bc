"""Prompts: what is drawn, from the captions of raw pairs, from a file, or from templates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from stylear.curate.recipe.synthesizers import NEEDS_CONTENT
from stylear.curate.synthesize.prompts.destyle import destyle
from stylear.curate.synthesize.prompts.lines import read_lines
from stylear.errors import RecipeError
from stylear.pair import content_id, digest

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe

NO_CONTENT = "no-content"  # nothing but words of style


class Content(NamedTuple):
    """What planning has to know of a prompt: the caption of a raw pair (no image), or a text alone."""

    key: str | None  # of the raw pair; None for a prompt of a file or a template
    caption: str  # the prompt, which becomes the caption
    content: str  # content id that decides the split
    original: str | None = None  # before de-stylising; None when it changed nothing


def prompts_of(recipe: Recipe, raw: Iterable[Content], skipped: Counter[str]) -> Iterable[Content]:
    """The prompts of a recipe, de-stylised where it says so; what is skipped is counted by reason.

    Raises RecipeError when the backend takes its prompts from pictures, SourceError for a file.
    """
    spec = recipe.synthesize
    own = "prompts" if spec.prompts is not None else "templates"
    rows = raw
    if spec.prompts is not None or spec.templates:
        if spec.backend in NEEDS_CONTENT:
            raise RecipeError(
                f"synthesize.{own}: backend {spec.backend} stylises pictures and takes its"
                " prompts from their captions",
                hint=f"remove synthesize.{own}, or use a backend that draws them (instantstyle)",
            )
        if spec.prompts is not None:
            rows = texts(read_lines(spec.prompts, "synthesize.prompts", "prompt"))
        else:
            from stylear.curate.synthesize.prompts.templates import fill

            rows = texts(fill(spec, recipe.seed))
    return without_style(rows, skipped) if spec.destyle else rows


def texts(prompts: Iterable[str]) -> Iterator[Content]:
    """Prompts that no raw pair has, each once; the text names the content."""
    return distinct(Content(None, prompt, content_id(prompt)) for prompt in prompts)


def distinct(rows: Iterable[Content]) -> Iterator[Content]:
    """The rows without texts that stood before; raw pairs stay, each is a picture of its own."""
    seen: set[bytes] = set()
    for row in rows:
        if row.key is None:
            name = bytes.fromhex(digest(row.caption))
            if name in seen:
                continue
            seen.add(name)
        yield row


def without_style(rows: Iterable[Content], skipped: Counter[str]) -> Iterator[Content]:
    """The rows with de-stylised captions; those of which nothing is left are counted and left out.

    The content of a raw pair stays what it was, because its picture does.
    """

    def changed() -> Iterator[Content]:
        for row in rows:
            text = destyle(row.caption).text
            if not text:
                skipped[NO_CONTENT] += 1
            elif text == row.caption:
                yield row
            else:
                content = row.content if row.key is not None else content_id(text)
                yield Content(row.key, text, content, row.caption)

    return distinct(changed())
