"""Read prompts from the captions of raw pairs, from a file, or from templates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from stylear.curate.recipe.synthesizers import needs_content
from stylear.curate.synthesize.prompts.destyle import destyle
from stylear.curate.synthesize.prompts.lines import read_lines
from stylear.errors import RecipeError
from stylear.pair import content_id, digest

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe

NO_CONTENT = "no-content"  # the caption has words of style only


class Content(NamedTuple):
    """A prompt to plan with: the caption of a raw pair, or a text from a file or template."""

    key: str | None  # of the raw pair; None for a prompt of a file or a template
    caption: str  # the prompt, which becomes the caption
    content: str  # content id that decides the split
    original: str | None = None  # before de-stylising; None if it changed nothing


def read_prompts(
    recipe: Recipe, raw: Iterable[Content], skipped: Counter[str]
) -> Iterable[Content]:
    """The prompts of a recipe, de-stylised if it says so; skipped ones are counted by reason.

    Raises RecipeError if the backend needs content images, SourceError for a prompt file.
    """
    spec = recipe.synthesize
    own = "prompts" if spec.prompts is not None else "templates"
    rows = raw
    if spec.prompts is not None or spec.templates:
        if needs_content(spec.backend):
            raise RecipeError(
                f"synthesize.{own}: backend {spec.backend} stylises pictures and takes its"
                " prompts from their captions",
                hint=f"remove synthesize.{own}, or use a backend that draws them (instantstyle)",
            )
        if spec.prompts is not None:
            rows = to_contents(read_lines(spec.prompts, "synthesize.prompts", "prompt"))
        else:
            from stylear.curate.synthesize.prompts.templates import fill_templates

            rows = to_contents(fill_templates(spec, recipe.seed))
    return remove_style(rows, skipped) if spec.destyle else rows


def count_prompts(recipe: Recipe) -> int:
    """The maximum number of prompts that the file or templates of a recipe give; plans nothing.

    Raises RecipeError and SourceError as `read_prompts` does.
    """
    spec = recipe.synthesize
    prompts = read_prompts(recipe, (), Counter())
    if spec.templates:
        from stylear.curate.synthesize.prompts.templates import count_combinations

        return count_combinations(spec)
    return sum(1 for _ in prompts)


def to_contents(prompts: Iterable[str]) -> Iterator[Content]:
    """Prompts without a raw pair, each once; the content id comes from the text."""
    return deduplicate(Content(None, prompt, content_id(prompt)) for prompt in prompts)


def deduplicate(rows: Iterable[Content]) -> Iterator[Content]:
    """Drop repeated texts; raw pairs all stay, because each has its own image."""
    seen: set[bytes] = set()
    for row in rows:
        if row.key is None:
            name = bytes.fromhex(digest(row.caption))
            if name in seen:
                continue
            seen.add(name)
        yield row


def remove_style(rows: Iterable[Content], skipped: Counter[str]) -> Iterator[Content]:
    """De-stylise the captions; rows with nothing left are skipped and counted.

    A raw pair keeps its content id, because its image is unchanged.
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

    return deduplicate(changed())
