"""Processes that train together, as torchrun starts them."""

from __future__ import annotations

import multiprocessing
import os
import socket
import warnings
from collections.abc import Callable

import torch


def run_ranks(work: Callable[[], object], world_size: int = 2) -> list[int | None]:
    """Run `work` in processes that find each other as torchrun's do; returns their exit codes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    def start(rank: int) -> None:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world_size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        torch.set_num_threads(1)
        work()

    fork = multiprocessing.get_context("fork")
    ranks = [fork.Process(target=start, args=(rank,)) for rank in range(world_size)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads exist; ranks use none
        for rank in ranks:
            rank.start()
    for rank in ranks:
        rank.join(60)
    return [rank.exitcode for rank in ranks]
