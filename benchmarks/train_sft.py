"""SFT steps against Hugging Face's Trainer with PEFT, on the same weights, pairs and LoRA layers.

    pip install peft accelerate          # what the peer needs besides transformers
    python benchmarks/train_sft.py [--batch-size 4] [--steps 5] [--rounds 3]
    python benchmarks/train_sft.py                       # with a GPU: random Chameleon-7B at 768 px

Ours is `stylear.train.sft_trainer.run`. The peer is transformers' Chameleon in Trainer, with a LoraConfig of
the same layers and rank, at its defaults (fp32) and at the best of its settings (bf16 weights or autocast,
sdpa or eager attention). Its shim is a forward pass without the lines that set the logits of image tokens to
minus infinity. Both train text to image without style tokens, which the peer does not have. The head is 4% of
the small model's matrices, as in Chameleon-7B; with 65,536 ids it would be half of them, and not computing
those of text would flatter ours.

Seconds of a step are from the end of one step to the end of the next, everything included; the first does
not count. All ways take turns in every round. Models are built in memory, each time with the same weights;
before anything is timed, both give the same logits.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from support.random_chameleon import SIZES, Setup, StepClock, build_model, write_corpus
from support.trainer_peer import RANK, TARGETS, check_peer, list_examples, train_peer

from stylear.train import sft_trainer
from stylear.train.settings import SftSettings
from stylear.train.throughput import count_flops_per_token

RESULTS = Path(__file__).parent / "results"
GOALS = {"peer, its defaults": 1.8, "peer, its best": 1.25}
GPU_GOAL = 13_000  # tokens/s of the 7 B model on an H100


def train_ours(setup: Setup, precision: str) -> list[tuple[float, float]]:
    """Seconds and CPU seconds of each step of ours."""
    clock = StepClock()
    write = sft_trainer.Metrics.write

    def time_step(self: Any, step: int, values: Any) -> None:
        write(self, step, values)
        clock.mark()

    dtype = torch.float32 if setup.device == "cpu" else torch.bfloat16
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(
            sft_trainer, "load_for_training", side_effect=lambda *_: build_model(setup, dtype)
        ),
        mock.patch.object(sft_trainer.Metrics, "write", time_step),
        mock.patch.object(sft_trainer, "draw_samples"),
        mock.patch.object(sft_trainer.checkpoint, "save_checkpoint"),
        mock.patch.object(sft_trainer, "save_model"),
    ):
        values = {
            "corpus": [setup.root / "corpus"],
            "model": "random",
            "out": Path(folder) / "run",
            "encoded": setup.root / "encoded",
            "style_tokens": 0,
            "condition_dropout": 0.0,
            "z_loss": 0.0,
            "steps": setup.steps + 1,
            "batch_size": setup.batch_size,
            "precision": precision,
            "lora_rank": RANK,
            "lora_targets": TARGETS,
            "device": setup.device,
            "checkpoint_blocks": "all" if setup.checkpointing else "none",
            "compile": setup.compile,
        }
        sft_trainer.run(SftSettings.model_validate(values))
    return clock.durations()


def list_ways(setup: Setup) -> dict[str, Callable[[], list[tuple[float, float]]]]:
    """What is measured, by name."""
    half = torch.bfloat16
    ways: dict[str, Callable[[], list[tuple[float, float]]]] = {
        "ours, bf16": lambda: train_ours(setup, "bf16"),
        "peer, bf16 weights, sdpa": lambda: train_peer(setup, dtype=half, bf16=True),
        "peer, bf16 weights, eager": lambda: train_peer(
            setup, dtype=half, attention="eager", bf16=True
        ),
        "peer, bf16 autocast, sdpa": lambda: train_peer(setup, bf16=True),
    }
    if setup.device == "cpu":
        ways |= {"ours, fp32": lambda: train_ours(setup, "fp32")}
        return ways | {"peer, its defaults": lambda: train_peer(setup)}
    return {
        "ours, bf16": ways["ours, bf16"],
        "peer, its defaults": lambda: train_peer(setup, dtype=half),
        "peer, bf16 weights, sdpa": ways["peer, bf16 weights, sdpa"],
    }


def summarise(
    seconds: dict[str, list[list[tuple[float, float]]]], tokens: float
) -> list[dict[str, Any]]:
    """A row per way: tokens/s of its fastest step, and how many times faster ours in bf16 is.

    The fastest step of all rounds counts, because what else the machine does only adds time; the median of
    CPU seconds stands beside it.
    """
    rows = []
    for name, rounds in seconds.items():
        steps = [step for each in rounds for step in each]
        rows.append(
            {
                "way": name,
                "tokens_per_s": round(tokens / min(step[0] for step in steps), 1),
                "fastest_s": round(min(step[0] for step in steps), 3),
                "cpu_s": round(statistics.median(step[1] for step in steps), 3),
                "step_s": [[round(step[0], 3) for step in each] for each in rounds],
            }
        )
    ours = next(row for row in rows if row["way"] == "ours, bf16")
    for row in rows:
        row["ours_is_times_faster"] = round(row["fastest_s"] / ours["fastest_s"], 2)
        row["by_cpu_time"] = round(row["cpu_s"] / max(ours["cpu_s"], 1e-9), 2)
    return rows


def format_table(result: dict[str, Any]) -> str:
    """The result as markdown."""
    best = result["best_peer"]
    lines = [
        "# SFT steps",
        "",
        f"`{result['command']}` on {result['machine']}; load average {result['load']} at the start.",
        f"{result['model']}; LoRA of rank {RANK}, batches of {result['batch_size']} pairs,"
        f" {result['tokens_per_step']:.0f} tokens a step; {result['rounds']} rounds of"
        f" {result['steps']} steps in turns, the fastest step of each way.",
        "",
        "| way | tokens/s | seconds a step | ours in bf16 is times faster | by CPU time (medians) |",
        "|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        lines.append(
            f"| {row['way']} | {row['tokens_per_s']} | {row['fastest_s']:.3f} |"
            f" {row['ours_is_times_faster']} | {row['by_cpu_time']} |"
        )
    lines += [
        "",
        f"Against the peer's defaults: {result['times_defaults']} times (goal"
        f" {GOALS['peer, its defaults']}). Against its best settings ({best}):"
        f" {result['times_best']} times (goal {GOALS['peer, its best']}).",
        "",
    ]
    return "\n".join(lines)


def make_parser(gpu: bool) -> argparse.ArgumentParser:
    """The options, with defaults for a machine with a GPU or without."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", choices=SIZES, default="7b" if gpu else "small")
    parser.add_argument("--batch-size", type=int, default=8 if gpu else 4)
    parser.add_argument("--steps", type=int, default=3 if gpu else 5, help="counted, of a round")
    parser.add_argument("--rounds", type=int, default=1 if gpu else 3)
    parser.add_argument("--ways", nargs="*", help="only these; nothing is written")
    parser.add_argument("--compile", action="store_true", help="torch.compile on both sides")
    parser.add_argument("--tiny", action="store_true", help="the smallest sizes, to try the script")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result")
    return parser


