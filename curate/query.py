"""SQL queries over the tables of a corpus, by DuckDB in memory, without access to any other file.

Tables: pairs (raw and stylized), verdicts, columns (what the filter compares, with every score), mix,
train, val, preferences.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylear.curate.corpus.layout import COLUMNS, KINDS, MIX, VERDICTS
from stylear.curate.corpus.object_store import in_store
from stylear.curate.corpus.parquet import read_table
from stylear.errors import UsageError

if TYPE_CHECKING:
    import duckdb

FOLDERS = {"pairs": KINDS, **{name: (name,) for name in ("train", "val", "preferences")}}
FILES = {"verdicts": VERDICTS, "columns": COLUMNS, "mix": MIX}


def query(corpus: Path, sql: str) -> list[dict[str, Any]]:
    """The rows of one SELECT. Raises UsageError for other statements and for what DuckDB refuses."""
    import duckdb

    tables = {name: paths for name, paths in corpus_tables(corpus) if paths}
    try:
        statements = duckdb.extract_statements(sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise UsageError(
                f"query: expected one SELECT, found {len(statements)} statements"
                if len(statements) != 1
                else f"query: expected a SELECT, found {statements[0].type.name}",
                hint="queries only read; change the recipe and run it again to change a corpus",
            )
        with open_database(tables, sql) as connection:
            result = connection.execute(sql)
            names = [column[0] for column in result.description]
            return [
                dict(zip(names, map(to_json_value, row), strict=True)) for row in result.fetchall()
            ]
    except duckdb.Error as error:
        raise UsageError(
            f"query: {str(error).splitlines()[0]}",
            hint=f"tables of this corpus: {', '.join(tables) or 'none'};"
            " `select * from TABLE limit 1` shows the columns of one",
        ) from error


def corpus_tables(corpus: Path) -> Iterator[tuple[str, list[Path]]]:
    """The name and the files of each table."""
    for name, folders in FOLDERS.items():
        yield (
            name,
            [path for folder in folders for path in sorted((corpus / folder).glob("*.parquet"))],
        )
    for name, file in FILES.items():
        yield name, [corpus / file] if (corpus / file).is_file() else []


def open_database(tables: Mapping[str, list[Path]], sql: str) -> duckdb.DuckDBPyConnection:
    """A database in memory with the tables that `sql` names; it cannot read or write files itself."""
    import duckdb

    settings: dict[str, Any] = {"temp_directory": "", "python_enable_replacements": "false"}
    connection = duckdb.connect(":memory:", config=settings)
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    for name, paths in tables.items():
        if re.search(rf"\b{name}\b", sql, re.IGNORECASE):
            connection.register(name, open_tables(paths))
    return connection


def open_tables(paths: list[Path]) -> Any:
    """Parquet files as one table; on a disk, only the columns and rows that a query needs are read."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    if in_store(paths[0]):
        return pa.concat_tables(read_table(path) for path in paths)
    return ds.dataset([str(path) for path in paths], format="parquet")


def to_json_value(value: Any) -> Any:
    """A value that JSON can hold: no NaN, bytes as hex, dates and decimals as text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (list, tuple)):
        return [to_json_value(item) for item in value]
    if isinstance(value, dict):
        return {str(name): to_json_value(item) for name, item in value.items()}
    return str(value)
