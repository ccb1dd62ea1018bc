"""The tables with the history of a pair, searched for each question: suited to a few pairs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from stylear.curate.corpus.answers import Votes, count_votes, read_answers
from stylear.curate.corpus.layout import COLUMNS, FETCHED, MIX, VERDICTS, score_path
from stylear.curate.corpus.ledger import ALL, Ledger
from stylear.curate.corpus.parquet import read_table
from stylear.curate.explain.find import (
    RowLocation,
    committed_tables,
    read_row_at,
    select_rows,
)
from stylear.curate.score import read_metadata

EMBEDDINGS = ".embeddings"
SPLITS = ("train", "val")
MIXED = ["key", "kept", "split", "stage", "reason"]
CHILD = ["key", "parent", "reference", "kept", "stage", "reason"]
GROUP = ["key", "group", "rank", "kept"]
PREFERENCE = ["key", "chosen", "rejected", "margin"]
Row = dict[str, Any]


class HistoryTables:
    """Finds the rows of one pair in the tables of a corpus."""

    def __init__(self, corpus: Path) -> None:
        self.corpus, self.ledger = corpus, Ledger(corpus)
        self.finished = {
            stage
            for stage in ("fetch", "filter", "mix", "pairs")
            if self.ledger.entry(stage, ALL) is not None
        }

    def read_row(self, location: RowLocation) -> Row:
        """All columns of the pair's row."""
        return read_row_at(self.corpus, location)

    def read_scores(self, location: RowLocation) -> Iterator[tuple[str, Row, Mapping[str, Any]]]:
        """Each scorer's name, its row of the pair, and the metadata of its table."""
        for name, path in self.score_files(location):
            table = read_table(path)
            yield name, table.slice(location.row, 1).to_pylist()[0], read_metadata(table)

    def score_files(self, location: RowLocation) -> Iterator[tuple[str, Path]]:
        """The name and the committed table of each scorer that scored the pair's shard."""
        for stage in self.ledger.stages():
            family, _, name = stage.partition(".")
            unit = f"{location.kind}-{location.unit}"
            if (
                family == "score"
                and not name.endswith(EMBEDDINGS)
                and self.ledger.entry(stage, unit) is not None
            ):
                yield name, score_path(self.corpus, name, location.kind, int(location.unit))

    def fetched_at(self, unit: str, key: str) -> str | None:
        """When a raw pair was downloaded (ISO 8601); None if it was not."""
        path = self.corpus / FETCHED / f"{unit}.parquet"
        rows = select_rows(path, "key", [key], ["key", "fetched_at"]) if path.is_file() else []
        return rows[0]["fetched_at"].isoformat() if rows else None

    def verdict(self, key: str) -> Row | None:
        """The verdict of the filter with the scores that decided; None if it has not seen the pair."""
        if "filter" not in self.finished:
            return None
        return next(iter(select_rows(self.corpus / VERDICTS, "key", [key])), None)

    def candidates(self, group: str) -> list[Row]:
        """Key, rank and verdict of all candidates of a group."""
        return select_rows(self.corpus / VERDICTS, "group", [group], GROUP)

    def lowest_kept(self, score: str, style: str | None) -> float | None:
        """The lowest score among the kept stylized pairs, of all styles or of one."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if not (self.corpus / COLUMNS).is_file():
            return None
        verdicts = read_table(self.corpus / VERDICTS, ["key", "kept", f"score.{score}"])
        columns = read_table(self.corpus / COLUMNS, ["key", "style"])
        if not verdicts["key"].equals(columns["key"]):
            return None
        styles = columns["style"].cast(pa.string())
        judged = pc.and_(verdicts["kept"], pc.is_valid(styles))
        if style is not None:
            judged = pc.and_(judged, pc.fill_null(pc.equal(styles, style), False))
        lowest: float | None = pc.min(verdicts[f"score.{score}"].filter(judged)).as_py()
        return lowest

    def votes(self, key: str) -> Votes:
        """The reviewers' votes on a pair."""
        return count_votes(read_answers(self.corpus)).get(key, Votes())

    def mixed(self, key: str) -> Row | None:
        """What the mix did with a pair; None if it has not seen the pair."""
        if "mix" not in self.finished:
            return None
        return next(iter(select_rows(self.corpus / MIX, "key", [key], MIXED)), None)

    def training_shard(self, split: str, key: str) -> str | None:
        """The training shard that contains a pair of a split."""
        for path in sorted((self.corpus / split).glob("*.parquet")):
            if select_rows(path, "key", [key], ["key"]):
                return f"{split}/{path.stem}.tar"
        return None

    def children(self, key: str) -> list[Row]:
        """The stylized pairs of a raw one: key, reference, outcome, shard, split."""
        return find_children(self, [key]).get(key, [])

    def preferences(self, key: str) -> list[Row]:
        """The preference pairs in which a pair is chosen or rejected."""
        return find_preferences(self, [key]).get(key, [])


def find_children(tables: HistoryTables, parents: Collection[str]) -> dict[str, list[Row]]:
    """The stylized pairs of some raw pairs, by parent."""
    import pyarrow as pa
    import pyarrow.compute as pc

    value_set = pa.array(list(parents), pa.string())
    by_parent: defaultdict[str, list[Row]] = defaultdict(list)
    by_key: dict[str, Row] = {}
    for kind, unit, table in committed_tables(tables.corpus, CHILD):
        if kind == "stylized":
            for row in table.filter(pc.is_in(table["parent"], value_set=value_set)).to_pylist():
                child = row | {"shard": f"{kind}/{unit}", "split": None}
                by_key[row["key"]] = child
                by_parent[child.pop("parent")].append(child)
    for stage, name, columns in (
        ("filter", VERDICTS, ["key", "kept", "stage", "reason"]),
        ("mix", MIX, MIXED),
    ):
        if stage in tables.finished:
            for row in select_rows(tables.corpus / name, "key", list(by_key), columns):
                by_key[row["key"]].update(row)
    return by_parent


def find_preferences(tables: HistoryTables, keys: Collection[str]) -> dict[str, list[Row]]:
    """The preference pairs of some pairs, by key."""
    import pyarrow as pa
    import pyarrow.compute as pc

    value_set = pa.array(list(keys), pa.string())
    by_key: defaultdict[str, list[Row]] = defaultdict(list)
    folder = tables.corpus / "preferences"
    for path in sorted(folder.glob("*.parquet")) if "pairs" in tables.finished else ():
        table = read_table(path, PREFERENCE)
        for role, opposite in (("chosen", "rejected"), ("rejected", "chosen")):
            for row in table.filter(pc.is_in(table[role], value_set=value_set)).to_pylist():
                by_key[row[role]].append(
                    {
                        "key": row["key"],
                        "role": role,
                        "other": row[opposite],
                        "margin": row["margin"],
                        "shard": f"preferences/{path.stem}.tar",
                    }
                )
    return by_key
