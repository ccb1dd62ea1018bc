"""A cache of the encoded prompts of an SDXL pipeline.

Axes: B prompts, T tokens, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stylear.curate.synthesize.diffusers.load import silence_libraries
from stylear.curate.synthesize.diffusers.lru_cache import LruCache
from stylear.pair import Scalar

CACHED_PROMPTS = 256  # prompts; 80 MB of SDXL in bfloat16 (our choice)
EncodedPrompt = tuple[Tensor, Tensor]  # of one prompt: (1, T, D) of all tokens, (1, D) pooled


class PromptCache:
    """Prompt embeddings of a pipeline's text encoders; the least recently used ones are evicted."""

    def __init__(
        self, pipeline: Any, device: str, guided: bool, size: int = CACHED_PROMPTS
    ) -> None:
        self._pipeline, self._device, self._guided = pipeline, device, guided
        self._cache = LruCache[EncodedPrompt](size)

    def embeddings(self, prompts: Sequence[str], negative: str) -> dict[str, Tensor]:
        """The embedding arguments of an SDXL pipeline for B prompts and a negative prompt."""
        names = ("prompt_embeds", "pooled_prompt_embeds")
        arguments = dict(zip(names, self._encode_all(prompts), strict=True))
        if self._guided:
            names = ("negative_prompt_embeds", "negative_pooled_prompt_embeds")
            arguments |= zip(names, self._encode_all([negative] * len(prompts)), strict=True)
        return arguments

    def count_tokens(self, prompt: str) -> dict[str, Scalar]:
        """The number of tokens of a prompt, start and end included, and where it is truncated, if it is."""
        tokenizers = (self._pipeline.tokenizer, self._pipeline.tokenizer_2)
        return measure_prompt_length(
            prompt,
            [
                (tokenizer, tokenizer.model_max_length)
                for tokenizer in tokenizers
                if tokenizer is not None
            ],
        )

    def _encode_all(self, prompts: Sequence[str]) -> EncodedPrompt:
        """(B, T, D) and (B, D). New prompts are encoded in one batch, on a CPU one at a time."""
        distinct = list(dict.fromkeys(prompts))
        encoded = {prompt: self._cache[prompt] for prompt in distinct if prompt in self._cache}
        new = [prompt for prompt in distinct if prompt not in encoded]
        size = 1 if self._device == "cpu" else max(1, len(new))
        for start in range(0, len(new), size):
            part = new[start : start + size]
            for prompt, embeds, pooled in zip(part, *self._encode(part), strict=True):
                encoded[prompt] = self._cache[prompt] = (embeds[None], pooled[None])
        encodings = [encoded[prompt] for prompt in prompts]
        return torch.cat([embeds for embeds, _ in encodings]), torch.cat(
            [pooled for _, pooled in encodings]
        )

    def _encode(self, prompts: list[str]) -> EncodedPrompt:
        with silence_libraries():
            embeds, _, pooled, _ = self._pipeline.encode_prompt(
                prompt=prompts, device=self._device, do_classifier_free_guidance=False
            )
        return embeds, pooled


def measure_prompt_length(prompt: str, tokenizers: Sequence[tuple[Any, int]]) -> dict[str, Scalar]:
    """The largest token count of a prompt, start and end included, and where it is truncated.

    `tokenizers` come with their limits. The keys are prompt_tokens, prompt_truncated_at (None if no
    tokenizer truncates it) and, if one does, prompt_truncated_text: what the tightest of them cuts off.
    """
    tokens, truncated = 0, list[tuple[int, str]]()
    with silence_libraries():
        for tokenizer, limit in tokenizers:
            ids = tokenizer(prompt, verbose=False).input_ids
            tokens = max(tokens, len(ids))
            if len(ids) > limit:  # the last token that fits is the end token
                truncated.append((limit, tokenizer.decode(ids[limit - 1 : -1]).strip()))
    if not truncated:
        return {"prompt_tokens": tokens, "prompt_truncated_at": None}
    limit, text = min(truncated)
    return {
        "prompt_tokens": tokens,
        "prompt_truncated_at": limit,
        "prompt_truncated_text": text,
    }
