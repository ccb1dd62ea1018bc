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

SHARD = 1000
LIST = "list.parquet"
STYLIZED = 0.25  # of all pairs; 4 candidates a group
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


def recipe() -> Any:
    """The recipe of the synthetic corpora."""
    from stylear.curate.recipe import Recipe

    return Recipe.model_validate(
        {
            "name": "memory",
            "raw": [{"type": "mini"}],
            "references": [{"type": "mini"}],
            "synthesize": {"backend": "statistics", "candidates": 4},
            "score": [
                {"name": "text", "type": "clip-text"},
                {"name": "texture", "type": "texture"},
            ],
            "filter": {
                "thresholds": [
                    {"score": "text", "min": 0.05},
                    {"score": "texture", "percentile": 10},
                ],
                "best_of": 1,
                "duplicates": {"exact": True, "phash_distance": 4},
            },
            "mix": {"val_fraction": 0.1, "raw_per_stylized": 3.0},
        }
    )


# --- the tables -------------------------------------------------------------------------------


def make(corpus: Path, rows: int) -> None:
    """Tables and scores of a corpus of so many pairs, as the stages write them."""
    import numpy as np

    from stylear.curate.corpus.layout import RECIPE
    from stylear.curate.recipe import dump_recipe

    corpus.mkdir(parents=True)
    (corpus / RECIPE).write_text(dump_recipe(recipe()))
    draw = np.random.default_rng(0)
    stylized = int(rows * STYLIZED) // 4 * 4
    parents = make_kind(corpus, "raw", rows - stylized, draw, [])
    make_kind(corpus, "stylized", stylized, draw, parents)
    make_list(corpus / LIST, rows)


def make_list(path: Path, rows: int) -> None:
    """A URL list of so many rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "url": [f"https://example.org/pictures/{n}.jpg" for n in range(rows)],
        "caption": [f"a photo of thing number {n} outside" for n in range(rows)],
    }
    pq.write_table(pa.table(columns), path)


def make_kind(corpus: Path, kind: str, count: int, draw: Any, parents: list[Any]) -> list[Any]:
    """The shards of one kind; the first rows of each as (key, caption, content), for children."""
    import pyarrow as pa

    from stylear.curate.corpus.layout import score_path
    from stylear.curate.corpus.parquet import rows_to_table, write_table
    from stylear.curate.corpus.records import TYPES, canonical_json

    seen: list[Any] = []
    shown: list[str] = []  # images of the shard before, some of which come again
    for index, start in enumerate(range(0, count, SHARD)):
        size = min(SHARD, count - start)
        keys, images = hexes(draw, size, 16), hexes(draw, size, 32)
        for place in draw.integers(0, size, len(shown) // 50):
            images[place] = shown[place]
        shown = images
        rows = []
        for n in range(size):
            parent = parents[(start + n) // 4 % len(parents)] if parents else None
            row = dict.fromkeys(TYPES)
            row |= {
                "key": keys[n],
                "caption": parent[1] if parent else f"a photo of thing number {start + n} outside",
                "kind": kind,
                "source": f"https://example.org/pictures/{start + n}/of/{keys[n]}.jpg",
                "content": parent[2] if parent else hexes(draw, 1, 16)[0],
                "source_sha256": None if parent else hexes(draw, 1, 32)[0],
                "parent": parent[0] if parent else None,
                "reference": f"style-{(start + n) // 4 % 80}" if parent else None,
                "reference_sha256": "0" * 64 if parent else None,
                "details": canonical_json(
                    {"group": f"{(start + n) // 4:032x}", "seed": n} if parent else {}
                ),
                "image_sha256": images[n],
                "width": 256,
                "height": 256,
                "ext": "jpg",
                "kept": n % 50 != 0,
                "stage": "fetch" if n % 50 == 0 else None,
                "reason": "timeout" if n % 50 == 0 else None,
            }
            rows.append(row)
        seen += [(row["key"], row["caption"], row["content"]) for row in rows[1:500]]
        columns = {name: [row[name] for row in rows] for name in TYPES}
        write_table(corpus / kind / f"{index:05d}.parquet", rows_to_table(columns))
        hashes = hexes(draw, size, 8)
        for place in draw.integers(1, size, size // 50):  # near the row before
            hashes[place] = f"{int(hashes[place - 1], 16) ^ 0b101:016x}"
        columns = {
            "text": pa.array(draw.random(size).round(5), pa.float32()),
            "texture": pa.array(draw.random(size).round(5), pa.float32())
            if parents
            else pa.nulls(size, pa.float32()),
            "phash": pa.array(hashes),
        }
        for name, column in columns.items():
            table = pa.table({"key": keys, name: column})
            if name == "phash":
                table = table.append_column("colour", pa.array(["80" * 12] * size))
            write_table(score_path(corpus, name, kind, index), table)  # type: ignore[arg-type]
    return seen


def hexes(draw: Any, count: int, width: int) -> list[str]:
    """Random hex texts of `width` bytes."""
    text = draw.bytes(count * width).hex()
    return [text[2 * width * n : 2 * width * (n + 1)] for n in range(count)]


def make_splits(corpus: Path) -> None:
    """train/ and val/ as the mix places them, tables only, and a preference table."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from stylear.curate.corpus.candidates import read_pairs
    from stylear.curate.corpus.layout import KINDS, MIX
    from stylear.curate.corpus.parquet import read_table, read_tables, write_table
    from stylear.curate.mix.verdicts import apply_verdicts
    from stylear.curate.pairs.preferences import FOLDER, choose_best_and_worst, find_train_pairs

    mixed = read_table(corpus / MIX, ["key", "split"])
    for split in ("train", "val"):
        wanted = mixed.filter(pc.equal(mixed["split"], split))["key"].combine_chunks()
        number = 0
        for kind in KINDS:
            for _, table in read_tables(corpus / kind):
                part = table.filter(pc.is_in(table["key"], wanted))
                write_table(corpus / split / f"{number:05d}.parquet", part)
                number += 1
    pairs = apply_verdicts(corpus, read_pairs(corpus))
    best, worst = choose_best_and_worst(pairs, find_train_pairs(corpus, pairs), 0.02)
    columns = {"key": pairs.group.take(best), "chosen": pairs.key.take(best)}
    columns["rejected"] = pairs.key.take(worst)
    for name, value in (("chosen_score", 0.5), ("rejected_score", 0.25), ("margin", 0.25)):
        columns[name] = pa.array([value] * len(best), pa.float64())
    write_table(corpus / FOLDER / "00000.parquet", pa.table(columns))


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

    asked = recipe()
    kept = (
        Content(row["key"], row["caption"], row["content"])
        for _, table in read_tables(corpus / "raw", ["key", "caption", "content", "kept"])
        for row in table.to_pylist()
        if row["kept"]
    )
    return len(plan_jobs(kept, load_references(asked)[:8], asked))


