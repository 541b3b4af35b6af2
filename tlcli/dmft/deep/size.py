"""The memory of a deep network: what its process holds at its peak, from the directions that its matrices reveal.

How many these are is known after the network was solved; before, it is guessed from how far training goes. Measured on
networks of 8 to 60 training points: 2.7 to 22 directions per point where the activation is smooth (docs/deep.md).
"""

import math
from dataclasses import dataclass

from tlcli.dmft.activations import Activation
from tlcli.dmft.deep.solve import LEAST, MOST, PER_RANK, SINGLE, basis_tolerance
from tlcli.dmft.deep.start import AXES
from tlcli.dmft.ensemble import Numerics
from tlcli.dmft.field import thread_count

_PROCESS = 145e6  # bytes of the program
_FIELDS, _FIELDS_EXACT = 8, 4  # fields of all points and of one layer that every thread works with
_PER_POINT, _GROWTH, _RICHNESS = 4.2, 0.36, 0.55  # directions of gamma = 1 after t = 1, and the powers of t and gamma
_FEWEST, _MANY = 2.5, 22.0  # directions per point
# With kinks every neuron that crosses one adds a direction: so many per gamma sqrt(t), up to a few crossings each,
# and a power of the points. Measured for relu, 8 and 16 points, gamma 0.1 to 1 and t 1 to 20: within 1.5.
_CROSSINGS, _LAST, _SHARED = 59.0, 4.5, 0.78


@dataclass(frozen=True)
class DeepSize:
    """Directions and neurons of one hidden matrix, and the bytes of the process that solves the network."""

    rank: int
    neurons: int
    bytes: float


def expected_rank(act: Activation, samples: int, gamma: float, duration: float) -> int:
    """Guess the directions of one hidden matrix, of `samples` training points of all stages."""
    if not act.smooth:
        reach = gamma * math.sqrt(min(duration, 1e4))
        crossed = _CROSSINGS * reach / (1 + reach / _LAST) * samples**_SHARED
        return math.ceil(max(crossed, _FEWEST * samples))
    per_point = _PER_POINT * min(duration, 1e4) ** _GROWTH * gamma**_RICHNESS
    return math.ceil(min(max(per_point, _FEWEST), _MANY) * samples)


def expected_neurons(numerics: Numerics, gamma: float, rank: int) -> int:
    """Return the neurons that `rank` directions will have."""
    repeats = numerics.repeats or 4
    wanted = math.ceil((0.5 * max(1.0, gamma) / numerics.accuracy) ** 2 / repeats)
    return numerics.neurons or min(MOST, max(LEAST, wanted, PER_RANK * rank))


def neurons_for(numerics: Numerics, neurons: int, rank: int) -> int:
    """Return the neurons of all repeats where one of `neurons` has found `rank` directions, baseline included."""
    return neurons if numerics.neurons is not None else max(neurons, min(math.ceil(1.1 * PER_RANK * rank), MOST))


def size_of(
    act: Activation, depth: int, points: int, dim: int, rank: int, neurons: int, numerics: Numerics
) -> DeepSize:
    """Return the size of a network between all `points` (trained on or not) in `dim` dimensions.

    The tables of a matrix hold 2 r S words, r features and responses of S neurons, and the noise of all n points n S,
    for every repeat and the second look at one; every thread works with some fields of all points in all layers.
    Linear networks have axes in place of neurons.
    """
    word, repeats = 8 if basis_tolerance(act, numerics) < SINGLE else 4, numerics.repeats or 4
    threads = min(numerics.threads or thread_count(), repeats)
    if act.kind == "linear":
        word, repeats, threads = 8, 1, 1
        neurons = AXES * (min(dim, points) + 1)
        rank = neurons // 3
    tables = (2.0 * rank + points) * neurons * (depth - 1) * (repeats + 1)
    fields = _FIELDS_EXACT if act.kind == "linear" else _FIELDS
    work = fields * points * neurons * depth * threads
    return DeepSize(rank, neurons, _PROCESS + word * (tables + work))
