import numpy as np
import pytest

from tests.averages.test_pool import random_pool
from tlcli.averages.grid import GridAxes, averaged
from tlcli.averages.homogeneous import Homogeneous
from tlcli.averages.pointwise import Pointwise
from tlcli.errors import DomainError, UsageError


def mean(kernel, y, axes, method, seed=0):
    return averaged(kernel, y, axes, method, np.random.default_rng(seed)).losses.mean(axis=-1)


def test_every_method_gives_what_its_own_functions_give():
    kernel, y = random_pool(60)
    axes = GridAxes([8, 25], [0.01, 0.1], [0.0, 0.5], [2.0, np.inf])
    pool, points = Homogeneous(kernel, y), Pointwise(kernel, y)
    plain, fine = mean(kernel, y, axes, "homogeneous"), mean(kernel, y, axes, "pointwise")
    for i, p in enumerate(axes.sizes):
        for k, ridge in enumerate(axes.ridges):
            for n, noise in enumerate(axes.noises):
                assert plain[i, k, n, 1] == pytest.approx(float(pool.loss(p, ridge, noise).loss), rel=1e-9)
                stopped = pool.stopped(p, 2.0, ridge, noise)[0][0]
                assert plain[i, k, n, 0] == pytest.approx(stopped, rel=1e-9)
                assert fine[i, k, n, 1] == pytest.approx(points.solve(p, ridge).at(noise).mean(), rel=1e-3)


def test_summed_losses_have_ridges_and_times_of_their_own_units():
    kernel, y = random_pool(60)
    one = mean(kernel, y, GridAxes([10], [0.02], times=[3.0, np.inf]), "pointwise")
    other = mean(kernel, y, GridAxes([10], [0.2], times=[0.3, np.inf], summed=True), "pointwise")
    np.testing.assert_allclose(other, one, rtol=1e-9)


def test_few_samples_are_direct_averages_and_many_are_not():
    kernel, y = random_pool(200, width=0.05)
    axes = GridAxes([10, 60], [0.1])
    found = averaged(kernel, y, axes, "auto", np.random.default_rng(0))
    assert found.direct.tolist() == [True, False]
    direct = averaged(kernel, y, axes, "subsets", np.random.default_rng(0))
    error = direct.by_subset[0].std(axis=0, ddof=1).item() / np.sqrt(200)
    assert direct.extra[0].item() == pytest.approx(error)
    assert found.losses[0].mean() == pytest.approx(direct.losses[0].mean(), abs=4 * np.hypot(error, error))
    assert abs(found.losses[1].mean() / direct.losses[1].mean() - 1) < 0.05 + 3 * direct.extra[1].item()
    assert found.extra[1] == 0


def spoil(monkeypatch, factor):
    """Multiply the pointwise losses by a factor of the number of samples."""
    honest = Pointwise.solve

    def wrong(self, p, *arguments, **more):
        found = honest(self, p, *arguments, **more)
        return type(found)(factor(p) * found.losses, found.per_noise, found.ridges, found.solved)

    monkeypatch.setattr(Pointwise, "solve", wrong)


def test_auto_gives_way_to_subsets_where_they_contradict_the_equations(monkeypatch):
    """A theory that is 30 % off here and there, and has no smooth correction, is replaced by direct averages."""
    kernel, y = random_pool(200, width=0.05)
    spoil(monkeypatch, lambda p: 1.3 if p == 60 else 0.75)
    found = averaged(kernel, y, GridAxes([30, 60, 90], [0.01]), "auto", np.random.default_rng(0))
    assert found.direct.tolist() == [True, True, True]


def test_auto_corrects_equations_that_are_a_little_off(monkeypatch):
    """A deviation of 15 % that vanishes with N - P is taken off, with an error; the equations alone keep it."""
    kernel, y = random_pool(200, width=0.05)
    sizes = [30, 40, 60, 90]
    axes = GridAxes(sizes, [0.01])
    right = mean(kernel, y, axes, "pointwise").ravel()
    direct = averaged(kernel, y, axes, "subsets", np.random.default_rng(5))
    spoil(monkeypatch, lambda p: np.exp(-0.3 * (1 - p / 200)))
    off = mean(kernel, y, axes, "pointwise").ravel() / right - 1
    found = averaged(kernel, y, axes, "auto", np.random.default_rng(0))
    error = np.hypot(found.extra, direct.extra).ravel()
    assert not found.direct.any()
    assert np.all(found.extra > 0)
    gap = np.abs(found.losses.mean(axis=-1) - direct.losses.mean(axis=-1)).ravel()
    assert np.all(gap < 3 * error)
    assert np.all(np.abs(found.losses.mean(axis=-1).ravel() / right - 1) < 0.06)
    assert np.all(off < -0.14)
    assert np.any(np.abs(off) * right > 3 * error)


def test_samples_that_almost_reach_the_rank_are_not_solved_or_direct():
    """Negative eigenvalues of rounding break the iteration off at one size: the other keeps its number, `auto` takes
    subsets there."""
    g = np.random.default_rng(0)
    q = np.linalg.qr(g.standard_normal((200, 200)))[0]
    kernel = 200 * (q * np.concatenate([np.geomspace(1, 1e-6, 120), np.full(80, -3e-7)])) @ q.T
    y, axes = 6 * q[:, :5].sum(axis=1), GridAxes([30, 110], [0.0])
    found = averaged(kernel, y, axes, "pointwise", np.random.default_rng(0))
    assert found.unsolved.ravel().tolist() == [False, True]
    assert found.losses[0].mean() == pytest.approx(Pointwise(kernel, y).solve(30).losses.mean(), rel=1e-3)
    assert np.isnan(found.losses[1]).all()
    found = averaged(kernel, y, axes, "auto", np.random.default_rng(0))
    assert found.direct[1]
    assert not found.unsolved.any()
    assert np.isfinite(found.losses).all()


def test_auto_leaves_equations_alone_that_subsets_confirm():
    """Numbers free of the noise of subsets: losses that are known exactly (no ridge of use) get no correction."""
    kernel, y = random_pool(200, width=0.05)
    axes = GridAxes([30, 60], [1e3], times=[0.0, np.inf])
    found = averaged(kernel, y, axes, "auto", np.random.default_rng(0))
    np.testing.assert_array_equal(found.losses.mean(axis=-1), mean(kernel, y, axes, "pointwise"))
    assert not found.extra.any()


def test_long_lists_of_sizes_are_interpolated_between_solutions():
    kernel, y = random_pool(120, width=0.05)
    sizes = list(range(4, 60, 2))
    long = mean(kernel, y, GridAxes(sizes, [0.01]), "pointwise")[:, 0, 0, 0]
    each = [mean(kernel, y, GridAxes([p], [0.01]), "pointwise").item() for p in sizes]
    np.testing.assert_allclose(long, each, rtol=0.01)


def test_what_is_asked_wrongly_is_refused():
    kernel, y = random_pool()
    with pytest.raises(UsageError, match="average: 'mean' is unknown"):
        mean(kernel, y, GridAxes([10], [0.1]), "mean")
    with pytest.raises(DomainError, match="pool of 40"):
        mean(kernel, y, GridAxes([50], [0.1]), "pointwise")
