"""The command-line options that the trainings of the mini models share."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

from stylear.weights.names import MINI_MODELS

WORK = Path("mini-build")


def make_parser(model: str, *, steps: int, batch_size: int) -> ArgumentParser:
    """A parser with the options of every training; its destinations are the arguments of `run`."""
    parser = ArgumentParser(description=f"Train {model}.")
    parser.add_argument("--out", type=Path, default=MINI_MODELS / model)
    parser.add_argument("--work", type=Path, default=WORK, help="For caches and checkpoints.")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch-size", type=int, default=batch_size)
    parser.add_argument("--limit", type=int, help="Take only so many drawings (to try it).")
    parser.add_argument("--seed", type=int, default=0)
    return parser
