"""Gallery: the directory of pictures that `stylear generate` writes.

0000.png ...           the pictures, ordered by reference, then prompt, then seed
generations.jsonl      a line for each picture with all that is needed to draw it again
grid.png               a row for each reference, a column for each prompt: the first seed of each
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

import stylear
from stylear.console import say_warning
from stylear.encoders.preprocess import to_rgb
from stylear.encoders.segment import Mask, subject_masks
from stylear.errors import SourceError, UsageError
from stylear.model.int8 import find_quantization
from stylear.sampling.context import compute_grid, describe_long_prompts, measure_prompt
from stylear.sampling.control import encode_control
from stylear.sampling.generate import Sampling, generate_batches
from stylear.sampling.grid import Block, Row, draw_grid, encode_png
from stylear.sampling.references import Reference
from stylear.sampling.styles import Style, StyleBlend
from stylear.weights.files import hash_path, write_bytes

if TYPE_CHECKING:
    import torch

    from stylear.model.style_model import StyleModel

METADATA, GRID = "generations.jsonl", "grid.png"


@dataclass(frozen=True, slots=True)
class Control:
    """A control image and the file it is from."""

    picture: Image.Image
    path: Path


def load_control(path: Path) -> Control:
    """The control image of a file. Raises SourceError if it is not an image."""
    try:
        return Control(to_rgb(path.read_bytes()), path)
    except (OSError, SourceError) as error:
        problem = error.message if isinstance(error, SourceError) else error.strerror
        raise SourceError(
            f"--control {path}: expected a depth map or segmentation: {problem}",
            hint="give a PNG or JPEG",
        ) from error


def check_free(out: Path, *, force: bool) -> None:
    """Raise UsageError if `out` is a file, or is not empty and `force` is off."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: expected a directory to write to, found a file")
    if not force and out.is_dir() and any(out.iterdir()):
        raise UsageError(
            f"{out}: expected an empty directory, found files",
            hint="choose another --out, or overwrite with --force",
        )


def write_gallery(
    model: StyleModel,
    references: Sequence[Reference],
    prompts: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    sampling: Sampling,
    *,
    segment: str | None = None,
    control: Control | None = None,
    on_batch: Callable[[int], None] | None = None,
    on_warning: Callable[[str], None] = say_warning,
) -> list[dict[str, Any]]:
    """Generate references x prompts x seeds into `out`; returns the lines of generations.jsonl.

    Pictures of an earlier gallery there are removed. Without references the prompts alone are
    drawn. `segment` is a method of `subject_masks`; `control` is followed by all pictures. `on_warning` is
    called with what the caller should know, such as prompts that are longer than the model's context.
    Raises UsageError when one mask picture is given for several references.
    """
    inputs = _prepare_styles(references, segment, model.device)
    codes = None
    if control is not None:
        codes = encode_control(model, control.picture, *compute_grid(model, sampling.size_px))
    sources: list[Reference | None] = [*references] or [None]
    jobs = list(product(range(len(sources)), prompts, seeds))
    for file in _list_earlier_pictures(out / METADATA):
        (out / file).unlink(missing_ok=True)
    lengths = {
        (i, prompt): measure_prompt(
            model,
            prompt,
            is_styled=source is not None,
            size_px=sampling.size_px,
            control=codes,
        )
        for i, source in enumerate(sources)
        for prompt in prompts
    }
    if warning := describe_long_prompts([lengths[0, prompt] for prompt in prompts], model.name):
        on_warning(warning)
    styles = [_style_metadata(source) | {"segment": segment} for source in sources]
    control_sha256 = None if control is None else hash_path(control.path)
    settings = {
        **asdict(sampling),
        "control": None if control is None else control.path.name,
        "control_sha256": control_sha256,
        "model": model.name,
        "model_sha256": _hash_weights(model),
        "quantize": find_quantization(model.decoder),
        "version": stylear.__version__,
    }
    lines: list[dict[str, Any]] = []
    firsts: list[Image.Image] = []  # of each reference and prompt
    drawn = generate_batches(
        model,
        [prompt for _, prompt, _ in jobs],
        [inputs[i][0] for i, _, _ in jobs],
        [inputs[i][1] for i, _, _ in jobs],
        [seed for _, _, seed in jobs],
        sampling,
        codes,
    )
    for pictures in drawn:
        batch = jobs[len(lines) : len(lines) + len(pictures)]
        for (i, prompt, seed), picture in zip(batch, pictures, strict=True):
            file = f"{len(lines):04d}.png"
            write_bytes(out / file, encode_png(picture))
            if len(lines) % len(seeds) == 0:
                firsts.append(picture)
            line = {"file": file, "prompt": prompt, "seed": seed, **lengths[i, prompt].to_dict()}
            lines.append({**line, **styles[i], **settings})
        # the pictures of a finished batch stay listed if the next one fails
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_bytes(out / METADATA, text.encode())
        if on_batch is not None:
            on_batch(len(batch))
    write_bytes(out / GRID, encode_png(_draw_gallery_grid(model.name, sources, prompts, firsts)))
    return lines


