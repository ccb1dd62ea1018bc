"""What all diffusers synthesisers share: bits, batches, memory, retries, lineage, what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from builders.drawn_jobs import (
    GUIDANCE,
    REFERENCES,
    ROWS,
    SIZE,
    STEPS,
    draw,
    drawn_plainly,
    jobs_of,
    pixels_of,
    recipe,
)
from builders.pictures_folder import make_folders, make_recipe, settings, tree
from builders.tiny_sdxl import write_lora, write_sdxl
from safetensors.torch import load_file, save_file

from stylear.curate import run as runner
from stylear.curate.corpus.shards import iter_pairs
from stylear.curate.recipe.synthesizers import InstantStyleSettings
from stylear.curate.references import StyleReference
from stylear.curate.synthesize import open_synthesizer
from stylear.curate.synthesize.diffusers.load import choose_device, choose_dtype, list_files
from stylear.curate.synthesize.diffusers.lru_cache import LruCache
from stylear.curate.synthesize.diffusers.prompt_cache import PromptCache
from stylear.curate.synthesize.diffusers.synthesizer import (
    DrawnImage,
    crop_to_square,
    is_out_of_memory,
)
from stylear.curate.synthesize.diffusers.tuning import move_to_device
from stylear.curate.synthesize.job import Encoding
from stylear.curate.synthesize.prompts.sources import Content
from stylear.curate.synthesize.step import ParentImages
from stylear.errors import RecipeError, SourceError, WeightsError
from stylear.pair import Pair, seed_of

pytestmark = pytest.mark.filterwarnings(  # diffusers' Euler scheduler turns tensors into arrays
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

PARTS = ("unet", "vae")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sdxl(tmp_path_factory.mktemp("sdxl"))


@pytest.fixture
def synthesizer(folder: Path) -> Any:
    return open_synthesizer(recipe(folder), REFERENCES)


def made(synthesizer: Any, jobs: list[Any]) -> list[Pair]:
    pairs: list[Pair] = synthesizer([(job, b"") for job in jobs])
    assert [pair.key for pair in pairs] == [job.key for job in jobs]
    return pairs


# --- bits -------------------------------------------------------------------------------------


def test_batch_size_order_and_neighbours_change_no_bit_on_a_cpu(folder: Path) -> None:
    jobs, alone = draw(recipe(folder, batch_size=1))
    _, batched = draw(recipe(folder, batch_size=4))
    assert batched == alone
    backwards = made(open_synthesizer(recipe(folder, batch_size=4), REFERENCES), jobs[::-1])
    assert backwards[::-1] == alone
    few = made(open_synthesizer(recipe(folder), REFERENCES), jobs[5:6])
    assert few == alone[5:6]
    assert len({pair.image for pair in alone}) == 8


def test_torch_threads_are_those_of_the_settings_and_are_given_back(folder: Path) -> None:
    before = torch.get_num_threads()
    seen = []
    synthesizer: Any = open_synthesizer(recipe(folder, threads=2), REFERENCES)
    synthesizer.draw = lambda batch: seen.append(torch.get_num_threads()) or blank(batch)
    made(synthesizer, jobs_of(recipe(folder, threads=2))[:1])
    assert seen == [2]
    assert torch.get_num_threads() == before


def test_where_a_model_lies_and_how_fast_it_runs_are_no_part_of_a_key(
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
    made(synthesizer, jobs)
    made(synthesizer, jobs)
    assert sorted(encoded) == [["a cat"], ["an owl"], ["blurry"]]
    assert len(pictures) == len(REFERENCES)


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


# --- what can happen to a batch ---------------------------------------------------------------


def blank(batch: Any) -> list[DrawnImage]:
    """One grey image a job, its level that of the prompt's length."""
    return [DrawnImage(np.full((SIZE, SIZE, 3), len(j.prompt) / 10, np.float32)) for j in batch]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("HIP: out of memory")]
)
def test_out_of_memory_halves_the_batch_and_goes_on(
    folder: Path, synthesizer: Any, error: Exception
) -> None:
    sizes = []

    def draw_two(batch: Any) -> list[DrawnImage]:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise error
        return blank(batch)

    synthesizer.batch_size, synthesizer.draw = 5, draw_two
    pairs = made(synthesizer, jobs_of(recipe(folder)))
    assert [pair.kept for pair in pairs] == [True] * 8
    assert sizes == [5, 3, 2, 1, 2, 2, 1]  # never again more than two
    details = [pair.origin.details for pair in pairs]
    assert [row["batch_size"] for row in details] == [2, 2, 1, 2, 2, 2, 2, 1]
    assert {row["batch_size_before_oom"] for row in details} == {5}
    assert all((pixels_of(p) == round(len(p.caption) * 25.5)).all() for p in pairs)


