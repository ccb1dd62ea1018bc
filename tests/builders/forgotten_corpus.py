"""A finished corpus of which a raw pair, with what was synthesised from it, is forgotten, for tests."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylear.curate.corpus.parquet import read_table
from stylear.curate.corpus.shards import iter_pairs
from stylear.curate.forget import ForgetResult, forget_pairs
from stylear.curate.forget.request import Request
from stylear.pair import Pair


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The corpus after the forget and a copy from before it, the raw pair, and what was made of it."""

    corpus: Path
    before: Path
    raw: Pair
    children: tuple[Pair, ...]
    result: ForgetResult

    @property
    def keys(self) -> set[str]:
        return {self.raw.key, *(child.key for child in self.children)}


def pair_to_forget(corpus: Path) -> tuple[Pair, tuple[Pair, ...]]:
    """A raw pair of train from which pairs were synthesised, one of them chosen in a preference pair."""
    train = {pair.key for pair in iter_pairs(corpus / "train")}
    chosen = {row["chosen"] for row in rows(corpus, "preferences")}
    stylized = list(iter_pairs(corpus / "stylized"))
    for raw in iter_pairs(corpus / "raw"):
        children = tuple(pair for pair in stylized if pair.origin.parent == raw.key)
        if raw.key in train and any(child.key in chosen for child in children):
            return raw, children
    raise AssertionError("no such pair")


def forget_one(finished: Path, root: Path) -> Forgotten:
    """Forget that pair by its source, in a copy of a finished corpus."""
    before = Path(shutil.copytree(finished, root / "before"))
    corpus = Path(shutil.copytree(finished, root / "corpus"))
    raw, children = pair_to_forget(corpus)
    result = forget_pairs(corpus, Request(sources=(raw.origin.source,)))
    return Forgotten(corpus, before, raw, children, result)


def rows(corpus: Path, place: str) -> list[dict[str, Any]]:
    """The rows of a table, or of all tables of a folder."""
    path = corpus / place
    paths = [path] if path.suffix == ".parquet" else sorted(path.glob("*.parquet"))
    return [row for table_path in paths for row in read_table(table_path).to_pylist()]
