"""Trying other thresholds on a million pairs: the whole command, and its rules against the same in SQL.

    python benchmarks/filter.py [--rows 1000000] [--rounds 5] [--out benchmarks/results]

Makes the tables, scores and ledger of a corpus of that size (no images), filters it once, and then runs
`stylear curate filter --dry-run --set ...` as a user would: a new process each time, its start-up included.
First without columns.parquet, so that everything is gathered from the shards, then with it. At the end two
processes apply the same rules to the same file, one with NumPy as the command does, one with DuckDB; their
funnels must be equal. They take turns, the fastest round of each is reported, and CPU seconds beside it.
"""

from __future__ import annotations

import argparse
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

from memory import make, recipe

COMMAND = "from stylear.cli import main; main()"
TRIED = {
    "the rules that it was filtered by": [],
    "another minimum": ["filter.thresholds=[{score: text, min: 0.3}]"],
    "a percentile in each style, best of 2": [
        "filter.thresholds=[{score: texture, percentile: 25, within: style}]",
        "filter.best_of=2",
    ],
    "two of three votes": [
        "filter.votes=[{score: text, min: 0.3}, {score: texture, percentile: 20},"
        " {score: text, max: 0.98}]",
        "filter.at_least=2",
    ],
    "quotas": ["filter.per_style=500", "filter.per_content=2"],
    "near duplicates at another distance": ["filter.duplicates.phash_distance=2"],
    "another ranking": ["filter.style_score=text"],
}
SQL = """
with pairs as (
  select "order" o, kind, reason why, content, source, "group" g, exact, near,
    round("score.text"::double, 5) t, round("score.texture"::double, 5) x
  from read_parquet('{path}')
), same as (
  select o from (
    select o, kind, source, first_value(source) over w winner, row_number() over w n,
      row_number() over (partition by exact, source, content order by o) caption
    from pairs where why is null and exact is not null window w as (partition by exact order by o)
  ) where not (n = 1 or (kind = 'raw' and source = winner and caption = 1))
), first as (
  select pairs.* exclude (why), case when why is not null then why
    when same.o is not null then 'duplicate'
    when isnan(t) then 'text-not-a-number' when t < 0.05 then 'text-below-min' end why
  from pairs left join same using (o)
), lowest as (
  select x from (
    select x, row_number() over (order by x) - 1 place, count(*) over () n
    from first where why is null and kind = 'stylized' and x is not null and not isnan(x)
  ) where place = floor(n * 10 / 100)
), second as (
  select * exclude (why), case when why is not null then why when isnan(x) then 'texture-not-a-number'
    when x < (select x from lowest) and kind = 'stylized' then 'texture-below-percentile' end why
  from first
), worse as (
  select o from (
    select o, row_number() over (partition by g order by o) n from second
    where why is null and g is not null
  ) where n > 1
), third as (
  select second.* exclude (why), case when why is null and worse.o is not null then 'not-best'
    else why end why
  from second left join worse using (o)
), like_it as (
  select o from (
    select o, kind, source, first_value(source) over w winner, row_number() over w n,
      row_number() over (partition by near, source, content order by o) caption
    from third where why is null and near is not null window w as (partition by near order by o)
  ) where not (n = 1 or (kind = 'raw' and source = winner and caption = 1))
)
select coalesce(case when why is null and like_it.o is not null then 'near-duplicate' else why end, 'kept')
    verdict, count(*) filter (kind = 'raw') raw, count(*) filter (kind = 'stylized') stylized
from third left join like_it using (o) group by 1 order by 1
"""


