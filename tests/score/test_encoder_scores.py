"""The scorers of new encoders over a corpus, and their numbers against the encoders used by hand."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from builders.pictures_folder import make_folders, picture, settings, tree, write_recipe
from builders.scored_corpus import recipe_of, scoring
from builders.tiny_aesthetic import write_head
from builders.tiny_clip import write_tiny_clip
from builders.tiny_csd import write_tiny_csd
from builders.tiny_dino import write_tiny_dino
from PIL import ImageDraw

from stylear.curate import run as runner
from stylear.curate.audit.scores import check_scores
from stylear.curate.corpus.layout import KINDS, score_path
from stylear.curate.corpus.ledger import Ledger, StageInputs
from stylear.curate.corpus.object_store import corpus_path
from stylear.curate.corpus.pair_reader import PairReader
from stylear.curate.corpus.parquet import read_table
from stylear.curate.corpus.storage import FileInfo
from stylear.curate.recipe import load_recipe
from stylear.curate.references import StyleReference, load_references
from stylear.curate.score import read_metadata
from stylear.encoders.aesthetic import AestheticHead
from stylear.encoders.clip import ClipEncoder
from stylear.encoders.dino import DinoEncoder, content_alignment
from stylear.encoders.segment import cut_out, subject_mask
from stylear.encoders.style import CsdEncoder
from stylear.errors import SettingsChanged, SourceError, WeightsError
from stylear.pair import Pair
from stylear.weights.files import sha256_of

CLIP = {"model": "clip", "batch_size": 4, "device": "cpu"}
SCORES: list[dict[str, Any]] = [
    {**CLIP, "name": "csd", "type": "csd", "model": "csd.pth"},
    {**CLIP, "name": "dino", "type": "dino", "model": "dino"},
    {**CLIP, "name": "cas", "type": "cas", "model": "dino"},
    {**CLIP, "name": "nice", "type": "aesthetic", "head": "head.pth"},
    {**CLIP, "name": "leak", "type": "leakage"},
    {**CLIP, "name": "subject", "type": "leakage", "segment": "grabcut"},
    {**CLIP, "name": "near", "type": "nearest"},
]
WITHOUT_SUBJECT = "warm--1"
STYLES = ("warm--1", "warm--2", "cold--1", "cold--2")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sources, tiny models of every kind, and the corpus scored by all of them together."""
    root = tmp_path_factory.mktemp("encoders")
    make_folders(root, pictures=16, styles=0)
    for number, name in enumerate(STYLES):
        drawn = picture(1000 + number)
        if name != WITHOUT_SUBJECT:
            ImageDraw.Draw(drawn).ellipse((10, 10, 30, 30), (255 - 60 * number, 20 * number, 10))
        drawn.save(root / "styles" / f"{name}.png")
        (root / "styles" / f"{name}.txt").write_text(f"a {('red', 'blue')[number % 2]} house")
    write_tiny_clip(root / "clip", seed=3)
    write_tiny_csd(root / "csd.pth")
    write_tiny_dino(root / "dino")
    write_head(root / "head.pth")
    scoring(root, root / "corpus", SCORES, before=("fetch", "synthesize"))
    return root


@pytest.fixture
def built(home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(home / "corpus", tmp_path / "corpus"))


def table(corpus: Path, scorer: str, kind: Any) -> pa.Table:
    folder = corpus / "ledger" / f"score.{scorer}"
    numbers = range(len(list(folder.glob(f"{kind}-*.json"))))
    parts = [read_table(score_path(corpus, scorer, kind, number)) for number in numbers]
    return pa.concat_tables(parts)


def scored(corpus: Path, scorer: str, kind: Any) -> dict[str, float | None]:
    found = table(corpus, scorer, kind)
    return dict(zip(found["key"].to_pylist(), found[scorer].to_pylist(), strict=True))


def pairs_of(corpus: Path, kind: str) -> list[Pair]:
    pictures = PairReader(corpus, [kind])
    keys = [
        key
        for path in sorted((corpus / kind).glob("*.parquet"))
        for key in read_table(path)["key"].to_pylist()
    ]
    return [pictures.pair(key) for key in keys]


@pytest.fixture(scope="module")
def stylized(home: Path) -> list[Pair]:
    return pairs_of(home / "corpus", "stylized")


@pytest.fixture(scope="module")
def references(home: Path) -> dict[str, StyleReference]:
    return {one.id: one for one in load_references(recipe_of(home, SCORES))}


def close(found: dict[str, float | None], expected: dict[str, float]) -> None:
    assert set(found) == set(expected)
    assert len({round(value, 4) for value in expected.values()}) > len(expected) // 2  # they differ
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=2e-5)


@pytest.mark.parametrize("name", ["csd", "dino"])
def test_csd_and_dino_are_cosines_with_the_reference(
    home: Path, stylized: list[Pair], references: dict[str, StyleReference], name: str
) -> None:
    csd, dino = CsdEncoder.open(home / "csd.pth"), DinoEncoder.open(home / "dino")
    encoder: Any = csd if name == "csd" else dino
    expected = {}
    for pair in stylized:
        other = references[str(pair.origin.reference)].image
        one, two = encoder.embed_images(encoder.preprocess([pair.image, other]))
        expected[pair.key] = float(one @ two)
    close(scored(home / "corpus", name, "stylized"), expected)
    assert set(scored(home / "corpus", name, "raw").values()) == {None}
    told = read_metadata(table(home / "corpus", name, "stylized"))
    assert (told["model"], told["weights_sha256"]) == (encoder.name, encoder.weights_sha256)
    assert (told["dtype"], told["preprocessing"]) == ("float32", encoder.preprocessing)


def test_cas_compares_the_patches_of_image_and_parent(home: Path, stylized: list[Pair]) -> None:
    dino = DinoEncoder.open(home / "dino")
    parents = {pair.key: pair for pair in pairs_of(home / "corpus", "raw")}
    expected = {}
    for pair in stylized:
        content = parents[str(pair.origin.parent)].image
        a, b = dino.patch_features(dino.preprocess([content, pair.image]))
        expected[pair.key] = float(content_alignment(a[None], b[None]))
    close(scored(home / "corpus", "cas", "stylized"), expected)
    assert set(scored(home / "corpus", "cas", "raw").values()) == {None}


def test_the_aesthetic_score_is_the_head_on_clip_of_every_image(home: Path) -> None:
    clip, head = ClipEncoder.open(str(home / "clip")), AestheticHead.open(home / "head.pth", 24)
    for kind in KINDS:
        expected = {
            pair.key: float(head.rate(clip.embed_images(clip.preprocess([pair.image])))[0])
            for pair in pairs_of(home / "corpus", kind)
        }
        close(scored(home / "corpus", "nice", kind), expected)
    told = read_metadata(table(home / "corpus", "nice", "raw"))
    assert (told["head"], told["head_sha256"]) == ("head.pth", sha256_of(home / "head.pth"))


def test_leakage_is_the_cosine_with_the_scene_or_the_subject_of_the_reference(
    home: Path, stylized: list[Pair], references: dict[str, StyleReference]
) -> None:
    clip = ClipEncoder.open(str(home / "clip"))
    scenes, subjects = {}, {}
    for pair in stylized:
        image = clip.embed_images(clip.preprocess([pair.image]))[0]
        reference = references[str(pair.origin.reference)]
        assert reference.scene is not None
        scenes[pair.key] = float(image @ clip.embed_texts([reference.scene])[0])
        if reference.id == WITHOUT_SUBJECT:
            continue
        subject = cut_out(reference.image, subject_mask(reference.image, "grabcut"))
        subjects[pair.key] = float(image @ clip.embed_images(clip.preprocess([subject]))[0])
    close(scored(home / "corpus", "leak", "stylized"), scenes)
    found = scored(home / "corpus", "subject", "stylized")
    unscored = {key for key, value in found.items() if value is None}
    close({key: value for key, value in found.items() if key not in unscored}, subjects)
    assert unscored == {p.key for p in stylized if p.origin.reference == WITHOUT_SUBJECT}
    assert 0 < len(unscored) < len(found)
    assert set(scored(home / "corpus", "leak", "raw").values()) == {None}
    assert read_metadata(table(home / "corpus", "leak", "stylized"))["content"] == "scene"
    assert read_metadata(table(home / "corpus", "subject", "stylized"))["content"] == "grabcut"


def test_nearest_is_the_likest_other_image_of_the_style(home: Path, stylized: list[Pair]) -> None:
    clip = ClipEncoder.open(str(home / "clip"))
    images = clip.embed_images(clip.preprocess([pair.image for pair in stylized])).double()
    expected = {}
    for i, pair in enumerate(stylized):
        style = str(pair.origin.reference).split("--")[0]
        job = (pair.origin.content, pair.origin.reference)
        expected[pair.key] = max(
            float(images[i] @ images[j])
            for j, other in enumerate(stylized)
            if str(other.origin.reference).split("--")[0] == style
            and (other.origin.content, other.origin.reference) != job
        )
    found = scored(home / "corpus", "near", "stylized")
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=5e-4)  # embeddings lie in half precision


def test_nearest_of_raw_is_the_likest_other_raw_image(home: Path) -> None:
    clip, raw = ClipEncoder.open(str(home / "clip")), pairs_of(home / "corpus", "raw")
    images = clip.embed_images(clip.preprocess([pair.image for pair in raw]))
    cosines = images @ images.T - 9 * torch.eye(len(raw))
    found = scored(home / "corpus", "near", "raw")
    values = np.array([found[pair.key] for pair in raw], float)
    np.testing.assert_allclose(values, cosines.max(dim=1).values.numpy(), atol=5e-4)
    told = read_metadata(table(home / "corpus", "near", "raw"))
    assert told == read_metadata(table(home / "corpus", "near", "stylized"))
    assert told["compared"].startswith("raw: other sources")


def test_scorers_added_later_write_the_same_bytes(home: Path, tmp_path: Path) -> None:
    """cas shares its pass with dino where both run, and the numbers do not show it."""
    corpus = tmp_path / "corpus"
    scoring(home, corpus, SCORES[2::2], before=("fetch", "synthesize"))
    scoring(home, corpus, SCORES)
    expected, found = tree(home / "corpus"), tree(corpus)
    found.pop("recipe.yaml"), expected.pop("recipe.yaml")
    assert found == expected


def test_going_on_after_a_kill_and_two_workers_write_the_same_bytes(
    home: Path, built: Path
) -> None:
    expected = tree(built)
    for scorer, unit in (
        ("near.embeddings", "raw-00000"),
        ("near", "stylized-00001"),
        ("cas", "stylized-00000"),
        ("leak", "raw-00000"),
    ):
        (built / "ledger" / f"score.{scorer}" / f"{unit}.json").unlink()
        (built / "scores" / scorer / f"{unit}.parquet").unlink()
    assert scoring(home, built, SCORES) == 4
    assert tree(built) == expected
    scoring(home, built, SCORES, workers=2, redo="score")
    assert tree(built) == expected


def test_a_corpus_in_a_store_has_the_same_scores(home: Path) -> None:
    corpus = corpus_path("memory://encoder-scores/corpus")
    scoring(home, corpus, SCORES, before=("fetch", "synthesize"))
    names = [
        path.relative_to(home / "corpus")
        for path in (home / "corpus" / "scores").rglob("*.parquet")
    ]
    assert len(names) == 6 * (len(SCORES) + 2)  # and embeddings, and perceptual hashes
    for name in names:
        assert (corpus / name.as_posix()).read_bytes() == (home / "corpus" / name).read_bytes()


def test_a_finished_score_step_does_nothing(home: Path, built: Path) -> None:
    assert scoring(home, built, SCORES) == 0


def test_a_damaged_neighbour_column_is_written_again(home: Path, built: Path) -> None:
    expected = tree(built)
    path = score_path(built, "near", "stylized", 0)
    path.write_bytes(path.read_bytes()[:-9] + b"damaged!!")
    assert scoring(home, built, SCORES) == 1
    assert tree(built) == expected


def test_neighbours_are_looked_for_again_when_the_corpus_changed(home: Path, built: Path) -> None:
    """Only what they are made of: other settings stop."""
    expected, ledger = tree(built), Ledger(built)
    entry = ledger.entry("score.near", "raw-00000")
    assert entry is not None
    made = StageInputs(entry.settings, entry.code_version, ["before the last retry"], entry.weights)
    counts = {"rows_in": entry.rows_in, "kept": entry.kept, "dropped": {}}
    files = {name: FileInfo.of(built / name) for name in entry.files}
    ledger.commit("score.near", "raw-00000", made, files=files, **counts)
    assert scoring(home, built, SCORES) == 1
    assert tree(built) == expected


