"""Open a diffusers pipeline from a local directory, with every component checked and hashed.

Only safetensors files are read, nothing is downloaded, and no code beside the weights is run.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from stylear.curate.recipe.synthesizers import DiffusionSettings
from stylear.device import pick_device
from stylear.errors import RecipeError, WeightsError
from stylear.pair import digest
from stylear.weights.files import hash_path, read_json, read_weight_map
from stylear.weights.formats import require_weights
from stylear.weights.names import resolve_model

LIBRARIES = ("diffusers", "transformers")
INDEX = "model_index.json"
SHARD_SUFFIX = re.compile(r"-\d{5}-of-\d{5}")  # of sharded weights


def choose_device(name: str) -> str:
    """Resolve `auto` to a torch device. Raises RecipeError for a device that torch does not know."""
    if name == "auto":
        return pick_device(name)
    try:
        return pick_device(str(torch.device(name)), "synthesize.settings.device")
    except RuntimeError as error:
        raise RecipeError(
            f"synthesize.settings.device: expected a torch device, found {name!r}",
            hint="use auto, cpu or cuda",
        ) from error


def choose_dtype(name: str, device: str) -> torch.dtype:
    """Resolve `auto` to float32 on a CPU and bfloat16 elsewhere."""
    if name == "auto":
        return torch.float32 if device == "cpu" else torch.bfloat16
    chosen: torch.dtype = getattr(torch, name)
    return chosen


def open_pipeline(
    kind: Any, settings: DiffusionSettings, dtype: torch.dtype, **parts: Any
) -> tuple[Any, str]:
    """A pipeline of class `kind` in main memory, and a digest of the files it was loaded from.

    `parts` are passed to the pipeline unchanged: components from elsewhere, or its own options. Raises
    WeightsError if the directory is incomplete, holds other weights, or asks to run code.
    """
    model = resolve_model(settings.model)
    components = read_components(model)
    with silence_libraries(), wrap_load_errors(str(model)):
        for name, (library, kind_name) in components.items():
            module = getattr(importlib.import_module(library), kind_name, None)
            if (
                name not in parts
                and isinstance(module, type)
                and issubclass(module, torch.nn.Module)
            ):
                parts[name] = open_component(module, model / name, settings.variant, dtype)
        pipeline = kind.from_pretrained(
            model,
            dtype=dtype,
            variant=settings.variant,
            use_safetensors=True,
            local_files_only=True,
            **parts,
        )
    pipeline.set_progress_bar_config(disable=True)
    files = [
        file for name in sorted(components) for file in list_files(model / name, settings.variant)
    ]
    return pipeline, digest_files(model, [model / INDEX, *files])


def read_components(model: Path) -> dict[str, tuple[str, str]]:
    """The components that model_index.json names, each with its module and class.

    Raises WeightsError if the directory is not a pipeline or needs code from another library.
    """
    if not model.is_dir():
        raise WeightsError(f"{model}: expected a pipeline directory, found a file")
    index = read_json(model / INDEX)
    components = {}
    from diffusers import pipelines

    for name, value in index.items():
        if name != "_class_name" and not (isinstance(value, list) and value and value[0]):
            continue
        if name == "_class_name" and isinstance(value, str):
            continue
        library = value[0] if isinstance(value, list) and len(value) == 2 else None
        shipped = library in LIBRARIES or (
            isinstance(library, str) and library.isidentifier() and hasattr(pipelines, library)
        )
        if name == "_class_name" or not shipped or not isinstance(value[1], str):
            raise WeightsError(
                f"{model / INDEX}: {name}: expected a class of {' or '.join(LIBRARIES)}, found {value}",
                hint="code that comes with a model is never run",
            )
        module = library if library in LIBRARIES else f"diffusers.pipelines.{library}"
        components[name] = (str(module), value[1])
    return components


def open_component(kind: Any, folder: Path, variant: str | None, dtype: torch.dtype) -> Any:
    """One model of a pipeline. Raises WeightsError naming the first missing or mismatched key."""
    chosen = variant if any(has_variant(file, variant) for file in list_weights(folder)) else None
    for file in list_weights(folder):
        require_weights(file, by_ending=True)
    for index in folder.glob("*.safetensors.index.json"):
        read_weight_map(index)
    with silence_libraries(), wrap_load_errors(str(folder)):
        module, info = kind.from_pretrained(
            folder,
            dtype=dtype,
            variant=chosen,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, by key
        )
    problems = [f"{key} expected, found nothing" for key in sorted(info["missing_keys"])]
    problems += [
        f"{key} expected {format_shape(expected)}, found {format_shape(found)}"
        for key, found, expected in sorted(info["mismatched_keys"])
    ]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise WeightsError(
            f"{folder}: weights of another model: {problems[0]}{more}",
            hint="the weights and the config beside them must belong to the same model",
        )
    return module.eval()


@contextmanager
def wrap_load_errors(what: str, hint: str | None = None) -> Iterator[None]:
    """Turn what a library raises about files, keys and shapes into a WeightsError about `what`."""
    from safetensors import SafetensorError

    try:
        yield
    except (
        *(OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError, ImportError),
        *(AssertionError, IndexError, SafetensorError),
    ) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise WeightsError(
            f"{what} cannot be loaded: {' '.join(lines[:2]) if lines else type(error).__name__}",
            hint=hint or "the directory must be a complete diffusers pipeline in safetensors",
        ) from error


@contextmanager
def silence_libraries() -> Iterator[None]:
    """Silence the progress bars and warnings of diffusers and transformers; our errors say more."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    loggers = (diffusers_logging, transformers_logging)
    before = [(logger.get_verbosity(), logger.is_progress_bar_enabled()) for logger in loggers]
    for logger in loggers:
        logger.set_verbosity_error()
        logger.disable_progress_bar()
    try:
        yield
    finally:
        for logger, (verbosity, bar) in zip(loggers, before, strict=True):
            logger.set_verbosity(verbosity)
            if bar:
                logger.enable_progress_bar()


