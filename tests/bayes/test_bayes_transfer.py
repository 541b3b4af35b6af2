"""One Bayesian transfer against references, closed forms and brute force; what is solved once; what is refused."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest

from tests.bayes.problems import SETTINGS, problem_a, problem_b
from tlcli.bayes import bayes_transfer
from tlcli.bayes.bayes_transfer import BayesNumerics, BayesSettings, route_of, solve_bayes
from tlcli.bayes.densities import densities
from tlcli.bayes.observables import NEEDS, BayesProblem, certificate_of, errors_of
from tlcli.bayes.saddle import NOT_CONVERGED, Saddle
from tlcli.bayes.sampling.draws import source_neurons, target_neurons
from tlcli.bayes.whitened import whitened
from tlcli.dmft.activations import activation
from tlcli.errors import ConvergenceError, DomainError, UsageError


def data_of(points, test_source=None):
    unknown = np.full(len(points.test), np.nan)
    return SimpleNamespace(
        x_source=points.x[points.source],
        y_source=points.y1,
        x_target=points.x[points.target],
        y_target=points.y2,
        x_test=points.x[points.test],
        y_test_source=unknown if test_source is None else test_source,
        y_test_target=points.y_test,
    )


def settings(name, phi, **more):
    s = SETTINGS[name]
    given = {"gamma0": s["gamma1"], "gamma2": s["gamma2"], "beta": s["beta1"], "beta2": s["beta2"], "delta": s["delta"]}
    return BayesSettings(phi, **{**given, **more})


@pytest.fixture(autouse=True)
def forgotten():
    bayes_transfer._MEMORY.clear()


def orthonormal(points, y1, y2, rows2=None):
    """C = I: the inputs of both tasks are sqrt(D) times unit vectors; `rows2` those of the target."""
    x = np.eye(points) * math.sqrt(points)
    target = x if rows2 is None else x[rows2]
    none = np.full(1, np.nan)
    return SimpleNamespace(
        x_source=x[: len(y1)],
        y_source=y1,
        x_target=target,
        y_target=y2,
        x_test=x[:1],
        y_test_source=none,
        y_test_target=none,
    )


# Mean test loss, free energies, and overlaps of problem A as the reference has them.
@pytest.mark.parametrize(
    ("name", "loss", "first", "second"),
    [("A1", 0.03252225373, 1.474484301, 0.555447206), ("A2", 0.04329084504, 3.817218861, 1.758395873)],
)
def test_problem_a(name, loss, first, second):
    found = solve_bayes(data_of(problem_a()), settings(name, "linear"))
    assert found.info["route"] == "linear"
    assert found.status == "converged"
    assert found.values["loss"] == pytest.approx(loss, rel=1e-8)
    assert found.values["source_free_energy"] == pytest.approx(first, rel=1e-8)
    assert found.values["free_energy"] == pytest.approx(second, rel=1e-8)
    assert found.residual < 1e-12
    assert found.gap < 1e-12
    assert found.errors == {}


@pytest.mark.parametrize(("name", "phi", "second"), [("B1", "tanh", 1.86552938), ("B2", "erf", 5.94820126)])
def test_problem_b_goes_by_quadrature(name, phi, second):
    found = solve_bayes(data_of(problem_b()), settings(name, phi))
    assert found.info["route"] == "quadrature"
    assert found.values["free_energy"] == pytest.approx(second, abs=1e-8)
    assert math.isnan(found.values["loss"]), "no label of a test point is known"
    assert math.isnan(found.values["test_alignment"])
    assert math.isfinite(found.values["train_loss"])
    assert found.status == "converged"


def test_the_route():
    a, b = BayesProblem.of(data_of(problem_a())), BayesProblem.of(data_of(problem_b()))
    assert route_of(activation("linear"), b) == "linear"
    assert route_of(activation("erf"), a) == "sampling"
    assert route_of(activation("erf"), b) == "quadrature"
    assert route_of(activation("relu"), b) == "quadrature"
    rng = np.random.default_rng(0)
    few, many = (
        BayesProblem(
            rng.standard_normal((n, 3)), np.array([0]), np.array([1]), np.arange(2, n), np.ones(1), np.ones(1), b""
        )
        for n in (6, 30)
    )
    assert (few.outside, many.outside) == (4, 28)
    assert [route_of(activation("relu"), p) for p in (few, many)] == ["quadrature", "sampling"]
    assert route_of(activation("erf"), many) == "quadrature", "smooth functions have a series"
    assert BayesProblem.of(data_of(problem_a())).key == a.key
    assert a.key != b.key


@pytest.mark.parametrize("m", [0.6, -0.3])
@pytest.mark.parametrize("delta", [0.0, 1.5, math.inf])
def test_overlaps_on_whitened_data_are_the_closed_forms(m, delta):
    rng = np.random.default_rng(3)
    one, other = np.linalg.qr(rng.standard_normal((7, 2)))[0].T
    y1, y2 = 2.0 * one, math.sqrt(2) * (m * one + math.sqrt(1 - m**2) * other)
    found = solve_bayes(orthonormal(7, y1, y2), BayesSettings("linear", 2.0, 1.5, 10.0, 5.0, delta))
    closed = whitened("labels", gamma1=2, gamma2=1.5, beta1=10, beta2=5, delta=delta, overlap=m, norm1=4, norm2=2)
    for name, wanted in (
        ("source_overlap", closed["lam_source"]),
        ("target_overlap", closed["k22"]),
        ("cross_overlap", closed["k12"]),
        ("retained_overlap", closed["k11"]),
        ("train_loss", closed["train_loss"] / 7),
        ("free_energy", closed["free_energy"]),
    ):
        assert found.values[name] == pytest.approx(float(wanted), rel=1e-8), name


@pytest.mark.parametrize("delta", [0.0, 0.5, 5.0, math.inf])
def test_overlaps_on_decoupled_inputs_are_the_closed_forms(delta):
    """Source and target on six inputs each, all twelve orthogonal; a source that learns nothing is another number."""
    rng = np.random.default_rng(5)
    one, other = (y / np.linalg.norm(y) for y in rng.standard_normal((2, 6)))
    data = orthonormal(12, 2.0 * one, math.sqrt(2) * other, np.arange(6, 12))
    found = solve_bayes(data, BayesSettings("linear", 2.0, 1.5, 10.0, 5.0, delta))
    given = {"gamma2": 1.5, "beta1": 10, "beta2": 5, "delta": delta, "norm1": 4, "norm2": 2}
    closed = whitened("decoupled", gamma1=2, **given)
    for name, wanted in (
        ("source_overlap", closed["lam_source"]),
        ("target_overlap", closed["k22"]),
        ("cross_overlap", closed["k12"]),
        ("retained_overlap", closed["k11"]),
        ("train_loss", closed["train_loss"] / 6),
        ("free_energy", closed["free_energy"]),
    ):
        assert found.values[name] == pytest.approx(float(wanted), rel=1e-8, abs=1e-12), name
    lazy = whitened("decoupled", gamma1=0, **given)
    assert (float(lazy["k11"]) < 0.95 * found.values["retained_overlap"]) == (delta > 0)


def test_losses_and_alignments_from_the_matrices():
    """By the definitions, from the saddle's own kernel; the train loss of the fixed point is |v|²/(P β²)."""
    points = problem_a()
    labels = np.array([0.5, -1.0, np.nan])
    found = solve_bayes(data_of(points, labels), settings("A1", "linear"))
    target, source = found.target, found.source
    f = target.kernel[:, points.target] @ target.v
    assert found.values["loss"] == pytest.approx(np.mean((f[points.test] - points.y_test) ** 2))
    assert found.values["train_loss"] == pytest.approx(target.v @ target.v / (5 * 3.0**2))
    assert found.values["source_train_loss"] == pytest.approx(source.v @ source.v / (6 * 4.0**2))
    g = source.kernel[:, points.source] @ source.v
    assert found.values["source_loss"] == pytest.approx(np.mean((g[points.test] - labels)[:2] ** 2)), "labelled ones"
    block = target.kernel[np.ix_(points.target, points.target)]
    aligned = points.y2 @ block @ points.y2 / (points.y2 @ points.y2 * np.linalg.norm(block))
    assert found.values["target_alignment"] == pytest.approx(aligned)
    alone = solve_bayes(data_of(points), settings("A1", "linear", delta=0.0))
    assert found.values["baseline"] == pytest.approx(alone.values["loss"], rel=1e-12)
    assert found.values["gain"] == pytest.approx(alone.values["loss"] - found.values["loss"])
    assert found.values["evidence_gain"] == pytest.approx(alone.values["free_energy"] - found.values["free_energy"])
    assert alone.values["gain"] == alone.values["evidence_gain"] == 0.0


