"""De-stylising: captions without the words of style."""

from stylear.curate.synthesize.prompts.destyle.captions import Destyled, destyle

__all__ = ["Destyled", "destyle"]
