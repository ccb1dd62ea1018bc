"""Preview a fetch: what it would download, without downloading anything."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from stylear.curate.fetch.folder_files import find_images
from stylear.curate.fetch.lists import count_rows, find_lists
from stylear.curate.fetch.shards import tar_paths
from stylear.curate.fetch.urls import plan_rows
from stylear.errors import SourceEmpty

if TYPE_CHECKING:
    from stylear.curate.recipe import Recipe, UrlsSource


def preview_sources(recipe: Recipe, *, allow_empty: bool = False) -> list[dict[str, Any]]:
    """One row per source: its pairs and what would be downloaded.

    Raises SourceError and RecipeError, and SourceEmpty for a source without pairs unless `allow_empty`.
    """
    rows = []
    for source in recipe.raw:
        row: dict[str, Any] = {
            "source": source.type,
            "path": str(getattr(source, "path", "embedded")),
        }
        row |= {"pairs": None, "downloads": 0, "hosts": 0}
        row |= {"busiest": None, "refused": None, "bytes": None}
        try:
            row |= _count(source, recipe.seed)
        except SourceEmpty:
            if not allow_empty:
                raise
            row["pairs"] = 0
        rows.append(row)
    return rows


def _count(source: Any, seed: int) -> dict[str, Any]:
    """What is known of one source."""
    row: dict[str, Any] = {}
    match source.type:
        case "urls":
            row |= _urls(source, seed)
        case "folder":
            row["pairs"] = len(find_images(source.path))
        case "parquet":
            row["pairs"] = sum(count_rows(path) or 0 for path in find_lists(source.path))
        case "shards":
            row["bytes"] = sum(p.stat().st_size for p in tar_paths(source.path) if p.is_file())
        case "mini":
            from stylear.curate.fetch.mini import read_mini

            row["pairs"] = sum(1 for _ in read_mini(source, seed))
    return row


def _urls(source: UrlsSource, seed: int) -> dict[str, Any]:
    """Rows, downloads, hosts, and the rows that would be dropped without a request, by reason."""
    hosts: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for plan in plan_rows(source, seed):
        if plan.url is not None:
            hosts[urlsplit(plan.url).netloc] += 1
        else:
            refused[plan.pair.verdict.reason or ""] += 1
    busiest = ", ".join(f"{host} {count}" for host, count in hosts.most_common(1))
    return {
        "pairs": hosts.total() + refused.total(),
        "downloads": hosts.total(),
        "hosts": len(hosts),
        "busiest": busiest or None,
        "refused": ", ".join(f"{why} {n}" for why, n in sorted(refused.items())) or None,
    }
