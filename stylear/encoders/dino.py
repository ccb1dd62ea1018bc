"""DINOv2: features of what an image shows and where, by transformers' model in a local directory.

Axes: B images, S image side in pixels, N patches, D hidden size.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from stylear.encoders.preprocess import ImagePreprocessor, Picture
from stylear.errors import WeightsError
from stylear.weights.files import hash_path, read_json, read_tensors
from stylear.weights.names import resolve_model

CONFIG_FILE = "config.json"
PROCESSOR_FILE = "preprocessor_config.json"
WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")  # in the order of transformers
MODELS = {"dinov2": "Dinov2Model", "dinov2_with_registers": "Dinov2WithRegistersModel"}
ROOTS = ("embeddings.", "encoder.", "dinov2.", "dinov2_with_registers.")  # of a DINOv2's tensors
EPSILON = 1e-5  # of torch.nn.InstanceNorm1d


class DinoEncoder:
    """A frozen DINOv2: images to one unit vector each, or to one feature for each patch."""

    def __init__(self, name: str, weights: Path, model: Any, processor: Any) -> None:
        self.name = name
        self.weights_sha256 = hash_path(weights)
        self.model = model.eval().requires_grad_(False)
        self._skipped = 1 + int(getattr(model.config, "num_register_tokens", 0))
        self.image_size = _image_side(processor, name)
        self.preprocessing = _describe_processor(processor, self.image_size)
        self.device, self.dtype = model.device, model.dtype
        self.preprocessor = ImagePreprocessor.from_processor(
            processor, self.image_size, self.device
        )

    @classmethod
    def open(
        cls,
        directory: str | Path,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """Open a directory as published: config.json, preprocessor_config.json and the weights.

        Nothing is downloaded and no code of the directory runs.
        Raises WeightsError naming the file that is missing, or the first key that differs.
        """
        config, processor_config, weights = model_files(directory)
        folder = config.parent
        kind = read_json(config).get("model_type")
        if kind not in MODELS:
            raise WeightsError(
                f"{config}: expected model_type {' or '.join(MODELS)}, found {kind!r}"
            )
        read_json(processor_config)
        model, processor = _load(folder, MODELS[kind], weights, dtype)
        return cls(folder.name, weights, model.to(device), processor)

    def preprocess(self, images: Sequence[Picture]) -> Tensor:
        """Encoded or decoded images to pixels (B, 3, S, S) by the model's own processor.

        Raises SourceError for bytes that are not an image.
        """
        return self.preprocessor(images)

    @torch.no_grad()
    def features(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) to what leaves the last layer norm (B, 1+N, D), float32, class token first."""
        states: Tensor = self.model(pixels.to(self.device, self.dtype)).last_hidden_state.float()
        return torch.cat([states[:, :1], states[:, self._skipped :]], dim=1)

    def embed_images(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) to the class token (B, D) of length one, float32."""
        return F.normalize(self.features(pixels)[:, 0], dim=-1)

    def patch_features(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) to the features of the patches (B, N, D), float32."""
        return self.features(pixels)[:, 1:]


def model_files(directory: str | Path) -> tuple[Path, Path, Path]:
    """The files of a model, by name or path: its config, its processor's config, its weights.

    Raises WeightsError naming what is missing.
    """
    folder = resolve_model(directory)
    if not folder.is_dir():
        raise WeightsError(f"{folder}: expected the directory of a DINOv2 model, found a file")
    for name in (CONFIG_FILE, PROCESSOR_FILE):
        if not (folder / name).is_file():
            raise WeightsError(
                f"{folder / name}: expected this file in the model directory, found nothing",
                hint="check that the path is a complete model directory",
            )
    weights = next((folder / f for f in WEIGHTS_FILES if (folder / f).is_file()), None)
    if weights is None:
        raise WeightsError(f"{folder}: expected {' or '.join(WEIGHTS_FILES)}, found none")
    return folder / CONFIG_FILE, folder / PROCESSOR_FILE, weights


def content_alignment(content: Tensor, result: Tensor) -> Tensor:
    """CAS of patch features (B, N, D) of a content image and its stylised result: (B,), 0 if equal.

    The mean squared difference of features that are normalised over the patches of their image,
    channel by channel, which removes the style (CSGO, Xing et al. 2024; the mean in place of the
    sum is ours). Lower is better; unrelated features give about 2.
    """
    difference = _instance_norm(content) - _instance_norm(result)
    return difference.square().mean(dim=(1, 2))


def _instance_norm(features: Tensor) -> Tensor:
    """(B, N, D) with mean 0 and variance 1 over N."""
    return F.instance_norm(features.transpose(1, 2), eps=EPSILON).transpose(1, 2)


def _load(folder: Path, name: str, weights: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """Load the model and its processor. Raises WeightsError if they do not fit together."""
    import transformers
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    tensors = read_tensors(weights, ROOTS)
    options = {"local_files_only": True, "trust_remote_code": False}
    foreign = (OSError, ValueError, TypeError, KeyError, RuntimeError, EOFError)
    try:
        with _quiet(), torch.random.fork_rng(devices=[]):
            kind = getattr(transformers, name)
            model, info = kind.from_pretrained(
                None,
                config=kind.config_class.from_pretrained(folder, **options),
                state_dict=tensors,
                dtype=dtype,
                ignore_mismatched_sizes=True,  # they are named below
                output_loading_info=True,
                **options,
            )
        processor = transformers.BitImageProcessor.from_pretrained(folder, **options)
    except (*foreign, SafetensorError, StrictDataclassError, pickle.UnpicklingError) as error:
        raise WeightsError(
            f"{folder}: transformers cannot load it: {' '.join(str(error).split())[:300]}",
            hint="the files are corrupt, truncated or of different models; copy them again",
        ) from error
    _check(weights, info)
    return model, processor


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the progress bars and reports of transformers; our errors say more."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _check(weights: Path, info: Mapping[str, Any]) -> None:
    """Raise WeightsError naming the first key that is missing, unexpected or of another shape."""
    problems = [
        f"{key} expected {_format_shape(expected)}, found {_format_shape(found)}"
        for key, found, expected in sorted(info["mismatched_keys"])
    ]
    problems += [f"{key} expected, found nothing" for key in sorted(info["missing_keys"])]
    problems += [f"{key} expected nothing of that name" for key in sorted(info["unexpected_keys"])]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise WeightsError(
            f"{weights}: weights of another model: {problems[0]}{more}",
            hint="the weights and the config beside them must belong to the same model",
        )


def _image_side(processor: Any, name: str) -> int:
    """The side of the processor's output in pixels. Raises WeightsError if it is not square."""
    size: Any = processor.crop_size if processor.do_center_crop else processor.size
    height, width = (getattr(size, side, None) for side in ("height", "width"))
    if height is None or height != width:
        raise WeightsError(
            f"{name}: {PROCESSOR_FILE}: expected a square crop, found {dict(size)}",
            hint="set do_center_crop and crop_size with equal height and width",
        )
    return int(height)


def _describe_processor(processor: Any, side: int) -> str:
    """A description of the processor's steps, for the metadata."""
    size = ", ".join(f"{key} {value}" for key, value in dict(processor.size).items())
    values = {"mean": processor.image_mean, "std": processor.image_std}
    spread = ", ".join(
        f"{key} {' '.join(f'{x:g}' for x in channels)}" for key, channels in values.items()
    )
    return f"{PROCESSOR_FILE}: {size}, cut {side} px, {spread}"


def _format_shape(size: Sequence[int]) -> str:
    return "x".join(map(str, size)) or "a scalar"
