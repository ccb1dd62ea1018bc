"""Plain folders: one picture and one caption a pair, and no name that leads out of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from builders.handmade_corpus import raw_pair, stylized_pair, write_corpus
from builders.tiny_corpus import picture

from stylear.curate.export.exporter import export
from stylear.curate.export.folders import style_folder
from stylear.pair import digest


def test_every_pair_is_a_picture_and_a_caption_in_its_styles_folder(
    tmp_path: Path, corpus: Path
) -> None:
    out = tmp_path / "out"
    export(corpus, "folders", out)
    pictures = {path.relative_to(out).as_posix() for path in out.rglob("*.png")}
    assert pictures == {
        f"train/1_raw/{digest('raw', 0)}.png",
        f"train/1_raw/{digest('raw', 1)}.png",
        f"train/1_raw/{digest('raw', 2)}.png",
        f"train/1_warm/{digest('stylized', 0, 'warm--1')}.png",
        f"train/1_cold/{digest('stylized', 1, 'cold')}.png",
        f"validation/1_raw/{digest('raw', 3)}.png",
        f"validation/1_ink/{digest('stylized', 3, 'ink--2')}.png",
    }
    image = out / f"train/1_raw/{digest('raw', 2)}.png"
    assert image.read_bytes() == picture(2)
    assert image.with_suffix(".txt").read_text("utf-8") == "thing 2"
    assert len(list(out.rglob("*.txt"))) == 7


def test_provenance_has_a_line_for_each_picture(tmp_path: Path, corpus: Path) -> None:
    out = tmp_path / "out"
    export(corpus, "folders", out)
    lines = (out / "provenance.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 7
    assert all((out / row["path"]).is_file() for row in rows)
    assert rows[2]["model"] == "sdxl-base-1.0"
    assert rows[2]["parent"] == digest("raw", 0)


@pytest.mark.parametrize(
    "style", ["../../evil", "/etc/passwd", "..", ".hidden", "a\\b", "con\0", "ä", "x" * 300, ""]
)
def test_a_hostile_style_stays_one_folder_inside(tmp_path: Path, style: str) -> None:
    corpus = write_corpus(tmp_path, {"train": [[raw_pair(0), stylized_pair(1, style)]]})
    out = tmp_path / "out"
    export(corpus, "folders", out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "out"]
    folders = sorted(path.name for path in (out / "train").iterdir())
    assert folders == sorted(["1_raw", f"1_{style_folder(style)}"])


def test_styles_that_are_cut_to_one_name_stay_apart() -> None:
    styles = ["Oil Paint", "oil paint", "Oil/Paint", "oil-paint", "OIL-PAINT", "raw", "Raw"]
    names = [style_folder(style) for style in styles]
    assert names[3] == "oil-paint"
    assert len({name.lower() for name in [*names, style_folder(None)]}) == 8
    assert style_folder(None) == "raw"


def test_a_hostile_caption_is_only_text(tmp_path: Path) -> None:
    caption = "../../x; rm -rf ~ <script> ${HOME} \u202e"
    corpus = write_corpus(tmp_path, {"train": [[raw_pair(0, caption=caption)]]})
    export(corpus, "folders", tmp_path / "out")
    [text] = (tmp_path / "out").rglob("*.txt")
    assert text.read_bytes() == caption.encode()
