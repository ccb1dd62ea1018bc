"""pipeline: any pipeline of diffusers, against the plain call; and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from builders.drawn_jobs import PICTURES, REFERENCES, SIZE, bare_recipe, draw, jobs_of, worst
from builders.tiny_flux import write_flux
from builders.tiny_sdxl import write_sdxl
from PIL import Image

from stylear.curate.recipe import load_recipe
from stylear.curate.synthesize import open_synthesizer
from stylear.errors import RecipeError, StylearError, WeightsError

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings(  # diffusers' Euler scheduler turns tensors into arrays
        "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
    ),
]
STYLED = "{prompt}, {style} style"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_sdxl(folder / "a")
    write_flux(folder / "b")
    (folder / "a" / "sdxl").rename(folder / "sdxl")
    (folder / "b" / "flux").rename(folder / "flux")
    return folder


CALLS: list[tuple[str, str, dict[str, Any]]] = [
    (
        "StableDiffusionXLImg2ImgPipeline",
        "sdxl",
        {
            "prompt": STYLED,
            "negative_prompt": "photo",
            "image": "{reference}",
            "strength": 0.7,
            "num_inference_steps": 4,
            "guidance_scale": 3.0,
        },
    ),
    ("StableDiffusionXLPipeline", "sdxl", {"prompt": STYLED, "num_inference_steps": 2}),
    (
        "FluxImg2ImgPipeline",
        "flux",
        {
            "prompt": "{prompt}",
            "prompt_2": STYLED,
            "image": "{reference}",
            "num_inference_steps": 3,
            "height": "{size}",
            "width": SIZE // 2,
        },
    ),
]


def spec(folder: Path, place: int = 0, **settings: Any) -> Any:
    name, model, call = CALLS[place]
    values = {"pipeline": name, "model": str(folder / model), "call": call, **settings}
    return bare_recipe("pipeline", **values)


@pytest.mark.parametrize("place", range(len(CALLS)))
@pytest.mark.cpu
def test_images_equal_those_of_the_plain_call(folder: Path, place: int) -> None:
    name, model, call = CALLS[place]
    jobs, pairs = draw(spec(folder, place))
    pipeline = getattr(diffusers, name).from_pretrained(folder / model)
    pipeline.set_progress_bar_config(disable=True)
    expected = []
    for job in jobs:
        styled = f"{job.prompt}, {'red' if job.reference == 'red' else 'blue'} style"
        filled = {
            name: PICTURES[job.reference].resize((SIZE, SIZE), Image.Resampling.LANCZOS)
            if value == "{reference}"
            else value
            for name, value in {"height": SIZE, "width": SIZE, **call}.items()
        }
        filled |= {name: styled for name, value in call.items() if value == STYLED}
        filled |= {name: job.prompt for name, value in call.items() if value == "{prompt}"}
        filled |= {name: SIZE for name, value in call.items() if value == "{size}"}
        if name == "StableDiffusionXLImg2ImgPipeline":  # has no sides but those of its image
            del filled["height"], filled["width"]
        drawn = pipeline(
            **filled, generator=torch.Generator("cpu").manual_seed(job.seed), output_type="np"
        ).images[0]
        expected.append(drawn)
    if place == 2:  # drawn tall, stored as a square
        assert {drawn.shape for drawn in expected} == {(SIZE, SIZE // 2, 3)}
        assert all(pair.kept for pair in pairs)
    else:
        assert worst(pairs, expected) == 0
    assert len({pair.image for pair in pairs}) == 8


@pytest.mark.parametrize("place", [0, 1])
def test_a_batch_is_what_each_would_be(folder: Path, place: int) -> None:
    synthesizer: Any = open_synthesizer(spec(folder, place, batch_size=4), REFERENCES)
    jobs = [j for j in jobs_of(spec(folder, place)) if j.reference == "blue"]
    assert len({job.prompt for job in jobs}) == 2
    with torch.inference_mode():
        together = synthesizer.draw(jobs)
        twins = synthesizer.draw([job for job in jobs if job.prompt == "a cat"])
        alone = [synthesizer.draw([job])[0] for job in jobs]
    for a, b in zip(together, alone, strict=True):
        assert np.abs(a.pixels - b.pixels).max() < 1e-4
    assert len(twins) == 2


@pytest.mark.cpu
def test_batch_size_and_order_change_no_image_on_a_cpu(folder: Path) -> None:
    jobs = jobs_of(spec(folder))
    drawn: dict[str, set[bytes]] = {}
    for size in (1, 4):
        synthesizer = open_synthesizer(spec(folder, batch_size=size), REFERENCES)
        for order in (jobs, jobs[::-1]):
            for pair in synthesizer([(job, b"") for job in order]):
                drawn.setdefault(pair.key, set()).add(pair.image)
    assert [len(images) for images in drawn.values()] == [1] * 8


def test_metadata_holds_the_call_and_what_was_cut_off(folder: Path) -> None:
    long = {"prompt": STYLED + " a" * 80, "num_inference_steps": 1}
    jobs, pairs = draw(spec(folder, 1, call=long), 1)
    details = pairs[0].origin.details
    assert details["pipeline"] == "StableDiffusionXLPipeline"
    assert json.loads(str(details["call"])) == long
    words = 4 + 1 + len(jobs[0].reference) + len("style") + 80  # letters, but for "an"
    assert details["prompt_tokens"] == words + 2
    assert details["prompt_truncated_at"] == 77
    assert pairs[0].kept


def test_t5_is_cut_off_where_the_call_says(folder: Path) -> None:
    synthesizer: Any = open_synthesizer(spec(folder, 2), REFERENCES)
    [job] = jobs_of(spec(folder, 2))[:1]
    assert synthesizer.job_metadata(job)["prompt_truncated_at"] is None
    call = CALLS[2][2] | {"max_sequence_length": 4}
    synthesizer = open_synthesizer(spec(folder, 2, call=call), REFERENCES)
    assert synthesizer.job_metadata(job)["prompt_truncated_at"] == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pipeline": "os.system"}, r"settings\.pipeline: expected a pipeline class.*'os\.system'"),
        ({"pipeline": "DiffusionPipeline"}, r"settings\.pipeline: expected a pipeline class"),
        ({"call": {"__init__": "{prompt}"}}, r"call\.__init__: expected the name of an argument"),
        ({"call": {"prompt": "{prompt.x}{style}"}}, r"call\.prompt: no placeholder is called"),
        ({"call": {"prompt": STYLED, "image": "/etc/passwd"}}, r"call\.image: expected no path"),
        ({"call": {"prompt": STYLED, "generator": 1}}, r"call\.generator: is set by"),
        ({"call": {"prompt": "{prompt}"}}, "call: no argument contains {reference} or {style}"),
        ({"call": {"prompt": [STYLED]}, "batch_size": 2}, r"call\.prompt: only strings can differ"),
        ({"trust_remote_code": True}, r"settings\.trust_remote_code: extra inputs"),
        ({"custom_pipeline": "x"}, r"settings\.custom_pipeline: extra inputs"),
        ({"call": None}, r"settings\.call"),
    ],
)
def test_a_recipe_with_a_hostile_pipeline_is_refused(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    values = {"pipeline": "StableDiffusionXLPipeline", "model": "m", "call": {"prompt": STYLED}}
    text = {"name": "x", "raw": [{"type": "mini"}], "references": [{"type": "mini"}]}
    text["synthesize"] = {"backend": "pipeline", "settings": values}
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(text), "utf-8")
    assert load_recipe(path).synthesize.backend == "pipeline"
    text["synthesize"] = {"backend": "pipeline", "settings": values | settings}
    path.write_text(json.dumps(text), "utf-8")
    with pytest.raises(RecipeError, match=message):
        load_recipe(path)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"call": {"prompt": STYLED, "colour": 1}}, RecipeError, "call.colour: .* no such argument"),
        ({"call": {"prompt": STYLED, "kwargs": 1}}, RecipeError, "call.kwargs: .* no such argument"),
        ({"pipeline": "FluxPriorReduxPipeline", "call": {"image": "{reference}", "prompt": STYLED}},
         RecipeError, "takes no generator, output_type"),
        ({"pipeline": "StableCascadeCombinedPipeline"}, RecipeError, "loads a second model"),
        ({"pipeline": "FluxPipeline"}, WeightsError, "cannot be loaded"),
        ({"model": "someone/some-model"}, WeightsError, "someone/some-model: expected a model directory"),
    ],
)  # fmt: skip
def test_what_cannot_be_opened_is_reported(
    folder: Path, settings: dict[str, Any], error: type[StylearError], message: str
) -> None:
    with pytest.raises(error, match=message):
        open_synthesizer(spec(folder, 1, **settings), REFERENCES)


def test_a_pipeline_without_its_library_is_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diffusers, "FluxPipeline", type("FluxPipeline", (), {}))  # a placeholder
    with pytest.raises(RecipeError, match="FluxPipeline needs a library that is not installed"):
        open_synthesizer(spec(folder, 1, pipeline="FluxPipeline"), REFERENCES)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"strength": "much"}, "StableDiffusionXLImg2ImgPipeline refused it"),
        ({"strength": 3.0}, "refused it: The value of strength should in"),
        ({"num_inference_steps": 0}, "refused it"),
        ({"guidance_scale": [1, 2, 3]}, "refused it"),
    ],
)
def test_a_call_that_fails_is_reported(folder: Path, value: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        draw(spec(folder, call=CALLS[0][2] | value), 1)


def test_a_pipeline_that_gives_no_image_is_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = diffusers.StableDiffusionXLPipeline
    results: list[tuple[Any, str]] = [
        (SimpleNamespace(frames=[]), "refused it: .*images"),
        (SimpleNamespace(images=np.zeros((2, 4, 4, 3))), r"expected 1 images, found 2"),
        (SimpleNamespace(images=np.zeros((1, 5, 4, 4, 3))), r"found 1 of shape \(5, 4, 4, 3\)"),
        (SimpleNamespace(images=np.zeros((0, 4, 4, 3))), r"found 0 of shape \(\)"),
    ]
    synthesizer = open_synthesizer(spec(folder, 1), REFERENCES)
    [job] = jobs_of(spec(folder, 1))[:1]
    for result, message in results:
        monkeypatch.setattr(kind, "__call__", lambda *_, found=result, **__: found)
        with pytest.raises(RecipeError, match=message):
            synthesizer([(job, b"")])


def write_code(file: Path, trace: Path) -> None:
    """Code that leaves a trace when it is imported, from wherever it was copied to."""
    file.write_text(f"from pathlib import Path\nPath({str(trace)!r}).touch()\nclass X: pass\n")


@pytest.mark.parametrize(
    ("entries", "file"),
    [
        ({"_class_name": ["mine", "StableDiffusionXLPipeline"]}, "mine.py"),
        ({}, "None.py"),
        ({}, "StableDiffusionXLPipeline.py"),
        ({"scheduler": ["mine", "X"]}, "scheduler/mine.py"),
        ({"scheduler": ["diffusers", "X"]}, "scheduler/diffusers.py"),
        ({"scheduler": ["diffusers", "EulerDiscreteScheduler"]}, "scheduler/diffusers.py"),
        ({"tokenizer": ["transformers", "X"]}, "tokenizer/transformers.py"),
        ({"scheduler": ["os", "system"]}, "scheduler/os.py"),
        ({"scheduler": ["sys", "__class__"]}, "scheduler/sys.py"),
        ({"scheduler": ["..mine", "X"]}, "mine.py"),
    ],
)
def test_code_in_a_model_directory_is_not_run(
    folder: Path, tmp_path: Path, entries: dict[str, Any], file: str
) -> None:
    model = tmp_path / "model"
    shutil.copytree(folder / "sdxl", model)
    write_code(model / file, tmp_path / "ran")
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps(index | entries))
    try:
        open_synthesizer(spec(folder, 1, model=str(model)), REFERENCES)
    except StylearError as error:
        assert isinstance(error, WeightsError)  # noqa: PT017 - some are harmless, none may run
    assert not (tmp_path / "ran").exists()


def test_a_config_that_asks_for_code_is_not_followed(folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(folder / "sdxl", model)
    write_code(model / "text_encoder" / "mine.py", tmp_path / "ran")
    path = model / "text_encoder" / "config.json"
    config = json.loads(path.read_text()) | {"auto_map": {"AutoModel": "mine.X"}}
    path.write_text(json.dumps(config))
    open_synthesizer(spec(folder, 1, model=str(model)), REFERENCES)
    assert not (tmp_path / "ran").exists()