def test_the_dino_model_passes_a_batch_once_for_dino_and_cas(
    home: Path, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: list[int] = []
    features = DinoEncoder.features

    def counted(self: DinoEncoder, pixels: torch.Tensor) -> torch.Tensor:
        passed.append(len(pixels))
        return features(self, pixels)

    monkeypatch.setattr(DinoEncoder, "features", counted)
    dino, cas = SCORES[1:3]
    scoring(home, built, [dino, cas], redo="score")
    both = sum(passed)
    passed.clear()
    scoring(home, built, [dino], redo="score")
    alone = sum(passed)
    passed.clear()
    scoring(home, built, [cas], redo="score")
    assert alone == 24 + len(STYLES)  # every stylized image, every reference
    assert both == sum(passed) + len(STYLES)


CHANGES: list[tuple[int, dict[str, Any], str]] = [
    (0, {"batch_size": 5}, r"score\.batch_size: 4 -> 5"),
    (3, {"head": "other.pth"}, r"score\.head: "),
    (4, {"segment": "grabcut"}, r'score\.segment: null -> "grabcut"'),
    (6, {"batch_size": 5}, r"score\.batch_size: 4 -> 5"),
]


@pytest.mark.parametrize(("number", "change", "message"), CHANGES)
def test_other_settings_stop(
    home: Path, built: Path, number: int, change: dict[str, Any], message: str
) -> None:
    write_head(home / "other.pth", seed=1)
    scores = [{**one, **change} if i == number else one for i, one in enumerate(SCORES)]
    with pytest.raises(SettingsChanged, match=message):
        scoring(home, built, scores)


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_other_weights_stop(home: Path, built: Path, tmp_path: Path, number: int) -> None:
    csd, dino = write_tiny_csd(tmp_path / "csd.pth"), write_tiny_dino(tmp_path / "dino")
    head = write_head(tmp_path / "head.pth")
    files = [{"model": str(csd)}, *[{"model": str(dino)}] * 2, {"head": str(head)}]
    scores = [{**SCORES[number], **files[number]}]
    scoring(home, built, scores, redo="score")
    write_tiny_csd(csd, seed=5)
    write_tiny_dino(dino, seed=5)
    write_head(head, seed=5)
    with pytest.raises(SettingsChanged, match="the weights of the model differ"):
        scoring(home, built, scores)


def test_another_caption_of_a_reference_stops_the_leakage_score_alone(
    home: Path, built: Path, tmp_path: Path
) -> None:
    place = tmp_path / "home"
    shutil.copytree(home, place, ignore=shutil.ignore_patterns("corpus"))
    scoring(place, built, SCORES, redo="fetch", before=("fetch", "synthesize"))
    (place / "styles" / "warm--1.txt").write_text("something else")
    assert scoring(place, built, [one for one in SCORES if one["name"] != "leak"]) == 0
    with pytest.raises(SettingsChanged, match=r"leak stylized-0000\d was made another way"):
        scoring(place, built, SCORES)


def test_a_reference_without_a_caption_is_named_before_anything_is_scored(
    home: Path, tmp_path: Path
) -> None:
    place = tmp_path / "home"
    shutil.copytree(home, place, ignore=shutil.ignore_patterns("corpus"))
    (place / "styles" / "cold--2.txt").unlink()
    with pytest.raises(SourceError, match=r"cold--2\.png: expected a caption") as caught:
        scoring(place, tmp_path / "corpus", SCORES, before=("fetch", "synthesize"))
    assert "cold--2.txt" in str(caught.value.hint)
    assert not (tmp_path / "corpus" / "scores").exists()


def test_a_head_of_another_clip_stops(home: Path, tmp_path: Path) -> None:
    write_head(home / "wide.pth", width=768)
    with pytest.raises(WeightsError, match="expected a head for embeddings of 24, found one for"):
        scoring(
            home,
            tmp_path / "corpus",
            [{**SCORES[3], "head": "wide.pth"}],
            before=("fetch", "synthesize"),
        )


@pytest.mark.parametrize(
    ("number", "change", "name"),
    [
        (0, {"model": "csd-vit-l"}, "csd-vit-l"),
        (2, {"model": "dinov2-base"}, "dinov2-base"),
        (3, {"head": "aesthetic-vit-l-14"}, "aesthetic-vit-l-14"),
        (4, {"segment": "sam:sam-vit-b"}, "sam-vit-b"),
    ],
)
def test_a_registered_model_that_is_not_there_is_reported_with_its_command(
    home: Path,
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    change: dict[str, Any],
    name: str,
) -> None:
    monkeypatch.setenv("STYLEAR_MODELS", str(tmp_path / "models"))
    with pytest.raises(WeightsError, match=name) as caught:
        scoring(home, built, [{**SCORES[number], **change}])
    assert f"stylear models fetch {name}" in str(caught.value.hint)


def test_every_column_is_of_one_measurement(home: Path) -> None:
    assert list(check_scores(home / "corpus", recipe_of(home, SCORES))) == []


def test_filters_compare_the_new_columns_and_the_audit_passes(home: Path, tmp_path: Path) -> None:
    near = scored(home / "corpus", "near", "stylized")
    middle = sorted(value for value in near.values() if value is not None)[len(near) // 2]
    rules = {"score": "near", "max": round(middle, 3)}, {"score": "cas", "max": 3.9}
    values = settings(score=SCORES, filter={"thresholds": list(rules), "best_of": 2})
    values["filter"]["duplicates"] = {"phash_distance": None}
    recipe = load_recipe(write_recipe(home, values, "whole.yaml"))
    corpus = Path(shutil.copytree(home / "corpus", tmp_path / "corpus"))
    runner.run(recipe, corpus, workers=1)  # the audit is its last step
    verdicts = read_table(corpus / "verdicts.parquet").to_pylist()
    dropped = {row["key"] for row in verdicts if row["reason"] == "near-above-max"}
    limit = round(middle, 3)
    assert dropped & set(near) == {k for k, v in near.items() if v is not None and v > limit}
    assert 0 < len(dropped & set(near)) < len(near)
