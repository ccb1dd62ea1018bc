"""Imports run one way, and help is quick because it imports nothing heavy."""

from __future__ import annotations

import ast
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from builders.command_tree import commands, problem

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "open_clip", "diffusers", "transformers", "pyarrow", "cv2", "webdataset", "numpy")
# The layers: a module imports from its own package and from packages above it in this list.
LAYERS = (
    "stylear", "stylear.errors", "stylear.embedded", "stylear.pair", "stylear.console", "stylear.device",
    "stylear.weights", "stylear.encoders", "stylear.model", "stylear.sampling",
    "stylear.evaluation", "stylear.mini",
    "curate", "curate.corpus", "curate.entry_points", "curate.recipe", "curate.references",
    "curate.engine", "curate.stage",
    "curate.fetch", "curate.synthesize", "curate.score", "curate.filter", "curate.mix",
    "curate.pairs", "curate.review", "curate.explain", "curate.audit", "curate.report", "curate.query",
    "curate.diff", "curate.export", "curate.forget", "curate.preflight", "curate.run", "curate.api",
    "curate.cli", "stylear.plugins",
    "train", "stylear.demo", "stylear.cli", "stylear.__main__",
)  # fmt: skip
READ_SIDE = "stylear.curate.corpus"  # what the trainer may use of the data side
FOLDERS = {"curate": "stylear.curate", "train": "stylear.train", "stylear": "stylear"}


def modules() -> dict[str, Path]:
    """Every module of the project, by dotted name. The links inside stylear/ are not followed."""
    files = {}
    for folder, package in FOLDERS.items():
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = file.relative_to(ROOT / folder).with_suffix("").parts
            files[".".join([package, *(part for part in parts if part != "__init__")])] = file
    return files


MODULES = modules()


def layer_of(module: str) -> str:
    """`curate.fetch` for `stylear.curate.fetch.guard`, `train` for anything of the trainer."""
    parts = module.removeprefix("stylear.").split(".")
    if parts[0] == "train":
        return "train"
    if parts[0] == "curate":
        return ".".join(parts[:2])
    return module if module == "stylear" else f"stylear.{parts[0]}"


def imports(text: str) -> list[tuple[str, str]]:
    """(module, name) of every import of a source, wherever it stands; name is "" for `import module`."""
    names = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names += [(node.module, alias.name) for alias in node.names]
    return names


def target(module: str, name: str) -> str:
    """The module that an import reaches: a submodule where the name is one."""
    return f"{module}.{name}" if f"{module}.{name}" in MODULES else module


def arrows() -> list[tuple[str, str, str]]:
    """(importing module, imported module, name) for every import inside the project."""
    return [
        (module, target(imported, name), name)
        for module, file in MODULES.items()
        for imported, name in imports(file.read_text("utf-8"))
        if imported.split(".")[0] == "stylear"
    ]


def test_rooms_import_only_from_rooms_before_them() -> None:
    all_arrows = arrows()
    assert len(all_arrows) > 500
    order = {layer: place for place, layer in enumerate(LAYERS)}
    unknown = {layer_of(module) for module in MODULES} - order.keys()
    assert unknown == set()
    assert [
        f"{module} imports {other}"
        for module, other, _ in all_arrows
        if order[layer_of(other)] > order[layer_of(module)] and not is_lazy_api(module)
    ] == []


def is_lazy_api(module: str) -> bool:
    """The packages whose public names are imported when they are first asked for."""
    return module in {"stylear", "stylear.curate", "stylear.train"}


def test_no_module_imports_another_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for module, other, _ in arrows():
        if module != other and not is_lazy_api(module):
            graph.setdefault(module, set()).add(other)
    finished: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in finished:
            for other in sorted(graph.get(module, ())):
                visit(other, (*path, module))
            finished.add(module)

    for module in sorted(graph):
        visit(module, ())


def test_no_module_imports_a_private_name_of_another() -> None:
    private_imports = [
        f"{module} imports {other}.{name}"
        for module, other, name in arrows()
        if name.startswith("_") and not name.startswith("__") and module != other
    ]
    assert private_imports == []


def test_the_trainer_reads_a_corpus_and_nothing_else_of_curate() -> None:
    other_imports = [
        f"{module} imports {other}"
        for module, other, _ in arrows()
        if module.startswith("stylear.train")
        and other.startswith("stylear.curate")
        and not other.startswith(READ_SIDE)
    ]
    assert other_imports == []


def test_nothing_is_imported_by_the_name_of_a_folder() -> None:
    """`curate` and `train` are folders of the repository, not packages that an installation has."""
    files = [
        f for folder in (*FOLDERS, "tests", "benchmarks") for f in (ROOT / folder).rglob("*.py")
    ]
    assert len(files) > 200
    assert [
        f"{file.relative_to(ROOT)} imports {module}"
        for file in files
        for module, _ in imports(file.read_text("utf-8"))
        if module.split(".")[0] in {"curate", "train"}
    ] == []


def test_imports_are_found_wherever_they_stand() -> None:
    text = (
        "import os.path\ndef f():\n    from stylear.curate import run\n    import stylear.train\n"
    )
    assert imports(text) == [("os.path", ""), ("stylear.curate", "run"), ("stylear.train", "")]
    assert target("stylear.curate", "run") == "stylear.curate.run"
    assert target("stylear.errors", "WeightsError") == "stylear.errors"


WALK = """
import contextlib, io, json, sys, time
from builders.command_tree import commands, root
from typer.testing import CliRunner
import stylear.cli
runner, seconds = CliRunner(), {}
for words in ["", *(path for path, _ in commands())]:
    start = time.process_time()
    result = runner.invoke(stylear.cli.app, [*words.split(), "--help"])
    assert result.exit_code == 0 and "Usage" in result.output, (words, result.output)
    seconds[words] = time.process_time() - start
print(json.dumps({"seconds": seconds, "modules": sorted(m for m in sys.modules if "." not in m)}))
"""


def test_every_help_imports_nothing_heavy_and_is_quick() -> None:
    """All helps in one fresh process: what none of them imported, each of them did not import."""
    result = subprocess.run(
        [sys.executable, "-c", WALK], cwd=ROOT / "tests", capture_output=True, text=True, check=True
    )
    report = json.loads(result.stdout)
    assert [module for module in HEAVY if module in report["modules"]] == []
    assert len(report["seconds"]) > 10
    assert max(report["seconds"].values()) < 0.5


@pytest.mark.parametrize("words", [[], ["curate", "run"], ["train", "sft"], ["generate"]])
def test_help_answers_in_under_a_second_of_cpu(words: list[str]) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = "from stylear.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", start, *words, "--help"], capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert "Usage" in result.stdout
    assert seconds < 1.0


def test_every_command_has_a_summary_and_an_example_that_parses() -> None:
    all_commands = dict(commands())
    assert {"generate", "evaluate", "models list", "models verify"} <= set(all_commands)
    for words, command in all_commands.items():
        text = (command.help or "").strip()
        summary = text.split("\n")[0].removesuffix(".")
        assert summary, f"stylear {words}: no summary"
        assert not summary.startswith("Example"), f"stylear {words}: no summary"
        assert "Example" in text, f"stylear {words}: no example"
        example = " ".join(text.split("Example", 1)[1].split())
        assert f"stylear {words}" in example, f"stylear {words}: another command's example"
        line = example[example.index("stylear ") :]
        assert problem(line) is None, f"stylear {words}: {problem(line)}"


def test_no_two_test_modules_have_the_same_name() -> None:
    """pytest imports them by name alone, so the second one would not be collected."""
    names = [file.name for file in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
