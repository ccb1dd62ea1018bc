"""Commands that look at a whole corpus, and the number of its pairs: seconds, peak memory and their growth.

    python benchmarks/scale.py [--rows 10000 100000 1000000] [--out benchmarks/results]
    python benchmarks/scale.py --rows 10000000      # adds one size to the results that are there

Makes corpora of those sizes as tables without images (a quarter of the pairs stylized, three scorers, shards
of 10,000 rows, every lineage true), filters, mixes and pairs them, and runs whole commands in processes of
their own, start-up included. The audit is that of the metadata: hashes of all tables and every check of their
contents. The peak is the highest resident memory of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MAKER = HERE / "support" / "scale_corpus.py"
COMMAND = "from stylear.cli import main; main()"
SHARD = 10_000
SQL = (
    'select v.reason, p.kind, count(*) pairs, avg(c."score.text") text from verdicts v'
    " join pairs p on p.key = v.key join columns c on c.key = v.key group by all order by all"
)
GOAL_BYTES = 2_000_000_000  # at 10 million rows
WHAT = {
    "filter": "`filter --dry-run` with another threshold",
    "query": "`query`: counts and means over three joined tables",
    "audit": "`audit`: every check, tables hashed, no images",
    "diff": "`diff` with a corpus of other verdicts",
    "explain": "`explain` of one key",
}


def run_command(words: list[str]) -> dict[str, float]:
    """Seconds and peak resident memory of one command."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "curate", *words], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{words[0]} ended with {process.returncode}")
    seconds = time.perf_counter() - start
    return {
        "seconds": round(seconds, 2),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_bytes": usage.ru_maxrss * 1024,
    }


def measure(rows: int, corpus: Path) -> dict[str, Any]:
    """Every command on a corpus of so many rows."""
    from stylear.curate.corpus.layout import KINDS
    from stylear.curate.corpus.parquet import read_tables

    start = time.perf_counter()
    if not corpus.exists():
        subprocess.run([sys.executable, str(MAKER), "make", str(corpus), str(rows)], check=True)
    other = corpus.with_name("other")
    if not other.exists():
        subprocess.run([sys.executable, str(MAKER), "change", str(corpus), str(other)], check=True)
    print(f"{rows} rows made in {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    key = next(read_tables(corpus / KINDS[1], ["key"]))[1]["key"][5].as_py()
    size = sum(path.stat().st_size for path in corpus.rglob("*") if path.is_file())
    threshold = "filter.thresholds=[{score: text, min: 0.3}]"
    commands = {
        "filter": ["filter", "--out", str(corpus), "--dry-run", "--json", "--set", threshold],
        "query": ["query", str(corpus), SQL, "--json"],
        "audit": ["audit", str(corpus), "--json"],
        "diff": ["diff", str(corpus), str(other), "--json"],
        "explain": ["explain", str(corpus), key, "--json"],
    }
    figures: dict[str, Any] = {"rows": rows, "bytes": size, "load": round(os.getloadavg()[0], 1)}
    for name, words in commands.items():
        figures[name] = run_command(words)
        print(f"{rows} rows, {name}: {figures[name]}", file=sys.stderr, flush=True)
    return figures


def markdown(result: dict[str, Any]) -> str:
    """The result as a page."""
    sizes = sorted(result["sizes"].values(), key=lambda row: row["rows"])
    last, before = sizes[-1], sizes[-2] if len(sizes) > 1 else None
    heads = [f"{row['rows']:,}" for row in sizes]
    lines = [
        "# Metadata at scale",
        "",
        f"`python benchmarks/scale.py`, one run of each size, on {result['machine']}. Whole commands,"
        " start-up included; peak resident memory. Tables without images, a quarter of the pairs stylized,"
        f" shards of {SHARD:,} rows. Goal: {GOAL_BYTES / 1e9:g} GB at 10,000,000 rows.",
        "",
        f"| seconds (of CPU) | {' | '.join(heads)} |",
        f"|---|{'---|' * len(sizes)}",
    ]
    for name, what in WHAT.items():
        seconds = " | ".join(
            f"{row[name]['seconds']:.1f} ({row[name]['cpu_s']:.1f})" for row in sizes
        )
        lines.append(f"| {what} | {seconds} |")
    lines += [
        "",
        f"| peak memory, MB | {' | '.join(heads)} | bytes a pair more |",
        f"|---|{'---|' * len(sizes)}---|",
    ]
    for name, what in WHAT.items():
        peaks = [row[name]["peak_bytes"] for row in sizes]
        growth = (
            ""
            if before is None
            else f"{(peaks[-1] - peaks[-2]) / (last['rows'] - before['rows']):.0f}"
        )
        lines.append(
            f"| {what} | {' | '.join(f'{peak / 1e6:,.0f}' for peak in peaks)} | {growth} |"
        )
    lines += [
        "",
        "On the disk: "
        + ", ".join(f"{row['bytes'] / 1e6:,.0f} MB at {row['rows']:,}" for row in sizes)
        + "; load average "
        + ", ".join(f"{row['load']}" for row in sizes)
        + ".",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", nargs="+", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--keep", type=Path, help="a folder for the corpora, made once")
    args = parser.parse_args()
    path = args.out / "scale.json"
    result = json.loads(path.read_text("utf-8")) if path.is_file() else {"sizes": {}}
    result["machine"] = (
        f"{len(os.sched_getaffinity(0))} shared CPU cores ({platform.machine()}), Python"
        f" {platform.python_version()}"
    )
    args.out.mkdir(parents=True, exist_ok=True)
    for rows in args.rows:
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as temporary:
            folder = (args.keep or Path(temporary)) / str(rows)
            result["sizes"][str(rows)] = measure(rows, folder / "corpus")
        path.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
        (args.out / "scale.md").write_text(markdown(result), "utf-8")
    print(markdown(result))


if __name__ == "__main__":
    main()
