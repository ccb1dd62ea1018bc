"""State dicts: the named tensors of a checkpoint, under whatever level or prefix they were saved.

A level is a key of the checkpoint (`state_dict`); a prefix is what a wrapper put before every name
(`module.` of DistributedDataParallel).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stylear.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

LEVELS = (
    "state_dict", "model_state_dict", "model", "module", "weights", "net", "params",
    "ema", "ema_state_dict", "model_ema", "ema_model", "params_ema",
)  # fmt: skip
WRAPPERS = ("module.", "model.", "ema_model.", "ema.", "net.", "state_dict.")
TRAINING_WRAPPERS = ("module.",)  # mean nothing in any model
COMPILED = "_orig_mod."  # what torch.compile puts into names
AVERAGED = "n_averaged"  # the counter of torch.optim.swa_utils.AveragedModel
QUANTISED = (".absmax", ".quant_map", ".SCB", ".qweight", ".qzeros")  # bitsandbytes, GPTQ, AWQ
SCALES = ("scale_weight", "weight_scale", "weight_scale_inv")  # beside an fp8 `weight`
ACTIVATION_SCALES = ("scale_input", "input_scale")
FP8_MARKER = "scaled_fp8"


def find_state_dict(loaded: Any, what: str) -> dict[str, Tensor]:
    """The named tensors of a checkpoint; nested dictionaries are flattened to dotted names.

    Raises WeightsError if there are none or if the checkpoint holds several sets of weights.
    """
    from torch import Tensor

    while True:
        if not isinstance(loaded, Mapping):
            raise WeightsError(f"{what}: expected named tensors, found {type(loaded).__name__}")
        levels = [name for name in LEVELS if _has_tensors(loaded.get(name))]
        if len(levels) > 1:
            raise WeightsError(
                f"{what}: expected one set of weights, found {' and '.join(levels)}",
                hint=f"keep one of them: torch.save(torch.load({what!r}, weights_only=True)"
                f"[{levels[-1]!r}], NEW)",
            )
        if not levels:
            break
        loaded = loaded[levels[0]]
    tensors = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
    if tensors:
        return tensors
    return {
        f"{level}.{name}": value
        for level, part in loaded.items()
        if isinstance(part, Mapping)
        for name, value in part.items()
        if isinstance(value, Tensor)
    }


def _has_tensors(value: Any) -> bool:
    """Whether a level holds tensors, directly or one level down."""
    from torch import Tensor

    if not isinstance(value, Mapping):
        return False
    below = (item for part in value.values() if isinstance(part, Mapping) for item in part.values())
    return any(isinstance(item, Tensor) for item in (*value.values(), *below))


def strip_wrappers(tensors: Mapping[str, Tensor], roots: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """The tensors without the prefixes that training wrappers put before every name.

    `roots` are the beginnings of the names that the caller expects: common prefixes are removed until a name
    has one. Without `roots`, only prefixes that belong to no model are removed.
    """
    stripped = {name.replace(COMPILED, ""): value for name, value in tensors.items()}
    if any(name.startswith("module.") for name in stripped):
        stripped.pop(AVERAGED, None)
    wrappers = WRAPPERS if roots else TRAINING_WRAPPERS
    while stripped and not any(name.startswith(roots) for name in stripped):
        prefix = next((p for p in wrappers if all(name.startswith(p) for name in stripped)), None)
        if prefix is None:
            break
        stripped = {name.removeprefix(prefix): value for name, value in stripped.items()}
    return stripped


def cast_fp8(tensors: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """The tensors with fp8 cast to float16, which represents it exactly, or multiplied by its scale.

    Raises WeightsError if weights are quantised in another way.
    """
    import torch

    for name in tensors:
        if name.endswith(QUANTISED):
            raise WeightsError(
                f"{what}: expected floating-point weights, found quantised ones ({name})",
                hint="use the release in float16, bfloat16 or float32",
            )
    kinds = (
        *(torch.float8_e4m3fn, torch.float8_e5m2),
        *(torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
    )
    if not any(value.dtype in kinds for value in tensors.values()):
        return dict(tensors)
    cast: dict[str, Tensor] = {}
    used = {FP8_MARKER}
    for name, value in tensors.items():
        if value.dtype not in kinds:
            continue
        stem = name.removesuffix("weight")
        scale_name = next((stem + suffix for suffix in SCALES if stem + suffix in tensors), None)
        used |= {stem + suffix for suffix in ACTIVATION_SCALES}
        if scale_name is None:
            cast[name] = value.half()
            continue
        scale = tensors[scale_name].float()
        rows = scale.shape == (value.shape[0], *[1] * (value.ndim - 1))
        if scale.numel() != 1 and not rows:
            raise WeightsError(
                f"{what}: {scale_name}: expected one scale for {name}, or one for each row, found "
                f"{'x'.join(map(str, scale.shape))}",
                hint="multiply weights and scales where the file was made, and save them as bfloat16",
            )
        cast[name] = value.float() * (scale if rows else scale.reshape(()))
        used.add(scale_name)
    return {name: cast.get(name, value) for name, value in tensors.items() if name not in used}
