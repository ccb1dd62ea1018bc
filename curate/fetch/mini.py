"""The mini source: the embedded drawings that ship with the package."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import stylear
from stylear.curate.fetch.samples import Members, Sample, read_samples
from stylear.curate.fetch.shards import make_pairs
from stylear.curate.fetch.tar_reader import TarReader
from stylear.errors import RecipeError, SourceError
from stylear.pair import Pair, content_id, digest

if TYPE_CHECKING:
    from stylear.curate.recipe import MiniSource

CORPUS = Path(stylear.__file__).parent / "mini" / "corpus"
MAX_BYTES = 1_000_000


def read_mini(source: MiniSource, seed: int) -> Iterator[Pair]:
    """The chosen drawings in shard order; `limit` draws whole concepts with the seed.

    Raises RecipeError for a category or vendor that does not exist, SourceError when the package
    lacks its corpus.
    """
    pairs = list(read_drawings())
    for name, values in (("category", source.categories), ("vendor", source.vendors)):
        pairs = _choose(pairs, name, values)
    pairs = [p for p in pairs if source.split is None or p.origin.details["split"] == source.split]
    if source.limit is not None:
        order = sorted(pairs, key=lambda p: (digest("mini", seed, p.origin.content), p.key))
        chosen = {pair.key for pair in order[: source.limit]}
        pairs = [pair for pair in pairs if pair.key in chosen]
    yield from pairs


def read_drawings() -> Iterator[Pair]:
    """All drawings, in shard order."""
    for path in _tars():
        with TarReader(path, MAX_BYTES) as tar:
            for sample in read_samples(tar, MAX_BYTES, Members()):
                yield mini_pair(sample)


def mini_pair(sample: Sample) -> Pair:
    """The pair of one embedded sample; both drawings of a concept show one content."""
    pair = make_pairs(sample, "mini", None, 0)[0]
    origin = replace(pair.origin, source=f"mini:{sample.key}", content=content_id(pair.caption))
    return replace(pair, key=digest("mini", sample.key), origin=origin)


def _tars() -> list[Path]:
    tars = sorted(CORPUS.glob("*.tar"))
    if not tars:
        raise SourceError(
            f"{CORPUS}: expected the embedded corpus, found nothing",
            hint="reinstall the package, or build the corpus with `make mini-corpus`",
        )
    return tars


def _choose(pairs: list[Pair], name: str, values: tuple[str, ...] | None) -> list[Pair]:
    """The pairs whose detail `name` is one of `values`."""
    if values is None:
        return pairs
    present = {str(pair.origin.details.get(name)) for pair in pairs}
    for value in values:
        if value not in present:
            raise RecipeError(
                f"raw: the embedded corpus has no {name} {value!r}",
                hint=f"there are: {', '.join(sorted(present))}",
            )
    return [pair for pair in pairs if pair.origin.details.get(name) in values]
