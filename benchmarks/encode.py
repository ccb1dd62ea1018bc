"""Encoding a corpus, against the bare forward passes of the same models in the same batches.

    python benchmarks/encode.py [--images 64] [--rounds 2] [--read-samples 4000] [--out benchmarks/results]

Ours is what `stylear train encode` runs: read and check the shards, decode, cut, preprocess, codes of the
image tokenizer and features of the image encoder, files written and synced. `bare` is both models over the
same images as tensors in memory. Weights are random. Both take turns, after a round that does not count.

On a GPU: Chameleon's VQGAN at 512 px and ViT-H-14; on a CPU: the same at 64 px with ViT-B-32.

A second table compares ways to read the samples of shards, without decoding: this project's reader, which
checks every image against the hash in its table; webdataset's tar iterator; and wids, in order and shuffled.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from stylear.curate.corpus import shards
from stylear.curate.corpus.pair_reader import PairReader
from stylear.device import pick_device
from stylear.encoders.clip import ClipEncoder
from stylear.model.build import new_model
from stylear.model.decoder_config import DecoderConfig
from stylear.model.style_model import StyleModel
from stylear.model.tokenizer import build_tokenizer
from stylear.model.vq import VQConfig, VQModel
from stylear.pair import Origin, Pair, content_id, digest
from stylear.train.encode import BATCH, encode_corpus
from stylear.train.pictures import decode_picture, picture_to_pixels

GOAL = 0.95
SMALL = DecoderConfig(
    hidden_size=32,
    intermediate_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=2,
)


def make_corpus(corpus: Path, images: int, side: int, distinct: int = 64) -> None:
    """Shards of smooth JPEGs with some grain; at most `distinct` different ones."""
    draw = np.random.default_rng(0)
    drawn: list[bytes] = []
    for index, start in enumerate(range(0, images, 1000)):
        pairs = []
        for number in range(start, min(images, start + 1000)):
            if number < distinct:
                coarse = draw.integers(0, 255, (side // 8, side // 8, 3), dtype=np.uint8)
                smooth = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
                grain = draw.normal(0, 6, (side, side, 3))
                pixels = np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8)
                buffer = io.BytesIO()
                Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
                drawn.append(buffer.getvalue())
            caption = f"a photo of thing number {number}"
            origin = Origin("raw", f"benchmark:{number}", content_id(caption))
            pairs.append(Pair(digest("encode", number), caption, drawn[number % distinct], origin))
        shards.write_shard(corpus / "train", index, pairs)


def make_model(folder: Path, side: int, arch: str, device: str) -> StyleModel:
    """A model with random weights whose decoder is as good as none."""
    import open_clip

    torch.manual_seed(0)
    config = VQConfig(resolution=side)
    tokenizer = build_tokenizer(
        ["a photo of a thing"], config.num_embeddings, [side // config.factor // 2], 300
    )
    model = new_model(folder / "model", tokenizer, SMALL, VQModel(config))
    weights = folder / "clip.safetensors"
    save_file(open_clip.create_model(arch).state_dict(), weights)
    model.vq.to(device)
    model.clip = ClipEncoder.open(f"{arch}/{weights}", device)
    return model


def bare(model: StyleModel, corpus: Path, side: int, device: str) -> Callable[[], None]:
    """Both forward passes over tensors that lie on the device."""
    clip: Any = model.clip
    pairs = list(shards.iter_pairs(corpus / "train"))
    batches = []
    for start in range(0, len(pairs), BATCH):
        images = [pair.image for pair in pairs[start : start + BATCH]]
        pixels = torch.stack([picture_to_pixels(decode_picture(image), side) for image in images])
        batches.append((pixels.to(device), clip.preprocess(images)))

    @torch.inference_mode()
    def run() -> None:
        for pixels, resized in batches:
            model.vq.encode(pixels)
            clip.patch_features(resized)
        if device != "cpu":
            torch.cuda.synchronize()

    return run


def measure(run: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare_encoding(images: int, rounds: int) -> dict[str, Any]:
    """Images per second of both, and the ratio, by the median of the rounds."""
    device = pick_device("auto")
    side, arch = (64, "ViT-B-32") if device == "cpu" else (512, "ViT-H-14")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus, cache = folder / "corpus", folder / "encoded"
        make_corpus(corpus, images, side)
        model = make_model(folder, side, arch, device)

        def encode() -> None:
            encode_corpus(model, corpus, "train", cache, copies=1, features=True)

        forward = bare(model, corpus, side, device)
        seconds: list[tuple[float, float]] = []
        for _ in range(rounds + 1):
            shutil.rmtree(cache, ignore_errors=True)
            seconds.append((measure(encode), measure(forward)))
        size = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    counted = seconds[1:]
    ratio = statistics.median(without / with_all for with_all, without in counted)
    return {
        "device": device if device == "cpu" else torch.cuda.get_device_name(),
        "side": side,
        "encoder": arch,
        "images": images,
        "images_per_s": round(images / statistics.median(one for one, _ in counted), 2),
        "bare_images_per_s": round(images / statistics.median(one for _, one in counted), 2),
        "ratio": round(ratio, 3),
        "rounds": [[round(one, 3) for one in pair] for pair in counted],
        "bytes_per_image": round(size / images),
    }


def compare_readers(samples: int, rounds: int) -> dict[str, float]:
    """Samples per second of each way to read shards."""
    import wids

    with tempfile.TemporaryDirectory() as name:
        corpus = Path(name) / "corpus"
        make_corpus(corpus, samples, 128)
        tars = shards.shard_paths(corpus / "train")
        order = np.random.default_rng(0).permutation(samples).tolist()
        keys = [pair.key for pair in shards.iter_pairs(corpus / "train")]

        def open_wids() -> Any:
            entries = [{"url": str(tar), "nsamples": 1000} for tar in tars]
            with contextlib.redirect_stdout(io.StringIO()):
                return wids.ShardListDataset(
                    entries, cache_dir=str(Path(name) / "wids"), transformations=[], keep=True
                )

        def read_wids(numbers: list[int]) -> int:
            with contextlib.redirect_stdout(io.StringIO()):
                data = open_wids()
                return sum(len(data[number][".jpg"].read()) for number in numbers)

        def read_shuffled() -> int:
            reader = PairReader(corpus, ("train",))
            return sum(len(reader.pair(keys[number]).image) for number in order)

        ways: dict[str, Callable[[], int]] = {
            "ours, in order, hashes checked": lambda: sum(
                len(pair.image) for tar in tars for pair in shards.read_shard(tar)
            ),
            "webdataset, in order": lambda: sum(
                len(sample["image"]) for sample in shards.read_samples(tars)
            ),
            "wids, in order": lambda: read_wids(list(range(samples))),
            "ours, shuffled, hashes checked": read_shuffled,
            "wids, shuffled": lambda: read_wids(order),
        }
        assert len({way() for way in ways.values()}) == 1  # all read the same bytes
        taken = {name: [measure(way) for _ in range(rounds)] for name, way in ways.items()}
    return {name: round(samples / min(seconds)) for name, seconds in taken.items()}


def markdown(result: dict[str, Any]) -> str:
    """The result as a page."""
    row, verdict = result["encoding"], "reached" if result["reached"] else "missed"
    lines = [
        "# Encoding a corpus",
        "",
        f"{row['images']} images of {row['side']} px, VQGAN and {row['encoder']}, batches of {BATCH}, on"
        f" {row['device']}, {result['machine']['system']}, Python {result['machine']['python']}, torch"
        f" {result['machine']['torch']}. Goal {GOAL}: {verdict}.",
        "",
        "| `train encode` | bare forward passes | ratio | bytes an image |",
        "|---|---|---|---|",
        f"| {row['images_per_s']} images/s | {row['bare_images_per_s']} images/s | {row['ratio']} |"
        f" {row['bytes_per_image']:,} |",
        "",
        "| reading shards, not decoding | samples/s |",
        "|---|---|",
        *(f"| {name} | {rate:,} |" for name, rate in result["readers"].items()),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--read-samples", type=int, default=4000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    encoding = compare_encoding(args.images, args.rounds)
    result = {
        "encoding": encoding,
        "readers": compare_readers(args.read_samples, args.rounds),
        "goal": GOAL,
        "reached": encoding["ratio"] >= GOAL,
        "machine": {
            "system": platform.platform(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "encode.json").write_text(json.dumps(result, indent=1) + "\n")
    (args.out / "encode.md").write_text(markdown(result))
    print(markdown(result))


if __name__ == "__main__":
    main()
