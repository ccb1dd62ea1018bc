"""flux-redux on a tiny random FLUX and its Redux prior: against the calls of plain diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.drawn_jobs import PICTURES, REFERENCES, SIZE, bare_recipe, draw, jobs_of, worst
from builders.tiny_flux import JOINT, write_flux, write_redux
from diffusers import FluxPipeline, FluxPriorReduxPipeline
from safetensors.torch import load_file, save_file

from stylear.curate.synthesize import open_synthesizer
from stylear.curate.synthesize.backends.flux_redux import pool_tokens
from stylear.errors import WeightsError

STEPS, GUIDANCE = 2, 2.5

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_flux(tmp_path_factory.mktemp("flux"))


def spec(folder: Path, **settings: Any) -> Any:
    values = {
        "model": str(folder / "flux"),
        "redux": str(folder / "redux"),
        "steps": STEPS,
        "prompt_tokens": 512,
        **settings,
    }
    return bare_recipe("flux-redux", **values)


def plain(folder: Path) -> tuple[Any, Any]:
    pipeline = FluxPipeline.from_pretrained(folder / "flux")
    prior = FluxPriorReduxPipeline.from_pretrained(
        folder / "redux",
        text_encoder=pipeline.text_encoder,
        tokenizer=pipeline.tokenizer,
        text_encoder_2=pipeline.text_encoder_2,
        tokenizer_2=pipeline.tokenizer_2,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, prior


@pytest.mark.cpu
def test_images_equal_those_of_plain_diffusers(folder: Path) -> None:
    jobs, pairs = draw(spec(folder))
    assert len(pairs) == 8
    pipeline, prior = plain(folder)
    expected = [
        pipeline(
            **prior(PICTURES[job.reference], prompt=job.prompt),
            generator=torch.Generator("cpu").manual_seed(job.seed),
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            height=SIZE,
            width=SIZE,
            output_type="np",
        ).images[0]
        for job in jobs
    ]
    assert worst(pairs, expected) == 0
    assert len({pair.image for pair in pairs}) == 8


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


def test_a_batch_of_several_references_is_what_each_would_be(folder: Path) -> None:
    synthesizer: Any = open_synthesizer(spec(folder), REFERENCES)
    jobs = jobs_of(spec(folder))[:4]
    assert len({job.reference for job in jobs}) == 2
    with torch.inference_mode():
        together = synthesizer.draw(jobs)
        alone = [synthesizer.draw([job])[0] for job in jobs]
    for a, b in zip(together, alone, strict=True):
        assert np.abs(a.pixels - b.pixels).max() < 1e-4


def test_a_coarser_grid_and_a_scale_weaken_the_reference(folder: Path) -> None:
    synthesizer: Any = open_synthesizer(spec(folder), REFERENCES)
    whole = synthesizer._reference_tokens("blue")
    assert whole.shape == (1, 16, JOINT)  # 4 x 4 patches
    coarse: Any = open_synthesizer(spec(folder, reference_grid=2, reference_scale=0.5), REFERENCES)
    tokens = coarse._reference_tokens("blue")
    grid = whole.view(4, 4, JOINT)
    corner = grid[:2, 2:].mean((0, 1)) / 2
    assert tokens.shape == (1, 4, JOINT)
    assert torch.allclose(tokens[0, 1], corner, atol=1e-6)
    assert torch.equal(pool_tokens(whole, 9), whole)  # never finer than it is


def test_the_prior_reads_a_reference_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    read = FluxPriorReduxPipeline.encode_image

    def counted(self: Any, image: Any, *args: Any) -> Any:
        seen.append(image.size)
        return read(self, image, *args)

    monkeypatch.setattr(FluxPriorReduxPipeline, "encode_image", counted)
    draw(spec(folder))
    assert seen == [(40, 40)] * 2


def test_metadata_records_what_was_cut_off_and_what_was_loaded(folder: Path) -> None:
    jobs, pairs = draw(spec(folder, prompt_tokens=5, reference_grid=2), 2)
    for job, pair in zip(jobs, pairs, strict=True):
        details = pair.origin.details
        assert details["pipeline"] == "FluxPipeline"
        assert details["prior"] == "FluxPriorReduxPipeline"
        assert details["sampler"] == "FlowMatchEulerDiscreteScheduler"
        assert details["reference_tokens"] == 4
        assert details["prompt_tokens"] == {"a cat": 7, "an owl": 8}[job.prompt]
        assert details["prompt_truncated_at"] == 5
        assert details["pooled_prompt_truncated_at"] is None
        assert details["model_sha256"] != details["redux_sha256"]
    synthesizer: Any = open_synthesizer(spec(folder), REFERENCES)
    length = synthesizer.prompts.count_tokens("a " * 100)
    assert (length["prompt_truncated_at"], length["pooled_prompt_truncated_at"]) == (None, 77)


def test_a_prior_that_does_not_fit_is_reported(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="nowhere"):
        open_synthesizer(spec(folder, redux=str(tmp_path / "nowhere")), REFERENCES)
    odd = write_redux(tmp_path / "odd", JOINT + 1)
    with pytest.raises(WeightsError, match=f"expected tokens of {JOINT} numbers.*{JOINT + 1}"):
        open_synthesizer(spec(folder, redux=str(odd)), REFERENCES)
    file = write_redux(tmp_path / "cut", JOINT) / "image_embedder"
    [weights] = file.glob("*.safetensors")
    tensors = load_file(weights)
    del tensors["redux_down.bias"]
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(WeightsError, match=r"image_embedder.*redux_down\.bias expected"):
        open_synthesizer(spec(folder, redux=str(file.parent)), REFERENCES)
