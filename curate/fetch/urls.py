"""URL lists: every row becomes a pair, downloaded through img2dataset behind the guard."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from curate.fetch.captions import clean_caption, clean_details, plain_source
from curate.fetch.download import Download, Downloads
from curate.fetch.guard import Limits, Refused, plain_url
from curate.fetch.lists import CAPTION_COLUMNS, URL_COLUMNS, Row, count_rows, list_paths, read_list
from curate.ingest import STAGE
from stylear.console import Bar
from stylear.pair import Origin, Pair, content_id, digest

if TYPE_CHECKING:
    from curate.recipe import UrlsSource

BLOCK_ROWS = 500  # rows downloaded, kept and repeated together (ours)
BLOCKS_AHEAD = 4  # asked for before the first is read, so that downloading never waits for decoding


@dataclass(frozen=True, slots=True)
class Planned:
    """The pair of a row, and the URL to download for it (None: dropped already)."""

    pair: Pair
    url: str | None


def url_pairs(source: UrlsSource, work: Path, only: Container[str] | None = None) -> Iterator[Pair]:
    """A pair for every row of the list, in list order, with the downloaded bytes as its image.

    Finished downloads lie in `work` and are used again. With `only`, other keys are not
    downloaded. Rows that are not downloaded either: no-caption,
    not-http, bad-url, duplicate-row (same URL and caption as an earlier row). Raises SourceError for
    a list that cannot be read.
    """
    limits = Limits(
        timeout_s=source.timeout_s,
        deadline_s=source.deadline_s,
        max_bytes=source.max_bytes,
        allow_networks=tuple(source.allow_networks),
        contact=source.contact,
    )
    paths = list_paths(source.path)
    plans = _plan(islice(_rows(source, paths), source.limit))
    if only is not None:
        plans = (p if p.pair.key in only else replace(p, url=None) for p in plans)
    waiting: deque[list[Planned]] = deque()
    with (
        Downloads(work / "urls", limits, source.threads, source.retries) as downloads,
        Bar(f"download {source.path.name}", total=_total(source, paths), unit="URLs") as bar,
    ):
        while True:
            while len(waiting) < BLOCKS_AHEAD and (block := list(islice(plans, BLOCK_ROWS))):
                downloads.request([plan.url for plan in block if plan.url is not None])
                waiting.append(block)
            if not waiting:
                return
            block = waiting.popleft()
            results = downloads.results([plan.url for plan in block if plan.url is not None])
            for plan in block:
                yield plan.pair if plan.url is None else _with(plan.pair, next(results))
                bar.advance()


def _rows(source: UrlsSource, paths: list[Path]) -> Iterator[Row]:
    urls = (source.url_column,) if source.url_column else URL_COLUMNS
    captions = (source.caption_column,) if source.caption_column else CAPTION_COLUMNS
    return chain.from_iterable(read_list(path, urls, captions, "url") for path in paths)


def _total(source: UrlsSource, paths: list[Path]) -> int | None:
    """How many rows there will be, where the lists tell."""
    counts = [count_rows(path) for path in paths]
    known = sum(count for count in counts if count is not None)
    if None in counts:
        return None
    return known if source.limit is None else min(known, source.limit)


def _plan(rows: Iterator[Row]) -> Iterator[Planned]:
    """The pairs of rows; keys are unique because a repeated row has its place in its key."""
    seen: Counter[bytes] = Counter()
    for row in rows:
        url = row.place if isinstance(row.place, str) else ""
        raw = row.caption if isinstance(row.caption, str) else None
        key = digest("url", url, raw)
        token = bytes.fromhex(key)
        repeats = seen[token]
        seen[token] += 1
        caption, notes = clean_caption(raw)
        reason, plain = None, None
        try:
            plain = plain_url(url)
        except Refused as refused:
            reason = refused.name
        if repeats:
            key, reason = digest("url", url, raw, repeats), "duplicate-row"
        elif not caption:
            reason = "no-caption"
        origin = Origin(
            kind="raw",
            source=plain_source(plain or url),
            content=content_id(caption),
            details={**clean_details(row.columns), **notes},
        )
        pair = Pair(key, caption, b"", origin)
        yield Planned(pair, plain) if reason is None else Planned(pair.drop(STAGE, reason), None)


def _with(pair: Pair, download: Download) -> Pair:
    """The pair with what was downloaded for it."""
    if download.final_url is not None:
        details = {**pair.origin.details, "final_url": plain_source(download.final_url)}
        pair = replace(pair, origin=replace(pair.origin, details=details))
    if download.reason is not None:
        return pair.drop(STAGE, download.reason)
    return replace(pair, image=download.data)
