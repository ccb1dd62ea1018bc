"""What a feature and a scorer are.

A feature is measured of every image of a shard, in batches of `batch_size` consecutive images. So its
numbers depend on the shard and on the batch size, never on which scorers run beside it, on the number of
workers or on what was done before; scorers that name the same feature share it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, runtime_checkable

from stylear.curate.corpus.layout import KINDS, ShardKind
from stylear.curate.score.table import make_table
from stylear.errors import CorpusError
from stylear.pair import Pair, digest

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image

    from stylear.curate.corpus.pair_reader import PairReader
    from stylear.curate.references import StyleReference

VERSION = 3  # raise when the same images give other numbers
T = TypeVar("T")


class Feature(Protocol):
    """What is measured of an image."""

    @property
    def name(self) -> Hashable:
        """Features of one name give the same numbers."""
        ...

    @property
    def batch_size(self) -> int: ...

    def prepare(self, image: Image.Image) -> Any:
        """Of an RGB image, what `measure` takes. Runs in threads, beside the model."""
        ...

    def measure(self, prepared: Sequence[Any]) -> Any:
        """Of a batch, one row an image: a tensor (B, ...) on any device, or a list."""
        ...


@runtime_checkable
class PairFeature(Protocol):
    """What is measured of an image together with what its pair names: `prepare_pair` for `prepare`.

    Style references have no pair, so it is not measured of them.
    """

    @property
    def name(self) -> Hashable: ...

    @property
    def batch_size(self) -> int: ...

    def prepare_pair(self, pair: Pair, image: Image.Image) -> Any: ...

    def measure(self, prepared: Sequence[Any]) -> Any: ...


@dataclass(frozen=True, slots=True)
class Measured:
    """One shard, its features measured."""

    pairs: Sequence[Pair]  # in row order; they no longer carry their images
    features: Mapping[Hashable, Mapping[int, Any]]  # by name, then by row; only rows with an image
    halved: Mapping[Hashable, int] = field(default_factory=dict)  # images that the device held

    def of(self, feature: Feature | PairFeature) -> Mapping[int, Any]:
        """A feature by row; tensors are on the CPU. Empty when the kind of shard does not need it."""
        return self.features.get(feature.name, {})


class Scorer(ABC):
    """Columns of one kind of measurement, of a `score` entry of the recipe."""

    kinds: ClassVar[tuple[ShardKind, ...]] = (
        KINDS  # elsewhere its columns are null, nothing is measured
    )
    features: Sequence[Feature | PairFeature] = ()

    def __init__(self, spec: Any, context: Context) -> None:
        self.spec, self.context = spec, context
        self.fingerprint = self.fingerprint_of(spec)

    @classmethod
    def identity(cls, spec: Any) -> tuple[str, ...]:
        """What decides the numbers beside the settings: versions, hashes of weights. Loads nothing.

        Raises WeightsError when the model is missing.
        """
        return ()

    @classmethod
    def fingerprint_of(cls, spec: Any) -> str:
        """Changes when the same pair would get another score."""
        return digest(spec.type, VERSION, *cls.identity(spec))

    @classmethod
    def reads(cls, spec: Any, reference: StyleReference) -> str:
        """What decides a style reference's part in the numbers: its id and its picture."""
        return f"{reference.id} {reference.sha256}"

    def told(self) -> dict[str, Any]:
        """What the columns are measured with: model, weights_sha256, dtype, preprocessing."""
        return {"model": None, "weights_sha256": None, "dtype": None, "preprocessing": None}

    @abstractmethod
    def columns(self, shard: Measured) -> tuple[dict[str, pa.Array], dict[str, Any]]:
        """The columns of a whole shard, one value a pair, and what else there is to tell."""

    def table(self, shard: Measured) -> pa.Table:
        """`columns` as a table that says what it is."""
        columns, more = self.columns(shard)
        halved = [shard.halved[f.name] for f in self.features if f.name in shard.halved]
        told = {"type": self.spec.type, **self.told(), "fingerprint": self.fingerprint, **more}
        told |= {"halved_to": min(halved)} if halved else {}
        return make_table([pair.key for pair in shard.pairs], columns, told)


class Context:
    """What the scorers of one worker share: style references, opened models, the corpus."""

    def __init__(self, references: Sequence[StyleReference], corpus: Path | None = None) -> None:
        self.references = {reference.id: reference for reference in references}
        self.corpus = corpus
        self._opened: dict[Hashable, Any] = {}
        self._measured: dict[Hashable, dict[str, Any]] = {}
        self._parents: PairReader | None = None
        self._reading = Lock()

    def opened(self, name: Hashable, open: Callable[[], T]) -> T:
        """What `open` gave when it was first asked for by this name."""
        if name not in self._opened:
            self._opened[name] = open()
        found: T = self._opened[name]
        return found

    def of_references(self, feature: Feature) -> Mapping[str, Any]:
        """A feature of every style reference of the recipe, by id: measured once, in order of their ids."""
        if feature.name not in self._measured:
            from stylear.curate.score.batch_size import Halving
            from stylear.curate.score.decode import rows_of
            from stylear.encoders.clip import to_rgb

            halving, size = self.opened(("halving", feature.name), Halving), feature.batch_size
            names, parts = sorted(self.references), []
            for start in range(0, len(names), size):
                images = [self.references[name].image for name in names[start : start + size]]
                parts += halving(feature.measure, [feature.prepare(to_rgb(one)) for one in images])
            self._measured[feature.name] = dict(zip(names, rows_of(parts), strict=True))
        return self._measured[feature.name]

    def of_reference(self, pair: Pair, feature: Feature) -> Any:
        """A feature of a pair's style reference. Raises CorpusError when the recipe lacks it."""
        return self.of_references(feature)[self.reference(pair).id]

    def reference(self, pair: Pair) -> StyleReference:
        """A pair's style reference. Raises CorpusError when the recipe lacks it."""
        name = pair.origin.reference
        if name is None or name not in self.references:
            raise CorpusError(
                f"pair {pair.key}: its style reference {name!r} is not in the recipe",
                hint="put the reference back, or `stylear curate run RECIPE --out CORPUS --redo synthesize`",
            )
        return self.references[name]

    def parent(self, pair: Pair) -> Pair | None:
        """The raw pair whose content a pair shows, with its image; None when it names none.

        Safe in threads. Raises CorpusError for a parent that the corpus lacks.
        """
        if pair.origin.parent is None or self.corpus is None:
            return None
        with self._reading:
            if self._parents is None:
                from stylear.curate.corpus.pair_reader import PairReader

                self._parents = PairReader(self.corpus, ["raw"])
            return self._parents.pair(pair.origin.parent)
