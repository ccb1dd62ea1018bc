"""What decides an image of a diffusers synthesiser: bits, keys, caches, workers."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from builders.diffusion_jobs import draw_blank, draw_jobs
from builders.drawn_jobs import (
    REFERENCES,
    SIZE,
    draw,
    jobs_of,
    recipe,
)
from builders.pictures_folder import make_folders, make_recipe, settings, tree

from stylear.curate import run as runner
from stylear.curate.corpus.shards import iter_pairs
from stylear.curate.synthesize import open_synthesizer
from stylear.curate.synthesize.diffusers.lru_cache import LruCache
from stylear.curate.synthesize.diffusers.prompt_cache import PromptCache
from stylear.curate.synthesize.step import ParentImages
from stylear.errors import WeightsError

pytestmark = pytest.mark.filterwarnings(  # diffusers' Euler scheduler turns tensors into arrays
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


@pytest.mark.cpu
def test_batch_size_order_and_neighbours_change_no_bit_on_a_cpu(folder: Path) -> None:
    jobs, alone = draw(recipe(folder, batch_size=1))
    _, batched = draw(recipe(folder, batch_size=4))
    assert batched == alone
    backwards = draw_jobs(open_synthesizer(recipe(folder, batch_size=4), REFERENCES), jobs[::-1])
    assert backwards[::-1] == alone
    few = draw_jobs(open_synthesizer(recipe(folder), REFERENCES), jobs[5:6])
    assert few == alone[5:6]
    assert len({pair.image for pair in alone}) == 8


@pytest.mark.cpu
def test_torch_threads_are_those_of_the_settings_and_are_given_back(folder: Path) -> None:
    before = torch.get_num_threads()
    seen = []
    synthesizer: Any = open_synthesizer(recipe(folder, threads=2), REFERENCES)
    synthesizer.draw = lambda batch: seen.append(torch.get_num_threads()) or draw_blank(batch)
    draw_jobs(synthesizer, jobs_of(recipe(folder, threads=2))[:1])
    assert seen == [2]
    assert torch.get_num_threads() == before


def test_where_a_model_is_and_how_fast_it_runs_are_no_part_of_a_key(
    folder: Path, tmp_path: Path
) -> None:
    keys = [job.key for job in jobs_of(recipe(folder))]
    moved = recipe(
        folder, model=str(tmp_path / "sdxl"), batch_size=9, offload="model", compile=True
    )
    assert [job.key for job in jobs_of(moved)] == keys
    for change in ({"model": "other"}, {"steps": 3}, {"lora": "lcm"}, {"vae_tiling": True}):
        assert not set(keys) & {job.key for job in jobs_of(recipe(folder, **change))}


def test_prompts_and_references_are_encoded_once(folder: Path, synthesizer: Any) -> None:
    encoded: list[list[str]] = []
    pictures: list[Any] = []
    pipeline = synthesizer.pipeline
    prompt, image = pipeline.encode_prompt, pipeline.encode_image

    def encode_prompt(**arguments: Any) -> Any:
        if arguments.get("prompt") is not None:
            encoded.append(arguments["prompt"])
        return prompt(**arguments)

    def encode_image(*arguments: Any) -> Any:
        pictures.append(arguments[0])
        return image(*arguments)

    pipeline.encode_prompt, pipeline.encode_image = encode_prompt, encode_image
    jobs = jobs_of(recipe(folder))
    draw_jobs(synthesizer, jobs)
    draw_jobs(synthesizer, jobs)
    assert sorted(encoded) == [["a cat"], ["an owl"], ["blurry"]]
    assert len(pictures) == len(REFERENCES)


@pytest.mark.cpu
def test_a_corpus_has_the_same_bytes_with_any_workers_and_wherever_its_models_lie(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ParentImages, "image", None)  # no picture is read for what draws prompts
    make_folders(tmp_path, pictures=6, styles=3)
    shutil.copytree(folder, tmp_path / "models")
    (tmp_path / "moved").mkdir()
    shutil.copytree(folder, tmp_path / "moved" / "models")
    for name in ("photos", "styles"):
        shutil.copytree(tmp_path / name, tmp_path / "moved" / name)

    def build(root: Path, out: str, workers: int) -> dict[str, bytes]:
        spec = {
            "backend": "ip-adapter",
            "contents": 3,
            "candidates": 2,
            "shard_pairs": 2,
            "settings": {
                "model": "models/sdxl",
                "ip_adapter": "models/adapter",
                "ip_adapter_weight_name": "ip-adapter-plus_sdxl_vit-h.bin",
                "size": SIZE,
                "steps": 1,
                "device": "cpu",
            },
        }
        recipe = make_recipe(root, settings(synthesize=spec))
        runner.run_stages(["fetch", "synthesize"], recipe, root / out, workers=workers)
        return tree(root / out / "stylized")

    one = build(tmp_path, "one", 1)
    assert sorted(one) == [f"{i:05d}.{end}" for i in range(3) for end in ("parquet", "tar")]
    assert build(tmp_path, "two", 2) == one
    assert build(tmp_path / "moved", "one", 1) == one
    pairs = list(iter_pairs(tmp_path / "one" / "stylized"))
    assert [pair.kept for pair in pairs] == [True] * 6
    assert {pair.origin.details["adapter"] for pair in pairs} == {"plus"}
    shutil.rmtree(tmp_path / "models")
    assert build(tmp_path, "one", 1) == one  # what is finished needs no model
    (tmp_path / "one" / "stylized" / "00001.tar").unlink()
    with pytest.raises(WeightsError, match="models/adapter: expected a model directory"):
        build(tmp_path, "one", 1)


def test_models_that_are_not_there_are_reported_before_anything_is_drawn(
    folder: Path, tmp_path: Path
) -> None:
    make_folders(tmp_path, pictures=3, styles=2)
    spec = {"backend": "ip-adapter", "settings": {"model": "none", "ip_adapter": "none"}}
    recipe = make_recipe(tmp_path, settings(synthesize=spec))
    with pytest.raises(WeightsError, match="none: expected a model directory"):
        runner.run_stages(["fetch", "synthesize"], recipe, tmp_path / "corpus", workers=1)
    assert not (tmp_path / "corpus" / "stylized").exists()


def test_an_lru_cache_evicts_the_least_recently_used_value() -> None:
    calls: list[str] = []

    def make(name: str) -> str:
        calls.append(name)
        return name.upper()

    cache = LruCache[str](2)
    names = ["a", "b", "a", "c", "a", "b"]
    assert [cache.get_or_make(name, partial(make, name)) for name in names] == [
        "A",
        "B",
        "A",
        "C",
        "A",
        "B",
    ]
    assert calls == ["a", "b", "c", "b"]
    assert ("a" in cache, "b" in cache, "c" in cache) == (True, True, False)


def test_a_batch_of_more_prompts_than_the_cache_holds_is_complete(
    synthesizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = synthesizer.prompts
    one, two = (cache.embeddings([prompt], "blurry") for prompt in ("a cat", "an owl"))
    monkeypatch.setattr(cache, "_cache", LruCache[Any](1))
    both = cache.embeddings(["a cat", "an owl", "a cat"], "blurry")
    assert sorted(both) == sorted(one)
    for name, value in both.items():
        assert torch.equal(value, torch.cat([one[name], two[name], one[name]]))


def test_a_gpu_encodes_the_new_prompts_of_a_batch_together() -> None:
    prompts: list[list[str]] = []

    def encode_prompt(prompt: list[str], **_: Any) -> Any:
        prompts.append(prompt)
        numbers = torch.arange(float(len(prompt)))
        return numbers[:, None, None].expand(-1, 3, 2), None, numbers[:, None].expand(-1, 4), None

    cache = PromptCache(SimpleNamespace(encode_prompt=encode_prompt), "cuda", guided=True)
    first = cache.embeddings(["a", "b", "a"], "no")
    assert prompts == [["a", "b"], ["no"]]
    assert first["prompt_embeds"][:, 0, 0].tolist() == [0, 1, 0]
    assert first["negative_pooled_prompt_embeds"].shape == (3, 4)
    cache.embeddings(["b", "c"], "no")
    assert prompts[2:] == [["c"]]