def _hash_weights(model: StyleModel) -> str | None:
    return None if model.source is None else hash_path(model.source)


def _prepare_styles(
    references: Sequence[Reference], segment: str | None, device: torch.device
) -> list[tuple[Style | None, Mask | None]]:
    """What `generate` takes of each reference: its picture and mask, or its blend with masks within it."""
    if not references:
        if segment is not None:
            raise UsageError("--segment: expected --style with it, found none")
        return [(None, None)]
    pictures = [
        part.picture
        for reference in references
        for part in [blended.reference for blended in reference.parts] or [reference]
    ]
    masks = iter(_open_masks(pictures, segment, device))
    return [
        (
            StyleBlend(
                pictures=[part.reference.picture for part in reference.parts],
                weights=[part.weight for part in reference.parts],
                masks=[next(masks) for _ in reference.parts],
            ),
            None,
        )
        if reference.parts
        else (reference.picture, next(masks))
        for reference in references
    ]


def _open_masks(
    pictures: Sequence[Image.Image], segment: str | None, device: torch.device
) -> Sequence[Mask | None]:
    if segment is None:
        return [None] * len(pictures)
    if len(pictures) > 1 and segment != "grabcut" and not segment.startswith("sam:"):
        raise UsageError(
            f"--segment {segment}: expected one style for one mask, found {len(pictures)}",
            hint="give one --style, or use `grabcut` or `sam:sam-vit-b`",
        )
    return subject_masks(pictures, segment, device)


def _style_metadata(reference: Reference | None) -> dict[str, Any]:
    if reference is None:
        return {"style": None, "style_sha256": None, "references": []}
    parts = [
        {"id": part.reference.id, "sha256": _hash_reference(part.reference), "weight": part.weight}
        for part in reference.parts
    ]
    return {
        "style": reference.id,
        "style_sha256": None if parts else _hash_reference(reference),
        "references": parts,
    }


def _hash_reference(reference: Reference) -> str:
    data = reference.path.read_bytes() if reference.path else encode_png(reference.picture)
    return hashlib.sha256(data).hexdigest()


def _draw_gallery_grid(
    title: str,
    sources: Sequence[Reference | None],
    prompts: Sequence[str],
    pictures: Sequence[Image.Image],
) -> Image.Image:
    across = len(prompts)
    cells = [pictures[i : i + across] for i in range(0, len(pictures), across)]
    rows = [Row("") if source is None else Row(source.label, source.picture) for source in sources]
    return draw_grid([Block(title, cells)], rows=rows, columns=prompts)


def _list_earlier_pictures(record: Path) -> list[str]:
    """The names of the pictures that an earlier generations.jsonl lists."""
    if not record.is_file():
        return []
    try:
        return [Path(json.loads(line)["file"]).name for line in record.read_text().splitlines()]
    except (ValueError, KeyError, TypeError):
        return []  # another program wrote it: it is replaced, and no picture is removed
