import csv
from pathlib import Path

import numpy as np
import pytest

from tlcli.averages.homogeneous import Homogeneous
from tlcli.averages.pointwise import Pointwise
from tlcli.averages.subsets import chosen_subsets, subset_losses
from tlcli.dmft.regression import FrozenKernel
from tlcli.errors import DomainError
from tlcli.linear.structured import structured_transfer
from tlcli.tasks.spectra import power_law

REFERENCE = Path(__file__).parents[1] / "reference" / "averages.csv"


def reference():
    cases = {}
    with REFERENCE.open(newline="") as stream:
        for row in csv.DictReader(stream):
            if row["kind"] == "pool":
                words = dict(word.split("=") for word in row["parameters"].split(";"))
                case = cases.setdefault(row["id"], ({name: float(v) for name, v in words.items()}, {}))
                case[1][row["quantity"]] = float(row["value"])
    return cases


def small_pool():
    """Twelve points, as the reference has them."""
    i, a = np.arange(1, 13)[:, None], np.arange(1, 5)
    x = np.cos(i * a + a**2)
    return np.exp(x @ x.T / 2), np.sin(2 * i[:, 0])


def circle():
    t = 2 * np.pi * np.arange(24) / 24
    return np.exp(np.cos(t[:, None] - t)), np.cos(2 * t) + 0.3 * np.sin(5 * t)


CASES = reference()


@pytest.mark.parametrize("name", list(CASES))
def test_reference_values(name):
    given, wanted = CASES[name]
    kernel, y = small_pool()
    p, ridge, noise, time = given["P2"], given["ridge"], given["noise"], given.get("time")
    pool, points = Homogeneous(kernel, y), Pointwise(kernel, y)
    if time is not None:
        assert pool.stopped(p, time, ridge, noise)[0][0] == pytest.approx(wanted["loss_homogeneous"], abs=1e-9)
        assert points.stopped(p, time, ridge, noise).mean() == pytest.approx(wanted["loss_pointwise"], abs=1e-9)
        return
    found = pool.loss(p, ridge, noise)
    assert found.kappa == pytest.approx(wanted["kappa"], abs=1e-9)
    assert found.df1 == pytest.approx(wanted["df1"], abs=1e-9)
    assert found.loss == pytest.approx(wanted["loss_homogeneous"], abs=1e-9)
    assert found.train_loss == pytest.approx(wanted["train_homogeneous"], abs=1e-9)
    solved = points.solve(p, ridge, tolerance=0)
    assert solved.solved
    assert solved.at(noise).mean() == pytest.approx(wanted["loss_pointwise"], abs=1e-9)
    subsets = chosen_subsets(12, int(p), 1000, np.random.default_rng(0))
    assert len(subsets) == {4: 495, 8: 495, 6: 924, 11: 12}[int(p)]
    if noise == 0:
        direct = subset_losses(kernel, y, subsets, ridges=ridge).mean()
        assert direct == pytest.approx(wanted["mean_over_all_subsets"], abs=1e-9)


def random_pool(size=40, seed=0, width=0.2):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((size, 6))
    return np.exp(-width * np.sum((x[:, None] - x) ** 2, axis=-1)), np.sin(x[:, 0]) + x[:, 1] ** 2


def pointwise(kernel, y, p, ridge, noise=0.0):
    return Pointwise(kernel, y).solve(p, ridge, tolerance=0).at(noise).mean()


def test_constant_leverage_makes_both_theories_one():
    kernel, y = circle()
    solved = Pointwise(kernel, y).solve(6, 0.02, tolerance=0)
    delta = Homogeneous(kernel, y).effective_ridge(6, 0.02)
    np.testing.assert_allclose(solved.ridges, 24 * delta, rtol=1e-9)
    assert solved.losses.mean() == pytest.approx(0.3110013091, abs=1e-10)
    assert Homogeneous(kernel, y).loss(6, 0.02).loss == pytest.approx(0.3110013091, abs=1e-10)


def test_all_samples_of_the_pool_are_its_leave_one_out_loss():
    kernel, y = random_pool()
    ridge = 0.03
    left_out = []
    for i in range(40):
        rest = np.delete(np.arange(40), i)
        weights = np.linalg.solve(kernel[np.ix_(rest, rest)] + 40 * ridge * np.eye(39), y[rest])
        left_out.append((kernel[i, rest] @ weights - y[i]) ** 2)
    np.testing.assert_allclose(Pointwise(kernel, y).solve(40, ridge).losses, left_out, rtol=1e-9)
    assert Homogeneous(kernel, y).loss(40, ridge).loss == pytest.approx(np.mean(left_out), rel=1e-9)


