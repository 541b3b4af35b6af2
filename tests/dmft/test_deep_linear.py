"""Deep linear networks: the causal sweep, the kernel rows and the bidiagonal network are one theory, to rounding."""

import itertools

import numpy as np
import pytest

from tests.dmft.deep_runs import (
    by_axes,
    by_bidiagonal,
    by_rows,
    geometry_of,
    joined,
    reference,
    reference_case,
    rms,
    stages_of,
    varied,
)
from tests.oracles.bidiagonal import run_bidiagonal
from tests.oracles.deep_rows import kernel_rows
from tlcli.dmft.deep.run import Surgery
from tlcli.dmft.integrate import Control
from tlcli.dmft.population import sample
from tlcli.dmft.regression import kernel_regression
from tlcli.dmft.two_layer import Problem, run_population
from tlcli.errors import ConvergenceError, DomainError, UsageError

EXACT = 1e-12
SWEEP = 1e-12
DIGITS = 6e-9  # eight digits are given
ABLATIONS = ("responses", "stage-responses", "memory", "cross-stage")


def _points(case, *sets):
    return tuple(case.firsts[s] for s in sets)


# ---------------------------------------------------------------------------------------------- reference values


@pytest.mark.parametrize(
    ("name", "route"),
    [(n, r) for n in ("R0", "R1", "R2") for r in ("rows", "axes", "bidiagonal") if (n, r) != ("R2", "bidiagonal")],
)
def test_losses_and_outputs_are_the_reference_s(name, route):
    case = reference_case(name)  # R2 has three hidden layers
    f = {
        "rows": lambda: by_rows(case).f,
        "axes": lambda: joined(by_axes(case)),
        "bidiagonal": lambda: joined(by_bidiagonal(case)),
    }[route]()
    for _, step, which, _, value, _ in reference(name, "loss"):
        assert case.losses(f)[step, which] == pytest.approx(value, abs=DIGITS)
    for _, step, which, _, value, _ in reference(name, "f"):
        assert f[step, case.firsts[which]] == pytest.approx(value, abs=DIGITS)


@pytest.mark.parametrize("name", ["R0", "R1", "R2"])
def test_kernels_and_responses_of_the_rows_are_the_reference_s(name):
    case, rows = reference_case(name), by_rows(reference_case(name))
    checked = 0
    for quantity in ("phi", "phi_with_start", "g", "g_with_start", "forward", "backward"):
        for layer, step, point, other, value, _ in reference(name, quantity):
            then = 0 if quantity.endswith("start") else step
            mu = None if point is None else case.firsts[point]
            nu = None if other is None else case.firsts[other]
            if quantity.startswith("phi"):
                found = rows.phi[layer][step, mu, then, nu]
            elif quantity.startswith("g"):
                found = rows.g[layer][step, then]
            elif quantity == "forward":
                found = rows.forward[layer][step, mu, 0]
            else:
                found = rows.backward[layer][step, 0, nu]
            assert found == pytest.approx(value, abs=DIGITS), (quantity, layer, step)
            checked += 1
    assert checked == 11 * case.L - 3  # 8 kernels a layer, 3 responses a hidden matrix


@pytest.mark.parametrize("name", ["R1", "R2"])
def test_kernels_of_the_sweep_are_those_of_the_rows(name):
    case, rows, found = reference_case(name), by_rows(reference_case(name)), {}

    def look(stage, record, time, scene):
        if record == (case.n1, case.n2)[stage]:
            sight = scene.look(np.arange(len(case.x)), backward=True)
            order = sight.rows(np.arange(len(case.x)))
            spaces = scene.start.spaces
            found[stage] = [
                (s.inner(p, p)[np.ix_(order, order)], s.inner(g, g)[np.ix_(order, order)])
                for s, p, g in zip(spaces, sight.phi, (of[0] for of in sight.g), strict=True)
            ]
        return {}

    by_axes(case, observe=look)
    for stage, state in ((0, case.n1), (1, case.n1 + case.n2)):
        for layer, (phi, g) in enumerate(found[stage]):
            np.testing.assert_allclose(phi, rows.phi[layer][state, :, state], rtol=0, atol=1e-10)
            np.testing.assert_allclose(g, rows.g[layer][state, state], rtol=0, atol=1e-10)


