"""The history of each shown pair, as `stylear curate explain` has it, in chunks loaded on a click."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from stylear.curate.explain.find import RowLocation
from stylear.curate.explain.history import PairHistoryReader
from stylear.curate.explain.loaded import LoadedTables
from stylear.curate.report.explorer.chunks import write_json_chunk

if TYPE_CHECKING:
    from stylear.curate.report.explorer.rows import ExplorerRows

HISTORIES = 128  # of a chunk (our choice): some 20 kB


def write_histories(corpus: Path, rows: ExplorerRows, folder: Path) -> list[str]:
    """Write the histories in the order of the rows; returns the names of the chunks."""
    reader = PairHistoryReader(LoadedTables(corpus, rows.keys))
    histories = (
        reader.read_history(RowLocation(shard.kind, shard.unit, row))
        for shard in rows.shards
        for row in shard.rows.tolist()
    )
    names: list[str] = []
    while part := list(islice(histories, HISTORIES)):
        names.append(f"histories-{len(names)}")
        write_json_chunk(folder, names[-1], part)
    return names
