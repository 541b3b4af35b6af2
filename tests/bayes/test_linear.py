"""Linear networks: problem A, brute-force matrix equations in weight space, limits, certificate, errors."""

from dataclasses import replace

import numpy as np
import pytest

from tests.bayes.problems import SETTINGS, problem_a, values_of
from tlcli.bayes.linear import dual, linear_source, linear_target, primal, same_inputs_note
from tlcli.bayes.saddle import check_consistent, mean_weight
from tlcli.errors import DomainError, UsageError

INF = np.inf


def solve(x, rows1, rows2, y1, y2, gamma1, beta1, gamma2, beta2, delta, method="auto"):
    source = linear_source(x, rows1, y1, gamma1, beta1)
    return source, linear_target(x, rows2, y2, gamma2, beta2, delta, source, method)


# ---------------------------------------------------------------------------------------------- reference values


@pytest.mark.parametrize("case", ["A1", "A2"])
def test_problem_a(case):
    p, s = problem_a(), SETTINGS[case]
    source, target = solve(p.x, p.source, p.target, p.y1, p.y2, **s)
    first, second = p.target[0], p.test[0]
    measured = {
        "q1": source.info["q"],
        "F1": source.free_energy,
        "v1": source.v,
        "Phibar": source.kernel[first, p.target],
        "q2": target.info["q"],
        "u2": target.info["u"],
        "F2": target.free_energy,
        "v2": target.v,
        "K_row": target.kernel[second, p.target],
        "K_00": target.kernel[second, second],
        "f_source": source.outputs[p.test],
        "f_target": target.outputs[p.test],
        "test_loss": np.mean((target.outputs[p.test] - p.y_test) ** 2),
    }
    assert source.converged
    assert target.converged
    for name, value in measured.items():
        np.testing.assert_allclose(np.atleast_1d(value), values_of("linear", case, name), rtol=1e-8, atol=1e-10)


# ------------------------------------------------------------------- matrix equations, built in the space of weights


def weight_space(x, rows1, rows2, gamma1, gamma2, delta, v1, v2):
    """(source covariance, target covariance, target gain) of w (D, D), and B = x/sqrt(D), from v1 and v2 alone."""
    B, identity = x / np.sqrt(x.shape[1]), np.eye(x.shape[1])
    a, b = B[rows1].T @ v1, B[rows2].T @ v2
    source = np.linalg.inv(identity - gamma1**2 * np.outer(a, a))
    gain = np.linalg.inv((1 + delta) * identity - gamma2**2 * np.outer(b, b))
    return source, gain + delta**2 * gain @ source @ gain, gain, B


def divergence(covariance, prior, shift=0.0):
    """KL of N(mean, covariance) from N(mean', prior I), the squared distance of means averaged to `shift`."""
    dimension = len(covariance)
    logdet = np.linalg.slogdet(covariance / prior)[1]
    return 0.5 * (np.trace(covariance) / prior - dimension - logdet + shift / prior)


def brute_error(x, rows1, rows2, y1, y2, gamma1, beta1, gamma2, beta2, delta, source, target):
    """Largest relative error of both solutions in the matrix equations of section 1, linear phi."""
    S, T, gain, B = weight_space(x, rows1, rows2, gamma1, gamma2, delta, source.v, target.v)
    errors, drift = [], delta * gain - delta / (1 + delta) * np.eye(x.shape[1])
    for record, covariance, rows, y, gamma, beta, kl in (
        (source, S, rows1, y1, gamma1, beta1, divergence(S, 1.0)),
        (target, T, rows2, y2, gamma2, beta2, divergence(gain, 1 / (1 + delta), np.trace(drift @ S @ drift.T))),
    ):
        kernel = B @ covariance @ B.T
        errors.append(np.max(np.abs(record.kernel - kernel)) / np.max(np.abs(kernel)))
        errors.append(np.max(np.abs(record.outputs - kernel[:, rows] @ record.v)) / np.max(np.abs(record.outputs)))
        rest = y - kernel[np.ix_(rows, rows)] @ record.v - record.v / beta
        errors.append(np.linalg.norm(rest) / np.linalg.norm(y))
        if np.isfinite(beta):
            energy = kl + 0.5 * gamma**2 * y @ np.linalg.solve(kernel[np.ix_(rows, rows)] + np.eye(len(y)) / beta, y)
            errors.append(abs(record.free_energy - energy) / (1 + abs(energy)))
    return max(errors)


