"""The audit of a whole corpus against `sha256sum` over the same files, in turns.

    python benchmarks/audit.py [--images 10000] [--rounds 5] [--out benchmarks/results]

Builds a corpus of JPEGs of some 100 kB, stored as they came, once in raw/ and once in train/ or val/. In
every round these whole commands read it, start-up included: `sha256sum` of every file in the manifest, the
same by a loop around Python's hashlib, `stylear curate audit`, and the same with `--sample 0.1`. Beside them
stands the audit without the start of Python. The audit takes SHA-256 of every file and of every image, and
MD5 of what a wids index lists, and compares all other bytes with the tables. Fastest round of each; all files
are in the page cache. CPU seconds, of all processes, are what a busy machine leaves comparable.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
COMMAND = "from stylear.cli import main; main()"
DISTINCT = 200  # pictures; a comment makes every file another
GOAL = 0.8
HASH_LOOP = """
import hashlib, sys
for name in sys.stdin.read().splitlines():
    with open(name, "rb") as stream:
        print(hashlib.file_digest(stream, "sha256").hexdigest(), "", name)
"""
WHAT = {
    "sha256sum": "`sha256sum` of all files",
    "hashlib": "Python's hashlib over all files, one process",
    "audit": "`stylear curate audit`",
    "audit_alone": "the same without the start of Python and its imports",
    "sample": "`stylear curate audit --sample 0.1`",
}


def make_corpus(folder: Path, images: int) -> Path:
    """Build a corpus of so many pictures."""
    sys.path.insert(0, str(HERE / "support"))
    from image_server import pictures

    photos = folder / "photos"
    photos.mkdir(parents=True)
    shown = pictures(min(DISTINCT, images))
    with (photos / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption"])
        for number in range(images):
            comment = f"picture {number}".encode()
            marker = b"\xff\xfe" + (len(comment) + 2).to_bytes(2) + comment
            data = shown[number % len(shown)]
            (photos / f"{number:06d}.jpg").write_bytes(data[:2] + marker + data[2:])
            rows.writerow([f"{number:06d}.jpg", f"a caption of number {number}, of several words"])
    recipe = {
        "name": "audit",
        "image": {"size": 256, "format": "jpg", "fit": "source"},
        "raw": [{"type": "folder", "path": str(photos)}],
        "filter": {"duplicates": {"phash_distance": None}},
        "mix": {"val_fraction": 0.1},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), "utf-8")
    corpus = folder / "corpus"
    words = ["-c", COMMAND, "curate", "run", str(path), "--out", str(corpus)]
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    return corpus


def timed(words: Sequence[str], text: str = "") -> tuple[dict[str, float], str]:
    """Wall and CPU seconds of a process, and what it printed."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(words, check=True, input=text, stdout=subprocess.PIPE, text=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": round(wall, 3), "cpu_s": round(cpu, 3)}, done.stdout


def audit_alone(corpus: Path) -> dict[str, float]:
    """Wall and CPU seconds of the audit in this process, whose imports are done."""
    from stylear.curate.audit.auditor import audit
    from stylear.curate.audit.tars import Sampling

    audit(corpus, Sampling(share=0.01))
    start, cpu = time.perf_counter(), sum(os.times()[:4])
    audit(corpus).require()
    wall, spent = time.perf_counter() - start, sum(os.times()[:4]) - cpu
    return {"wall_s": round(wall, 3), "cpu_s": round(spent, 3)}


def compare(corpus: Path, rounds: int) -> dict[str, Any]:
    """All measures of one corpus."""
    manifest = json.loads((corpus / "manifest.json").read_text("utf-8"))
    names = "\n".join(str(corpus / name) for name in manifest["files"])
    python = [sys.executable, "-c"]
    command = [*python, COMMAND, "curate", "audit", str(corpus), "--json"]
    took: dict[str, list[dict[str, float]]] = {name: [] for name in WHAT}
    for _ in range(rounds):
        seconds, theirs = timed(["xargs", "sha256sum"], names)
        took["sha256sum"].append(seconds)
        seconds, ours = timed([*python, HASH_LOOP], names)
        took["hashlib"].append(seconds)
        assert ours.split() == theirs.split()
        seconds, result = timed(command)
        took["audit"].append(seconds)
        assert json.loads(result)["passed"]
        took["audit_alone"].append(
            json.loads(timed([sys.executable, __file__, "--child", str(corpus)])[1])
        )
        took["sample"].append(timed([*command, "--sample", "0.1"])[0])
    fastest = {name: min(ones, key=lambda row: row["wall_s"]) for name, ones in took.items()}
    wall = fastest["sha256sum"]["wall_s"]
    return {
        "files": len(manifest["files"]),
        "bytes": sum(info["bytes"] for info in manifest["files"].values()),
        "fastest": fastest,
        "of_sha256sum": {name: round(wall / row["wall_s"], 2) for name, row in fastest.items()},
        "rounds": took,
    }


def markdown(result: dict[str, Any]) -> str:
    """The result as a page."""
    size = result["bytes"]
    lines = [
        "# The audit against sha256sum",
        "",
        f"`{result['command']}` on {result['machine']}; load average {result['load']} at the start."
        f" {result['files']} files, {size / 1e9:.2f} GB, {result['images']:,} pictures of some 100 kB."
        f" Fastest of {result['num_rounds']} rounds of each; see benchmarks/README.md.",
        "",
        f"| what | wall s | CPU s | MB/s | speed of sha256sum (goal {GOAL}) |",
        "|---|---|---|---|---|",
    ]
    for name, what in WHAT.items():
        row = result["fastest"][name]
        lines.append(
            f"| {what} | {row['wall_s']:.2f} | {row['cpu_s']:.2f} |"
            f" {size / row['wall_s'] / 1e6:,.0f} | {result['of_sha256sum'][name]} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument(
        "--keep", type=Path, help="a folder for the corpus, so that it is built once"
    )
    parser.add_argument("--child", type=Path)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(audit_alone(args.child)))
        return
    version = subprocess.run(["sha256sum", "--version"], check=True, capture_output=True, text=True)
    result: dict[str, Any] = {
        "command": f"python benchmarks/audit.py --images {args.images} --rounds {args.rounds}",
        "machine": f"{len(os.sched_getaffinity(0))} shared CPU cores ({platform.machine()}), Python"
        f" {platform.python_version()}, {version.stdout.splitlines()[0]}",
        "load": round(os.getloadavg()[0], 1),
        "images": args.images,
        "num_rounds": args.rounds,
    }
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as temporary:
        folder = args.keep or Path(temporary)
        corpus = folder / "corpus"
        result |= compare(
            corpus if corpus.exists() else make_corpus(folder, args.images), args.rounds
        )
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "audit.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    (args.out / "audit.md").write_text(markdown(result), "utf-8")
    print(markdown(result))


if __name__ == "__main__":
    main()
