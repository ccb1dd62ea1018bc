"""One pass over shards: every image is decoded once, and every feature measured once, for all scorers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from stylear.curate.corpus.layout import ShardKind
from stylear.curate.engine.progress import report_progress
from stylear.curate.score.batch_size import Halving
from stylear.curate.score.decode import decode, rows_of
from stylear.curate.score.loader import ahead
from stylear.curate.score.scorer import Context, Feature, Measured, PairFeature, Scorer
from stylear.pair import Pair

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image

T = TypeVar("T")
BATCHES_AHEAD = 2


@dataclass(frozen=True, slots=True)
class Shard:
    """The pairs of one shard, and who scores them."""

    kind: ShardKind
    pairs: Iterable[Pair]
    scorers: Sequence[Scorer]

    @property
    def features(self) -> dict[Hashable, Feature | PairFeature]:
        """What the scorers need of a shard of this kind, each feature once."""
        asked = (one for one in self.scorers if self.kind in one.kinds)
        return {feature.name: feature for one in asked for feature in one.features}


def sweep(
    shards: Sequence[Shard],
    context: Context,
    finish: Callable[[int, dict[str, pa.Table]], T],
    threads: int = 2,
) -> list[T]:
    """What `finish` made of each shard's number and its tables, by the scorers' names.

    Loading goes on over the borders of shards; comparing and `finish` (writing) run in a thread of their
    own. So the device waits for neither. Raises CorpusError for an image that does not decode.
    """
    most = BATCHES_AHEAD * max(
        (feature.batch_size for shard in shards for feature in shard.features.values()), default=1
    )
    sheets = [Sheet(shard, context) for shard in shards]
    waiting: list[Future[T]] = []

    def made(number: int, sheet: Sheet) -> T:
        return finish(number, sheet.tables())

    loaded = ahead(
        places(shards), lambda place: load(*place, sheets), threads=threads, most=most + threads
    )
    with ThreadPoolExecutor(1) as behind, closing(loaded):
        for number, pair, prepared in loaded:
            if pair is not None:
                sheets[number].add(pair, prepared)
                report_progress()
                continue
            sheets[number].flush()
            waiting.append(behind.submit(made, number, sheets[number]))
            for future in waiting:
                if future.done():
                    future.result()  # raises early what failed
        return [future.result() for future in waiting]


def places(shards: Sequence[Shard]) -> Iterator[tuple[int, Pair | None]]:
    """Every pair with the number of its shard; None after the last of each."""
    for number, shard in enumerate(shards):
        for pair in shard.pairs:
            yield number, pair
        yield number, None


def load(
    number: int, pair: Pair | None, sheets: Sequence[Sheet]
) -> tuple[int, Pair | None, dict[Hashable, Any]]:
    """A pair without its image, and what its features take."""
    if pair is None or not pair.image:
        return number, pair, {}
    features = sheets[number].features
    image = decode(pair)
    prepared = {name: prepared_for(feature, pair, image) for name, feature in features.items()}
    return number, replace(pair, image=b""), prepared


def prepared_for(feature: Feature | PairFeature, pair: Pair, image: Image.Image) -> Any:
    """What a feature takes of one image."""
    if isinstance(feature, PairFeature):
        return feature.prepare_pair(pair, image)
    return feature.prepare(image)


class Sheet:
    """A shard being scored."""

    def __init__(self, shard: Shard, context: Context) -> None:
        self.shard, self.features = shard, shard.features
        self._pairs: list[Pair] = []
        self._open = {name: Batch() for name in self.features}
        self._halving = {name: context.opened(("halving", name), Halving) for name in self.features}

    def add(self, pair: Pair, prepared: dict[Hashable, Any]) -> None:
        """One more pair; batches that are full are measured."""
        for name, value in prepared.items():
            batch = self._open[name]
            batch.places.append(len(self._pairs))
            batch.prepared.append(value)
            if len(batch.prepared) == self.features[name].batch_size:
                self._measure(name)
        self._pairs.append(pair)

    def flush(self) -> None:
        """Measure what is left."""
        for name, batch in self._open.items():
            if batch.prepared:
                self._measure(name)

    def _measure(self, name: Hashable) -> None:
        batch = self._open[name]
        batch.measured += self._halving[name](self.features[name].measure, batch.prepared)
        batch.prepared = []

    def tables(self) -> dict[str, pa.Table]:
        """The table of each scorer. Here the measured rows leave the device."""
        found = {
            name: dict(zip(batch.places, rows_of(batch.measured), strict=True))
            for name, batch in self._open.items()
        }
        halved = {name: one.held for name, one in self._halving.items() if one.held is not None}
        measured = Measured(self._pairs, found, halved)
        self._open = {}
        return {scorer.spec.name: scorer.table(measured) for scorer in self.shard.scorers}


@dataclass(slots=True)
class Batch:
    """Of one feature: rows of the shard, what waits to be measured, and what was."""

    places: list[int] = field(default_factory=list)
    prepared: list[Any] = field(default_factory=list)
    measured: list[Any] = field(default_factory=list)
