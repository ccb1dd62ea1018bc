"""The downloading process: img2dataset behind the guard, one block of URLs at a time.

    python -m curate.fetch.worker        (started by `curate.fetch.urls`; speaks JSON lines)

stdin: one line of settings, then one line a block: {"directory": ..., "urls": [...]}. stdout: one line
a finished block: {"done": directory} or {"failed": directory, "error": ...}. It is a process of its own
because img2dataset prints, patches and reads globals, and because the opener of urllib is one of them.
A block is downloaded into a folder of another name that is renamed when everything in it is on disk,
so a folder with the final name is whole. When stdin ends, the parent is gone and so is this process.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

from curate.fetch.guard import GuardedOpener, Limits

BLOCKS_AT_ONCE = 2  # the second fills the threads while the first waits for its slowest server
OPT_OUT = ("noai", "noimageai", "noindex", "noimageindex")  # X-Robots-Tag (base: img2dataset)
FINAL_URLS = "final_urls.json"


def main() -> None:
    """Download the blocks that stdin asks for until it ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever img2dataset prints goes to the log
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for the parent, which ends this process
    settings = json.loads(sys.stdin.readline())
    limits = Limits(**{**settings["limits"], "allow_networks": tuple(settings["allow_networks"])})
    opener = GuardedOpener(limits)
    urllib.request.install_opener(opener)
    lock = threading.Lock()
    with ThreadPoolExecutor(BLOCKS_AT_ONCE) as pool:
        for line in sys.stdin:
            pool.submit(answer, json.loads(line), opener, settings, answers, lock)
        os._exit(0)


def answer(
    block: dict[str, Any],
    opener: GuardedOpener,
    settings: dict[str, Any],
    answers: TextIO,
    lock: threading.Lock,
) -> None:
    """Download one block and say so."""
    directory = Path(block["directory"])
    try:
        download_block(block["urls"], directory, opener, settings["threads"], settings["retries"])
        reply: dict[str, Any] = {"done": str(directory)}
    except OSError as error:
        reply = {"failed": str(directory), "error": str(error), "errno": error.errno}
    except Exception as error:  # told to the parent, which stops with it
        reply = {"failed": str(directory), "error": f"{type(error).__name__}: {error}"}
    with lock:
        print(json.dumps(reply), file=answers, flush=True)


def download_block(
    urls: list[str], directory: Path, opener: GuardedOpener, threads: int, retries: int
) -> None:
    """Download `urls` into `directory`: img2dataset's 00000.tar, .parquet and _stats.json."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from img2dataset.downloader import Downloader
    from img2dataset.resizer import Resizer
    from img2dataset.writer import WebDatasetSampleWriter

    part = directory.with_name(f"{directory.name}.part-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    table = pa.table({"row": list(range(len(urls))), "url": urls})
    listing = part / "urls.feather"
    with pa.ipc.new_file(str(listing), table.schema) as writer:
        writer.write_table(table)
    downloader = Downloader(
        sample_writer_class=WebDatasetSampleWriter,
        resizer=Resizer(256, "no", False, disable_all_reencoding=True),  # stores the source bytes
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
        encode_format="jpg",  # the ending of every member, whatever its bytes are
        retries=retries,
        user_agent_token="stylear",
        disallowed_header_directives=OPT_OUT,
    )
    downloader.download_shard((0, str(listing)))
    rows = pq.read_metadata(part / "00000.parquet").num_rows
    if rows != len(urls):  # img2dataset prints what it could not write and goes on
        raise RuntimeError(f"{len(urls) - rows} of {len(urls)} downloads could not be written")
    moved = {url: opener.final_urls[url] for url in urls if url in opener.final_urls}
    (part / FINAL_URLS).write_text(json.dumps(moved, sort_keys=True), encoding="utf-8")
    for path in [*part.iterdir(), part]:
        sync(path)
    part.rename(directory)
    sync(directory.parent)


def sync(path: Path) -> None:
    """Wait until a file or folder is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


if __name__ == "__main__":
    main()
