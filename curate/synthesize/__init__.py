"""Synthesis: a prompt, a style reference and often a content image become stylized candidates.

`plan` decides which; `open_synthesizer` gives what makes them. One file a backend.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from curate.references import StyleReference
from curate.split import split_of
from curate.synthesize.job import Encoding, Job
from curate.synthesize.settings import NEEDS_CONTENT, InstantStyleSettings, backend_settings
from stylear.errors import RecipeError, SourceError
from stylear.pair import Pair, content_id, digest

if TYPE_CHECKING:
    from pathlib import Path

    from curate.recipe import Recipe

__all__ = ["Content", "Job", "Synthesizer", "open_synthesizer", "plan", "settings_of"]


class Content(NamedTuple):
    """What planning has to know of a raw pair (a row of the raw tables, no image)."""

    key: str | None
    caption: str
    content: str


class Synthesizer(Protocol):
    """Makes the pairs of jobs; loaded once per worker."""

    fingerprint: str  # changes when the same job would give another image

    def __call__(self, jobs: Sequence[tuple[Job, bytes]]) -> list[Pair]:
        """One pair a job, in order. The bytes are the parent's image (b"" where none is needed)."""
        ...


def settings_of(recipe: Recipe) -> str:
    """Canonical JSON of the backend's resolved settings that decide an image."""
    import json

    settings = backend_settings(recipe.synthesize.backend, recipe.synthesize.settings)
    values = settings.model_dump(mode="json", exclude={"batch_size", "device"})
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


def plan(raw: Iterable[Content], references: Sequence[StyleReference], recipe: Recipe) -> list[Job]:
    """The jobs of a recipe, the same for the same rows, references and seed.

    Contents are drawn in seeded order, distinct contents first; each meets the references of its
    own split that were used least so far. Raises RecipeError when no job is possible.
    """
    spec, seed, fraction = recipe.synthesize, recipe.seed, recipe.mix.val_fraction
    settings = settings_of(recipe)
    if spec.prompts is not None:
        if spec.backend in NEEDS_CONTENT:
            raise RecipeError(
                f"synthesize.prompts: backend {spec.backend} stylises pictures and takes its"
                " prompts from their captions",
                hint="remove synthesize.prompts, or use a backend that draws them (instantstyle)",
            )
        raw = read_prompts(spec.prompts)
    by_split: dict[str, list[StyleReference]] = {"train": [], "val": []}
    for reference in references:
        by_split[split_of(reference.id, seed, fraction)].append(reference)
    rows = [row for row in raw if by_split[split_of(row.content, seed, fraction)]]
    uses: dict[str, int] = {reference.id: 0 for reference in references}
    jobs = []
    for row in choose(rows, spec.contents, seed):
        pool = by_split[split_of(row.content, seed, fraction)]
        order = sorted(pool, key=lambda r: (uses[r.id], digest(seed, row.key, row.caption, r.id)))
        for reference in order[: spec.references_per_content]:
            uses[reference.id] += 1
            jobs += [
                Job(
                    backend=spec.backend,
                    prompt=row.caption,
                    reference=reference.id,
                    reference_sha256=reference.sha256,
                    content=row.content,
                    parent=row.key,
                    candidate=candidate,
                    settings=settings,
                )
                for candidate in range(spec.candidates)
            ]
    if not jobs:
        raise RecipeError(
            f"synthesize: no reference shares a split with a content ({len(references)} references,"
            f" val_fraction {fraction})",
            hint="add references or contents, or lower mix.val_fraction",
        )
    return jobs


def choose(rows: Iterable[Content], quota: int | None, seed: int) -> list[Content]:
    """At most `quota` rows in seeded order, no content twice before each was taken once."""
    shuffled = sorted(rows, key=lambda row: digest("content", seed, row.key, row.caption))
    seen: dict[str, int] = {}
    ranked = []
    for place, row in enumerate(shuffled):
        rank = seen[row.content] = seen.get(row.content, -1) + 1
        ranked.append((rank, place, row))
    return [row for _, _, row in sorted(ranked)[:quota]]


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
    if isinstance(settings, InstantStyleSettings):
        from curate.synthesize.instantstyle import InstantStyle

        return InstantStyle(settings, by_id, encoding)
    from curate.synthesize.pictures import PictureSynthesizer

    return PictureSynthesizer(spec.backend, settings, by_id, encoding)
