"""Presets: sampling settings and templates under a name."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from stylear.errors import UsageError
from stylear.model.style_model import CONTROL_TEMPLATE, PROMPT_TEMPLATE
from stylear.sampling.generate import Sampling

if TYPE_CHECKING:
    from stylear.model.style_model import StyleModel


@dataclass(frozen=True, slots=True)
class Preset:
    """Sampling settings under the names of the keywords of `generate`, and the prompts' templates."""

    guidance: float
    top_k: int
    temperature: float
    noise: float
    removal: float
    prompt_template: str = PROMPT_TEMPLATE
    control_template: str = CONTROL_TEMPLATE


SAMPLED = ("guidance", "top_k", "temperature", "noise", "removal")
PRESETS = {
    # released code: inference.py and inference_MultiCondition.py, which differ in the noise
    "released": Preset(guidance=4.0, top_k=2000, temperature=1.0, noise=0.3, removal=0.8),
    "released-control": Preset(guidance=4.0, top_k=2000, temperature=1.0, noise=0.1, removal=0.8),
}


def get_preset(name: str) -> Preset:
    """A preset by name. Raises UsageError that lists them all."""
    if name not in PRESETS:
        raise UsageError(f"--preset: expected one of {', '.join(PRESETS)}, found {name!r}")
    return PRESETS[name]


def choose_sampling(preset: Preset | None, **flags: Any) -> Sampling:
    """Sampling settings: the flags that are not None, else the preset's, else the defaults.

    Raises UsageError for a value out of range.
    """
    values = {} if preset is None else asdict(preset)
    values = {name: values[name] for name in SAMPLED if name in values}
    return Sampling(**values | {name: value for name, value in flags.items() if value is not None})


def apply_templates(model: StyleModel, preset: Preset) -> StyleModel:
    """The model with the preset's templates in place of its own; weights are shared."""
    settings = replace(
        model.settings,
        prompt_template=preset.prompt_template,
        control_template=preset.control_template,
    )
    return replace(model, settings=settings)
