"""The recipe: the YAML that says what corpus to build, checked, with every default spelled out."""

from __future__ import annotations

import difflib
import ipaddress
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from curate.objects import corpus_path, in_store
from curate.synthesize.settings import absolute_paths, backend_settings
from stylear.errors import RecipeError, UsageError

SCHEMA = Path(__file__).parent.parent / "manifests" / "recipe.schema.json"
NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"


class Settings(BaseModel):
    """A part of a recipe: frozen; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class ImageSettings(Settings):
    """How every image of the corpus is stored."""

    size: int = Field(64, ge=16, le=4096, description="Side in pixels of the square (ours).")
    format: Literal["png", "jpg", "webp"] = Field("png", description="Encoding of stored images.")
    quality: int | None = Field(
        None, ge=1, le=100, description="Of jpg and webp; default: 95 for jpg, lossless for webp."
    )
    fit: Literal["crop", "pad", "source"] = Field(
        "crop",
        description="Cut the centre, add background, or store png, jpg and webp as they came.",
    )
    background: str = Field(
        "#ffffff", pattern=r"^#[0-9a-fA-F]{6}$", description="Behind transparency and padding."
    )
    min_side: int = Field(16, ge=1, description="Smaller source images are dropped (pixels).")
    max_pixels: int = Field(
        64_000_000,
        ge=1,
        le=89_000_000,
        description="Source images with more pixels are dropped before decoding.",
    )


class MiniSource(Settings):
    """The embedded captioned drawings."""

    type: Literal["mini"]
    split: Literal["train", "val"] | None = Field(None, description="Only this split of them.")
    vendors: tuple[str, ...] | None = Field(None, description="Only these hands: noto, twemoji.")
    categories: tuple[str, ...] | None = Field(None, description="Only these, e.g. Food & Drink.")
    limit: int | None = Field(None, ge=1, description="At most so many, drawn with the seed.")


class UrlsSource(Settings):
    """A list of URLs with captions, downloaded through img2dataset behind a guard."""

    type: Literal["urls"]
    path: Path = Field(description="parquet, csv, tsv, json or jsonl; a folder or a pattern.")
    url_column: str | None = Field(None, description="Default: url, URL, image_url, ...")
    caption_column: str | None = Field(None, description="Default: caption, TEXT, text, ...")
    limit: int | None = Field(None, ge=1, description="At most so many rows, from the top.")
    allow_networks: tuple[str, ...] = Field(
        (), description="CIDRs that may be reached though they are not public, e.g. 127.0.0.0/8."
    )
    timeout_s: float = Field(10.0, gt=0, description="One wait for the server (img2dataset).")
    deadline_s: float = Field(60.0, gt=0, description="One download in all (ours).")
    max_bytes: int = Field(32_000_000, ge=1, description="Longer bodies are refused (ours).")
    retries: int = Field(0, ge=0, le=10, description="Further tries of a failed download.")
    threads: int = Field(16, ge=1, le=256, description="Downloads at the same time.")
    processes: int = Field(1, ge=1, le=64, description="Processes that share the downloads.")
    contact: str | None = Field(None, description="Web page or mail address in the user agent.")
    host_requests_per_s: float | None = Field(
        20.0, gt=0, description="On average, to one host; null: as fast as it goes (ours)."
    )
    robots: bool = Field(False, description="Ask every host for robots.txt and obey it.")
    min_success: float = Field(
        0.1, ge=0, le=1, description="Stop when a smaller share of downloads succeeds (ours)."
    )
    uids: Path | None = Field(
        None, description="Only rows whose uid is in this DataComp subset (.npy of u8,u8)."
    )
    sha256_column: str | None = Field(
        None, description="Column with the hash that the bytes must have."
    )

    @field_validator("allow_networks")
    @classmethod
    def _networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            ipaddress.ip_network(network)
        return networks


class FolderSource(Settings):
    """A folder of images with captions."""

    type: Literal["folder"]
    path: Path = Field(description="The folder; its subfolders are read too.")
    captions: str | None = Field(
        None,
        description="List in the folder (image, caption); default: captions.csv, metadata.csv or"
        " metadata.jsonl where there is one, else the .txt or .json beside each image.",
    )
    captions_per_image: Literal["first", "all"] = Field(
        "first", description="Of an image with several captions: one pair, or one for each."
    )
    max_bytes: int = Field(64_000_000, ge=1, description="Larger files are dropped (ours).")
    limit: int | None = Field(None, ge=1, description="At most so many rows, from the top.")


class ShardsSource(Settings):
    """WebDataset shards that exist already."""

    type: Literal["shards"]
    path: str = Field(description="A tar, a folder of tars, or a pattern such as other/*.tar.")
    max_bytes: int = Field(64_000_000, ge=1, description="Larger images are dropped (ours).")
    limit: int | None = Field(None, ge=1, description="At most so many samples, in order.")
    uids: Path | None = Field(
        None, description="Only samples whose uid is in this DataComp subset (.npy of u8,u8)."
    )


Source = Annotated[
    MiniSource | UrlsSource | FolderSource | ShardsSource, Field(discriminator="type")
]


class MiniReferences(Settings):
    """Embedded style references."""

    type: Literal["mini"]
    names: list[str] | None = Field(None, description="Style names; default: all not held out.")


class FolderReferences(Settings):
    """A folder of style images; a file's stem is its id, `<style>--<n>` groups several of one style."""

    type: Literal["folder"]
    path: Path


