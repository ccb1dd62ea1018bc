"""The EU's summary of training content has what the corpus knows, and says what it does not know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builders.handmade_corpus import FOLDER, URLS, day, raw_pair, stylized_pair, write_corpus
from markdown_it import MarkdownIt

from stylear.curate.export.declared import Declared
from stylear.curate.export.eu_summary import UNKNOWN
from stylear.curate.export.exporter import export


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A summary of twelve hosts, a folder, two styles."""
    root = tmp_path_factory.mktemp("summary")
    hosts = [*["a.example"] * 4, *["b.example"] * 2, *[f"h{n}.example" for n in range(10)]]
    raw = [raw_pair(n, f"https://{host}/x.png", licence="CC0-1.0") for n, host in enumerate(hosts)]
    others = [raw_pair(100), stylized_pair(0), stylized_pair(1, "cold"), stylized_pair(2, "cold")]
    corpus = write_corpus(
        root,
        {"train": [raw], "val": [others]},
        [URLS, FOLDER],
        {"fetch": {"opted-out": 3, "robots-disallowed": 2, "404": 9}, "filter": {"not-best": 5}},
        [day("2026-03-09"), day("2026-04-02")],
    )
    export(corpus, "eu-summary", root / "out", Declared(creator="A Lab"))
    return root / "out"


def answers(folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text("utf-8"))
    return summary


def test_domains_are_given_by_share_of_pictures(exported: Path) -> None:
    crawled = answers(exported)["sources"]["crawled"]
    assert crawled == {
        "pairs": 16,
        "share_of_all_pairs": 0.8,
        "crawler": "StyleAR toolkit, from lists of URLs that the recipe names",
        "first_day": "2026-03-09",
        "last_day": "2026-04-02",
        "hosts": 12,
        "top_hosts": [
            {"host": "a.example", "pairs": 4, "share": 0.25},
            {"host": "b.example", "pairs": 2, "share": 0.125},
        ],
    }


def test_the_synthetic_share_is_given_with_models(exported: Path) -> None:
    assert answers(exported)["sources"]["synthetic"] == {
        "pairs": 3,
        "share_of_all_pairs": 0.15,
        "models": [
            {
                "name": "instantstyle with sdxl-base-1.0",
                "weights_sha256": "ab" * 32,
                "pairs": 3,
            }
        ],
        "styles": 2,
        "training_data_of_these_models": UNKNOWN,
    }


def test_opt_outs_licences_and_filters_are_given(exported: Path) -> None:
    summary = answers(exported)
    assert summary["processing"] == {
        "opt_outs_obeyed": [
            "X-Robots-Tag (noai, noimageai, noindex, ...)",
            "TDM-Reservation",
            "robots.txt",
        ],
        "pairs_left_out_for_opt_outs": {"opted-out": 3, "robots-disallowed": 2},
        "code_of_practice_signed": UNKNOWN,
        "removal_of_illegal_content": UNKNOWN,
        "other_filters": {
            "fetch": {"404": 9, "opted-out": 3, "robots-disallowed": 2},
            "filter": {"not-best": 5},
        },
    }
    assert summary["licences"] == {
        "licence_of_the_corpus": UNKNOWN,
        "pairs_by_licence": {"CC0-1.0": 16},
        "pairs_without_a_stated_licence": 1,
    }


def test_what_the_corpus_does_not_know_is_marked_unknown(exported: Path) -> None:
    summary = answers(exported)
    assert summary["general"]["provider"] == "A Lab"
    unknown = {name for name, value in summary["general"].items() if value == UNKNOWN}
    assert unknown == {"model", "placed_on_the_market", "languages", "published"}
    assert summary["sources"]["user_data"] == summary["sources"]["other"] == UNKNOWN
    assert summary["sources"]["datasets"] == {
        "pairs_by_type_of_source": {"folder": 1},
        "names": UNKNOWN,
        "public_or_private": UNKNOWN,
    }
    assert summary["general"]["latest_acquisition"] == "2026-04-02"


def test_the_page_for_people_says_the_same(exported: Path) -> None:
    text = (exported / "summary.md").read_text("utf-8")
    for line in (
        "| Provider | `A Lab` |",
        "| Model | not known to the corpus |",
        "| `a.example` | 4 | 25.00% |",
        "| Share of all pairs | 15.00% |",
        f"| `instantstyle with sdxl-base-1.0` | `{'ab' * 32}` | 3 |",
        "| `robots-disallowed` | 2 | 40.00% |",
        "| `CC0-1.0` | 16 | 100.00% |",
    ):
        assert line in text
    page = MarkdownIt("gfm-like", {"linkify": False}).render(text)
    assert page.count("<h3>") == 8


def test_a_corpus_without_downloads_and_synthesis_says_so(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, {"train": [[raw_pair(0)]]})
    export(corpus, "eu-summary", tmp_path / "out")
    summary = answers(tmp_path / "out")
    assert summary["sources"]["crawled"] == {"pairs": 0}
    assert summary["sources"]["synthetic"]["models"] == []
    text = (tmp_path / "out" / "summary.md").read_text("utf-8")
    assert "Nothing was downloaded from lists of URLs." in text
    assert "No picture is synthetic." in text


@pytest.mark.parametrize(
    ("source", "host"),
    [
        ("HTTPS://Example.ORG:8080/x", "example.org"),
        ("http://user:secret@example.org./x", "example.org"),
        ("http://[::1", "(not a host name)"),
        ("http:///x", "(not a host name)"),
    ],
)
def test_a_host_is_a_name_without_port_user_and_case(
    tmp_path: Path, source: str, host: str
) -> None:
    corpus = write_corpus(tmp_path, {"train": [[raw_pair(0, source)]]}, [URLS])
    export(corpus, "eu-summary", tmp_path / "out")
    [top] = answers(tmp_path / "out")["sources"]["crawled"]["top_hosts"]
    assert top["host"] == host