def test_kernels_of_the_bidiagonal_network_are_those_of_the_rows():
    case = varied("R1", lam1=0.2, lam2=0.1, g2=0.5)
    rows, runs = by_rows(case), by_bidiagonal(case)
    trained = np.arange(case.P1 + case.P2)
    for stage, first in enumerate((0, case.n1)):
        observed = runs[stage].observed
        for record in (0, 7, case.n1):
            state = first + record
            for layer in (0, 1):
                phi = observed[f"phi_layer{layer + 1}"][record]
                np.testing.assert_allclose(
                    phi[np.ix_(trained, trained)],
                    rows.phi[layer][state, :, state][np.ix_(trained, trained)],
                    atol=EXACT,
                )
                assert observed[f"g_layer{layer + 1}"][record] == pytest.approx(rows.g[layer][state, state], abs=EXACT)


# ---------------------------------------------------------------------------------------------- routes agree


@pytest.mark.parametrize("decay", [(0.0, 0.0), (0.2, 0.1)])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("readout", ["carry", "carry-centred", "reset"])
def test_routes_agree_at_any_depth(depth, decay, readout):
    case = varied("R1", L=depth, g1=2.0, g2=0.5, lam1=decay[0], lam2=decay[1], n1=10, n2=10)
    rows = by_rows(case, readout=readout).f
    assert rms(rows[case.n1 :]) > 0.1
    np.testing.assert_allclose(joined(by_axes(case, readout=readout)), rows, rtol=0, atol=SWEEP)
    if depth == 2:
        np.testing.assert_allclose(joined(by_bidiagonal(case, readout=readout)), rows, rtol=0, atol=EXACT)


@pytest.mark.parametrize(("name", "depth"), [("R0", 2), ("R1", 2), ("R2", 3), ("R1", 4)])
def test_the_sweep_is_exact_to_rounding(name, depth):
    case = varied(name, L=depth)
    np.testing.assert_allclose(joined(by_axes(case, tol=1e-12)), by_rows(case).f, rtol=0, atol=EXACT)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_frozen_and_redrawn_layers_agree(depth):
    case = varied("R1", L=depth, g1=2.0, g2=0.5, lam1=0.2, lam2=0.1, n1=10, n2=10)
    usual = by_rows(case).f
    for surgery in [
        *(Surgery(freeze=k) for k in range(1, depth + 1)),
        *(Surgery(reinit_from=k) for k in range(depth + 1)),
        Surgery(freeze=1, reinit_from=1),
    ]:
        rows = by_rows(case, surgery).f
        np.testing.assert_allclose(joined(by_axes(case, surgery)), rows, rtol=0, atol=SWEEP)
        assert rms(rows - usual) > 1e-2  # the surgery is felt
        if depth == 2 and surgery.reinit_from is None:
            f = joined(by_bidiagonal(case, freeze=surgery.freeze))
            np.testing.assert_allclose(f, rows, rtol=0, atol=EXACT)


def test_mean_loss_and_three_stages_agree():
    case = varied("R1", g1=2.0, n1=8, n2=8, lam1=0.3)
    first, second = stages_of(case, scale=0.2)
    stages = [first, second, first]
    rows = kernel_rows(case.x @ case.x.T / case.D, stages, 2, case.dt).f
    f = joined(run_bidiagonal(geometry_of(case).moving, stages, Control("euler", dt=case.dt)))
    np.testing.assert_allclose(f, rows, rtol=0, atol=EXACT)
    assert rms(rows[-1] - rows[case.n1]) > 1e-3


def test_what_lies_outside_the_training_inputs_does_not_matter():
    case = varied("R1", P1=2, P2=2, n1=8, n2=8)
    assert geometry_of(case).still.shape[1] > 0
    np.testing.assert_allclose(joined(by_bidiagonal(case)), by_rows(case).f, rtol=0, atol=EXACT)
    np.testing.assert_allclose(joined(by_axes(case)), by_rows(case).f, rtol=0, atol=SWEEP)


