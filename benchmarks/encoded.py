"""Memory and time of drawing batches from a set that `stylear train encode` made, few and many rows.

    python benchmarks/encoded.py [--rows 10000 1000000] [--batches 300] [--out benchmarks/results]

Makes encoded sets of those sizes with the rows of Lumina-mGPT at 768 px (48 x 48 codes, 257 x 1280 features);
their arrays are holes in files, their captions real. A process of its own opens each set, draws shuffled
batches of 16 as training does and reports its highest resident memory. `mapped` reads the same rows through
numpy's memory maps instead.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SHARD = 1000
GRID, FEATURES = (48, 48), (257, 1280)
BATCH = 16
GOAL_BYTES = 2e9


def make(folder: Path, rows: int) -> None:
    """An encoded set of so many rows, in shards."""
    import numpy as np

    from stylear.train.encoded_files import CODES, ArrayWriter, PartWriter
    from stylear.train.encoded_files import FEATURES as FEATURES_FILE

    draw = np.random.default_rng(0)
    for shard in range(rows // SHARD):
        part = folder / f"{shard:05d}" / "x".join(map(str, GRID))
        writer = PartWriter(part)
        keys = draw.bytes(16 * SHARD).hex()
        writer.append(
            [
                {
                    "key": keys[32 * n : 32 * n + 32],
                    "caption": f"a photo of thing number {shard * SHARD + n} in front of a white house",
                    "kind": "stylized",
                    "group": f"style-{n % 80}",
                }
                for n in range(SHARD)
            ],
            {},
        )
        writer.close()
        for name, shape, dtype in (
            (CODES, (1, *GRID), np.dtype(np.uint16)),
            (FEATURES_FILE, FEATURES, np.dtype(np.float16)),
        ):
            array = ArrayWriter(part / name, shape, dtype)
            array.rows = SHARD
            array.close()
            size = (part / name).stat().st_size + SHARD * int(np.prod(shape)) * dtype.itemsize
            with (part / name).open("rb+") as file:
                file.truncate(size)


def draw_batches(folder: Path, batches: int, *, mapped: bool) -> dict[str, Any]:
    """Open a set, draw batches, and say what that took."""
    from stylear.model.families.chameleon import size_name
    from stylear.model.open import load_model
    from stylear.train.data import EncodedSet
    from stylear.train.encode import EncodedShard
    from stylear.train.encoded_files import EncodedPart

    model = load_model("mini-stylear")
    vocabulary = model.layout.vocabulary  # a small tokenizer has no token for this size
    vocabulary[size_name(GRID[0] // 2)] = model.layout.newline
    before = read_memory()
    start = time.perf_counter()
    shards = [
        EncodedShard(path, path, (EncodedPart(path / "x".join(map(str, GRID)), SHARD),))
        for path in sorted(folder.iterdir())
    ]
    data = EncodedSet(model, [shards])
    opened_s = time.perf_counter() - start
    opened = read_memory()
    start = time.perf_counter()
    if mapped:
        read_mapped(data, shards, batches)
    else:
        for step in range(batches):
            batch = data.build_step_batch(0, step, BATCH, dropout=0.1, style_from="sibling")
            assert batch.batch.ids.shape[0] == BATCH
    seconds = time.perf_counter() - start
    return {
        "rows": len(data),
        "open_s": round(opened_s, 2),
        "batch_ms": round(1000 * seconds / batches, 2),
        "imports_and_model_bytes": before,
        "opened_bytes": opened,
        "peak_bytes": read_memory(),
    }


def read_mapped(data: Any, shards: Any, batches: int) -> None:
    """The arrays of the same rows, from memory maps of all files."""
    import numpy as np

    from stylear.train.encoded_files import CODES
    from stylear.train.encoded_files import FEATURES as FEATURES_FILE

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # each map keeps its file open
    maps = [
        [np.load(shard.parts[0].folder / name, mmap_mode="r") for name in (CODES, FEATURES_FILE)]
        for shard in shards
    ]
    for step in range(batches):
        rows = data.draw_rows(0, step, BATCH).tolist()
        for number in (0, 1):
            np.stack([maps[row // SHARD][number][row % SHARD] for row in rows])


def read_memory() -> int:
    """The highest resident memory of this process so far, in bytes."""
    status = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()
    return int(status[0]) * 1024


def compare(sizes: list[int], batches: int) -> dict[str, Any]:
    """Both sizes, by reads and by memory maps."""
    results = []
    for rows in sizes:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder), rows)
            for way in ("read", "mapped"):
                command = [sys.executable, __file__, "--child", way, folder]
                command += ["--batches", str(batches)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                results.append({"way": way, **json.loads(done.stdout)})
                print(results[-1], file=sys.stderr, flush=True)
    machine = {"system": platform.platform(), "python": platform.python_version()}
    peak = max(row["peak_bytes"] for row in results if row["way"] == "read")
    return {
        "batches": batches,
        "results": results,
        "goal_bytes": GOAL_BYTES,
        "reached": peak < GOAL_BYTES,
        "machine": machine,
    }


def markdown(result: dict[str, Any]) -> str:
    """The result as a page."""
    lines = [
        "# Memory of an encoded set",
        "",
        f"{result['batches']} batches of {BATCH} rows, each {GRID[0]}x{GRID[1]} codes and"
        f" {FEATURES[0]}x{FEATURES[1]} features, on {result['machine']['system']},"
        f" Python {result['machine']['python']}, 2 shared CPU cores."
        " Peak is the highest resident memory of the process, imports and a small model included."
        f" Goal: under {GOAL_BYTES / 1e9:.0f} GB at any size.",
        "",
        "| rows | arrays | opening, s | a batch, ms | imports and model | after opening | peak |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["results"]:
        sizes = [
            f"{row[name] / 1e6:,.0f} MB"
            for name in ("imports_and_model_bytes", "opened_bytes", "peak_bytes")
        ]
        lines.append(
            f"| {row['rows']:,} | {row['way']} | {row['open_s']} | {row['batch_ms']} | {' | '.join(sizes)} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", nargs="+", type=int, default=[10_000, 1_000_000])
    parser.add_argument("--batches", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--child", nargs=2)
    args = parser.parse_args()
    if args.child:
        way, folder = args.child
        print(json.dumps(draw_batches(Path(folder), args.batches, mapped=way == "mapped")))
        return
    result = compare(args.rows, args.batches)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "encoded.json").write_text(json.dumps(result, indent=1) + "\n")
    (args.out / "encoded.md").write_text(markdown(result))
    print(markdown(result))


if __name__ == "__main__":
    main()
