"""Style features computed from the images of the shards, when they are not kept on disk.

B rows, P patches + 1, W their width.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from stylear.curate.corpus.local_copies import LocalCopies
from stylear.curate.corpus.pair_reader import PairReader
from stylear.encoders.clip import ClipEncoder
from stylear.train.prefetch import map_ahead


class ComputedFeatures:
    """The frozen image encoder over the images of a split of corpora; every image's hash is checked."""

    def __init__(self, clip: ClipEncoder, corpora: Sequence[Path], split: str) -> None:
        copies = LocalCopies()
        self._lock = threading.Lock()  # batches are built in a thread, samples drawn in another
        self._clip = clip
        self._readers = [PairReader(corpus, (split,), copies) for corpus in corpora]

    @property
    def row_shape(self) -> tuple[int, int]:
        """P, W."""
        return self._clip.num_patches + 1, self._clip.feature_dim

    @torch.inference_mode()
    def read(self, keys: Iterable[tuple[int, str]]) -> Tensor:
        """Features (B, P, W) float16 of images, each given by the number of its corpus and its key."""
        images = (self._readers[corpus].pair(key).image for corpus, key in keys)
        threads = os.cpu_count() or 1
        # the encoder keeps its own precision, whatever the training casts to
        with self._lock, torch.autocast(self._clip.device.type, enabled=False):
            resized = list(
                map_ahead(self._clip.preprocessor.resize, images, ahead=threads, threads=threads)
            )
            # rounded as features on disk are, so that both give the same training
            pixels = self._clip.preprocessor.normalize(resized)
            return self._clip.patch_features(pixels).half().cpu()
