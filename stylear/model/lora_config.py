"""The settings of LoRA, named as in PEFT's adapter_config.json. r rank."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stylear.errors import WeightsError

# what PEFT can also do, and this project's LoRA cannot: each must be unset
UNSUPPORTED = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "modules_to_save",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "alora_invocation_tokens",
)
ALL_LINEAR = "all-linear"
HINT = "merge the adapter into its base with peft and use that"


@dataclass(frozen=True)
class LoraConfig:
    """Which layers get LoRA, and of what rank and scale.

    `target_modules` are ends of layer names, or a regular expression of whole names, or "all-linear" (all but
    the head); None stands for those of the decoder. Keys of the patterns are regular expressions of the end
    of a layer's name.
    """

    r: int = 4  # StyleAR paper
    lora_alpha: float | None = None  # r, as the released code has no alpha
    target_modules: tuple[str, ...] | str | None = None
    exclude_modules: tuple[str, ...] | str = ()
    layers_to_transform: tuple[int, ...] | None = None
    lora_dropout: float = 0.0
    use_rslora: bool = False
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], what: str | Path) -> LoraConfig:
        """From the content of an adapter_config.json. Raises WeightsError if it asks for more than LoRA."""
        check_peft_config(config, what)
        layers = config.get("layers_to_transform")
        alpha = config.get("lora_alpha")
        return cls(
            r=int(config.get("r", 8)),  # PEFT's default
            lora_alpha=None if alpha is None else float(alpha),
            target_modules=_names(config.get("target_modules")),
            exclude_modules=_names(config.get("exclude_modules")) or (),
            layers_to_transform=(layers,)
            if isinstance(layers, int)
            else tuple(layers or ()) or None,
            lora_dropout=float(config.get("lora_dropout") or 0.0),
            use_rslora=bool(config.get("use_rslora")),
            rank_pattern=config.get("rank_pattern") or {},
            alpha_pattern=config.get("alpha_pattern") or {},
        )

    def choose_layers(
        self, names: Sequence[str], heads: Collection[str], targets: tuple[str, ...]
    ) -> list[str]:
        """The linear layers that get LoRA, of all `names`.

        `heads` are those that "all-linear" leaves out, `targets` stand in for None. Raises ValueError if
        there is no layer of a name.
        """
        selection = targets if self.target_modules is None else self.target_modules
        if selection == ALL_LINEAR:
            layers = [name for name in names if name not in heads]
        elif isinstance(selection, str):
            layers = [name for name in names if re.fullmatch(selection, name)]
        else:
            for end in selection:
                if not any(_ends(name, end) for name in names):
                    raise ValueError(f"LoRA targets: no layer is named {end!r}")
            layers = [name for name in names if any(_ends(name, end) for end in selection)]
            # as in PEFT, a layer that is named in full need not be in one of the blocks
            layers = [name for name in layers if name in selection or self._is_in_layers(name)]
        exclude = self.exclude_modules
        if isinstance(exclude, str):
            layers = [name for name in layers if not re.fullmatch(exclude, name)]
        else:
            layers = [name for name in layers if not any(_ends(name, end) for end in exclude)]
        if not layers:
            raise ValueError(f"LoRA targets: no layer matches {selection!r}")
        return layers

    def _is_in_layers(self, name: str) -> bool:
        if self.layers_to_transform is None:
            return True
        layer = re.match(r".*?\.[^.]*\.(\d+)\.", name)
        return layer is not None and int(layer[1]) in self.layers_to_transform

    def rank_of(self, name: str) -> int:
        """The rank of a layer."""
        return int(_find_pattern(self.rank_pattern, name, self.r))

    def alpha_of(self, name: str, rank: int) -> float:
        """The alpha of a layer of this rank, by which B A is scaled (`scale_lora`)."""
        alpha = rank if self.lora_alpha is None else self.lora_alpha
        return _find_pattern(self.alpha_pattern, name, alpha)


def scale_lora(rank: int, alpha: float, use_rslora: bool) -> float:
    """The factor of B A: alpha / r, or alpha / sqrt(r) with rslora (arXiv 2312.03732)."""
    return alpha / (math.sqrt(rank) if use_rslora else rank)


def layer_alpha(config: Mapping[str, Any], name: str, rank: int) -> float:
    """The alpha by which a layer's change is scaled as alpha / rank, with rslora too.

    `alpha_pattern` gives a layer its own (its keys end the layer's name, as in PEFT).
    """
    alpha = config.get("lora_alpha")
    own_alpha = _find_pattern(
        config.get("alpha_pattern") or {}, name, rank if alpha is None else alpha
    )
    return rank * scale_lora(rank, own_alpha, bool(config.get("use_rslora")))


def check_peft_config(config: Mapping[str, Any], what: str | Path) -> None:
    """Raise WeightsError for an adapter_config.json that asks for more than LoRA."""
    for key, expected in (("peft_type", "LORA"), ("bias", "none")):
        if config.get(key, expected) != expected:
            raise WeightsError(f"{what}: {key} expected {expected!r}, found {config[key]!r}")
    if config.get("use_dora"):
        raise WeightsError(
            f"{what}: expected LoRA, found DoRA (use_dora)",
            hint=f"DoRA changes magnitudes too; {HINT}",
        )
    for key in UNSUPPORTED:
        if config.get(key):
            raise WeightsError(f"{what}: {key} expected unset, found {config[key]!r}", hint=HINT)


def _names(value: Any) -> tuple[str, ...] | str | None:
    return value if value is None or isinstance(value, str) else tuple(sorted(value))


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")


def _find_pattern(patterns: Mapping[str, Any], name: str, default: float) -> float:
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return float(value)
    return default
