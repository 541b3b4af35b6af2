"""Seeds belong to points, never to the order of execution."""

import hashlib

import numpy as np


def point_seed(seed: int, key: str) -> np.random.SeedSequence:
    """Return the seed sequence of one point: a hash of the sweep's `seed` and of the point's content `key`.

    Equal arguments give equal streams on any executor, shard, order and machine. `key` is any text that
    describes the point (the runner uses the canonical JSON of its parameters, so that a point keeps its
    random numbers when other points join or leave the sweep).
    """
    digest = hashlib.sha256(f"{int(seed)}\n{key}".encode()).digest()
    return np.random.SeedSequence(int.from_bytes(digest, "big"))