@pytest.mark.parametrize("gamma", [1.0, 2.0])
def test_few_cells_are_enough(gamma):
    case = varied("R1", g1=gamma, g2=gamma, n1=30, n2=30)
    exact = by_rows(case).f
    errors = [np.max(np.abs(joined(by_bidiagonal(case, cells=cells)) - exact)) for cells in range(1, 7)]
    for error, bound in zip(errors, (0.2, 1e-3, 1e-6, 1e-10, 1e-13, 1e-13), strict=True):
        assert error < bound
    assert errors[1] > 1e-5  # two cells are not: the truncation is real
    assert errors[2] > 1e-9


def test_the_basis_tolerance_sets_the_error():
    case = reference_case("R1")
    exact = by_rows(case).f
    errors = [rms(joined(by_axes(case, tol=tol)) - exact) for tol in (0.1, 0.01, 1e-4, 1e-6)]
    for error, bound in zip(errors, (1e-3, 2e-4, 1e-6, 1e-8), strict=True):
        assert bound / 30 < error < bound


def test_one_hidden_layer_and_one_direction_obey_three_numbers():
    """Section 3(d): H = <h^2>, G = <a^2> and C = <a h> along the only input direction."""
    case = varied("R0", L=1, D=1, n1=12, n2=12, g2=0.7, dt=0.05)
    x = case.x[:, 0]
    h, g, c, f = 1.0, 1.0, 0.0, []
    for k in range(case.n1 + case.n2 + 1):
        rows, gamma = (case.rows[0], case.g1) if k < case.n1 else (case.rows[1], case.g2)
        f.append(x * c / gamma)
        q = case.dt * gamma * np.sum((case.y - f[-1])[rows] * x[rows])
        h, g, c = h + 2 * q * c + q * q * g, g + 2 * q * c + q * q * h, c * (1 + q * q) + q * (h + g)
    np.testing.assert_allclose(by_rows(case).f, f, rtol=0, atol=EXACT)
    np.testing.assert_allclose(joined(by_axes(case)), f, rtol=0, atol=EXACT)


@pytest.mark.parametrize("readout", ["carry", "carry-centred"])
def test_one_hidden_layer_is_the_two_layer_solver(readout):
    case = varied("R1", L=1, g1=2.0, g2=0.5, lam1=0.2, lam2=0.1, n1=10, n2=10)
    geometry, rng = geometry_of(case), np.random.default_rng(3)
    problem = Problem(case.activation, geometry, stages_of(case, readout))
    population = sample(
        "mc", 64, geometry.rank, geometry.still.shape[1], rng, pairs=True, whiten=True
    )  # exact: linear networks need second moments only
    f = joined(run_population(problem, population, Control("euler", dt=case.dt)))
    np.testing.assert_allclose(joined(by_axes(case, readout=readout)), f, rtol=0, atol=1e-12)


# ---------------------------------------------------------------------------------------------- ablations


@pytest.mark.parametrize(
    ("depth", "g1", "g2", "errors"),
    [
        (2, 1.0, 1.0, (0.071, 0.122, 0.139, 0.268)),
        (2, 1.0, 0.3, (0.120, 0.329, 0.381, 0.729)),
        (3, 1.0, 1.0, (0.113, 0.178, 0.195, 0.296)),
        (3, 2.0, 1.0, (0.120, 0.222, 0.277, 0.416)),
    ],
)
def test_literal_masks_do_to_f_what_the_reference_says(depth, g1, g2, errors):
    case = varied("R1", L=depth, g1=g1, g2=g2, dt=0.04, n1=25, n2=25)
    full = by_rows(case).f
    for ablate, value in zip(ABLATIONS, errors, strict=True):
        f = by_rows(case, Surgery(ablate=ablate)).f
        assert rms((f - full)[case.n1 :]) == pytest.approx(value, abs=6e-4)
        assert (rms((f - full)[: case.n1]) == 0) == (ablate != "responses")
    if depth == 2 and g2 == 1:
        np.testing.assert_allclose(case.losses(full)[-1], (0.1888, 0.0003, 0.4109), rtol=0, atol=6e-5)
        for ablate, value in (("cross-stage", 0.381), ("responses", 0.437)):
            loss = case.losses(by_rows(case, Surgery(ablate=ablate)).f)[-1, 2]
            assert loss == pytest.approx(value, abs=6e-4)


