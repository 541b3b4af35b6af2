"""Deep networks that hardly learn features: they meet the exact lazy limit, and only gamma times the labels matters."""

from dataclasses import replace

import numpy as np
import pytest

from tlcli.dmft.activations import activation
from tlcli.dmft.deep.field import DeepField, Training, Weights
from tlcli.dmft.deep.hidden import NOTHING
from tlcli.dmft.deep.lazy import initial_deep_kernels
from tlcli.dmft.deep.outputs import lacking, outputs, tangent
from tlcli.dmft.deep.solve import deep_plan
from tlcli.dmft.deep.start import sampled
from tlcli.dmft.ensemble import Numerics
from tlcli.dmft.network_transfer import solve_transfer
from tlcli.dmft.settings import Setup
from tlcli.errors import UsageError
from tlcli.tasks.transfer_tasks import transfer_data
from tlcli.training import TransferSettings

TIMES = (0.0, 2.0, 5.0)


@pytest.fixture(scope="module")
def data():
    return transfer_data("linear", "he1+0.5*he3", dim=6, rho=0.6, noise1=0, noise2=0, p1=8, p2=6, ptest=60, seed=1)


def settings_of(gamma, **more):
    return TransferSettings(
        **{"times1": TIMES, "times2": TIMES, "gamma0": gamma, "gamma2": gamma, "depth": 2, "activation": "tanh", **more}
    )


def limit(data, act="tanh", depth=2, readout="carry"):
    """f (6, n) of both stages at gamma -> 0: linear equations with the exact tangent kernel, solved by eigenvectors."""
    x = np.concatenate([data.x_source, data.x_target, data.x_test])
    p1, p2 = len(data.y_source), len(data.y_target)
    theta = initial_deep_kernels(activation(act), x, x[: p1 + p2], depth).ntk
    start, out = np.zeros(len(x)), []
    for rows, y in ((np.arange(p1), data.y_source), (np.arange(p1, p1 + p2), data.y_target)):
        if len(out) and readout == "reset":
            start = np.zeros(len(x))
        values, vectors = np.linalg.eigh(theta[rows][:, rows] / len(rows))
        for t in TIMES:
            integral = vectors @ (-np.expm1(-values * t) / values * (vectors.T @ (y - start[rows]))) / len(rows)
            out.append(start + theta[:, rows] @ integral)
        start = out[-1]
    return np.array(out)


def losses(data, f):
    """Losses (6,) by name."""
    p1, p2 = len(data.y_source), len(data.y_target)
    sets = {
        "source_loss": (slice(p1 + p2, None), data.y_test_source),
        "loss": (slice(p1 + p2, None), data.y_test_target),
        "source_train_loss": (slice(0, p1), data.y_source),
        "train_loss": (slice(p1, p1 + p2), data.y_target),
    }
    return {name: np.mean((f[:, rows] - y) ** 2, axis=1) for name, (rows, y) in sets.items()}


@pytest.mark.parametrize(
    ("act", "readout", "gamma"),
    [("tanh", "carry", 1e-6), ("tanh", "carry", 1e-3), ("tanh", "carry", 0.01), ("gelu", "reset", 1e-3)],
)
def test_a_small_richness_meets_the_exact_limit(data, act, readout, gamma):
    found = solve_transfer(
        data, settings_of(gamma, activation=act, readout=readout), Numerics(accuracy=1e-3, neurons=1024, repeats=3)
    )
    assert found.status == "converged"
    for name, exact in losses(data, limit(data, act, readout=readout)).items():
        value, error = found.columns[name], found.columns[f"{name}_se"]
        np.testing.assert_array_less(np.abs(value - exact), 3 * error + 3e-4, err_msg=name)
    # The twin: a stage 2 that started from zero, or the readout's kernel alone, would be noticed.
    other = losses(data, limit(data, act, readout="reset" if readout == "carry" else "carry"))
    assert abs(found.columns["train_loss"][-1] - other["train_loss"][-1]) > 0.01


def test_losses_are_smooth_in_the_richness(data):
    gammas = (1e-5, 1e-3, 0.03, 0.1, 0.3)
    found = [solve_transfer(data, settings_of(g), Numerics(neurons=1024, repeats=3)).columns for g in gammas]
    exact = losses(data, limit(data))
    for name, lazy in exact.items():
        distance = np.array([np.max(np.abs(columns[name] - lazy)) for columns in found])
        noise = np.array([np.max(columns[f"{name}_se"]) for columns in found])
        assert np.all(distance < 0.3 * np.square(gammas) + 3 * noise + 1.5e-3), name  # even in gamma
        assert np.all(noise < 8e-3), name  # of 3 samples, whose spread is itself uncertain


