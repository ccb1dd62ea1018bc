"""The order of training examples: a function of seed and step, with no array as long as the corpus.

Rows lie in buckets (one grid of codes each), and inside a bucket by corpus. A batch holds rows of one bucket.
An epoch visits every row exactly once; if a bucket's last batch is not full, it is filled with the first rows
of the bucket's next epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.int64]
ROUNDS = 6  # of the Feistel network (our choice)


class Sampler:
    """Draws the rows of each step.

    `sizes` (buckets, corpora) counts rows. `weights` are the shares of the corpora among the examples;
    without them every corpus has the share of its size. A corpus with a larger share repeats its rows evenly,
    and one with a smaller share takes several epochs to visit all of them.
    """

    def __init__(
        self, sizes: Sequence[Sequence[int]] | Array, weights: Sequence[float] | None = None
    ) -> None:
        self.sizes = np.asarray(sizes, np.int64)
        self.starts = (np.cumsum(self.sizes) - self.sizes.flatten()).reshape(self.sizes.shape)
        self.weights = weights

    def __len__(self) -> int:
        return int(self.sizes.sum())

    @cached_property
    def epoch_sizes(self) -> Array:
        """Examples (buckets, corpora) that an epoch takes of each bucket and corpus."""
        if self.weights is None:
            return self.sizes
        shares = np.asarray(self.weights, float) / sum(self.weights)
        fractions = self.sizes / np.maximum(1, self.sizes.sum(0))
        examples = np.rint(fractions * shares * len(self)).astype(np.int64)
        return np.where(self.sizes > 0, np.maximum(1, examples), 0)

    def draw(self, seed: int, step: int, batch_size: int) -> Array:
        """The rows (batch_size,) of a step (counted from 0), all of one bucket."""
        bucket, number = self.find_batch(seed, step, batch_size)
        counts = self.epoch_sizes[bucket]
        positions = number * batch_size + np.arange(batch_size)
        epochs, offsets = np.divmod(positions, counts.sum())
        shuffled = permute_by_epoch(offsets, epochs, int(counts.sum()), (seed, bucket))
        ends = np.cumsum(counts)
        corpora = np.searchsorted(ends, shuffled, side="right")
        rows = np.empty_like(shuffled)
        for corpus in np.unique(corpora):
            chosen = corpora == corpus
            # every corpus has epochs of its own, so that its rows are repeated evenly
            own = epochs[chosen] * counts[corpus] + shuffled[chosen] - (ends - counts)[corpus]
            size = int(self.sizes[bucket, corpus])
            own_epochs, own_offsets = np.divmod(own, size)
            key = (seed, bucket, 1 + int(corpus))
            rows[chosen] = self.starts[bucket, corpus] + permute_by_epoch(
                own_offsets, own_epochs, size, key
            )
        return rows

    def find_batch(self, seed: int, step: int, batch_size: int) -> tuple[int, int]:
        """The bucket of a step, and how many earlier steps took a batch of it."""
        sizes = self.epoch_sizes.sum(1)
        epoch = step * batch_size // int(sizes.sum())
        while count_batches(sizes, epoch, batch_size).sum() > step:
            epoch -= 1
        before = count_batches(sizes, epoch, batch_size)
        own = count_batches(sizes, epoch + 1, batch_size) - before
        order = shuffle_buckets(tuple(own.tolist()), seed, epoch)
        index = step - int(before.sum())
        bucket = int(order[index])
        return bucket, int(before[bucket]) + int((order[:index] == bucket).sum())


def count_batches(sizes: Array, epochs: int, batch_size: int) -> Array:
    """Batches (buckets,) that start before the end of the first `epochs` epochs."""
    return -(-epochs * sizes // batch_size)


@lru_cache(maxsize=4)
def shuffle_buckets(counts: tuple[int, ...], seed: int, epoch: int) -> Array:
    """The bucket of each step of an epoch: bucket b comes counts[b] times."""
    order = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng([seed, epoch]).permutation(order)


def permute_by_epoch(offsets: Array, epochs: Array, size: int, key: Sequence[int]) -> Array:
    """Each offset's image under the permutation of range(size) of its epoch."""
    images = np.empty_like(offsets)
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        images[chosen] = permute(offsets[chosen], size, (*key, int(epoch)))
    return images


def permute(positions: Array, size: int, key: Sequence[int]) -> Array:
    """Images of positions under a pseudo-random permutation of range(size), in constant memory.

    A Feistel network permutes the next power of four; positions that leave the range walk on until they
    return (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).
    """
    half = max(1, -(-(size - 1).bit_length() // 2))
    keys = np.random.SeedSequence(key).generate_state(ROUNDS, np.uint64).astype(np.uint64)
    images = positions.astype(np.uint64)
    outside = np.ones(len(images), bool)
    while outside.any():
        images[outside] = encrypt(images[outside], half, keys)
        outside = images >= size
    return images.astype(np.int64)


def encrypt(
    values: npt.NDArray[np.uint64], half: int, keys: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint64]:
    """A Feistel network over words of 2 * `half` bits, one round for each key."""
    bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = values >> bits, values & mask
    for key in keys:
        left, right = right, left ^ (mix_bits(right ^ key) & mask)
    return left << bits | right


def mix_bits(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64: every input bit affects every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