def test_an_image_that_does_not_fit_alone_is_dropped_and_the_others_are_made(
    folder: Path, synthesizer: Any
) -> None:
    def draw_no_owls(batch: Any) -> list[DrawnImage]:
        if any(job.prompt == "an owl" for job in batch):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return blank(batch)

    synthesizer.batch_size, synthesizer.draw = 4, draw_no_owls
    pairs = made(synthesizer, jobs_of(recipe(folder)))
    reasons = {pair.caption: pair.verdict.reason for pair in pairs}
    assert reasons == {"an owl": "out-of-memory", "a cat": None}
    assert [pair.image == b"" for pair in pairs] == [not pair.kept for pair in pairs]


def test_other_errors_of_a_pipeline_are_bugs_and_crash(folder: Path, synthesizer: Any) -> None:
    def broken(batch: Any) -> list[DrawnImage]:
        raise RuntimeError("shapes cannot be multiplied")

    synthesizer.draw = broken
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        made(synthesizer, jobs_of(recipe(folder)))
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: 1 bytes"))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (DrawnImage(np.full((SIZE, SIZE, 3), np.nan, np.float32)), "not-finite"),
        (DrawnImage(np.zeros((SIZE, SIZE, 3), np.float32), {"safety": "flagged"}, True), "unsafe"),
    ],
)
def test_bad_images_are_tried_again_with_another_seed_and_then_dropped(
    folder: Path, bad: DrawnImage, reason: str
) -> None:
    spec = recipe(folder, retries=2)
    jobs = jobs_of(spec)
    seeds: dict[str, list[int]] = {}

    def draw_badly(batch: Any) -> list[DrawnImage]:
        for job in batch:
            seeds.setdefault(job.key, []).append(job.seed)
        lucky = [job.key == jobs[0].key and len(seeds[job.key]) == 2 for job in batch]
        lucky = [yes or job.key == jobs[1].key for yes, job in zip(lucky, batch, strict=True)]
        return [blank([j])[0] if yes else bad for yes, j in zip(lucky, batch, strict=True)]

    synthesizer: Any = open_synthesizer(spec, REFERENCES)
    synthesizer.batch_size, synthesizer.draw = 3, draw_badly
    second, first, never = made(synthesizer, jobs[:3])
    assert (first.kept, "attempt" in first.origin.details) == (True, False)
    assert (second.kept, second.origin.details["attempt"]) == (True, 1)
    assert second.origin.details["retried_after"] == reason
    assert second.origin.details["seed"] == seed_of(f"{jobs[0].key}:1")
    assert (never.image, never.verdict.reason, never.origin.details["attempt"]) == (b"", reason, 2)
    assert seeds[jobs[2].key] == [
        seed_of(jobs[2].key),
        seed_of(f"{jobs[2].key}:1"),
        seed_of(f"{jobs[2].key}:2"),
    ]


