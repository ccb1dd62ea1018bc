"""`stylear train`: flags to settings, one call, the result printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stylear.console import DryRunOption, JsonOption, emit_json, say
from stylear.train.options import (
    Accumulate,
    BaseDtype,
    BatchSize,
    CheckpointBlocks,
    Compile,
    Config,
    Corpora,
    Device,
    EmaDecay,
    Encoded,
    Full,
    Model,
    Optimizer,
    Out,
    Precision,
    Rank,
    Rate,
    SaveEvery,
    Seed,
    ShardBase,
    Steps,
    Wandb,
    print_result,
    read_settings,
)
from stylear.train.preference_cli import audit, dpo, grpo, pairs

app = typer.Typer(
    help="Train a model on a corpus: sft, then dpo or grpo.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def sft(
    config: Config = None,
    corpus: Corpora = None,
    model: Model = None,
    out: Out = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    lr: Rate = None,
    optimizer: Optimizer = None,
    full: Full = None,
    lora_rank: Rank = None,
    style_tokens: Annotated[
        int | None,
        typer.Option(
            "--style-tokens",
            help="Number of style tokens; 0: text only; by default the model's own, or 16.",
        ),
    ] = None,
    sigma: Annotated[
        str | None,
        typer.Option("--sigma", help="Noise std on style tokens, or a range such as 0.1:0.3."),
    ] = None,
    style_from: Annotated[
        str | None,
        typer.Option(
            "--style-from", help="Style features of the target itself (self) or of a sibling."
        ),
    ] = None,
    condition_dropout: Annotated[
        float | None, typer.Option("--condition-dropout", help="Condition dropout probability.")
    ] = None,
    accumulate: Accumulate = None,
    ema_decay: EmaDecay = None,
    checkpoint_blocks: CheckpointBlocks = None,
    base_dtype: BaseDtype = None,
    shard_base: ShardBase = None,
    compile: Compile = None,
    wandb: Wandb = None,
    precision: Precision = None,
    device: Device = None,
    encoded: Encoded = None,
    save_every: SaveEvery = None,
    seed: Seed = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune on (prompt, image) pairs with style tokens; resumes an interrupted run.

    On several GPUs: torchrun --nproc-per-node 8 -m stylear train sft ... All settings: --dry-run.

    Example: stylear train sft --corpus demo-output/corpus --model mini-stylear --out runs/sft --steps 100
    """
    arguments = locals()
    from stylear.train.settings import SftSettings

    settings = read_settings(SftSettings, arguments)
    if settings is None:
        return
    from stylear.train import sft_trainer as trainer

    print_result(trainer.run(settings), as_json)


@app.command()
def encode(
    corpus: Annotated[list[str], typer.Argument(help="Corpora, folders or URLs.")],
    model: Annotated[str, typer.Option("--model", help="Model whose VQ model and encoder to use.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Cache folder, to pass to --encoded; by default CORPUS-encoded."
        ),
    ] = None,
    copies: Annotated[
        int,
        typer.Option("--copies", min=1, help="Augmented copies per image, shifted and flipped."),
    ] = 1,
    bucket: Annotated[
        list[str] | None,
        typer.Option("--bucket", help="Image size HEIGHTxWIDTH for its aspect ratio; repeatable."),
    ] = None,
    features: Annotated[
        str, typer.Option("--features", help="cache: write style features; compute: codes only.")
    ] = "cache",
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda.")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Compute image codes and style features of corpora once, to share between runs.

    Several processes, including those of `torchrun`, divide the shards among them; finished shards stay
    if a process is killed.

    Example: stylear train encode demo-output/corpus --model mini-stylear --out runs/encoded
    """
    from stylear.train.encode_command import encode_corpora

    result = encode_corpora(
        corpus, model, out, copies=copies, buckets=bucket or [], features=features, device=device
    )
    if as_json:
        emit_json(result)
    else:
        say(
            f"{result['images']:,} images in {result['out']}: {result['bytes']:,} bytes,"
            f" {result['bytes_per_image']:,} per image"
        )


for command in (dpo, grpo, pairs, audit):
    app.command()(command)