@pytest.mark.parametrize("loss", [lambda *a: float(Homogeneous(a[0], a[1]).loss(*a[2:]).loss), pointwise])
def test_units_order_and_limits(loss):
    kernel, y = random_pool()
    usual = loss(kernel, y, 15, 0.01, 0.3)
    assert loss(7 * kernel, y, 15, 0.07, 0.3) == pytest.approx(usual, rel=1e-9)
    assert loss(kernel, 3 * y, 15, 0.01, 0.9) == pytest.approx(9 * usual, rel=1e-9)
    order = np.random.default_rng(1).permutation(40)
    assert loss(kernel[np.ix_(order, order)], y[order], 15, 0.01, 0.3) == pytest.approx(usual, rel=1e-9)
    assert loss(kernel, y, 15, 1e9, 0.3) == pytest.approx(np.mean(y**2), rel=1e-6)
    free, unit, double = (loss(kernel, y, 15, 0.01, noise) for noise in (0.0, 1.0, 2.0))
    assert unit > free
    assert double - free == pytest.approx(4 * (unit - free), rel=1e-9)


def test_the_effective_ridge_falls_with_samples_and_rises_with_the_ridge():
    kernel, y = random_pool()
    pool = Homogeneous(kernel, y)
    kappa = pool.loss(np.arange(2.0, 30)[:, None], np.array([0.0, 0.01, 0.1])).kappa
    assert (np.diff(kappa, axis=0) < 0).all()
    assert (np.diff(kappa, axis=1) > 0).all()
    assert pool.loss(15).train_loss == 0


def test_stopping_late_is_not_stopping_and_stopping_at_once_learns_nothing():
    kernel, y = random_pool()
    pool = Homogeneous(kernel, y)
    static = pool.loss(15, 0.05, 0.4)
    late, train = pool.stopped(15, 1e6, 0.05, 0.4)
    assert late[0] == pytest.approx(float(static.loss), rel=1e-7)
    assert train[0] == pytest.approx(float(static.train_loss), rel=1e-6)
    early, train = pool.stopped(15, 1e-7, 0.05, 0.4)
    assert early[0] == pytest.approx(np.mean(y**2), rel=1e-5)
    assert train[0] == pytest.approx(np.mean(y**2) + 0.16, rel=1e-5)
    assert Pointwise(kernel, y).stopped(15, 1e6, 0.05, 0.4).mean() == pytest.approx(
        pointwise(kernel, y, 15, 0.05, 0.4), rel=1e-7
    )


@pytest.mark.parametrize(("chi", "r", "wanted"), [(0.0, 0.0, 0.5), (5.0, 0.7, 0.2750)])
def test_gaussian_features_are_those_of_the_linear_theory(chi, r, wanted):
    """1 - alpha without a spike; the finetuning loss with one (chi, r). D = 150, alpha2 = .5, three pools: 3 %."""
    found = [gaussian_pool(seed, chi, r) for seed in range(3)]
    assert np.mean(found) == pytest.approx(wanted, rel=0.03)


def gaussian_pool(seed, chi, r, dim=150, size=600):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((size, dim))
    teacher = np.zeros(dim)
    teacher[:2] = r, np.sqrt(1 - r**2)
    kernel = (x @ x.T + chi * np.outer(x[:, 0], x[:, 0])) / dim
    y = x @ teacher
    y *= np.sqrt(size / np.sum(y**2))
    return Pointwise(kernel, y).solve(dim / 2, 0.0).losses.mean()


@pytest.mark.parametrize(("p", "ridge"), [(40, 0.0), (80, 0.1)])
def test_structured_inputs_are_those_of_the_linear_theory(p, ridge):
    """Gaussian inputs of a power-law spectrum, features of a source with infinite data: `linear-structured`.

    Eight pools, within four of their standard errors with pre-training and without; the features of another teacher,
    and none, are further away.
    """
    spectrum, rho, gamma0 = power_law(100, 0.8, 0.3), 0.8, 3.0
    size = np.linalg.norm(spectrum.teacher1)
    n, target, spike = spectrum.teacher1 / size, spectrum.target(rho), np.hypot(1, gamma0 * size) - 1
    found = []
    for seed in range(8):
        x = np.random.default_rng(seed).standard_normal((300, 100)) * np.sqrt(spectrum.eigenvalues)
        y = x @ target
        y /= np.sqrt(np.mean(y**2))
        plain = x @ x.T
        kernels = (plain + spike * np.outer(x @ n, x @ n), plain)
        points = [Pointwise(kernel, y).solve(p, ridge).losses.mean() for kernel in kernels]
        found.append([*points, *(float(Homogeneous(kernel, y).loss(p, ridge).loss) for kernel in kernels)])
    mean, error = np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / np.sqrt(8)
    given = (spectrum.eigenvalues, spectrum.teacher1, spectrum.teacher_orthogonal, np.inf, p, gamma0)
    theory, other = (structured_transfer(*given, rho=r, ridge=ridge) for r in (rho, 0.0))
    wanted = np.array([float(theory.loss), float(theory.baseline)] * 2)
    assert np.all(np.abs(mean - wanted) < 4 * error)
    assert np.all(np.abs(mean - float(other.loss))[[0, 2]] > 10 * error[[0, 2]])
    assert np.all(np.abs(mean - wanted[::-1]) > 10 * error)


