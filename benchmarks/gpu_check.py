"""Everything that only a GPU shows, in ten minutes: device tests, then the benchmarks in sizes that fit.

    python benchmarks/gpu_check.py [--tiny] [--parts tests score] [--out benchmarks/results]

Each part is a process with a time limit of its own. A part that fails, or that is stopped at its limit, is
recorded with the end of its output, and the next one runs. The result is `gpu-CARD.json`, with the name of
the card and for each part its status, its seconds and what it measured. `--tiny` runs the smallest sizes,
which a CPU manages too. The exit code is 1 if a part failed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
TAIL_LETTERS = 2000
GRACE_S = 10  # of a part's limit: from the interrupt to the kill
DEVICE_TESTS = (
    "tests/model", "tests/sampling", "tests/encoders", "tests/train", "tests/score",
    "tests/synthesize", "tests/evaluation",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """A command that measures something; `{out}` in it is a folder for its results."""

    name: str
    limit_s: float
    command: tuple[str, ...]
    tiny: tuple[str, ...] = ()  # replaces `command` where the smallest sizes are asked for
    goal: str = ""

    def find_script(self) -> Path | None:
        """The script of the command, if it is one of this folder."""
        return next((ROOT / word for word in self.command if word.startswith("benchmarks/")), None)


PARTS = (
    Part(
        "tests", 100,
        ("-m", "pytest", "-q", "-n", "8", "-m", "not cpu and not alone", "--junitxml", "{out}/tests.xml",
         *DEVICE_TESTS),
        ("-m", "pytest", "-q", "-m", "not cpu and not alone", "--junitxml", "{out}/tests.xml",
         "tests/sampling/test_devices.py"),
    ),
    Part(
        "sampling", 150,
        ("benchmarks/sampling.py", "--config", "7b", "--size", "768", "--batch-sizes", "16",
         "--peer-codes", "32", "--rounds", "1", "--max-s", "120", "--out", "{out}"),
        ("benchmarks/sampling.py", "--config", "tiny", "--size", "64", "--batch-sizes", "1",
         "--peer-codes", "2", "--rounds", "1", "--out", "{out}"),
        "H100: one picture of 768 px in 14 s, 16 at once at 0.6 pictures/s; H200: one in 11 s",
    ),
    Part(
        "sft", 70,
        ("benchmarks/train_sft.py", "--out", "{out}"),
        ("benchmarks/train_sft.py", "--tiny", "--out", "{out}"),
    ),
    Part(
        "score", 70,
        ("benchmarks/score.py", "--images", "4000", "--by-hand-images", "500", "--rounds", "2",
         "--out", "{out}"),
        ("benchmarks/score.py", "--arch", "ViT-S-32-alt", "--images", "4", "--by-hand-images", "2",
         "--rounds", "1", "--batch-size", "2", "--side", "64", "--out", "{out}"),
        "H200: 2,000 images/s",
    ),
    Part(
        "synthesize", 210,
        ("benchmarks/synthesize.py", "--steps", "20", "--prompts", "4", "--references", "2", "--candidates",
         "1", "--rounds", "1", "--compile", "--out", "{out}"),
        ("benchmarks/synthesize.py", "--model", "small", "--size", "64", "--steps", "1", "--prompts", "1",
         "--references", "1", "--candidates", "1", "--rounds", "1", "--out", "{out}"),
        "2 times the plain loop",
    ),
)  # fmt: skip


def run_part(part: Part, *, tiny: bool, device: str) -> dict[str, Any]:
    """Run a part until it ends or its limit is over; returns its status, seconds, results and output."""
    script = part.find_script()
    outcome: dict[str, Any] = {"status": "missing", "seconds": 0.0, "limit_s": part.limit_s}
    if part.goal:
        outcome["goal"] = part.goal
    if script is not None and not script.is_file():
        return {**outcome, "output": f"{script}: expected this script, found nothing"}
    environment = {**os.environ, "STYLEAR_TEST_DEVICE": device, "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryDirectory() as folder:
        out, log = Path(folder) / "out", Path(folder) / "log"
        out.mkdir()
        words = [word.replace("{out}", str(out)) for word in (part.tiny if tiny else part.command)]
        start = time.monotonic()
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, *words],
                cwd=ROOT,
                env=environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code: int | None = process.wait(part.limit_s - GRACE_S)
            except subprocess.TimeoutExpired:
                code = None
                process.send_signal(signal.SIGINT)  # pytest then writes what it has found
                with suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE_S)
            finally:  # also what it has started itself
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        outcome["seconds"] = round(time.monotonic() - start, 1)
        outcome["status"] = (
            "stopped at its limit" if code is None else "failed" if code else "passed"
        )
        outcome["command"] = " ".join(["python", *(part.tiny if tiny else part.command)])
        outcome["result"] = read_results(out)
        if code != 0:
            outcome["output"] = log.read_text("utf-8", "replace")[-TAIL_LETTERS:]
    return outcome


def read_results(out: Path) -> dict[str, Any]:
    """What a part has written: its JSON files by name, and the counts of a junit.xml."""
    results: dict[str, Any] = {}
    for file in sorted(out.rglob("*.json")):
        try:
            results[file.stem] = json.loads(file.read_text("utf-8"))
        except ValueError:
            results[file.stem] = "cut off"
    for file in sorted(out.rglob("*.xml")):
        try:
            results[file.stem] = count_tests(file)
        except ElementTree.ParseError:
            results[file.stem] = "cut off"
    return results


def count_tests(file: Path) -> dict[str, Any]:
    """How many tests of a junit.xml passed and were skipped, and the names of those that failed."""
    cases = list(ElementTree.parse(file).getroot().iter("testcase"))
    failed = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {"passed": len(cases) - len(failed) - skipped, "skipped": skipped, "failed": failed}


def describe_machine() -> dict[str, Any]:
    """The card, its memory and driver; the CPU where there is no GPU."""
    import torch

    machine: dict[str, Any] = {
        "card": "CPU",
        "cpu_cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        machine |= {"card": card.name, "memory_gib": round(card.total_memory / 2**30, 1)}
        machine["cuda"] = torch.version.cuda
    return machine


def name_result(card: str) -> str:
    """`gpu-nvidia-h100-80gb-hbm3.json` of "NVIDIA H100 80GB HBM3"."""
    return f"gpu-{re.sub('[^a-z0-9]+', '-', card.lower()).strip('-')}.json"


def check(parts: Sequence[Part], out: Path, *, tiny: bool) -> bool:
    """Run the parts and write the result after each; whether all of them passed."""
    machine = describe_machine()
    device = "cpu" if machine["card"] == "CPU" else "cuda"
    result: dict[str, Any] = {**machine, "tiny": tiny, "parts": {}}
    out.mkdir(parents=True, exist_ok=True)
    for part in parts:
        print(f"{part.name}: at most {part.limit_s:g} s", flush=True)
        outcome = result["parts"][part.name] = run_part(part, tiny=tiny, device=device)
        print(f"{part.name}: {outcome['status']} after {outcome['seconds']:g} s", flush=True)
        if "output" in outcome:
            print(outcome["output"], flush=True)
        (out / name_result(machine["card"])).write_text(
            json.dumps(result, indent=1) + "\n", "utf-8"
        )
    return all(outcome["status"] == "passed" for outcome in result["parts"].values())


def make_parser() -> argparse.ArgumentParser:
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=names, default=names)
    parser.add_argument("--tiny", action="store_true", help="smallest sizes, for a CPU")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser


def main() -> None:
    parser = make_parser()
    args = parser.parse_args()
    if not args.tiny and describe_machine()["card"] == "CPU":
        parser.error("expected a GPU, found none; --tiny runs the smallest sizes on the CPU")
    parts = [part for part in PARTS if part.name in args.parts]
    sys.exit(0 if check(parts, args.out, tiny=args.tiny) else 1)


if __name__ == "__main__":
    main()