References = Annotated[MiniReferences | FolderReferences, Field(discriminator="type")]


class SynthesizeSettings(Settings):
    """What is synthesised: contents x references x candidates."""

    backend: Literal["patch", "statistics", "render", "instantstyle"] = "patch"
    contents: int | None = Field(None, ge=1, description="Raw pairs to stylise; default: all.")
    references_per_content: int = Field(1, ge=1, description="References that each content meets.")
    shard_pairs: int = Field(
        64, ge=1, le=100_000, description="Images in a shard: what a kill can cost (ours)."
    )
    candidates: int = Field(2, ge=1, le=64, description="Images of one (content, reference).")
    prompts: Path | None = Field(None, description="Prompts, one a line, for backends that draw.")
    settings: dict[str, Any] = Field(default_factory=dict, description="The backend's own.")

    @model_validator(mode="after")
    def _resolve(self) -> SynthesizeSettings:
        resolved = backend_settings(self.backend, self.settings).model_dump(mode="json")
        self.settings.clear()
        self.settings.update(resolved)
        return self


class ClipTextScore(Settings):
    """Cosine of the image and its caption."""

    name: str = Field(pattern=NAME)
    type: Literal["clip-text"]
    model: str = Field("mini-clip", description="Which CLIP: a mini model's name or a directory.")
    batch_size: int = Field(
        64, ge=1, description="Images in one batch; decides the last digit of a score."
    )
    device: str = Field("auto", description="torch device; auto: cuda where there is one.")


class ClipStyleScore(ClipTextScore):
    """Cosine of the image and its style reference."""

    type: Literal["clip-style"]  # type: ignore[assignment]


class TextureScore(Settings):
    """A weight-free statistic of texture and colour, compared with the style reference."""

    name: str = Field(pattern=NAME)
    type: Literal["texture"]
    batch_size: int = Field(
        64, ge=1, description="Images in one batch; decides the last digit of a score."
    )


class PhashScore(Settings):
    """A 64-bit perceptual hash; always computed, named or not."""

    name: str = Field("phash", pattern=NAME)
    type: Literal["phash"]


Score = Annotated[
    ClipTextScore | ClipStyleScore | TextureScore | PhashScore, Field(discriminator="type")
]


class Threshold(Settings):
    """Pairs outside are dropped; a percentile is taken over the stylized pairs that have the score."""

    score: str
    min: float | None = Field(None, description="Lowest value kept.")
    max: float | None = Field(None, description="Highest value kept.")
    percentile: float | None = Field(
        None, gt=0, lt=100, description="Drop this share (per cent) with the lowest values."
    )

    @model_validator(mode="after")
    def _something(self) -> Threshold:
        if self.min is None and self.max is None and self.percentile is None:
            raise ValueError("expected min, max or percentile")
        return self


class Duplicates(Settings):
    """Which images count as the same."""

    exact: bool = Field(True, description="The same stored bytes.")
    phash_distance: int | None = Field(
        4,
        ge=0,
        le=32,
        description="Perceptual hashes at most so many bits apart; null: off (ours).",
    )


class FilterSettings(Settings):
    """Rules that compare numbers; changing them touches no image."""

    thresholds: tuple[Threshold, ...] = ()
    best_of: int | None = Field(1, ge=1, description="Candidates kept of a group; null: all.")
    text_score: str | None = Field(None, description="Ranks candidates; default: first clip-text.")
    style_score: str | None = Field(
        None, description="Ranks candidates; default: first texture, else first clip-style."
    )
    duplicates: Duplicates = Duplicates()


class MixSettings(Settings):
    """Training shards."""

    raw_per_stylized: float = Field(
        3.0, ge=0, description="Raw pairs for each stylized one (paper)."
    )
    val_fraction: float = Field(0.1, ge=0, lt=1, description="Share of contents and of references.")
    shard_pairs: int = Field(1000, ge=1, le=100_000, description="Pairs in a shard (ours).")


class PairsSettings(Settings):
    """Preference pairs: best against worst candidate."""

    margin: float = Field(0.02, ge=0, description="Smallest difference of harmonic means (ours).")


