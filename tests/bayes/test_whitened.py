"""Whitened data: a reference table, matrix equations, polynomials, every limit, the linear solver, errors."""

import numpy as np
import pytest

from tests.bayes.problems import rows_of
from tlcli.bayes.linear import linear_source, linear_target
from tlcli.bayes.whitened import CASES, whitened
from tlcli.errors import DomainError, UsageError

INF = np.inf
GAMMAS = {"gamma1": 2.0, "gamma2": 1.5}
SAMPLE = GAMMAS | {"beta1": 10.0, "beta2": 5.0, "delta": 1.5, "norm1": 4.0, "norm2": 2.0}
PARAMETERS = ("gamma1", "gamma2", "beta1", "beta2", "delta", "norm1", "norm2")
OUTPUTS = ("lam_source", "q", "r", "u", "k22", "k12", "k11", "perp")


def run(case, overlap=None, **changes):
    return whitened(case, **(SAMPLE | changes), **({"overlap": overlap} if case == "labels" else {}))


# ---------------------------------------------------------------------------------------------- reference values


@pytest.mark.parametrize("row", rows_of("whitened"), ids=lambda row: f"{row['case']}-{row['delta']}-{row['overlap']}")
def test_reference_table(row):
    result = run(row["case"], float(row["overlap"]), **{name: float(row[name]) for name in PARAMETERS})
    assert result["status"]
    for name in OUTPUTS:
        # The table has ten digits.
        assert float(result[name]) == pytest.approx(float(row[name]), rel=5.1e-10, abs=1e-14), name


@pytest.mark.parametrize(
    ("norm", "gamma", "beta", "expected"),
    [(1, 1, INF, 1.618033989), (4, 2, 10, 4.443791579), (4, 0.5, 1, 1.246979604), (100, 3, 50, 30.48449988)],
)
def test_reference_source(norm, gamma, beta, expected):
    assert run("same", norm1=norm, gamma1=gamma, beta1=beta)["lam_source"] == pytest.approx(expected, rel=5e-10)


# ------------------------------------------------------------------------------ matrix equations on random problems


def draws(n, seed=0):
    """n random settings and overlaps, a fifth of them at beta = inf."""
    rng = np.random.default_rng(seed)
    log = lambda low, high: np.exp(rng.uniform(np.log(low), np.log(high), n))  # noqa: E731
    noise = lambda: np.where(rng.uniform(size=n) < 0.2, INF, log(0.1, 1e3))  # noqa: E731
    settings = {"gamma1": log(1e-2, 30), "gamma2": log(1e-2, 30), "beta1": noise(), "beta2": noise()}
    settings |= {"delta": log(1e-3, 1e3), "norm1": log(0.1, 30), "norm2": log(0.1, 30)}
    return settings, rng.uniform(-1, 1, n)


def matrices(case, m, s, result):
    """Errors of one solution in C = I matrix equations of four dimensions, Φ built with inverses from v alone."""
    identity = np.eye(4)
    y2 = np.sqrt(s["norm2"]) * identity[0]
    hat1 = identity[1] if case == "decoupled" else np.array([m, np.sqrt(1 - m**2), 0, 0])
    v1 = np.sqrt(s["norm1"]) * hat1 / (result["lam_source"] + 1 / s["beta1"])
    trained = np.linalg.inv(identity - s["gamma1"] ** 2 * np.outer(v1, v1))
    # For decoupled inputs the first axis is the target's labels and the second the source's, on inputs of its own.
    source = trained
    shift = 0.0 if case == "decoupled" else 1 - result["r"] / (result["r"] + excess(s, result))
    v2 = np.sqrt(s["norm2"]) / result["r"] * (identity[0] - shift * m * hat1)
    gain = np.linalg.inv((1 + s["delta"]) * identity - s["gamma2"] ** 2 * np.outer(v2, v2))
    kernel = gain + s["delta"] ** 2 * gain @ source @ gain
    rest = y2 - kernel @ v2 - v2 / s["beta2"]
    drift = s["delta"] * gain - s["delta"] / (1 + s["delta"]) * identity
    prior = 1 / (1 + s["delta"])
    divergence = np.trace(gain) / prior - 4 - np.linalg.slogdet(gain / prior)[1]
    energy = 0.5 * (divergence + np.trace(drift @ source @ drift.T) / prior)
    energy += 0.5 * s["gamma2"] ** 2 * y2 @ np.linalg.solve(kernel + identity / s["beta2"], y2)
    expected = {
        "k22": kernel[0, 0],
        "k12": hat1 @ kernel @ identity[0],
        "k11": hat1 @ kernel @ hat1,
        "perp": kernel[3, 3],
        "u": v2 @ source @ v2,
        "train_loss": v2 @ v2 / s["beta2"] ** 2,
        "free_energy": energy,
    }
    errors = [np.linalg.norm(rest) / np.linalg.norm(y2)]
    errors.append(abs(hat1 @ trained @ hat1 / result["lam_source"] - 1))
    return max(errors + [abs(result[name] - value) / (abs(value) + 1) for name, value in expected.items()])


