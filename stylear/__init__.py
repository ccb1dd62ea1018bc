"""Build a style corpus you can defend; train a style-aligned autoregressive image model on it.

The public names are imported when they are first asked for, so that `import stylear` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stylear.evaluation.evaluate import evaluate as evaluate
    from stylear.model.open import open_model as load_model
    from stylear.sampling.generate import generate as generate
    from stylear.sampling.styles import StyleBlend as StyleBlend

__version__ = "0.1.0"
__all__ = ["StyleBlend", "evaluate", "generate", "load_model"]

PUBLIC = {
    "load_model": ("stylear.model.open", "open_model"),
    "generate": ("stylear.sampling.generate", "generate"),
    "evaluate": ("stylear.evaluation.evaluate", "evaluate"),
    "StyleBlend": ("stylear.sampling.styles", "StyleBlend"),
}


def __getattr__(name: str) -> Any:
    """A public name, imported now."""
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = PUBLIC[name]
    return getattr(import_module(module), attribute)
