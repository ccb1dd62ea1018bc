"""A tiny random CSD checkpoint in the published layout, for tests."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

WIDTH, LAYERS, PATCH, SIZE, DIM = 64, 2, 8, 32, 24


def tiny_tower(seed: int = 0) -> Any:
    """A CLIP with OpenAI's activation and a vision tower of these sizes."""
    import open_clip

    vision = {"image_size": SIZE, "patch_size": PATCH, "width": WIDTH, "layers": LAYERS}
    text = {"context_length": 8, "vocab_size": 16, "width": 32, "heads": 2, "layers": 1}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.CLIP(DIM, vision, text, quick_gelu=True)
    return model.eval().requires_grad_(False)


def csd_tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights by the keys of the published model, without the prefix of training on several GPUs."""
    tower = tiny_tower(seed).visual.state_dict()
    style = tower.pop("proj")
    backbone = {f"backbone.{key}": value for key, value in tower.items()}
    return {**backbone, "last_layer_style": style, "last_layer_content": style.flip(0).contiguous()}


def write_tiny_csd(path: Path, seed: int = 0, **more: Any) -> Path:
    """A training checkpoint as the authors' trainer writes it: weights, optimisers, arguments."""
    tensors = {f"module.{key}": value for key, value in csd_tensors(seed).items()}
    optimiser = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": np.float64(3)}]}
    arguments = argparse.Namespace(arch="vit_large", eval_k=[1, 5])
    saved = {"model_state_dict": tensors, "opt_bb": optimiser, "iter": 7, "args": arguments}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({**saved, **more}, path)
    return path
