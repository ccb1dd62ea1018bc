"""IP-Adapters and LoRAs as people have them draw what their releases draw."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.drawn_jobs import REFERENCES, draw, pixels_of, recipe
from builders.odd_weights import LFS_POINTER
from builders.tiny_sdxl import write_lora, write_sdxl
from safetensors.torch import load_file, save_file

from stylear.curate.synthesize import open_synthesizer
from stylear.curate.synthesize.diffusers.lora_weights import multiply_alpha, read_lora
from stylear.curate.synthesize.job import Job
from stylear.errors import WeightsError
from stylear.pair import Pair

pytestmark = pytest.mark.filterwarnings(  # diffusers' Euler scheduler turns tensors into arrays
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

PLAIN, PLUS = "ip-adapter_sdxl", "ip-adapter-plus_sdxl_vit-h"
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sdxl(tmp_path_factory.mktemp("sdxl"))


@pytest.fixture(scope="module")
def processors(folder: Path) -> list[str]:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(folder / "sdxl" / "unet")
    return list(unet.attn_processors)


def released(folder: Path, name: str) -> Tensors:
    return load_file(folder / "adapter" / "sdxl_models" / f"{name}.safetensors")


def trained(tensors: Tensors) -> Tensors:
    """The tensors of a release as IP-Adapter's training scripts save them, the UNet beside."""
    all_tensors = {
        key.replace("image_proj.", "image_proj_model.", 1).replace(
            "ip_adapter.", "adapter_modules.", 1
        ): value
        for key, value in tensors.items()
    }
    return {**all_tensors, "unet.conv_in.weight": torch.zeros(1)}


def named_by_unet(tensors: Tensors, processors: list[str]) -> Tensors:
    """The same in safetensors, where matrices that share memory are stored under one name only."""
    renamed: Tensors = {}
    for key, value in trained(tensors).items():
        if key.startswith("adapter_modules."):
            number, _, matrix = key.removeprefix("adapter_modules.").partition(".")
            renamed[f"unet.{processors[int(number)]}.{matrix}"] = value
        else:
            renamed[key] = value
    return renamed


def adapter(folder: Path, name: str, path: Path) -> Any:
    encoder = "models" if name == PLUS else "sdxl_models"
    return recipe(
        folder,
        "ip-adapter",
        ip_adapter=str(path),
        image_encoder=str(folder / "adapter" / encoder / "image_encoder"),
    )


def are_drawn(jobs: list[Job], expected: list[Pair], spec: Any) -> bool:
    """Whether a recipe's synthesiser draws these images of these jobs."""
    pairs = open_synthesizer(spec, REFERENCES)([(job, b"") for job in jobs])
    return all((pixels_of(a) == pixels_of(b)).all() for a, b in zip(pairs, expected, strict=True))


@pytest.mark.parametrize("name", [PLAIN, PLUS])
def test_an_adapter_of_ones_own_training_draws_as_its_release(
    folder: Path, tmp_path: Path, processors: list[str], name: str
) -> None:
    release = released(folder, name)
    jobs, expected = draw(
        recipe(folder, "ip-adapter", ip_adapter_weight_name=f"{name}.safetensors"), 2
    )
    own = trained(release)
    save_file(own, tmp_path / "a.safetensors")
    torch.save({f"module.{key}": value for key, value in own.items()}, tmp_path / "b.bin")
    torch.save({"state_dict": own}, tmp_path / "c.safetensors")
    save_file(named_by_unet(release, processors), tmp_path / "d.safetensors")
    (tmp_path / "checkpoint-50").mkdir()
    save_file(own, tmp_path / "checkpoint-50" / "model.safetensors")
    for path in ("a.safetensors", "b.bin", "c.safetensors", "d.safetensors", "checkpoint-50"):
        assert are_drawn(jobs, expected, adapter(folder, name, tmp_path / path)), path


