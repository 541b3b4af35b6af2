"""Linear networks with any loss: reference cases, brute-force integrals, identities, certificate and refusals."""

import numpy as np
import pytest

from tests.bayes.loss_problems import PARAMETERS, agrees, case_of, objective, signs_of_a
from tests.bayes.problems import SETTINGS, problem_a
from tlcli.bayes.likelihood import Likelihood, maximise, primal_gap
from tlcli.bayes.linear import linear_source, linear_target
from tlcli.bayes.linear_losses import _Measure, bracketed, linear_loss_source, linear_loss_target
from tlcli.errors import DomainError

LOSSES = [("logistic", 0.0), ("logistic", 0.3), ("hinge2", 0.0), ("huber:0.5", 0.0), ("softmax", 0.0), ("softmax", 0.2)]


def solve(p, first, second, gamma1, beta1, gamma2, beta2, delta):
    source = linear_loss_source(p.x, p.source, first, gamma1, beta1)
    return source, linear_loss_target(p.x, p.target, second, gamma2, beta2, delta, source)


# ---------------------------------------------------------------------------------------------- reference values


@pytest.mark.parametrize("case", ["B1", "B2", "B2s", "B2m", "B5"])
def test_reference_cases(case):
    p, first, second = case_of(case)
    source, target = (
        solve(p, first, second or first, **PARAMETERS[case])
        if second
        else (
            linear_loss_source(p.x, p.source, first, PARAMETERS[case]["gamma1"], PARAMETERS[case]["beta1"]),
            None,
        )
    )
    assert source.converged
    agrees(case, 1, source, p, p.source)
    if target is not None:
        assert target.converged
        agrees(case, 2, target, p, p.target)


@pytest.mark.parametrize("case", ["A1", "A2"])
def test_the_squared_error_is_that_of_its_own_solver(case):
    p, s = problem_a(), SETTINGS[case]
    source, target = solve(p, objective("mse", p.y1, None), objective("mse", p.y2, None), **s)
    other = linear_source(p.x, p.source, p.y1, s["gamma1"], s["beta1"])
    tied = linear_target(p.x, p.target, p.y2, s["gamma2"], s["beta2"], s["delta"], other)
    for found, expected in ((source, other), (target, tied)):
        for name in ("v", "outputs", "kernel", "free_energy"):
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-9, atol=1e-11)
        assert found.info["q"] == pytest.approx(expected.info["q"], rel=1e-10)
        assert found.info["u"] == pytest.approx(expected.info["u"], rel=1e-10)


# --------------------------------------------------------------- brute force: integrals over weights in two dimensions


def grid_of_weights():
    axis = np.arange(-9.0, 9.01, 0.15)
    return np.stack([g.ravel() for g in np.meshgrid(axis, axis)], axis=1), 0.15**2


def tilted(w, cell, features, v, gamma, mean, precision):
    """log Z of N(w; mean, 1/precision) exp(½γ²Σ_c (v_c·h)²), and the probabilities of the nodes."""
    exponent = -0.5 * precision * np.sum((w - mean) ** 2, axis=1) + 0.5 * gamma**2 * np.sum((features @ v) ** 2, axis=1)
    weight = np.exp(exponent) * cell * precision / (2 * np.pi)
    return np.log(weight.sum()), weight / weight.sum()


@pytest.fixture(scope="module")
def planar():
    rng = np.random.default_rng(5)
    b1, b2 = 0.7 * rng.standard_normal((3, 2)), 0.7 * rng.standard_normal((4, 2))
    v1, v2 = 0.25 * rng.standard_normal((3, 2)), 0.3 * rng.standard_normal((4, 2))
    return b1, b2, v1, v2


def test_moments_of_the_source_are_integrals(planar):
    b, _, v, _ = planar
    w, cell = grid_of_weights()
    found = _Measure(b @ b.T, None, 1.2**2, 0.0).moments(v)
    assert found is not None
    log_z, p = tilted(w, cell, w @ b.T, v, 1.2, 0.0, 1.0)
    kernel = (w @ b.T).T @ (p[:, None] * (w @ b.T))
    assert found.log_z == pytest.approx(log_z / 1.2**2, rel=1e-10)
    np.testing.assert_allclose(found.pull, kernel @ v, rtol=1e-9)
    assert not np.allclose(found.pull, b @ b.T @ v, rtol=0.05), "the tilt matters"