def test_a_source_and_a_target_alone_are_solved_once(monkeypatch):
    calls = []
    monkeypatch.setattr(bayes_transfer, "linear_source", _counted(bayes_transfer.linear_source, calls))
    data = data_of(problem_a())
    for delta in (0.0, 0.5, 3.0, math.inf):
        solve_bayes(data, settings("A1", "linear", delta=delta))
    assert len(calls) == 2, "the source, and the target alone"
    solve_bayes(data, settings("A1", "linear", gamma2=2.0))
    assert len(calls) == 3, "another target alone"
    solve_bayes(data, settings("A1", "linear", gamma0=2.0))
    assert len(calls) == 4, "another source"
    data.y_source = data.y_source + 1.0
    solve_bayes(data, settings("A1", "linear", gamma0=2.0))
    assert len(calls) == 6, "other data"


def _counted(function, calls):
    def call(*arguments):
        calls.append(arguments)
        return function(*arguments)

    return call


def _uncertified(function):
    def call(*arguments, **more):
        return dataclasses.replace(function(*arguments, **more), status=NOT_CONVERGED, message="raise the budget.")

    return call


def test_what_is_not_certified_has_no_number(monkeypatch):
    monkeypatch.setattr(bayes_transfer, "linear_target", _uncertified(bayes_transfer.linear_target))
    found = solve_bayes(data_of(problem_a()), settings("A1", "linear"))
    assert found.status == "not_converged"
    assert found.message == "target: raise the budget."
    for name, needs in NEEDS.items():
        known = "target" not in needs
        assert math.isfinite(found.values[name]) == (known and name != "source_loss"), name
    assert solve_bayes(data_of(problem_a()), settings("A1", "linear", delta=0.0)).status == "converged"


