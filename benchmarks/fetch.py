"""Fetch against img2dataset alone: the same server, the same list, the same output size, in turns.

    python benchmarks/fetch.py [--images 3000] [--rounds 5]

Both sides are whole commands in processes of their own, start to finished shards on the disk: theirs is
`img2dataset` without any guard, ours `stylear curate fetch` with the guard, ingest, hashes, fsync and
ledger. Rounds alternate (A B A B ...), so that what else the machine does meets both alike, and the
ratio is taken round by round, of the seconds from the first image asked for to the end of the command
(neither side pays for its imports; the ratio of the whole commands stands beside it).
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


def timed(command: list[str], out: Path, port: int, expected: int) -> tuple[float, float]:
    """Seconds of one whole command, and of its part after the first image was asked for.

    Raises RuntimeError when it did not fetch every image.
    """
    environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"}
    first_asked(port)
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    end = time.monotonic()
    found = sum(count_images(path) for path in sorted(out.rglob("*.parquet")))
    if done.returncode or found != expected:
        raise RuntimeError(f"{' '.join(command)}: {found} of {expected}\n{done.stderr[-2000:]}")
    return end - start, end - float(first_asked(port))


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
    listing: Path, port: int, mode: str, images: int, rounds: int, processes: dict[str, int]
) -> Result:
    """Paired rounds of one mode."""
    whole: dict[str, list[float]] = {"theirs": [], "ours": []}
    going: dict[str, list[float]] = {"theirs": [], "ours": []}
    for turn in range(rounds):
        for side, build in (("theirs", theirs), ("ours", ours)):
            with tempfile.TemporaryDirectory(dir=listing.parent) as scratch:
                out = Path(scratch) / "out"
                command = build(listing, out, mode, processes[side])
                seconds = timed(command, out, port, images)
            whole[side].append(seconds[0])
            going[side].append(seconds[1])
        rates = ", ".join(f"{side} {images / times[-1]:.0f}/s" for side, times in going.items())
        print(f"{mode} round {turn + 1}: {rates}", file=sys.stderr, flush=True)
    return {
        "mode": mode,
        "images": images,
        "goal": GOALS[mode],
        "whole_s": whole,
        "going_s": going,
        "ratios": [a / b for a, b in zip(going["theirs"], going["ours"], strict=True)],
        "whole_ratios": [a / b for a, b in zip(whole["theirs"], whole["ours"], strict=True)],
        "images_per_s": {side: images / statistics.median(t) for side, t in going.items()},
    }


def table(results: list[Result], machine: str) -> str:
    """The results as markdown."""
    lines = [
        "| mode | img2dataset, images/s | stylear with the guard, images/s | ratio, median of the rounds |"
        " its range | ratio with start-up | goal |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        rate, ratios = result["images_per_s"], result["ratios"]
        lines.append(
            f"| {result['mode']} | {rate['theirs']:.0f} | {rate['ours']:.0f} |"
            f" {statistics.median(ratios):.2f} | {min(ratios):.2f} to {max(ratios):.2f} |"
            f" {statistics.median(result['whole_ratios']):.2f} | {result['goal']} |"
        )
    return "# Fetch\n\n" + machine + "\n\n" + "\n".join(lines) + "\n"


def write_list(folder: Path, port: int, images: int) -> Path:
    """A list of so many URLs with captions."""
    urls = [f"http://127.0.0.1:{port}/{n}.jpg" for n in range(images)]
    captions = [f"picture number {n}" for n in range(images)]
    pq.write_table(pa.table({"url": urls, "caption": captions}), folder / "list.parquet")
    return folder / "list.parquet"


def main() -> None:
    """Run both modes and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=3000)
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
            listing = write_list(Path(scratch), port, options.images)
            results = [
                compare(listing, port, mode, options.images, options.rounds, processes)
                for mode in options.modes
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