def test_moments_of_the_target_are_integrals_over_the_source(planar):
    b1, b2, v1, v2 = planar
    gamma1, gamma2, delta = 1.2, 0.9, 0.8
    w, cell = grid_of_weights()
    _, p1 = tilted(w, cell, w @ b1.T, v1, gamma1, 0.0, 1.0)
    covariance = w.T @ (p1[:, None] * w)
    before, alpha = b2 @ covariance @ b2.T, delta / (1 + delta)
    found = _Measure(b2 @ b2.T / (1 + delta), before, gamma2**2, alpha**2).moments(v2)
    assert found is not None
    # The source's measure of a linear network is Gaussian: nine Gauss-Hermite nodes in each direction are exact here.
    x, weight = np.polynomial.hermite_e.hermegauss(9)
    root = np.linalg.cholesky(covariance)
    log_z, pull = 0.0, 0.0
    for i, one in enumerate(x):
        for j, other in enumerate(x):
            share = weight[i] * weight[j] / (2 * np.pi)
            mean = alpha * root @ [one, other]
            z, p = tilted(w, cell, w @ b2.T, v2, gamma2, mean, 1 + delta)
            log_z += share * z
            pull += share * (w @ b2.T).T @ (p[:, None] * (w @ b2.T)) @ v2
    assert found.log_z == pytest.approx(log_z / gamma2**2, rel=1e-9)
    np.testing.assert_allclose(found.pull, pull, rtol=1e-8)
    uncoupled = _Measure(b2 @ b2.T / (1 + delta), before, gamma2**2, alpha**2 / 2).moments(v2)
    assert uncoupled is not None
    assert not np.allclose(uncoupled.pull, pull, rtol=1e-2), "a wrong weight of the source is seen"


def test_the_slope_is_the_derivative_of_the_pull_and_the_pull_that_of_log_z(planar):
    b1, b2, v1, v2 = planar
    for measure, v in (
        (_Measure(b1 @ b1.T, None, 1.44, 0.0), v1),
        (_Measure(b2 @ b2.T / 1.8, b2 @ np.array([[2.0, 0.3], [0.3, 1.2]]) @ b2.T, 0.81, 0.2), v2),
    ):
        found = measure.moments(v)
        step = 1e-5
        for at in np.ndindex(v.shape):
            d = np.zeros_like(v)
            d[at] = step
            ahead, behind = measure.moments(v + d), measure.moments(v - d)
            assert found is not None
            assert ahead is not None
            assert behind is not None
            slope = (ahead.pull - behind.pull).ravel() / (2 * step)
            np.testing.assert_allclose(
                found.slope.reshape(v.size, v.size)[:, np.ravel_multi_index(at, v.shape)], slope, atol=1e-8
            )
            assert (ahead.log_z - behind.log_z) / (2 * step) == pytest.approx(found.pull[at], abs=1e-9)


# -------------------------------------------------------------------------------------------- identities and limits