def test_direct_averages_and_their_twin():
    """Pointwise within four standard errors or 5 % of 300 subsets; the wrong influence (N/P for N/P - 1) is not."""
    kernel, y = random_pool(200, 3, width=0.05)
    subsets = chosen_subsets(200, 60, 300, np.random.default_rng(2))
    direct = subset_losses(kernel, y, subsets, ridges=0.0)[:, 0, 0, 0]
    error = direct.std(ddof=1) / np.sqrt(len(direct))
    found = Pointwise(kernel, y).solve(60, 0.0)
    allowed = max(4 * error, 0.05 * direct.mean())
    assert abs(found.losses.mean() - direct.mean()) < allowed
    inverse = np.linalg.inv(kernel + np.diag(found.ridges))
    influence = (inverse / np.diag(inverse)[:, None]) ** 2
    np.fill_diagonal(influence, 0)
    errors = (inverse @ y / np.diag(inverse)) ** 2
    wrong = np.linalg.solve(np.eye(200) - 200 / 60 * influence, errors).mean()
    assert abs(wrong - direct.mean()) > 2 * allowed


def test_subsets_learn_the_noise_that_they_are_given():
    kernel, y = random_pool()
    subsets = chosen_subsets(40, 15, 400, np.random.default_rng(0))
    loud = subset_losses(kernel, y, subsets, ridges=0.1, noises=5.0, rng=np.random.default_rng(1)).mean()
    quiet = subset_losses(kernel, y, subsets, ridges=0.1).mean()
    ends = []
    for chosen in subsets:
        rest = np.setdiff1d(np.arange(40), chosen)
        weights = kernel[np.ix_(rest, chosen)] @ np.linalg.inv(kernel[np.ix_(chosen, chosen)] + 1.5 * np.eye(15))
        ends.append(25.0 * np.mean(np.sum(weights**2, axis=1)))
    assert loud - quiet == pytest.approx(np.mean(ends), rel=0.1)


@pytest.mark.parametrize(
    ("rank", "ridge", "factored"), [(60, 0.0, True), (60, 0.1, True), (12, 0.1, True), (12, 1e-13, False)]
)
def test_subsets_are_solved_by_their_factors_or_eigenvectors_alike(rank, ridge, factored, monkeypatch):
    """Against plain solution, and among ten ridges more, which need eigenvectors; without ridge it may be singular."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((40, rank))
    kernel, y = features @ features.T / rank, rng.standard_normal(40)
    subsets = chosen_subsets(40, 15, 6, rng)
    wanted = subset_losses(kernel, y, subsets, ridges=[ridge, *np.geomspace(1, 2, 10)])[:, :1]
    decomposed = []
    monkeypatch.setattr("tlcli.averages.subsets.FrozenKernel", lambda k: decomposed.append(k) or FrozenKernel(k))
    found = subset_losses(kernel, y, subsets, ridges=ridge, noises=[0.0, 0.0])
    assert len(decomposed) == (0 if factored else 6)
    # Rounding of 1e-16 over a ridge of 15e-13 is seen in what no feature explains, whichever way it is solved.
    np.testing.assert_allclose(found, np.repeat(wanted, 2, axis=2), rtol=1e-9 if factored else 1e-3)
    if factored:
        chosen, rest = subsets[0], np.setdiff1d(np.arange(40), subsets[0])
        inverse = np.linalg.inv(kernel[np.ix_(chosen, chosen)] + 15 * ridge * np.eye(15))
        error = kernel[np.ix_(rest, chosen)] @ inverse @ y[chosen] - y[rest]
        assert found[0, 0, 0, 0] == pytest.approx(np.mean(error**2), rel=1e-9)


@pytest.mark.parametrize(
    ("p", "ridge", "words"),
    [
        (41, 0.1, "P2 = 41 samples of a pool of 40"),
        (0, 0.1, "P2 = 0 samples"),
        (5, -1.0, "ridge = -1 must be finite"),
        (5, np.nan, "ridge = nan must be finite"),
        (6, 0.0, "P2 = 6 without ridge reaches the rank 5"),
    ],
)
def test_what_a_pool_cannot_stand_for_is_refused(p, ridge, words):
    features = np.random.default_rng(0).standard_normal((40, 5))
    kernel, y = features @ features.T, np.ones(40)
    for call in (Homogeneous(kernel, y).loss, Pointwise(kernel, y).solve):
        with pytest.raises(DomainError, match=words):
            call(p, ridge)


def test_pools_that_are_none_are_refused():
    with pytest.raises(DomainError, match="do not fit"):
        Homogeneous(np.eye(3), np.ones(4))
    with pytest.raises(DomainError, match="finite"):
        Homogeneous(np.full((3, 3), np.nan), np.ones(3))
    with pytest.raises(DomainError, match="time = inf"):
        Homogeneous(np.eye(3), np.ones(3)).stopped(2, np.inf)
