"""A decoder's sizes, named as in transformers' ChameleonConfig and LlamaConfig."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from stylear.errors import WeightsError


def require_setting(key: str, expected: Any, found: Any) -> None:
    """Raise WeightsError if a setting of a config.json is not the expected one."""
    if found != expected:
        wanted = expected if isinstance(expected, str) and " " in expected else repr(expected)
        raise WeightsError(
            f"config.json: {key} expected {wanted}, found {found!r}",
            hint="use the config.json that was published with the weights, of a family that is supported",
        )


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of a decoder, named as in transformers' ChameleonConfig; defaults: Chameleon-7B."""

    vocab_size: int = 65536
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 32
    max_position_embeddings: int = 4096
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    qk_norm: bool = True  # LayerNorm on each head's query and key
    swin_norm: bool = False  # norms after attention and MLP instead of before (Chameleon-34B)
    attention_bias: bool = False
    mlp_bias: bool = False

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> DecoderConfig:
        """From a config.json. Raises WeightsError for an architecture this decoder is not."""
        known = {f.name for f in fields(cls)}
        values = {k: v for k, v in found.items() if k in known and v is not None}
        rope = found.get("rope_parameters") or found.get("rope_scaling") or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        for key, expected, value in (
            ("rope_type", "default", kind),
            ("hidden_act", "silu", found.get("hidden_act", "silu")),
        ):
            require_setting(key, expected, value)
        if "rope_theta" in rope:
            values["rope_theta"] = rope["rope_theta"]
        values.setdefault("num_key_value_heads", values.get("num_attention_heads", 32))
        config = cls(**values)
        for part, whole in (
            ("num_attention_heads", "hidden_size"),
            ("num_key_value_heads", "num_attention_heads"),
        ):
            divisor, number = getattr(config, part), getattr(config, whole)
            if number % divisor:
                require_setting(part, f"a divisor of {whole} {number}", divisor)
        require_setting("head_dim", config.head_dim, found.get("head_dim") or config.head_dim)
        return config

    def to_dict(self) -> dict[str, Any]:
        """For a config.json that transformers reads too."""
        values = asdict(self)
        values["rope_parameters"] = {"rope_theta": values["rope_theta"], "rope_type": "default"}
        return values

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads
