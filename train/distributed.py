"""Several processes that train one model, as torchrun starts them: one rank per GPU.

Trained weights are replicated: each rank computes the gradients of its rows of the global batch, and the
ranks sum them. The frozen base is replicated too, or sharded by FSDP2 (`shard_base`).
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from stylear.device import pick_device
from stylear.errors import UsageError
from stylear.model.transformer import Decoder

# the first rank encodes the corpus while the others wait
TIMEOUT = timedelta(hours=12)
BUCKET_BYTES = 64 << 20  # gradients are summed in buckets of about this size


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    world_size: int = 1
    device: str = "cpu"

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Wait until every rank is here."""
        if self.world_size > 1:
            dist.barrier()

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """The first rank runs the block, then all others do: what it wrote is there for them."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sums of `values` over all ranks, in float64."""
        if self.world_size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        sums: list[float] = total.tolist()
        return sums

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, in the order of ranks."""
        if self.world_size == 1:
            return [value]
        gathered: list[Any] = [None] * self.world_size
        dist.all_gather_object(gathered, value)
        return gathered

    @torch.no_grad()
    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by its sum over all ranks; a missing one counts as zero."""
        if self.world_size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in parameters if p.grad is not None]
        for bucket in fill_buckets(gradients, BUCKET_BYTES):
            if len(bucket) == 1:
                dist.all_reduce(bucket[0])
                continue
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            dist.all_reduce(flat)
            sizes = [gradient.numel() for gradient in bucket]
            for gradient, part in zip(bucket, torch.split(flat, sizes), strict=True):
                gradient.copy_(part.view_as(gradient))


def require_one_process(command: str) -> None:
    """Raise UsageError if torchrun started several processes for a command that runs in one."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size > 1:
        raise UsageError(
            f"{command}: expected one process, found {world_size}",
            hint="start it without torchrun; `stylear train sft` and `dpo` run on several GPUs",
        )


def fill_buckets(tensors: Sequence[Tensor], limit_bytes: int) -> Iterator[list[Tensor]]:
    """Neighbouring tensors of one dtype in lists of at most `limit_bytes`; a larger one is alone."""
    bucket: list[Tensor] = []
    filled = 0
    for tensor in tensors:
        if bucket and (filled + tensor.nbytes > limit_bytes or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, filled = [], 0
        bucket.append(tensor)
        filled += tensor.nbytes
    if bucket:
        yield bucket


@contextmanager
def join_ranks(device: str) -> Iterator[Ranks]:
    """The ranks that torchrun started, by its environment variables; one rank without torchrun.

    With `device` auto or cuda, each rank uses the GPU of its number on the machine. Only the first rank
    writes to stderr. Raises UsageError if there is no such GPU.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield Ranks(device=pick_device(device))
        return
    rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    own = pick_device(device)
    if own == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise UsageError(
                f"torchrun: expected a GPU for local rank {local_rank}, found"
                f" {torch.cuda.device_count()} on this machine",
                hint="give --nproc-per-node the number of GPUs",
            )
        own = f"cuda:{local_rank}"
    elif own.startswith("cuda:"):
        raise UsageError(
            f"--device: expected auto, cuda or cpu for {world_size} processes, found {own!r}",
            hint="leave it out: each process uses the GPU of its local rank",
        )
    if own != "cpu":
        torch.cuda.set_device(own)
    dist.init_process_group("gloo" if own == "cpu" else "cpu:gloo,cuda:nccl", timeout=TIMEOUT)
    try:
        with contextlib.nullcontext() if rank == 0 else contextlib.redirect_stderr(io.StringIO()):
            yield Ranks(rank, world_size, own)
    finally:
        dist.destroy_process_group()


def shard_base(decoder: Decoder, ranks: Ranks) -> None:
    """Shard the frozen weights of the blocks over the ranks by FSDP2; trained weights stay replicated.

    A block's weights are gathered while it is computed, forwards and backwards.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(ranks.device.split(":")[0], (ranks.world_size,))
    for block in decoder.model.layers:
        trained = {p for p in block.parameters() if p.requires_grad}
        fully_shard(block, mesh=mesh, ignored_params=trained)
    fully_shard(decoder, mesh=mesh, ignored_params=set(decoder.parameters()))
