"""CLIP: any open_clip model, opened by name, without the network.

Axes: B images or texts, S image side in pixels, D embedding size, N patches, W tower width.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylear.encoders.clip_weights import adapt_directory, adapt_for_open_clip
from stylear.encoders.preprocess import ImagePreprocessor, Picture
from stylear.encoders.quick_gelu import refuse_wrong_activation
from stylear.errors import WeightsError
from stylear.weights.files import hash_path, read_json, write_bytes, write_json, write_tensors
from stylear.weights.names import resolve_model

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILES = (  # the names that open_clip itself prefers, in its order
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model")
SPECIAL_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
}


class ClipEncoder:
    """A frozen CLIP: images and texts to unit vectors, images to the tower's patch features."""

    def __init__(
        self,
        name: str,
        weights: Path,
        model: nn.Module,
        transform: Any,
        tokenizer: Any,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.name = name
        self.weights_sha256 = hash_path(weights)
        self.model = model.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self.context_length = int(tokenizer.context_length)
        visual: Any = self.model.visual
        size = visual.image_size
        self.image_size = int(size if isinstance(size, int) else size[0])
        config = visual.preprocess_cfg
        mean, std = (" ".join(f"{value:g}" for value in config[name]) for name in ("mean", "std"))
        self.preprocessing = (
            f"open_clip, {self.image_size} px, {config['resize_mode']}, {config['interpolation']},"
            f" mean {mean}, std {std}"
        )
        blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
        self._num_blocks = 0 if blocks is None else len(blocks)
        grid = getattr(visual, "grid_size", (0, 0))
        self.num_patches = int(grid[0] * grid[1])
        self.feature_dim = int(visual.conv1.out_channels) if blocks is not None else 0
        self.device = next(self.model.parameters()).device
        self.dtype = dtype  # of the input; open_clip keeps norms and single parameters in float32
        self.preprocessor = ImagePreprocessor.from_open_clip(
            transform, self.image_size, self.device
        )

    @classmethod
    def open(
        cls, name: str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> ClipEncoder:
        """Open a CLIP by name; nothing is ever downloaded.

        `name` is a mini model ("mini-clip"), a directory in open_clip's `local-dir:` layout
        (open_clip_config.json, weights, tokenizer files), or "ARCH/CHECKPOINT-FILE" with an
        architecture of open_clip ("ViT-H-14//data/open_clip_model.safetensors").
        Raises WeightsError when the files are missing, corrupt or of another model.
        """
        arch, _, checkpoint = name.partition("/")
        if checkpoint and not Path(name).exists() and arch in _architectures():
            return cls._open_checkpoint(name, arch, Path(checkpoint).expanduser(), device, dtype)
        directory = resolve_model(name)
        if not directory.is_dir():
            raise WeightsError(
                f"{name}: expected a directory with {CONFIG_FILE}, found a file",
                hint="for a single checkpoint, prefix its architecture: ViT-H-14/FILE",
            )
        config = read_json(directory / CONFIG_FILE).get("model_cfg")
        if not isinstance(config, dict) or not isinstance(config.get("text_cfg"), dict):
            raise WeightsError(f"{directory / CONFIG_FILE}: expected `model_cfg.text_cfg`")
        weights = next((directory / f for f in WEIGHTS_FILES if (directory / f).is_file()), None)
        if weights is None:
            raise WeightsError(
                f"{directory}: expected one of {', '.join(WEIGHTS_FILES)}, found none"
            )
        own_tokenizer = bool(config["text_cfg"].get("hf_tokenizer_name"))
        if own_tokenizer and not any((directory / file).is_file() for file in TOKENIZER_FILES):
            raise WeightsError(
                f"{directory}: expected the tokenizer of the model (tokenizer.json), found none",
                hint="copy the tokenizer files into the directory; nothing is downloaded",
            )
        _refuse_hub_tower(name, config["text_cfg"])
        kwargs = {"local_files_only": True} if own_tokenizer else {}
        with adapt_directory(directory, weights) as folder:
            source = f"local-dir:{folder}"
            return cls._create(Path(name).name, weights, source, None, kwargs, device, dtype)

    @classmethod
    def _open_checkpoint(
        cls, name: str, arch: str, file: Path, device: torch.device | str, dtype: torch.dtype
    ) -> ClipEncoder:
        import open_clip

        if not file.is_file():
            raise WeightsError(
                f"{name}: expected a checkpoint file after {arch}/, found nothing at {file}",
                hint="fetch the checkpoint yourself and give its path; nothing is downloaded",
            )
        text_config = open_clip.get_model_config(arch)["text_cfg"]
        _refuse_hub_tower(name, text_config)
        if text_config.get("hf_tokenizer_name"):
            raise WeightsError(
                f"{name}: {arch} needs the tokenizer {text_config['hf_tokenizer_name']}",
                hint=f"make a directory with {CONFIG_FILE}, weights and tokenizer, and name that",
            )
        refuse_wrong_activation(name, arch, file)
        with adapt_for_open_clip(file) as known:
            return cls._create(f"{arch}/{file.name}", file, arch, str(known), {}, device, dtype)

    @classmethod
    def _create(
        cls,
        name: str,
        weights: Path,
        source: str,
        pretrained: str | None,
        tokenizer_kwargs: dict[str, Any],
        device: torch.device | str,
        dtype: torch.dtype,
    ) -> ClipEncoder:
        import open_clip
        from safetensors import SafetensorError

        precision = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}[dtype]
        foreign = (RuntimeError, ValueError, TypeError, KeyError, OSError, EOFError)
        try:
            with torch.random.fork_rng(devices=[]):  # building draws random weights first
                model, _, transform = open_clip.create_model_and_transforms(
                    source, pretrained=pretrained, precision=precision, device=device
                )
            tokenizer = open_clip.get_tokenizer(source, **tokenizer_kwargs)
        except (*foreign, SafetensorError, pickle.UnpicklingError) as error:
            text = " ".join(str(error).split())[:300]
            raise WeightsError(
                f"{weights}: open_clip cannot load it as {source}: {text}",
                hint="the weights, the config and the tokenizer must be of the same model",
            ) from error
        return cls(name, weights, model, transform, tokenizer, dtype)

    def preprocess(self, images: Sequence[Picture]) -> Tensor:
        """Encoded or decoded images to pixels (B, 3, S, S), by the model's own preprocess_cfg.

        Raises SourceError for bytes that are not an image.
        """
        return self.preprocessor(images)

    @torch.no_grad()
    def embed_images(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) to (B, D) of length one, float32."""
        model: Any = self.model
        embeddings: Tensor = model.encode_image(pixels.to(self.device, self.dtype)).float()
        return F.normalize(embeddings, dim=-1)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """B texts to (B, D) of length one, float32; texts longer than the context are truncated."""
        model: Any = self.model
        tokens = self._tokenizer(list(texts)).to(self.device)
        embeddings: Tensor = model.encode_text(tokens).float()
        return F.normalize(embeddings, dim=-1)

    def exceeds_context(self, texts: Sequence[str]) -> list[bool]:
        """Which texts have more tokens than `context_length`, so that `embed_texts` truncates them."""
        tokenizer = self._tokenizer
        if not hasattr(tokenizer, "tokenizer"):  # open_clip's own BPE
            return [len(tokenizer.encode(text)) + 2 > self.context_length for text in texts]
        cleaned = [tokenizer.clean_fn(text) for text in texts]
        limit = {"truncation": True, "max_length": self.context_length + 1}
        ids = tokenizer.tokenizer(cleaned, **limit).input_ids if cleaned else []
        return [len(tokens) > self.context_length for tokens in ids]

    @torch.no_grad()
    def patch_features(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) to (B, 1+N, W): `hidden_states[-2]` of the vision tower, class token first.

        That is what enters the last block, before ln_post and the projection, as in the released code.
        Raises WeightsError for a tower that is not open_clip's own vision transformer.
        """
        if self._num_blocks < 2:
            raise WeightsError(
                f"{self.name}: expected a vision transformer of at least 2 blocks for style tokens",
                hint="use a ViT of open_clip as style encoder, e.g. ViT-H-14 or mini-clip",
            )
        model: Any = self.model
        output = model.visual.forward_intermediates(
            pixels.to(self.device, self.dtype),
            indices=[self._num_blocks - 2],
            stop_early=True,
            intermediates_only=True,
            output_fmt="NLC",
            output_extra_tokens=True,
        )
        parts = (output["image_intermediates_prefix"][0], output["image_intermediates"][0])
        return torch.cat(parts, dim=1)


def save_clip(
    model: nn.Module, config: Mapping[str, Any], tokenizer: Any, directory: str | Path
) -> Path:
    """Write a model as a directory that open_clip's `local-dir:` schema and `open` read.

    `config` holds `model_cfg` and `preprocess_cfg`; `tokenizer` is a `tokenizers.Tokenizer` (its
    special tokens named <s> </s> <pad> <unk>), a transformers tokenizer, or None for open_clip's
    own BPE. Weights are stored as fp16; the same model gives the same bytes.
    """
    directory = Path(directory)
    config = json.loads(json.dumps(dict(config)))
    if tokenizer is not None:
        config["model_cfg"]["text_cfg"].setdefault("hf_tokenizer_name", "tokenizer.json")
        _save_tokenizer(tokenizer, config["model_cfg"]["text_cfg"], directory)
    write_tensors(directory / WEIGHTS_FILES[0], model.state_dict(), dtype=torch.float16)
    write_json(directory / CONFIG_FILE, config)
    return directory


def _save_tokenizer(tokenizer: Any, text_config: Mapping[str, Any], directory: Path) -> None:
    if hasattr(tokenizer, "save_pretrained"):
        tokenizer.save_pretrained(directory)
        return
    vocabulary = tokenizer.get_vocab()
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
    settings |= {role: token for role, token in SPECIAL_TOKENS.items() if token in vocabulary}
    settings["model_max_length"] = text_config.get("context_length", 77)
    write_bytes(directory / "tokenizer.json", tokenizer.to_str(pretty=True).encode())
    write_json(directory / "tokenizer_config.json", settings)


def _architectures() -> list[str]:
    import open_clip

    names: list[str] = open_clip.list_models()
    return names


def _refuse_hub_tower(name: str, text_config: Mapping[str, Any]) -> None:
    """Raise WeightsError for a text tower that transformers would look up on the network."""
    tower = text_config.get("hf_model_name")
    if tower and not Path(tower).is_dir():
        raise WeightsError(
            f"{name}: its text tower {tower} would have to be downloaded",
            hint="use a model with open_clip's own text tower",
        )
