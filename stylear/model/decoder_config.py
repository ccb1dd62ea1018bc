"""A decoder's sizes, named as in transformers' ChameleonConfig and LlamaConfig."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NoReturn

from stylear.errors import WeightsError

KINDS = {  # of settings, for messages
    int: "a positive integer",
    float: "a number",
    bool: "true or false",
    str: "text",
    tuple: "a list of positive integers",
}


def refuse_setting(key: str, expected: str, found: Any) -> NoReturn:
    """Raise WeightsError about a setting of a config.json; `expected` says in words what it should be."""
    raise WeightsError(
        f"config.json: {key} expected {expected}, found {found!r}",
        hint="use the config.json that was published with the weights, of a family that is supported",
    )


def require_setting(key: str, expected: Any, found: Any) -> None:
    """Raise WeightsError if a setting of a config.json is not the expected one."""
    if found != expected:
        refuse_setting(key, repr(expected), found)


def require_types(values: Mapping[str, Any], like: Mapping[str, Any], part: str = "") -> None:
    """Raise WeightsError for a setting that is not of the type of its default in `like`.

    Integers are sizes and counts, so they must be positive; `part` names the part of the config.json.
    """
    for key, default in like.items():
        value = values.get(key, default)
        if not _is_like(value, default):
            refuse_setting(f"{part}{key}", KINDS[type(default)], value)


def _is_like(value: Any, default: Any) -> bool:
    if isinstance(default, tuple):
        items = value if isinstance(value, list | tuple) else [None]
        return len(items) >= min(1, len(default)) and all(_is_like(item, 1) for item in items)
    if isinstance(default, bool | str):
        return isinstance(value, type(default))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(default, float) or (isinstance(value, int) and value > 0)


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
    def from_dict(cls, raw: Mapping[str, Any]) -> DecoderConfig:
        """From a config.json. Raises WeightsError for an architecture this decoder is not."""
        known = {f.name for f in fields(cls)}
        values = {k: v for k, v in raw.items() if k in known and v is not None}
        values.setdefault("num_key_value_heads", values.get("num_attention_heads", 32))
        require_types(values, asdict(cls()))
        rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
        if not isinstance(rope, Mapping):
            refuse_setting("rope_parameters", "an object", rope)
        kind = rope.get("rope_type", rope.get("type", "default"))
        for key, expected, value in (
            ("rope_type", "default", kind),
            ("hidden_act", "silu", raw.get("hidden_act", "silu")),
        ):
            require_setting(key, expected, value)
        if "rope_theta" in rope:
            values["rope_theta"] = rope["rope_theta"]
            require_types(values, {"rope_theta": cls.rope_theta})
        config = cls(**values)
        for part, whole in (
            ("num_attention_heads", "hidden_size"),
            ("num_key_value_heads", "num_attention_heads"),
        ):
            divisor, number = getattr(config, part), getattr(config, whole)
            if number % divisor:
                refuse_setting(part, f"a divisor of {whole} {number}", divisor)
        require_setting("head_dim", config.head_dim, raw.get("head_dim") or config.head_dim)
        return config

    def to_dict(self) -> dict[str, Any]:
        """For a config.json that transformers reads too."""
        values = asdict(self)
        values["rope_parameters"] = {"rope_theta": values["rope_theta"], "rope_type": "default"}
        return values

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads
