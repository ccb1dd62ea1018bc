"""The worker process of downloads: img2dataset behind the guard, a block of URLs at a time.

    python -m stylear.curate.fetch.worker        (started by `fetch.download`; speaks JSON lines)

stdin: one line of settings, then one line per block: {"directory": ..., "urls": [...]}. stdout: one line
per finished block: {"done": directory} or {"failed": directory, "error": ...}, and before it, twice a second,
how many more of its URLs were tried: {"progress": directory, "count": ...}. It is a separate process
because img2dataset prints and changes globals, the opener of urllib among them. A block is downloaded into a
temporary folder that is renamed once everything is written, so a folder with the final name is complete; the
hash of every image is stored with it. The process exits when stdin ends, that is when its parent does.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import shutil
import signal
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from stylear.curate.fetch.guard import Evidence, GuardedOpener, Limits
from stylear.curate.fetch.optout import OPT_OUT

BLOCKS_AT_ONCE = 2  # the second fills the threads while the first waits for its slowest server
PROGRESS_S = 0.5  # between two messages about one block
IMAGES = "images.bin"  # source bytes, one after the other
ROWS = "rows.json"  # one object per row: row, error, sha256, start, bytes, and the evidence
_serial = itertools.count()


def main() -> None:
    """Download the blocks requested on stdin until it ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever img2dataset prints goes to the log
    # the parent handles Ctrl-C and ends this process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = json.loads(sys.stdin.readline())
    limits = Limits(**{**settings["limits"], "allow_networks": tuple(settings["allow_networks"])})
    opener = GuardedOpener(limits)
    urllib.request.install_opener(opener)  # type: ignore[arg-type]  # urlopen needs only its open()
    lock = threading.Lock()
    with ThreadPoolExecutor(BLOCKS_AT_ONCE) as pool:
        for line in sys.stdin:
            pool.submit(run_block, json.loads(line), opener, settings, answers, lock)
        os._exit(0)


def run_block(
    block: dict[str, Any],
    opener: GuardedOpener,
    settings: dict[str, Any],
    answers: TextIO,
    lock: threading.Lock,
) -> None:
    """Download one block and report the outcome."""
    directory = Path(block["directory"])
    progress = Progress(str(directory), answers, lock)
    try:
        download_block(
            block["urls"], directory, opener, settings["threads"], settings["retries"], progress
        )
        progress.send()
        reply: dict[str, Any] = {"done": str(directory)}
    except OSError as error:
        reply = {"failed": str(directory), "error": str(error), "errno": error.errno}
    except Exception as error:  # reported to the parent, which raises it
        reply = {"failed": str(directory), "error": f"{type(error).__name__}: {error}"}
    with lock:
        print(json.dumps(reply), file=answers, flush=True)


class Progress:
    """Counts the tried URLs of a block and reports them to the parent at intervals."""

    def __init__(self, directory: str, answers: TextIO, lock: threading.Lock) -> None:
        self._directory, self._answers, self._lock = directory, answers, lock
        self._count, self._sent_at = 0, time.monotonic()

    def advance(self) -> None:
        """Count one tried URL."""
        self._count += 1
        if time.monotonic() - self._sent_at >= PROGRESS_S:
            self.send()

    def send(self) -> None:
        """Report what has not been reported yet."""
        message = {"progress": self._directory, "count": self._count}
        with self._lock:
            print(json.dumps(message), file=self._answers, flush=True)
        self._count, self._sent_at = 0, time.monotonic()


def download_block(
    urls: list[str],
    directory: Path,
    opener: GuardedOpener,
    threads: int,
    retries: int,
    progress: Progress,
) -> None:
    """Download `urls` through img2dataset into `directory`: the source bytes and a row for each URL."""
    import pyarrow as pa
    from img2dataset.downloader import Downloader
    from img2dataset.resizer import Resizer

    part = directory.with_name(f"{directory.name}.part-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    request_urls = [
        f"{url}#{next(_serial)}" for url in urls
    ]  # so that equal URLs have evidence of their own
    table = pa.table({"row": list(range(len(urls))), "url": request_urls})
    listing = part / "urls.feather"
    with pa.ipc.new_file(str(listing), table.schema) as writer:
        writer.write_table(table)
    downloader = Downloader(
        sample_writer_class=functools.partial(
            BlockWriter, evidence=opener.evidence, progress=progress
        ),
        resizer=Resizer(256, "no", False, disable_all_reencoding=True),  # keeps the source bytes
        thread_count=threads,
        save_caption=False,
        extract_exif=False,
        output_folder=str(part),
        column_list=table.column_names,
        timeout=opener.limits.timeout_s,
        number_sample_per_shard=max(10, len(urls)),
        oom_shard_count=5,
        compute_hash="sha256",
        verify_hash_type=None,
        encode_format="jpg",
        retries=retries,
        user_agent_token="stylear",
        disallowed_header_directives=OPT_OUT,
    )
    downloader.download_shard((0, str(listing)))
    rows = len(json.loads((part / ROWS).read_text("utf-8")))
    if rows != len(urls):  # img2dataset only prints a failed write and continues
        raise RuntimeError(f"{len(urls) - rows} of {len(urls)} downloads could not be written")
    part.rename(directory)


class BlockWriter:
    """The sample writer for img2dataset: image bytes go into one file, rows into another."""

    def __init__(
        self,
        shard_id: int,
        output_folder: str,
        save_caption: bool,
        oom_shard_count: int,
        schema: Any,
        encode_format: str,
        *,
        evidence: dict[str, Evidence],
        progress: Progress,
    ) -> None:
        self._progress = progress
        self._folder, self._evidence, self._bytes = Path(output_folder), evidence, 0
        self._rows: list[dict[str, Any]] = []
        self._images = (self._folder / IMAGES).open("wb", buffering=1 << 20)

    def write(self, image: bytes | None, key: str, caption: None, meta: dict[str, Any]) -> None:
        """Write one sample."""
        row = {"row": meta["row"], "error": meta["error_message"]}
        if image is not None:
            self._images.write(image)
            row |= {"sha256": meta["sha256"], "start": self._bytes, "bytes": len(image)}
            self._bytes += len(image)
        evidence = self._evidence.pop(meta["url"], None)
        self._rows.append(row | (asdict(evidence) if evidence is not None else {}))
        self._progress.advance()

    def close(self) -> None:
        """Finish the files of the block."""
        self._images.close()
        text = json.dumps(sorted(self._rows, key=lambda row: int(row["row"])))
        (self._folder / ROWS).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
