"""Drawing stylized images with `ip-adapter`, against the plain diffusers loop that a user would write.

    python benchmarks/synthesize.py [--model full] [--steps 30] [--size 1024] [--batch-size 8] [--compile]

Both sides draw the same jobs (prompt, reference, seed) with the same weights, number type, steps, guidance
and size, in turns; every round has prompts and references of its own. The loop calls the pipeline once an
image, with the prompt and the reference as they are, and saves a PNG before it goes on. Ours makes finished
shards: hashed, synced, with their tables. The weights are random: `full` has the sizes of SDXL and ViT-H,
`small` some hundred times fewer parameters.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image
from support.random_sdxl import SIZES, write_sdxl
from transformers import CLIPVisionModelWithProjection

from stylear.curate.corpus.shards import write_shard
from stylear.curate.recipe import check_recipe
from stylear.curate.references import StyleReference
from stylear.curate.synthesize import Job, open_synthesizer
from stylear.curate.synthesize.plan import plan_jobs
from stylear.curate.synthesize.prompts.sources import Content
from stylear.pair import Pair, content_id

RESULTS = Path(__file__).parent / "results"
NOUNS = ["cat", "owl", "boat", "house", "tree", "apple", "horse", "lamp"]
KINDS = ["red", "old", "small", "wet", "tall", "blue", "quiet", "bright"]  # one a round
PLACES = ["a hill", "a table", "the sea", "a street", "a field", "a shelf", "a roof", "the snow"]
GUIDANCE, SCALE = 5.0, 0.6


def make_references(count: int, first: int) -> list[StyleReference]:
    """Noise in coarse squares, as PNG."""
    references = []
    for number in range(first, first + count):
        squares = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        out = io.BytesIO()
        Image.fromarray(squares).resize((512, 512)).save(out, "PNG")
        data = out.getvalue()
        sha256 = hashlib.sha256(data).hexdigest()
        references.append(StyleReference(f"style--{number:02d}", data, sha256, Path(), False))
    return references


def rows_of(prompts: int, number: int) -> list[Content]:
    """The prompts of one round."""
    texts = [f"a {KINDS[number]} {noun} on {place}" for place in PLACES for noun in NOUNS]
    return [Content(None, text, content_id(text)) for text in texts[:prompts]]


def make_recipe(args: argparse.Namespace, folder: Path) -> Any:
    """What ours is told; every prompt meets every reference once, with some candidates."""
    settings = {
        "model": str(folder / "sdxl"),
        "ip_adapter": str(folder / "adapter" / "adapter.safetensors"),
        "steps": args.steps,
        "guidance": GUIDANCE,
        "scale": SCALE,
        "negative_prompt": "blurry",
        "size": args.size,
        "device": args.device,
        "batch_size": args.batch_size,
        "compile": args.compile,
        "vae_slicing": args.vae_slicing,
        "threads": torch.get_num_threads(),
        "retries": 0,
    }
    values = {
        "name": "benchmark",
        "image": {"size": args.size, "format": "png"},
        "raw": [{"type": "mini"}],
        "references": [{"type": "mini"}],
        "synthesize": {
            "backend": "ip-adapter",
            "references_per_content": args.references,
            "candidates": args.candidates,
            "settings": settings,
        },
        "mix": {"val_fraction": 0.0},
    }
    return check_recipe(values, folder)


def open_plain(folder: Path, device: str, dtype: torch.dtype) -> Any:
    """The pipeline as its documentation opens it."""
    encoder = CLIPVisionModelWithProjection.from_pretrained(
        folder / "adapter" / "image_encoder", dtype=dtype
    )
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        folder / "sdxl", dtype=dtype, image_encoder=encoder, add_watermarker=False
    )
    pipeline.load_ip_adapter(
        str(folder / "adapter"), subfolder="", weight_name="adapter.safetensors"
    )
    pipeline.set_ip_adapter_scale(SCALE)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def draw_plainly(
    pipeline: Any, jobs: list[Job], images: dict[str, Any], args: Any, out: Path
) -> None:
    """The loop of a user: one call an image, saved in line."""
    for job in jobs:
        image = pipeline(
            prompt=job.prompt,
            negative_prompt="blurry",
            ip_adapter_image=images[job.reference],
            num_inference_steps=args.steps,
            guidance_scale=GUIDANCE,
            height=args.size,
            width=args.size,
            generator=torch.Generator("cpu").manual_seed(job.seed),
        ).images[0]
        image.save(out / f"{job.key}.png")


def draw_ours(synthesizer: Any, jobs: list[Job], out: Path, number: int) -> list[Pair]:
    pairs: list[Pair] = synthesizer([(job, b"") for job in jobs])
    write_shard(out, number, pairs)
    return pairs


def furthest(pairs: list[Pair], folder: Path) -> int:
    """The largest difference, in levels of 255, of any pixel of any image of the two sides."""
    worst = 0
    for pair in pairs:
        ours = np.asarray(Image.open(io.BytesIO(pair.image))).astype(int)
        plain = np.asarray(Image.open(folder / f"{pair.key}.png")).astype(int)
        worst = max(worst, int(np.abs(ours - plain).max()))
    return worst


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Wall and CPU seconds of both sides in every round."""
    dtype = torch.float32 if args.device == "cpu" else torch.bfloat16
    write_sdxl(folder, SIZES[args.model], args.device, dtype)
    recipe = make_recipe(args, folder)
    turns = range(args.rounds + 1)  # the last to warm up with
    styles = [make_references(args.references, turn * args.references) for turn in turns]
    everything = [reference for some in styles for reference in some]
    images = {r.id: Image.open(io.BytesIO(r.image)).convert("RGB") for r in everything}
    *rounds, warm = [list(plan_jobs(rows_of(args.prompts, n), styles[n], recipe)) for n in turns]
    plain = open_plain(folder, args.device, dtype)
    synthesizer = open_synthesizer(recipe, everything)
    (folder / "warm").mkdir()
    draw_plainly(plain, warm[:2], images, args, folder / "warm")
    warmed_at = time.perf_counter()
    draw_ours(synthesizer, warm[: max(2, args.batch_size)], folder / "warm", 0)
    result: dict[str, Any] = {
        "images": len(rounds[0]),
        "warm_up_s": round(time.perf_counter() - warmed_at, 1),
        "seconds": {"ours": [], "plain": []},
        "cpu_seconds": {"ours": [], "plain": []},
    }
    pairs: list[Pair] = []
    for number, jobs in enumerate(rounds):
        for name in ("plain", "ours") if number % 2 else ("ours", "plain"):
            wall, cpu = time.perf_counter(), time.process_time()
            if name == "plain":
                draw_plainly(plain, jobs, images, args, folder)
            else:
                pairs += draw_ours(synthesizer, jobs, folder / "shards", number)
            result["seconds"][name].append(round(time.perf_counter() - wall, 3))
            result["cpu_seconds"][name].append(round(time.process_time() - cpu, 3))
    assert all(pair.kept for pair in pairs), {pair.verdict.reason for pair in pairs}
    result["largest_difference"] = furthest(pairs, folder)
    return result


