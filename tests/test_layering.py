"""Imports run one way, and help is quick because it imports nothing heavy."""

from __future__ import annotations

import ast
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from command_tree import commands, problem

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "open_clip", "diffusers", "transformers", "pyarrow", "cv2", "webdataset", "numpy")
# where both sides are put together
MOUNTS = {"stylear/cli.py", "stylear/demo.py", "stylear/demo_page.py"}
READ_SIDE = {"curate.shards"}  # what the trainer may use of the data side


def imports(file: Path) -> set[str]:
    """The dotted names that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def uses(package: str, *others: str) -> list[str]:
    """`file imports module` for every import of `others` by a file of the package."""
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, f"no files in {package}"
    return [
        f"{name} imports {module}"
        for file in files
        if (name := file.relative_to(ROOT).as_posix()) not in MOUNTS
        for module in sorted(imports(file))
        if module.split(".")[0] in others and not (package == "train" and allowed(module))
    ]


def allowed(module: str) -> bool:
    return module == "curate" or any(
        module == read or module.startswith(f"{read}.") for read in READ_SIDE
    )


def test_stylear_imports_neither_side() -> None:
    assert uses("stylear", "curate", "train") == []


def test_curate_does_not_import_train() -> None:
    assert uses("curate", "train") == []


def test_train_reads_shards_and_nothing_else_of_curate() -> None:
    assert uses("train", "curate") == []


def test_imports_are_found_wherever_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("import os.path\ndef f():\n    from curate import run\n    import train.sft\n")
    assert imports(file) == {"os.path", "curate", "curate.run", "train.sft"}


WALK = """
import contextlib, io, json, sys, time
from command_tree import commands, root
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
    found = json.loads(result.stdout)
    assert [module for module in HEAVY if module in found["modules"]] == []
    assert len(found["seconds"]) > 10
    assert max(found["seconds"].values()) < 0.5


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
    found = dict(commands())
    assert {"generate", "evaluate", "models list", "models verify"} <= set(found)
    for words, command in found.items():
        text = (command.help or "").strip()
        summary = text.split("\n")[0].removesuffix(".")
        assert summary, f"stylear {words}: no summary"
        assert not summary.startswith("Example"), f"stylear {words}: no summary"
        assert "Example" in text, f"stylear {words}: no example"
        example = " ".join(text.split("Example", 1)[1].split())
        assert f"stylear {words}" in example, f"stylear {words}: another command's example"
        line = example[example.index("stylear ") :]
        assert problem(line) is None, f"stylear {words}: {problem(line)}"
