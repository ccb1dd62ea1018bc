"""Loading recipes: every error names the file, line and key, what was expected and what was found."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from stylear.curate.corpus.object_store import corpus_path
from stylear.curate.entry_points import SCORERS as PLUGINS
from stylear.curate.entry_points import describe_kinds, plugin_hint
from stylear.curate.recipe.folder import find_missing_paths, list_possible_bases
from stylear.curate.recipe.recipe import Recipe
from stylear.curate.recipe.scores import BUILT_IN, RENAMED, SCORERS, find_plugin_settings
from stylear.curate.recipe.sources import SOURCES
from stylear.curate.recipe.synthesis import REFERENCES
from stylear.errors import RecipeError


def load_recipe(path: Path | str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Load and check a recipe; its relative paths start at its own folder (`list_possible_bases`).

    `overrides` maps dotted keys ("mix.val_fraction", "raw.0.limit") to values. Raises RecipeError
    naming file, line and key, what was expected and what was found.
    """
    path = corpus_path(path)
    try:
        text = path.read_text("utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines = {} if node is None else _line_numbers(node, path)
        data = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise RecipeError(
            f"{path}: expected a recipe (YAML), found: {reason}",
            hint="check the path; embedded recipes are demo, house-style and paper",
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        what = getattr(error, "problem", None) or str(error)
        raise RecipeError(
            f"{where}: expected valid YAML, found: {what}",
            hint="check the indentation and the quotes",
        ) from error
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: expected keys such as name and raw, found {_shorten(data)}")
    for key, value in (overrides or {}).items():
        _set_key(data, key, value)
    try:
        recipes = [check_recipe(data, base) for base in list_possible_bases(path)]
        return min(recipes, key=lambda recipe: len(find_missing_paths(recipe)))
    except _KeyProblem as problem:
        line = lines.get(problem.key) or lines.get(problem.key.rpartition(".")[0])
        where = f"{path}:{line}" if line else str(path)
        raise RecipeError(f"{where}: {problem.message}", hint=problem.hint) from problem


class _KeyProblem(RecipeError):
    """A RecipeError that knows its key, so that the line can be added."""

    def __init__(self, key: str, message: str, hint: str | None) -> None:
        super().__init__(f"{key}: {message}" if key else message, hint=hint)
        self.key = key


def check_recipe(data: Mapping[str, Any], base: Path) -> Recipe:
    """The recipe in `data`, with relative paths made absolute below `base`. Raises RecipeError."""
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise _describe_error(error, data) from error
    except RecipeError as error:
        key = error.message.partition(":")[0]
        raise _KeyProblem(key, error.message.removeprefix(f"{key}: "), error.hint) from error
    return recipe.with_base(base)


def _describe_error(error: ValidationError, data: Mapping[str, Any]) -> _KeyProblem:
    """The error that describes the first validation error."""
    found_errors = error.errors(include_url=False)
    first = next((e for e in found_errors if e["type"] == "extra_forbidden"), found_errors[0])
    key, model = _locate(first["loc"], data)
    kind, found = first["type"], _shorten(first["input"])
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
        tag = context.get("tag", "nothing")
        part = key.partition(".")[0]
        expected = ", ".join(_type_name(member) for member in _MEMBERS[part])
        hint = None
        if part == "score":
            expected, hint = describe_kinds(PLUGINS, BUILT_IN), plugin_hint(PLUGINS)
        if tag in RENAMED:
            hint = f"{tag} is now called {RENAMED[tag]}"
        return _KeyProblem(f"{key}.type", f"expected one of {expected}, found {tag}", hint)
    message = _EXPECTATIONS.get(kind, first["msg"].removeprefix("Value error, "))
    if kind == "value_error" and not key:
        return _KeyProblem(message.partition(":")[0], message.partition(": ")[2], None)
    message = message.replace("Input should be", "expected")
    return _KeyProblem(key, f"{message[0].lower()}{message[1:]}, found {found}", None)


_EXPECTATIONS = {
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


def _locate(loc: tuple[int | str, ...], data: Any) -> tuple[str, type[BaseModel] | None]:
    """The dotted key of a pydantic location, and its model; locations also contain union members."""
    parts: list[str] = []
    model: type[BaseModel] | None = Recipe
    for i, part in enumerate(loc):
        last = i == len(loc) - 1
        if isinstance(part, str) and not last and isinstance(data, Mapping) and part not in data:
            members = [
                m for m in _MEMBERS.get(parts[0], ()) if m.__name__ and _type_name(m) == part
            ]
            model = members[0] if members else model
            continue
        parts.append(str(part))
        if not last and isinstance(part, str) and model is not None and part in model.model_fields:
            inner = _find_model(model.model_fields[part].annotation)
            model = inner if inner is not None else model
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            data = None
        if parts[0] == "score" and isinstance(part, int) and isinstance(data, Mapping):
            model = find_plugin_settings(str(data.get("type"))) or model
    return ".".join(parts), model


_MEMBERS: dict[str, tuple[type[BaseModel], ...]] = {
    "raw": SOURCES,
    "references": REFERENCES,
    "score": SCORERS,
}


def _type_name(model: type[BaseModel]) -> str:
    return str(get_args(model.model_fields["type"].annotation)[0])


def _find_model(annotation: Any) -> type[BaseModel] | None:
    """The settings class in an annotation such as `X | None` or `tuple[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        if (model := _find_model(argument)) is not None:
            return model
    return None


def _shorten(value: Any) -> str:
    """A value as an error shows it, at most 60 characters."""
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _set_key(data: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key; the index after the last one of a list appends.

    Raises RecipeError if a part of the key exists in no mapping or list.
    """
    *way, last = key.split(".")
    node: Any = data
    try:
        for part in way:
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        if isinstance(node, list) and int(last) == len(node):
            node.append(value)
        else:
            node[int(last) if isinstance(node, list) else last] = value
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise RecipeError(
            f"{key}: expected a key of the recipe such as mix.val_fraction or raw.0.limit, found none",
            hint="a list is indexed from 0; `stylear curate init` writes a recipe with every key",
        ) from error


def _line_numbers(node: yaml.Node, path: Path, prefix: str = "") -> dict[str, int]:
    """The line of every dotted key. Raises RecipeError for a duplicate key."""
    numbers: dict[str, int] = {}
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in seen:
                raise RecipeError(
                    f"{path}:{line}: {prefix}{name}: expected each key once, found it twice",
                    hint="remove one of the two",
                )
            seen.add(name)
            numbers[f"{prefix}{name}"] = line
            numbers |= _line_numbers(value, path, f"{prefix}{name}.")
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            numbers[f"{prefix}{i}"] = value.start_mark.line + 1
            numbers |= _line_numbers(value, path, f"{prefix}{i}.")
    return numbers
