"""Finished corpora of any number of pairs as tables without images, for the benchmark of scale.

    python benchmarks/support/scale_corpus.py make CORPUS ROWS
    python benchmarks/support/scale_corpus.py change CORPUS OTHER

A quarter of the pairs are stylized, three scorers have scored all, and every lineage is true, so that an
audit passes. `change` makes the same corpus again, by hard links, with other verdicts for one pair in a
hundred.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthetic_tables import synthetic_recipe, write_preferences

if TYPE_CHECKING:
    import pyarrow as pa

SHARD = 10_000
STYLES = 80
CANDIDATES = 4
Table = dict[str, Any]


def make_corpus(corpus: Path, rows: int) -> None:
    """A finished corpus of so many pairs without images."""
    import numpy as np

    from stylear.curate.corpus.layout import RECIPE
    from stylear.curate.filter import step
    from stylear.curate.recipe import dump_recipe
    from stylear.curate.stage import Build

    recipe = synthetic_recipe()
    corpus.mkdir(parents=True)
    (corpus / RECIPE).write_text(dump_recipe(recipe))
    draw = np.random.default_rng(0)
    stylized = rows // 4 // CANDIDATES * CANDIDATES
    parents: list[Any] = []
    write_kind(corpus, "raw", raw_tables(rows - stylized, draw, parents), draw)
    write_kind(corpus, "stylized", stylized_tables(stylized, draw, parents, recipe), draw)
    step.run(Build(corpus, recipe))
    write_mix(corpus, recipe)
    write_end(corpus, recipe)


def hexes(draw: Any, count: int, width: int) -> pa.Array:
    """Random hex texts of `width` bytes."""
    import numpy as np
    import pyarrow as pa

    offsets = np.arange(count + 1, dtype=np.int32) * 2 * width
    text = draw.bytes(count * width).hex().encode()
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(text))


def raw_tables(count: int, draw: Any, parents: list[Any]) -> Iterator[pa.Table]:
    """The raw shards; the first rows of each are kept as (key, caption, content), for children."""
    for start in range(0, count, SHARD):
        size = min(SHARD, count - start)
        key, numbers = hexes(draw, size, 16), range(start, start + size)
        columns = {
            "key": key,
            "caption": [f"a photo of thing number {n} outside" for n in numbers],
            "source": [f"https://example.org/pictures/{n}/of/thing.jpg" for n in numbers],
            "content": hexes(draw, size, 16),
            "source_sha256": hexes(draw, size, 32),
            "details": ["{}"] * size,
        }
        table = fill_table("raw", columns, draw)
        first = table.slice(0, 1000).filter(table["kept"].slice(0, 1000))
        parents += zip(*(first[n].to_pylist() for n in ("key", "caption", "content")), strict=True)
        yield table


def stylized_tables(count: int, draw: Any, parents: list[Any], recipe: Any) -> Iterator[pa.Table]:
    """The stylized shards, whose keys and seeds are those of their jobs."""
    from stylear.curate.corpus.split import assign_split
    from stylear.curate.synthesize import dump_backend_settings
    from stylear.curate.synthesize.job import Job

    settings, seed, share = dump_backend_settings(recipe), recipe.seed, recipe.mix.val_fraction
    by_split: dict[str, list[int]] = {"train": [], "val": []}
    for style in range(STYLES):
        by_split[assign_split(f"style-{style}", seed, share)].append(style)
    parents = [parent for parent in parents if by_split[assign_split(parent[2], seed, share)]]
    for start in range(0, count, SHARD):
        jobs = []
        for number in range(start, min(count, start + SHARD)):
            group = number // CANDIDATES
            key, caption, content = parents[group % len(parents)]
            styles = by_split[assign_split(content, seed, share)]
            style = styles[(group % len(parents) + group // len(parents)) % len(styles)]
            jobs.append(
                Job(
                    backend="statistics",
                    prompt=caption,
                    reference=f"style-{style}",
                    reference_sha256=f"{style:064x}",
                    content=content,
                    parent=key,
                    candidate=number % CANDIDATES,
                    settings=settings,
                )
            )
        columns = {
            "key": [job.key for job in jobs],
            "caption": [job.prompt for job in jobs],
            "source": ["synthesizer:statistics"] * len(jobs),
            "content": [job.content for job in jobs],
            "parent": [job.parent for job in jobs],
            "reference": [job.reference for job in jobs],
            "reference_sha256": [job.reference_sha256 for job in jobs],
            "details": [
                f'{{"prompt":"{job.prompt}","candidate":{job.candidate},"group":"{job.group}",'
                f'"seed":{job.seed}}}'
                for job in jobs
            ],
        }
        yield fill_table("stylized", columns, draw)


def fill_table(kind: str, columns: Table, draw: Any) -> pa.Table:
    """A shard's table with the columns that are the same for all: images, and verdicts of fetch."""
    import numpy as np
    import pyarrow as pa

    from stylear.curate.corpus.parquet import rows_to_table
    from stylear.curate.corpus.records import TYPES

    size = len(columns["key"])
    kept = np.arange(size) % 50 != 0
    failed = pa.array(np.where(kept, None, "timeout" if kind == "raw" else "not-finite"))
    stage = pa.array(np.where(kept, None, "fetch" if kind == "raw" else "synthesize"))
    images = hexes(draw, size, 32)
    shared = {
        "kind": [kind] * size,
        "image_sha256": pa.array(np.where(kept, images.to_numpy(zero_copy_only=False), None)),
        "width": [256] * size,
        "height": [256] * size,
        "ext": ["jpg"] * size,
        "kept": kept,
        "stage": stage,
        "reason": failed,
    }
    empty = dict.fromkeys(TYPES, pa.nulls(size, pa.string()))
    return rows_to_table({name: (empty | shared | columns)[name] for name in TYPES})


