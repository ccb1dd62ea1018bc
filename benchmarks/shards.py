"""Writing and mixing shards, against webdataset's ShardWriter and against `cp` of the same bytes.

    python benchmarks/shards.py [--samples 20000] [--bytes 20000] [--rounds 8] [--workers 0]

All three write the same images, captions and rows, in shards of 1000, and sync every file; only ours hashes
(SHA-256 of each image and of each file, MD5 of what goes into a wids index) and writes the tables. They take
turns in every round, and the fastest round of each is reported, because what else the machine does only adds
time. CPU seconds, of all threads and child processes, stand beside them: they are what a busy machine leaves
comparable. Beside them stands what the hashes alone take on one core, and which share of `cp` they leave at
most, were they spread over all cores and everything else free.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from stylear.curate.corpus import records, shards
from stylear.pair import Origin, Pair, content_id, digest

RESULTS = Path(__file__).parent / "results"
SHARD = 1000  # samples
BLOCK = 512  # of a tar
PNG = b"\x89PNG\r\n\x1a\n" + bytes.fromhex("0000000d49484452000001000000010008020000")


def make_pairs(samples: int, size: int) -> list[Pair]:
    """Pairs whose images are a PNG's head and noise; a quarter of them stylized."""
    noise = np.random.default_rng(0)
    return [
        Pair(
            key=digest("benchmark", number),
            caption=f"a caption of number {number}, made of several words",
            image=PNG + noise.bytes(size - len(PNG)),
            origin=Origin(
                kind="stylized" if number % 4 == 3 else "raw",
                source=f"https://example.org/pictures/{number}.png",
                content=content_id(f"number {number}"),
                details={"status": 200, "licence": "CC0-1.0", "fetched": True},
            ),
        )
        for number in range(samples)
    ]


