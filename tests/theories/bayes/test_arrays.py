"""The dual vectors and order parameters that no table holds."""

from typing import Any

import numpy as np
import pytest

import tlcli

DATA: dict[str, Any] = {
    "source": "linear",
    "target": "linear",
    "dim": 8,
    "p1": 12,
    "p2": 6,
    "ptest": 10,
    "beta": 20,
    "beta2": 5,
}


def test_the_dual_vector_solves_the_kernel_equation_and_predicts():
    r = tlcli.bayes_saddle(**DATA, gamma0=1.5, delta=[0.5, 3], predictions=True)
    a = r.arrays
    for at in range(2):
        for name, beta, rows in (("source", 20, slice(0, 12)), ("target", 5, slice(12, 18))):
            kernel, v = a[f"kernel_{name}"][at][rows, rows], a[f"dual_{name}"][at]
            np.testing.assert_allclose(kernel @ v + v / beta, a[f"labels_{name}"][at], rtol=1e-7)
            assert not np.allclose(kernel @ v + v / 10, a[f"labels_{name}"][at], rtol=1e-3)
            outputs = a["predictions"][at][0 if name == "source" else 1]
            np.testing.assert_allclose(a[f"kernel_{name}_test"][at][:, rows] @ v, outputs[18:], rtol=1e-6)


def test_nonlinear_duals_follow_the_order_of_the_data():
    r = tlcli.bayes_saddle(**{**DATA, "dim": 2}, activation="erf", gamma0=1, delta=1)
    kernel, v = r.arrays["kernel_target"][12:, 12:], r.arrays["dual_target"]
    np.testing.assert_allclose(kernel @ v + v / 5, r.arrays["labels_target"], rtol=1e-5)


@pytest.mark.parametrize("case", ["decoupled", "same", "labels"])
def test_order_parameters_of_whitened_data(case, tmp_path):
    """Linear networks on orthonormal inputs, C = I, solved as any other: u = v'Φ̄v, X/q = γ²|v|², r from the rest."""
    from tlcli.bayes.linear import linear_source, linear_target

    m = {"decoupled": 0.0, "same": 1.0, "labels": 0.5}[case]
    words: dict[str, Any] = {"label_overlap": m} if case == "labels" else {}
    r = tlcli.bayes_saddle(
        whitened=case, gamma0=2, gamma2=1.5, beta=10, beta2=5, delta=[0.5, 1.5], label_norm1=4, label_norm2=2, **words
    )
    assert {"q", "r", "u"} <= r.arrays.keys()
    first, second = np.arange(3), np.arange(3, 6)
    x = np.sqrt(6) * np.eye(6) if case == "decoupled" else np.sqrt(3) * np.concatenate([np.eye(3), np.eye(3)])
    y1 = 2.0 * np.array([m, np.sqrt(1 - m**2), 0.0])
    y2 = np.sqrt(2) * np.array([1.0, 0.0, 0.0])
    for at, delta in enumerate((0.5, 1.5)):
        source = linear_source(x, first, y1, 2.0, 10.0)
        v = linear_target(x, second, y2, 1.5, 5.0, delta, source).v
        q, rest, u = (r.arrays[name][at] for name in ("q", "r", "u"))
        assert u == pytest.approx(v @ source.kernel[3:, 3:] @ v, rel=1e-8)
        assert (1 + delta) * (q - 1) / q == pytest.approx(1.5**2 * v @ v, rel=1e-8)
        if case != "same":  # a part of y2 is orthogonal to y1
            across = np.array([np.sqrt(1 - m**2), -m, 0.0])
            assert across @ v == pytest.approx(across @ y2 / rest, rel=1e-8)
    r.save(tmp_path)
    np.testing.assert_array_equal(tlcli.load(tmp_path).arrays["u"], r.arrays["u"])
