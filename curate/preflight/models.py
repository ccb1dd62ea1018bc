"""The models that a recipe names: whether each exists and is complete."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylear.curate.recipe.synthesizers import parse_backend_settings
from stylear.errors import WeightsError
from stylear.weights.files import read_json, read_weight_map
from stylear.weights.formats import recognise_format, require_weights
from stylear.weights.names import resolve_model

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe

ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
NOT_ARRIVED = (
    "empty",
    "zeros",
    "git-lfs pointer",
    "html",
)  # what is found instead of a file that was not downloaded


@dataclass(frozen=True, slots=True)
class RequiredModel:
    """A model that a stage loads: its keys in the recipe, and its name or path."""

    key: str  # several are joined by commas
    name: str


def required_models(recipe: Recipe, stages: Collection[str]) -> list[RequiredModel]:
    """The models that the stages load, each once, in the order of the recipe."""
    keys: dict[str, list[str]] = {}
    for model in named_models(recipe, stages):
        keys.setdefault(model.name, []).append(model.key)
    return [RequiredModel(", ".join(names), model) for model, names in keys.items()]


def named_models(recipe: Recipe, stages: Collection[str]) -> Iterator[RequiredModel]:
    """Every mention of a model in the settings of the stages."""
    if "synthesize" in stages and recipe.references:
        spec = recipe.synthesize
        settings = parse_backend_settings(spec.backend, spec.settings)
        for name in settings.paths:
            if (value := getattr(settings, name)) is not None:
                yield RequiredModel(f"synthesize.settings.{name}", str(value))
    if "score" in stages:
        for score in recipe.score:
            yield from scorer_models(score)


def scorer_models(spec: Any) -> Iterator[RequiredModel]:
    """The models of one scorer."""
    for name in ("model", "head"):
        if (value := getattr(spec, name, None)) is not None:
            yield RequiredModel(f"score.{spec.name}.{name}", str(value))
    kind, _, checkpoint = (getattr(spec, "segment", None) or "").partition(":")
    if kind == "sam":
        yield RequiredModel(f"score.{spec.name}.segment", checkpoint.partition("@")[0])


def check_model_files(model: RequiredModel) -> str:
    """The path of a model. Raises WeightsError if it or one of its files is missing."""
    try:
        path = find_model(model.name)
        if path.is_file():
            require_weights(path)
        else:
            check_directory(path)
    except WeightsError as error:
        raise WeightsError(f"{model.key}: {error.message}", hint=error.hint) from error
    return str(path)


def find_model(name: str) -> Path:
    """The file or directory of a name, or the checkpoint of ARCH/CHECKPOINT."""
    _, _, checkpoint = name.partition("/")
    file = Path(checkpoint).expanduser()
    if checkpoint and not Path(name).expanduser().exists() and file.is_file():
        return file
    return resolve_model(name)


def check_directory(folder: Path) -> None:
    """Raise WeightsError if a model's directory lacks a file, or has one that was not downloaded."""
    files = [
        path for path in sorted(folder.rglob("*")) if path.suffix in ENDINGS and path.is_file()
    ]
    if not files:
        raise WeightsError(
            f"{folder}: expected files with weights ({', '.join(ENDINGS)}), found none",
            hint="check that the path is a complete model directory",
        )
    for index in sorted(folder.rglob("*.index.json")):
        read_weight_map(index)
    if (folder / "model_index.json").is_file():
        require_components(folder)
    for file in files:
        if (file_format := recognise_format(file)).kind in NOT_ARRIVED:
            raise WeightsError(
                f"{file}: expected weights, found {file_format.description}",
                hint=file_format.remedy,
            )


def require_components(folder: Path) -> None:
    """Raise WeightsError if a pipeline's directory lacks one of its parts."""
    for name, value in read_json(folder / "model_index.json").items():
        named = isinstance(value, list) and len(value) == 2 and None not in value
        if named and not (folder / name).is_dir():
            raise WeightsError(
                f"{folder / name}: model_index.json names this part, found nothing",
                hint="copy the missing part into the pipeline's directory",
            )