def test_the_sweep_s_ablations_against_the_literal_masks():
    """The sweep leaves out what a stage's basis carries, not what a pair of times does.

    Without any response, and without the memory of C, both are the same. A response forgotten at the switch is that of
    a direction of the basis: g of stage 2 has a part along the directions of stage 1, whose response the masks keep.
    """
    case = varied("R1", n1=30, n2=30)
    full = by_rows(case).f[case.n1 :]
    for ablate, same, table in (
        ("responses", True, 0.061),
        ("memory", True, 0.138),
        ("stage-responses", False, 0.111),
        ("cross-stage", False, 0.252),
    ):
        literal = by_rows(case, Surgery(ablate=ablate)).f[case.n1 :]
        swept = joined(by_axes(case, Surgery(ablate=ablate)))[case.n1 :]
        if same:
            np.testing.assert_allclose(swept, literal, rtol=0, atol=SWEEP)
        else:
            assert 0.02 < rms(swept - literal) < 0.7 * rms(literal - full)
        assert rms(swept - full) == pytest.approx(table, rel=0.08)  # that of networks has their noise


# ---------------------------------------------------------------------------------------------- flow


def test_gradient_flow_by_three_integrators():
    case = varied("R1", g2=0.5, lam1=0.2, n1=10, n2=10)
    ends = [-1]

    def last(runs):
        return np.array([run.f[ends] for run in runs])

    flow = last(by_bidiagonal(case, Control("dop853", tolerance=1e-11)))
    swept = by_axes(case, control=Control("rkc", tolerance=1e-9), tol=1e-7, size=500)
    assert np.max(np.abs(last(swept) - flow)) < 1e-6
    assert np.max(np.abs(last(by_bidiagonal(case, Control("rkc", tolerance=1e-10))) - flow)) < 1e-6
    # Richardson's table of gradient descent with steps dt, dt/2, ..., each order removed in turn.
    steps = [last(by_bidiagonal(case, Control("euler", dt=case.dt / 2**k))) for k in range(6)]
    errors = [np.max(np.abs(f - flow)) for f in steps]
    assert errors[4] / errors[5] == pytest.approx(2, abs=0.1)
    table = steps
    for order in range(1, 6):
        table = [(2**order * b - a) / (2**order - 1) for a, b in itertools.pairwise(table)]
    assert np.max(np.abs(table[0] - flow)) < 1e-6


# ---------------------------------------------------------------------------------------------- surgery


@pytest.mark.parametrize("freeze", [1, 2, 3])
def test_frozen_layers_are_bit_identical(freeze):
    case = varied("R1", L=3, lam1=0.1, lam2=0.3, n1=6, n2=6)
    seen = []

    def look(stage, record, time, scene):
        if stage and record in (0, case.n2):
            w = scene.weights
            seen.append((w.inputs.copy(), [c.copy() for c in w.learned], w.decay.copy()))
        return {}

    by_axes(case, Surgery(freeze=freeze), observe=look)
    before, after = seen
    np.testing.assert_array_equal(after[0], before[0])
    for index in range(2):
        old, new = before[1][index], after[1][index]
        if index + 1 < freeze:
            np.testing.assert_array_equal(new[: len(old), : old.shape[1]], old)
            assert not new[len(old) :].any()
            assert not new[:, old.shape[1] :].any()
            assert after[2][index] == before[2][index]
        else:
            assert rms(new[: len(old), : old.shape[1]] - old) > 1e-4
            assert after[2][index] < before[2][index]
    assert after[2][-1] == before[2][-1]


@pytest.mark.parametrize("readout", ["carry", "reset", "carry-centred"])
def test_all_layers_frozen_is_kernel_regression(readout):
    case = varied("R1", L=3, g1=2.0, g2=0.5, n1=4, n2=10)
    kernel = []

    def look(stage, record, time, scene):
        if stage and record == 0:
            points = np.arange(len(case.x))
            sight = scene.look(points)
            phi = sight.phi[-1][sight.rows(points)]
            kernel.append(scene.start.spaces[-1].inner(phi, phi))
        return {}

    flow = Control("rkc", tolerance=1e-9)
    runs = by_axes(case, Surgery(freeze=3), readout=readout, control=flow, observe=look, tol=1e-7, size=500)
    rows, f = case.rows[1], runs[1].f
    expected = kernel_regression(
        kernel[0][np.ix_(rows, rows)],
        kernel[0][:, rows],
        case.y[rows],
        time=case.dt * np.arange(case.n2 + 1),
        reduction="sum",
        f0_train=f[0, rows],
        f0_points=f[0],
    )
    np.testing.assert_allclose(f, expected, rtol=0, atol=2e-6)
    assert (rms(f[0]) < 1e-12) == (readout != "carry")


