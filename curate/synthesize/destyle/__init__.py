"""De-stylising: captions without the words of style."""

from curate.synthesize.destyle.captions import Destyled, destyle

__all__ = ["Destyled", "destyle"]