class Recipe(Settings):
    """A whole recipe. Paths are absolute once loaded."""

    name: str = Field(pattern=NAME, description="Name of the corpus.")
    seed: int = Field(0, ge=0, lt=2**53)
    image: ImageSettings = ImageSettings()
    raw: tuple[Source, ...] = Field(min_length=1)
    references: tuple[References, ...] = ()
    synthesize: SynthesizeSettings = SynthesizeSettings()
    score: tuple[Score, ...] = ()
    filter: FilterSettings = FilterSettings()
    mix: MixSettings = MixSettings()
    pairs: PairsSettings = PairsSettings()

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        names = [score.name for score in self.score]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"score: two scorers are called {name!r}")
        asked = [t.score for t in self.filter.thresholds]
        asked += [n for n in (self.filter.text_score, self.filter.style_score) if n is not None]
        for name in asked:
            if name not in names:
                raise ValueError(f"filter: no scorer is called {name!r}{_close(name, names)}")
        if self.image.fit == "source" and (self.references or self.score):
            raise ValueError(
                "image.fit: source stores undecoded images of any size, expected no"
                " references and no score beside it"
            )
        if "synthesize" in self.model_fields_set and not self.references:
            raise ValueError("references: synthesize needs at least one style reference")
        return self


def load_recipe(path: Path | str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read and check a recipe; relative paths in it start at its own folder.

    `overrides` maps dotted keys ("mix.val_fraction", "raw.0.limit") to values. Raises RecipeError
    naming file, line and key, what was expected and what was found.
    """
    path = corpus_path(path)
    try:
        text = path.read_text("utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines = {} if node is None else _lines(node, path)
        data = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise RecipeError(
            f"{path}: expected a recipe (YAML), found: {reason}", hint="check the path"
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        what = getattr(error, "problem", None) or str(error)
        raise RecipeError(f"{where}: not valid YAML: {what}") from error
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: expected keys such as name and raw, found {_found(data)}")
    for key, value in (overrides or {}).items():
        _override(data, key, value)
    base = Path.cwd() if in_store(path) else path.resolve().parent
    try:
        return check_recipe(data, base)
    except _KeyProblem as problem:
        line = lines.get(problem.key) or lines.get(problem.key.rpartition(".")[0])
        where = f"{path}:{line}" if line else str(path)
        raise RecipeError(f"{where}: {problem.message}", hint=problem.hint) from problem


class _KeyProblem(RecipeError):
    """A RecipeError that still knows its key."""

    def __init__(self, key: str, message: str, hint: str | None) -> None:
        super().__init__(f"{key}: {message}" if key else message, hint=hint)
        self.key = key


def check_recipe(data: Mapping[str, Any], base: Path) -> Recipe:
    """The recipe in `data`, its relative paths made absolute below `base`. Raises RecipeError."""
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise _problem(error, data) from error
    except RecipeError as error:
        key = error.message.partition(":")[0]
        raise _KeyProblem(key, error.message.removeprefix(f"{key}: "), error.hint) from error
    return _absolute(recipe, base)


def with_downloads(
    recipe: Recipe, min_success: float | None = None, allow_networks: Sequence[str] = ()
) -> Recipe:
    """The recipe with another `min_success` and more networks allowed, for every URL list in it.

    Raises UsageError for what is no network.
    """
    for network in allow_networks:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise UsageError(
                f"--allow-network {network}: expected a network such as 10.1.0.0/16: {error}"
            ) from error
    raw: list[Any] = []
    for source in recipe.raw:
        if source.type == "urls":
            networks = dict.fromkeys((*source.allow_networks, *allow_networks))
            share = source.min_success if min_success is None else min_success
            changes = {"min_success": share, "allow_networks": tuple(networks)}
            source = source.model_copy(update=changes)
        raw.append(source)
    return recipe.model_copy(update={"raw": tuple(raw)})


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML with every default spelled out; loading it gives the same recipe."""
    left_out = None if recipe.references else {"synthesize"}
    values = recipe.model_dump(mode="json", exclude=left_out)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


def recipe_schema() -> str:
    """The JSON schema of recipes, as text; `manifests/recipe.schema.json` holds it."""
    schema = Recipe.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _absolute(recipe: Recipe, base: Path) -> Recipe:
    """The recipe with absolute paths."""

    def under(path: Path | str) -> Path:
        return (base / Path(path).expanduser()).resolve()

    def placed(part: Settings) -> Settings:
        if isinstance(part, (ShardsSource, UrlsSource)) and part.uids is not None:
            part = part.model_copy(update={"uids": under(part.uids)})
        if isinstance(part, ShardsSource):
            pattern = base / Path(part.path).expanduser()
            return part.model_copy(update={"path": str(pattern)})
        if isinstance(part, (UrlsSource, FolderSource, FolderReferences)):
            return part.model_copy(update={"path": under(part.path)})
        if isinstance(part, ClipTextScore) and (base / part.model).exists():
            return part.model_copy(update={"model": str(under(part.model))})
        return part

    spec = recipe.synthesize
    synthesize = spec.model_copy(
        update={
            "prompts": None if spec.prompts is None else under(spec.prompts),
            "settings": absolute_paths(spec.backend, spec.settings, base),
        }
    )
    return recipe.model_copy(
        update={
            "raw": tuple(placed(source) for source in recipe.raw),
            "references": tuple(placed(source) for source in recipe.references),
            "score": tuple(placed(score) for score in recipe.score),
            "synthesize": synthesize,
        }
    )


def _problem(error: ValidationError, data: Mapping[str, Any]) -> _KeyProblem:
    """The first validation error in words."""
    found_errors = error.errors(include_url=False)
    first = next((e for e in found_errors if e["type"] == "extra_forbidden"), found_errors[0])
    key, model = _place(first["loc"], data)
    kind, found = first["type"], _found(first["input"])
    if kind == "extra_forbidden":
        name = key.rpartition(".")[2]
        known = sorted(model.model_fields) if model is not None else []
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]}?" if close else None
        return _KeyProblem(key, f"unknown key; expected one of {', '.join(known)}", hint)
    if kind == "missing":
        return _KeyProblem(key, "expected a value, found nothing", f"add {key} to the recipe")
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        context = first.get("ctx", {})
        given = context.get("tag", "nothing")
        expected = ", ".join(_tag(member) for member in _MEMBERS[key.partition(".")[0]])
        return _KeyProblem(f"{key}.type", f"expected one of {expected}, found {given}", None)
    message = _PLAIN.get(kind, first["msg"].removeprefix("Value error, "))
    if kind == "value_error" and not key:
        return _KeyProblem(message.partition(":")[0], message.partition(": ")[2], None)
    message = message.replace("Input should be", "expected")
    return _KeyProblem(key, f"{message[0].lower()}{message[1:]}, found {found}", None)


