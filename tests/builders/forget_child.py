"""Forgets in forked children that die at the n-th name that they change in the corpus.

    python forget_child.py, then lines of JSON {"corpus", "source", "at"} on stdin, an answer for each

A name is changed when a file gets its final name or is removed: between two of these nothing can be seen to
happen. The data of the report do not count: until its pages are there, nobody reads them. `at` 0 never dies.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import pandas  # noqa: F401 (these so that children need not)
import pyarrow.compute
import pyarrow.parquet  # noqa: F401
from PIL import PngImagePlugin, WebPImagePlugin  # noqa: F401

from stylear.curate.forget import forget_pairs
from stylear.curate.forget.request import Request

NAMES = ("os.rename", "os.remove", "os.rmdir")


def path_of(args: tuple[Any, ...]) -> str:
    """The path that an event is about; where a folder is removed, its files are named relative to it."""
    folder = args[-1] if len(args) == 2 else -1
    name = os.fsdecode(args[0])
    return name if folder < 0 else f"{Path(f'/proc/self/fd/{folder}').readlink()}/{name}"


def watch(corpus: str, at: int) -> list[int]:
    """Kill this process before its `at`-th change below `corpus`; counts the changes."""
    count = [0]

    def hook(event: str, args: tuple[Any, ...]) -> None:
        name = path_of(args) if event in NAMES else ""
        if name.startswith(corpus) and "/report/data/" not in name:
            count[0] += 1
            if count[0] == at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return count


def child(corpus: Path, source: str, at: int, answer: int) -> NoReturn:
    os.fsync = lambda handle: None  # what a killed process wrote is not lost
    try:
        count = watch(str(corpus), at)
        result = forget_pairs(corpus, Request(sources=(source,)))
        report = {
            "changes": count[0],
            "pairs": len(result.selection.keys),
            "resumed": result.resumed,
        }
        os.write(answer, json.dumps(report).encode())
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            child(Path(request["corpus"]), request["source"], request["at"], write)
        os.close(write)
        _, status = os.waitpid(pid, 0)
        with open(read, "rb") as answer:  # noqa: PTH123
            report = json.loads(answer.read() or b"{}")
        print(json.dumps({"status": os.waitstatus_to_exitcode(status), **report}), flush=True)


if __name__ == "__main__":
    main()