def summed(result: dict[str, Any]) -> dict[str, Any]:
    """Rates and ratios from the medians of the rounds."""
    for kind, ratio in (("seconds", "times_plain"), ("cpu_seconds", "times_plain_by_cpu")):
        middle = {name: statistics.median(rounds) for name, rounds in result[kind].items()}
        result[ratio] = round(middle["plain"] / middle["ours"], 2)
        each = zip(result[kind]["plain"], result[kind]["ours"], strict=True)
        result[f"{ratio}_rounds"] = [round(plain / ours, 2) for plain, ours in each]
    walls = {name: statistics.median(rounds) for name, rounds in result["seconds"].items()}
    result["images_per_s"] = {n: round(result["images"] / s, 3) for n, s in walls.items()}
    return result


def table(result: dict[str, Any]) -> str:
    """The result as markdown."""
    rates = result["images_per_s"]
    low, high = min(result["times_plain_rounds"]), max(result["times_plain_rounds"])
    return "\n".join(
        [
            "# Synthesis: `ip-adapter` against the plain diffusers loop",
            "",
            f"`{result['command']}` on {result['machine']}; load average {result['load']} at the start.",
            f"{result['images']} images a round, medians of {result['rounds']} rounds in turns; the goal"
            " (2 times) is for a GPU.",
            "",
            "| model | images/s: ours | plain loop | ours / plain | in the rounds | by CPU time |"
            " largest difference of a pixel |",
            "|---|---|---|---|---|---|---|",
            f"| {result['model']} | {rates['ours']} | {rates['plain']} | {result['times_plain']} |"
            f" {low} to {high} | {result['times_plain_by_cpu']} |"
            f" {result['largest_difference']} of 255 |",
            "",
        ]
    )


def make_parser(gpu: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda" if gpu else "cpu")
    parser.add_argument("--model", choices=SIZES, default="full" if gpu else "small")
    parser.add_argument("--size", type=int, default=1024 if gpu else 128, help="pixels a side")
    parser.add_argument("--steps", type=int, default=30 if gpu else 8)
    parser.add_argument("--batch-size", type=int, default=8, help="a CPU draws singly")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--references", type=int, default=2, help="that each prompt meets")
    parser.add_argument("--candidates", type=int, default=2, help="of each prompt and reference")
    parser.add_argument("--rounds", type=int, default=3, choices=range(1, len(KINDS)))
    parser.add_argument("--compile", action="store_true", help="ours: torch.compile the UNet")
    parser.add_argument("--no-vae-slicing", dest="vae_slicing", action="store_false")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser


def main() -> None:
    args = make_parser(torch.cuda.is_available()).parse_args()
    warnings.filterwarnings("ignore", message="__array__ implementation")  # diffusers' Euler
    options = [
        *(f"--{n} {getattr(args, n)}" for n in ("device", "model", "size", "steps", "prompts")),
        *(f"--{n} {getattr(args, n)}" for n in ("references", "candidates", "rounds")),
        f"--batch-size {args.batch_size}",
        *(["--compile"] if args.compile else []),
        *([] if args.vae_slicing else ["--no-vae-slicing"]),
    ]
    place = torch.cuda.get_device_name() if args.device.startswith("cuda") else "no GPU"
    with tempfile.TemporaryDirectory() as folder:
        result: dict[str, Any] = {
            "command": f"python benchmarks/synthesize.py {' '.join(options)}",
            "machine": f"{place}, {len(os.sched_getaffinity(0))} CPU cores ({platform.machine()}),"
            f" {torch.get_num_threads()} torch threads, Python {platform.python_version()},"
            f" torch {torch.__version__}, diffusers {diffusers.__version__}",
            "load": round(os.getloadavg()[0], 1),
            "model": args.model,
            "rounds": args.rounds,
            **measure(args, Path(folder)),
        }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "synthesize.json").write_text(json.dumps(summed(result), indent=1) + "\n", "utf-8")
    (args.out / "synthesize.md").write_text(table(result), "utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
