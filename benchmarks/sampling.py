"""Drawing image codes with guidance, against the published code's way, with random weights.

    python benchmarks/sampling.py                                   # a small model, for a CPU
    python benchmarks/sampling.py --config 7b --size 768 --batch-sizes 1 16 --peer-codes 32    # for a GPU

The published way runs transformers' Chameleon with a cache: for each token two unbatched forward passes, one
with the prompt and one without, and the logits of the full vocabulary, masked to the image codes. Both sides
have the same weights, draws, guidance and top-k, and must draw the same codes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import ChameleonConfig, ChameleonModel
from transformers.cache_utils import DynamicCache

from stylear.model.decoder_config import DecoderConfig
from stylear.model.fuse import compile_blocks, fuse_decoder
from stylear.model.transformer import Decoder
from stylear.model.vq import VQConfig, VQModel
from stylear.sampling.decode import CodeSampler, sample_code

RESULTS = Path(__file__).parent / "results"
CONFIGS = {
    "tiny": DecoderConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
    ),
    "small": DecoderConfig(  # an eighth of 7b in every dimension
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
    ),
    "deep": DecoderConfig(  # more layers, so that the head is less of the whole
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
    ),
    "7b": DecoderConfig(),
}
VQ_CONFIGS = {
    "7b": VQConfig(),
    **dict.fromkeys(("tiny", "small", "deep"), VQConfig(base_channels=32)),
}
CODES, CODES_START, FACTOR = 8192, 4, 16  # of Chameleon
PROMPT_TOKENS = 48
GUIDANCE, TOP_K, TEMPERATURE = 4.0, 2000, 1.0  # released code
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Layout:
    """Chameleon's ids, as far as sampling asks for them; its vocabulary is not needed."""

    image_token_ids: tuple[int, ...] = tuple(range(CODES_START, CODES_START + CODES))
    pad: int = 1
    newline: int = 8803
    style_placeholder: int | None = None

    def prefix(self, height: int, width: int) -> list[int]:
        return [8197, 8804 + height // 2, 8804 + width // 2]

    def null_prompt(self, prompt: Any) -> list[int]:
        return []


def build_decoder(config: DecoderConfig, device: str, dtype: torch.dtype) -> Decoder:
    """Random weights, made on the device; the head is sharp enough that codes differ."""
    with torch.device("meta"):
        decoder = Decoder(config, Layout().image_token_ids)
    order = decoder.image_order.clone()
    decoder.to(dtype).to_empty(device=device)
    decoder.image_order.copy_(order)
    generator = torch.Generator(device).manual_seed(0)
    for name, parameter in decoder.named_parameters():
        if "norm" in name:
            torch.nn.init.constant_(parameter, 1.0 if name.endswith("weight") else 0.0)
        else:
            std = config.hidden_size**-0.5 * (4 if "lm_head" in name else 1)
            torch.nn.init.normal_(parameter, std=std, generator=generator)
    return decoder.eval()


class PublishedWay:
    """transformers' decoder layers with the same weights; one picture, two forward passes a token."""

    def __init__(self, decoder: Decoder) -> None:
        sizes = {k: v for k, v in decoder.config.to_dict().items() if k != "model_type"}
        vq = {"base_channels": 32, "num_embeddings": 8, "embed_dim": 8, "latent_channels": 8}
        config = ChameleonConfig(**sizes, vq_config=vq, vocabulary_map={"<image>": 3})
        with torch.device("meta"):
            self.model = ChameleonModel(config)
        del self.model.vqmodel
        state = {n.removeprefix("model."): v for n, v in decoder.state_dict().items()}
        self.head = state.pop("lm_head.weight")
        weight = decoder.model.norm.weight
        self.model.rotary_emb = type(self.model.rotary_emb)(config).to(weight.device)
        self.model.load_state_dict(state, strict=True, assign=True)
        self.model.eval()
        self.device = weight.device
        self.allowed = torch.full((len(self.head),), float("-inf"), device=self.device)
        self.allowed[CODES_START : CODES_START + CODES] = 0.0

    @torch.inference_mode()
    def draw(self, prompt: list[int], draws: Tensor, limit: int) -> Tensor:
        """The first codes of a picture, as many as the limit, from draws (h, w)."""
        layout, (height, width) = Layout(), draws.shape
        prefix = layout.prefix(height, width)
        caches = [DynamicCache(config=self.model.config) for _ in range(2)]
        fed = [torch.tensor([ids], device=self.device) for ids in ([*prompt, *prefix], prefix)]
        uniform = draws.flatten().to(self.device)
        codes: list[Tensor] = []
        for n in range(limit):
            if n and n % width == 0:  # the newline is a token of its own
                newline = torch.tensor([[layout.newline]], device=self.device)
                self._logits(fed, caches)
                fed = [newline, newline]
            with_prompt, without = self._logits(fed, caches)
            logits = without + GUIDANCE * (with_prompt - without) + self.allowed
            token = sample_code(logits.float(), uniform[n : n + 1], TOP_K, TEMPERATURE)
            codes.append(token - CODES_START)
            fed = [token[None], token[None]]
        return torch.cat(codes)

    def _logits(self, fed: list[Tensor], caches: list[DynamicCache]) -> list[Tensor]:
        return [
            self.model(input_ids=ids, past_key_values=cache, use_cache=True).last_hidden_state[
                :, -1
            ]
            @ self.head.T
            for ids, cache in zip(fed, caches, strict=True)
        ]


@dataclass
class Timed:
    """What a call returned, and its seconds by the clock and of CPU time."""

    result: Any
    seconds: float
    cpu_seconds: float


def time_call(run: Callable[[], Any]) -> Timed:
    """Run something, waiting for the GPU if there is one."""
    wait()
    start, cpu = time.perf_counter(), time.process_time()
    result = run()
    wait()
    return Timed(result, time.perf_counter() - start, time.process_time() - cpu)


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure(
    args: argparse.Namespace, deadline: float, keep: Callable[[dict[str, Any]], None]
) -> None:
    """Codes per second of both sides, in turns, then of batches; what would end too late is left out.

    `keep` is called with what is known after each of them, in case this process is stopped.
    """
    config, side = CONFIGS[args.config], args.size // FACTOR
    decoder = build_decoder(config, args.device, DTYPES[args.dtype])
    vq = VQModel(VQ_CONFIGS[args.config]).to(args.device).eval()
    generator = torch.Generator().manual_seed(1)
    most = max(args.batch_sizes)
    prompts = torch.randint(9000, 60000, (most, PROMPT_TOKENS), generator=generator).tolist()
    draws = torch.rand(most, side, side, generator=generator, dtype=torch.float64)
    limit = min(args.peer_codes, side * side)
    result: dict[str, Any] = {
        "parameters": decoder.num_parameters,
        "codes_per_picture": side * side,
        "published_codes": limit,
        "seconds": {"published": [], "ours": []},
        "batches": {},
    }
    peer = PublishedWay(decoder)
    fuse_decoder(decoder)  # its fused matrices are copies: the peer keeps its own
    if args.compile:
        compile_blocks(decoder)
    sampler = CodeSampler(
        decoder, Layout(), guidance=GUIDANCE, top_k=TOP_K, temperature=TEMPERATURE
    )

    def draw(count: int) -> Timed:
        return time_call(lambda: sampler.draw(prompts[:count], [None] * count, draws[:count]))

    if limit:
        peer.draw(prompts[0], draws[0], 2)
    first = draw(1)  # with what is allocated and captured once
    result["first_picture_s"] = round(first.seconds, 3)
    for _ in range(args.rounds):
        theirs = time_call(lambda: peer.draw(prompts[0], draws[0], limit)) if limit else None
        ours = draw(1)
        result["seconds"]["ours"].append([round(ours.seconds, 3), round(ours.cpu_seconds, 3)])
        if theirs is not None:
            times = [round(theirs.seconds, 3), round(theirs.cpu_seconds, 3)]
            result["seconds"]["published"].append(times)
            same = theirs.result == ours.result.flatten()[:limit]
            result["leading_codes_equal"] = int(same.long().cumprod(0).sum())
            result |= compare(result)
        keep(result)
        if time.perf_counter() + ours.seconds > deadline:
            break
    del peer.model, peer.head  # weights that are no longer ours
    for count in args.batch_sizes:
        ran = draw(count)
        if time.perf_counter() + ran.seconds < deadline:
            ran = draw(count)
        with torch.inference_mode():
            decoded = time_call(lambda: [vq.decode(part) for part in ran.result.split(1)])  # noqa: B023
        seconds = ran.seconds + decoded.seconds
        result["batches"][str(count)] = {
            "codes_s": round(ran.seconds, 3),
            "pixels_s": round(decoded.seconds, 3),
            "codes_per_s": round(ran.result.numel() / ran.seconds, 2),
            "pictures_per_s": round(count / seconds, 4),
            "s_per_picture": round(seconds / count, 3),
        }
        if torch.cuda.is_available():
            result["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
        keep(result)


def compare(result: dict[str, Any]) -> dict[str, Any]:
    """Medians of the rates, and of their ratios within a round."""
    theirs, ours = result["seconds"]["published"], result["seconds"]["ours"]
    rates = [
        [result["published_codes"] / seconds for seconds in times[0]]
        + [result["codes_per_picture"] / seconds for seconds in times[1]]
        for times in zip(theirs, ours, strict=True)
    ]
    return {
        "published_codes_per_s": round(statistics.median(r[0] for r in rates), 2),
        "ours_codes_per_s": round(statistics.median(r[2] for r in rates), 2),
        "times_published": round(statistics.median(r[2] / r[0] for r in rates), 2),
        "times_published_by_cpu_time": round(statistics.median(r[3] / r[1] for r in rates), 2),
    }


def table(result: dict[str, Any]) -> str:
    """The result as markdown."""
    lines = [
        f"# Sampling: {result['config']}, {result['parameters'] / 1e6:.0f} M parameters,"
        f" {result['size']} px, {result['dtype']}",
        "",
        f"`{result['command']}` on {result['machine']}; load average {result['load']} at the start.",
        f"Guidance {GUIDANCE}, top-k {TOP_K}; {result['codes_per_picture']} codes a picture; random weights.",
        "",
    ]
    if "times_published" in result:
        lines += [
            "| one picture | codes/s | times the published way | by CPU time |",
            "|---|---|---|---|",
            f"| published way, {result['published_codes']} codes | {result['published_codes_per_s']} |"
            " 1 | 1 |",
            f"| ours | {result['ours_codes_per_s']} | {result['times_published']} |"
            f" {result['times_published_by_cpu_time']} |",
            "",
            f"The first {result['leading_codes_equal']} of {result['published_codes']} codes were the same.",
            "",
        ]
    lines += [
        "| pictures at once | s a picture | pictures/s | codes/s | of it pixels, s |",
        "|---|---|---|---|---|",
    ]
    for size, row in result["batches"].items():
        lines.append(
            f"| {size} | {row['s_per_picture']} | {row['pictures_per_s']} | {row['codes_per_s']} |"
            f" {row['pixels_s']} |"
        )
    if "peak_gib" in result:
        lines += [
            "",
            f"Peak memory of the GPU: {result['peak_gib']} GiB, both sides' weights in it.",
        ]
    return "\n".join(lines) + "\n"


def make_parser(gpu: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--config", choices=CONFIGS, default="7b" if gpu else "small")
    parser.add_argument("--size", type=int, default=768 if gpu else 256, help="a multiple of 32")
    parser.add_argument("--device", default="cuda" if gpu else "cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16" if gpu else "float32")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 16] if gpu else [1, 8])
    parser.add_argument(
        "--peer-codes", type=int, default=32 if gpu else 64, help="of the published way; 0: none"
    )
    parser.add_argument("--rounds", type=int, default=1 if gpu else 3)
    parser.add_argument("--compile", action="store_true", help="ours: torch.compile the layers")
    parser.add_argument("--max-s", type=float, default=100, help="repeat nothing after so long")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser


def main() -> None:
    args = make_parser(torch.cuda.is_available()).parse_args()
    deadline = time.perf_counter() + args.max_s
    on_gpu = args.device.startswith("cuda")
    place = torch.cuda.get_device_name() if on_gpu else "no GPU"
    about = {
        "command": f"python benchmarks/sampling.py {' '.join(sys.argv[1:])}".strip(),
        "machine": f"{place}, {len(os.sched_getaffinity(0))} CPU cores ({platform.machine()}),"
        f" {torch.get_num_threads()} torch threads, torch {torch.__version__},"
        f" transformers {transformers.__version__}",
        "load": round(os.getloadavg()[0], 1),
        "config": args.config,
        "size": args.size,
        "dtype": args.dtype,
    }
    name = f"{'gpu-' if on_gpu else ''}sampling-{args.config}"
    args.out.mkdir(parents=True, exist_ok=True)

    def keep(measured: dict[str, Any]) -> None:
        result = {**about, **measured}
        (args.out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
        (args.out / f"{name}.md").write_text(table(result), "utf-8")

    measure(args, deadline, keep)
    print((args.out / f"{name}.md").read_text("utf-8"))


if __name__ == "__main__":
    main()
