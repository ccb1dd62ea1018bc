"""Encoded prompts of an SDXL pipeline, each encoded once for as long as it is remembered.

Axes: B prompts, T tokens, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stylear.curate.synthesize.diffusers.load import quiet
from stylear.curate.synthesize.diffusers.lru_cache import Remembered
from stylear.pair import Scalar

REMEMBERED = 256  # prompts; 80 MB of SDXL in bfloat16 (ours)
Encoded = tuple[Tensor, Tensor]  # of one prompt: (1, T, D) of all tokens, (1, D) pooled


class PromptCache:
    """Prompts as a pipeline's text encoders read them; the latest ones stay."""

    def __init__(
        self, pipeline: Any, device: str, guided: bool, remembered: int = REMEMBERED
    ) -> None:
        self._pipeline, self._device, self._guided = pipeline, device, guided
        self._known = Remembered[Encoded](remembered)

    def embeddings(self, prompts: Sequence[str], negative: str) -> dict[str, Tensor]:
        """The arguments that tell an SDXL pipeline about B prompts, and what to stay away from."""
        told = dict(zip(("prompt_embeds", "pooled_prompt_embeds"), self._all(prompts), strict=True))
        if self._guided:
            names = ("negative_prompt_embeds", "negative_pooled_prompt_embeds")
            told |= zip(names, self._all([negative] * len(prompts)), strict=True)
        return told

    def length(self, prompt: str) -> dict[str, Scalar]:
        """Tokens of a prompt, start and end counted, and at how many it is cut off, if it is."""
        tokens, limit = 0, None
        for tokenizer in (self._pipeline.tokenizer, self._pipeline.tokenizer_2):
            if tokenizer is not None:
                tokens = max(tokens, len(tokenizer(prompt, verbose=False).input_ids))
                if tokens > tokenizer.model_max_length:
                    limit = min(limit or tokens, tokenizer.model_max_length)
        return {"prompt_tokens": tokens, "prompt_truncated_at": limit}

    def _all(self, prompts: Sequence[str]) -> Encoded:
        """(B, T, D) and (B, D). New ones go through the encoders together; on a CPU one by one."""
        distinct = list(dict.fromkeys(prompts))
        found = {prompt: self._known[prompt] for prompt in distinct if prompt in self._known}
        new = [prompt for prompt in distinct if prompt not in found]
        size = 1 if self._device == "cpu" else max(1, len(new))
        for start in range(0, len(new), size):
            part = new[start : start + size]
            for prompt, embeds, pooled in zip(part, *self._encode(part), strict=True):
                found[prompt] = self._known[prompt] = (embeds[None], pooled[None])
        both = [found[prompt] for prompt in prompts]
        return torch.cat([embeds for embeds, _ in both]), torch.cat([pooled for _, pooled in both])

    def _encode(self, prompts: list[str]) -> Encoded:
        with quiet():
            embeds, _, pooled, _ = self._pipeline.encode_prompt(
                prompt=prompts, device=self._device, do_classifier_free_guidance=False
            )
        return embeds, pooled
