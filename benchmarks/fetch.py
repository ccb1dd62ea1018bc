"""Fetch against img2dataset alone: the same server, the same list, the same output size, in turns.

    python benchmarks/fetch.py [--images 10000] [--rounds 5]

Both sides are whole commands in processes of their own, start to finished shards on the disk: theirs is
`img2dataset` without any guard, ours `stylear curate fetch` with the guard, ingest, hashes, fsync and
ledger. Rounds alternate (A B A B ...), so that what else the machine does meets both alike, and the
ratio is taken round by round, of the seconds from the first image asked for to the end of the command
(neither side pays for its imports). Beside it stand the ratio of the whole commands, and the CPU that an
image costs (start-up taken off), which other work on the machine disturbs least.
Writes results/fetch.json and results/fetch.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

HERE = Path(__file__).parent
DISTINCT = 200  # pictures on the server
SIZE, THREADS = 256, 32
Result = dict[str, Any]
GOALS = {"resize": 1.5, "as-is": 0.9}


def theirs(listing: Path, out: Path, mode: str, processes: int) -> list[str]:
    """The img2dataset command."""
    resizing = {
        "resize": [f"--image_size={SIZE}", "--resize_mode=center_crop", "--encode_quality=95"],
        "as-is": ["--resize_mode=no", "--disable_all_reencoding=True"],
    }[mode]
    return [
        sys.executable,
        "-m",
        "img2dataset.main",
        f"--url_list={listing}",
        "--input_format=parquet",
        "--url_col=url",
        "--caption_col=caption",
        "--output_format=webdataset",
        f"--output_folder={out}",
        "--number_sample_per_shard=1000",
        f"--processes_count={processes}",
        f"--thread_count={THREADS}",
        "--enable_wandb=False",
        *resizing,
    ]


def ours(listing: Path, out: Path, mode: str, processes: int) -> list[str]:
    """The stylear command; its recipe lies beside the list."""
    recipe = listing.with_name(f"{mode}.yaml")
    image = {"size": SIZE, "format": "jpg", "fit": "crop" if mode == "resize" else "source"}
    urls = {
        "type": "urls",
        "path": str(listing),
        "threads": THREADS,
        "processes": processes,
        "allow_networks": ["127.0.0.0/8"],
        "host_requests_per_s": None,
    }
    recipe.write_text(yaml.safe_dump({"name": "bench", "image": image, "raw": [urls]}), "utf-8")
    return [sys.executable, "-m", "stylear", "curate", "fetch", str(recipe), "--out", str(out)]


@dataclass(frozen=True)
class Cost:
    """Of one command: seconds in all, seconds from the first image asked for, seconds of CPU."""

    whole_s: float
    going_s: float
    cpu_s: float


def timed(command: list[str], out: Path, port: int, expected: int) -> Cost:
    """What one command costs. Raises RuntimeError when it did not fetch every image."""
    environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"}
    first_asked(port)
    start = time.monotonic()
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=words, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)  # of the process and all that it waited for
        process.returncode = os.waitstatus_to_exitcode(status)
        end = time.monotonic()
        num_images = sum(count_images(path) for path in sorted(out.rglob("*.parquet")))
        if process.returncode or num_images != expected:
            words.seek(0)
            raise RuntimeError(
                f"{command}: {num_images} of {expected}\n{words.read()[-2000:].decode()}"
            )
    cpu_s = usage.ru_utime + usage.ru_stime
    return Cost(end - start, end - float(first_asked(port)), cpu_s)


def first_asked(port: int) -> str:
    """What the server notes; asking starts its note anew."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/first") as answer:
        return str(answer.read().decode())


def count_images(path: Path) -> int:
    """Rows of a table that have an image, in either format."""
    table = pq.read_table(path)
    if "status" in table.column_names:
        return table["status"].to_pylist().count("success")
    return table["kept"].to_pylist().count(True) if "kept" in table.column_names else 0