def test_weight_decay_leaves_no_noise_of_the_start(data):
    more = {"weight_decay": 0.05, "weight_decay2": 0.1}
    found = [solve_transfer(data, settings_of(g, **more), Numerics(neurons=1024, repeats=3)) for g in (1e-4, 0.1)]
    for name in ("source_loss", "train_loss"):
        small, larger = (result.columns[name] for result in found)
        assert np.all(np.abs(small - larger) < 5e-3), name
        assert np.all(found[0].columns[f"{name}_se"] < 2e-3), name


class Pulled(DeepField):
    """A field whose pull is what its training calls labels."""

    def output(self, found, z):
        return np.zeros(len(self.training.labels))


@pytest.mark.parametrize(("name", "frozen"), [("tanh", 0), ("relu", 0), ("gelu", 1), ("erf", 3)])
def test_the_tangent_kernel_of_a_sample_is_the_slope_of_its_outputs(data, name, frozen):
    act, settings = activation(name), settings_of(1.0, depth=3)
    setup = Setup(data, settings, act, np.concatenate([data.x_source, data.x_target, data.x_test]))
    rng = np.random.default_rng(3)
    start = sampled(act, setup.geometry, 3, 300, rng, setup.trained, tol=0.1, dtype="float64")
    origin = Weights(start.inputs, start.readout, [np.zeros((0, 0))] * 2, np.ones(3))
    rows, step = setup.target, 1e-5
    theta = tangent(start, origin, rows, frozen)
    pull = rng.standard_normal(len(rows))
    training = Training(setup.geometry.moving[rows], pull, 1.0, 1.0, 0.0, None, frozen)

    field = Pulled(act, start.spaces, start.hidden, training)
    z = field.pack(origin)
    velocity = field(0.0, z)
    after, before = (field.unpack(field.combine((1.0, z), (sign * step, velocity))) for sign in (1.0, -1.0))
    for points, known in ((rows, True), (setup.test, False)):
        change = [outputs(start, w, points, [NOTHING] * 2, known) for w in (after, before)]
        slope = (change[0] - change[1]) / (2 * step)
        tolerance = 1e-6 if act.smooth else 0.05
        np.testing.assert_allclose(slope, theta[points] @ pull, atol=tolerance * np.max(np.abs(slope)))
    exact = initial_deep_kernels(act, setup.x, setup.x[setup.trained], 3)
    gap = lacking(start, origin, rows, exact, frozen)
    whole = gap + theta
    assert np.sqrt(np.mean(gap**2)) < 0.5 * np.sqrt(np.mean(whole**2))  # 300 neurons
    if not frozen:
        np.testing.assert_allclose(whole, exact.ntk[:, rows], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("act", "gamma", "more"), [("tanh", 0.5, {}), ("relu", 0.2, {}), ("linear", 1.0, {})])
@pytest.mark.parametrize("factor", [1 / 64, 32.0])
def test_only_gamma_times_the_labels_is_chosen_by(data, act, gamma, more, factor):
    """Labels c y at gamma / c are labels y at gamma, outputs c times; powers of two leave every rounding as it is."""
    scaled = replace(
        data,
        y_source=factor * data.y_source,
        y_target=factor * data.y_target,
        y_test_source=factor * data.y_test_source,
        y_test_target=factor * data.y_test_target,
    )
    numerics = Numerics(neurons=None if act == "linear" else 500, repeats=None if act == "linear" else 2)
    results = [
        solve_transfer(d, settings_of(g, activation=act, **more), numerics)
        for d, g in ((data, gamma), (scaled, gamma / factor))
    ]
    for key in ("evaluations", "dtype", "neurons", "revealed"):
        assert results[0].info[key] == results[1].info[key], key
    for name in ("loss", "source_train_loss", "train_loss", "baseline", "loss_se"):
        first, second = (result.columns[name] for result in results)
        np.testing.assert_allclose(second, factor**2 * first, rtol=1e-12, atol=1e-15 * factor**2, err_msg=name)
    plans = [
        deep_plan(activation(act), [Setup(d, settings_of(g), activation(act), data.x_source).stage(1)], Numerics())
        for d, g in ((data, 3 * gamma), (scaled, 3 * gamma / factor))
    ]
    assert plans[0] == plans[1]


def test_a_richness_below_rounding_is_refused(data):
    with pytest.raises(UsageError, match=r"gamma = 1e-12 with labels of size .* use 1e-07 or more, .* or 0"):
        solve_transfer(data, settings_of(1e-12), Numerics())