def measure(args: argparse.Namespace, device: str) -> dict[str, Any]:
    """The result of all ways."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(
            root=Path(folder),
            size=SIZES[args.model],
            batch_size=args.batch_size,
            steps=args.steps,
            device=device,
            checkpointing=args.model == "7b",
            compile=args.compile,
        )
        write_corpus(setup.root / "corpus", setup.size, max(16, 2 * args.batch_size))
        check_peer(setup)
        ways = {n: w for n, w in list_ways(setup).items() if not args.ways or n in args.ways}
        lengths = [len(example["input_ids"]) for example in list_examples(setup)]
        seconds: dict[str, list[list[tuple[float, float]]]] = {name: [] for name in ways}
        for number in range(args.rounds):
            for name in list(ways) if number % 2 == 0 else reversed(list(ways)):
                seconds[name].append(ways[name]())
                print(name, [round(step[0], 3) for step in seconds[name][-1]], flush=True)
        decoder = build_model(setup, torch.bfloat16).decoder.requires_grad_(False)
    tokens = args.batch_size * statistics.mean(lengths)
    rows = summarise(seconds, tokens)
    times = {row["way"]: row["ours_is_times_faster"] for row in rows}
    peers = {n: t for n, t in times.items() if n.startswith("peer") and n != "peer, its defaults"}
    return {
        "command": f"python benchmarks/train_sft.py --model {args.model} --batch-size"
        f" {args.batch_size} --steps {args.steps} --rounds {args.rounds}",
        "machine": f"{platform.machine()}, {torch.get_num_threads()} of {os.cpu_count()} cores"
        if device == "cpu"
        else torch.cuda.get_device_name(),
        "load": round(load, 1),
        "model": f"Chameleon of {decoder.num_parameters / 1e6:.0f} M parameters",
        "flops_per_token": count_flops_per_token(decoder),
        "batch_size": args.batch_size,
        "tokens_per_step": tokens,
        "steps": args.steps,
        "rounds": args.rounds,
        "rows": rows,
        "best_peer": min(peers, key=lambda name: peers[name], default=None),
        "times_best": min(peers.values(), default=None),
        "times_defaults": times.get("peer, its defaults"),
        "goals": GOALS | ({} if device == "cpu" else {"tokens_per_s": GPU_GOAL}),
    }


def main() -> None:
    gpu = torch.cuda.is_available()
    args = make_parser(gpu).parse_args()
    if args.tiny:
        args.model, args.batch_size, args.steps, args.rounds = "tiny", 2, 1, 1
    if not gpu:
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    result = measure(args, "cuda" if gpu else "cpu")
    table = format_table(result)
    print(table)
    if not args.ways:
        (args.out / "train_sft.json").write_text(json.dumps(result, indent=2) + "\n")
        (args.out / "train_sft.md").write_text(table)


if __name__ == "__main__":
    main()