def excess(s, result):
    """s = α²q(λ̄ − 1)."""
    return (s["delta"] / (1 + s["delta"])) ** 2 * result["q"] * (result["lam_source"] - 1)


@pytest.mark.parametrize("case", CASES)
def test_matrix_equations_on_300_random_problems(case):
    settings, overlaps = draws(300, CASES.index(case))
    m = {"decoupled": 0 * overlaps, "same": 1 + 0 * overlaps, "labels": overlaps}[case]
    results = run(case, overlaps, **settings)
    assert results["status"].all()
    for k in range(300):
        s, result = ({name: float(a[k]) for name, a in table.items()} for table in (settings, results))
        assert matrices(case, m[k], s, result) < 1e-10, k
        for wrong in ({"gamma2": 1.01 * s["gamma2"]}, {"delta": s["delta"] + 0.1}):
            assert matrices(case, m[k], s | wrong, result) > 1e-8, k


@pytest.mark.parametrize(("case", "m"), [("decoupled", 0.0), ("same", 1.0), ("labels", -0.6)])
@pytest.mark.parametrize("beta2", [5.0, INF])
def test_the_linear_solver_on_orthogonal_inputs(case, m, beta2):
    rng = np.random.default_rng(3)
    x = np.linalg.qr(rng.standard_normal((12, 12)))[0] * np.sqrt(12)
    rows1 = np.arange(6)
    rows2 = rows1 if case != "decoupled" else np.arange(6, 12)
    basis = np.linalg.qr(rng.standard_normal((6, 2)))[0]
    y2, y1 = np.sqrt(2) * basis[:, 0], 2 * (m * basis[:, 0] + np.sqrt(1 - m**2) * basis[:, 1])
    result = run(case, m, beta2=beta2)
    source = linear_source(x, rows1, y1, 2.0, 10.0)
    target = linear_target(x, rows2, y2, 1.5, beta2, 1.5, source)
    kernel = target.kernel[np.ix_(rows2, rows2)]
    assert target.free_energy == pytest.approx(float(result["free_energy"]), rel=1e-11)
    assert target.info["q"] == pytest.approx(float(result["q"]), rel=1e-11)
    assert y2 @ kernel @ y2 / 2 == pytest.approx(float(result["k22"]), rel=1e-11)
    assert np.sum((y2 - target.outputs[rows2]) ** 2) == pytest.approx(float(result["train_loss"]), rel=1e-9, abs=1e-20)
    retained, cross = (target.kernel[np.ix_(rows1, rows)] for rows in (rows1, rows2))
    assert y1 @ retained @ y1 / 4 == pytest.approx(float(result["k11"]), rel=1e-11)
    assert y1 @ cross @ y2 / np.sqrt(8) == pytest.approx(float(result["k12"]), rel=1e-11, abs=1e-12)


def test_polynomials_have_one_root():
    settings, _ = draws(100, 7)
    for case in ("decoupled", "same"):
        results = run(case, **settings)
        for k in range(100):
            γ2, β2, δ, Y2 = (settings[name][k] for name in ("gamma2", "beta2", "delta", "norm2"))
            ell = 1.0 if case == "decoupled" else results["lam_source"][k]
            q, α2 = np.polynomial.Polynomial([0, 1]), (δ / (1 + δ)) ** 2
            λ = q / (1 + δ) + α2 * ell * q**2
            roots = ((1 + δ) * (q - 1) * (λ + 1 / β2) ** 2 - γ2**2 * Y2 * q).roots()
            real = roots[(np.abs(roots.imag) < 1e-7 * np.abs(roots)) & (roots.real > 1)].real
            assert len(real) == 1
            assert results["q"][k] == pytest.approx(real[0], rel=1e-9)
            ψ = -(γ2**2) * Y2 / (results["k22"][k] + 1 / β2) ** 2
            eigenvalue = 1 / (1 + δ + ψ) + δ**2 * ell / (1 + δ + ψ) ** 2
            assert results["k22"][k] == pytest.approx(eigenvalue, rel=1e-8)