def test_the_outcome_of_a_safety_checker_is_recorded(folder: Path, synthesizer: Any) -> None:
    images = np.zeros((2, SIZE, SIZE, 3), np.float32)
    answer = SimpleNamespace(images=images, nsfw_content_detected=[False, True])
    synthesizer.pipeline = lambda **_: answer
    assert [(one.details, one.unsafe) for one in synthesizer.run_pipeline()] == [
        ({"safety": "passed"}, False),
        ({"safety": "flagged"}, True),
    ]


def test_images_are_encoded_beside_the_drawing(
    folder: Path, synthesizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[str, set[int]] = {"draw": set(), "encode": set()}
    encode = Encoding.encode

    def noted(self: Encoding, pixels: Any) -> bytes:
        threads["encode"].add(threading.get_ident())
        return encode(self, pixels)

    def draw_here(batch: Any) -> list[DrawnImage]:
        threads["draw"].add(threading.get_ident())
        return blank(batch)

    monkeypatch.setattr(Encoding, "encode", noted)
    synthesizer.draw = draw_here
    made(synthesizer, jobs_of(recipe(folder)))
    assert threads["draw"] == {threading.get_ident()}
    assert threads["encode"]
    assert not threads["encode"] & threads["draw"]


def test_images_are_cut_to_a_square_of_the_corpus_size() -> None:
    wide = np.zeros((8, 16, 3), np.float32)
    wide[:, 4:12] = 1
    assert crop_to_square(wide, 4).shape == (4, 4, 3)
    assert crop_to_square(wide, 4).mean() == pytest.approx(1, abs=0.02)
    square = wide[:, 2:10]
    assert crop_to_square(square, 8) is square
    assert np.isnan(crop_to_square(np.full((4, 4, 3), np.nan, np.float32), 8)).all()


# --- metadata -----------------------------------------------------------------------------


def test_a_prompt_beyond_the_encoders_length_is_recorded(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [Content("k0", " ".join(["cat"] * 40), "c0"), Content("k1", "a cat", "c1")]
    spec = recipe(folder, negative_prompt="owl " * 30)
    jobs = jobs_of(spec, rows)
    pairs = made(open_synthesizer(spec, REFERENCES), jobs)
    found = {
        (p.origin.details["prompt_tokens"], p.origin.details["prompt_truncated_at"]) for p in pairs
    }
    assert found == {(122, 77), (6, None)}  # three letters are three tokens here, start and end two
    assert pairs[0].origin.details["negative_prompt_tokens"] == 92
    assert pairs[0].origin.details["negative_prompt_truncated_at"] == 77
    assert all(pair.caption == pair.origin.details["prompt"] for pair in pairs)
    assert "truncated" not in capsys.readouterr().err


def test_metadata_has_the_sampler_and_all_its_settings(folder: Path) -> None:
    options = {"timestep_spacing": "trailing"}
    spec = recipe(folder, sampler="DDIMScheduler", sampler_options=options)
    jobs, pairs = draw(spec, 2)
    details = pairs[0].origin.details
    assert details["sampler"] == "DDIMScheduler"
    found = json.loads(str(details["sampler_options"]))
    assert (found["timestep_spacing"], found["beta_end"]) == ("trailing", 0.012)
    assert (details["steps"], details["guidance"], details["negative_prompt"]) == (
        STEPS,
        GUIDANCE,
        "blurry",
    )
    assert str(folder) not in json.dumps(dict(details))
    assert (
        pairs[0].origin.reference_sha256 == {r.id: r for r in REFERENCES}[jobs[0].reference].sha256
    )
    _, usual = draw(recipe(folder), 2)
    assert usual[0].image != pairs[0].image


@pytest.mark.parametrize("kind", ["peft", "diffusers", "kohya"])
def test_a_few_step_lora_is_fused_as_diffusers_does(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    from diffusers import LCMScheduler, StableDiffusionXLPipeline

    plain = StableDiffusionXLPipeline.from_pretrained(folder / "sdxl", add_watermarker=False)
    plain.load_ip_adapter(
        str(folder / "adapter"), subfolder="sdxl_models", weight_name="ip-adapter_sdxl.bin"
    )
    plain.set_ip_adapter_scale({"up": {"block_0": [0.0, 1.0, 0.0]}})
    lora = write_lora(tmp_path / "lcm.safetensors", plain.unet, kind=kind)
    spec = recipe(
        folder, lora=str(lora), lora_scale=0.5, sampler="LCMScheduler", guidance=1.0, steps=3
    )
    jobs, pairs = draw(spec, 3)
    assert pairs[0].origin.details["lora_sha256"] == hashlib.sha256(lora.read_bytes()).hexdigest()
    assert pairs[0].origin.details["lora"] == "lcm.safetensors"
    plain.load_lora_weights(load_file(lora))
    plain.fuse_lora(lora_scale=0.5)
    plain.unload_lora_weights()
    plain.scheduler = LCMScheduler.from_config(plain.scheduler.config)
    expected = drawn_plainly(plain, jobs, num_inference_steps=3, guidance_scale=1.0)
    assert [(pixels_of(a) == b).all() for a, b in zip(pairs, expected, strict=True)] == [True] * 3
    _, without = draw(recipe(folder, sampler="LCMScheduler", guidance=1.0, steps=3), 3)
    assert all(a.image != b.image for a, b in zip(pairs, without, strict=True))


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler": "Pipeline"}, "sampler: expected a scheduler of diffusers, found 'Pipeline'"),
        ({"sampler": "DiffusionPipeline"}, "sampler: expected a scheduler of diffusers"),
        ({"sampler_options": {"spacing": "x"}}, "sampler_options.spacing: EulerDiscreteScheduler"),
        ({"device": "warp"}, "device: expected a torch device, found 'warp'"),
        ({"device": "cuda:1"}, "device: string should match pattern"),
    ],
)
def test_impossible_settings_are_refused_by_name(
    folder: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        open_synthesizer(recipe(folder, **settings), REFERENCES)
    assert f"synthesize.settings.{message}" in caught.value.message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: {**t, "unet.up.weight": torch.zeros(2)},
            "unet.up.weight: expected a layer of that name, found 2",
        ),
        (
            lambda t: {**t, **{f"prior.to_q.lora_{x}.weight": torch.zeros(2, 2) for x in "AB"}},
            "expected 45 LoRA layers to match the pipeline, found 44",
        ),
        (lambda t: {"weight": torch.zeros(2)}, "cannot be loaded: Invalid LoRA checkpoint"),
        (lambda t: {f"{k.replace('to_q', 'to_z')}": v for k, v in t.items()}, "to_z.lora_A.weight"),
        (
            lambda t: {k: v[:, :3].contiguous() for k, v in t.items()},
            "expected 16 on axis 1, found 2x3",
        ),
        (lambda t: {}, "expected tensors of a LoRA, found none"),
    ],
)
def test_a_lora_of_another_model_is_refused_by_key(
    folder: Path, tmp_path: Path, synthesizer: Any, change: Any, message: str
) -> None:
    tensors = load_file(write_lora(tmp_path / "lora.safetensors", synthesizer.pipeline.unet))
    save_file(change(tensors), tmp_path / "lora.safetensors")
    with pytest.raises(WeightsError) as caught:
        open_synthesizer(recipe(folder, lora=str(tmp_path / "lora.safetensors")), REFERENCES)
    assert message in caught.value.message


