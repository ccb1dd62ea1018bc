"""Draw the image codes of a batch: one static step for each code, on a GPU replayed as a CUDA graph.

A step feeds the code drawn before (and the newline where a row ends), and draws the next one. Its tensors
stay where they are and nothing in it waits for the device, so all its kernels can be launched at once. Each
forward pass serves all sides of guidance: conditional rows first, unconditional rows last.
B pictures, R rows of a forward (B for each side of guidance), T tokens, D hidden, V codes, N = h w.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stylear.model.style_tokens import insert_style_tokens
from stylear.sampling.guidance import Guidance

if TYPE_CHECKING:
    from stylear.model.decoder_layers import KVCache
    from stylear.model.layout import TokenLayout
    from stylear.model.transformer import Decoder

BUCKET = 256  # our choice: a static step attends to a multiple of so many slots


class CodeSampler:
    """Draws batches of image codes with the same settings.

    `static` steps attend to the cache in multiples of `bucket` slots and on a GPU are captured once for each
    multiple and then replayed; other steps attend to exactly the slots in use. Both draw the same codes. By
    default steps are static on a GPU. What was allocated and captured is kept for batches of the same shape.
    """

    def __init__(
        self,
        decoder: Decoder,
        layout: TokenLayout,
        *,
        guidance: float,
        top_k: int,
        temperature: float,
        style_guidance: float | None = None,
        static: bool | None = None,
        bucket: int = BUCKET,
    ) -> None:
        self.decoder, self.layout = decoder, layout
        self.guidance = Guidance(guidance, style_guidance)
        self.top_k, self.temperature = top_k, temperature
        self.device = decoder.model.norm.weight.device
        self.static = self.device.type == "cuda" if static is None else static
        self.captures = self.static and self.device.type == "cuda"
        self.bucket = bucket
        self._batch: _Batch | None = None

    @torch.inference_mode()
    def draw(
        self,
        prompts: Sequence[Sequence[int]],
        styles: Sequence[Tensor | None],
        draws: Tensor,
        style_prompts: Sequence[Sequence[int]] | None = None,
    ) -> Tensor:
        """Image codes (B, h, w) for prompts (ids up to the separator) with their style tokens.

        `draws` (B, h, w) holds a uniform random number for each code. Logits are guided as `Guidance`
        says; the unconditional sequence has the layout's null prompt, and guidance begins with the first
        code, as in the released code. `style_prompts` are the prompts without text, for `style_guidance`.
        """
        pictures, height, width = draws.shape
        embeds, lengths = self.embed_prompts(prompts, styles, style_prompts, height, width)
        used = embeds.shape[1]
        batch = self._open_batch(
            pictures, height * width, len(lengths), used + height * (width + 1)
        )
        batch.start(embeds, lengths, draws.flatten(1))
        for n in range(1, height * width):
            # the newline of a row is fed together with its last code
            row_ended = self.layout.newline is not None and n % width == 0
            used += 1 + row_ended
            batch.step(row_ended, self.round_up(used))
        return batch.codes.view(pictures, height, width).clone()

    def embed_prompts(
        self,
        prompts: Sequence[Sequence[int]],
        styles: Sequence[Tensor | None],
        style_prompts: Sequence[Sequence[int]] | None,
        height: int,
        width: int,
    ) -> tuple[Tensor, Tensor]:
        """Embeddings (R, T, D) of all that precedes the first code, padded on the right, and lengths (R,)."""
        prefix = self.layout.prefix(height, width)
        rows, tokens = self.guidance.prompt_rows(self.layout, prompts, styles, style_prompts)
        return pad_rows(self.decoder, self.layout, [[*ids, *prefix] for ids in rows], tokens)

    def compute_logits(self, hidden: Tensor) -> Tensor:
        """Guided logits (B, ..., V) of hidden states (R, ..., D)."""
        return self.guidance.combine(self.decoder.image_logits(hidden).float())

    def round_up(self, slots: int) -> int:
        """The number of slots that a step reads which needs so many."""
        return -(-slots // self.bucket) * self.bucket if self.static else slots

    def _open_batch(self, pictures: int, codes: int, rows: int, slots: int) -> _Batch:
        slots = self.round_up(slots)
        # a graph reads the weights where they lay when it was captured
        shape = (pictures, codes, rows, slots, *(p.data_ptr() for p in self.decoder.parameters()))
        if self._batch is None or self._batch.shape != shape:
            self._batch = None  # frees its memory first
            self._batch = _Batch(self, shape)
        return self._batch


class _Batch:
    """The tensors of one batch on the device, and the graphs captured over them."""

    def __init__(self, sampler: CodeSampler, shape: tuple[int, ...]) -> None:
        pictures, codes, rows, slots, *_ = shape
        self.sampler, self.shape = sampler, shape
        decoder, device = sampler.decoder, sampler.device
        self.cache: KVCache = decoder.new_cache(rows, slots)
        self.codes = torch.zeros(pictures, codes, dtype=torch.long, device=device)
        self.draws = torch.zeros(pictures, codes, dtype=torch.float64, device=device)
        self.next = torch.zeros(1, dtype=torch.long, device=device)  # the code to draw
        self.ids = torch.tensor(sampler.layout.image_token_ids, device=device)  # by code
        newline = sampler.layout.newline
        self.newlines = torch.full((pictures, 1), -1 if newline is None else newline, device=device)
        self.runner = StepRunner(device, captures=sampler.captures)

    def start(self, embeds: Tensor, lengths: Tensor, draws: Tensor) -> None:
        """Read the prompts (R, T, D), `lengths` (R,) of them, and draw the first code of each picture."""
        self.draws.copy_(draws)
        self.next.zero_()
        self.cache.lengths.zero_()
        self.cache.attended = embeds.shape[1]
        hidden = self.sampler.decoder(embeds, self.cache)
        self.cache.lengths.copy_(lengths)
        self._draw_code(hidden[torch.arange(len(lengths), device=lengths.device), lengths - 1])

    def step(self, row_ended: bool, attended: int) -> None:
        """Feed the last code, and the newline if its row has ended, and draw the next code."""
        self.cache.attended = attended
        self.runner.run((row_ended, attended), lambda: self._run_step(row_ended))

    def _run_step(self, row_ended: bool) -> None:
        decoder = self.sampler.decoder
        ids = self.ids[self.codes.index_select(1, self.next - 1)]
        if row_ended:
            ids = torch.cat([ids, self.newlines], dim=1)
        ids = ids.repeat(self.sampler.guidance.sides, 1)
        self._draw_code(decoder(decoder.embed(ids), self.cache)[:, -1])

    def _draw_code(self, hidden: Tensor) -> None:
        settings = self.sampler
        logits = settings.compute_logits(hidden)
        uniform = self.draws.index_select(1, self.next)[:, 0]
        code = sample_code(logits, uniform, settings.top_k, settings.temperature)
        self.codes.index_copy_(1, self.next, code[:, None])
        self.next += 1


class StepRunner:
    """Runs steps by key; one that `captures` replays the CUDA graph of a key from its second run on."""

    def __init__(self, device: torch.device, *, captures: bool) -> None:
        self.device, self.captures = device, captures
        self._graphs: dict[Any, Any] = {}
        self._pool: Any = None

    def run(self, key: Any, step: Callable[[], None]) -> None:
        """Run a step whose kernels and tensors are the same whenever its key is."""
        if key in self._graphs:
            self._graphs[key].replay()
            return
        step()
        if self.captures:
            # after this first run nothing is allocated or chosen by the libraries any more
            self._graphs[key] = capture_graph(step, self._pool, self.device)
            self._pool = self._graphs[key].pool()


def capture_graph(run: Callable[[], None], pool: Any, device: torch.device) -> Any:
    """A CUDA graph of the kernels that `run` launches, in the memory pool of other graphs if one is given."""
    graph = torch.cuda.CUDAGraph()
    stream = open_capture_stream(device)
    with (
        torch.cuda.device(device),
        torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
    ):
        run()
    return graph


@cache
def open_capture_stream(device: torch.device) -> Any:
    """The stream of a GPU's captures. Graphs of one pool need the same, and torch's own is of one GPU."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def sample_code(logits: Tensor, uniform: Tensor, top_k: int, temperature: float) -> Tensor:
    """One code per row of logits (B, V), by inverse transform sampling at uniform (B,) in [0, 1).

    Only the `top_k` largest logits can be drawn; temperature 0 takes the largest.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    return invert(compute_probabilities(logits, top_k, temperature), uniform)


def compute_probabilities(logits: Tensor, top_k: int, temperature: float) -> Tensor:
    """The distribution (..., V) in float64 that logits (..., V) are sampled from."""
    if temperature == 0:
        likeliest = logits.argmax(dim=-1, keepdim=True)
        return torch.zeros_like(logits, dtype=torch.float64).scatter_(-1, likeliest, 1.0)
    if top_k < logits.shape[-1]:
        threshold = logits.topk(top_k, dim=-1, sorted=False).values.amin(dim=-1, keepdim=True)
        logits = logits.masked_fill(logits < threshold, float("-inf"))
    return (logits.double() / temperature).softmax(dim=-1)


def invert(weights: Tensor, uniform: Tensor) -> Tensor:
    """The code (...) whose share of the weights (..., V), added up by code, holds uniform (...) in [0, 1)."""
    steps = weights.cumsum(dim=-1)
    target = uniform.double()[..., None] * steps[..., -1:]
    # the first step above the target, so that its code has a weight above 0
    return torch.searchsorted(steps, target, right=True)[..., 0]


def pad_rows(
    decoder: Decoder,
    layout: TokenLayout,
    rows: Sequence[Sequence[int]],
    styles: Sequence[Tensor | None],
) -> tuple[Tensor, Tensor]:
    """Embeddings (R, T, D) of right-padded rows with style tokens in place, and the rows' lengths (R,)."""
    device = decoder.model.norm.weight.device
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.full((len(rows), int(lengths.max())), layout.pad)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    embeds = decoder.embed(ids.to(device))
    tokens = [style for style in styles if style is not None]
    if tokens:
        styled = torch.tensor([style is not None for style in styles])
        rows_, columns = ((ids == layout.style_placeholder) & styled[:, None]).nonzero(
            as_tuple=True
        )
        embeds = insert_style_tokens(
            embeds, torch.stack(tokens).to(device), rows_.to(device), columns.to(device)
        )
    return embeds, lengths.to(device)
