"""DPO steps against TRL's DPOTrainer on the same weights, pairs and LoRA layers.

    pip install trl          # or --target FOLDER, and PYTHONPATH=FOLDER
    python benchmarks/train_dpo.py [--pairs 12] [--batch-size 4] [--rounds 2]

Ours is `stylear.train.dpo_trainer.run`: it encodes the images, computes the reference once and takes an epoch
of steps. The peer is TRL's trainer at its defaults (bf16 autocast, gradient checkpointing, reference in every
step) and at its best settings (neither checkpointing nor a reference in the step). Its shim is a
LlamaForCausalLM, which has the weights' names and, without QK norms, the very same architecture, and a
`_prepare_dataset` that takes ids as they are. LoRA of rank 4 on q, k, v, o and down_proj; ours trains lm_head
too, which TRL refuses.

Seconds of an epoch are those of all steps but the first, which does not count, scaled to all pairs, plus
those of the reference where it is computed beforehand. All ways take turns in every round.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image

from stylear.curate.corpus.shards import write_shard
from stylear.curate.corpus.tars import write_tar
from stylear.curate.engine import cores
from stylear.model.decoder_config import DecoderConfig
from stylear.model.families.chameleon import FAMILY, ChameleonLayout
from stylear.model.open import load_model
from stylear.model.save import save_model
from stylear.model.style_model import StyleModel, StyleSettings
from stylear.model.tokenizer import build_tokenizer
from stylear.model.transformer import Decoder
from stylear.model.vq import VQConfig, VQModel
from stylear.pair import Origin, Pair, content_id, digest
from stylear.train import dpo_trainer, reference
from stylear.train.data import build_prompt
from stylear.train.metrics import Metrics
from stylear.train.pictures import decode_picture, picture_to_pixels
from stylear.train.settings import DpoSettings

RESULTS = Path(__file__).parent / "results"
SIDE = 96  # px: 12 x 12 codes
CODES = 8192  # as Chameleon
VQ = VQConfig(
    embed_dim=8,
    num_embeddings=CODES,
    z_channels=8,
    resolution=SIDE,
    base_channels=16,
    channel_multiplier=(1, 1),
    num_res_blocks=1,
    attn_type="none",
    norm_groups=8,
    patch=4,
)
DECODER = DecoderConfig(  # 92 M parameters, Chameleon's vocabulary
    hidden_size=512,
    intermediate_size=1376,
    num_hidden_layers=8,
    num_attention_heads=8,
    num_key_value_heads=8,
    qk_norm=False,
)
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "down_proj"]
RANK = 4
GOAL = 2.5


@dataclass(frozen=True)
class Setup:
    """What every way trains: a model directory, a corpus, a number of pairs and a batch size."""

    root: Path
    pairs: int
    batch_size: int

    @property
    def steps(self) -> int:
        return self.pairs // self.batch_size


@dataclass(frozen=True)
class Timing:
    """Seconds of the reference beforehand, and of the counted steps."""

    reference_s: float
    steps_s: float
    steps: int

    def epoch(self, setup: Setup) -> float:
        """Seconds of one epoch, everything included."""
        return self.reference_s + self.steps_s / self.steps * setup.steps


def write_model(directory: Path) -> StyleModel:
    """A model of random weights and 65,536 ids without style tokens."""
    vq = VQModel(VQ)
    words = [f"a {word} {noun}" for word in ("red", "blue") for noun in ("boat", "house")]
    tokenizer = build_tokenizer(words, CODES, size_units=[SIDE // 16], text_vocabulary=512)
    layout = ChameleonLayout(tokenizer)
    decoder = Decoder(DECODER, layout.image_token_ids)
    decoder.init_weights(0)
    raw = FAMILY.describe_config(DECODER, vq)
    templates = {"prompt_template": "{style} {prompt}", "caption_template": "{prompt}"}
    model = StyleModel(directory.name, decoder, vq, layout, StyleSettings(**templates), raw)  # type: ignore[arg-type]
    save_model(model, directory)
    return load_model(directory)


def draw_picture(seed: int) -> bytes:
    """PNG bytes of a smooth random picture."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def write_corpus(corpus: Path, pairs: int) -> None:
    """Preference pairs, and one training pair, because a corpus must have some."""
    origin = Origin("raw", "folder:0.png", content_id("a red boat"))
    write_shard(
        corpus / "train", 0, [Pair(digest("only"), "a red boat", draw_picture(10**6), origin)]
    )
    members = []
    for number in range(pairs):
        caption = f"a {('red', 'blue')[number % 2]} {('boat', 'house')[number // 2 % 2]}"
        key = digest("preference", number)
        row = {"key": key, "caption": caption, "reference": "none"}
        members += [
            (f"{key}.chosen.png", draw_picture(2 * number)),
            (f"{key}.rejected.png", draw_picture(2 * number + 1)),
            (f"{key}.json", json.dumps(row).encode()),
        ]
    (corpus / "preferences").mkdir()
    write_tar(corpus / "preferences" / "00000.tar", members)