def changed_pipeline(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder / "sdxl", tmp_path / "sdxl"))


@pytest.mark.parametrize(
    ("part", "file", "key"),
    [
        ("unet", "diffusion_pytorch_model", "conv_in.weight"),
        ("vae", "diffusion_pytorch_model", "decoder.conv_in.weight"),
        ("text_encoder", "model", "text_model.final_layer_norm.weight"),
    ],
)
@pytest.mark.parametrize("shape", [None, (3, 3)])
def test_a_checkpoint_with_wrong_keys_or_shapes_is_refused(
    folder: Path, tmp_path: Path, part: str, file: str, key: str, shape: Any
) -> None:
    model = changed_pipeline(folder, tmp_path)
    weights = model / part / f"{file}.safetensors"
    tensors = load_file(weights)
    [key] = [name for name in tensors if key.endswith(name) or name == key]
    if shape is None:
        del tensors[key]
    else:
        tensors[key] = torch.zeros(shape)
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=part) as caught:
        open_synthesizer(recipe(folder, model=str(model)), REFERENCES)
    assert f"{key} expected" in caught.value.message
    assert ("found nothing" if shape is None else "found 3x3") in caught.value.message


def test_text_encoders_with_the_keys_of_their_release_are_read(
    folder: Path, tmp_path: Path
) -> None:
    model = changed_pipeline(folder, tmp_path)
    for part in ("text_encoder", "text_encoder_2"):
        weights = model / part / "model.safetensors"
        tensors = {
            key
            if key.startswith(("text_model.", "text_projection"))
            else f"text_model.{key}": value
            for key, value in load_file(weights).items()
        }
        tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
        save_file(tensors, weights, metadata={"format": "pt"})
    _, released = draw(recipe(folder, model=str(model)), 2)
    _, usual = draw(recipe(folder), 2)
    assert [pair.image for pair in released] == [pair.image for pair in usual]


