"""Memory of the stages that look at a whole corpus at once, for few and for many pairs.

    python benchmarks/memory.py [--rows 10000 1000000] [--out benchmarks/results]

Makes the tables of corpora of those sizes (no images), runs each stage in a process of its own, and reports
the highest resident memory and the seconds of each, and the bytes by which a pair more makes it grow.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.synthetic_tables import LIST, SHARD, make, make_splits, synthetic_recipe

STAGES = ("urls", "plan", "filter", "mix", "pairs", "report", "audit")
WHAT = {
    "urls": "every row of a URL list as a planned pair, repeated rows found",
    "plan": "every synthesis job planned from the raw tables",
    "filter": "all rules (exact and near duplicates, two thresholds, best of n), verdicts written",
    "mix": "splits, identities and ratio placed; rows and keys of all pairs indexed",
    "pairs": "best and worst candidate of each group",
    "report": "what the page is drawn from",
    "audit": "tables read and every key, split, ratio and lineage compared",
}


# --- the stages -------------------------------------------------------------------------------


def run_urls(corpus: Path) -> int:
    from stylear.curate.fetch.urls import plan_rows
    from stylear.curate.recipe import UrlsSource

    return sum(1 for _ in plan_rows(UrlsSource(type="urls", path=corpus / LIST)))


def run_plan(corpus: Path) -> int:
    from stylear.curate.corpus.parquet import read_tables
    from stylear.curate.references import load_references
    from stylear.curate.synthesize.plan import plan_jobs
    from stylear.curate.synthesize.prompts.sources import Content

    settings = synthetic_recipe()
    kept = (
        Content(row["key"], row["caption"], row["content"])
        for _, table in read_tables(corpus / "raw", ["key", "caption", "content", "kept"])
        for row in table.to_pylist()
        if row["kept"]
    )
    return len(plan_jobs(kept, load_references(settings)[:8], settings))


def run_filter(corpus: Path) -> int:
    from stylear.curate.filter import filter_corpus

    return int(filter_corpus(corpus, synthetic_recipe()).num_rows)


def run_mix(corpus: Path) -> int:
    from stylear.curate.corpus.candidates import read_pairs
    from stylear.curate.corpus.layout import MIX
    from stylear.curate.corpus.pair_reader import PairReader
    from stylear.curate.corpus.parquet import write_table
    from stylear.curate.mix.mixing import assign_splits, shuffle_split
    from stylear.curate.mix.verdicts import apply_verdicts

    table = assign_splits(apply_verdicts(corpus, read_pairs(corpus)), synthetic_recipe())
    pictures = PairReader(corpus)
    rows = sum(len(shuffle_split(table, split, 0)) for split in ("train", "val"))  # type: ignore[arg-type]
    write_table(corpus / MIX, table)
    assert pictures is not None
    return rows


def run_pairs(corpus: Path) -> int:
    from stylear.curate.corpus.candidates import read_pairs
    from stylear.curate.mix.verdicts import apply_verdicts
    from stylear.curate.pairs.preferences import choose_best_and_worst, find_train_pairs

    pairs = apply_verdicts(corpus, read_pairs(corpus))
    return len(choose_best_and_worst(pairs, find_train_pairs(corpus, pairs), 0.02)[0])


def run_report(corpus: Path) -> int:
    from stylear.curate.report.facts import read_facts
    from stylear.curate.report.links import PairLinks
    from stylear.curate.report.overview import render_totals
    from stylear.curate.report.scores import scores_section

    facts = read_facts(corpus)
    section = scores_section(facts)
    assert section is not None
    return len(render_totals(facts, PairLinks()) + section.body)


def run_audit(corpus: Path) -> int:
    from stylear.curate.audit.pairs import Placement, check_pairs
    from stylear.curate.audit.preferences import check_preferences
    from stylear.curate.audit.splits import check_ratio, check_splits
    from stylear.curate.audit.tables import PairIndex

    pairs, settings = PairIndex(corpus), synthetic_recipe()
    placement = Placement(pairs)
    differences = [
        *check_pairs(corpus, pairs, placement),
        *check_splits(corpus, settings, pairs, placement),
        *check_ratio(corpus, settings, placement, {}),
        *check_preferences(corpus, pairs, placement),
    ]
    assert not differences, differences[:3]
    return len(pairs)


RUN: dict[str, Callable[[Path], Any]] = {
    "urls": run_urls,
    "plan": run_plan,
    "filter": run_filter,
    "mix": run_mix,
    "pairs": run_pairs,
    "report": run_report,
    "audit": run_audit,
    "splits": make_splits,
}


def child(stage: str, corpus: Path) -> None:
    """Run a stage and print what it took; the memory is that of this process alone."""
    start = time.perf_counter()
    count = RUN[stage](corpus)
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()
    assert status[1] == "kB"
    result = {"seconds": round(seconds, 2), "peak_bytes": int(status[0]) * 1024, "found": count}
    print(json.dumps(result))


# --- the comparison ---------------------------------------------------------------------------


def measure(rows: int, corpus: Path) -> dict[str, Any]:
    """Seconds and peak memory of each stage over a corpus of so many rows."""
    script = [sys.executable, __file__]
    subprocess.run([*script, "--make", str(rows), str(corpus)], check=True)
    results = {}
    for stage in ("urls", "plan", "filter", "mix", "splits", "pairs", "report", "audit"):
        done = subprocess.run(
            [*script, "--child", stage, str(corpus)], check=True, stdout=subprocess.PIPE, text=True
        )
        results[stage] = json.loads(done.stdout)
        print(f"{rows} rows, {stage}: {results[stage]}", file=sys.stderr, flush=True)
    return {stage: results[stage] for stage in STAGES}


def compare(few: int, many: int) -> dict[str, Any]:
    """Both sizes, and the growth a row."""
    with tempfile.TemporaryDirectory() as folder:
        small = measure(few, Path(folder) / "few")
        shutil.rmtree(Path(folder) / "few")
        large = measure(many, Path(folder) / "many")
    stages = {
        stage: {
            "few": small[stage],
            "many": large[stage],
            "bytes_a_row": round(
                (large[stage]["peak_bytes"] - small[stage]["peak_bytes"]) / (many - few)
            ),
        }
        for stage in STAGES
    }
    machine = {"system": platform.platform(), "python": platform.python_version()}
    return {"rows": [few, many], "stages": stages, "machine": machine}


def markdown(result: dict[str, Any]) -> str:
    """The result as a page."""
    few, many = result["rows"]
    lines = [
        "# Memory and the number of pairs",
        "",
        f"`python benchmarks/memory.py --rows {few} {many}`, on {result['machine']['system']},"
        f" Python {result['machine']['python']}, 2 shared CPU cores. Tables without images,"
        f" a quarter of the pairs stylized, shards of {SHARD}. Peak is the highest resident memory of a"
        " process that ran this stage alone, its imports included.",
        "",
        f"| stage | what | peak at {few:,} | peak at {many:,} | bytes a pair more | seconds at {many:,} |",
        "|---|---|---|---|---|---|",
    ]
    for stage, row in result["stages"].items():
        peaks = [f"{row[size]['peak_bytes'] / 1e6:.0f} MB" for size in ("few", "many")]
        lines.append(
            f"| {stage} | {WHAT[stage]} | {peaks[0]} | {peaks[1]} | {row['bytes_a_row']} |"
            f" {row['many']['seconds']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", nargs=2, type=int, default=[10_000, 1_000_000])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--child", nargs=2)
    parser.add_argument("--make", nargs=2)
    args = parser.parse_args()
    if args.child:
        child(args.child[0], Path(args.child[1]))
        return
    if args.make:
        make(Path(args.make[1]), int(args.make[0]))
        return
    result = compare(*args.rows)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "memory.json").write_text(json.dumps(result, indent=1) + "\n")
    (args.out / "memory.md").write_text(markdown(result))
    print(markdown(result))


if __name__ == "__main__":
    main()
