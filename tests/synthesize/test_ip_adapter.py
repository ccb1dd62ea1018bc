"""ip-adapter: plain and plus adapters in both published layouts, against plain diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from builders.drawn_jobs import REFERENCES, draw, drawn_plainly, pixels_of, recipe
from builders.tiny_sdxl import write_sdxl
from safetensors.torch import load_file, save_file

from stylear.curate.synthesize import open_synthesizer
from stylear.errors import WeightsError

pytestmark = pytest.mark.filterwarnings(  # diffusers' Euler scheduler turns tensors into arrays
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

PLAIN, HUGE, PLUS = "ip-adapter_sdxl", "ip-adapter_sdxl_vit-h", "ip-adapter-plus_sdxl_vit-h"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sdxl(tmp_path_factory.mktemp("sdxl"))


def adapter(folder: Path, name: str, **settings: Any) -> Any:
    return recipe(folder, "ip-adapter", ip_adapter_weight_name=name, **settings)


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
@pytest.mark.parametrize(("name", "encoder"), [(PLAIN, "sdxl_models"), (PLUS, "models")])
@pytest.mark.cpu
def test_images_equal_those_of_plain_diffusers(
    folder: Path, name: str, encoder: str, ending: str
) -> None:
    from diffusers import StableDiffusionXLPipeline
    from transformers import CLIPVisionModelWithProjection

    jobs, pairs = draw(adapter(folder, f"{name}.{ending}", scale=0.7))
    plain = StableDiffusionXLPipeline.from_pretrained(
        folder / "sdxl",
        add_watermarker=False,
        image_encoder=CLIPVisionModelWithProjection.from_pretrained(
            folder / "adapter" / encoder / "image_encoder"
        ),
    )
    plain.load_ip_adapter(
        str(folder / "adapter"), subfolder="sdxl_models", weight_name=f"{name}.{ending}"
    )
    plain.set_ip_adapter_scale(0.7)
    expected = drawn_plainly(plain, jobs)
    assert [(pixels_of(a) == b).all() for a, b in zip(pairs, expected, strict=True)] == [True] * 8
    assert len({pair.image for pair in pairs}) == 8
    kind = "plus" if name == PLUS else "plain"
    assert {(p.origin.details["adapter"], p.origin.details["scale"]) for p in pairs} == {
        (kind, 0.7)
    }


def test_a_batch_of_several_references_gives_each_its_own(folder: Path) -> None:
    spec = adapter(folder, f"{PLUS}.bin")
    jobs, alone = draw(spec)
    synthesizer: Any = open_synthesizer(spec, REFERENCES)
    synthesizer.batch_size = 8
    assert {job.reference for job in jobs} == {"red", "blue"}
    pairs = synthesizer([(job, b"") for job in jobs])
    assert [pair.origin.details["batch_size"] for pair in pairs] == [8] * 8
    differences = [
        abs(pixels_of(a) - pixels_of(b)).max() for a, b in zip(alone, pairs, strict=True)
    ]
    assert max(differences) <= 1


def test_every_block_hears_the_reference(folder: Path) -> None:
    synthesizer: Any = open_synthesizer(adapter(folder, f"{PLAIN}.bin", scale=0.4), REFERENCES)
    processors = synthesizer.pipeline.unet.attn_processors.values()
    scales = [processor.scale for processor in processors if hasattr(processor, "scale")]
    assert len(scales) == len(processors) // 2
    assert {tuple(scale) for scale in scales} == {(0.4,)}


def test_vit_h_adapters_find_the_image_encoder_of_their_release(folder: Path) -> None:
    _, plain = draw(adapter(folder, f"{PLAIN}.safetensors"), 1)
    _, huge = draw(adapter(folder, f"{HUGE}.safetensors"), 1)
    assert plain[0].kept
    assert huge[0].kept
    hashes = [pairs[0].origin.details["image_encoder_sha256"] for pairs in (plain, huge)]
    assert hashes[0] != hashes[1]


def changed(folder: Path, tmp_path: Path, name: str, change: Any) -> Any:
    """A recipe with an adapter whose tensors were changed."""
    tensors = load_file(folder / "adapter" / "sdxl_models" / f"{name}.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "changed.safetensors")
    encoder = "models" if name == PLUS else "sdxl_models"
    return recipe(
        folder,
        "ip-adapter",
        ip_adapter=str(tmp_path / "changed.safetensors"),
        image_encoder=str(folder / "adapter" / encoder / "image_encoder"),
    )


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            PLAIN,
            lambda t: t.pop("image_proj.norm.bias"),
            "image_proj.norm.bias expected 64, found nothing",
        ),
        (
            PLAIN,
            lambda t: t.update({"ip_adapter.1.to_k_ip.weight": torch.zeros(3, 64)}),
            "ip_adapter.1.to_k_ip.weight expected 16x64, found 3x64",
        ),
        (
            PLAIN,
            lambda t: t.update({"ip_adapter.1.to_k_lora.up.weight": torch.zeros(3, 4)}),
            "ip_adapter.1.to_k_lora.up.weight expected nothing, found 3x4",
        ),
        (
            PLUS,
            lambda t: t.pop("image_proj.layers.2.0.to_kv.weight"),
            "image_proj.layers.2.0.to_kv.weight expected 256x16, found nothing",
        ),
        (
            PLUS,
            lambda t: t.update({"image_proj.proj_in.weight": torch.zeros(16, 9)}),
            "image_proj.proj_in.weight expected 16x8, found 16x9",
        ),
        (
            PLUS,
            lambda t: t.update({"image_proj.latents": torch.zeros(5)}),
            "image_proj.latents expected 1x0x0, found 5",
        ),
    ],
)
def test_an_adapter_of_another_model_is_refused_by_key(
    folder: Path, tmp_path: Path, name: str, change: Any, message: str
) -> None:
    with pytest.raises(WeightsError) as caught:
        open_synthesizer(changed(folder, tmp_path, name, change), REFERENCES)
    assert message in caught.value.message


def test_an_adapter_for_another_image_encoder_is_refused(folder: Path) -> None:
    encoder = str(folder / "adapter" / "models" / "image_encoder")
    spec = adapter(folder, f"{PLAIN}.safetensors", image_encoder=encoder)
    with pytest.raises(
        WeightsError, match=r"image_proj\.proj\.weight expected 256x20, found 256x24"
    ):
        open_synthesizer(spec, REFERENCES)


class Hostile:
    """Unpickling it would run code."""

    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('code of a checkpoint ran')",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"image_proj": {}, "ip_adapter": {}}, "expected tensors of image_proj"),
        ({"weights": torch.zeros(2)}, "expected tensors of image_proj, found weights"),
        ([1, 2], "expected named tensors, found list"),
        ({"image_proj": {"proj.weight": Hostile()}}, "cannot be read"),
    ],
)
def test_a_bin_that_is_no_adapter_is_refused(
    folder: Path, tmp_path: Path, content: Any, message: str
) -> None:
    torch.save(content, tmp_path / "adapter.bin")
    encoder = str(folder / "adapter" / "models" / "image_encoder")
    spec = recipe(
        folder, "ip-adapter", ip_adapter=str(tmp_path / "adapter.bin"), image_encoder=encoder
    )
    with pytest.raises(WeightsError) as caught:
        open_synthesizer(spec, REFERENCES)
    assert message in caught.value.message