def sync(path: Path | str) -> None:
    """Put a file on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_peer(samples: Iterator[dict[str, Any]], folder: Path) -> None:
    """Samples through ShardWriter, each finished file synced."""
    import webdataset

    folder.mkdir()
    with webdataset.ShardWriter(
        str(folder / "%05d.tar"), maxcount=SHARD, verbose=0, post=sync
    ) as writer:
        for sample in samples:
            writer.write(sample)


def copy(source: Path, folder: Path) -> None:
    """`cp` of all files, each synced."""
    subprocess.run(["cp", "-r", str(source), str(folder)], check=True)
    for path in folder.iterdir():
        sync(path)


def writing(pairs: list[Pair], root: Path) -> dict[str, Callable[[], Any]]:
    """The three ways of writing pairs that are in memory; ShardWriter is given finished rows."""
    rows = [records.pair_to_row(pair) for pair in pairs]

    def ours() -> None:
        for start in range(0, len(pairs), SHARD):
            shards.write_shard(root / "ours", start // SHARD, pairs[start : start + SHARD])

    def peer() -> None:
        samples = (
            {"__key__": pair.key, "png": pair.image, "txt": pair.caption, "json": row}
            for pair, row in zip(pairs, rows, strict=True)
        )
        write_peer(samples, root / "shardwriter")

    return {
        "ours": ours,
        "shardwriter": peer,
        "cp": lambda: copy(root / "ours", root / "cp"),
    }


def mixing(pairs: list[Pair], root: Path, workers: int) -> dict[str, Callable[[], Any]]:
    """The three ways of mixing raw/ and stylized/ into train/.

    Ours shuffles all samples, by random access, with as many workers as `write_splits` starts for
    `workers`. The peer reads its tars in order and does not shuffle.
    """
    from stylear.curate.mix.mixing import write_splits
    from stylear.curate.recipe import check_recipe

    corpus = root / "corpus"
    for kind in ("raw", "stylized"):
        chosen = [pair for pair in pairs if pair.origin.kind == kind]
        for start in range(0, len(chosen), SHARD):
            shards.write_shard(corpus / kind, start // SHARD, chosen[start : start + SHARD])
    tars = [str(path) for kind in ("raw", "stylized") for path in shards.shard_paths(corpus / kind)]
    keys = np.array(
        sorted((pair.key for pair in pairs), key=lambda key: digest("mix", key)), np.bytes_
    )
    recipe = check_recipe(
        {"name": "benchmark", "raw": [{"type": "mini"}], "mix": {"shard_pairs": SHARD}}, root
    )

    def ours() -> None:
        write_splits(corpus, {"train": keys}, recipe, workers=workers)
        (corpus / "train").rename(root / "ours")

    def peer() -> None:
        import webdataset

        samples = webdataset.WebDataset(tars, shardshuffle=False)
        whole = (
            {
                name: value
                for name, value in sample.items()
                if name in ("__key__", "png", "txt", "json")
            }
            for sample in samples
        )
        write_peer(whole, root / "shardwriter")

    return {
        "ours": ours,
        "shardwriter": peer,
        "cp": lambda: copy(root / "ours", root / "cp"),
    }


def measure(
    ways: dict[str, Callable[[], Any]], root: Path, rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Wall and CPU seconds of every way in every round."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            os.sync()
            start, cpu = time.perf_counter(), cpu_seconds()
            way()
            seconds[name].append((time.perf_counter() - start, cpu_seconds() - cpu))
        for name in ways:
            shutil.rmtree(root / name)
    return seconds


def cpu_seconds() -> float:
    """Of this process and of its children that ended."""
    return sum(os.times()[:4])


def hashing(image: bytes, mixing: bool, rounds: int) -> float:
    """CPU seconds that the hashes of a sample take on one core: fastest of the rounds, 200 samples each.

    SHA-256 of the image and, with it, of the file; when mixing MD5 of the file too.
    """
    sample = image + bytes(3 * BLOCK + 2 * BLOCK)  # headers, caption, row
    hashes = [hashlib.sha256(), *([hashlib.md5(usedforsecurity=False)] if mixing else [])]
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        for _ in range(200):
            hashlib.sha256(image).hexdigest()
            for hasher in hashes:
                hasher.update(sample)
        best = min(best, (time.process_time() - start) / 200)
    return best


def summary(
    seconds: dict[str, list[tuple[float, float]]], samples: int, total: int, floor: float
) -> dict[str, Any]:
    """The fastest round of each way, and what it is worth; `floor` as `hashing` gives it."""
    wall = {name: min(wall for wall, _ in rounds) for name, rounds in seconds.items()}
    cpu = {name: min(cpu for _, cpu in rounds) for name, rounds in seconds.items()}
    cores = len(os.sched_getaffinity(0))
    return {
        "seconds": {n: [round(wall, 3) for wall, _ in rounds] for n, rounds in seconds.items()},
        "samples_per_s": {name: round(samples / one) for name, one in wall.items()},
        "mb_per_s": {name: round(total / one / 1e6) for name, one in wall.items()},
        "cpu_us_per_sample": {name: round(one / samples * 1e6) for name, one in cpu.items()},
        "times_shardwriter": round(wall["shardwriter"] / wall["ours"], 2),
        "of_cp": round(wall["cp"] / wall["ours"], 2),
        "hashing_us_per_sample": round(floor * 1e6, 1),
        "of_cp_at_most": round(wall["cp"] / samples / (floor / cores), 2),
    }


def table(result: dict[str, Any]) -> str:
    """The result as markdown."""
    lines = [
        "# Shards: writing and mixing",
        "",
        f"`{result['command']}` on {result['machine']}; load average {result['load']} at the start.",
        f"The fastest of {result['rounds']} rounds of each; see benchmarks/README.md.",
        "",
        "| what | samples/s: ours | ShardWriter | cp | ours / ShardWriter (goal 5) | ours / cp (goal 0.6) |"
        " CPU µs a sample: ours | ShardWriter | hashes alone | hashes alone / cp, at most |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for what in ("writing", "mixing"):
        row = result[what]
        rate, cpu = row["samples_per_s"], row["cpu_us_per_sample"]
        lines.append(
            f"| {what} | {rate['ours']:,} | {rate['shardwriter']:,} | {rate['cp']:,} |"
            f" {row['times_shardwriter']} | {row['of_cp']} | {cpu['ours']} | {cpu['shardwriter']} |"
            f" {row['hashing_us_per_sample']} | {row['of_cp_at_most']} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--bytes", type=int, default=20_000, help="of each image")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--workers", type=int, default=0, help="of mixing; 0: what is worth it")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    result: dict[str, Any] = {
        "command": f"python benchmarks/shards.py --samples {args.samples} --bytes {args.bytes}"
        f" --rounds {args.rounds} --workers {args.workers}",
        "machine": f"{len(os.sched_getaffinity(0))} CPU cores ({platform.machine()}), Python"
        f" {platform.python_version()}, webdataset {version('webdataset')}",
        "load": round(os.getloadavg()[0], 1),
        "rounds": args.rounds,
    }
    pairs = make_pairs(args.samples, args.bytes)
    total = args.samples * args.bytes
    for what, ways in (("writing", writing), ("mixing", partial(mixing, workers=args.workers))):
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            seconds = measure(ways(pairs, Path(folder)), Path(folder), args.rounds)
        floor = hashing(pairs[0].image, what == "mixing", 10 * args.rounds)
        result[what] = summary(seconds, args.samples, total, floor)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "shards.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    (args.out / "shards.md").write_text(table(result), "utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
