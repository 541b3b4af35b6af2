"""Early stopping of a squared-loss classifier."""

import numpy as np
import pytest

from tlcli.linear.classify.readout import classify
from tlcli.linear.classify.stopped import best_time, classify_stopped
from tlcli.status import Status

POINT = {"ridge": 0.05, "bulk": 0.7, "tau": 0.3, "flips": 0.1}
SPIKES, OVERLAPS2 = [4.0, 1.5], [0.3, 0.2]


def test_at_the_end_it_is_the_readout():
    alpha = np.array([0.4, 1.5, 6.0])
    whole = classify(alpha, SPIKES, OVERLAPS2, loss="square", **POINT)
    late = classify_stopped(alpha, SPIKES, OVERLAPS2, time=1e4, **POINT)
    for name in ("error", "noisy_error", "overlap", "norm2", "log_loss", "square_loss", "train_loss"):
        np.testing.assert_allclose(getattr(late, name), getattr(whole, name), rtol=1e-8, err_msg=name)
    end = classify_stopped(alpha, SPIKES, OVERLAPS2, time=np.inf, **POINT)
    np.testing.assert_array_equal(end.error, whole.error)
    np.testing.assert_array_equal(end.train_error, whole.train_error)


def test_at_the_start_nothing_is_known_and_the_first_step_is_hebbs_rule():
    start = classify_stopped(0.8, SPIKES, OVERLAPS2, time=0.0, **POINT)
    assert (float(start.error), float(start.noisy_error), float(start.train_loss)) == (0.5, 0.5, pytest.approx(0.5))
    first = classify_stopped(0.8, SPIKES, OVERLAPS2, time=1e-6, **POINT).error
    hebb = classify(0.8, SPIKES, OVERLAPS2, loss="square", **{**POINT, "ridge": 1e8}).error
    assert float(first) == pytest.approx(float(hebb), rel=1e-5)


def simulated(time, dim=150, alpha=0.8, trials=60):
    """Gradient flow on Gaussian data, mode by mode of the data's own covariance: error, |β|² and training loss."""
    rng, out = np.random.default_rng(4), []
    for _ in range(trials):
        u = np.linalg.qr(rng.standard_normal((dim, 3)))[0]
        teacher = u @ np.sqrt([*OVERLAPS2, 1 - sum(OVERLAPS2)])
        root = np.sqrt(POINT["bulk"]) * np.eye(dim)
        for k, c in enumerate(SPIKES):
            root += (np.sqrt(POINT["bulk"] + c) - np.sqrt(POINT["bulk"])) * np.outer(u[:, k], u[:, k])
        x = rng.standard_normal((round(alpha * dim), dim))
        y = np.sign(x @ teacher + POINT["tau"] * rng.standard_normal(len(x)))
        y = np.where(rng.random(len(x)) < POINT["flips"], -y, y)
        z = x @ root
        rate, v = np.linalg.eigh(z.T @ z / len(x) + POINT["ridge"] * np.eye(dim))
        beta = root @ (v @ ((1 - np.exp(-rate * time)) / rate * (v.T @ (z.T @ y / len(x)))))
        loss = 0.5 * np.mean((y - x @ beta) ** 2)
        out.append([np.arccos(beta @ teacher / np.linalg.norm(beta)) / np.pi, beta @ beta, loss])
    return np.mean(out, axis=0), np.std(out, axis=0, ddof=1) / np.sqrt(trials)


@pytest.mark.parametrize("time", [0.5, 3.0])
def test_against_gradient_flow_on_data_and_its_twin(time):
    """Within four standard errors and 1/D; at half the time it is not."""
    mean, error = simulated(time)
    for factor, fits in ((1.0, True), (0.5, False)):
        found = classify_stopped(0.8, SPIKES, OVERLAPS2, time=factor * time, **POINT)
        theory = np.array([found.error, found.norm2, found.train_loss], dtype=float)
        distance = np.maximum(np.abs(mean - theory) - theory / 150, 0) / error
        assert (distance.max() < 4) == fits


def test_no_other_time_is_better_than_the_best():
    alpha = np.array([1.0, 3.0])
    rest = {**POINT, "ridge": 0.0}
    best, least = best_time(alpha, SPIKES, OVERLAPS2, **rest)
    line = np.geomspace(0.01, 300, 30)[:, None]
    every = classify_stopped(alpha, SPIKES, OVERLAPS2, time=line, **rest).error
    assert np.all(least <= every.min(axis=0) + 1e-9)
    np.testing.assert_allclose(classify_stopped(alpha, SPIKES, OVERLAPS2, time=best, **rest).error, least, rtol=1e-6)
    assert np.all((best > 0.1) & (best < 10))  # with flips and no ridge the end is not the best


def test_no_input_passes_nan_as_a_number_or_warns():
    rng = np.random.default_rng(0)
    wide = [0.0, 5e-324, 1e-160, 1e-3, 1.0, 1e3, 1e160, 1e308]

    def one(*values):
        return rng.choice(np.asarray(values, dtype=float), 60)

    found = classify_stopped(
        one(*wide[1:]),
        [one(*wide)],
        [one(0.0, 0.3, 1.0)],
        time=one(*wide, np.inf),
        ridge=one(*wide),
        bulk=one(*wide),
        tau=one(*wide),
        flips=one(0.0, 0.1, 0.4999),
    )
    solved = found.status == Status.CONVERGED
    assert solved.sum() > 20
    for name in ("overlap", "norm2", "error", "noisy_error", "log_loss", "square_loss"):
        assert not np.isnan(getattr(found, name)[solved]).any(), name
