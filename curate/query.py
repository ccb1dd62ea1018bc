"""SQL queries over the tables of a corpus, by DuckDB in memory, without access to any other file.

Tables: pairs (raw and stylized), verdicts, columns (what the filter compares, with every score), mix,
train, val, preferences.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylear.curate.corpus.layout import COLUMNS, KINDS, MIX, VERDICTS
from stylear.curate.corpus.object_store import in_store
from stylear.curate.corpus.parquet import read_table
from stylear.errors import UsageError

if TYPE_CHECKING:
    import duckdb

MEMORY = "1GB"  # of DuckDB; what needs more is written to temporary files (our choice)
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
        with (
            tempfile.TemporaryDirectory(prefix="stylear-query-") as temporary,
            open_database(tables, sql, Path(temporary)) as connection,
        ):
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


def open_database(
    tables: Mapping[str, list[Path]], sql: str, temporary: Path
) -> duckdb.DuckDBPyConnection:
    """A database in memory with the tables that `sql` names; it can read no other file.

    On a disk, only the columns and rows that a query needs are read. What does not fit in MEMORY is written
    to the folder `temporary`.
    """
    import duckdb

    connection = duckdb.connect(":memory:", config={"python_enable_replacements": "false"})
    connection.execute(f"SET memory_limit = '{MEMORY}'")
    connection.execute(f"SET temp_directory = {quote(temporary)}")
    named = {
        name: paths
        for name, paths in tables.items()
        if re.search(rf"\b{name}\b", sql, re.IGNORECASE)
    }
    readable = {name: paths for name, paths in named.items() if is_readable(paths[0])}
    connection.execute(f"SET allowed_paths = {list_paths(chain(*readable.values()))}")
    for name, paths in readable.items():
        files = list_paths(paths)
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet({files})")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    for name in named.keys() - readable.keys():
        connection.register(name, read_with_arrow(named[name]))
    return connection


def is_readable(path: Path) -> bool:
    """Whether DuckDB can open a file by its path: on a disk, and not taken for a pattern."""
    return not in_store(path) and not any(sign in str(path.resolve()) for sign in "*?[")


def list_paths(paths: Iterable[Path]) -> str:
    """A list of paths in SQL."""
    return f"[{', '.join(quote(path.resolve()) for path in paths)}]"


def quote(path: Path) -> str:
    """A path as a string in SQL."""
    return "'" + str(path).replace("'", "''") + "'"


def read_with_arrow(paths: list[Path]) -> Any:
    """Parquet files as one table that Arrow reads; of a store, in memory."""
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