def enter(corpus: Path) -> None:
    """Ledger entries for the shards and scores, as the stages commit them."""
    from stylear.curate.corpus.layout import score_path
    from stylear.curate.corpus.ledger import Ledger, StageInputs
    from stylear.curate.corpus.parquet import read_table
    from stylear.curate.corpus.storage import FileInfo

    ledger = Ledger(corpus)
    inputs = StageInputs({}, "1", [f"style-{n} {n:064x}" for n in range(80)])

    def commit(stage: str, unit: str, rows: int, *paths: Path) -> None:
        files = {path.relative_to(corpus).as_posix(): FileInfo.of(path) for path in paths}
        ledger.commit(stage, unit, inputs, rows_in=rows, kept=rows, dropped={}, files=files)

    for kind, stage in (("raw", "fetch"), ("stylized", "synthesize")):
        total = 0
        for path in sorted((corpus / kind).glob("*.parquet")):
            rows = read_table(path, ["key"]).num_rows
            total += rows
            commit(stage, path.stem, rows, path)
            for name in ("text", "texture", "phash"):
                scores = score_path(corpus, name, kind, int(path.stem))  # type: ignore[arg-type]
                commit(f"score.{name}", scores.stem, rows, scores)
        commit(stage, "all", total)


def run_filter(corpus: Path) -> None:
    """The filter stage, as `stylear curate filter` runs it."""
    from stylear.curate.filter import step
    from stylear.curate.stage import Build

    step.run(Build(corpus, recipe()))


def with_numpy(corpus: Path) -> dict[str, Any]:
    """The funnel of the recipe's rules, as the command counts it, and the seconds from its imports on."""
    settings = recipe()
    start, cpu = time.perf_counter(), time.process_time()
    from stylear.curate.filter import apply_rules, count_funnel, load_rows

    funnel = count_funnel(apply_rules(load_rows(corpus, settings), settings.filter))
    return seconds(start, cpu) | {"funnel": funnel}


def with_duckdb(corpus: Path) -> dict[str, Any]:
    """The same by DuckDB from the same file; it does not look whether the file is of the present scores."""
    start, cpu = time.perf_counter(), time.process_time()
    import duckdb

    rows = duckdb.sql(SQL.format(path=corpus / "columns.parquet")).fetchall()
    funnel = [
        {"verdict": word, "raw": raw, "stylized": stylized, "pairs": raw + stylized}
        for word, raw, stylized in rows
    ]
    funnel.sort(key=lambda row: (row["verdict"] != "kept", row["verdict"]))
    return seconds(start, cpu) | {"funnel": funnel}


def seconds(start: float, cpu: float) -> dict[str, float]:
    """Wall and CPU seconds since then."""
    wall, spent = time.perf_counter() - start, time.process_time() - cpu
    return {"wall_s": round(wall, 3), "cpu_s": round(spent, 3)}


RUN = {
    "make": make,
    "enter": enter,
    "filter": run_filter,
    "numpy": with_numpy,
    "duckdb": with_duckdb,
}