def test_all_layers_frozen_descend_with_the_frozen_kernel():
    """The same step by step: f moves by dt Phi^L Delta, to rounding."""
    case = varied("R1", L=3, g1=2.0, g2=0.5, n1=10, n2=10)
    rows = by_rows(case, Surgery(freeze=3))
    train, phi = case.rows[1], rows.phi[-1][case.n1, :, case.n1]
    for k in range(case.n1, case.n1 + case.n2):
        step = case.dt * phi[:, train] @ (case.y - rows.f[k])[train]
        np.testing.assert_allclose(rows.f[k + 1], rows.f[k] + step, rtol=0, atol=EXACT)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_all_layers_redrawn_is_training_from_scratch(depth):
    case = varied("R1", L=depth, g1=2.0, g2=0.5, lam1=0.2, lam2=0.1, n1=10, n2=10)
    second = stages_of(case)[1]
    alone = kernel_rows(case.x @ case.x.T / case.D, [second], depth, case.dt).f
    again = Surgery(reinit_from=0)
    np.testing.assert_allclose(by_rows(case, again).f[case.n1 :], alone, rtol=0, atol=EXACT)
    np.testing.assert_allclose(joined(by_axes(case, again))[case.n1 :], alone, rtol=0, atol=EXACT)
    if depth > 1:
        some = by_rows(case, Surgery(reinit_from=1)).f[case.n1 :]
        assert rms(some - alone) > 1e-3  # the first layer is carried over


def test_a_redrawn_readout_starts_at_zero_and_a_carried_one_jumps():
    case = varied("R1", g1=1.0, g2=0.5, n1=10, n2=10)
    for readout in ("reset", "carry-centred"):
        for f in (joined(by_axes(case, readout=readout)), by_rows(case, readout=readout).f):
            np.testing.assert_allclose(f[case.n1], 0, rtol=0, atol=1e-13)
    runs = by_axes(case)
    np.testing.assert_allclose(runs[1].f[0], 2 * runs[0].f[-1], rtol=1e-12)


# ---------------------------------------------------------------------------------------------- errors


def test_rows_refuse_what_they_cannot_do():
    case = varied("R1", n1=4, n2=4)
    gram, stages = case.x @ case.x.T / case.D, stages_of(case)
    for call, words in (
        (lambda: kernel_rows(gram, stages, 0, case.dt), "depth = 0"),
        (lambda: kernel_rows(gram[:3], stages, 2, case.dt), r"\(3, 15\)"),
        (lambda: kernel_rows(gram, stages, 2, 0.03), "whole number of steps dt = 0.03"),
        (lambda: kernel_rows(gram, stages, 2, -1.0), "dt = -1"),
        (lambda: kernel_rows(gram, stages, 2, case.dt / 200), r"15 points at 1601 times need 1.7e\+09 words"),
        (lambda: kernel_rows(gram, stages, 2, case.dt, Surgery(freeze=3)), "freeze = 3"),
    ):
        with pytest.raises(DomainError, match=words):
            call()
    with pytest.raises(UsageError, match="respones"):
        kernel_rows(gram, stages, 2, case.dt, Surgery(ablate="respones"))
    wild = varied("R1", dt=5.0, n1=30, n2=1)
    with pytest.raises(ConvergenceError, match="smaller dt"):
        by_rows(wild)


def test_the_bidiagonal_network_refuses_what_it_cannot_do():
    case = varied("R1", n1=4, n2=4)
    with pytest.raises(DomainError, match="cells = 0"):
        by_bidiagonal(case, cells=0)
    with pytest.raises(DomainError, match="freeze = 3"):
        by_bidiagonal(case, freeze=3)
    runs = by_bidiagonal(varied("R1", dt=5.0, n1=30, n2=1))
    assert "diverges with the step 5" in runs[0].outcome.message
    assert np.all(np.isnan(runs[1].f))