def random_problem(k):
    """Problem number k: shared inputs (X2 inside X1), repeated inputs and P > D in turn, some at beta = inf."""
    rng = np.random.default_rng(k)
    p1, p2, dimension = rng.integers(2, 30), rng.integers(2, 30), rng.integers(2, 40)
    x = rng.standard_normal((p1 + p2 + 3, dimension))
    rows1, rows2 = np.arange(p1), np.arange(p1, p1 + p2)
    if k % 3 == 1:
        rows2 = rng.permutation(p1)[: min(p1, p2)]
    if k % 6 == 2:
        x[rows2[0]] = x[rows2[1]]
        x[rows1[0]] = 2 * x[rows1[1]]
    log = lambda low, high: float(np.exp(rng.uniform(np.log(low), np.log(high))))  # noqa: E731
    # Labels that cannot be fitted make v of order beta: its rounding limits the check, not the solver.
    beta1, beta2 = np.minimum([log(0.1, 1e3), log(0.1, 1e3)], 3 if k % 6 == 2 or max(p1, p2) > dimension else INF)
    y1, y2 = log(0.3, 3) * rng.standard_normal(len(rows1)), log(0.3, 3) * rng.standard_normal(len(rows2))
    if k % 5 == 0:  # labels of a teacher, so that beta = inf has an answer
        teachers = rng.standard_normal((2, dimension)) / np.sqrt(dimension)
        beta1, beta2, y1, y2 = INF, INF, x[rows1] @ teachers[0], x[rows2] @ teachers[1]
    return x, rows1, rows2, y1, y2, log(1e-2, 20), beta1, log(1e-2, 20), beta2, log(1e-3, 1e3)


def test_matrix_equations_on_300_random_problems():
    for k in range(300):
        problem = random_problem(k)
        source, target = solve(*problem)
        assert source.converged, (k, source.message)
        assert target.converged, (k, target.message)
        assert brute_error(*problem, source, target) < 1e-10, k


def test_wrong_formulas_fail_the_matrix_equations():
    problem = random_problem(3)
    x, rows1, rows2, y1, y2, gamma1, beta1, gamma2, beta2, delta = problem
    source, target = solve(*problem)
    wrong_coupling = solve(*problem[:-1], 1.05 * delta)[1]
    wrong_richness = solve(x, rows1, rows2, y1, y2, gamma1, beta1, 1.05 * gamma2, beta2, delta)[1]
    wrong_kernel = replace(target, kernel=target.kernel * (1 + 1e-6))
    wrong_energy = replace(target, free_energy=2 * target.free_energy)
    for wrong in (wrong_coupling, wrong_richness, wrong_kernel, wrong_energy):
        assert brute_error(*problem, source, wrong) > 1e-7
    doubled = linear_source(x, rows1, y1, gamma1 * np.sqrt(2), beta1)  # the tilt without its factor 1/2
    assert brute_error(*problem, doubled, target) > 1e-3


def test_schur_form_of_the_source_at_other_inputs():
    p, s = problem_a(), SETTINGS["A1"]
    source = linear_source(p.x, p.source, p.y1, s["gamma1"], s["beta1"])
    C = p.x @ p.x.T / 8
    C11, C21 = C[np.ix_(p.source, p.source)], C[np.ix_(p.target, p.source)]
    inverse = np.linalg.inv(C11)
    trained = np.linalg.inv(inverse - s["gamma1"] ** 2 * np.outer(source.v, source.v))
    expected = C[np.ix_(p.target, p.target)] + C21 @ inverse @ (trained - C11) @ inverse @ C21.T
    np.testing.assert_allclose(source.kernel[np.ix_(p.target, p.target)], expected, rtol=1e-11, atol=1e-12)


# ---------------------------------------------------------------------------------------- solvers against each other


def slow_problem(k):
    """Two competing barriers: delta < 3e-2, gamma2 > 4, beta2 about 1."""
    rng = np.random.default_rng([5, k])
    p1, p2, dimension = rng.integers(2, 60, 3)
    x = rng.standard_normal((p1 + p2, dimension))
    rows1, rows2 = np.arange(p1), np.arange(p1, p1 + p2)
    y1, y2 = rng.standard_normal(p1), rng.standard_normal(p2)
    a = rng.uniform(size=4)
    return x, rows1, rows2, y1, y2, 32 ** a[0], 10.0, 4 * 25 ** a[1], 0.3 * 30 ** a[2], 1e-4 * 300 ** a[3]


