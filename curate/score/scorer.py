"""The interfaces of features and scorers.

A feature is computed for every image of a shard, in batches of `batch_size` consecutive images. So its
numbers depend on the shard and the batch size alone, not on other scorers, the number of workers or earlier
work. Scorers whose features have the same name share them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, runtime_checkable

from stylear.curate.corpus.layout import KINDS, ShardKind
from stylear.curate.entry_points import SCORERS, find_plugin, plugin_origin
from stylear.curate.recipe.scores import BUILT_IN
from stylear.curate.score.table import make_table
from stylear.pair import Pair, digest

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image

    from stylear.curate.corpus.pair_reader import PairReader
    from stylear.curate.references import StyleReference

VERSION = 4  # raise if the same images give other columns or metadata
T = TypeVar("T")


class Feature(Protocol):
    """A measurement of an image, such as an embedding."""

    @property
    def name(self) -> Hashable:
        """Identifies the feature; equal names must mean equal numbers."""
        ...

    @property
    def batch_size(self) -> int: ...

    def prepare(self, image: Image.Image) -> Any:
        """Preprocess an RGB image for `measure`. Runs in loader threads, beside the model."""
        ...

    def measure(self, prepared: Sequence[Any]) -> Any:
        """Measure a batch: one row for each image, a tensor (B, ...) on any device or a list."""
        ...


@runtime_checkable
class PairFeature(Protocol):
    """A measurement that needs the pair as well as its image: `prepare_pair` instead of `prepare`.

    It is not computed for style references, which have no pair.
    """

    @property
    def name(self) -> Hashable: ...

    @property
    def batch_size(self) -> int: ...

    def prepare_pair(self, pair: Pair, image: Image.Image) -> Any: ...

    def measure(self, prepared: Sequence[Any]) -> Any: ...


@dataclass(frozen=True, slots=True)
class MeasuredShard:
    """The measured features of one shard."""

    pairs: Sequence[Pair]  # in row order, without their images
    features: Mapping[Hashable, Mapping[int, Any]]  # by name, then by row; only rows with an image
    batch_sizes_after_oom: Mapping[Hashable, int] = field(default_factory=dict)  # by feature

    def rows(self, feature: Feature | PairFeature) -> Mapping[int, Any]:
        """A feature by row index; tensors are on the CPU. Empty for a kind of shard not scored."""
        return self.features.get(feature.name, {})


class Scorer(ABC):
    """The columns of one `score` entry of the recipe."""

    kinds: ClassVar[tuple[ShardKind, ...]] = KINDS  # for other kinds of shards the columns are null
    features: Sequence[Feature | PairFeature] = ()

    def __init__(self, spec: Any, context: Context) -> None:
        self.spec, self.context = spec, context
        self.fingerprint = self.compute_fingerprint(spec)

    @classmethod
    def fingerprint_parts(cls, spec: Any) -> tuple[str, ...]:
        """What affects the score besides the settings: versions, hashes of weights. Loads nothing.

        Raises WeightsError if the model is missing.
        """
        return ()

    @classmethod
    def compute_fingerprint(cls, spec: Any) -> str:
        """A digest that changes if the same pair would get another score."""
        plugin = plugin_origin(SCORERS, spec.type, BUILT_IN).values()
        return digest(spec.type, VERSION, *plugin, *cls.fingerprint_parts(spec))

    @classmethod
    def reference_fingerprint(cls, spec: Any, reference: StyleReference) -> str:
        """The fields of a style reference that affect the score: its id and its image."""
        return f"{reference.id} {reference.sha256}"

    def metadata(self) -> dict[str, Any]:
        """How the columns were measured: model, weights_sha256, dtype, preprocessing."""
        return {"model": None, "weights_sha256": None, "dtype": None, "preprocessing": None}

    @abstractmethod
    def columns(self, shard: MeasuredShard) -> tuple[dict[str, pa.Array], dict[str, Any]]:
        """The columns of a shard, one value per pair, and additional metadata of this shard."""

    def table(self, shard: MeasuredShard) -> pa.Table:
        """`columns` as a table with metadata."""
        columns, extra = self.columns(shard)
        self._check_columns(columns, len(shard.pairs))
        metadata = {
            "type": self.spec.type,
            **self.metadata(),
            **plugin_origin(SCORERS, self.spec.type, BUILT_IN),
            "fingerprint": self.fingerprint,
            **extra,
        }
        names = {feature.name for feature in self.features}
        sizes = [size for name, size in shard.batch_sizes_after_oom.items() if name in names]
        if sizes:
            metadata["batch_size_after_oom"] = min(sizes)
        return make_table([pair.key for pair in shard.pairs], columns, metadata)

    def _check_columns(self, columns: Mapping[str, pa.Array], count: int) -> None:
        """Raise PluginError if a plug-in lacks its column or has another number of values."""
        import pyarrow as pa

        plugin = None if self.spec.type in BUILT_IN else find_plugin(SCORERS, self.spec.type)
        if plugin is None:
            return
        name = self.spec.name
        if name not in columns or not pa.types.is_floating(columns[name].type):
            raise plugin.error(
                f"expected a column {name!r} of floats (use stylear.plugins.float_column), found"
                f" {', '.join(f'{key} {value.type}' for key, value in columns.items()) or 'none'}"
            )
        for key, column in columns.items():
            if len(column) != count:
                raise plugin.error(
                    f"expected {count} values in column {key!r}, found {len(column)}"
                )


class Context:
    """The state that the scorers of one worker share: style references, models, the corpus."""

    def __init__(self, references: Sequence[StyleReference], corpus: Path | None = None) -> None:
        self.references = {reference.id: reference for reference in references}
        self.corpus = corpus
        self._opened: dict[Hashable, Any] = {}
        self._measured: dict[Hashable, dict[str, Any]] = {}
        self._parents: PairReader | None = None
        self._reading = Lock()

    def get_or_open(self, name: Hashable, open: Callable[[], T]) -> T:
        """The object of a name, opened on first use."""
        if name not in self._opened:
            self._opened[name] = open()
        opened: T = self._opened[name]
        return opened

    def reference_rows(self, feature: Feature) -> Mapping[str, Any]:
        """A feature of every style reference of the recipe, by id."""
        return {name: self._measure(name, feature) for name in sorted(self.references)}

    def reference_row(self, pair: Pair, feature: Feature) -> Any:
        """A feature of a pair's style reference. Raises CorpusError if the recipe lacks it."""
        return self._measure(self.reference(pair).id, feature)

    def _measure(self, name: str, feature: Feature) -> Any:
        """Compute a feature of one reference, once and alone, so that it does not depend on the others."""
        known = self._measured.setdefault(feature.name, {})
        if name not in known:
            from stylear.curate.score.batch_size import BatchHalver
            from stylear.curate.score.decode import concatenate_rows
            from stylear.encoders.preprocess import to_rgb

            halver = self.get_or_open(("halver", feature.name), BatchHalver)
            image = to_rgb(self.references[name].image)
            rows = concatenate_rows(halver(feature.measure, [feature.prepare(image)]))
            [known[name]] = rows
        return known[name]

    def reference(self, pair: Pair) -> StyleReference:
        """A pair's style reference. Raises CorpusError if the recipe lacks it."""
        name = pair.origin.reference
        if name is None or name not in self.references:
            from stylear.curate.references import missing_reference_error

            raise missing_reference_error(f"pair {pair.key}", name)
        return self.references[name]

    def parent(self, pair: Pair) -> Pair | None:
        """The raw pair that a pair was stylized from, with its image; None if it has no parent.

        Thread-safe. Raises CorpusError if the corpus lacks the parent.
        """
        if pair.origin.parent is None or self.corpus is None:
            return None
        with self._reading:
            if self._parents is None:
                from stylear.curate.corpus.pair_reader import PairReader

                self._parents = PairReader(self.corpus, ["raw"])
            return self._parents.pair(pair.origin.parent)
