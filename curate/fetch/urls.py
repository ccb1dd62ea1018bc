"""The urls source: every row of a list becomes a pair, downloaded through img2dataset behind the guard."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, replace
from html import unescape
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from stylear.console import Bar
from stylear.curate.corpus.captions import clean_caption, clean_details, plain_source
from stylear.curate.corpus.tombstones import NONE, Tombstones
from stylear.curate.fetch.blocks import Download
from stylear.curate.fetch.captions import caption_reason, choose_captions
from stylear.curate.fetch.download import Downloads
from stylear.curate.fetch.guard import Limits
from stylear.curate.fetch.ingest import STAGE
from stylear.curate.fetch.lists import (
    CAPTION_COLUMNS,
    URL_COLUMNS,
    ListFormat,
    Row,
    count_rows,
    find_lists,
    read_list,
)
from stylear.curate.fetch.pixels import prepare
from stylear.curate.fetch.refused import RequestRefused, plain_url
from stylear.curate.fetch.subset import Subset
from stylear.curate.fetch.success import SuccessMonitor
from stylear.errors import SourceError
from stylear.pair import Origin, Pair, content_id, digest

if TYPE_CHECKING:
    from stylear.curate.recipe import UrlsSource
    from stylear.curate.recipe.sources import ListSettings

ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z]{2,8});")
BLOCK_ROWS = 500  # rows of a block, which is downloaded and retried as one (our choice)
BLOCKS_AHEAD = 4  # requested before the first is read, so downloads do not wait for decoding


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """The pair of a row, the URL to download (None if it is dropped already), and the expected hash."""

    pair: Pair
    url: str | None
    sha256: str | None = None


def read_urls(
    source: UrlsSource,
    work: Path | None,
    max_pixels: int,
    only: Container[str] | None = None,
    seed: int = 0,
    tombstones: Tombstones = NONE,
) -> Iterator[Pair]:
    """A pair for every row of the list, in list order, with the downloaded bytes as its image.

    Finished downloads are kept in `work` and reused; without it nothing is downloaded. With `only`,
    other keys are not downloaded. Rows that are not downloaded either: no-caption,
    not-http, bad-url, duplicate-row (same URL and caption as an earlier row). Raises SourceError for
    a list that cannot be read, and when fewer downloads succeed than `min_success` asks for.
    """
    paths = find_lists(source.path)
    planned = plan_rows(source, seed)
    if work is None:
        yield from (plan.pair for plan in planned)
        return
    if tombstones:
        planned = skip_forgotten(planned, tombstones)
    if only is not None:
        planned = (p if p.pair.key in only else replace(p, url=None) for p in planned)
    with Bar(f"download {source.path.name}", total=count_total(source, paths), unit="URLs") as bar:
        yield from download_rows(planned, source, work, max_pixels, bar.advance)


def skip_forgotten(planned: Iterable[PlannedRow], tombstones: Tombstones) -> Iterator[PlannedRow]:
    """The same rows; those that match a tombstone have no URL to download."""
    for plan in planned:
        yield replace(plan, url=None) if tombstones.match(plan.pair) else plan


def download_rows(
    planned: Iterator[PlannedRow],
    source: UrlsSource,
    work: Path,
    max_pixels: int,
    advance: Callable[[int], None] = lambda count: None,
) -> Iterator[Pair]:
    """Download the planned rows and yield their pairs in order.

    `advance` counts every row once: when its download ends, or else when it is read.
    """
    waiting: deque[list[PlannedRow]] = deque()
    success = SuccessMonitor(str(source.path), source.min_success)
    with Downloads(
        work / "urls",
        download_limits(source, max_pixels),
        source.threads,
        source.retries,
        source.processes,
        advance,
    ) as downloads:
        ahead = BLOCKS_AHEAD * source.processes
        while True:
            while len(waiting) <= ahead and (block := list(islice(planned, BLOCK_ROWS))):
                downloads.request(list_urls(block))
                waiting.append(block)
            if not waiting:
                break
            block = waiting.popleft()
            urls = list_urls(block)
            prepare()  # while the downloading process starts
            require_success(success, downloads, urls, waiting)
            results = downloads.wait_for_results(urls)
            counted = downloads.pop_reported_count(urls)
            for plan in block:
                yield plan.pair if plan.url is None else apply_download(plan, next(results))
                if plan.url is not None and counted:
                    counted -= 1
                else:
                    downloads.advance_rows(1)


def require_success(
    success: SuccessMonitor, downloads: Downloads, urls: list[str], waiting: deque[list[PlannedRow]]
) -> None:
    """Raise SourceError if too few downloads succeed, before any of this block becomes a pair.

    Blocks requested meanwhile are discarded too, as they fail for the same reason.
    """
    try:
        success.count(downloads.count_reasons(urls), lambda: downloads.discard(urls), not waiting)
    except SourceError:
        downloads.stop()
        for block in waiting:
            downloads.discard(list_urls(block))
        raise


def download_limits(source: UrlsSource, max_pixels: int) -> Limits:
    """The download limits of a source."""
    return Limits(
        timeout_s=source.timeout_s,
        deadline_s=source.deadline_s,
        max_bytes=source.max_bytes,
        max_pixels=max_pixels,
        allow_networks=tuple(source.allow_networks),
        host_requests_per_s=source.host_requests_per_s,
        robots=source.robots,
        contact=source.contact,
    )


def plan_rows(source: UrlsSource, seed: int = 0) -> Iterator[PlannedRow]:
    """Plan each row of the list. Keys are unique: that of a repeated row includes its number.

    A row with several captions gives a pair for each with `captions_per_image: all`.
    """
    seen: Counter[bytes] = Counter()
    for row, raw in islice(read_captioned_rows(source, seed), source.limit):
        if row.reason is not None:
            yield PlannedRow(drop_broken_row(source, row), None)
            continue
        url = decode_entities(row.target) if isinstance(row.target, str) else ""
        text = raw if isinstance(raw, str) else None
        key = digest("url", url, text)
        token = bytes.fromhex(key)
        repeats = seen[token]
        seen[token] += 1
        caption, notes = clean_caption(text)
        reason, plain = None, None
        try:
            plain = plain_url(url)
        except RequestRefused as refused:
            reason = refused.name
        if repeats:
            key, reason = digest("url", url, text, repeats), "duplicate-row"
        elif not caption:
            reason = caption_reason(raw, caption)
        origin = Origin(
            kind="raw",
            source=plain_source(plain or url),
            content=content_id(caption),
            details={**clean_details(row.columns), **notes},
        )
        pair = Pair(key, caption, b"", origin)
        if reason is not None:
            yield PlannedRow(pair.drop(STAGE, reason), None)
        else:
            yield PlannedRow(pair, plain, read_expected_hash(source, row))


def decode_entities(url: str) -> str:
    """Decode the HTML entities of a URL (`&amp;`); those without `;` are parameters and stay."""
    return ENTITY.sub(lambda match: unescape(match[0]), url)


def read_captioned_rows(source: UrlsSource, seed: int) -> Iterator[tuple[Row, object]]:
    """Every row with each of its chosen captions."""
    for row in read_rows(source, find_lists(source.path)):
        for caption in choose_captions(
            row.caption, source.captions_per_image, seed, str(row.target)
        ):
            yield row, caption


def drop_broken_row(source: UrlsSource, row: Row) -> Pair:
    """The dropped pair of a row that could not be read, with its line and reason."""
    name, reason = source.path.name, row.reason or "malformed-row"
    origin = Origin(
        kind="raw",
        source=plain_source(f"list:{name}:{row.line}"),
        content=content_id(""),
        details={"list_line": row.line},
    )
    return Pair(digest("row", name, row.line, reason), "", b"", origin).drop(STAGE, reason)


def list_format(source: ListSettings) -> ListFormat:
    """The list format that a source asks for."""
    return ListFormat(source.encoding, source.delimiter, source.quoting, source.columns)


def column_names(names: str | tuple[str, ...] | None, usual: tuple[str, ...]) -> tuple[str, ...]:
    """The columns to look for: those of the recipe, or else the usual ones."""
    if names is None:
        return usual
    return (names,) if isinstance(names, str) else names


def read_rows(source: UrlsSource, paths: list[Path]) -> Iterator[Row]:
    urls = column_names(source.url_column, URL_COLUMNS)
    captions = column_names(source.caption_column, CAPTION_COLUMNS)
    fall_back = isinstance(source.caption_column, tuple) or isinstance(source.url_column, tuple)
    rows = chain.from_iterable(
        read_list(
            path,
            urls,
            captions,
            "url",
            list_format(source),
            fall_back=fall_back,
            can_be_empty=len(paths) > 1,
        )
        for path in paths
    )
    if source.uids is None:
        yield from rows
        return
    subset = Subset(source.uids)
    yield from (row for row in rows if subset.has(row.columns.get("uid")))
    subset.require_found(source.path)


def read_expected_hash(source: UrlsSource, row: Row) -> str | None:
    """The hash in the list that the bytes must have. Raises SourceError if the column is missing."""
    if source.sha256_column is None:
        return None
    if source.sha256_column not in row.columns:
        raise SourceError(
            f"{source.path}: expected a column {source.sha256_column!r},"
            f" found {', '.join(map(repr, row.columns))}"
        )
    return str(row.columns[source.sha256_column]).strip().lower()


def list_urls(block: list[PlannedRow]) -> list[str]:
    return [plan.url for plan in block if plan.url is not None]


def count_total(source: UrlsSource, paths: list[Path]) -> int | None:
    """The number of rows, if it is known without reading the lists."""
    counts = [count_rows(path) for path in paths]
    known = sum(count for count in counts if count is not None)
    if None in counts or source.uids is not None:
        return None
    return known if source.limit is None else min(known, source.limit)


def apply_download(plan: PlannedRow, download: Download) -> Pair:
    """The pair with its downloaded bytes and evidence."""
    evidence = {
        name: plain_source(value) if isinstance(value, str) else value
        for name, value in download.evidence.items()
    }
    details = {**plan.pair.origin.details, **evidence}
    pair = replace(plan.pair, origin=replace(plan.pair.origin, details=details))
    if download.reason is not None:
        return pair.drop(STAGE, download.reason)
    if plan.sha256 is not None and download.sha256 != plan.sha256:
        return pair.drop(STAGE, "hash-mismatch")
    return replace(
        pair, image=download.data, origin=replace(pair.origin, source_sha256=download.sha256)
    )
