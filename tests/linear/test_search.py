import numpy as np
import pytest

from tlcli.linear.linear_transfer import transfer_exact
from tlcli.linear.search import boundary_roots, optimal_at_points, optimal_gamma0


def test_interior_minimum_ends_and_flat_rows():
    kinds = ("interior", "first decade", "rising", "falling", "flat")

    def loss(gamma0, rows):
        gamma0, rows = np.broadcast_arrays(gamma0, rows)
        with np.errstate(invalid="ignore"):
            falling = 1 / (1 + gamma0)
            well = np.where(np.isinf(gamma0), 5.0, np.tanh(np.log(np.maximum(gamma0, 1e-9) / 2.5)) ** 2)
            early = np.where(np.isinf(gamma0), 5.0, np.tanh(np.log(np.maximum(gamma0, 1e-9) / 1.01e-3)) ** 2)
            table = np.stack(np.broadcast_arrays(well, early, 1 - falling, falling, np.ones_like(gamma0)))
        return np.take_along_axis(table, rows[None], axis=0)[0]

    best, value = optimal_gamma0(loss, len(kinds))
    np.testing.assert_allclose(best[:2], [2.5, 1.01e-3], rtol=1e-6)
    np.testing.assert_array_equal(best[2:], [0.0, np.inf, 0.0])
    np.testing.assert_allclose(value, [0, 0, 0, 0, 1], atol=1e-12)


def test_best_richness_of_transfer():
    alpha2 = np.array([[0.2, 0.5], [0.8, 1.5]])
    flat = alpha2.ravel()

    def rank_one(gamma0, rows):
        return transfer_exact(0.5, flat[rows], rho=0.9, gamma0=gamma0).loss

    best, _ = optimal_gamma0(rank_one, alpha2.shape)
    np.testing.assert_array_equal(best, [[np.inf, np.inf], [np.inf, 0.0]])

    # With ridge and little overlap the NTK, whose bulk grows with the spike, has an optimum inside.
    def ridged(gamma0, rows):
        return transfer_exact(0.5, flat[rows], rho=0.3, gamma0=gamma0, kernel="ntk", ridge=3.0, sigma2=1.0).loss

    best, value = optimal_gamma0(ridged, alpha2.shape)
    dense = ridged(np.geomspace(1e-3, 1e3, 20001)[:, None], np.arange(4)).min(axis=0)
    assert (value.ravel() <= dense + 1e-14).all()
    assert ((best > 0) & np.isfinite(best)).any()


def test_nan_losses_are_never_chosen():
    best, value = optimal_gamma0(lambda g, rows: np.where(g < 1, np.nan, 1 / (1 + g)) + 0 * rows, 2)
    np.testing.assert_array_equal(best, np.inf)
    np.testing.assert_array_equal(value, 0.0)


@pytest.mark.parametrize("log", [False, True])
def test_every_sign_change_is_found(log):
    roots = np.array([[0.3, 0.7, 1.9], [0.11, 0.5, 1.0]])

    def cubic(x, rows):
        return np.prod(x[..., None] - roots[rows], axis=-1)

    grid = np.geomspace(0.05, 4, 37) if log else np.linspace(0.05, 4, 80)
    found = boundary_roots(cubic, grid, 2, log=log)
    np.testing.assert_array_equal(found.row, [0, 0, 0, 1, 1, 1])
    np.testing.assert_allclose(found.x, roots.ravel(), rtol=1e-12)
    np.testing.assert_array_equal(found.rising, [True, False, True] * 2)
    assert found.converged.all()


def test_roots_on_the_grid_neutral_regions_and_touching():
    grid = np.arange(0.0, 11.0)

    def shapes(x, rows):
        x, rows = np.broadcast_arrays(x, rows)
        on_grid = x - 4.0
        plateau = np.where(x < 3, x - 3, np.where(x > 7, x - 7, 0.0))
        touching = (x - 4.0) ** 2
        table = np.stack(np.broadcast_arrays(on_grid, plateau, touching, np.full_like(x, np.nan)))
        return np.take_along_axis(table, rows[None], axis=0)[0]

    found = boundary_roots(shapes, grid, 4)
    np.testing.assert_array_equal(found.row, [0])
    np.testing.assert_allclose(found.x, [4.0], rtol=1e-12)


def test_no_sign_change_is_an_empty_answer():
    found = boundary_roots(lambda x, rows: x + rows + 1.0, np.linspace(0, 1, 5), 3)
    assert found.x.size == found.row.size == 0


def test_boundary_of_negative_transfer():
    # A dead bulk: the boundary is rho² = alpha2.
    alpha2 = np.array([0.09, 0.25, 0.64])

    def gain(rho, rows):
        return transfer_exact(np.inf, alpha2[rows], rho=rho, gamma0=1.0, init_scale=0.0).gain

    found = boundary_roots(gain, np.linspace(-1, 1, 32), 3)
    np.testing.assert_allclose(found.x, [-0.3, 0.3, -0.5, 0.5, -0.8, 0.8], rtol=1e-12)


@pytest.mark.parametrize("grid", [[1.0, 1.0], [1.0, np.inf], [[1.0, 2.0]], [2.0, 1.0]])
def test_bad_grids(grid):
    with pytest.raises(ValueError, match="x_grid must be"):
        boundary_roots(lambda x, rows: x + 0 * rows, grid, 1)


def test_equal_points_are_searched_once_and_have_their_own_minimum():
    calls = []

    def value(x, a, b):
        calls.append(a.size)
        return (np.log(np.where(np.isfinite(x), np.maximum(x, 1e-9), 1e9)) - np.log(a)) ** 2 + b

    a, b = np.array([[0.5], [4.0]]), np.array([1.0, 2.0, 1.0])
    best, least = optimal_at_points(value, (a, b), lowest=1e-2, highest=1e2, n_grid=21)
    assert best.shape == least.shape == (2, 3)
    np.testing.assert_allclose(best, np.broadcast_to(a, (2, 3)), rtol=1e-6)
    np.testing.assert_allclose(least, np.broadcast_to(b, (2, 3)), rtol=1e-9)
    assert max(calls) == 4, "of six points two are equal to others"
