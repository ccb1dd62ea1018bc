"""The GPU check goes on after a part that fails or hangs, and its commands are those of the benchmarks."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def load_script(name: str) -> ModuleType:
    """A script of benchmarks/ as a module."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def gpu_check() -> ModuleType:
    return load_script("gpu_check")


def test_all_parts_together_take_ten_minutes_at_most(gpu_check: ModuleType) -> None:
    assert sum(part.limit_s for part in gpu_check.PARTS) <= 600
    assert [part.name for part in gpu_check.PARTS] == [
        "tests", "sampling", "sft", "score", "synthesize",
    ]  # fmt: skip


def test_a_part_that_fails_or_hangs_is_recorded_and_the_next_one_runs(
    gpu_check: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = "import sys, pathlib; pathlib.Path(sys.argv[1], 'x.json').write_text('{\"a\": 1}')"
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    monkeypatch.setattr(gpu_check, "GRACE_S", 0.1)
    parts = [
        gpu_check.Part("fails", 20, ("-S", "-c", "raise SystemExit('no such model')")),
        gpu_check.Part("hangs", 0.4, ("-S", "-c", deaf)),
        gpu_check.Part("missing", 20, ("benchmarks/none.py",)),
        gpu_check.Part("works", 20, ("-S", "-c", write, "{out}")),
    ]
    assert gpu_check.check(parts, tmp_path, tiny=False) is False
    (file,) = tmp_path.iterdir()
    assert file.name == gpu_check.name_result(gpu_check.describe_machine()["card"])
    report = json.loads(file.read_text())
    assert {name: part["status"] for name, part in report["parts"].items()} == {
        "fails": "failed",
        "hangs": "stopped at its limit",
        "missing": "missing",
        "works": "passed",
    }
    assert report["parts"]["fails"]["output"] == "no such model\n"
    assert report["parts"]["works"]["result"] == {"x": {"a": 1}}
    assert "no such model" in capsys.readouterr().out


def test_the_result_is_named_after_the_card(gpu_check: ModuleType) -> None:
    assert gpu_check.name_result("NVIDIA H100 80GB HBM3") == "gpu-nvidia-h100-80gb-hbm3.json"


def test_failed_tests_are_counted_and_named(gpu_check: ModuleType, tmp_path: Path) -> None:
    cases = (
        '<testcase classname="a" name="one"/>'
        '<testcase classname="a" name="two"><failure message="x">y</failure></testcase>'
        '<testcase classname="b" name="three"><skipped/></testcase>'
    )
    file = tmp_path / "tests.xml"
    file.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    assert gpu_check.read_results(tmp_path) == {
        "tests": {"passed": 1, "skipped": 1, "failed": ["a::two"]}
    }


@pytest.mark.parametrize("name", ["sampling", "sft", "score", "synthesize"])
def test_every_benchmark_takes_the_options_that_the_check_gives_it(
    gpu_check: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = next(part for part in gpu_check.PARTS if part.name == name)
    script = part.find_script()
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = load_script(script.stem)
    for words in (part.command, part.tiny):
        assert words[0] == f"benchmarks/{script.name}"
        args = module.make_parser(False).parse_args(words[1:])
        assert str(args.out) == "{out}"


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("sampling", "sampling-tiny"),
        ("sft", "train_sft"),
        ("score", "score"),
        ("synthesize", "synthesize"),
    ],
)
def test_a_part_runs_in_its_smallest_size_on_a_cpu(
    gpu_check: ModuleType, name: str, result: str
) -> None:
    part = next(part for part in gpu_check.PARTS if part.name == name)
    outcome = gpu_check.run_part(part, tiny=True, device="cpu")
    assert (outcome["status"], outcome.get("output", "")) == ("passed", "")
    assert outcome["result"][result]
