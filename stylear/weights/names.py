"""Names: what a model's name means: a local path, a mini model, or a registered model that was fetched."""

from __future__ import annotations

from pathlib import Path

from stylear.errors import WeightsError

MINI_MODELS = Path(__file__).parents[1] / "mini" / "models"


def resolve(name_or_path: str | Path) -> Path:
    """The directory or file that a model's name means; nothing is ever downloaded.

    A local path wins over a mini model's name, that over the name of a registered model that was
    fetched. Raises WeightsError for anything else; for a registered model that is not there with
    its size, its licence and the command that fetches it.
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
        return fetched.path_of(registry.MODELS[name])
    minis = sorted(p.name for p in MINI_MODELS.glob("*") if p.is_dir())
    known = registry.of_hub(name)
    raise WeightsError(
        f"{name}: expected a model directory or one of {', '.join(minis) or 'no mini models'}, found nothing",
        hint=f"this hub id is registered as {', '.join(known)}"
        if known
        else "check the path; `stylear models list` shows the names that can be fetched",
    )


def resolve_file(name_or_path: str | Path, what: str) -> Path:
    """The same where a name has to mean a single file. Raises WeightsError for a directory, too."""
    path = resolve(name_or_path)
    if not path.is_file():
        raise WeightsError(f"{path}: expected {what}, found a directory")
    return path


def name_of(path: Path) -> str:
    """What `resolve` takes for a directory: the name of a mini or fetched model, else its path."""
    from stylear.weights import registry
    from stylear.weights import store as fetched

    known = path.name in registry.MODELS and path.parent == fetched.models_dir()
    return path.name if known or path.parent == MINI_MODELS else str(path)