def test_newton_and_nested_brackets_agree():
    for k in range(0, 300, 3):
        problem = random_problem(k)
        newton, bracket = (solve(*problem, method=name)[1] for name in ("newton", "bracket"))
        assert newton.info["method"] == "newton"
        assert bracket.info["method"] == "bracket"
        np.testing.assert_allclose(bracket.outputs, newton.outputs, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(bracket.kernel, newton.kernel, rtol=1e-9, atol=1e-11)


def test_slow_newton_falls_back_to_brackets():
    methods = []
    for k in range(100):
        problem = slow_problem(k)
        target = solve(*problem)[1]
        assert target.converged, k
        methods.append(target.info["method"])
        if methods[-1] == "bracket":
            assert brute_error(*problem, *solve(*problem)) < 1e-9
            assert solve(*problem, method="newton")[1].info["iterations"] == 60
    assert 2 <= methods.count("bracket") <= 30


def test_newton_takes_few_steps():
    steps = [solve(*random_problem(k), method="newton")[1].info["iterations"] for k in range(100)]
    assert np.median(steps) <= 8
    assert np.quantile(steps, 0.95) <= 30


# ----------------------------------------------------------------------------------------------------- certificate


def test_gap_identity_and_bounds_at_any_dual_variable():
    p, s, rng = problem_a(), SETTINGS["A1"], np.random.default_rng(2)
    source, target = solve(p.x, p.source, p.target, p.y1, p.y2, **s)
    at = np.ix_(p.target, p.target)
    C, source_gram = (p.x @ p.x.T / 8)[at], source.kernel[at]
    stage = (C, p.y2, s["gamma2"], s["beta2"], s["delta"], source_gram)
    for size in (1e-3, 0.03, 0.2):
        v = target.v + size * rng.standard_normal(5)
        upper, lower = primal(v, *stage), dual(v, *stage)
        _, T, _, B = weight_space(p.x, p.source, p.target, s["gamma1"], s["gamma2"], s["delta"], source.v, v)
        A = (B @ T @ B.T)[at] + np.eye(5) / s["beta2"]
        rest = p.y2 - A @ v
        assert lower < target.free_energy < upper
        assert upper - lower == pytest.approx(0.5 * s["gamma2"] ** 2 * rest @ np.linalg.solve(A, rest), rel=1e-8)
        assert upper - lower >= 0.5 * s["gamma2"] ** 2 / s["beta2"] * np.sum((v - target.v) ** 2)


def test_dual_and_primal_outside_the_domain():
    gram, y = np.eye(2), np.ones(2)
    assert dual(np.array([2.0, 0.0]), gram, y, 1.0, 1.0) == -INF
    assert primal(np.array([2.0, 0.0]), gram, y, 1.0, 1.0) == INF


def test_certificate_refuses_what_round_off_spoils():
    x = np.array([[1.0, 0.0, 1.0], [1.0, 1e-13, 1.0], [0.0, 1.0, 0.0]])
    source = linear_source(x, [0, 1], [1.0, -1.0], 1.0, INF)
    assert not source.converged
    assert "nearly singular" in source.message
    assert linear_source(x, [2], [1.0], 1e5, 1.0).converged
    assert not linear_source(x, [2], [1.0], 1e12, 1.0).converged
    target = linear_target(x, [2], [1.0], 1.0, 1.0, 1.0, source)
    assert not target.converged
    assert "source" in target.message


# ------------------------------------------------------------------------------------------------- limits, identities


def test_no_coupling_is_the_target_alone_and_the_limit_is_continuous():
    x, _, rows2, _, y2, _, _, gamma2, beta2, _ = random_problem(4)
    source, target = solve(*random_problem(4)[:-1], 0.0)
    alone = linear_source(x, rows2, y2, gamma2, beta2)
    close = linear_target(x, rows2, y2, gamma2, beta2, 1e-10, source)
    for name in ("v", "outputs", "kernel", "free_energy"):
        np.testing.assert_allclose(getattr(target, name), getattr(alone, name), rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(getattr(close, name), getattr(alone, name), rtol=1e-7, atol=1e-8)


def test_infinite_coupling_keeps_the_source_kernel():
    x, _, rows2, _, y2, _, _, gamma2, beta2, _ = random_problem(4)
    source, tied = solve(*random_problem(4)[:-1], INF)
    ridge = np.linalg.solve(source.kernel[np.ix_(rows2, rows2)] + np.eye(len(y2)) / beta2, y2)
    np.testing.assert_allclose(tied.kernel, source.kernel, rtol=1e-13)
    np.testing.assert_allclose(tied.v, ridge, rtol=1e-10, atol=1e-12)
    assert tied.info["q"] == 1.0
    assert tied.free_energy == pytest.approx(0.5 * gamma2**2 * y2 @ ridge, rel=1e-12)
    errors = [
        np.max(np.abs(linear_target(x, rows2, y2, gamma2, beta2, d, source).kernel - tied.kernel)) for d in (1e5, 1e6)
    ]
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.02)


def test_lazy_target_is_kernel_ridge_regression():
    x, _, rows2, _, y2, _, _, _, beta2, delta = random_problem(7)
    source = linear_source(x, *(random_problem(7)[i] for i in (1, 3, 5, 6)))
    target = linear_target(x, rows2, y2, 0.0, beta2, delta, source)
    kernel = x @ x.T / x.shape[1] / (1 + delta) + (delta / (1 + delta)) ** 2 * source.kernel
    v = np.linalg.solve(kernel[np.ix_(rows2, rows2)] + np.eye(len(y2)) / beta2, y2)
    np.testing.assert_allclose(target.kernel, kernel, rtol=1e-12)
    np.testing.assert_allclose(target.outputs, kernel[:, rows2] @ v, rtol=1e-10, atol=1e-12)
    assert target.free_energy == 0
    slow = linear_target(x, rows2, y2, 1e-6, beta2, delta, source)
    np.testing.assert_allclose(slow.outputs, target.outputs, rtol=1e-8, atol=1e-10)
    assert slow.free_energy == pytest.approx(0.5e-12 * y2 @ v, rel=1e-8)


def test_same_inputs_change_only_the_shrinkage():
    rng = np.random.default_rng(6)
    x, rows = rng.standard_normal((11, 9)), np.arange(8)
    y1, y2 = rng.standard_normal((2, 8))
    C = x @ x.T / 9
    regression = C[:, rows] @ np.linalg.inv(C[np.ix_(rows, rows)])
    for beta2 in (3.0, INF):
        for gamma1, gamma2, delta in ((0.5, 1.0, 0.1), (3.0, 0.2, 2.0), (2.0, 4.0, INF)):
            _, target = solve(x, rows, rows, y1, y2, gamma1, 5.0, gamma2, beta2, delta)
            np.testing.assert_allclose(target.outputs, regression @ (y2 - target.v / beta2), rtol=1e-9, atol=1e-10)


def spread_over_delta(x, rows1, rows2, y1, y2, beta2):
    outputs = [solve(x, rows1, rows2, y1, y2, 2.0, 5.0, 1.0, beta2, d)[1].outputs[-3:] for d in (0.0, 1.0, 20.0)]
    return np.max(np.ptp(outputs, axis=0))


def test_the_note_appears_where_the_loss_cannot_depend_on_delta_and_only_there():
    rng = np.random.default_rng(8)
    x = rng.standard_normal((15, 9))
    eight, five, others, many = np.arange(8), np.arange(5), np.arange(8, 12), np.arange(12)
    teacher = x @ rng.standard_normal((9, 2)) / 3
    for rows1, rows2, beta2, silent in (
        (eight, eight, INF, False),
        (five, eight, INF, False),  # the source inputs are among those of the target
        (others, many, INF, False),  # the target inputs span all directions
        (eight, five, INF, True),  # a larger source on the same inputs does matter
        (eight, others, INF, True),
        (eight, eight, 10.0, True),
    ):
        note = same_inputs_note(x, rows1, rows2, beta2)
        spread = spread_over_delta(x, rows1, rows2, teacher[rows1, 0], teacher[rows2, 1], beta2)
        assert (note is None) == silent
        assert (spread > 1e-4) if silent else (spread < 1e-9)
    assert "cannot depend on delta" in (same_inputs_note(x, eight, eight, INF) or "")


def test_rotation_order_scale_and_repetition():
    x, rows1, rows2, y1, y2, gamma1, beta1, gamma2, beta2, delta = random_problem(9)
    target = solve(*random_problem(9))[1]
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.standard_normal((x.shape[1],) * 2))[0]
    rotated = solve(x @ turn, rows1, rows2, y1, y2, gamma1, beta1, gamma2, beta2, delta)[1]
    order1, order2 = rng.permutation(len(y1)), rng.permutation(len(y2))
    permuted = solve(x, rows1[order1], rows2[order2], y1[order1], y2[order2], *random_problem(9)[5:])[1]
    scaled = solve(x, rows1, rows2, 3 * y1, 3 * y2, gamma1 / 3, beta1, gamma2 / 3, beta2, delta)[1]
    twice = solve(x, rows1, np.tile(rows2, 2), y1, np.tile(y2, 2), gamma1, beta1, gamma2, beta2 / 2, delta)[1]
    for other, factor in ((rotated, 1), (permuted, 1), (scaled, 3), (twice, 1)):
        np.testing.assert_allclose(other.outputs, factor * target.outputs, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(other.kernel, target.kernel, rtol=1e-9, atol=1e-11)
        assert other.free_energy == pytest.approx(target.free_energy, rel=1e-10)
    np.testing.assert_allclose(permuted.v, target.v[order2], rtol=1e-9, atol=1e-11)


def test_masks_negative_rows_zero_labels_and_zero_inputs():
    x, rows1, _, y1, *_ = random_problem(0)
    mask = np.zeros(len(x), dtype=bool)
    mask[rows1] = True
    plain, masked = linear_source(x, rows1, y1, 1.0, 2.0), linear_source(x, mask, y1, 1.0, 2.0)
    np.testing.assert_array_equal(masked.v, plain.v)
    np.testing.assert_array_equal(linear_source(x, rows1 - len(x), y1, 1.0, 2.0).v, plain.v)
    silent = linear_source(x, rows1, 0 * y1, 1.0, INF)
    assert silent.converged
    assert silent.free_energy == 0
    np.testing.assert_allclose(silent.kernel, x @ x.T / x.shape[1], rtol=1e-12, atol=1e-15)
    blind = linear_source(0 * x, rows1, y1, 1.0, 2.0)
    np.testing.assert_allclose(blind.v, 2 * y1)
    assert blind.converged


# --------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gamma": -1.0}, "gamma = -1"),
        ({"gamma": INF}, "gamma = inf"),
        ({"beta": 0.0}, "beta = 0"),
        ({"beta": -2.0}, "beta = -2"),
        ({"beta": np.nan}, "beta = nan"),
        ({"beta": INF}, "beta = inf needs labels that the kernel can fit"),
        ({"labels": [1.0, np.nan, 1.0]}, "labels = nan"),
        ({"labels": [1.0, 2.0]}, "labels of shape"),
        ({"rows": [0, 1, 7]}, "row 7"),
        ({"rows": []}, "rows of shape"),
        ({"rows": np.array([True, True])}, "a mask of shape"),
        ({"x": np.ones(3)}, "inputs of shape"),
        ({"x": np.full((4, 2), np.inf)}, "inputs = inf"),
    ],
)
def test_bad_source(change, words):
    arguments = {
        "x": np.array([[1.0, 0], [0, 1], [1, 1], [2, 1]]),
        "rows": [0, 1, 2],
        "labels": [1.0, 1.0, -1.0],
        "gamma": 1.0,
        "beta": 2.0,
    }
    with pytest.raises(DomainError, match=words) as raised:
        linear_source(**(arguments | change))
    assert str(raised.value).count(". ") == 0


