"""The scores of CSD, DINOv2, heads and neighbours, against the models used by hand."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from builders.encoder_scores import SCORES, STYLES, WITHOUT_SUBJECT
from builders.pictures_folder import settings, write_recipe
from builders.scored_corpus import recipe_of, scoring

from stylear.curate import run as runner
from stylear.curate.audit.scores import check_scores
from stylear.curate.corpus.layout import KINDS, score_path
from stylear.curate.corpus.pair_reader import PairReader
from stylear.curate.corpus.parquet import read_table
from stylear.curate.recipe import load_recipe
from stylear.curate.references import StyleReference, load_references
from stylear.curate.score import read_metadata
from stylear.encoders.aesthetic import AestheticHead
from stylear.encoders.clip import ClipEncoder
from stylear.encoders.dino import DinoEncoder, content_alignment
from stylear.encoders.segment import cut_out, subject_mask
from stylear.encoders.style import CsdEncoder
from stylear.pair import Pair
from stylear.weights.files import hash_path


def table(corpus: Path, scorer: str, kind: Any) -> pa.Table:
    folder = corpus / "ledger" / f"score.{scorer}"
    numbers = range(len(list(folder.glob(f"{kind}-*.json"))))
    parts = [read_table(score_path(corpus, scorer, kind, number)) for number in numbers]
    return pa.concat_tables(parts)


def scored(corpus: Path, scorer: str, kind: Any) -> dict[str, float | None]:
    scores = table(corpus, scorer, kind)
    return dict(zip(scores["key"].to_pylist(), scores[scorer].to_pylist(), strict=True))


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
    return {reference.id: reference for reference in load_references(recipe_of(home, SCORES))}


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
    metadata = read_metadata(table(home / "corpus", name, "stylized"))
    assert (metadata["model"], metadata["weights_sha256"]) == (encoder.name, encoder.weights_sha256)
    assert (metadata["dtype"], metadata["preprocessing"]) == ("float32", encoder.preprocessing)


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
    metadata = read_metadata(table(home / "corpus", "nice", "raw"))
    assert (metadata["head"], metadata["head_sha256"]) == ("head.pth", hash_path(home / "head.pth"))


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
    scores = scored(home / "corpus", "subject", "stylized")
    unscored = {key for key, value in scores.items() if value is None}
    close({key: value for key, value in scores.items() if key not in unscored}, subjects)
    assert unscored == {p.key for p in stylized if p.origin.reference == WITHOUT_SUBJECT}
    assert 0 < len(unscored) < len(scores)
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
    scores = scored(home / "corpus", "near", "stylized")
    assert set(scores) == set(expected)
    for key, value in expected.items():
        assert scores[key] == pytest.approx(value, abs=5e-4)  # embeddings lie in half precision


def test_nearest_of_raw_is_the_likest_other_raw_image(home: Path) -> None:
    clip, raw = ClipEncoder.open(str(home / "clip")), pairs_of(home / "corpus", "raw")
    images = clip.embed_images(clip.preprocess([pair.image for pair in raw]))
    cosines = images @ images.T - 9 * torch.eye(len(raw))
    scores = scored(home / "corpus", "near", "raw")
    values = np.array([scores[pair.key] for pair in raw], float)
    np.testing.assert_allclose(values, cosines.max(dim=1).values.numpy(), atol=5e-4)
    metadata = read_metadata(table(home / "corpus", "near", "raw"))
    assert metadata == read_metadata(table(home / "corpus", "near", "stylized"))
    assert metadata["compared"].startswith("raw: other sources")


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
