"""Planning, style references, and the synthesisers that need no weights."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import stylear.curate.references
from stylear.curate.recipe.base import AbsolutePaths
from stylear.curate.recipe.synthesis import SynthesizeSettings
from stylear.curate.recipe.synthesizers import PatchSettings, map_model_paths
from stylear.curate.references import StyleReference, load_references
from stylear.curate.synthesize import Job, dump_backend_settings, open_synthesizer
from stylear.curate.synthesize.backends.patch import content_weight, stylize
from stylear.curate.synthesize.backends.statistics import draw_rotations, match_distribution
from stylear.curate.synthesize.job import Encoding, decode_square, make_stylized_pair
from stylear.curate.synthesize.plan import plan_jobs
from stylear.curate.synthesize.prompts.sources import Content
from stylear.curate.synthesize.texture.guide import blur, luma, prepare_content
from stylear.errors import RecipeError, SourceError
from stylear.pair import content_id

SIZE = 32


def encode(image: Image.Image, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def drawing(seed: int, size: int = SIZE) -> bytes:
    """A coloured disc and a box on white."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (size, size), "white")
    pen = ImageDraw.Draw(image)
    colours = [tuple(int(v) for v in rng.integers(0, 200, 3)) for _ in range(2)]
    pen.ellipse((size // 8, size // 8, size * 3 // 4, size * 3 // 4), fill=colours[0])
    pen.rectangle((size // 2, size // 2, size - 4, size - 4), fill=colours[1])
    return encode(image)


def stripes(angle: int, size: int = SIZE) -> bytes:
    """Stripes of 4 px in two colours, along x (0) or y (1), each in a palette of its own."""
    place = np.mgrid[:size, :size][angle] // 4 % 2
    palette = np.array([[[250, 240, 210], [160, 20, 40]], [[20, 40, 90], [120, 220, 230]]])
    return encode(Image.fromarray(palette[angle][place].astype(np.uint8)))


def style(name: str, data: bytes) -> StyleReference:
    return StyleReference(name, data, hashlib.sha256(data).hexdigest(), Path(name), False)


STYLES = [style("rows", stripes(0)), style("columns", stripes(1))]


def recipe(backend: str = "patch", **changes: Any) -> Any:
    spec = {
        **SynthesizeSettings().model_dump(),
        "backend": backend,
        "references_per_content": 2,
        "settings": {},
        **changes,
    }
    return SimpleNamespace(
        seed=spec.pop("seed", 0),
        image=SimpleNamespace(size=spec.pop("size", SIZE), format="png", quality=95),
        mix=SimpleNamespace(val_fraction=spec.pop("val_fraction", 0.0)),
        synthesize=SimpleNamespace(**spec),
    )


def rows(count: int) -> list[Content]:
    return [Content(f"key{i}", f"a thing {i}", content_id(f"a thing {i}")) for i in range(count)]


def job(settings: Any, reference: StyleReference = STYLES[0], candidate: int = 0) -> Job:
    return Job(
        backend=settings.synthesize.backend,
        prompt="a thing",
        reference=reference.id,
        reference_sha256=reference.sha256,
        content=content_id("a thing"),
        parent="key0",
        candidate=candidate,
        settings=dump_backend_settings(settings),
    )


# --- settings ---------------------------------------------------------------------------------


def test_wrong_settings_name_the_key() -> None:
    with pytest.raises(
        RecipeError, match="expected one of patch, statistics, render, instantstyle"
    ):
        dump_backend_settings(recipe("gpdm"))
    with pytest.raises(RecipeError, match=r"synthesize\.settings\.contnt: .*found 1"):
        dump_backend_settings(recipe(settings={"contnt": 1}))
    with pytest.raises(RecipeError, match=r"synthesize\.settings\.patch: .*found 4"):
        dump_backend_settings(recipe(settings={"patch": 4}))
    with pytest.raises(RecipeError, match=r"synthesize\.settings\.model: .*found nothing"):
        dump_backend_settings(recipe("instantstyle"))


def test_paths_in_settings_are_relative_to_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "sdxl").mkdir()
    rule = AbsolutePaths(tmp_path)
    values = map_model_paths("instantstyle", {"model": "sdxl", "steps": 3}, rule)
    assert values == {"model": str(tmp_path / "sdxl"), "steps": 3}
    assert map_model_paths("patch", {"content": 0.1}, rule) == {"content": 0.1}


# --- references -------------------------------------------------------------------------------


def sources(*references: Any, val_fraction: float = 0.0) -> Any:
    return SimpleNamespace(
        seed=0, mix=SimpleNamespace(val_fraction=val_fraction), references=list(references)
    )


def test_references_of_a_folder_have_the_stem_as_id(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(stripes(0))
    (tmp_path / "a--1.jpg").write_bytes(encode(Image.new("RGB", (9, 9)), "JPEG"))
    (tmp_path / "notes.txt").write_text("no image")
    references = load_references(sources(SimpleNamespace(type="folder", path=tmp_path)))
    assert [(r.id, r.style) for r in references] == [("a--1", "a"), ("b", "b")]
    assert references[1].sha256 == hashlib.sha256(stripes(0)).hexdigest()
    held = load_references(sources(SimpleNamespace(type="folder", path=tmp_path), val_fraction=1))
    assert [r.held_out for r in held] == [True, True]
    assert not any(r.held_out for r in references)


def test_mini_references_are_named_by_style(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mosaic--1", "mosaic--2", "chalk--1", "stained-glass--1"):
        (tmp_path / f"{name}.png").write_bytes(stripes(0))
    monkeypatch.setattr(stylear.curate.references, "MINI", tmp_path)

    def ids(names: list[str] | None) -> list[str]:
        return [r.id for r in load_references(sources(SimpleNamespace(type="mini", names=names)))]

    assert ids(["mosaic"]) == ["mosaic--1", "mosaic--2"]
    assert ids(["mosaic--2"]) == ["mosaic--2"]
    assert ids(None) == ["chalk--1", "mosaic--1", "mosaic--2"]
    assert ids(["stained-glass"]) == ["stained-glass--1"]  # held out, so only by name
    with pytest.raises(RecipeError, match="no embedded style is called 'mosiac'") as caught:
        ids(["mosiac"])
    assert caught.value.hint == "embedded styles: chalk, mosaic, stained-glass"


def test_bad_references_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no folder at"):
        load_references(sources(SimpleNamespace(type="folder", path=tmp_path / "absent")))
    with pytest.raises(SourceError, match="holds no images"):
        load_references(sources(SimpleNamespace(type="folder", path=tmp_path)))
    (tmp_path / "cut.png").write_bytes(stripes(0)[:60])
    with pytest.raises(SourceError, match=r"cut\.png is not a readable image"):
        load_references(sources(SimpleNamespace(type="folder", path=tmp_path)))
    (tmp_path / "cut.png").write_bytes(stripes(0))
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "cut.png").write_bytes(stripes(1))
    both = [SimpleNamespace(type="folder", path=p) for p in (tmp_path, tmp_path / "more")]
    with pytest.raises(RecipeError, match="two files have the id 'cut'"):
        load_references(sources(*both))


# --- images -----------------------------------------------------------------------------------

QUICK = {"patch": {}, "statistics": {}, "sliced": {"match": "sliced", "steps": 3}}


@pytest.mark.parametrize("name", sorted(QUICK))
@pytest.mark.cpu
def test_neighbours_order_and_threads_change_no_byte(name: str) -> None:
    spec = recipe("patch" if name == "sliced" else name, settings=QUICK[name])
    jobs = plan_jobs(rows(2), STYLES, spec)
    work = [(j, drawing(int(j.parent[-1]))) for j in jobs if j.parent]
    together = {p.key: p.image for p in open_synthesizer(spec, STYLES)(work)}
    assert len(set(together.values())) == len(jobs) == 8
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        turned = open_synthesizer(spec, STYLES)
        apart = {p.key: p.image for item in work[::-1] for p in turned([item])}
    finally:
        assert torch.get_num_threads() == threads + 1
        torch.set_num_threads(threads)
    assert apart == together


@pytest.mark.parametrize("name", sorted(QUICK))
def test_palette_is_the_references_and_shapes_the_contents(name: str) -> None:
    settings = {"match": "sliced", "steps": 15} if name == "sliced" else {}
    spec = recipe("patch" if name == "sliced" else name, settings=settings)
    content = drawing(3)
    pair = open_synthesizer(spec, STYLES)([(job(spec), content)])[0]
    assert pair.kept
    pixels, before = decode_square(pair.image, SIZE), decode_square(content, SIZE)
    light, dark = np.array([250, 240, 210]) / 255, np.array([160, 20, 40]) / 255

    def distance(image: np.ndarray) -> float:  # from the mixtures of the two colours
        share = np.clip((image - dark) @ (light - dark) / np.sum((light - dark) ** 2), 0, 1)
        mixtures = dark + share[..., None] * (light - dark)
        return float(np.linalg.norm(image - mixtures, axis=-1).mean())

    assert distance(pixels) < 0.7 * distance(before)
    smooth = [blur(luma(torch.from_numpy(x).permute(2, 0, 1)), 2.0) for x in (pixels, before)]
    assert np.corrcoef(smooth[0].flatten(), smooth[1].flatten())[0, 1] > 0.6


def test_patch_lays_stripes_the_way_the_reference_runs() -> None:
    grey = torch.full((3, SIZE, SIZE), 0.6)

    def energy(reference: bytes) -> tuple[float, float]:
        style_image = torch.from_numpy(decode_square(reference, SIZE)).permute(2, 0, 1)
        out = luma(stylize(grey, style_image, 1, PatchSettings(content=0.2)))
        return float(out.diff(dim=1).abs().mean()), float(out.diff(dim=2).abs().mean())

    down, across = energy(stripes(0))
    assert down > 2 * across
    down, across = energy(stripes(1))
    assert across > 2 * down


def test_more_content_weight_keeps_more_content() -> None:
    content = torch.from_numpy(decode_square(drawing(5), SIZE)).permute(2, 0, 1)
    reference = torch.from_numpy(decode_square(stripes(0), SIZE)).permute(2, 0, 1)

    def likeness(weight: float) -> float:
        out = stylize(content, reference, 1, PatchSettings(content=weight, content_spread=0))
        both = torch.stack([blur(luma(x), 1.5).flatten() for x in (out, content)])
        return float(torch.corrcoef(both)[0, 1])

    assert likeness(0.9) > likeness(0.1)


def test_candidates_differ_in_seed_and_content_weight() -> None:
    settings = PatchSettings(content=0.5, content_spread=0.1)
    weights = {content_weight(seed, settings) for seed in range(20)}
    assert len(weights) == 20
    assert 0.4 <= min(weights) < 0.45 < 0.55 < max(weights) <= 0.6
    spec = recipe()
    pairs = open_synthesizer(spec, STYLES)([(job(spec, candidate=c), drawing(1)) for c in (0, 1)])
    assert pairs[0].image != pairs[1].image
    recorded = [pair.origin.details["content_weight"] for pair in pairs]
    assert recorded == [
        content_weight(job(spec, candidate=c).seed, PatchSettings()) for c in (0, 1)
    ]


def test_a_light_ground_turns_dark_under_a_dark_reference() -> None:
    content = torch.ones(3, SIZE, SIZE)
    content[:, 10:20, 10:20] = 0.2
    dark = torch.full((3, SIZE, SIZE), 0.1)
    turned = luma(prepare_content(content, dark, PatchSettings(outline=0, figure=0)))
    assert float(turned[0, 0, 0]) == pytest.approx(0, abs=1e-5)
    assert float(turned[0, 15, 15]) == pytest.approx(0.8, abs=1e-5)
    same = prepare_content(content, dark, PatchSettings(outline=0, figure=0, invert="never"))
    assert torch.equal(same, content)
    assert torch.equal(
        prepare_content(content, 1 - dark, PatchSettings(outline=0, figure=0)), content
    )
    off = prepare_content(content, 1 - dark, PatchSettings(outline=0, figure=0.25))
    assert float(off[0, 0, 0]) == 1
    assert float(off[0, 15, 15]) == pytest.approx(0.2 - 0.25, abs=1e-5)


def test_transport_makes_the_distributions_equal() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(1, 50, generator=generator)
    target = torch.randn(1, 50, generator=generator)
    moved = match_distribution(points, target, torch.ones(1, 1, 1))
    assert torch.allclose(moved.sort().values, target.sort().values, atol=1e-6)
    assert torch.equal(moved.argsort(), points.argsort())
    frames = draw_rotations(4, 3, generator)
    assert torch.allclose(frames @ frames.transpose(1, 2), torch.eye(3).expand(4, 3, 3), atol=1e-5)


@pytest.mark.parametrize("backend", ["patch", "statistics"])
def test_any_sizes_of_content_and_reference_meet(backend: str) -> None:
    spec = recipe(backend, size=40, settings={"reference_size": 24})
    wide = encode(Image.new("RGBA", (90, 50), (10, 200, 30, 128)))
    pair = open_synthesizer(spec, STYLES)([(job(spec), wide)])[0]
    assert Image.open(io.BytesIO(pair.image)).size == (40, 40)


def test_metadata_of_a_stylized_pair() -> None:
    spec = recipe(settings={"outline": 0.1})
    task = job(spec, candidate=1)
    pair = open_synthesizer(spec, STYLES)([(task, drawing(1))])[0]
    origin = pair.origin
    assert (pair.key, pair.caption, origin.kind) == (task.key, "a thing", "stylized")
    assert (origin.source, origin.parent, origin.content) == (
        "synthesizer:patch",
        "key0",
        content_id("a thing"),
    )
    assert (origin.reference, origin.reference_sha256) == ("rows", STYLES[0].sha256)
    details = origin.details
    assert (details["group"], details["candidate"], details["seed"]) == (task.group, 1, task.seed)
    assert (details["outline"], details["match"], details["version"]) == (0.1, "nearest", 1)
    assert "batch_size" not in details


def test_what_cannot_be_synthesised_is_dropped_with_a_reason() -> None:
    spec = recipe("statistics")
    synthesizer = open_synthesizer(spec, STYLES)
    tasks = [job(spec, candidate=c) for c in range(3)]
    pairs = synthesizer(list(zip(tasks, [drawing(1), b"no image", drawing(2)], strict=True)))
    assert [pair.kept for pair in pairs] == [True, False, True]
    assert [pair.key for pair in pairs] == [task.key for task in tasks]
    assert (pairs[1].image, pairs[1].verdict.stage, pairs[1].verdict.reason) == (
        b"",
        "synthesize",
        "bad-content",
    )
    nan = make_stylized_pair(tasks[0], np.full((4, 4, 3), np.nan, np.float32), Encoding(4), {})
    assert (nan.image, nan.verdict.reason) == (b"", "not-finite")


def test_jpeg_is_stored_when_asked() -> None:
    grey = np.full((8, 8, 3), 0.5, np.float32)
    assert Encoding(8, "jpg", 90).encode(grey)[:3] == b"\xff\xd8\xff"
    assert decode_square(Encoding(8).encode(grey), 8)[0, 0, 0] == pytest.approx(128 / 255)


def test_render_draws_the_style_of_the_reference_and_refuses_other_ids() -> None:
    from stylear.curate.synthesize.backends import render
    from stylear.mini.styles import make_style
    from stylear.mini.styles import render as drawn

    content = np.full((64, 64, 3), 255, np.uint8)
    content[20:44, 20:44] = (200, 30, 30)
    tensor = torch.from_numpy(content).permute(2, 0, 1).float() / 255
    pixels = (render.stylize(tensor, "neon--07", 5).permute(1, 2, 0).numpy() * 255).round()
    assert (pixels == drawn(content, make_style("neon", 7), 5)).all()
    with pytest.raises(RecipeError, match="mosaic--03"):
        render.stylize(tensor, "sunset", 5)