# ---------------------------------------------------------------------------------------------------------- limits


def test_overlap_of_plus_and_minus_one_is_the_same_task():
    settings, _ = draws(200, 11)
    same = run("same", **settings)
    for m in (1.0, -1.0):
        labels = run("labels", m, **settings)
        for name, values in same.items():
            np.testing.assert_allclose(labels[name], m * values if name == "k12" else values, atol=1e-12, rtol=1e-12)


def test_labels_without_overlap_are_as_good_as_decoupled_inputs():
    settings, _ = draws(200, 12)
    labels, decoupled = run("labels", 0.0, **settings), run("decoupled", **settings)
    for name in ("q", "r", "u", "k22", "k12", "k11", "train_loss", "free_energy"):
        np.testing.assert_allclose(labels[name], decoupled[name], rtol=1e-12)
    α2 = (settings["delta"] / (1 + settings["delta"])) ** 2
    rise = decoupled["k11"] - decoupled["perp"]
    np.testing.assert_allclose(rise, α2 * (labels["lam_source"] - 1), rtol=1e-7, atol=1e-14)
    odd = run("labels", -0.4, **settings)["k12"] + run("labels", 0.4, **settings)["k12"]
    np.testing.assert_allclose(odd, 0, atol=1e-13)


def test_zero_coupling_is_the_source_equation_of_the_target():
    for case in CASES:
        at_zero, close = run(case, 0.5, delta=0.0), run(case, 0.5, delta=1e-10)
        alone = run(case, 0.5, gamma1=1.5, beta1=5.0, norm1=2.0)["lam_source"]
        for name in ("q", "k22"):
            assert at_zero[name] == pytest.approx(float(alone), rel=1e-13)
            assert close[name] == pytest.approx(float(alone), rel=2e-9)
        q = float(alone)
        assert (q - 1) * (q + 1 / 5) ** 2 == pytest.approx(1.5**2 * 2 * q, rel=1e-12)
        assert at_zero["perp"] == 1


def test_infinite_coupling_keeps_the_source():
    λ = float(run("same")["lam_source"])
    for case, m, k22 in (("decoupled", None, 1.0), ("same", None, λ), ("labels", 0.5, 1 + 0.25 * (λ - 1))):
        tied, close = run(case, m, delta=INF), run(case, m, delta=[1e6, 1e7])
        assert tied["status"]
        assert tied["q"] == 1
        assert tied["k22"] == pytest.approx(k22, rel=1e-14)
        error = np.abs(close["k22"] - k22)
        assert error[0] / error[1] == pytest.approx(10, rel=1e-3)
        assert close["free_energy"][1] == pytest.approx(float(tied["free_energy"]), rel=1e-5)
    assert run("labels", 0.5, delta=INF)["k12"] == pytest.approx(0.5 * λ)
    assert run("labels", 0.5, delta=INF)["k11"] == pytest.approx(λ)


def test_lazy_limits():
    for case, ell in (("decoupled", 1.0), ("same", float(run("same")["lam_source"]))):
        zero, close = run(case, gamma2=0.0), run(case, gamma2=1e-5)
        assert zero["q"] == 1
        assert zero["k22"] == pytest.approx(1 / 2.5 + 0.36 * ell, rel=1e-14)
        assert close["k22"] == pytest.approx(float(zero["k22"]), rel=1e-9)
        assert (close["q"] - 1) / 1e-10 == pytest.approx(2 / 2.5 / float(zero["r"] + (0.36 * (ell - 1))) ** 2, rel=1e-5)
        assert zero["free_energy"] == 0
        assert run(case, gamma1=0.0)["k22"] == pytest.approx(float(run("decoupled")["k22"]), rel=1e-14)
    assert run("same", gamma1=0.0)["lam_source"] == 1
    assert run("same", norm2=0.0)["k22"] == pytest.approx(float(run("same", gamma2=0.0)["k22"]))