def test_a_unet_without_an_adapter_is_refused(folder: Path, tmp_path: Path) -> None:
    save_file({"unet.conv_in.weight": torch.zeros(1)}, tmp_path / "unet.safetensors")
    with pytest.raises(WeightsError, match="expected tensors of image_proj, found unet") as caught:
        open_synthesizer(adapter(folder, PLAIN, tmp_path / "unet.safetensors"), REFERENCES)
    assert "image_proj_model.*, adapter_modules.*" in (caught.value.hint or "")


def test_a_pointer_in_a_pipeline_is_named(folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folder / "sdxl", tmp_path / "sdxl")
    weights = tmp_path / "sdxl" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(LFS_POINTER)
    with pytest.raises(WeightsError, match=r"unet/diffusion.* found a git-lfs pointer"):
        open_synthesizer(recipe(folder, model=str(tmp_path / "sdxl")), REFERENCES)


def write_peft_directory(folder: Path, lora: Path, **config: Any) -> Path:
    """A LoRA as `save_pretrained` of the peft library writes it."""
    folder.mkdir()
    tensors = {f"base_model.model.{k.removeprefix('unet.')}": v for k, v in load_file(lora).items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "bias": "none", **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def test_a_lora_directory_is_read_as_its_file(folder: Path, tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(folder / "sdxl" / "unet")
    file = write_lora(tmp_path / "lora.safetensors", unet)
    jobs, expected = draw(recipe(folder, lora=str(file)), 1)
    diffusers_folder = tmp_path / "diffusers"
    diffusers_folder.mkdir()
    save_file(load_file(file), diffusers_folder / "pytorch_lora_weights.safetensors")
    for path in (diffusers_folder, write_peft_directory(tmp_path / "peft", file)):
        assert are_drawn(jobs, expected, recipe(folder, lora=str(path))), path
    with pytest.raises(WeightsError, match=r"expected a LoRA directory .* found adapter, sdxl"):
        open_synthesizer(recipe(folder, lora=str(folder)), REFERENCES)


def test_alpha_of_a_config_is_multiplied_in(tmp_path: Path) -> None:
    tensors = {f"unet.a.to_q.lora_{side}.weight": torch.ones(2, 2) for side in "AB"}
    file = tmp_path / "lora.safetensors"
    save_file(tensors, file)
    folder = write_peft_directory(
        tmp_path / "peft", file, lora_alpha=6, alpha_pattern={"b.to_q": 4}, use_rslora=False
    )
    lora = read_lora(folder, "unet")
    assert lora["unet.a.to_q.lora_A.weight"].tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert lora["unet.a.to_q.lora_B.weight"].tolist() == [[3.0, 3.0], [3.0, 3.0]]
    slora = multiply_alpha(tensors, {"unet": {"lora_alpha": 6, "use_rslora": True}})
    torch.testing.assert_close(
        slora["unet.a.to_q.lora_B.weight"], torch.full((2, 2), 6 / math.sqrt(2))
    )


def test_alpha_in_the_header_of_diffusers_is_multiplied_in(tmp_path: Path) -> None:
    tensors = {f"unet.a.to_q.lora_{side}.weight": torch.ones(2, 2) for side in "AB"}
    header = {"unet.r": 2, "unet.lora_alpha": 8, "text_encoder.lora_alpha": 100}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(header)}
    save_file(tensors, tmp_path / "pytorch_lora_weights.safetensors", metadata)
    lora = read_lora(tmp_path, "unet")
    assert lora["unet.a.to_q.lora_B.weight"].tolist() == [[4.0, 4.0], [4.0, 4.0]]
    header["unet.use_dora"] = True
    save_file(tensors, tmp_path / "dora.safetensors", {"lora_adapter_metadata": json.dumps(header)})
    with pytest.raises(WeightsError, match=r"unet: expected LoRA, found DoRA"):
        read_lora(tmp_path / "dora.safetensors", "unet")
