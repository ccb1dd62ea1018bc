"""Leakage: what a reference shows is told by its captions or cut out of its picture."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from builders.device import ON_DEVICE
from builders.pictures_folder import encoded, picture
from builders.tiny_clip import write_tiny_clip
from builders.tiny_sam import disc, tiny_sam
from PIL import Image, ImageDraw
from pydantic import ValidationError

from stylear.curate.recipe.base import AbsolutePaths
from stylear.curate.recipe.scores import AestheticScore, LeakageScore
from stylear.curate.references import StyleReference, load_references
from stylear.curate.score import compute_scorer_fingerprint, open_scorer
from stylear.curate.score.leakage import LeakageScorer, cut_out_subjects, require_scene
from stylear.curate.score.scorer import Context
from stylear.curate.score.sweep import ShardToScore, score_shards
from stylear.encoders.clip import ClipEncoder
from stylear.encoders.segment import cut_out, subject_mask
from stylear.errors import SourceError, WeightsError
from stylear.pair import Origin, Pair
from stylear.sampling.references import load_styles

# --- scenes -----------------------------------------------------------------------------------


def recipe(folder: Path) -> Any:
    source = SimpleNamespace(type="folder", path=folder)
    return SimpleNamespace(references=[source], seed=0, mix=SimpleNamespace(val_fraction=0))


def test_a_scene_stands_beside_the_picture_or_in_the_notes(tmp_path: Path) -> None:
    for n, name in enumerate(("dots--1", "dots--2", "lines")):
        (tmp_path / f"{name}.png").write_bytes(encoded(n, 24))
    (tmp_path / "dots--1.txt").write_text("a house\n by the sea ")
    (tmp_path / "dots--2.txt").write_text("not this")
    (tmp_path / "references.json").write_text('[{"file": "dots--2.png", "scene": "a cat"}]')
    expected = {"dots--1": "a house by the sea", "dots--2": "a cat", "lines": None}
    assert {r.id: r.scene for r in load_references(recipe(tmp_path))} == expected
    assert {r.id: r.scene for r in load_styles(tmp_path)} == expected
    (tmp_path / "lines.txt").write_text("  \n")
    assert load_references(recipe(tmp_path))[-1].scene is None
    (tmp_path / "lines.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceError, match=r"lines\.txt: expected the caption of lines\.png"):
        load_references(recipe(tmp_path))


def test_the_embedded_references_have_their_scenes() -> None:
    source = SimpleNamespace(type="mini", names=["mosaic"])
    mini = SimpleNamespace(references=[source], seed=0, mix=SimpleNamespace(val_fraction=0))
    references = load_references(mini)
    assert [r.scene for r in references] == [r.scene for r in load_styles("mosaic")]
    assert references[0].scene == "a garden gate"


# --- subjects ---------------------------------------------------------------------------------


def reference(name: str, image: Image.Image) -> StyleReference:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return StyleReference(name, stream.getvalue(), "0" * 64, Path(f"{name}.png"), False)


def test_a_reference_without_a_subject_has_no_cut_out() -> None:
    with_disc = picture(1)
    ImageDraw.Draw(with_disc).ellipse((10, 10, 30, 30), (200, 20, 10))
    cut_outs = cut_out_subjects(
        [reference("plain", picture(0)), reference("disc", with_disc)], "grabcut"
    )
    assert set(cut_outs) == {"disc"}
    shown = Image.open(io.BytesIO(cut_outs["disc"]))
    assert shown.getpixel((20, 20)) == (200, 20, 10)
    assert shown.getpixel((2, 2)) == (255, 255, 255)


def test_a_reference_without_a_caption_is_named() -> None:
    with pytest.raises(SourceError, match=r"disc\.png: expected a caption") as caught:
        require_scene(reference("disc", picture(0)))
    assert "disc.txt" in str(caught.value.hint)


def test_a_segment_anything_checkpoint_cuts_the_subject_out(tmp_path: Path) -> None:
    torch.save(tiny_sam().state_dict(), tmp_path / "sam.pth")
    method, model = f"sam:{tmp_path / 'sam.pth'}", write_tiny_clip(tmp_path / "clip")
    shown = reference("disc", disc())
    origin = Origin("stylized", "test", "x", reference="disc")
    pair = Pair("k", "a cat", encoded(3, 32), origin)
    context = Context([shown])
    spec = leakage(model=str(model), segment=method, **ON_DEVICE)
    shard = ShardToScore("stylized", [pair], [open_scorer(spec, context)])
    [table] = score_shards([shard], context, lambda number, tables: tables["leak"])
    clip = ClipEncoder.open(str(model))
    subject = cut_out(shown.image, subject_mask(shown.image, method))
    image, content = clip.embed_images(clip.preprocess([pair.image, subject]))
    assert table["leak"].to_pylist() == pytest.approx([float(image @ content)], abs=2e-5)


def test_captions_that_the_model_truncates_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_tiny_clip(tmp_path / "clip")
    shown = [
        replace(reference("short", picture(0)), scene="a red house"),
        replace(reference("long", picture(1)), scene="a red house " * 9),
    ]
    scorer = LeakageScorer(leakage(model=str(model), **ON_DEVICE), Context(shown))
    assert set(scorer._embed_contents()) == {"short", "long"}
    stderr = capsys.readouterr().err
    assert "leak: the captions of long are longer than the model's context" in stderr


# --- settings ---------------------------------------------------------------------------------


def leakage(**changes: Any) -> LeakageScore:
    return LeakageScore(name="leak", type="leakage", **changes)


def test_files_that_are_there_become_absolute_and_names_stay(tmp_path: Path) -> None:
    (tmp_path / "sam.pth").write_bytes(b"")
    settings = leakage(segment="sam:sam.pth").map_paths(AbsolutePaths(tmp_path))
    assert settings.segment == f"sam:{tmp_path / 'sam.pth'}"
    for method in (None, "grabcut", "sam:sam-vit-b"):
        assert leakage(segment=method).map_paths(AbsolutePaths(tmp_path)).segment == method
    (tmp_path / "head.pth").write_bytes(b"")
    nice = AestheticScore(name="nice", type="aesthetic", model="mini-clip", head="head.pth")
    assert nice.map_paths(AbsolutePaths(tmp_path)).head == str(tmp_path / "head.pth")
    with pytest.raises(ValidationError, match="segment"):
        leakage(segment="mask.png")


def test_another_checkpoint_of_segment_anything_changes_the_fingerprint(tmp_path: Path) -> None:
    def fingerprint(segment: str | None) -> str:
        return compute_scorer_fingerprint(leakage(segment=segment))

    sam = tmp_path / "sam.pth"
    sam.write_bytes(b"one")
    before = fingerprint(f"sam:{sam}@3,4")
    assert len({fingerprint(None), fingerprint("grabcut"), before}) == 3
    sam.write_bytes(b"two")
    assert fingerprint(f"sam:{sam}@3,4") != before
    with pytest.raises(WeightsError, match=r"none\.pth: expected a model"):
        fingerprint(f"sam:{tmp_path / 'none.pth'}")
