"""What every format of an export is given and has to do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from stylear.console import Bar
from stylear.curate.corpus.tars import BLOCK
from stylear.curate.export.corpus import ExportedCorpus
from stylear.curate.export.declared import Declared
from stylear.curate.export.facts import Facts, gather_facts
from stylear.pair import Pair

MEMBERS_BYTES = 4 * BLOCK + 1200  # of a sample's tar members beside the picture, about


class Export(ABC):
    """One format: it writes a corpus into an empty folder, with no clock and no chance in it."""

    def __init__(self, corpus: ExportedCorpus, declared: Declared) -> None:
        self.corpus, self.declared = corpus, declared
        self.bar: Bar | None = None  # advanced by one for each pair that is written
        self.warnings: list[str] = []  # what the user should know of what was written

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write all files. Raises CorpusError for a corpus that cannot be had in this format."""

    @abstractmethod
    def estimate_bytes(self) -> int:
        """How many bytes that takes, about; no picture is read."""

    @cached_property
    def facts(self) -> Facts:
        """What the corpus can say of itself."""
        return gather_facts(self.corpus)

    def track(self, pairs: Iterator[Pair]) -> Iterator[Pair]:
        """Pass pairs through, and count each when it was used."""
        for pair in pairs:
            yield pair
            if self.bar is not None:
                self.bar.advance()

    def tar_bytes(self) -> int:
        """Bytes of the corpus's own shards in all splits."""
        corpus = self.corpus
        return sum(corpus.total_bytes(corpus.shards(split)) for split in corpus.split_sizes)

    def image_bytes(self) -> int:
        """Bytes of the pictures in all splits, about: those of the shards without all else."""
        return max(0, self.tar_bytes() - MEMBERS_BYTES * self.corpus.num_pairs)
