"""One pass over shards: decode every image and compute every feature once, for all scorers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from stylear.curate.corpus.layout import ShardKind
from stylear.curate.engine.progress import report_progress
from stylear.curate.score.batch_size import BatchHalver
from stylear.curate.score.decode import concatenate_rows, decode_pair_image
from stylear.curate.score.loader import prefetch
from stylear.curate.score.scorer import Context, Feature, MeasuredShard, PairFeature, Scorer
from stylear.pair import Pair

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image

T = TypeVar("T")
BATCHES_AHEAD = 2


@dataclass(frozen=True, slots=True)
class ShardToScore:
    """The pairs of one shard, and the scorers to run."""

    kind: ShardKind
    pairs: Iterable[Pair]
    scorers: Sequence[Scorer]

    @property
    def features(self) -> dict[Hashable, Feature | PairFeature]:
        """The distinct features that the scorers need for this kind of shard."""
        scorers = (scorer for scorer in self.scorers if self.kind in scorer.kinds)
        return {feature.name: feature for scorer in scorers for feature in scorer.features}


def score_shards(
    shards: Sequence[ShardToScore],
    context: Context,
    finish: Callable[[int, dict[str, pa.Table]], T],
    threads: int = 2,
) -> list[T]:
    """Score shards; returns the results of `finish(shard index, its tables by scorer)`, one per shard.

    Loading continues across shards, and a separate thread builds the tables and runs `finish` (writing), so
    the GPU never waits for I/O. Raises CorpusError for an image that does not decode.
    """
    max_prefetch = BATCHES_AHEAD * max(
        (feature.batch_size for shard in shards for feature in shard.features.values()), default=1
    )
    measurements = [ShardMeasurements(shard, context) for shard in shards]
    pending: list[Future[T]] = []

    def build(number: int, measured: ShardMeasurements) -> T:
        return finish(number, measured.tables())

    loaded = prefetch(
        iterate_pairs(shards),
        lambda item: load_pair(*item, measurements),
        threads=threads,
        max_prefetch=max_prefetch + threads,
    )
    with ThreadPoolExecutor(1) as writer, closing(loaded):
        for number, pair, prepared in loaded:
            if pair is not None:
                measurements[number].add(pair, prepared)
                report_progress()
                continue
            measurements[number].flush()
            pending.append(writer.submit(build, number, measurements[number]))
            for future in pending:
                if future.done():
                    future.result()  # raise early
        return [future.result() for future in pending]


def iterate_pairs(shards: Sequence[ShardToScore]) -> Iterator[tuple[int, Pair | None]]:
    """Yield every pair with the index of its shard; None marks the end of a shard."""
    for number, shard in enumerate(shards):
        for pair in shard.pairs:
            yield number, pair
        yield number, None


def load_pair(
    number: int, pair: Pair | None, measurements: Sequence[ShardMeasurements]
) -> tuple[int, Pair | None, dict[Hashable, Any]]:
    """A pair without its image, and the prepared inputs of its features."""
    if pair is None or not pair.image:
        return number, pair, {}
    features = measurements[number].features
    image = decode_pair_image(pair)
    prepared = {name: prepare_feature(feature, pair, image) for name, feature in features.items()}
    return number, replace(pair, image=b""), prepared


def prepare_feature(feature: Feature | PairFeature, pair: Pair, image: Image.Image) -> Any:
    """Preprocess one image for a feature."""
    if isinstance(feature, PairFeature):
        return feature.prepare_pair(pair, image)
    return feature.prepare(image)


class ShardMeasurements:
    """The measurements of a shard while it is being scored."""

    def __init__(self, shard: ShardToScore, context: Context) -> None:
        self.shard, self.features = shard, shard.features
        self._pairs: list[Pair] = []
        self._open = {name: FeatureBatches() for name in self.features}
        self._halvers = {
            name: context.get_or_open(("halver", name), BatchHalver) for name in self.features
        }

    def add(self, pair: Pair, prepared: dict[Hashable, Any]) -> None:
        """Add a pair, and measure full batches."""
        for name, value in prepared.items():
            batch = self._open[name]
            batch.rows.append(len(self._pairs))
            batch.prepared.append(value)
            if len(batch.prepared) == self.features[name].batch_size:
                self._measure(name)
        self._pairs.append(pair)

    def flush(self) -> None:
        """Measure the incomplete batches."""
        for name, batch in self._open.items():
            if batch.prepared:
                self._measure(name)

    def _measure(self, name: Hashable) -> None:
        batch = self._open[name]
        batch.measured += self._halvers[name](self.features[name].measure, batch.prepared)
        batch.prepared = []

    def tables(self) -> dict[str, pa.Table]:
        """The table of each scorer; moves the measured rows to the CPU."""
        features = {
            name: dict(zip(batch.rows, concatenate_rows(batch.measured), strict=True))
            for name, batch in self._open.items()
        }
        sizes = {
            name: halver.batch_size
            for name, halver in self._halvers.items()
            if halver.batch_size is not None
        }
        measured = MeasuredShard(self._pairs, features, sizes)
        self._open = {}
        return {scorer.spec.name: scorer.table(measured) for scorer in self.shard.scorers}


@dataclass(slots=True)
class FeatureBatches:
    """The batches of one feature: row indices, inputs not measured yet, and measured batches."""

    rows: list[int] = field(default_factory=list)
    prepared: list[Any] = field(default_factory=list)
    measured: list[Any] = field(default_factory=list)