def train_ours(setup: Setup, precision: str) -> Timing:
    """An epoch of ours."""
    ends: list[float] = []
    reference_s = 0.0
    compute, write = reference.compute_reference_log_probs, Metrics.write

    def time_reference(*arguments: Any) -> Any:
        nonlocal reference_s
        start = time.perf_counter()
        result = compute(*arguments)
        reference_s = time.perf_counter() - start
        return result

    def time_step(self: Any, step: int, values: Any) -> None:
        write(self, step, values)
        ends.append(time.perf_counter())

    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(reference, "compute_reference_log_probs", time_reference),
        mock.patch.object(Metrics, "write", time_step),
    ):
        values = {
            "corpus": [setup.root / "corpus"],
            "model": str(setup.root / "model"),
            "out": Path(folder) / "run",
            "steps": setup.steps,
            "batch_size": setup.batch_size,
            "precision": precision,
        }
        dpo_trainer.run(DpoSettings.model_validate(values))
    return Timing(reference_s, ends[-1] - ends[0], len(ends) - 1)


def list_ids(setup: Setup) -> tuple[StyleModel, list[dict[str, list[int]]]]:
    """The model, and its pairs as ids of prompt, chosen and rejected image."""
    from stylear.train.preferences import read_preferences

    model = load_model(setup.root / "model")
    rows = []
    for row, images in read_preferences(setup.root / "corpus" / "preferences" / "00000.tar"):
        pixels = torch.stack([picture_to_pixels(decode_picture(image), SIDE) for image in images])
        with torch.inference_mode():
            codes = model.vq.encode(pixels).view(2, *model.grid).clone()
        chosen, rejected = (model.layout.image_span(one) for one in codes)
        prompt = build_prompt(model, row["caption"])
        rows.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
    return model, rows


def build_llama(model: StyleModel) -> Any:
    """The same decoder as transformers' Llama. Exits if its logits differ."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {name: getattr(DECODER, name) for name in ("hidden_size", "intermediate_size")}
    layers = {"num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 8}
    config = LlamaConfig(
        vocab_size=DECODER.vocab_size,
        max_position_embeddings=DECODER.max_position_embeddings,
        rms_norm_eps=DECODER.rms_norm_eps,
        tie_word_embeddings=False,
        **sizes,
        **layers,
    )
    llama = LlamaForCausalLM(config)
    llama.load_state_dict(model.decoder.state_dict(), strict=True)
    ids = torch.arange(40)[None] * 7
    with torch.no_grad():
        theirs = llama(ids).logits[..., list(model.layout.image_token_ids)]
        own = model.decoder.image_logits(model.decoder(model.decoder.embed(ids)))
    if not torch.allclose(theirs, own, atol=1e-4):
        raise SystemExit(f"the shim differs by {(theirs - own).abs().max():.2g}")
    return llama


def train_trl(setup: Setup, **changes: Any) -> Timing:
    """An epoch of TRL's trainer, with `changes` of its defaults."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    model, rows = list_ids(setup)
    ends: list[float] = []

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    class Trainer(DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=model.tokenizer, pad_token="<pad>", eos_token="</s>"
    )
    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            output_dir=folder,
            per_device_train_batch_size=setup.batch_size,
            max_steps=setup.steps,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            **changes,
        )
        start = time.perf_counter()
        trainer = Trainer(
            model=build_llama(model),
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS),
            callbacks=[Watch()],
        )
        before_s = time.perf_counter() - start if config.precompute_ref_log_probs else 0.0
        trainer.train()
    return Timing(before_s, ends[-1] - ends[0], len(ends) - 1)


