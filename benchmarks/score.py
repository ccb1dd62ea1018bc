"""Scoring from shards, against the bare forward pass of the same model and against open_clip by hand.

    python benchmarks/score.py [--images 96] [--rounds 2] [--batch-size 32] [--by-hand-images 96]

Ours is what `stylear curate score` runs on a shard: read and check it, decode, preprocess, embed images and
captions (`clip-text`), hash (`phash`, always there), write both tables. `bare` is the model alone: the same
images and captions, as tensors in memory, in the same batches. `by hand` is the loop that one writes with
open_clip: tarfile, PIL, its transform and tokenizer, a DataLoader without workers; it checks and writes
nothing. Weights are random. All three take turns in every round, after a first round that does not count.
At most DISTINCT images are drawn and then repeated under other captions; the loop by hand, which is slow
beside a GPU, may be given fewer of them, and is then compared by its rate.

On a GPU: ViT-L-14 in bfloat16; on a CPU: ViT-B-32 in float32.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.utils.data import DataLoader, IterableDataset

from stylear.curate.corpus import shards
from stylear.curate.corpus.ledger import StageInputs
from stylear.curate.engine import cores
from stylear.curate.fetch.pixels import encode_pixels
from stylear.curate.recipe import ClipTextScore, PhashScore
from stylear.curate.score.device import count_loader_threads, resolve_device
from stylear.curate.score.step import ShardWork, open_worker
from stylear.encoders.clip import ClipEncoder
from stylear.pair import Origin, Pair, content_id, digest

RESULTS = Path(__file__).parent / "results"
DISTINCT = 250
WORDS = [
    "red",
    "old",
    "small",
    "wooden",
    "bright",
    "boat",
    "house",
    "apple",
    "street",
    "tree",
    "snow",
]


@dataclass(frozen=True)
class Setup:
    """What all three score: shards, a model, a batch size."""

    arch: str
    device: str
    dtype: str
    checkpoint: Path
    tars: list[Path]
    images: int
    batch_size: int
    by_hand_images: int  # that the loop by hand scores, the first ones

    @property
    def model(self) -> str:
        return f"{self.arch}/{self.checkpoint}"


def make_pairs(images: int, side: int) -> Iterator[Pair]:
    """JPEGs as large as photographs of that side are, with a caption of a dozen words each."""
    noise = np.random.default_rng(0)
    drawn: list[bytes] = []
    for number in range(images):
        if number < DISTINCT:
            coarse = noise.integers(0, 255, (side // 8, side // 8, 3), dtype=np.uint8)
            smooth = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
            grain = noise.normal(0, 6, (side, side, 3))
            pixels = np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8)
            drawn.append(encode_pixels(pixels, "jpg", 95))
        caption = f"number {number}: " + " ".join(noise.choice(WORDS, 11))
        origin = Origin("raw", f"benchmark:{number}", content_id(caption))
        yield Pair(digest("score", number), caption, drawn[number % DISTINCT], origin)


def write_model(arch: str, file: Path) -> None:
    """Random weights of an architecture."""
    import open_clip

    torch.manual_seed(0)
    save_file(open_clip.create_model(arch).state_dict(), file)


def ours(setup: Setup, out: Path) -> Callable[[], None]:
    """The worker of the score step, over all shards."""
    spec = ClipTextScore(
        name="text",
        type="clip-text",
        model=setup.model,
        batch_size=setup.batch_size,
        device=setup.device,
        dtype=setup.dtype,  # type: ignore[arg-type]
    )
    specs = [resolve_device(spec), PhashScore(type="phash")]
    works = [
        ShardWork(
            "raw",
            tar,
            0,
            tuple(
                (scorer, out / scorer.name / f"{tar.stem}.parquet", StageInputs({}, ""))
                for scorer in specs
            ),
        )
        for tar in setup.tars
    ]
    gpu = setup.device != "cpu"
    units = [tuple(works)] if gpu else [(work,) for work in works]  # as the step does
    worker = open_worker([], out, count_loader_threads(gpu=gpu))

    def run() -> None:
        tables = sum(len(written) for unit in units for written in worker(unit))
        check(tables, len(specs) * len(works))

    return run


def bare(setup: Setup) -> Callable[[], None]:
    """Forward passes over tensors that lie on the device."""
    import open_clip

    clip = ClipEncoder.open(setup.model, setup.device, getattr(torch, setup.dtype))
    model: Any = clip.model
    tokenizer = open_clip.get_tokenizer(setup.arch)
    batches = []
    for tar in setup.tars:
        pairs = list(shards.read_shard(tar))
        for start in range(0, len(pairs), setup.batch_size):
            part = pairs[start : start + setup.batch_size]
            tokens = tokenizer([pair.caption for pair in part]).to(setup.device)
            pixels = clip.preprocess([pair.image for pair in part]).to(clip.dtype)
            batches.append((pixels, tokens))

    @torch.no_grad()
    def run() -> None:
        count = 0
        for pixels, tokens in batches:
            model.encode_text(tokens)
            count += len(model.encode_image(pixels))
        if setup.device != "cpu":
            torch.cuda.synchronize()
        check(count, setup.images)

    return run


class Tars(IterableDataset):  # type: ignore[type-arg]
    """(pixels, tokens) of the first samples of some tars."""

    def __init__(self, tars: list[Path], count: int, transform: Any, tokenizer: Any) -> None:
        self.tars, self.count, self.transform, self.tokenizer = tars, count, transform, tokenizer

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        left = self.count
        for path in self.tars:
            with tarfile.open(path) as tar:
                files = {member.name: member for member in tar} if left else {}
                for name in [name for name in files if name.endswith(".jpg")][:left]:
                    left -= 1
                    image = Image.open(io.BytesIO(tar.extractfile(files[name]).read()))  # type: ignore[union-attr]
                    text = tar.extractfile(files[name[:-3] + "txt"]).read().decode()  # type: ignore[union-attr]
                    yield self.transform(image.convert("RGB")), self.tokenizer(text)[0]


def by_hand(setup: Setup) -> Callable[[], None]:
    """The loop of a script."""
    import open_clip

    precision = {"float32": "fp32", "bfloat16": "bf16"}[setup.dtype]
    model, _, transform = open_clip.create_model_and_transforms(
        setup.arch, pretrained=str(setup.checkpoint), precision=precision, device=setup.device
    )
    model.eval()
    tokenizer = open_clip.get_tokenizer(setup.arch)
    dtype = getattr(torch, setup.dtype)

    @torch.no_grad()
    def run() -> None:
        scores: list[float] = []
        samples = Tars(setup.tars, setup.by_hand_images, transform, tokenizer)
        loader = DataLoader(samples, batch_size=setup.batch_size)
        for pixels, tokens in loader:
            images = model.encode_image(pixels.to(setup.device, dtype), normalize=True)
            texts = model.encode_text(tokens.to(setup.device), normalize=True)
            scores += (images * texts).sum(dim=-1).tolist()
        check(len(scores), setup.by_hand_images)

    return run


def check(found: int, expected: int) -> None:
    """A way that skipped something was not measured."""
    if found != expected:
        raise SystemExit(f"expected {expected}, found {found}")


def measure(
    ways: dict[str, Callable[[], None]], rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Wall and CPU seconds of every way in every round but the first."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            start, cpu = time.perf_counter(), time.process_time()
            way()
            if number:
                seconds[name].append((time.perf_counter() - start, time.process_time() - cpu))
    return seconds


def summary(
    seconds: dict[str, list[tuple[float, float]]], images: dict[str, int]
) -> dict[str, Any]:
    """Medians of rounds; ratios are medians of the ratios within a round, of seconds an image."""
    wall = {name: statistics.median(wall for wall, _ in rounds) for name, rounds in seconds.items()}

    def ratio(other: str, which: int) -> float:
        pairs = zip(seconds[other], seconds["ours"], strict=True)
        middle = statistics.median(theirs[which] / mine[which] for theirs, mine in pairs)
        return round(middle * images["ours"] / images[other], 3)

    return {
        "seconds": {
            name: [[round(value, 2) for value in one] for one in rounds]
            for name, rounds in seconds.items()
        },
        "images_per_s": {name: round(images[name] / one, 2) for name, one in wall.items()},
        "of_bare": ratio("bare", 0),
        "times_by_hand": ratio("by hand", 0),
        "of_bare_by_cpu_time": ratio("bare", 1),
        "times_by_hand_by_cpu_time": ratio("by hand", 1),
    }


def table(result: dict[str, Any]) -> str:
    """The result as markdown."""
    rate = result["images_per_s"]
    return "\n".join(
        [
            "# Scoring: clip-text from shards",
            "",
            f"`{result['command']}` on {result['machine']}; load average {result['load']} at the start.",
            f"{result['model']}, {result['images']} images of {result['side']} px, batches of"
            f" {result['batch_size']}; medians of {result['rounds']} rounds. See benchmarks/README.md.",
            "",
            "| images/s: ours | bare forward pass | open_clip by hand | ours / bare (goal 0.95) |"
            " ours / by hand | by CPU time: of bare | of by hand |",
            "|---|---|---|---|---|---|---|",
            f"| {rate['ours']:,} | {rate['bare']:,} | {rate['by hand']:,} | {result['of_bare']} |"
            f" {result['times_by_hand']} | {result['of_bare_by_cpu_time']} |"
            f" {result['times_by_hand_by_cpu_time']} |",
            "",
        ]
    )


def make_parser(gpu: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=16_000 if gpu else 96)
    parser.add_argument("--side", type=int, default=256, help="of each image, in pixels")
    parser.add_argument("--rounds", type=int, default=3 if gpu else 2)
    parser.add_argument("--batch-size", type=int, default=256 if gpu else 32)
    parser.add_argument("--by-hand-images", type=int, help="that the loop by hand scores; all")
    parser.add_argument("--arch", default="ViT-L-14" if gpu else "ViT-B-32", help="of open_clip")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser


def main() -> None:
    gpu = torch.cuda.is_available()
    args = make_parser(gpu).parse_args()
    arch, dtype = args.arch, "bfloat16" if gpu else "float32"
    by_hand_images = min(args.images, args.by_hand_images or args.images)
    on = torch.cuda.get_device_name() if gpu else "CPU"
    result: dict[str, Any] = {
        "command": f"python benchmarks/score.py --images {args.images} --side {args.side}"
        f" --rounds {args.rounds} --batch-size {args.batch_size}"
        f" --by-hand-images {by_hand_images} --arch {arch}",
        "machine": f"{on}, {cores()} CPU cores ({platform.machine()}), torch {version('torch')},"
        f" open_clip {version('open_clip_torch')}",
        "load": round(os.getloadavg()[0], 1),
        "model": f"{arch} in {dtype}, random weights",
        "images": args.images,
        "by_hand_images": by_hand_images,
        "side": args.side,
        "batch_size": args.batch_size,
        "rounds": args.rounds,
    }
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_model(arch, root / "random.safetensors")
        size = 1000 if gpu else args.images // 2
        pairs = list(make_pairs(args.images, args.side))
        for start in range(0, len(pairs), size):
            shards.write_shard(root / "raw", start // size, pairs[start : start + size])
        tars = shards.shard_paths(root / "raw")
        device = "cuda" if gpu else "cpu"
        setup = Setup(
            arch=arch,
            device=device,
            dtype=dtype,
            checkpoint=root / "random.safetensors",
            tars=tars,
            images=len(pairs),
            batch_size=args.batch_size,
            by_hand_images=by_hand_images,
        )
        ways = {
            "ours": ours(setup, root / "scores"),
            "bare": bare(setup),
            "by hand": by_hand(setup),
        }
        counts = {"ours": len(pairs), "bare": len(pairs), "by hand": by_hand_images}
        result |= summary(measure(ways, args.rounds), counts)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "score.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    (args.out / "score.md").write_text(table(result), "utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