def write_kind(corpus: Path, kind: Any, tables: Iterator[pa.Table], draw: Any) -> None:
    """The shards of one kind, their scores and their ledger entries."""
    import numpy as np
    import pyarrow as pa

    from stylear.curate.corpus.layout import score_path
    from stylear.curate.corpus.ledger import ALL, Ledger, StageInputs
    from stylear.curate.corpus.parquet import write_table
    from stylear.curate.fetch.step import fetch_inputs
    from stylear.curate.score.passes import list_scorers
    from stylear.curate.score.table import make_table
    from stylear.curate.stage import STAGE_OF_KIND, count_verdicts
    from stylear.curate.synthesize.step import make_synthesize_settings

    recipe, ledger, stage = synthetic_recipe(), Ledger(corpus), STAGE_OF_KIND[kind]
    settings = {
        "fetch": lambda: fetch_inputs(recipe, ledger).settings,
        "synthesize": lambda: make_synthesize_settings(recipe),
    }[stage]()
    total = np.zeros(2, np.int64)
    dropped: dict[str, int] = {}
    for index, table in enumerate(tables):
        path, size = corpus / kind / f"{index:05d}.parquet", len(table)
        files = {path.relative_to(corpus).as_posix(): write_table(path, table)}
        rows, kept, why = count_verdicts(table)
        inputs = StageInputs(settings, "1")
        ledger.commit(stage, path.stem, inputs, rows_in=rows, kept=kept, dropped=why, files=files)
        total += (rows, kept)
        dropped = {name: dropped.get(name, 0) + count for name, count in why.items()}
        for spec in list_scorers(recipe):
            name = spec.name
            columns = {name: pa.array(draw.random(size).round(5), pa.float32())}
            if name == "texture" and kind == "raw":
                columns = {name: pa.nulls(size, pa.float32())}
            if name == "phash":
                columns = {name: hexes(draw, size, 8), "colour": pa.array(["80" * 12] * size)}
            metadata = {"type": spec.type, "fingerprint": name * 8}
            scored = score_path(corpus, name, kind, index)
            info = write_table(scored, make_table(table["key"].to_pylist(), columns, metadata))
            measured = StageInputs({"score": spec.model_dump(mode="json")}, "1", weights=[name * 8])
            ledger.commit(
                f"score.{name}",
                scored.stem,
                measured,
                rows_in=size,
                kept=size,
                dropped={},
                files={scored.relative_to(corpus).as_posix(): info},
            )
    inputs = StageInputs(settings, "1")
    rows, kept = total.tolist()
    ledger.commit(stage, ALL, inputs, rows_in=rows, kept=kept, dropped=dropped, files={})
    if kind == "stylized":
        note = {"references": {f"style-{n}": f"{n:064x}" for n in range(STYLES)}}
        ledger.commit(
            "synthesize.plan", "00000", inputs, rows_in=0, kept=0, dropped={}, files={}, note=note
        )


