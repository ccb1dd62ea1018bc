"""Models that a recipe names: whether each is there, and whether all of its files are."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylear.curate.recipe.synthesizers import backend_settings
from stylear.errors import WeightsError
from stylear.weights.files import read_json
from stylear.weights.names import resolve

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe

ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
POINTER = b"version https://git-lfs"  # what git-lfs leaves where a file was not downloaded


@dataclass(frozen=True, slots=True)
class RequiredModel:
    """A model that a stage reads: its keys in the recipe, and its name or path."""

    key: str  # several are joined by commas
    name: str


def required_models(recipe: Recipe, stages: Collection[str]) -> list[RequiredModel]:
    """The models that the stages read, in the order of the recipe, each once."""
    keys: dict[str, list[str]] = {}
    for model in named_models(recipe, stages):
        keys.setdefault(model.name, []).append(model.key)
    return [RequiredModel(", ".join(names), model) for model, names in keys.items()]


def named_models(recipe: Recipe, stages: Collection[str]) -> Iterator[RequiredModel]:
    """Every mention of a model in the settings of the stages."""
    if "synthesize" in stages and recipe.references:
        spec = recipe.synthesize
        settings = backend_settings(spec.backend, spec.settings)
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
    """Where a model lies. Raises WeightsError when it is missing or one of its files is."""
    try:
        path = find_model(model.name)
        weights = [path] if path.is_file() else list_weights(path)
        for file in weights:
            check_weights_file(file)
    except WeightsError as error:
        raise WeightsError(f"{model.key}: {error.message}", hint=error.hint) from error
    return str(path)


def find_model(name: str) -> Path:
    """The file or directory that a name means, or the checkpoint of ARCH/CHECKPOINT."""
    _, _, checkpoint = name.partition("/")
    file = Path(checkpoint).expanduser()
    if checkpoint and not Path(name).expanduser().exists() and file.is_file():
        return file
    return resolve(name)


def list_weights(folder: Path) -> list[Path]:
    """The files with weights below a model's directory. Raises WeightsError when a named one is missing."""
    found = [
        path for path in sorted(folder.rglob("*")) if path.suffix in ENDINGS and path.is_file()
    ]
    if not found:
        raise WeightsError(
            f"{folder}: expected files with weights ({', '.join(ENDINGS)}), found none",
            hint="check that the path is a complete model directory",
        )
    for index in sorted(folder.rglob("*.index.json")):
        named = read_json(index).get("weight_map")
        for part in sorted(set(named.values())) if isinstance(named, dict) else ():
            if not (index.parent / str(part)).is_file():
                raise WeightsError(
                    f"{index.parent / str(part)}: {index.name} names this file, found nothing",
                    hint="copy the missing file into the model's directory",
                )
    if (folder / "model_index.json").is_file():
        require_components(folder)
    return found


def require_components(folder: Path) -> None:
    """Raise WeightsError when a pipeline's directory lacks one of its parts."""
    for name, value in read_json(folder / "model_index.json").items():
        named = isinstance(value, list) and len(value) == 2 and None not in value
        if named and not (folder / name).is_dir():
            raise WeightsError(
                f"{folder / name}: model_index.json names this part, found nothing",
                hint="copy the missing part into the pipeline's directory",
            )


def check_weights_file(path: Path) -> None:
    """Raise WeightsError for a file that holds no weights: empty, or a pointer of git-lfs."""
    with path.open("rb") as file:
        start = file.read(len(POINTER))
    if not start:
        raise WeightsError(f"{path}: expected weights, found an empty file", hint="copy it again")
    if start == POINTER:
        raise WeightsError(
            f"{path}: expected weights, found a pointer of git-lfs",
            hint="run `git lfs pull` where the model was cloned, or download the file itself",
        )
