"""Runs a recipe in forked children that die, or find the disk full, at the n-th thing they do to the corpus.

    python chaos_child.py RECIPE, then lines of JSON {"corpus", "at", "how"} on stdin, an answer for each

Forking a process that has imported everything makes a round cost what the work costs. The parent never
computes, so a child inherits no threads.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import torch  # noqa: F401 (so that children need not)

from stylear.curate import filter, score  # noqa: F401
from stylear.curate import run as runner
from stylear.curate.audit import auditor  # noqa: F401
from stylear.curate.corpus import storage
from stylear.curate.fetch import step as fetch_step  # noqa: F401
from stylear.curate.filter import step as filter_step  # noqa: F401
from stylear.curate.mix import mixing  # noqa: F401
from stylear.curate.pairs import preferences  # noqa: F401
from stylear.curate.recipe import Recipe, load_recipe
from stylear.curate.synthesize import step as synthesize_step  # noqa: F401
from stylear.encoders import texture  # noqa: F401
from stylear.errors import StorageError

FREEING = ("os.remove", "os.rmdir")  # what a full disk does not refuse
NAMES = ("os.rename", "os.mkdir", "os.truncate", *FREEING)


class Clock:
    """Counts what is done to the corpus; when `at` is reached, the process dies or the disk is full."""

    def __init__(self, corpus: Path, at: int, how: str) -> None:
        self.corpus, self.at, self.how, self.count = str(corpus), at, how, 0

    def tick(self) -> bool:
        """Whether now is the time. A disk that is full stays full."""
        self.count += 1
        return self.count == self.at or (self.how == "full" and 0 < self.at < self.count)

    def watch(self, event: str, args: tuple[Any, ...]) -> None:
        """An audit hook: called before the thing is done."""
        written = (
            event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        )
        counted = written or event in NAMES
        if event == "os.mkdir" and Path(args[0]).is_dir():  # nothing is done: it is there
            counted = False
        if counted and str(args[0]).startswith(self.corpus) and self.tick():
            if self.how == "full" and event in FREEING:
                return
            self.end()

    def end(self) -> None:
        if self.how == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        os.kill(os.getpid(), signal.SIGKILL)

    def wrap(self) -> None:
        """Let writes end half-way, and syncs not happen."""
        write, fsync = storage.AtomicFile.write, os.fsync

        def half(file: storage.AtomicFile, *parts: bytes) -> None:
            if self.tick():
                data = b"".join(parts)
                write(file, data[: len(data) // 2])
                assert file._stream is not None
                file._stream.flush()
                with storage.map_storage_errors(file.path):
                    self.end()
            write(file, *parts)

        def never(handle: int) -> None:
            if self.tick():
                self.end()
            fsync(handle)

        storage.AtomicFile.write = half  # type: ignore[method-assign]
        os.fsync = never


def child(recipe: Recipe, corpus: Path, at: int, how: str, answer: int) -> NoReturn:
    """One run; its answer is how many things it did, or the error that it ended with."""
    try:
        clock = Clock(corpus, at, how)
        clock.wrap()
        sys.addaudithook(clock.watch)
        try:
            runner.run(recipe, corpus, workers=1)
            report = {"events": clock.count}
        except StorageError as error:
            report = {"error": error.message, "hint": error.hint}
        os.write(answer, json.dumps(report).encode())
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main() -> None:
    """Answer each line of stdin."""
    recipe = load_recipe(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            child(recipe, Path(request["corpus"]), request["at"], request["how"], write)
        os.close(write)
        _, status = os.waitpid(pid, 0)
        with open(read, "rb") as answer:  # noqa: PTH123
            report = json.loads(answer.read() or b"{}")
        print(json.dumps({"status": os.waitstatus_to_exitcode(status), **report}), flush=True)


if __name__ == "__main__":
    main()