_PLAIN = {
    "model_type": "expected keys and values",
    "dict_type": "expected keys and values",
    "tuple_type": "expected a list",
    "list_type": "expected a list",
    "too_short": "expected at least one entry",
    "string_type": "expected a text",
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_parsing": "expected a number",
}


def _place(loc: tuple[int | str, ...], data: Any) -> tuple[str, type[BaseModel] | None]:
    """The dotted key of a pydantic location (which also names union members), and the model it is in."""
    parts: list[str] = []
    model: type[BaseModel] | None = Recipe
    for i, part in enumerate(loc):
        last = i == len(loc) - 1
        if isinstance(part, str) and not last and isinstance(data, Mapping) and part not in data:
            members = [m for m in _MEMBERS.get(parts[0], ()) if m.__name__ and _tag(m) == part]
            model = members[0] if members else model
            continue
        parts.append(str(part))
        if not last and isinstance(part, str) and model is not None and part in model.model_fields:
            inner = _model_in(model.model_fields[part].annotation)
            model = inner if inner is not None else model
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            data = None
    return ".".join(parts), model


_MEMBERS: dict[str, tuple[type[BaseModel], ...]] = {
    "raw": (MiniSource, UrlsSource, FolderSource, ShardsSource),
    "references": (MiniReferences, FolderReferences),
    "score": (ClipTextScore, ClipStyleScore, TextureScore, PhashScore),
}


def _tag(model: type[BaseModel]) -> str:
    return str(get_args(model.model_fields["type"].annotation)[0])


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The settings class in an annotation such as `X | None` or `tuple[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        if (found := _model_in(argument)) is not None:
            return found
    return None


def _found(value: Any) -> str:
    """A value in words, short."""
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _close(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    if close:
        return f"; did you mean {close[0]}?"
    return f" (scorers: {', '.join(known) or 'none'})"


def _override(data: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key. Raises RecipeError when the way there is no mapping or list."""
    *way, last = key.split(".")
    place: Any = data
    try:
        for part in way:
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        place[int(last) if isinstance(place, list) else last] = value
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise RecipeError(f"{key}: the recipe has no such place to set") from error


def _lines(node: yaml.Node, path: Path, prefix: str = "") -> dict[str, int]:
    """Line of every dotted key. Raises RecipeError for a key that stands twice."""
    found: dict[str, int] = {}
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in seen:
                raise RecipeError(f"{path}:{line}: {prefix}{name}: the key stands twice")
            seen.add(name)
            found[f"{prefix}{name}"] = line
            found |= _lines(value, path, f"{prefix}{name}.")
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            found[f"{prefix}{i}"] = value.start_mark.line + 1
            found |= _lines(value, path, f"{prefix}{i}.")
    return found
