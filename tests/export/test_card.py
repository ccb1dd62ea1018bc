"""The dataset card says what is known, and text of strangers in it means nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders.handmade_corpus import URLS, day, raw_pair, stylized_pair, write_corpus
from markdown_it import MarkdownIt

from stylear.curate.export.declared import Declared
from stylear.curate.export.exporter import export
from stylear.curate.export.markdown import inert_text, markdown_table

HOSTILE = [
    "</td><script>alert(1)</script>",
    "| x | [click](javascript:alert(1)) |",
    "` <img src=x onerror=alert(1)> `",
    "![](http://evil.example/pixel.png)",
    "a\n---\nlicense: mit\n---\n# pwned",
    "*/ **bold** _it_ ~~no~~ $x$ \\",
    "{{ config }} {% raw %} ${jndi:ldap://x}",
    "www.evil.example mail@evil.example &lt;b&gt; &#60;b&#62;",
]


def card_of(tmp_path: Path, corpus: Path, **declared: Any) -> tuple[dict[str, Any], str]:
    """The head and the text of a card."""
    export(corpus, "huggingface", tmp_path / "out", Declared(**declared))
    text = (tmp_path / "out" / "README.md").read_text("utf-8")
    _, head, body = re.split(r"^---$", text, maxsplit=2, flags=re.MULTILINE)
    return yaml.safe_load(head), body


def test_the_head_says_sizes_licence_and_files(tmp_path: Path, corpus: Path) -> None:
    head, _ = card_of(tmp_path, corpus, licence="CC-BY-4.0")
    features = head.pop("dataset_info")[0]["features"]
    assert [feature["name"] for feature in features] == ["png", "txt", "json", "__key__", "__url__"]
    assert head == {
        "license": "cc-by-4.0",
        "pretty_name": "handmade",
        "size_categories": ["n<1K"],
        "task_categories": ["text-to-image"],
        "tags": ["webdataset", "style", "synthetic"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": "train", "path": "data/train-*.tar"},
                    {"split": "validation", "path": "data/validation-*.tar"},
                ],
                "default": True,
            }
        ],
    }


def test_the_text_says_how_it_was_made_and_of_what(tmp_path: Path, corpus: Path) -> None:
    _, body = card_of(tmp_path, corpus)
    assert "4 raw pairs and 3 pairs synthesised in 3 styles" in body
    assert f"`instantstyle with sdxl-base-1.0` (3 pairs, weights {'ab' * 8})" in body
    assert "| `cold` | 1 | 33.33% |" in body
    assert "| `CC-BY-4.0` | 1 | 25.00% |" in body
    assert "| not stated by the source | 3 | 75.00% |" in body
    assert "The licence of the data set as a whole was not stated." in body


@pytest.mark.parametrize(
    ("licences", "expected"),
    [
        (["Apache-2.0", "Apache-2.0"], {"license": "apache-2.0"}),
        (["Apache-2.0", "MIT"], {"license": "other"}),
        (["Apache-2.0", None], {"license": "other"}),
        ([None, None], {"license": "unknown"}),
        (["ask me", "ask me"], {"license": "other", "license_name": "ask me"}),
    ],
)
def test_the_licence_of_the_head_follows_from_the_sources(
    tmp_path: Path, licences: list[str | None], expected: dict[str, str]
) -> None:
    pairs = [
        raw_pair(n, **({} if licence is None else {"license": licence}))
        for n, licence in enumerate(licences)
    ]
    head, _ = card_of(tmp_path, write_corpus(tmp_path, {"train": [pairs]}))
    assert {name: value for name, value in head.items() if name.startswith("license")} == expected


def test_downloads_are_described_with_days_and_opt_outs(tmp_path: Path) -> None:
    pairs = [raw_pair(0, "https://Pictures.Example/a.png")]
    corpus = write_corpus(
        tmp_path, {"train": [pairs]}, [URLS], {"fetch": {"opted-out": 7}}, [day("2026-05-01")]
    )
    _, body = card_of(tmp_path, corpus)
    assert "| `pictures.example` | 1 | 100.00% |" in body
    assert "downloaded between 2026-05-01 and 2026-05-01." in body
    assert "robots.txt was asked for. Left out for that: `opted-out` 7." in body


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_licences_styles_and_hosts_mean_nothing(tmp_path: Path, text: str) -> None:
    host = "https://evil|<b>.example/x"
    pairs = [raw_pair(0, host, licence=text), stylized_pair(1, text), stylized_pair(2, "--x")]
    head, body = card_of(tmp_path, write_corpus(tmp_path, {"train": [pairs]}))
    assert head["license"] == "other"
    rendered = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(body)
    tags = set(re.findall(r"<(/?\w+)", rendered))
    ours = "h1 h2 p ul li code pre table thead tbody tr th td"
    assert {tag.strip("/") for tag in tags} <= set(ours.split())
    assert rendered.count("<table>") == 6
    assert "<h1>pwned" not in rendered


@pytest.mark.parametrize("text", HOSTILE)
def test_inert_text_is_shown_letter_by_letter_in_one_cell(text: str) -> None:
    page = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(
        markdown_table(["a", "b"], [(text, "end")])
    )
    cells = re.findall(r"<td>(.*?)</td>", page)
    assert len(cells) == 2
    shown = re.sub("</?code>", "", cells[0])
    import html

    assert html.unescape(shown) == " ".join(text.split())
    assert cells[1] == "<code>end</code>"


def test_a_text_without_letters_leaves_no_empty_markup() -> None:
    assert inert_text("\u202e\n") == "(empty)"
