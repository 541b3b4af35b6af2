"""Classification on bulk plus spikes: the reference table, adaptive quadrature, closed forms and limits."""

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import expit, log_expit, ndtr

from tlcli.errors import DomainError
from tlcli.linear.classify import margin, saddle
from tlcli.linear.classify.margin import separability
from tlcli.linear.classify.readout import LOSSES, classify
from tlcli.linear.finetuning import finetune
from tlcli.status import Status

REFERENCE = Path(__file__).parents[2] / "reference" / "classification.csv"
NAMES = {"m": "overlap", "q": "norm2", "test_log_loss": "log_loss"}


def reference():
    points = {}
    with REFERENCE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        words = dict(part.split("=") for part in row["parameters"].split(";"))
        points.setdefault(row["id"], (words, {}))[1][row["quantity"]] = float(row["value"])
    thresholds = [row for row in rows if row["kind"] == "separability"]
    return {name: point for name, point in points.items() if "loss" in point[0]}, thresholds


POINTS, THRESHOLDS = reference()


def numbers(text):
    return [float(part) for part in text.split("/")] if text else []


@pytest.mark.parametrize("name", POINTS)
def test_reference(name):
    words, expected = POINTS[name]
    found = classify(
        float(words["alpha2"]),
        numbers(words["spikes"]),
        np.square(numbers(words["overlaps"])),
        loss=words["loss"],
        **{ours: float(words[w]) for ours, w in (("ridge", "ridge"), ("bulk", "k"), ("tau", "tau"), ("flips", "flip"))},
    )
    got = {quantity: float(getattr(found, NAMES.get(quantity, quantity))) for quantity in expected}
    assert got == pytest.approx(expected, rel=1e-8, abs=1e-8)
    assert found.status == Status.CONVERGED


def test_thresholds():
    for row in THRESHOLDS:
        words = {k: float(v) for k, v in (part.split("=") for part in row["parameters"].split(";"))}
        assert separability(words["tau"], words["flip"]) == pytest.approx(float(row["value"]), rel=1e-9)
    assert separability(0, 0) == np.inf
    assert separability(0, 0.5 - 1e-9) == pytest.approx(2, rel=1e-6)  # labels that say nothing: Cover's 2
    np.testing.assert_allclose(
        separability([[0], [1]], [0.1, 0.2]), [[separability(t, f) for f in (0.1, 0.2)] for t in (0, 1)]
    )