def format_shape(shape: Sequence[int] | None) -> str:
    """A tensor's shape for a message; None means that there is no such tensor."""
    return "nothing" if shape is None else "x".join(map(str, shape)) or "a scalar"


def list_weights(folder: Path) -> list[Path]:
    """The safetensors files of a folder, sorted by name."""
    return sorted(folder.glob("*.safetensors"))


def has_variant(file: Path, variant: str | None) -> bool:
    """Whether a safetensors file belongs to a variant (model.fp16.safetensors to fp16), or to none."""
    tags = SHARD_SUFFIX.sub("", file.name.removesuffix(".safetensors")).split(".")[1:]
    return variant in tags if variant else not tags


def list_files(folder: Path, variant: str | None) -> Iterator[Path]:
    """The configs, vocabularies and safetensors of a component, of the variant if it has one."""
    if not any(has_variant(file, variant) for file in list_weights(folder)):
        variant = None
    for file in sorted(folder.glob("*")):
        if file.suffix == ".safetensors":
            if has_variant(file, variant):
                yield file
        elif file.suffix in (".json", ".txt", ".model") and ".index." not in file.name:
            yield file


def digest_files(root: Path, files: Sequence[Path] | Iterator[Path]) -> str:
    """One digest of the names and contents of files."""
    return digest(*(f"{file.relative_to(root).as_posix()} {hash_path(file)}" for file in files))


def open_sampler(current: Any, name: str | None, options: Mapping[str, Any]) -> Any:
    """The scheduler that a recipe names, with the model's own configuration plus `options`.

    Raises RecipeError for a scheduler or an option that diffusers does not have.
    """
    import inspect

    import diffusers
    from diffusers import SchedulerMixin

    if name is None and not options:
        return current
    kind: Any = type(current) if name is None else getattr(diffusers, name, None)
    schedules = isinstance(kind, type) and issubclass(kind, SchedulerMixin)
    if not schedules:
        raise RecipeError(
            f"synthesize.settings.sampler: expected a scheduler of diffusers, found {name!r}",
            hint="for example EulerDiscreteScheduler, DPMSolverMultistepScheduler, LCMScheduler",
        )
    known = list(inspect.signature(kind).parameters)
    for option in options:
        if option not in known:
            raise RecipeError(
                f"synthesize.settings.sampler_options.{option}: {kind.__name__} has no such option",
                hint=f"options: {', '.join(known)}",
            )
    return kind.from_config(current.config, **options)