def test_an_unsolved_source_leaves_the_baseline(monkeypatch):
    original = bayes_transfer.linear_source

    def failing(x, rows, y, gamma, beta):
        if len(y) == 6:
            raise ConvergenceError("the chains do not settle.")
        return original(x, rows, y, gamma, beta)

    monkeypatch.setattr(bayes_transfer, "linear_source", failing)
    found = solve_bayes(data_of(problem_a()), settings("A1", "linear"))
    assert found.source is None
    assert found.target is None
    assert "the chains do not settle" in found.message
    assert math.isnan(found.values["loss"])
    assert math.isfinite(found.values["baseline"])


def test_the_same_inputs_are_told():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((4, 6))
    data = SimpleNamespace(
        x_source=x,
        y_source=x[:, 0],
        x_target=x,
        y_target=x[:, 1],
        x_test=rng.standard_normal((5, 6)),
        y_test_source=np.zeros(5),
        y_test_target=np.ones(5),
    )
    results = [
        solve_bayes(data, BayesSettings("linear", 2.0, gamma2, 10.0, math.inf, delta))
        for gamma2, delta in ((0.5, 0.1), (2.0, 3.0))
    ]
    assert results[0].values["loss"] == pytest.approx(results[1].values["loss"], rel=1e-9)
    assert all("cannot depend on delta" in result.info["notes"][0] for result in results)
    assert solve_bayes(data, BayesSettings("linear", 2.0, 0.5, 10.0, 5.0, 0.1)).info["notes"] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta": 0.0}, "beta = 0 is outside its range"),
        ({"beta2": -1.0}, "beta2 = -1 is outside its range"),
        ({"delta": -0.5}, "delta = -0.5 is outside its range"),
        ({"gamma0": math.inf}, "gamma0 = inf is outside its range"),
        ({"gamma2": -1.0}, "gamma2 = -1 is outside its range"),
    ],
)
def test_bad_values_are_refused_at_once(change, message):
    with pytest.raises(DomainError, match=message):
        BayesSettings("linear", **{"gamma0": 1.0, **change})
    with pytest.raises(UsageError, match="did you mean 'tanh'"):
        BayesSettings("tanhh")


def _misfit(y_source):
    """Two source points and five target points in three dimensions; the target's labels are those of no teacher."""
    x = np.random.default_rng(0).standard_normal((12, 3))
    return SimpleNamespace(
        x_source=x[: len(y_source)],
        y_source=y_source,
        x_target=x[5:10],
        y_target=np.arange(5.0),
        x_test=x[10:],
        y_test_source=np.zeros(2),
        y_test_target=np.zeros(2),
    )


