"""The data side: from sources to an audited corpus of (caption, image) pairs.

from stylear import curate
curate.build("demo", "corpus")
corpus = curate.open_corpus("corpus")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stylear.curate.api import Corpus as Corpus
    from stylear.curate.api import build as build
    from stylear.curate.api import open_corpus as open_corpus
    from stylear.curate.api import win_rates as win_rates

__all__ = ["Corpus", "build", "open_corpus", "win_rates"]


def __getattr__(name: str) -> Any:
    """A public name, imported now."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("stylear.curate.api"), name)