def run_filter(corpus: Path) -> int:
    from stylear.curate.filter import filter_corpus

    return int(filter_corpus(corpus, recipe()).num_rows)


def run_mix(corpus: Path) -> int:
    from stylear.curate.corpus.candidates import read_pairs
    from stylear.curate.corpus.layout import MIX
    from stylear.curate.corpus.pair_reader import PairReader
    from stylear.curate.corpus.parquet import write_table
    from stylear.curate.mix.mixing import assign_splits, shuffle_split
    from stylear.curate.mix.verdicts import apply_verdicts

    table = assign_splits(apply_verdicts(corpus, read_pairs(corpus)), recipe())
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
    from stylear.curate.report.overview import render_totals
    from stylear.curate.report.scores import scores_section

    facts = read_facts(corpus)
    section = scores_section(facts)
    assert section is not None
    return len(render_totals(facts) + section.body)


def run_audit(corpus: Path) -> int:
    from stylear.curate.audit.pairs import check_pairs
    from stylear.curate.audit.preferences import check_preferences
    from stylear.curate.audit.splits import check_ratio, check_splits
    from stylear.curate.audit.tables import Tables

    tables, asked = Tables(corpus), recipe()
    differences = [
        *check_pairs(tables),
        *check_splits(tables, asked),
        *check_ratio(tables, asked, {}),
        *check_preferences(tables),
    ]
    assert not differences, differences[:3]
    return len(tables.pairs["key"])


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
    found = RUN[stage](corpus)
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()
    assert status[1] == "kB"
    told = {"seconds": round(seconds, 2), "peak_bytes": int(status[0]) * 1024, "found": found}
    print(json.dumps(told))


# --- the comparison ---------------------------------------------------------------------------


def measure(rows: int, corpus: Path) -> dict[str, Any]:
    """Seconds and peak memory of each stage over a corpus of so many rows."""
    script = [sys.executable, __file__]
    subprocess.run([*script, "--make", str(rows), str(corpus)], check=True)
    found = {}
    for stage in ("urls", "plan", "filter", "mix", "splits", "pairs", "report", "audit"):
        done = subprocess.run(
            [*script, "--child", stage, str(corpus)], check=True, stdout=subprocess.PIPE, text=True
        )
        found[stage] = json.loads(done.stdout)
        print(f"{rows} rows, {stage}: {found[stage]}", file=sys.stderr, flush=True)
    return {stage: found[stage] for stage in STAGES}


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
    asked = parser.parse_args()
    if asked.child:
        child(asked.child[0], Path(asked.child[1]))
        return
    if asked.make:
        make(Path(asked.make[1]), int(asked.make[0]))
        return
    result = compare(*asked.rows)
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "memory.json").write_text(json.dumps(result, indent=1) + "\n")
    (asked.out / "memory.md").write_text(markdown(result))
    print(markdown(result))


if __name__ == "__main__":
    main()
