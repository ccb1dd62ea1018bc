"""What all commands share: data on stdout, messages and progress on stderr, one error boundary."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Annotated, Any, Self, TypeVar

import typer

from stylear.errors import SeveralErrors, StorageError, StylearError

T = TypeVar("T")
LINE_S = 30.0  # between two lines of progress where there is no terminal
BYTES_SHOWN = 10**6

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be done without changing anything.")
]
SeedOption = Annotated[
    int,
    typer.Option("--seed", metavar="N", help="Random seed; the same seed gives the same result."),
]


def say(message: str) -> None:
    """Print a message for the user on stderr."""
    print(message, file=sys.stderr, flush=True)


def say_warning(message: str) -> None:
    """Print a warning on stderr; the command continues."""
    say(f"warning: {message}")


def emit_json(value: Any) -> None:
    """Print the result of a command as JSON on stdout."""
    print(json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False))


def emit_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the result of a command as an aligned table on stdout; the first row's keys are the columns."""
    if not rows:
        return
    names = list(rows[0])
    cells = [[format_cell(row.get(name)) for name in names] for row in rows]
    widths = [max(len(name), *(len(row[i]) for row in cells)) for i, name in enumerate(names)]
    for line in [names, *cells]:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )


def emit_tables(tables: Iterable[Sequence[Mapping[str, Any]]]) -> None:
    """Print several tables with a blank line between them; empty ones are left out."""
    for number, rows in enumerate(rows for rows in tables if rows):
        if number:
            print()
        emit_table(rows)


def format_cell(value: Any) -> str:
    """A value as a table shows it: `-` for none, four digits of a float."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def track(
    items: Iterable[T], description: str, *, total: int | None = None, unit: str = "it"
) -> Iterator[T]:
    """Yield `items` and show progress with rate and time left on stderr, as `Bar` does."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Bar(description, total=total, unit=unit) as bar:
        for item in items:
            yield item
            bar.advance()


class Bar:
    """A progress bar to advance by hand: `with Bar("score", total=9) as bar: bar.advance(3)`.

    On a terminal this is a live bar; elsewhere a line every LINE_S seconds and one at the end. Nothing is
    shown when there is nothing to do.
    """

    def __init__(self, description: str, *, total: int | None = None, unit: str = "it") -> None:
        self.description, self.total, self.unit = description, total, unit
        self.done = self.skipped = 0
        self.note = ""
        self._live: Any = None

    def __enter__(self) -> Self:
        self._start = self._last = time.monotonic()
        if self.total == 0:
            return self
        if sys.stderr.isatty() and "NO_COLOR" not in os.environ:
            from tqdm import tqdm

            self._live = tqdm(
                total=self.total, desc=self.description, unit=" " + self.unit, file=sys.stderr
            )
        return self

    def advance(self, count: int = 1, note: str = "") -> None:
        """`count` more units are done; `note` is shown after the bar."""
        self.done += count
        self.note = note or self.note
        if self._live is not None:
            self._live.set_postfix_str(self.note, refresh=False)
            self._live.update(count)
        elif time.monotonic() - self._last >= LINE_S and self.total != 0:
            self._last = time.monotonic()
            say(self._line())

    def skip(self, count: int) -> None:
        """`count` more units were done by an earlier run, and say nothing about the rate of this one."""
        self.done += count
        self.skipped += count
        if self._live is not None:
            for counter in ("n", "initial", "last_print_n"):
                setattr(self._live, counter, getattr(self._live, counter) + count)
            self._live.refresh()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._live is not None:
            self._live.close()
        elif kind is None and self.total != 0:
            say(self._line())

    def _line(self) -> str:
        elapsed = time.monotonic() - self._start
        rate = (self.done - self.skipped) / elapsed if elapsed > 0 else 0.0
        of = f"/{self.total}" if self.total is not None else ""
        left = ""
        if self.total is not None and self.done < self.total and rate > 0:
            left = f", {(self.total - self.done) / rate:.0f} s left"
        note = f"  {self.note}" if self.note else ""
        return f"{self.description}: {self.done}{of} {self.unit}, {rate:.3g}/s, {elapsed:.1f} s{left}{note}"


class ByteBar(Bar):
    """A progress bar over bytes, shown in MB: `bar.advance_bytes(file_size)`."""

    def __init__(self, description: str, total_bytes: int) -> None:
        super().__init__(description, total=-(-total_bytes // BYTES_SHOWN), unit="MB")
        self._bytes, self._total_bytes = 0, total_bytes

    def advance_bytes(self, count: int) -> None:
        """`count` more bytes are done."""
        self._bytes += count
        rounded_up = self._bytes >= self._total_bytes
        done = -(-self._bytes // BYTES_SHOWN) if rounded_up else self._bytes // BYTES_SHOWN
        self.advance(done - self.done)

    def finish_bytes(self) -> None:
        """All bytes are done, also those that were skipped."""
        self.advance_bytes(max(0, self._total_bytes - self._bytes))


def run_app(app: Callable[[], Any]) -> None:
    """Run a typer app; turn expected failures into one line and an exit code.

    A StylearError prints `error:` and `hint:` lines; a full disk or an unwritable path is a
    StorageError; Ctrl-C exits with 130. Everything else is a bug and shows its traceback.
    """
    try:
        app()
    except StylearError as error:
        fail(error)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        fail(
            StorageError(
                f"{error.strerror}: {error.filename or 'output'}", hint=suggest_storage_fix(error)
            )
        )
    except KeyboardInterrupt:
        say("interrupted; run the same command again to continue")
        sys.exit(130)


def suggest_storage_fix(error: OSError) -> str:
    """What to do about an OSError."""
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space and run the same command again; finished work is kept"
    return "check that the path exists and can be read and written"


def fail(error: StylearError) -> None:
    """Print an expected failure, or each of several, and exit with its code."""
    for each in error.errors if isinstance(error, SeveralErrors) else (error,):
        say(f"error: {each.message}")
        if each.hint:
            say(f"hint: {each.hint}")
    sys.exit(error.exit_code)