def test_a_refused_stage_leaves_what_the_others_find():
    data = _misfit(np.array([1.0, -1.0]))
    found = solve_bayes(data, BayesSettings("linear", beta=5.0, beta2=math.inf))
    assert found.status == "not_converged"
    (reason,) = found.reasons
    assert reason.startswith("target and target alone: beta = inf needs labels that the kernel can fit, but 0.")
    right = solve_bayes(data, BayesSettings("linear", beta=5.0, beta2=5.0))
    for name, needs in NEEDS.items():
        if needs == ("source",):
            assert found.values[name] == right.values[name], name
        else:
            assert math.isnan(found.values[name]), name
    assert found.target is None
    assert found.baseline is None
    (alone,) = solve_bayes(data, BayesSettings("linear", beta=5.0, beta2=math.inf, delta=0.0)).reasons
    assert alone.startswith("target alone: beta = inf"), "at delta = 0 they are one stage"


def test_a_refused_source_leaves_the_target_alone():
    found = solve_bayes(_misfit(np.arange(5.0)), BayesSettings("linear", beta=math.inf, beta2=5.0))
    assert [reason.partition(":")[0] for reason in found.reasons] == ["source", "target"]
    assert "beta = inf needs labels" in found.reasons[0]
    assert "repair the source first" in found.reasons[1]
    assert math.isfinite(found.values["baseline"])
    assert math.isnan(found.values["loss"])


@pytest.mark.parametrize("delta", [0.0, 1.0])
def test_settings_that_no_stage_has_are_refused(delta):
    with pytest.raises(DomainError, match=r"^source: beta = inf needs labels that the kernel can fit, but 0\."):
        solve_bayes(_misfit(np.array([1.0, 2.0, 3.0, 5.0])), BayesSettings("linear", beta=math.inf, delta=delta))


def test_a_tilt_without_normalisation_is_refused():
    b = data_of(problem_b())
    with pytest.raises(DomainError, match="he2 grows faster than linearly"):
        solve_bayes(b, settings("B1", "he2"))


def test_errors_of_the_sampled_route_are_the_documented_bound():
    info = {"error_v": 0.01, "error_kernel": 0.04}
    saddle = Saddle(np.ones(2), np.full(4, 2.0), np.eye(4), 0.0, 0.1, 0.1, "converged", "", info)
    stages = {"source": saddle, "target": saddle, "baseline": saddle}
    values = {**dict.fromkeys(NEEDS, 0.25), "target_overlap": 4.0, "cross_overlap": 0.0}
    found = errors_of(stages, values)
    assert found["loss_se"] == pytest.approx(2 * 0.5 * 2.0 * math.hypot(0.01, 0.04))
    assert found["gain_se"] == 0.0, "at delta = 0 target and target alone are one"
    # The square of v, of which every entry may be wrong by the spread.
    assert found["train_loss_se"] == pytest.approx(0.25 * (1.01**2 - 1), rel=0.01)
    assert found["source_overlap_se"] == pytest.approx(0.25 * 0.04)
    assert found["target_overlap_se"] == pytest.approx(4 * 0.04)
    assert found["cross_overlap_se"] == pytest.approx(math.sqrt(4 * 0.25) * 0.04), "zero itself has an error"
    lazy = dataclasses.replace(saddle, info={}, gap=0.0, gap_floor=0.0)
    assert errors_of({**stages, "source": lazy}, values)["source_overlap_se"] == 0.0, "not sampled"
    assert math.isnan(errors_of({**stages, "source": None}, values)["source_overlap_se"])


def test_the_certificate_is_that_of_the_worst_stage():
    def stage(**info):
        return Saddle(np.ones(1), np.ones(1), np.eye(1), 0.0, 0.1, 0.1, "converged", "", info)

    source = stage(spread_v=0.01, spread_kernel=0.03, round_trips=[3.0, 2.0], ess=[500.0, 400.0])
    target = stage(spread_v=0.02, spread_kernel=0.01, ess_per_neuron=[0.5, 0.3], source_neurons=2048)
    found = certificate_of({"source": source, "target": target, "baseline": source})
    assert found == {"spread_v": 0.02, "spread_kernel": 0.03, "round_trips": 2.0, "ess": pytest.approx(0.3 * 1024)}
    nothing = certificate_of({"source": stage(), "target": None, "baseline": stage()})
    assert list(nothing) == list(found)
    assert all(math.isnan(value) for value in nothing.values())