def compare(
    lists: dict[int, Path], port: int, mode: str, rounds: int, processes: dict[str, int]
) -> Result:
    """Paired rounds of one mode. The first round also fetches one image: the CPU of starting up."""
    images = max(lists)
    costs: dict[str, list[Cost]] = {"theirs": [], "ours": []}
    idle: dict[str, float] = {}
    for turn in range(rounds):
        for side, build in (("theirs", theirs), ("ours", ours)):
            for count in (1, images) if turn == 0 else (images,):
                with tempfile.TemporaryDirectory(dir=lists[count].parent) as scratch:
                    out = Path(scratch) / "out"
                    command = build(lists[count], out, mode, processes[side])
                    cost = timed(command, out, port, count)
                if count == 1:
                    idle[side] = cost.cpu_s
                else:
                    costs[side].append(cost)
        rates = ", ".join(f"{side} {images / c[-1].going_s:.0f}/s" for side, c in costs.items())
        print(f"{mode} round {turn + 1}: {rates}", file=sys.stderr, flush=True)
    rounds_of = list(zip(costs["theirs"], costs["ours"], strict=True))
    cpu_ms = {
        side: [1000 * (cost.cpu_s - idle[side]) / (images - 1) for cost in values]
        for side, values in costs.items()
    }
    return {
        "mode": mode,
        "images": images,
        "goal": GOALS[mode],
        "costs": {side: [asdict(cost) for cost in values] for side, values in costs.items()},
        "start_up_cpu_s": idle,
        "images_per_s": {
            side: images / statistics.median(cost.going_s for cost in values)
            for side, values in costs.items()
        },
        "ratios": [a.going_s / b.going_s for a, b in rounds_of],
        "whole_ratios": [a.whole_s / b.whole_s for a, b in rounds_of],
        "cpu_ms": {side: statistics.median(values) for side, values in cpu_ms.items()},
        "cpu_ratios": [a / b for a, b in zip(cpu_ms["theirs"], cpu_ms["ours"], strict=True)],
    }


def table(results: list[Result], machine: str) -> str:
    """The results as markdown."""
    lines = [
        "| mode | img2dataset, images/s | stylear, images/s | ratio, median | its range | goal |"
        " ratio with start-up | CPU ms an image, img2dataset | stylear | ratio of CPU |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        rate, ratios, cpu = result["images_per_s"], result["ratios"], result["cpu_ms"]
        lines.append(
            f"| {result['mode']} | {rate['theirs']:.0f} | {rate['ours']:.0f} |"
            f" {statistics.median(ratios):.2f} | {min(ratios):.2f} to {max(ratios):.2f} |"
            f" {result['goal']} | {statistics.median(result['whole_ratios']):.2f} |"
            f" {cpu['theirs']:.2f} | {cpu['ours']:.2f} |"
            f" {statistics.median(result['cpu_ratios']):.2f} |"
        )
    return "# Fetch\n\n" + machine + "\n\n" + "\n".join(lines) + "\n"


def write_list(folder: Path, port: int, images: int) -> Path:
    """A list of so many URLs with captions."""
    folder.mkdir()
    urls = [f"http://127.0.0.1:{port}/{n}.jpg" for n in range(images)]
    captions = [f"picture number {n}" for n in range(images)]
    pq.write_table(pa.table({"url": urls, "caption": captions}), folder / "list.parquet")
    return folder / "list.parquet"


def main() -> None:
    """Run both modes and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--modes", nargs="+", default=list(GOALS))
    parser.add_argument("--theirs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--ours", type=int, default=1, help="downloading processes")
    options = parser.parse_args()
    server = subprocess.Popen(
        [sys.executable, str(HERE / "support" / "image_server.py"), str(DISTINCT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    port = int(server.stdout.readline())
    processes = {"theirs": options.theirs, "ours": options.ours}
    try:
        with tempfile.TemporaryDirectory() as scratch:
            lists = {n: write_list(Path(scratch) / f"{n}", port, n) for n in (1, options.images)}
            results = [
                compare(lists, port, mode, options.rounds, processes) for mode in options.modes
            ]
    finally:
        server.communicate("")
    machine = (
        f"{options.images} JPEGs of 640x480 (quality 85) from a server on loopback, to {SIZE} px JPEG"
        f" or stored as they are; {options.rounds} rounds in turns; {THREADS} threads a process;"
        f" img2dataset {version('img2dataset')} with {options.theirs} processes, stylear with"
        f" {options.ours} downloading process(es); {os.cpu_count()} cores"
        f" ({platform.machine()}, shared with other work), Python {platform.python_version()},"
        f" Pillow {version('pillow')}. Made by `python benchmarks/fetch.py`."
    )
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    text = table(results, machine)
    (folder / "fetch.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    (folder / "fetch.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
