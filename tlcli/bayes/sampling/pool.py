"""States of chains that were sampled under one tilt."""

from typing import NamedTuple

from tlcli.arrays import Floats, Indices, Singles


class Pool(NamedTuple):
    """States of an umbrella run.

    Attributes:
        z: (T, M, r), single precision: T snapshots of M chains, the chains of a group side by side.
        bias: B at the time of sampling, (T, M).
        pull: p of `radius` (T, M), of directions around the source neurons of a target, else None.
    """

    z: Singles
    bias: Floats
    pull: Floats | None = None

    def chains(self, at: Indices) -> "Pool":
        """The states of the chains `at`."""
        return Pool(self.z[:, at], self.bias[:, at], None if self.pull is None else self.pull[:, at])

    @property
    def states(self) -> int:
        """Number of states T·M."""
        return self.bias.size
