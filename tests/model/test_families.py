"""Families differ in their own files alone: nothing else asks which family a model is of."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from stylear.model.families.registry import FAMILIES, find_family

ROOT = Path(__file__).parents[2]
OWN = ROOT / "stylear" / "model" / "families"
CLASSES = ("Chameleon", "Janus")
# what may import a family: new models and StyleAR's published weights are Chameleon's
IMPORTERS = {"stylear/model/build.py", "stylear/model/released.py", "stylear/model/tokenizer.py"}
CHECKS = (ast.If, ast.IfExp, ast.While, ast.Match, ast.Compare, ast.Assert)


@cache
def modules() -> list[tuple[str, ast.Module]]:
    """The modules that serve models of any family."""
    return [
        (file.relative_to(ROOT).as_posix(), ast.parse(file.read_text("utf-8")))
        for folder in ("stylear", "train")
        for file in sorted((ROOT / folder).rglob("*.py"))
        if OWN not in file.parents
    ]


def find_family_checks(tree: ast.AST) -> Iterator[str]:
    """Branches and comparisons that mention a family, its classes or `model_type`."""
    for node in ast.walk(tree):
        is_check = isinstance(node, CHECKS)
        is_call = isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
            "isinstance",
            "issubclass",
            "hasattr",
        )
        if not (is_check or is_call):
            continue
        parts = [node.test] if isinstance(node, ast.If | ast.IfExp | ast.While) else [node]
        for part in (inner for one in parts for inner in ast.walk(one)):
            text = getattr(part, "value", None) if isinstance(part, ast.Constant) else None
            name = getattr(part, "attr", getattr(part, "id", ""))
            if text in FAMILIES or text == "model_type" or name == "model_type":
                yield f"line {node.lineno}"
            if name.startswith(CLASSES):
                yield f"line {node.lineno}"


def test_no_module_but_a_family_s_own_asks_which_family_it_is() -> None:
    checks = {name: list(find_family_checks(tree)) for name, tree in modules()}
    assert len(checks) > 100
    assert {name: lines for name, lines in checks.items() if lines} == {}


def test_the_check_for_families_finds_one() -> None:
    planted = [
        "if model.config['model_type'] == 'janus': pass",
        "x = 1 if isinstance(decoder, JanusDecoder) else 2",
        "y = family is Chameleon",
        "if model.family.model_type: pass",
    ]
    assert [bool(list(find_family_checks(ast.parse(text)))) for text in planted] == [True] * 4
    assert list(find_family_checks(ast.parse("if size > 3: x = 'janus'"))) == []


def test_few_modules_import_a_family() -> None:
    importers = {
        name
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and str(node.module).startswith("stylear.model.families.")
        and str(node.module).rsplit(".", 1)[-1] in FAMILIES
    }
    mini = {name for name in importers if name.startswith("stylear/mini/")}
    assert importers - mini == IMPORTERS


def test_every_family_is_one_small_file_and_says_its_type() -> None:
    for model_type in FAMILIES:
        family = find_family({"model_type": model_type}, "somewhere")
        assert family.model_type == model_type
        lines = (OWN / f"{model_type}.py").read_text("utf-8").splitlines()
        assert len(lines) <= 300