ELL = {
    "logistic": (lambda z: -log_expit(z), lambda u, V: brentq(lambda p: p - V * expit(-p) - u, u, u + V, xtol=1e-14)),
    "hinge": (lambda z: max(0.0, 1 - z), lambda u, V: u + V if u < 1 - V else max(u, 1.0)),
    "square": (lambda z: 0.5 * (1 - z) ** 2, lambda u, V: (u + V) / (1 + V)),
    "margin": (lambda z: 0.0, lambda u, V: max(u, 1.0)),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_equations_hold_under_adaptive_quadrature(loss):
    α, λ, k, c, r2, τ, f = 1.3, 0.07, 0.6, 4.0, 0.3, 0.4, 0.06
    x = classify(α, [c], [r2], loss=loss, ridge=λ, bulk=k, tau=τ, flips=f)
    V, m, q = float(x.V), float(x.overlap), float(x.norm2)
    slope = 1 / np.sqrt(1 + τ**2)
    g0, s = (1 - 2 * f) * slope * np.sqrt(2 / np.pi), np.sqrt(q - (slope * m) ** 2)
    ell, prox = ELL[loss]

    def g(u):
        return (prox(u, V) - u) / V

    def p(u):
        z = u / np.sqrt(q)
        return 2 * np.exp(-z * z / 2) / np.sqrt(2 * np.pi * q) * (f + (1 - 2 * f) * ndtr(slope * m * z / s))

    def mean(function, density=p, width=q**0.5):
        edges = sorted({-10 * width, *(e for e in (1 - V, 0.0, 1.0) if abs(e) < 10 * width), 10 * width})
        return sum(
            quad(lambda u: function(u) * density(u), a, b, epsabs=1e-12, limit=200)[0]
            for a, b in itertools.pairwise(edges)
        )

    mhat = α * g0 * mean(g, lambda u: np.exp(-0.5 * (u / s) ** 2) / s / np.sqrt(2 * np.pi), s)
    vhat = -α * mean(lambda u: (g(u + 1e-5) - g(u - 1e-5)) / 2e-5)
    qhat = α * mean(lambda u: g(u) ** 2)
    pull = 1.0 if loss == "margin" else α * λ
    G, w = np.array([e / (vhat * e + pull) for e in (k, k + c)]), np.array([1 - r2, r2])
    assert G[0] == pytest.approx(V, rel=2e-5)  # the derivative of g is a difference across its corners
    assert mhat * (w @ G) == pytest.approx(m, rel=2e-5)
    spread = mhat**2 * (w @ G**2 - (w @ G) ** 2) + qhat * G[0] ** 2
    assert spread == pytest.approx(q - m**2, rel=5e-5)
    assert mean(lambda u: ell(prox(u, V))) == pytest.approx(float(x.train_loss), abs=1e-9)
    assert mean(lambda u: -log_expit(u)) == pytest.approx(float(x.log_loss), abs=1e-9)
    assert mean(lambda u: (1 - u) ** 2) == pytest.approx(float(x.square_loss), abs=1e-8)
    assert mean(lambda u: float(u < 0)) == pytest.approx(float(x.noisy_error), abs=1e-9)
    if loss == "margin":
        theta2 = mhat**2 * (w @ (G**2 / [k, k + c])) + qhat * G[0] ** 2 / k
        assert float(x.margin) == pytest.approx(theta2**-0.5, rel=2e-5)


@pytest.mark.parametrize("loss", ["square", "logistic", "hinge", "margin"])
@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_a_direction_without_features_is_label_noise(loss, ridge):
    """A spike of -bulk hides the teacher's part along it, r²: the rest, of length one, has labels with that noise."""
    r2, alpha, rest = 0.3, np.array([0.5, 1.3, 3.0, 10.0]), {"loss": loss, "ridge": ridge}
    for tau, flips in ((0.0, 0.0), (0.5, 0.1)):
        found = classify(alpha, [-1.0], [r2], tau=tau, flips=flips, **rest)
        noise = np.sqrt((tau**2 + r2) / (1 - r2))
        seen = classify(alpha, tau=noise, flips=flips, **rest)
        np.testing.assert_array_equal(found.status, seen.status)
        np.testing.assert_allclose(found.threshold, separability(noise, flips), rtol=1e-9)
        np.testing.assert_allclose(found.noisy_error, seen.noisy_error, rtol=1e-9)
        np.testing.assert_allclose(found.margin, seen.margin, rtol=1e-9)
        solved = np.isfinite(seen.norm2) & (seen.status == Status.CONVERGED)
        m, q = np.sqrt(1 - r2) * seen.overlap[solved], seen.norm2[solved]
        np.testing.assert_allclose(found.error[solved], np.arccos(m / np.sqrt(q)) / np.pi, rtol=1e-9)


def grid(n=300, seed=3):
    """Return random points of all kinds: two spikes, noise and flips in half of them."""
    g = np.random.default_rng(seed)
    r = g.standard_normal((n, 3))
    r2 = (r / np.linalg.norm(r, axis=1, keepdims=True)) ** 2
    spikes = 10 ** g.uniform(-1, 3, (2, n))
    rest = {"ridge": 10 ** g.uniform(-6, 2, n), "bulk": 10 ** g.uniform(-2, 0.5, n)}
    rest |= {"tau": g.integers(0, 2, n) * g.uniform(0, 2, n), "flips": g.integers(0, 2, n) * g.uniform(0, 0.4, n)}
    return (10 ** g.uniform(-1.5, 2, n), list(spikes), list(r2.T[:2])), rest


@pytest.mark.parametrize("loss", ["logistic", "hinge", "margin"])
def test_every_random_point_is_solved(loss):
    points, rest = grid()
    found = classify(*points, loss=loss, **rest)
    beyond = points[0] >= separability(rest["tau"], rest["flips"])
    expected = np.where(beyond & (loss == "margin"), Status.INSEPARABLE, Status.CONVERGED)
    np.testing.assert_array_equal(found.status, expected)
    assert np.nanmax(found.residual) <= 1e-10
    solved = found.status == Status.CONVERGED
    assert np.all((found.error[solved] > 0) & (found.error[solved] < 0.5))
    assert np.isnan(found.error[~solved]).all()


def test_square_is_ridge_regression_on_noisy_labels():
    (alpha, spikes, r2), rest = grid(100)
    x = classify(alpha, spikes, r2, loss="square", **rest)
    g0 = (1 - 2 * rest["flips"]) / np.sqrt(1 + rest["tau"] ** 2) * np.sqrt(2 / np.pi)
    noise = np.sqrt(1 - g0**2)
    ridge = finetune(alpha, spikes, r2, sigma2=noise / g0, ridge=rest["ridge"], bulk=rest["bulk"])
    np.testing.assert_allclose(x.square_loss, g0**2 * ridge.loss + noise**2, rtol=1e-10)
    np.testing.assert_allclose(2 * x.train_loss, g0**2 * ridge.train_loss, rtol=1e-10)


@pytest.mark.parametrize("loss", ["logistic", "square", "hinge"])
def test_large_ridge_is_hebbs_rule(loss):
    k, c, r2, α, f = 0.7, np.array([5.0, 2.0]), np.array([0.3, 0.2]), 1.5, 0.1
    x = classify(α, list(c), list(r2), loss=loss, ridge=1e7, bulk=k, flips=f)
    g0, s = 0.8 * np.sqrt(2 / np.pi), k + c
    mean, square = k * (1 - r2.sum()) + s @ r2, k**2 * (1 - r2.sum()) + s**2 @ r2
    assert np.cos(np.pi * x.error) == pytest.approx(mean / np.sqrt(square + k**2 / (α * g0**2)), abs=1e-6)


def test_hinge_becomes_the_maximum_margin():
    kwargs = {"bulk": 1.0, "flips": [0.0, 0.1], "tau": 0.0}
    soft = classify([0.5, 1.0], [5.0], [0.36], loss="hinge", ridge=1e-5, **kwargs)
    none = classify([0.5, 1.0], [5.0], [0.36], loss="hinge", **kwargs)
    hard = classify([0.5, 1.0], [5.0], [0.36], loss="margin", **kwargs)
    np.testing.assert_allclose(soft.error, hard.error, atol=1e-10)
    np.testing.assert_array_equal(none.error, hard.error)
    logistic = classify([0.5, 1.0], [5.0], [0.36], loss="logistic", **kwargs)
    np.testing.assert_array_equal(logistic.error, hard.error)
    assert np.isinf(logistic.norm2).all()


@pytest.mark.parametrize("loss", ["logistic", "hinge"])
def test_above_the_threshold_the_kernel_drops_out(loss):
    λ = np.array([2e-5, 1e-5, 0.0])
    gain = [
        classify(5.0, loss=loss, ridge=x, flips=0.1).error
        - classify(5.0, [3.0], [0.4], loss=loss, ridge=x, flips=0.1).error
        for x in λ
    ]
    if loss == "logistic":
        assert gain[0] == pytest.approx(2 * gain[1], rel=1e-2)
        assert abs(gain[1]) > 1e-7
    assert gain[2] == pytest.approx(0, abs=1e-9)


def test_tiny_ridges_of_many_samples():
    ridge = np.array([1e-6, 1e-8, 1e-9])
    for loss in ("hinge", "logistic"):
        x = classify(1000.0, loss=loss, ridge=ridge)
        assert np.all(x.status == Status.CONVERGED)
        assert np.all(np.diff(x.error) < 0)


def test_many_samples_separate_without_noise():
    alpha = np.array([10.0, 100.0, 1000.0])
    np.testing.assert_allclose(alpha * classify(alpha, loss="margin").error, [0.49183, 0.50040, 0.50049], atol=6e-6)


def test_a_dying_bulk():
    k = np.array([1e-2, 1e-3, 1e-4, 0.0])
    x = classify(0.7, [4.0], [0.36], ridge=0.01, bulk=k)
    np.testing.assert_allclose(x.error - np.arccos(0.6) / np.pi, [-0.043, -0.0077, -0.00082, 0], atol=6e-4)
    assert x.error[-1] == pytest.approx(np.arccos(0.6) / np.pi, abs=1e-14)
    assert classify(3.0, [4.0], [0.36], ridge=0.01, bulk=0.0).norm2 == pytest.approx(x.norm2[-1], rel=1e-10)
    assert classify(0.7, [4.0], [0.36], bulk=0.0, loss="margin").status == Status.INSEPARABLE
    nothing = classify(0.7, ridge=0.1, bulk=0.0)
    assert (nothing.error, nothing.log_loss) == (0.5, np.log(2))


def test_only_the_subspace_of_equal_spikes_matters():
    one = classify(1.0, [4.0, 4.0], [0.5, 0.1], ridge=0.1)
    other = classify(1.0, [4.0, 4.0], [0.2, 0.4], ridge=0.1)
    single = classify(1.0, [4.0], [0.6], ridge=0.1)
    assert one.error == pytest.approx(other.error, abs=1e-10)
    assert one.error == pytest.approx(single.error, abs=1e-10)


def test_spikes_without_strength_do_nothing_and_infinite_ones_are_a_limit():
    bare = classify(1.0, ridge=0.1).error
    assert classify(1.0, [0.0], [0.6], ridge=0.1).error == pytest.approx(bare, abs=1e-11)
    for loss in LOSSES:
        limit, near = (classify(1.0, [c], [0.6], ridge=0.1, loss=loss).error for c in (np.inf, 1e9))
        assert limit == pytest.approx(near, abs=1e-8)


def test_shapes_and_order_do_not_matter():
    (alpha, spikes, r2), rest = grid(20)
    whole = classify(alpha, spikes, r2, **rest).error
    for i in (0, 7, 19):
        here = {name: values[i] for name, values in rest.items()}
        alone = classify(alpha[i], [c[i] for c in spikes], [r[i] for r in r2], **here).error
        assert alone == pytest.approx(whole[i], abs=1e-9)
    table = classify(alpha[:, None], [1.0], [0.5], ridge=[0.1, 0.1, 1.0])
    assert table.error.shape == (20, 3)
    np.testing.assert_array_equal(table.error[:, 0], table.error[:, 1])


def test_the_interpolation_threshold_of_the_square_loss():
    x = classify([0.999, 1.0, 1.001], [3.0], [0.4], loss="square")
    assert x.status.tolist() == [Status.CONVERGED, Status.DIVERGED, Status.CONVERGED]
    assert x.error[1] == 0.5
    assert np.isinf(x.norm2[1])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"flips": 0.5}, "flips = 0.5 is not allowed"),
        ({"flips": -0.1}, "flips = -0.1 is not allowed"),
        ({"alpha2": 0}, "alpha2 = 0"),
        ({"alpha2": np.inf}, "alpha2 = inf has no classification theory"),
        ({"ridge": -1}, "ridge = -1"),
        ({"tau": np.nan}, "tau = nan"),
        ({"bulk": 0.5, "spikes": [-0.6], "overlaps2": [0.1]}, "a spike of -0.6 on a bulk of 0.5"),
        ({"bulk": 0, "spikes": [1, 2], "overlaps2": [0.1, 0.2]}, "a bulk of 0 with several spikes"),
    ],
)
def test_bad_input(kwargs, message):
    with pytest.raises(DomainError, match=message):
        classify(**{"alpha2": 1.0, **kwargs})