def timed(words: Sequence[str]) -> tuple[dict[str, float], str]:
    """Wall and CPU seconds of a process, and what it printed."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *words], check=True, stdout=subprocess.PIPE, text=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": round(wall, 3), "cpu_s": round(cpu, 3)}, done.stdout


def fastest(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """The least of each measure."""
    return {name: min(timings[name] for timings in rounds) for name in rounds[0]}


def dry_run(corpus: Path, changes: Sequence[str]) -> list[str]:
    """The words of a dry run."""
    words = ["-c", COMMAND, "curate", "filter", "--out", str(corpus), "--dry-run", "--json"]
    return [*words, *(word for change in changes for word in ("--set", change))]


def compare(rows: int, rounds: int, folder: Path) -> dict[str, Any]:
    """All measures of a corpus of so many rows."""
    corpus, script = folder / "corpus", [__file__, "--child"]
    if not corpus.exists():
        subprocess.run([sys.executable, *script, "make", str(corpus), str(rows)], check=True)
        subprocess.run([sys.executable, *script, "enter", str(corpus)], check=True)
    (corpus / "columns.parquet").unlink(missing_ok=True)
    gathered, expected = timed(dry_run(corpus, []))
    filtered, _ = timed([*script, "filter", str(corpus)])
    times: dict[str, list[dict[str, float]]] = {}
    for _ in range(rounds):
        for name, changes in TRIED.items():
            took, funnel = timed(dry_run(corpus, changes))
            times.setdefault(name, []).append(took)
            assert changes or funnel == expected, "with and without columns.parquet"
        funnels = {}
        for engine in ("numpy", "duckdb"):
            took = json.loads(timed([*script, engine, str(corpus)])[1])
            funnels[engine] = took.pop("funnel")
            times.setdefault(engine, []).append(took)
        assert funnels["numpy"] == funnels["duckdb"] == json.loads(expected)["funnel"], funnels
        times.setdefault("help", []).append(timed(["-c", COMMAND, "curate", "filter", "--help"])[0])
    best = {name: fastest(runs) for name, runs in times.items()}
    from importlib.metadata import version

    return {
        "rows": rows,
        "rounds": rounds,
        "columns_bytes": (corpus / "columns.parquet").stat().st_size,
        "funnel": json.loads(expected)["funnel"],
        "gathered": gathered,
        "filter": filtered,
        "dry_runs": {name: best[name] for name in TRIED},
        "rules": {engine: best[engine] for engine in ("numpy", "duckdb")},
        "help": best["help"],
        "load": [round(load, 1) for load in os.getloadavg()],
        "versions": {name: version(name) for name in ("duckdb", "numpy", "pyarrow")},
        "machine": {"system": platform.platform(), "python": platform.python_version()},
    }


def markdown(result: dict[str, Any]) -> str:
    """The result as a page."""

    def line(name: str, took: dict[str, float]) -> str:
        return f"| {name} | {took['wall_s']:.2f} | {took['cpu_s']:.2f} |"

    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    return "\n".join(
        [
            f"# Trying other rules on {result['rows']:,} pairs",
            "",
            f"`python benchmarks/filter.py --rows {result['rows']} --rounds {result['rounds']}`, on"
            f" {result['machine']['system']}, Python {result['machine']['python']}, {versions}, 2 shared"
            f" CPU cores, load {result['load'][0]} at the end. Seconds of whole processes, start-up"
            " included: the fastest round of each. The columns file has"
            f" {result['columns_bytes'] / 1e6:.0f} MB.",
            "",
            "| `stylear curate filter --dry-run` | wall s | CPU s |",
            "|---|---|---|",
            *(line(name, took) for name, took in result["dry_runs"].items()),
            line("without columns.parquet: gathered from the shards (one run)", result["gathered"]),
            line("for comparison: `stylear curate filter --help`", result["help"]),
            line("for comparison: the filter stage itself (one run)", result["filter"]),
            "",
            "The rules alone (two thresholds, best of n, exact and near duplicates) over the same file, with"
            " equal funnels; import of the engine and reading included, recipe and start of Python not:",
            "",
            "| rules by | wall s | CPU s |",
            "|---|---|---|",
            line(
                "NumPy, as in the command; 4,000 ledger entries checked",
                result["rules"]["numpy"],
            ),
            line("DuckDB, one query and nothing else", result["rules"]["duckdb"]),
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument(
        "--keep", type=Path, help="a folder for the corpus, so that it is made once"
    )
    parser.add_argument("--child", nargs="+")
    args = parser.parse_args()
    if args.child:
        stage, corpus, *more = args.child
        printed = RUN[stage](Path(corpus), *map(int, more))  # type: ignore[operator]
        print(json.dumps(printed))
        return
    with tempfile.TemporaryDirectory() as folder:
        result = compare(args.rows, args.rounds, args.keep or Path(folder))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "filter.json").write_text(json.dumps(result, indent=1) + "\n")
    (args.out / "filter.md").write_text(markdown(result))
    print(markdown(result))


if __name__ == "__main__":
    main()
