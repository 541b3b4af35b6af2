"""Quadrature saddles against reference values, closed forms and integrals computed another way."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import integrate, special

from tests.bayes.problems import SETTINGS, problem_b
from tlcli.bayes.linear import linear_source, linear_target
from tlcli.bayes.quadrature import solve as quadrature
from tlcli.bayes.quadrature.lattice import Box, SourceLattice
from tlcli.bayes.quadrature.newton import gap_at
from tlcli.bayes.quadrature.polar import ray_integrals, unit_vectors
from tlcli.bayes.quadrature.solve import quadrature_source, quadrature_target
from tlcli.bayes.quadrature.tilt import asymptote, steepest_ray
from tlcli.dmft.activations import Activation, activation, probed
from tlcli.errors import DomainError

B = problem_b()

# The note's section 5: case -> (activation, v, F, first row of Φ, f at the test points).
SOURCE = {
    "B1": (
        "tanh",
        [-0.1489301508, 1.577105096, -1.577105096, 0.1489301508],
        4.375260253,
        [0.6734881844, 0.4613918404, -0.3107741763, -0.5888547939],
        [0.3464054207, -1.040654685],
    ),
    "B2": (
        "erf",
        [0.02004661765, 1.5794131, -1.5794131, -0.02004661765],
        2.000585536,
        [0.6366860449, 0.4311259726, -0.1844993443, -0.4937617968],
        [0.2934775315, -1.010014999],
    ),
    "B3": (
        "relu",
        [-0.4141838626, 1.612121473, -1.612121473, 0.4141838626],
        3.736001797,
        [2.047141919, 1.445941783, 0.257816268, 0.03700594114],
        None,
    ),
}
TARGET = {
    "B1": (
        [1.333733361, -1.613873898, -0.1953386889, -0.1125521797],
        1.86552938,
        [0.4315950087, 0.07283807855, -0.2601800661, -0.4132997918],
        [-0.4620420338, -0.9699687017],
    ),
    "B2": (
        [1.133057936, -1.155505887, 0.04595317952, 0.1021496651],
        5.94820126,
        [0.4866237711, -0.2071929459, -0.4392322053, -0.5273239247],
        [-0.7111235282, -1.026992876],
    ),
}


def source(case):
    s = SETTINGS[case]
    return quadrature_source(activation(SOURCE[case][0]), B.x, B.source, B.y1, s["gamma1"], s["beta1"])


def target(case, delta=None, **extra):
    s = SETTINGS[case]
    act = activation(SOURCE[case][0])
    delta = s["delta"] if delta is None else delta
    before = source(case)
    extra = {"source_rows": B.source, "source_gamma": s["gamma1"]} | extra
    return quadrature_target(act, B.x, B.target, B.y2, s["gamma2"], s["beta2"], delta, before, **extra)


@pytest.mark.parametrize("case", SOURCE)
def test_source_has_the_values_of_the_note(case):
    _, v, free_energy, row, f = SOURCE[case]
    found = source(case)
    np.testing.assert_allclose(found.v, v, rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.free_energy, free_energy, rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.kernel[0, :4], row, rtol=0, atol=1e-8)
    if f is not None:
        np.testing.assert_allclose(found.outputs[B.test], f, rtol=0, atol=1e-8)
    assert found.converged
    assert found.gap < 1e-14
    assert found.gap_floor < 1e-7
    assert found.message == ""


@pytest.mark.parametrize("case", TARGET)
def test_target_has_the_values_of_the_note(case):
    v, free_energy, row, f = TARGET[case]
    found = target(case)
    np.testing.assert_allclose(found.v, v, rtol=0, atol=2e-8)
    np.testing.assert_allclose(found.free_energy, free_energy, rtol=0, atol=2e-8)
    np.testing.assert_allclose(found.kernel[4, 4:8], row, rtol=0, atol=2e-8)
    np.testing.assert_allclose(found.outputs[B.test], f, rtol=0, atol=2e-8)
    assert found.converged


def test_wrong_richness_misses_the_values_of_the_note():
    s = SETTINGS["B1"]
    wrong = quadrature_source(activation("tanh"), B.x, B.source, B.y1, np.sqrt(2) * s["gamma1"], s["beta1"])
    assert np.abs(wrong.v - SOURCE["B1"][1]).max() > 1e-2


def test_relu_distance_to_the_critical_tilt():
    assert 1 - source("B3").info["tilt"] == pytest.approx(0.1059689998, abs=2e-4)  # the reference scans the circle


@pytest.mark.parametrize(("case", "beta"), [("B1", "beta1"), ("B3", "beta1")])
def test_outputs_on_the_training_points_follow_from_v(case, beta):
    found = source(case)
    np.testing.assert_allclose(found.outputs[B.source], B.y1 - found.v / SETTINGS[case][beta], atol=1e-12)


def test_decoupled_target_is_a_source():
    s = SETTINGS["B2"]
    alone = quadrature_source(activation("erf"), B.x, B.target, B.y2, s["gamma2"], s["beta2"])
    np.testing.assert_array_equal(target("B2", 0.0).kernel, alone.kernel)
    np.testing.assert_allclose(target("B2", 1e-7).kernel, alone.kernel, atol=1e-6)
    assert np.abs(target("B2", 0.1).kernel - alone.kernel).max() > 1e-3


@pytest.mark.parametrize("name", ["erf", "relu"])
def test_large_coupling_tends_to_the_tied_weights(name):
    """The difference is O(1/δ): it falls by ten from δ = 30 to δ = 300."""
    act = activation(name)
    before = quadrature_source(act, B.x[:, :1], B.source, B.y1, 1.0, 4.0)
    tie = {"source_rows": B.source, "source_gamma": 1.0}
    found = [
        quadrature_target(act, B.x[:, :1], B.target, B.y2, 1.5, 3.0, δ, before, **tie) for δ in (30.0, 300.0, np.inf)
    ]
    np.testing.assert_allclose(found[2].kernel, before.kernel, atol=1e-8)
    assert found[2].free_energy == pytest.approx(0.5 * 1.5**2 * B.y2 @ found[2].v, rel=1e-12)
    errors = [np.abs(one.outputs - found[2].outputs).max() for one in found[:2]]
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.25)
    assert errors[1] < 2e-2


def test_relu_target_on_the_lattice():
    """The lattice, of second order at kinks, agrees to 3e-3 with the polar rule; another coupling is farther."""
    act = activation("relu")
    before = source("B3")

    def solved(delta):
        tie = {"source_rows": B.source, "source_gamma": 1.5, "accuracy": 1e-4}
        return quadrature_target(act, B.x, B.target, B.y2, 1.0, 3.0, delta, before, **tie)

    polar, other = solved(1.0), solved(1.3)
    np.testing.assert_allclose(polar.v, [1.3376197, -1.43791411, 0.17935005, -0.19274566], atol=1e-6)  # finest rules
    act = replace(act, homogeneous=False)
    lattice = solved(1.0)
    np.testing.assert_allclose(lattice.kernel, polar.kernel, atol=3e-3)
    assert lattice.free_energy == pytest.approx(polar.free_energy, abs=3e-3)
    assert np.abs(other.kernel - polar.kernel).max() > 1e-2


X = np.array([[1.0, 0.5], [-0.6, -0.3], [0.8, 0.4], [1.2, -0.3], [-0.4, 1.1], [0.9, 0.45], [1.22, -0.31]])


def line(act, rows2=(0, 2)):
    """Source and target whose training inputs lie on a line; four of the seven points are outside it."""
    one = quadrature_source(act, X, [0, 1], [1.0, -0.5], 1.2, 4.0)
    tie = {"source_rows": [0, 1], "source_gamma": 1.2}
    return one, quadrature_target(act, X, list(rows2), [0.7, 0.9], 1.0, 3.0, 0.8, one, **tie)


@pytest.mark.parametrize("name", ["tanh", "gelu", "relu", "linear"])
def test_points_outside_the_row_space_agree_with_the_integral_over_all_of_it(name, monkeypatch):
    act = activation(name)
    outside = line(act)
    monkeypatch.setattr(quadrature, "_row_space", lambda x, at: np.eye(2))
    for a, b in zip(outside, line(act), strict=True):
        np.testing.assert_allclose(a.kernel, b.kernel, atol=2e-10)
        np.testing.assert_allclose(a.outputs, b.outputs, atol=2e-10)
        assert a.free_energy == pytest.approx(b.free_energy, abs=1e-9)


@pytest.mark.parametrize("delta", [0.0, 0.8, 5.0, np.inf])
def test_linear_networks_have_their_closed_form(delta):
    """Points outside the row space included: the joint rank is 2 in D = 3, the test point is not in it."""
    x = np.array([[1.0, 0.5, 0.2], [-0.6, 0.4, 0.1], [0.3, 0.8, 1.0]])
    rows1, y1, rows2, y2 = [0, 0, 1], [1.0, 0.8, -0.5], [1, 0], [0.7, 0.2]
    act = activation("linear")
    one = quadrature_source(act, x, rows1, y1, 1.2, 4.0)
    exact = linear_source(x, rows1, y1, 1.2, 4.0)
    np.testing.assert_allclose(one.kernel, exact.kernel, atol=1e-9)
    assert one.free_energy == pytest.approx(exact.free_energy, abs=1e-9)
    two = quadrature_target(act, x, rows2, y2, 2.0, 3.0, delta, one, source_rows=rows1, source_gamma=1.2)
    exact = linear_target(x, rows2, y2, 2.0, 3.0, delta, exact)
    np.testing.assert_allclose(two.kernel, exact.kernel, atol=1e-8)
    np.testing.assert_allclose(two.v, exact.v, atol=1e-8)
    assert two.free_energy == pytest.approx(exact.free_energy, abs=1e-8)


def test_one_point_against_a_scalar_search():
    """P = 1, D = 1: the dual is a function of one number; its maximum is found by integrating and scanning."""
    γ, β, x, y = 1.3, 2.0, 0.8, 1.5
    found = quadrature_source(activation("tanh"), [[x]], [0], [y], γ, β)

    def dual(v):
        z = integrate.quad(lambda t: np.exp(-0.5 * t * t + 0.5 * (γ * v * np.tanh(x * t)) ** 2), -12, 12)[0]
        return γ**2 * (v * y - v * v / (2 * β)) - np.log(z / np.sqrt(2 * np.pi))

    v = found.v[0]
    assert found.free_energy == pytest.approx(dual(v), abs=1e-9)
    assert dual(v) > max(dual(v - 1e-3), dual(v + 1e-3))


def test_lazy_network_is_ridge_regression_with_the_arcsine_kernel():
    c = B.x @ B.x.T / 2
    n = 1 + 2 * np.diagonal(c)
    kernel = 2 / np.pi * np.arcsin(2 * c / np.sqrt(np.outer(n, n)))
    found = quadrature_source(activation("erf"), B.x, B.source, B.y1, 0.0, 4.0)
    np.testing.assert_allclose(found.kernel, kernel, atol=1e-10)
    v = np.linalg.solve(kernel[:4, :4] + np.eye(4) / 4, B.y1)
    np.testing.assert_allclose(found.outputs, kernel[:, :4] @ v, atol=1e-10)
    assert found.free_energy == 0.0


def test_lazy_relu_outside_the_row_space_has_the_arccosine_kernel():
    x = np.random.default_rng(3).standard_normal((6, 5))
    found = quadrature_source(activation("relu"), x, [0], [1.0], 0.0, 4.0)
    c = x @ x.T / 5
    norm = np.sqrt(np.outer(np.diagonal(c), np.diagonal(c)))
    θ = np.arccos(np.clip(c / norm, -1, 1))
    np.testing.assert_allclose(found.kernel, norm * (np.sin(θ) + (np.pi - θ) * np.cos(θ)) / (2 * np.pi), atol=1e-9)


def test_gap_is_primal_minus_dual():
    """The primal, KL + ½γ²yᵀ(Φ + I/β)⁻¹y, is written out for the tilted measure of an arbitrary v."""
    γ, β, y = 1.5, 5.0, np.asarray(B.y1)
    measure = SourceLattice(activation("tanh"), B.x[:4] / np.sqrt(2), γ, Box((-14.0,) * 2, (14.0,) * 2), 0.2)
    rng = np.random.default_rng(0)
    for v in rng.standard_normal((10, 4)):
        m = measure.moments(v)
        kl = 0.5 * γ**2 * v @ m.kernel @ v - m.log_z
        primal = kl + 0.5 * γ**2 * y @ np.linalg.solve(m.kernel + np.eye(4) / β, y)
        dual = γ**2 * (v @ y - v @ v / (2 * β)) - m.log_z
        assert gap_at(m, v, y, γ, 1 / β) == pytest.approx(primal - dual, rel=1e-10)


def test_symmetries_of_the_saddle():
    """Rotated inputs, flipped labels and permuted points; labels c·y at γ/c scale the outputs by c."""
    act, s = activation("tanh"), SETTINGS["B1"]
    base = source("B1")
    turn = np.array([[np.cos(1.0), -np.sin(1.0)], [np.sin(1.0), np.cos(1.0)]])
    turned = quadrature_source(act, B.x @ turn, B.source, B.y1, s["gamma1"], s["beta1"])
    np.testing.assert_allclose(turned.kernel, base.kernel, atol=1e-9)
    scaled = quadrature_source(act, B.x, B.source[::-1], -3 * B.y1[::-1], s["gamma1"] / 3, s["beta1"])
    np.testing.assert_allclose(scaled.outputs, -3 * base.outputs, atol=1e-8)
    assert scaled.free_energy == pytest.approx(base.free_energy, abs=1e-9)


def test_integrals_along_a_ray():
    a = np.array([-30.0, -13.0, -11.0, -5.0, -0.3, 0.0, 2.0, 9.0])
    found = ray_integrals(a, 5)
    for k in (0, 1, 3, 5):
        for value, at in zip(found[k], a, strict=True):
            exact = integrate.quad(
                lambda t, at=at, k=k: t**k * np.exp(-0.5 * t * t + at * t - 0.5 * max(at, 0) ** 2),
                0,
                max(at, 0) + 14,
                points=[max(at, 1 / (1 + abs(at)))],
                epsabs=0,
                limit=200,
            )[0]
            # Where the recursion cancels, the ray carries no weight: an absolute error counts there.
            assert value == pytest.approx(exact, rel=1e-8, abs=1e-10)


def test_arcs_cover_the_circle():
    u, w = unit_vectors(np.array([[1.0, 0.3], [0.0, 0.0], [-2.0, 0.1]]), 12)
    assert w.sum() == pytest.approx(2 * np.pi, rel=1e-13)
    np.testing.assert_allclose((w[:, None, None] * u[:, :, None] * u[:, None, :]).sum(0), np.pi * np.eye(2), atol=1e-9)


@pytest.mark.parametrize("name", ["he2", "he3"])
def test_polynomials_are_refused_unless_lazy(name):
    act = activation(name)
    assert not act.lipschitz
    with pytest.raises(DomainError, match=rf"gamma = 0.5: {name} grows .* direction \(.*largest gamma .* is 0\."):
        quadrature_source(act, B.x, B.source, B.y1, 0.5, 4.0)
    lazy = quadrature_source(act, B.x, B.source, B.y1, 0.0, 4.0)
    order = int(name[-1])
    np.testing.assert_allclose(lazy.kernel, (B.x @ B.x.T / 2) ** order, atol=1e-9)  # unit diagonal: Mehler


def test_a_tilt_that_cannot_be_normalised_names_direction_and_richness():
    """softplus lies above its asymptote at the kink that is steepest, where the saddle therefore leaves the domain."""
    act = activation("softplus")
    words = r"input direction \((-0\.7|0\.99).* is not normalisable .*about 0\.\d+\."
    with pytest.raises(DomainError, match=words) as refused:
        quadrature_source(act, B.x, B.source, B.y1, 1.5, 5.0, accuracy=1e-6)
    largest = float(str(refused.value).split("about ")[1].rstrip("."))
    assert quadrature_source(act, B.x, B.source, B.y1, 0.9 * largest, 5.0).converged
    with pytest.raises(DomainError):
        quadrature_source(act, B.x, B.source, B.y1, 1.2 * largest, 5.0)


def test_relu_is_normalisable_at_any_richness():
    """In two dimensions log Z diverges at the boundary: the saddle stays inside it."""
    tilts = [quadrature_source(activation("relu"), B.x, B.source, B.y1, γ, 50.0).info["tilt"] for γ in (1.0, 5.0, 25.0)]
    assert tilts == sorted(tilts)
    assert tilts[-1] < 1


def test_growth_along_rays():
    assert activation("relu").homogeneous
    assert not activation("gelu").homogeneous
    np.testing.assert_allclose(asymptote(activation("gelu"), np.array([2.0, -2.0])), [2.0, 0.0], atol=1e-6)
    assert steepest_ray(activation("tanh"), B.x, np.ones(len(B.x)))[1] == 0.0
    u, steep = steepest_ray(activation("relu"), np.eye(2), np.array([3.0, -1.0]))
    np.testing.assert_allclose(u[0], 1.0, atol=1e-6)
    assert steep == pytest.approx(9.0)


def test_own_activations():
    leaky, clipped = (
        probed(Activation(name, value, slope))
        for name, value, slope in (
            ("leaky", lambda h, xp: np.where(h > 0, h, 0.1 * h), lambda h, p, xp: np.where(h > 0, 1.0, 0.1)),
            ("clipped", lambda h, xp: np.clip(h, -1, 1), lambda h, p, xp: 1.0 * (np.abs(h) < 1)),
        )
    )
    one = quadrature_source(leaky, B.x, B.source, B.y1, 1.5, 5.0)
    assert one.converged
    assert one.info["rule_difference"] < 1e-8
    two = quadrature_source(clipped, B.x, B.source, B.y1, 1.5, 5.0)
    assert two.converged
    assert 1e-8 < two.info["rule_difference"] < 1e-4  # a kink on a lattice: second order
    strict = quadrature_source(clipped, B.x, B.source, B.y1, 1.5, 5.0, accuracy=1e-12)
    assert not strict.converged
    assert "two quadrature rules differ by" in strict.message


def test_noiseless_labels():
    found = quadrature_source(activation("tanh"), B.x, B.source, B.y1, 1.5, np.inf)
    np.testing.assert_allclose(found.outputs[B.source], B.y1, atol=1e-10)
    with pytest.raises(DomainError, match="beta = inf"):
        quadrature_source(activation("tanh"), B.x, [0, 0], [1.0, 2.0], 1.5, np.inf)
    zero = quadrature_source(activation("tanh"), 0 * B.x, B.source, B.y1, 1.5, 2.0)
    np.testing.assert_allclose(zero.outputs, 0.0, atol=1e-14)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gamma": -1.0}, "gamma = -1"),
        ({"beta": 0.0}, "beta = 0"),
        ({"x": np.eye(10), "rows": [0, 1, 2], "labels": [1.0, 1, 1]}, "rank 3"),
    ],
)
def test_bad_values_of_a_source(change, words):
    args = {"x": B.x, "rows": B.source, "labels": B.y1, "gamma": 1.0, "beta": 2.0} | change
    with pytest.raises(DomainError, match=words):
        quadrature_source(activation("tanh"), **args)


def test_bad_values_of_a_target():
    with pytest.raises(DomainError, match="delta = -1"):
        target("B1", -1.0)
    with pytest.raises(DomainError, match="source gamma"):
        target("B1", source_gamma=-1.0)
    with pytest.raises(DomainError, match="rank 3"):
        quadrature_target(
            activation("tanh"), np.eye(3), [2], [1.0], 1.0, 2.0, 1.0, target("B1"), source_rows=[0, 1, 0, 1],
            source_gamma=1.0,
        )  # fmt: skip


def test_the_error_function_is_the_exact_one():
    """The reference kernels need φ = erf(h), not erf(h/√2)."""
    assert activation("erf").phi(np.array([0.7]))[0] == special.erf(0.7)
