"""Model names: a local path, a shipped mini model, or a registered model that was fetched."""

from __future__ import annotations

from pathlib import Path

from stylear.errors import WeightsError

MINI_MODELS = Path(__file__).parents[1] / "mini" / "models"


def resolve_model(name_or_path: str | Path) -> Path:
    """The directory or file of a model; nothing is downloaded.

    A local path takes precedence over a mini model's name, and that over a fetched registered model.
    Raises WeightsError for anything else; if the model is registered, the error states its size, its licence
    and the command that fetches it.
    """
    from stylear.weights import registry
    from stylear.weights import store as fetched

    name, path = str(name_or_path), Path(name_or_path).expanduser()
    if path.exists():
        return path.resolve()
    mini = MINI_MODELS / name
    if mini.parent == MINI_MODELS and mini.is_dir():
        return mini
    if name in registry.MODELS:
        return fetched.find_fetched(registry.MODELS[name])
    minis = sorted(p.name for p in MINI_MODELS.glob("*") if p.is_dir())
    known = registry.find_by_hub_id(name)
    raise WeightsError(
        f"{name}: expected a model directory or one of {', '.join(minis) or 'no mini models'}, found nothing",
        hint=f"this hub id is registered as {', '.join(known)}"
        if known
        else "check the path; `stylear models list` shows the names that can be fetched",
    )


def resolve_file(name_or_path: str | Path, what: str) -> Path:
    """The file of a model that must be a single file. Raises WeightsError for a directory, too."""
    path = resolve_model(name_or_path)
    if not path.is_file():
        raise WeightsError(f"{path}: expected {what}, found a directory")
    return path


def find_model_name(path: Path) -> str:
    """The name under which `resolve_model` finds a directory: of a mini or fetched model, else its path."""
    from stylear.weights import registry
    from stylear.weights import store as fetched

    known = path.name in registry.MODELS and path.parent == fetched.models_dir()
    return path.name if known or path.parent == MINI_MODELS else str(path)
