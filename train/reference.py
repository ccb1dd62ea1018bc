"""The reference of preference optimisation: the model that training starts from, frozen.

N pairs, B pairs of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from stylear.console import say
from stylear.curate.corpus.records import canonical_json
from stylear.errors import SettingsChanged, WeightsError
from stylear.model.lineage import describe_lineage
from stylear.model.lora import lora_layers
from stylear.model.style_model import StyleModel
from stylear.pair import digest
from stylear.train.checkpoint import Run
from stylear.train.precision import autocast
from stylear.train.preferences import PreferenceSet
from stylear.train.settings import DpoSettings
from stylear.weights import files as weights

VERSION = 1
RECORD = "reference.json"  # in the run: which reference its steps compare with


def hash_policy(model: StyleModel) -> str:
    """Hash of everything that a model's log-probabilities depend on.

    These are its decoder (that of the base by file, LoRA by its tensors), its resampler and its templates.
    Two runs of LoRA on the same base differ, unlike their `describe_lineage`.
    """
    trained = {
        f"{name}.{part}": tensor
        for name, layer in lora_layers(model.decoder)
        for part, tensor in (
            ("A", layer.lora_A),
            ("B", layer.lora_B),
            ("scale", torch.tensor(layer.scale)),
        )
    }
    if model.resampler is not None:
        trained |= {f"resampler.{n}": t for n, t in model.resampler.state_dict().items()}
    decoder = describe_lineage(model).get("sha256")
    if decoder is None:
        decoder = weights.hash_tensors(model.decoder.state_dict())
    settings = {k: v for k, v in model.settings.to_dict().items() if k != "base"}
    return digest("policy", decoder, weights.hash_tensors(trained), canonical_json(settings))


class FrozenStart:
    """The values that the trained parameters start with, to put back while the reference is computed.

    Where LoRA is new, its B is zero at the start: swapping it in is the same as switching LoRA off.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = parameters
        self.values = [parameter.detach().clone() for parameter in parameters]

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The model is the reference inside the block, and itself again after it."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for index, parameter in enumerate(self.parameters):
            parameter.data, self.values[index] = self.values[index], parameter.data


def open_reference_log_probs(
    training_run: Run,
    policy_hash: str,
    model: StyleModel,
    data: PreferenceSet,
    settings: DpoSettings,
    cache: Path,
    device: str,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities (N,) of every chosen and rejected image under `model`, computed once.

    They are stored in `cache` under the hash of the model, the pairs and the settings that determine them;
    under another hash they are computed again. Raises SettingsChanged if the run has checkpoints
    that were trained against another reference.
    """
    size = min(settings.batch_size, len(data))
    key = digest(
        "reference log-probabilities",
        VERSION,
        policy_hash,
        data.sha256,
        settings.precision,
        str(model.decoder.model.norm.weight.dtype),
        size,
        device.split(":")[0],
        str(torch.__version__),
    )
    record = training_run.root / RECORD
    earlier = weights.read_json(record).get("key") if record.is_file() else None
    if earlier not in (None, key) and training_run.checkpoints():
        raise SettingsChanged(
            f"{training_run.root}: its checkpoints were trained against reference {earlier}, now {key}:"
            " the pairs, the model or torch have changed",
            hint="give another --out, or remove the old run",
        )
    path = cache / f"reference-{key[:16]}.safetensors"
    stored = read_stored(path, key, len(data))
    if stored is None:
        if earlier not in (None, key):
            say(f"{training_run.root}: the model, the pairs or the settings have changed")
        say(f"computing the reference log-probabilities of {len(data)} pairs")
        stored = compute_reference_log_probs(model, data, size, settings.precision, device)
        tensors = {"chosen": stored[0], "rejected": stored[1]}
        weights.write_tensors(path, tensors, metadata={"key": key})
    else:
        say(f"reference log-probabilities of {len(data)} pairs: {path}")
    weights.write_json(record, {"key": key, "file": path.name})
    return stored


def read_stored(path: Path, key: str, pairs: int) -> tuple[Tensor, Tensor] | None:
    """Stored log-probabilities (N,) of both sides; None if there are none, or the file is damaged."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(str(path), framework="pt") as file:
            stored = file.get_tensor("chosen"), file.get_tensor("rejected")
            is_intact = file.metadata().get("key") == key and len(stored[0]) == pairs
    except (SafetensorError, OSError, WeightsError):
        is_intact = False
    if not is_intact:
        say(f"{path}: cannot be used as reference log-probabilities; they are computed again")
        return None
    return stored


@torch.no_grad()
def compute_reference_log_probs(
    model: StyleModel, data: PreferenceSet, size: int, precision: str, device: str
) -> tuple[Tensor, Tensor]:
    """Log-probabilities (N,) of every chosen and rejected image under the frozen model."""
    chosen: list[Tensor] = []
    rejected: list[Tensor] = []
    for start in range(0, len(data), size):
        picks = list(range(start, min(len(data), start + size)))
        with autocast(precision, device):
            pair = data.compute_log_probs(model, picks)
        chosen.append(pair[0].cpu())
        rejected.append(pair[1].cpu())
    return torch.cat(chosen), torch.cat(rejected)
