"""Phases: the sign of a gain that is more than its own error, whatever the unit of the labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcli.status import Phase, phase_of

N, Z, P, C, U = Phase.NEGATIVE, Phase.NEUTRAL, Phase.POSITIVE, Phase.COLLAPSED, Phase.UNKNOWN


@pytest.mark.parametrize(
    ("gain", "error", "expected"),
    [(1e-11, 0, P), (-1e-11, 0, N), (1e-13, 0, Z), (0.0, 0, Z), (np.nan, 0, U), (0.1, 0.04, P), (-0.1, 0.06, Z),
     (0.1, np.nan, P), (np.inf, 0, P), (-np.inf, 0, N)],
)  # fmt: skip
def test_the_rule(gain, error, expected):
    assert phase_of(gain, 0.5, 1.0, relative=1e-12, error=error) == expected


def test_collapse_and_infinite_losses():
    gain = np.array([0.1, np.nan, np.inf])
    found = phase_of(gain, [0.5, np.inf, 0.5], [0.6, np.inf, np.inf], relative=1e-12, collapsed=[True, True, False])
    assert found.tolist() == [C, U, P]
    assert phase_of(1e-20, 0.0, 0.0, relative=1e-12) == Z, "losses that are zero differ by rounding"


@given(
    gain=st.floats(-1, 1),
    loss=st.floats(0, 1),
    error=st.floats(0, 0.3),
    unit=st.integers(-60, 60).map(lambda n: 2.0**n),
)
def test_the_unit_of_the_labels_does_not_matter(gain, loss, error, unit):
    here = phase_of(gain, loss, loss + gain, relative=1e-9, error=error)
    there = phase_of(gain * unit, loss * unit, (loss + gain) * unit, relative=1e-9, error=error * unit, power=unit)
    assert here == there