def test_densities_of_linear_networks_are_those_of_their_kernel():
    points = problem_a()
    problem = BayesProblem.of(data_of(points))
    networks = settings("A1", "linear")
    found = solve_bayes(data_of(points), networks)
    out = densities("linear", problem, networks, found.source, found.target)
    width = np.diff(out["bin_edges"])
    middle = (out["bin_edges"][1:] + out["bin_edges"][:-1]) / 2
    for stage, saddle in (("stage1", found.source), ("stage2", found.target)):
        density = out[f"density_{stage}"]
        assert np.sum(density * width) == pytest.approx(1, abs=1e-4)
        variances = np.diagonal(saddle.kernel)[points.target]
        # A bin's width adds width²/12 to the variance of a histogram.
        assert np.sum(density * middle**2 * width) == pytest.approx(variances.mean() + width[0] ** 2 / 12, rel=2e-3)
        draws = np.random.default_rng(0).standard_normal((400_000, 5)) * np.sqrt(variances)
        kurtosis = np.mean(draws**4) / np.mean(draws**2) ** 2 - 3
        assert float(out[f"excess_kurtosis_{stage}"]) == pytest.approx(kurtosis, abs=0.05)


@pytest.mark.parametrize("phi", ["erf", "relu"])
def test_densities_of_the_quadrature_have_the_moments_of_its_kernel(phi):
    """Neurons drawn at the quadrature's v give its kernel within 4 standard errors; those of γ = 0.5 do not."""
    points, act = problem_b(), activation(phi)
    problem, networks = BayesProblem.of(data_of(points)), settings("B2", phi)
    found = solve_bayes(data_of(points), networks)
    out = densities("quadrature", problem, networks, found.source, found.target)
    for stage in ("stage1", "stage2"):
        assert np.sum(out[f"density_{stage}"] * np.diff(out["bin_edges"])) == pytest.approx(1, abs=0.01)

    def distance(neurons, kernel):
        φ = act.phi(neurons @ points.x.T / np.sqrt(2))
        products = φ[:, :, None] * φ[:, None, :]
        return np.abs(products.mean(axis=0) - kernel) / (products.std(axis=0) / np.sqrt(len(φ)))

    first = source_neurons(act, points.x, points.source, found.source.v, networks.gamma0, 0)
    assert np.all(distance(first, found.source.kernel) < 4)
    assert np.any(
        distance(source_neurons(act, points.x, points.source, found.source.v, 0.5, 0), found.source.kernel) > 8
    )
    more = (networks.second_gamma, networks.delta, first, 1)
    second = target_neurons(act, points.x, points.target, found.target.v, *more)
    assert np.all(distance(second, found.target.kernel) < 4)
    assert np.any(distance(first, found.target.kernel) > 8)


def test_the_sampled_route_agrees_with_the_quadrature(monkeypatch):
    """Problem B by both: free energies to 0.02 nats, overlaps to 3 %; a coupling of zero is five times as far."""
    points = dataclasses.replace(problem_b(), y_test=np.array([1.0, -1.0]))
    exact = solve_bayes(data_of(points), settings("B1", "tanh"))
    monkeypatch.setattr(bayes_transfer, "route_of", lambda act, problem: "sampling")
    found = solve_bayes(data_of(points), settings("B1", "tanh"), BayesNumerics(seed=1, moves=60))
    assert found.status == "converged", found.message
    assert found.info["route"] == "sampling"
    assert 0 < found.gap < 0.02
    for name in ("source_free_energy", "free_energy"):
        assert found.values[name] == pytest.approx(exact.values[name], abs=0.02)
    for name in ("source_overlap", "target_overlap", "cross_overlap", "retained_overlap"):
        assert found.values[name] == pytest.approx(exact.values[name], rel=0.03), name
        assert abs(found.values[name] - exact.values[name]) < 4 * found.errors[f"{name}_se"], name
        assert found.errors[f"{name}_se"] < 0.05 * math.sqrt(exact.values["target_overlap"]), name
    assert exact.values["evidence_gain"] > 0.1
    assert set(found.errors) <= {f"{name}_se" for name in NEEDS}
    assert found.certificate["spread_v"] == max(
        saddle.info["spread_v"] for saddle in (found.source, found.target, found.baseline)
    )
    assert found.certificate["round_trips"] >= 1
    assert all(math.isnan(value) for value in exact.certificate.values()), "nothing is sampled"
    for name in ("loss", "baseline", "train_loss", "source_train_loss"):
        assert abs(found.values[name] - exact.values[name]) < 4 * found.errors[f"{name}_se"]
        assert found.errors[f"{name}_se"] < 0.1 * exact.values[name]
    bayes_transfer._MEMORY.clear()
    alone = solve_bayes(data_of(points), settings("B1", "tanh"), BayesNumerics(seed=1, moves=60, threads=1))
    assert alone.values == found.values, "threads change no number"
