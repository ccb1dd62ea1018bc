"""The public interface of plug-ins: everything that a scorer or a synthesiser of another package needs.

See docs/plugins.md for a complete example.
"""

from stylear.curate.recipe.scores import ScorerSettings
from stylear.curate.recipe.synthesizers import BackendSettings
from stylear.curate.references import StyleReference
from stylear.curate.score.scorer import Context, Feature, MeasuredShard, PairFeature, Scorer
from stylear.curate.score.table import bool_column, float_column, string_column
from stylear.curate.synthesize.job import (
    Encoding,
    Job,
    Pixels,
    decode_image,
    decode_square,
    make_stylized_pair,
)
from stylear.curate.synthesize.plugin import SynthesizerPlugin
from stylear.pair import Origin, Pair

__all__ = [
    "BackendSettings",
    "Context",
    "Encoding",
    "Feature",
    "Job",
    "MeasuredShard",
    "Origin",
    "Pair",
    "PairFeature",
    "Pixels",
    "Scorer",
    "ScorerSettings",
    "StyleReference",
    "SynthesizerPlugin",
    "bool_column",
    "decode_image",
    "decode_square",
    "float_column",
    "make_stylized_pair",
    "string_column",
]