def test_bad_target():
    p = problem_a()
    source = linear_source(p.x, p.source, p.y1, 1.0, 2.0)
    with pytest.raises(DomainError, match="delta = -1"):
        linear_target(p.x, p.target, p.y2, 1.0, 2.0, -1.0, source)
    with pytest.raises(DomainError, match="delta = nan"):
        linear_target(p.x, p.target, p.y2, 1.0, 2.0, np.nan, source)
    with pytest.raises(DomainError, match="use the same inputs"):
        linear_target(p.x[:-1], p.target, p.y2, 1.0, 2.0, 1.0, source)
    with pytest.raises(DomainError, match="linear_source"):
        linear_target(p.x, p.target, p.y2, 1.0, 2.0, 1.0, replace(source, info={}))
    with pytest.raises(UsageError, match="did you mean 'bracket'"):
        linear_target(p.x, p.target, p.y2, 1.0, 2.0, 1.0, source, "brackets")
    inconsistent = problem_a().y2 * np.array([1, 1, 1, 1, -1])
    with pytest.raises(DomainError, match="beta = inf"):
        linear_target(
            p.x[:, :3], p.target, inconsistent, 1.0, INF, 1.0, linear_source(p.x[:, :3], p.source, p.y1, 1, 2)
        )


def test_labels_that_a_kernel_cannot_fit():
    gram = np.ones((2, 2))
    check_consistent(gram, np.array([2.0, 2.0]))
    check_consistent(gram, np.zeros(2))
    with pytest.raises(DomainError, match=r"0\.707 of their norm"):
        check_consistent(gram, np.array([2.0, 0.0]))


def test_weight_of_the_source():
    np.testing.assert_allclose(mean_weight([0.0, 1e-20, 0.5, INF]), [0.0, 1e-20, 1 / 3, 1.0], rtol=1e-15)
