"""Prompts longer than the model's context: counted in the ledger, and said by every command that should."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builders.device import ON_DEVICE
from builders.drawn_jobs import SIZE
from builders.pictures_folder import make_folders, settings, write_recipe
from builders.tiny_sdxl import write_sdxl
from typer.testing import CliRunner

from stylear.curate.audit.manifest import build_manifest
from stylear.curate.cli import app
from stylear.curate.corpus.ledger import Ledger
from stylear.curate.corpus.shards import iter_pairs
from stylear.curate.synthesize.truncation import describe_truncation, note_truncation
from stylear.pair import Origin, Pair

pytestmark = pytest.mark.filterwarnings(  # diffusers' Euler scheduler turns tensors into arrays
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

WARNING = (
    "2 stylized images have prompts longer than the model's context: the longest has 125 tokens, the"
    " limit is 77, and {cut!r} was cut; shorten the prompts, or see prompt_truncated_at in the pairs"
)


def run(*arguments: object) -> Any:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two prompts of 41 and 40 words, each in one style, and a short one; a word has three tokens."""
    root = tmp_path_factory.mktemp("truncated")
    make_folders(root, pictures=3, styles=2)
    write_sdxl(root / "models")
    prompts = [" ".join(["cat"] * 41), " ".join(["owl"] * 40), "a cat"]
    (root / "prompts.txt").write_text("\n".join(prompts) + "\n", "utf-8")
    spec = {
        "backend": "style-aligned",
        "prompts": "prompts.txt",
        "candidates": 1,
        "shard_pairs": 1,
        "settings": {
            "model": "models/sdxl",
            "size": SIZE,
            "steps": 1,
            "inversion_skip": 0,
            "shared_layers": 0,
            **ON_DEVICE,
        },
    }
    recipe = write_recipe(root, settings(synthesize=spec, score=[], mix={"val_fraction": 0.0}))
    run("fetch", recipe, "--out", root / "corpus")
    return root / "corpus"


def test_truncated_prompts_are_a_warning_of_the_stage_and_of_its_json(corpus: Path) -> None:
    done = run("synthesize", "--out", corpus, "--workers", 1, "--json")
    pairs = list(iter_pairs(corpus / "stylized"))
    longest = max(pairs, key=lambda pair: len(pair.caption))
    cut = str(longest.origin.details["prompt_truncated_text"])
    assert cut
    assert longest.caption.replace(" ", "").endswith(cut.replace(" ", ""))
    shown = cut if len(cut) <= 80 else f"{cut[:77]}..."
    [stage] = json.loads(done.stdout)
    assert stage["warnings"] == [WARNING.format(cut=shown)]
    assert f"warning: {WARNING.format(cut=shown)}" in done.stderr.splitlines()
    short = min(pairs, key=lambda pair: len(pair.caption))
    assert "prompt_truncated_text" not in short.origin.details

    again = run("synthesize", "--out", corpus, "--workers", 1, "--json")
    assert json.loads(again.stdout)[0]["warnings"] == stage["warnings"]  # from the ledger
    notes = [entry.note for entry in Ledger(corpus).entries("synthesize") if entry.unit != "all"]
    assert sorted(note.get("prompts_truncated", {}).get("tokens", 0) for note in notes) == [
        0,
        122,
        125,
    ]
    assert build_manifest(corpus)["warnings"][:1] == stage["warnings"]


def drawn(key: str, tokens: int, limit: int | None, text: str = "") -> Pair:
    details = {"prompt_tokens": tokens, "prompt_truncated_at": limit}
    if limit is not None:
        details["prompt_truncated_text"] = text  # type: ignore[assignment]
    return Pair(key, "a", b"", Origin("stylized", "s", "c", details=details))


def test_a_shard_notes_its_longest_prompt() -> None:
    pairs = [drawn("a", 80, 77, "x y z"), drawn("b", 90, 77, "the end"), drawn("c", 9, None)]
    expected = {"images": 2, "tokens": 90, "limit": 77, "cut": "the end"}
    assert note_truncation(pairs) == {"prompts_truncated": expected}
    assert note_truncation(pairs[2:]) == {}
    assert note_truncation([]) == {}


def test_nothing_truncated_is_no_warning() -> None:
    assert describe_truncation([]) == []