def test_no_noise_is_the_limit_and_has_a_closed_form():
    γ = np.logspace(-6, 4, 30)
    source = run("same", gamma1=γ, beta1=INF)["lam_source"]
    np.testing.assert_allclose(source, 0.5 * (1 + np.sqrt(1 + 16 * γ**2)), rtol=1e-14)
    for case in CASES:
        limit, close = run(case, 0.5, beta1=INF, beta2=INF), run(case, 0.5, beta1=1e9, beta2=1e9)
        assert limit["train_loss"] == 0
        for name in ("q", "k22", "k11", "free_energy"):
            assert close[name] == pytest.approx(float(limit[name]), rel=1e-8)


def test_rich_source():
    for β in (2.0, 50.0, INF):
        assert run("same", gamma1=1e5, beta1=β)["lam_source"] == pytest.approx(2e5 + 0.5 - 1 / β, abs=1e-4)


def test_rich_target_slowly_becomes_its_own():
    γ2, c = np.array([1e2, 1e4]), float(run("same")["lam_source"]) - 1
    result = run("labels", 0.5, gamma2=γ2)
    scale = γ2 * np.sqrt(2 / 2.5)
    for name, values in {"k22": scale, "q": np.sqrt(scale / (0.36 * (1 + 0.25 * c)))}.items():
        error = np.abs(result[name] / values - 1)
        assert error[0] < 0.06
        assert error[0] / error[1] == pytest.approx(10, rel=0.35)  # O(γ₂^−½)
    np.testing.assert_allclose(result["k12"] / result["k22"], 0.5, rtol=1e-2)


def test_the_limits_of_richness_and_coupling_do_not_commute():
    δ, strength = 1e7, 3.0
    for case in ("decoupled", "same"):
        result = run(case, gamma2=np.sqrt(strength * (1 + δ)), delta=δ)
        ell, q = (1.0 if case == "decoupled" else result["lam_source"]), result["q"]
        assert (q - 1) * (q**2 * ell + 1 / 5) ** 2 == pytest.approx(strength * 2 * q, rel=1e-5)
        assert q > 1.1  # not 1, its limit at fixed γ₂


# ----------------------------------------------------------------------------------------------------------- grids


def test_grids_broadcast_and_do_not_depend_on_their_order():
    γ, δ, m = np.logspace(-1, 1, 5)[:, None, None], np.array([0.0, 0.3, 2.0, INF])[:, None], np.array([-1, 0.2, 0.9])
    grid = run("labels", m, gamma2=γ, delta=δ)
    assert all(values.shape == (5, 4, 3) for values in grid.values())
    assert grid["status"].all()
    for i, j, k in np.ndindex(5, 4, 3):
        point = run("labels", m[k], gamma2=γ[i, 0, 0], delta=δ[j, 0])
        for name, values in grid.items():
            assert values[i, j, k] == pytest.approx(float(point[name]), rel=1e-13, abs=1e-15)


def test_extreme_parameters_are_solved_or_refused():
    δ = np.array([0, 1e-12, 1e-3, 1, 1e3, 1e12, INF])
    for γ in (1e-9, 1e9):
        for β in (1e-6, INF):
            assert run("labels", 0.3, gamma1=γ, gamma2=γ, beta1=β, beta2=β, delta=δ)["status"].all()
    assert not run("labels", 0.3, gamma2=1e90, norm2=1e90)["status"]


# ---------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gamma1": -1.0}, "gamma1 = -1"),
        ({"gamma2": [1.0, np.nan]}, "gamma2 = nan"),
        ({"beta1": 0.0}, "beta1 = 0"),
        ({"beta2": [3.0, -5.0]}, "beta2 = -5"),
        ({"delta": -0.5}, "delta = -0.5"),
        ({"norm1": -1.0}, "norm1 = -1"),
        ({"norm2": INF}, "norm2 = inf"),
    ],
)
def test_values_out_of_range(changes, words):
    with pytest.raises(DomainError, match=words):
        run("same", **changes)


def test_bad_cases_and_overlaps():
    with pytest.raises(UsageError, match="did you mean 'labels'"):
        run("label")
    for overlap in (1.01, -1.5, np.nan, [0.2, 3.0]):
        with pytest.raises(DomainError, match="from -1 to 1"):
            run("labels", overlap)
    with pytest.raises(DomainError, match="needs the overlap"):
        run("labels")
    with pytest.raises(DomainError, match="which fixes it"):
        whitened("same", **SAMPLE, overlap=0.5)
