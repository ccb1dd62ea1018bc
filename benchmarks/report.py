"""The report's page of all pairs: time and space to draw it, and how fast a browser shows and filters it.

    python benchmarks/report.py [--pairs 100000] [--out benchmarks/results]

Makes the tables, scores and verdicts of a corpus of that size without images, and draws the page from them
as `stylear curate report` does; in place of thumbnails of images that do not exist it stores a few drawn
ones again and again, and what drawing one costs is measured apart. Then a headless Chromium opens the page
from the disk. There is no peer: the figures are the machine's. The fastest of `--rounds` is reported.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from filter import enter, run_filter
from memory import make, make_splits, recipe, run_mix

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from builders.browser import Browser, find_browser

SIDE = 512  # pixels of the images whose thumbnails are timed
DRAWN = 64
READY = "document.documentElement.dataset.ready"
ASKED = {
    "filter by style": "{style: corpus.index.styles[3]}",
    "filter by reason": "{outcome: 'dropped:filter', reason: 'not-best'}",
    "filter by the range of a score": "{'min.text': '0.5'}",
    "order by a score": "{sort: 'text'}",
    "search in captions, keys and sources": "{text: 'number 777'}",
}


def make_corpus(corpus: Path, pairs: int) -> None:
    """A corpus of so many pairs as its stages leave it, without its tars."""
    from stylear.curate.corpus.ledger import Ledger, StageInputs

    make(corpus, pairs)
    enter(corpus)
    run_filter(corpus)
    run_mix(corpus)
    make_splits(corpus)
    loaded = recipe()
    settings = {"mix": loaded.mix.model_dump(mode="json"), "seed": loaded.seed}
    for stage in ("mix", "pairs"):
        inputs = StageInputs(settings, "1")
        Ledger(corpus).commit(stage, "all", inputs, rows_in=0, kept=0, dropped={}, files={})


def draw_thumbnails() -> tuple[list[str], float]:
    """Thumbnails of noisy JPEGs, and the milliseconds that one takes."""
    import numpy as np
    from PIL import Image

    from stylear.curate.report.explorer.pictures import draw_thumbnail

    draw = np.random.default_rng(0)
    images = []
    for _ in range(DRAWN):
        noise = Image.fromarray(draw.integers(0, 255, (32, 32, 3), dtype=np.uint8))
        out = io.BytesIO()
        noise.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
        images.append(out.getvalue())
    start = time.process_time()
    drawn = [draw_thumbnail(image) for image in images]
    return drawn, (time.process_time() - start) / DRAWN * 1e3


def draw_page(corpus: Path) -> dict[str, Any]:
    """Draw the page; seconds, peak memory and bytes."""
    from stylear.curate.report.explorer import pictures, write_explorer
    from stylear.curate.report.explorer.chunks import write_pictures
    from stylear.curate.report.facts import read_facts

    drawn, thumbnail_ms = draw_thumbnails()

    def store_drawn(folder: Path, shard: pictures.PictureShard) -> None:
        for chunk in shard.chunks:
            write_pictures(folder, chunk.name, [drawn[row % DRAWN] for row in chunk.rows])

    pictures.draw_shard, pictures.MANY = store_drawn, sys.maxsize
    start, cpu = time.perf_counter(), time.process_time()
    write_explorer(read_facts(corpus), corpus / "report")
    wall, spent = time.perf_counter() - start, time.process_time() - cpu
    sizes: dict[str, int] = {}
    files = list((corpus / "report" / "data").iterdir())
    for path in files:
        kind = path.stem.partition("-")[0]
        sizes[kind] = sizes.get(kind, 0) + path.stat().st_size
    return {
        "wall_s": round(wall, 1),
        "cpu_s": round(spent, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "thumbnail_ms": round(thumbnail_ms, 1),
        "files": len(files),
        "bytes": sizes,
    }


def time_page(page: Browser, url: str) -> dict[str, float]:
    """Milliseconds to the first picture and of each filter, the first time and the next."""
    start = time.perf_counter()
    page.open(url)
    page.wait_for("document.querySelector('#pictures img')")
    times = {"first picture": (time.perf_counter() - start) * 1e3}
    page.evaluate("Corpus.open().then((corpus) => { window.corpus = corpus; })")
    for name, query in ASKED.items():
        for when in ("first", "again"):
            times[f"{name}, {when}"] = page.evaluate(
                "(async () => { const start = performance.now();"
                f" await findRows(corpus, {query}); return performance.now() - start; }})()"
            )
    for view in ("scatter", "duplicates"):
        start = time.perf_counter()
        page.evaluate(f"delete document.documentElement.dataset.ready; find('show-{view}').click()")
        page.wait_for(READY)
        times[f"view: {view}"] = (time.perf_counter() - start) * 1e3
    start = time.perf_counter()
    page.evaluate("find('show-pictures').click()")
    page.evaluate("document.querySelector('#pictures button.card')?.click()")
    page.wait_for("find('detail').open")
    times["history of a pair"] = (time.perf_counter() - start) * 1e3
    assert page.problems == []
    return times


def time_browser(program: str, profile: Path, url: str, rounds: int) -> dict[str, Any]:
    """The fastest of several visits to the page."""
    with Browser(program, profile) as page:
        timings = [time_page(page, url) for _ in range(rounds)]
        heap = page.evaluate("performance.memory.usedJSHeapSize")
        return {
            "product": page.send("Browser.getVersion")["product"],
            "ms": {name: round(min(timing[name] for timing in timings)) for name in timings[0]},
            "heap_mb": round(heap / 1e6),
        }


def measure(pairs: int, rounds: int, folder: Path) -> dict[str, Any]:
    """All measures of a corpus of so many pairs."""
    corpus = folder / "corpus"
    make_corpus(corpus, pairs)
    drawn = draw_page(corpus)
    profile = folder / "profile"
    profile.mkdir()
    url = (corpus / "report" / "pairs.html").as_uri()
    program = find_browser()
    return {
        "pairs": pairs,
        "rounds": rounds,
        "drawn": drawn,
        "browser": None if program is None else time_browser(program, profile, url, rounds),
        "load": [round(load, 1) for load in os.getloadavg()],
        "machine": {"system": platform.platform(), "python": platform.python_version()},
    }


def markdown(result: dict[str, Any]) -> str:
    """The result as a page."""
    drawn, sizes = result["drawn"], result["drawn"]["bytes"]
    ahead = sum(sizes[name] for name in ("corpus", "rows"))
    browser = result["browser"] or {"product": "no Chromium, so nothing was timed in one", "ms": {}}
    return "\n".join(
        [
            f"# The page of {result['pairs']:,} pairs",
            "",
            f"`python benchmarks/report.py --pairs {result['pairs']} --rounds {result['rounds']}`, on"
            f" {result['machine']['system']}, Python {result['machine']['python']}, {browser['product']}, 2"
            f" shared CPU cores, load {result['load'][0]} at the end.",
            "",
            f"Drawing it without thumbnails: {drawn['wall_s']} s ({drawn['cpu_s']} s of CPU),"
            f" {drawn['peak_mb']} MB at most. A thumbnail of a {SIDE}-pixel JPEG: {drawn['thumbnail_ms']} ms"
            f" of CPU. {drawn['files']:,} files: thumbnails {sizes['pictures'] / 1e6:.0f} MB, histories"
            f" {sizes['histories'] / 1e6:.1f} MB, captions, keys and sources {sizes['texts'] / 1e6:.1f} MB,"
            f" scores {sizes['scores'] / 1e6:.1f} MB, and {ahead / 1e6:.2f} MB that the page reads first.",
            "",
            "| in the browser, opened from the disk | ms, fastest round |",
            "|---|---|",
            *(f"| {name} | {ms:,.0f} |" for name, ms in browser["ms"].items()),
            "",
            f"JavaScript heap at the end: {browser.get('heap_mb', '-')} MB.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(args.pairs, args.rounds, Path(folder))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "report.json").write_text(json.dumps(result, indent=1) + "\n")
    (args.out / "report.md").write_text(markdown(result))
    print(markdown(result))


if __name__ == "__main__":
    main()