def test_a_variant_is_read_where_there_is_one(
    folder: Path, tmp_path: Path, synthesizer: Any
) -> None:
    model = changed_pipeline(folder, tmp_path)
    usual = {part: sorted(file.name for file in list_files(model / part, None)) for part in PARTS}
    synthesizer.pipeline.unet.save_pretrained(model / "unet", variant="fp16", max_shard_size="9KB")
    assert {p: sorted(f.name for f in list_files(model / p, None)) for p in PARTS} == usual
    assert {f.name for f in list_files(model / "vae", "fp16")} == set(usual["vae"])
    chosen = [file.name for file in list_files(model / "unet", "fp16")]
    assert len(chosen) > 3
    assert all("fp16" in name for name in chosen if name != "config.json")
    (model / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    made(open_synthesizer(recipe(folder, model=str(model), variant="fp16"), REFERENCES), [])


def test_pickled_weights_are_not_read(folder: Path, tmp_path: Path) -> None:
    model = changed_pipeline(folder, tmp_path)
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(WeightsError, match="unet"):
        open_synthesizer(recipe(folder, model=str(model)), REFERENCES)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("unet", ["evil", "Unet"]),
        ("unet", ["os", "path"]),
        ("_class_name", ["pipeline", "Evil"]),
        ("scheduler", ["diffusers.schedulers", "EulerDiscreteScheduler"]),
    ],
)
def test_code_that_comes_with_a_model_is_not_run(
    folder: Path, tmp_path: Path, name: str, value: Any
) -> None:
    model = changed_pipeline(folder, tmp_path)
    for spot in (model, model / "unet"):
        (spot / "evil.py").write_text("raise SystemExit('code of a model ran')")
        (spot / "pipeline.py").write_text("raise SystemExit('code of a model ran')")
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps({**index, name: value}))
    with pytest.raises(
        WeightsError, match=f"{name}: expected a class of diffusers or transformers"
    ):
        open_synthesizer(recipe(folder, model=str(model)), REFERENCES)


def test_a_reference_that_is_no_image_is_named(folder: Path) -> None:
    spec = recipe(folder)
    bad = StyleReference("red", b"no image", REFERENCES[0].sha256, Path("styles/red.png"), False)
    with pytest.raises(SourceError, match=r"styles/red\.png is not a readable image"):
        made(open_synthesizer(spec, [bad, REFERENCES[1]]), jobs_of(spec))


