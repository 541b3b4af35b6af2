"""States of chains that were sampled under one tilt."""

from typing import NamedTuple

from tlcli.arrays import Floats, Singles


class Pool(NamedTuple):
    """States of an umbrella run.

    Attributes:
        z: (T, M, r), single precision: T snapshots of M chains, the chains of a group side by side.
        bias: B at the time of sampling, (T, M).
    """

    z: Singles
    bias: Floats

    @property
    def states(self) -> int:
        """Number of states T·M."""
        return self.bias.size