@pytest.mark.parametrize("loss", LOSSES)
def test_ordinary_points_need_no_silence(loss, monkeypatch):
    monkeypatch.setattr(saddle, "step", saddle.step.__wrapped__)
    rng = np.random.default_rng(4)
    α, k, c, r2, τ = rng.choice(
        [[0.05, 0.5, 1.0, 3], [0.1, 1.0, 1, 5], [0, 0.5, 3, 20], [0, 0.3, 0.9, 1], [0, 0, 0.2, 1]], 60, axis=1
    )
    λ = 0.0 if loss == "margin" else rng.choice([0.0, 1e-3, 0.1, 2.0], 60)
    with np.errstate(all="raise", under="ignore"):
        found = classify.__wrapped__(α, [c], [r2], loss=loss, ridge=λ, bulk=k, tau=τ, flips=rng.choice([0, 0.1], 60))
    assert np.isin(found.status, (Status.CONVERGED, Status.DIVERGED, Status.INSEPARABLE)).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_inputs_at_the_ends_of_the_floats_do_not_warn_and_no_nan_is_a_number(loss, monkeypatch):
    for module, name in ((margin, "_MOST"), (saddle, "_STAGES"), (saddle, "_PATIENCE")):
        monkeypatch.setattr(module, name, 3)  # many of them have no solution: time is not spent on it
    rng = np.random.default_rng(6)
    ends = [5e-324, 1e-300, 1e-160, 1e-8, 1.0, 1e8, 1e160, 1e300, 1.7e308]
    α, k, c = (rng.choice(ends, 40) for _ in range(3))
    λ = 0.0 if loss == "margin" else rng.choice([0.0, *ends], 40)
    more = {"tau": rng.choice([0.0, *ends[:6]], 40), "flips": rng.choice([0, 0.1, 0.49], 40)}
    found = classify(α, [c], [rng.choice([0, 1e-300, 0.3, 1], 40)], loss=loss, ridge=λ, bulk=k, **more)
    solved = found.status == Status.CONVERGED
    assert solved.sum() > 5
    for name in ("overlap", "norm2", "V", "error", "noisy_error", "train_loss", "train_error"):
        assert not np.isnan(getattr(found, name)[solved]).any(), name
    assert np.isnan(found.error[found.status == Status.NOT_CONVERGED]).all()
    assert ((found.error >= 0) & (found.error <= 0.5))[solved].all()


@pytest.mark.parametrize("loss", ["margin", "logistic", "hinge"])
@pytest.mark.parametrize("bulk", [1e-120, 2.65e-261, 5e-324])
def test_without_ridge_only_the_ratio_of_spike_and_bulk_matters(loss, bulk):
    """A bulk that weight decay has left of 1e-261 is the limit of an infinite spike, with a margin of its own unit."""
    kwargs = {"loss": loss, "tau": 0.2, "ridge": 0.0}
    found = classify(0.5, [1.0], [0.2], bulk=bulk, **kwargs)
    limit = classify(0.5, [np.inf], [0.2], bulk=1.0, **kwargs)
    assert found.status == Status.CONVERGED
    assert float(found.error) == pytest.approx(float(limit.error), rel=1e-12)
    if loss == "margin":
        assert float(found.margin) == pytest.approx(float(limit.margin) * np.sqrt(bulk), rel=1e-6)
