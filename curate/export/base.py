"""The base class of export formats."""

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

MEMBERS_BYTES = 4 * BLOCK + 1200  # of a sample's other tar members, approximately


class Export(ABC):
    """One format: it writes a corpus into an empty folder, with deterministic output."""

    def __init__(self, corpus: ExportedCorpus, declared: Declared) -> None:
        self.corpus, self.declared = corpus, declared
        self.bar: Bar | None = None  # advanced by one for each pair that is written
        self.warnings: list[str] = []  # shown to the user after the export

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write all files. Raises CorpusError if the corpus cannot be written in this format."""

    @abstractmethod
    def estimate_bytes(self) -> int:
        """The approximate size of the export in bytes; no picture is read."""

    @cached_property
    def facts(self) -> Facts:
        """The corpus metadata."""
        return gather_facts(self.corpus)

    def track(self, pairs: Iterator[Pair]) -> Iterator[Pair]:
        """Pass pairs through and advance the bar after each one."""
        for pair in pairs:
            yield pair
            if self.bar is not None:
                self.bar.advance()

    def tar_bytes(self) -> int:
        """Bytes of the corpus's own shards in all splits."""
        corpus = self.corpus
        return sum(corpus.total_bytes(corpus.shards(split)) for split in corpus.split_sizes)

    def image_bytes(self) -> int:
        """Approximate bytes of the pictures in all splits: the shards without their other members."""
        return max(0, self.tar_bytes() - MEMBERS_BYTES * self.corpus.num_pairs)