def write_mix(corpus: Path, recipe: Any) -> None:
    """mix.parquet as the mix writes it, and the tables of train/ and val/ in the order of the pairs."""
    import numpy as np
    import pyarrow as pa

    from stylear.curate.corpus.candidates import read_pairs
    from stylear.curate.corpus.columns import combine_chunks
    from stylear.curate.corpus.layout import KINDS, MIX, VERDICTS
    from stylear.curate.corpus.parquet import read_table, read_tables, write_table
    from stylear.curate.mix.mixing import assign_splits
    from stylear.curate.mix.verdicts import apply_verdicts

    write_table(corpus / MIX, assign_splits(apply_verdicts(corpus, read_pairs(corpus)), recipe))
    kept = combine_chunks(read_table(corpus / VERDICTS, ["kept"])["kept"]).to_numpy(
        zero_copy_only=False
    )
    mixed = combine_chunks(read_table(corpus / MIX, ["split"])["split"]).fill_null("")
    split = np.full(len(kept), "", object)
    split[kept] = mixed.to_numpy(zero_copy_only=False)
    start = number = 0
    for kind in KINDS:
        for _, table in read_tables(corpus / kind):
            part = split[start : start + len(table)]
            for name in ("train", "val"):
                taken = table.filter(pa.array(part == name))
                write_table(corpus / name / f"{number:05d}.parquet", taken)
            start, number = start + len(table), number + 1


def write_end(corpus: Path, recipe: Any) -> None:
    """Preference pairs, empty indexes, the ledger entries of mix and pairs, and the manifest."""
    from stylear.curate.audit.manifest import write_manifest
    from stylear.curate.corpus.layout import MIX
    from stylear.curate.corpus.ledger import ALL, Ledger, StageInputs
    from stylear.curate.corpus.storage import FileInfo
    from stylear.curate.corpus.wids import WIDS, wids_index
    from stylear.curate.mix.step import make_mix_settings
    from stylear.curate.pairs.preferences import FOLDER
    from stylear.curate.pairs.step import make_pairs_settings
    from stylear.curate.stage import VERSION, read_verdict_counts

    ledger, count = Ledger(corpus), write_preferences(corpus)
    for stage, settings, folders, counts in (
        (
            "mix", make_mix_settings(recipe), ("train", "val"),
            read_verdict_counts(corpus / MIX, "mix"),
        ),
        ("pairs", make_pairs_settings(recipe), (FOLDER,), (count, count, {})),
    ):  # fmt: skip
        for folder in folders:
            (corpus / folder / WIDS).write_text(wids_index(f"scale-{folder}", []))
        paths = [path for folder in folders for path in sorted((corpus / folder).iterdir())]
        paths += [corpus / MIX] if stage == "mix" else []
        rows, kept, dropped = counts
        ledger.commit(
            stage,
            ALL,
            StageInputs(settings, str(VERSION)),
            rows_in=rows,
            kept=kept,
            dropped=dropped,
            files={path.relative_to(corpus).as_posix(): FileInfo.of(path) for path in paths},
        )
    write_manifest(corpus)


def change_verdicts(corpus: Path, other: Path) -> None:
    """The same corpus, by hard links, with a hundredth of the verdicts changed."""
    import numpy as np
    import pyarrow as pa

    from stylear.curate.corpus.layout import VERDICTS
    from stylear.curate.corpus.parquet import read_table, write_table

    shutil.copytree(corpus, other, copy_function=os.link)
    table = read_table(other / VERDICTS)
    drop = np.arange(len(table)) % 100 == 7
    for name, value in (("kept", False), ("stage", "filter"), ("reason", "disliked")):
        column = table[name].to_pandas().to_numpy(copy=True)
        column[drop] = value
        table = table.set_column(
            table.column_names.index(name), name, pa.array(column, table[name].type)
        )
    (other / VERDICTS).unlink()
    write_table(other / VERDICTS, table)


def main() -> None:
    what, corpus, value = sys.argv[1:]
    if what == "make":
        make_corpus(Path(corpus), int(value))
    else:
        change_verdicts(Path(corpus), Path(value))


if __name__ == "__main__":
    main()
