"""Minibatches without replacement, the same in theory and experiment: what a step of stochastic descent trains on."""

import functools

import numpy as np

from tlcli.arrays import Floats, Indices
from tlcli.errors import UsageError


class Batches:
    """The minibatches of one stage: every epoch is a permutation of the P points, cut into batches of `size`.

    The last batch of an epoch is smaller where `size` does not divide P. Permutations depend on the seed and the draw
    of the data, the stage and the epoch alone.

    Raises:
        UsageError: a batch of more points than there are.
    """

    def __init__(self, points: int, size: int, seed: int, draw: int, stage: int) -> None:
        if not 1 <= size <= points:
            word = {1: "source", 2: "target"}[stage]
            raise UsageError(f"batch = {size}: the {word} has {points} training points; use 1 to {points}.")
        self.points, self.size = points, size
        self._key = (seed, draw, stage)
        self._epoch = functools.lru_cache(maxsize=4)(self._permutation)

    @property
    def per_epoch(self) -> int:
        """Number of batches that an epoch has."""
        return -(-self.points // self.size)

    def _permutation(self, epoch: int) -> Indices:
        seed, draw, stage = self._key
        seeds = np.random.SeedSequence(seed, spawn_key=(draw, 104, stage, epoch))
        return np.random.default_rng(seeds).permutation(self.points)

    def rows(self, step: int) -> Indices:
        """Return the points that a step, counted from 0 in its stage, trains on."""
        epoch, number = divmod(step, self.per_epoch)
        return np.sort(self._epoch(epoch)[number * self.size : (number + 1) * self.size])

    def weights(self, step: int) -> Floats:
        """Return P/B for the B points of the batch and 0 for the others (P,): of mean 1."""
        rows, out = self.rows(step), np.zeros(self.points)
        out[rows] = self.points / len(rows)
        return out
