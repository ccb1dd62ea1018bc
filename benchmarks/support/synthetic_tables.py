"""Tables of a synthetic corpus of any size, without images, as the stages write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SHARD = 1000
LIST = "list.parquet"
STYLIZED = 0.25  # of all pairs; 4 candidates a group


def synthetic_recipe() -> Any:
    """The recipe of the synthetic corpora."""
    from stylear.curate.recipe import Recipe

    return Recipe.model_validate(
        {
            "name": "synthetic",
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


def make(corpus: Path, rows: int) -> None:
    """Tables and scores of a corpus of so many pairs, as the stages write them."""
    import numpy as np

    from stylear.curate.corpus.layout import RECIPE
    from stylear.curate.recipe import dump_recipe

    corpus.mkdir(parents=True)
    (corpus / RECIPE).write_text(dump_recipe(synthetic_recipe()))
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
    import pyarrow.compute as pc

    from stylear.curate.corpus.layout import KINDS, MIX
    from stylear.curate.corpus.parquet import read_table, read_tables, write_table

    mixed = read_table(corpus / MIX, ["key", "split"])
    for split in ("train", "val"):
        keys = mixed.filter(pc.equal(mixed["split"], split))["key"].combine_chunks()
        number = 0
        for kind in KINDS:
            for _, table in read_tables(corpus / kind):
                part = table.filter(pc.is_in(table["key"], keys))
                write_table(corpus / split / f"{number:05d}.parquet", part)
                number += 1
    write_preferences(corpus)


def write_preferences(corpus: Path) -> int:
    """A preference table with the best and the worst of each group; how many pairs it has."""
    import pyarrow as pa

    from stylear.curate.corpus.candidates import read_pairs
    from stylear.curate.corpus.parquet import write_table
    from stylear.curate.mix.verdicts import apply_verdicts
    from stylear.curate.pairs.preferences import FOLDER, choose_best_and_worst, find_train_pairs

    pairs = apply_verdicts(corpus, read_pairs(corpus))
    best, worst = choose_best_and_worst(pairs, find_train_pairs(corpus, pairs), 0.02)
    columns = {"key": pairs.group.take(best), "chosen": pairs.key.take(best)}
    columns["rejected"] = pairs.key.take(worst)
    for name, value in (("chosen_score", 0.5), ("rejected_score", 0.25), ("margin", 0.25)):
        columns[name] = pa.array([value] * len(best), pa.float64())
    write_table(corpus / FOLDER / "00000.parquet", pa.table(columns))
    return len(best)