def test_softmax_of_two_classes_is_logistic():
    """Logistic at γ/√2 and 2β has the same free energy, and f = f₁ - f₂."""
    p, y1, y2 = signs_of_a()
    classes = [np.where(y > 0, 0, 1) for y in (y1, y2)]  # one-hot rows: +1 is the first class
    first, second = (objective("softmax", np.eye(2)[c], None) for c in classes)
    one = solve(p, objective("logistic", y1), objective("logistic", y2), 1.5, 4, 1.1, 3, 0.7)
    two = solve(p, first, second, 1.5 * np.sqrt(2), 2, 1.1 * np.sqrt(2), 1.5, 0.7)
    for logistic, softmax in zip(one, two, strict=True):
        assert softmax.free_energy == pytest.approx(logistic.free_energy, rel=1e-11)
        difference = softmax.outputs[:, 0] - softmax.outputs[:, 1]
        np.testing.assert_allclose(difference, logistic.outputs, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(softmax.kernel, logistic.kernel, rtol=1e-9, atol=1e-11)
    wrong = solve(p, first, second, 1.5 * np.sqrt(2), 4, 1.1 * np.sqrt(2), 3, 0.7)[0]
    assert wrong.free_energy != pytest.approx(one[0].free_energy, rel=1e-2)


def test_a_weak_tilt_is_kernel_logistic_regression_to_second_order():
    p, y, _ = signs_of_a()
    lazy = linear_loss_source(p.x, p.source, objective("logistic", y), 0.0, 4)
    away = [
        np.abs(linear_loss_source(p.x, p.source, objective("logistic", y), g, 4).outputs - lazy.outputs).max()
        for g in (0.03, 0.01)
    ]
    assert away[0] / away[1] == pytest.approx(9, rel=0.05)
    assert lazy.free_energy == 0


def test_no_coupling_is_the_target_alone_and_an_infinite_one_the_kernel_of_the_source():
    p, _, y2 = signs_of_a()
    alone = linear_loss_source(p.x, p.target, objective("logistic", y2), 1.2, 3)
    source, loose = solve(
        p, objective("softmax", (0, 1, 2, 0, 1, 2), 3), objective("logistic", y2), 1.5, 4, 1.2, 3, 1e-9
    )
    np.testing.assert_allclose(loose.outputs, alone.outputs, rtol=1e-7)
    tied = linear_loss_target(p.x, p.target, objective("logistic", y2), 1.2, 3, np.inf, source)
    np.testing.assert_allclose(tied.kernel, source.kernel, rtol=1e-12)
    held = Likelihood(objective("logistic", y2), 3)
    f = held.objective.inverse(tied.v / 3)
    np.testing.assert_allclose(source.kernel[np.ix_(p.target, p.target)] @ tied.v, f, rtol=1e-9)


@pytest.mark.parametrize(("gamma", "beta"), [(0.5, 1.0), (3.0, 10.0), (30.0, 1e4), (100.0, 1e3)])
def test_newton_and_the_bracketed_scalar_agree(gamma, beta):
    p, y, _ = signs_of_a()
    likelihood = Likelihood(objective("logistic", y), beta)
    b = p.x[p.source] / np.sqrt(8)
    measure = _Measure(b @ b.T, None, gamma**2, 0.0)
    newton = maximise(measure.moments, likelihood)
    scalar = bracketed(measure, likelihood, type(newton)(newton.f, newton.v, 0.0, np.inf, 0))
    assert scalar.error < 1e-10
    if newton.error < 1e-10:
        np.testing.assert_allclose(scalar.f, newton.f, rtol=1e-9)
    assert linear_loss_source(p.x, p.source, objective("logistic", y), gamma, beta).converged


@pytest.mark.parametrize(("loss", "smoothing"), LOSSES)
@pytest.mark.parametrize("gamma", [0.0, 0.3, 3.0, 30.0])
def test_every_loss_is_solved_from_lazy_to_rich(loss, smoothing, gamma):
    p, y1, y2 = signs_of_a()
    classes = 3 if loss == "softmax" else 2
    labels = ((0, 1, 2, 0, 1, 2), (2, 0, 1, 0, 0)) if loss == "softmax" else (y1, y2)
    first, second = (objective(loss, y, None if "huber" in loss else classes, smoothing) for y in labels)
    for beta in (0.1, 10.0, 1e3):
        for found in solve(p, first, second, gamma, beta, gamma, beta, 0.7):
            assert found.converged, (beta, found.message)
            assert found.info["residual"] < 1e-9


def test_weights_multiply_beta():
    """A class of weight ω has v = βωΔ."""
    p, y, _ = signs_of_a()
    plain = linear_loss_source(p.x, p.source, objective("logistic", y), 1.5, 4)
    weighted = linear_loss_source(p.x, p.source, objective("logistic", y, weights="2,1"), 1.5, 4)
    omega = np.where(y > 0, 2.0, 1.0)
    omega /= omega.mean()
    likelihood = Likelihood(objective("logistic", y), 1.0)
    f = weighted.outputs[p.source]
    np.testing.assert_allclose(weighted.v, 4 * omega * likelihood.objective.force(f), rtol=1e-10)
    assert not np.allclose(weighted.v, plain.v, rtol=0.05)


# -------------------------------------------------------------------------------------------- certificate


@pytest.mark.parametrize(("loss", "smoothing"), LOSSES)
def test_the_gap_bounds_the_distance_from_the_saddle(loss, smoothing):
    """primal - dual >= F - D(v) >= (γ²/2βL)|v - v*|² at any v, and the bound without an inner solution is above it."""
    p, y, _ = signs_of_a()
    labels = (0, 1, 2, 0, 1, 2) if loss == "softmax" else y
    goal = objective(loss, labels, 3 if loss == "softmax" else None if "huber" in loss else 2, smoothing)
    likelihood, gamma = Likelihood(goal, 4.0), 0.8
    b = p.x[p.source] / np.sqrt(8)
    measure = _Measure(b @ b.T, None, gamma**2, 0.0)
    best = maximise(measure.moments, likelihood)
    rng = np.random.default_rng(0)
    seen = 0
    for _ in range(8):
        f = best.f + 0.06 * rng.standard_normal(best.f.shape)
        v = likelihood.dual(f)
        found = measure.moments(v)
        if found is None:
            continue
        seen += 1
        parameters = measure.order_parameters(v)
        assert parameters is not None
        a = measure.ct @ v
        kernel = measure.ct + gamma**2 * a @ parameters[1] @ a.T
        gap = primal_gap(likelihood, kernel, f, v, gamma)
        below = gamma**2 * (best.value - likelihood.fit(f, v) + found.log_z)
        assert gap >= below - 1e-10
        assert gamma**2 * likelihood.gap(f, found.pull) >= gap - 1e-10
        assert below >= gamma**2 / (2 * 4.0 * goal.loss.smoothness) * np.sum((v - best.v) ** 2) - 1e-10
        assert gap > 1e-7
        conjugate = -4.0 * goal.conjugate(v[:, 0] / 4.0 if goal.readouts is None else goal.outputs(v) / 4.0)
        assert likelihood.fit(f, v) == pytest.approx(conjugate, rel=1e-9)
    assert seen >= 4
    final = primal_gap(likelihood, measure.ct, best.f, best.v, 0.0)
    assert final == 0


@pytest.mark.parametrize(("text", "beta"), [("huber:9", 1e8), ("huber:9", 1e11), ("hinge2", 1e9), ("mse", 1e9)])
def test_nearly_no_noise_keeps_the_digits_of_quadratic_losses(text, beta):
    """At v/β = 1e-9 and below they are the squared error, whose own solver knows v = (Φ + I/β)⁻¹y; from y - f it would
    have lost all digits but the first few."""
    p = problem_a()
    y = np.array([1.0, -1, 1, 1, -1])  # five points in eight dimensions: all are fitted
    gram = p.x[p.target] @ p.x[p.target].T / 8
    y = np.sign(gram @ y) if text == "hinge2" else y
    exact = linear_source(p.x, p.target, y, 0.5, beta)
    found = linear_loss_source(p.x, p.target, objective(text, y, 2 if text == "hinge2" else None), 0.5, beta)
    assert found.converged, found.message
    if text != "hinge2" or np.all(exact.v * y > 0):
        np.testing.assert_allclose(found.v, exact.v, rtol=1e-8, atol=1e-10)
        assert found.free_energy == pytest.approx(exact.free_energy, rel=1e-9)
    lost = beta * (y - found.outputs[p.target])
    assert np.abs(lost / found.v - 1).max() > 1e-9, "the outputs do not have these digits"


# -------------------------------------------------------------------------------------------- refusals


def test_refusals_are_one_sentence():
    p, y, _ = signs_of_a()
    with pytest.raises(DomainError, match=r"beta = inf: logistic has no posterior without noise \(labels that"):
        linear_loss_source(p.x, p.source, objective("logistic", y), 1.0, np.inf)
    with pytest.raises(DomainError, match="beta = inf: hinge2 has no posterior without noise"):
        linear_loss_source(p.x, p.source, objective("hinge2", y), 1.0, np.inf)
    with pytest.raises(DomainError, match="several outputs, or a source of another loss, need a finite beta"):
        linear_loss_source(p.x, p.source, objective("mse", np.eye(3)[[0, 1, 2, 0, 1, 2]], None), 1.0, np.inf)
    with pytest.raises(DomainError, match="gamma = -1 is outside its range"):
        linear_loss_source(p.x, p.source, objective("logistic", y), -1.0, 1.0)
    many = objective("softmax", np.tile([0, 1, 2, 3, 4, 5], 217)[:1300], 6)
    with pytest.raises(DomainError, match="6500 unknowns: at most 6000"):
        linear_loss_source(np.ones((1300, 2)), np.arange(1300), many, 1.0, 1.0)
    source = linear_loss_source(p.x, p.source, objective("logistic", y), 1.0, 1.0)
    with pytest.raises(DomainError, match="source has 14 points, the target 13"):
        linear_loss_target(p.x[:-1], p.target, objective("logistic", np.ones(5)), 1.0, 1.0, 1.0, source)


def test_a_bracket_that_is_all_rounding_is_given_up(monkeypatch):
    p, y, _ = signs_of_a()
    likelihood, b = Likelihood(objective("logistic", y), 10.0), p.x[p.source] / np.sqrt(8)
    measure = _Measure(b @ b.T, None, 9.0, 0.0)
    other = maximise(measure.moments, likelihood)
    monkeypatch.setattr("tlcli.bayes.linear_losses._LARGEST_LOG_Q", 1.5)  # q is e^3.6 here
    assert bracketed(measure, likelihood, other) is other