def list_ways(setup: Setup) -> dict[str, Callable[[], Timing]]:
    """What is measured, by name; ours alone where TRL is not installed."""
    ways: dict[str, Callable[[], Timing]] = {
        "ours, bf16": lambda: train_ours(setup, "bf16"),
        "ours, fp32": lambda: train_ours(setup, "fp32"),
    }
    try:
        version("trl")
    except PackageNotFoundError:
        return ways
    best = {"gradient_checkpointing": False, "precompute_ref_log_probs": True}
    return ways | {
        "TRL, its defaults": lambda: train_trl(setup),
        "TRL, best settings in bf16": lambda: train_trl(setup, **best),
        "TRL, best settings in fp32": lambda: train_trl(setup, bf16=False, **best),
    }


@contextmanager
def write_inputs(pairs: int, batch_size: int) -> Iterator[Setup]:
    """A folder with the model and the pairs."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        torch.manual_seed(0)
        write_model(root / "model")
        write_corpus(root / "corpus", pairs)
        yield Setup(root, pairs, batch_size)


def summarise(timings: dict[str, list[Timing]], setup: Setup) -> list[dict[str, Any]]:
    """A row per way: pairs/s of an epoch and of steps alone, and how many times TRL's defaults that is."""
    rows = []
    for name, rounds in timings.items():
        epoch = [timing.epoch(setup) for timing in rounds]
        steps = [timing.steps_s / timing.steps for timing in rounds]
        row: dict[str, Any] = {
            "way": name,
            "pairs_per_s": round(setup.pairs / min(epoch), 3),
            "steps_pairs_per_s": round(setup.batch_size / min(steps), 3),
            "epoch_s": [round(value, 2) for value in epoch],
            "step_s": [round(value, 3) for value in steps],
        }
        if "TRL, its defaults" in timings:
            peer = [timing.epoch(setup) for timing in timings["TRL, its defaults"]]
            ratios = [theirs / own for theirs, own in zip(peer, epoch, strict=True)]
            row["times_trl_defaults"] = round(statistics.median(ratios), 2)
        rows.append(row)
    return rows


def format_table(result: dict[str, Any]) -> str:
    """The result as markdown."""
    lines = [
        "# DPO steps",
        "",
        f"`{result['command']}` on {result['machine']}; load average {result['load']} at the start.",
        f"{result['model']}; LoRA of rank {RANK}, {result['pairs']} pairs in batches of"
        f" {result['batch_size']}; the fastest of {result['rounds']} rounds, ratios are medians of those"
        " within a round. See benchmarks/README.md.",
        "",
        "| way | pairs/s of an epoch, reference included | pairs/s of its steps"
        f" | times TRL's defaults (goal {GOAL}) |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['way']} | {row['pairs_per_s']} | {row['steps_pairs_per_s']} |"
        f" {row.get('times_trl_defaults', '-')} |"
        for row in result["ways"]
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    on = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    result: dict[str, Any] = {
        "command": f"python benchmarks/train_dpo.py --pairs {args.pairs} --batch-size {args.batch_size}"
        f" --rounds {args.rounds}",
        "machine": f"{on}, {cores()} CPU cores, {torch.get_num_threads()} threads ({platform.machine()}),"
        f" torch {version('torch')}",
        "load": round(os.getloadavg()[0], 1),
        "model": "92 M parameters, 65,536 ids, 144 codes of 8,192 an image, random weights",
        "pairs": args.pairs,
        "batch_size": args.batch_size,
        "rounds": args.rounds,
    }
    with write_inputs(args.pairs, args.batch_size) as setup:
        ways = list_ways(setup)
        timings: dict[str, list[Timing]] = {name: [] for name in ways}
        for _ in range(args.rounds):
            for name, way in ways.items():
                timings[name].append(way())
        result["ways"] = summarise(timings, setup)
    if len(ways) == 2:
        print(format_table(result))
        print("trl is not installed, so there is nothing to compare with; nothing was written")
        return
    for name in ("trl", "peft", "transformers"):
        result["machine"] += f", {name} {version(name)}"
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "train_dpo.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    (args.out / "train_dpo.md").write_text(format_table(result), "utf-8")
    print(format_table(result))


if __name__ == "__main__":
    main()
