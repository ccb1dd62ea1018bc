"""The call of a pipeline in a recipe: what it may say, and how its places are filled."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from stylear.curate.recipe.synthesizers.pipeline_call import (
    check_call,
    check_class,
    fill_placeholders,
    list_pipeline_classes,
)

GOOD: dict[str, Any] = {"prompt": "{prompt}, {style} style", "image": "{reference}"}


def test_classes_are_those_that_diffusers_exports() -> None:
    import diffusers

    names = list_pipeline_classes()
    assert {"StableDiffusionXLImg2ImgPipeline", "FluxKontextPipeline", "FluxPipeline"} <= names
    assert [name for name in sorted(names) if not hasattr(diffusers, name)] == []
    assert check_class("FluxPipeline") == "FluxPipeline"


def test_names_are_read_without_importing_diffusers() -> None:
    code = (
        "import sys\nfrom stylear.curate.recipe.synthesizers.pipeline_call import check_class\n"
        "check_class('FluxPipeline')\nprint(sorted({'torch', 'diffusers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "name",
    [
        "DiffusionPipeline",  # would take the class that the directory names
        "AutoPipelineForText2Image",
        "ModularPipeline",
        "StableDiffusionXLModularPipeline",
        "OnnxStableDiffusionPipeline",
        "UNet2DConditionModel",
        "__class__",
        "os.system",
        "diffusers.FluxPipeline",
        "",
    ],
)
def test_other_classes_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="pipeline class that the installed diffusers exports"):
        check_class(name)


def test_a_class_almost_right_is_suggested() -> None:
    with pytest.raises(ValueError, match=r"FluxKontextPipeline"):
        check_class("FluxKontexPipeline")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generator": 1}, "generator: is set by the synthesiser"),
        ({"output_type": "latent"}, "output_type: is set by the synthesiser"),
        ({"callback_on_step_end": "print"}, "callback_on_step_end: is set by the synthesiser"),
        ({"num_images_per_prompt": 4}, "num_images_per_prompt: is set by the synthesiser"),
        ({"__init__": 1}, "__init__: expected the name of an argument"),
        ({"_x": 1}, "_x: expected the name"),
        ({"a__b": 1}, "a__b: expected the name"),
        ({"extra": {"__class__": 1}}, "extra: expected plain keys, found '__class__'"),
        ({"prompt_2": "{prompt.__class__}"}, r"no placeholder is called \{prompt.__class__\}"),
        ({"prompt_2": "{0}"}, r"no placeholder is called \{0\}"),
        ({"prompt_2": "{content}"}, r"there are \{prompt\} \{style\}"),
        ({"prompt_2": "{prompt"}, "unbalanced brace"),
        ({"prompt_2": "like {reference}"}, "is an image, so it must be the whole value"),
        ({"mask_image": "/etc/passwd"}, "expected no path and no URL"),
        ({"image": "http://somewhere/x.png"}, "expected no path and no URL"),
        ({"image": "cat.png"}, r"the only image is \{reference\}"),
        ({"input_images": ["cat.png"]}, r"input_images.0: the only image"),
        ({"negative_prompt": "../x"}, "expected no path"),
        ({"extra": {"file": "~/x"}}, "extra.file: expected no path"),
        ({"extra": [b"x"]}, "extra.0: expected text, numbers or lists, found bytes"),
    ],
)
def test_hostile_calls_are_refused(changes: dict[str, Any], message: str) -> None:
    check_call(GOOD)
    with pytest.raises(ValueError, match=message):
        check_call(GOOD | changes)


def test_a_call_has_to_hold_the_prompt_and_a_style() -> None:
    with pytest.raises(ValueError, match=r"no argument contains \{prompt\}"):
        check_call({"prompt": "a cat", "image": "{reference}"})
    with pytest.raises(ValueError, match=r"no argument contains \{reference\} or \{style\}"):
        check_call({"prompt": "{prompt}"})


def test_places_are_filled_once_and_nothing_is_evaluated() -> None:
    picture = object()
    places = {
        "prompt": "a {style} {seed.__class__}",
        "style": "ink",
        "reference": picture,
        "size": 64,
        "seed": 7,
    }
    call = {
        "prompt": "{prompt}, {style} {size}",
        "image": ["{reference}"],
        "height": "{size}",
        "more": {"seed": "{seed}", "scale": 0.5, "flag": True, "none": None},
    }
    assert fill_placeholders(call, places) == {
        "prompt": "a {style} {seed.__class__}, ink 64",
        "image": [picture],
        "height": 64,
        "more": {"seed": 7, "scale": 0.5, "flag": True, "none": None},
    }