def test_attention_runs_in_torchs_fused_kernel(synthesizer: Any) -> None:
    kinds = {type(one).__name__ for one in synthesizer.pipeline.unet.attn_processors.values()}
    assert kinds == {"AttnProcessor2_0", "IPAdapterAttnProcessor2_0"}


def test_a_gpu_encodes_the_new_prompts_of_a_batch_together() -> None:
    asked: list[list[str]] = []

    def encode_prompt(prompt: list[str], **_: Any) -> Any:
        asked.append(prompt)
        found = torch.arange(float(len(prompt)))
        return found[:, None, None].expand(-1, 3, 2), None, found[:, None].expand(-1, 4), None

    cache = PromptCache(SimpleNamespace(encode_prompt=encode_prompt), "cuda", guided=True)
    first = cache.embeddings(["a", "b", "a"], "no")
    assert asked == [["a", "b"], ["no"]]
    assert first["prompt_embeds"][:, 0, 0].tolist() == [0, 1, 0]
    assert first["negative_pooled_prompt_embeds"].shape == (3, 4)
    cache.embeddings(["b", "c"], "no")
    assert asked[2:] == [["c"]]


def test_what_auto_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert choose_device("auto") == "cuda"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    assert choose_dtype("auto", "cuda") == torch.bfloat16
    assert choose_dtype("auto", "cpu") == torch.float32
    assert choose_dtype("float16", "cuda") == torch.float16


# --- modes ------------------------------------------------------------------------------------


class Recorded:
    """A pipeline, or a part of one, that notes what it is asked for."""

    def __init__(self, calls: list[str], name: str = "", **parts: Any) -> None:
        self._calls, self._name = calls, name
        vars(self).update(parts)

    def __getattr__(self, name: str) -> Any:
        if name in ("unet", "vae", "transformer"):
            raise AttributeError(name)
        found = f"{self._name}.{name}".lstrip(".")
        return lambda *args, **kw: self._calls.append(
            " ".join([found, *(str(value) for value in (*args, *kw.values()))])
        )


@pytest.mark.parametrize(
    ("settings", "device", "expected"),
    [
        ({}, "cpu", ["vae.enable_slicing", "to cpu"]),
        ({"offload": "model"}, "cpu", ["vae.enable_slicing", "to cpu"]),
        (
            {"vae_slicing": False, "vae_tiling": True, "compile": True},
            "cuda",
            [
                "vae.enable_tiling",
                "unet.to torch.channels_last",
                "vae.to torch.channels_last",
                "to cuda",
                "unet.compile",
            ],
        ),
        (
            {"offload": "model", "vae_slicing": False},
            "cuda",
            [
                "unet.to torch.channels_last",
                "vae.to torch.channels_last",
                "enable_model_cpu_offload cuda",
            ],
        ),
        (
            {"offload": "sequential", "vae_slicing": False},
            "cuda",
            [
                "unet.to torch.channels_last",
                "vae.to torch.channels_last",
                "enable_sequential_cpu_offload cuda",
            ],
        ),
    ],
)
def test_modes_are_set_as_the_settings_say(
    settings: dict[str, Any], device: str, expected: list[str]
) -> None:
    calls: list[str] = []
    parts = {name: Recorded(calls, name) for name in ("unet", "vae")}
    move_to_device(
        Recorded(calls, **parts),
        InstantStyleSettings(model="sdxl", ip_adapter="adapter", **settings),
        device,
    )
    assert calls == expected


def test_bfloat16_is_drawn_with_on_request(folder: Path) -> None:
    jobs, pairs = draw(recipe(folder, dtype="bfloat16"), 1)
    assert len(jobs) == len(ROWS[:1])
    assert pairs[0].origin.details["dtype"] == "bfloat16"
    _, usual = draw(recipe(folder), 1)
    assert usual[0].origin.details["dtype"] == "float32"
    assert (pixels_of(usual[0]) != pixels_of(pairs[0])).any()
