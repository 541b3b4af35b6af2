"""Finite classifiers against the theory of infinite dimension, and against scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tests.cli.conftest import call
from tlcli.errors import DomainError, UsageError
from tlcli.linear.classify.label_transfer import transfer_labels
from tlcli.linear.classify.readout import classify
from tlcli.simulate.classification import (
    fit_classifier,
    fresh,
    signs,
    simulate_classification,
    simulate_classification_ansatz,
)

DIM, TRIALS = 60, 16


def data(samples, dim, flips=0.0, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((samples, dim))
    return z, signs(rng, z[:, 0], 0.3, flips)


@pytest.mark.parametrize("shape", [(60, 30), (20, 40)])
def test_logistic_readout_is_scikit_learns(shape):
    z, y = data(*shape)
    model = LogisticRegression(C=1 / (0.1 * len(y)), fit_intercept=False, tol=1e-10, max_iter=10_000).fit(z, y)
    np.testing.assert_allclose(fit_classifier("logistic", z, y, 0.1), model.coef_[0], atol=1e-6)


@pytest.mark.parametrize("loss", ["logistic", "square", "hinge"])
def test_no_step_lowers_the_objective(loss):
    z, y = data(80, 12, 0.1)
    ell = {
        "logistic": lambda u: np.logaddexp(0, -u),
        "square": lambda u: 0.5 * (1 - u) ** 2,
        "hinge": lambda u: np.maximum(0, 1 - u),
    }[loss]

    def height(theta):
        return np.mean(ell(y * (z @ theta))) + 0.05 * theta @ theta

    theta = fit_classifier(loss, z, y, 0.1)
    steps = 1e-3 * np.random.default_rng(1).standard_normal((200, 12))
    assert min(height(theta + step) for step in steps) > height(theta)


def test_maximum_margin():
    z, y = data(20, 40)
    theta = fit_classifier("margin", z, y, 0.0)
    u = y * (z @ theta)
    assert u.min() == pytest.approx(1, abs=1e-9)
    support = u < 1 + 1e-8
    multipliers = np.linalg.lstsq((z * y[:, None])[support].T, theta, rcond=None)[0]
    assert np.all(multipliers > 0)  # Karush, Kuhn, Tucker
    np.testing.assert_allclose((z * y[:, None])[support].T @ multipliers, theta, atol=1e-8)
    assert np.isnan(fit_classifier("margin", *data(100, 10, 0.3), 0.0)).all()
    np.testing.assert_allclose(fit_classifier("hinge", z, y, 1e-3), theta, atol=1e-5)


def test_fresh_points_by_drawing_them():
    rng = np.random.default_rng(2)
    teacher, beta = np.array([1.0, 0.0, 0.0]), np.array([0.8, -0.5, 0.3])
    x = rng.standard_normal((400_000, 3))
    y, f = signs(rng, x @ teacher, 0.4, 0.1), x @ beta
    found = fresh(beta, teacher, 0.4, 0.1)
    for name, sample in (
        ("error", f * (x @ teacher) < 0),
        ("noisy_error", y * f < 0),
        ("log_loss", np.logaddexp(0, -y * f)),
        ("square_loss", (y - f) ** 2),
    ):
        assert abs(found[name] - sample.mean()) < 4 * sample.std() / np.sqrt(len(x)), name


def draws(count=60, seed=5):
    """Return random points of all losses."""
    g = np.random.default_rng(seed)
    for i in range(count):
        loss = ("logistic", "square", "logistic", "hinge", "margin")[i % 5]
        margin = loss == "margin"
        yield {
            "alpha1": float(np.round(g.choice([0.5, 2.0, 3.0, np.inf]), 2)),
            "alpha2": float(np.round(g.uniform(0.5, 1.5 if margin else 3), 1)),
            "rho": float(g.uniform(-1, 1)),
            "gamma0": float(g.uniform(0.2, 4)),
            "loss": loss,
            "ridge": 0.0 if margin else float(10 ** g.uniform(-2, 0.5)),
            "sigma1": float(g.choice([0.0, 0.5])),
            "flips1": float(g.choice([0.0, 0.1])),
            "sigma2": 0.0 if margin else float(g.choice([0.0, 0.5])),
            "flips2": 0.0 if margin else float(g.choice([0.0, 0.1])),
        }


def theory(point, **change):
    p = {**point, **change}
    alphas = p.pop("alpha1"), p.pop("alpha2")
    x = transfer_labels(*alphas, **p)
    return {
        "error": x.target.error,
        "gain": x.gain,
        "square_loss": x.target.square_loss,
        "log_loss": x.target.log_loss,
        "readout_norm2": x.target.norm2,
    }


@pytest.fixture(scope="module")
def measured():
    return [(point, simulate_classification(point, dim=DIM, trials=TRIALS, seed=i)) for i, point in enumerate(draws())]


def distances(measured, name, **change):
    """Differences in standard errors, beyond a bias of 1/D in errors, 0.1/D in gains, 3/D relative in losses."""
    out = []
    for point, found in measured:
        expected = float(theory(point, **change)[name])
        bias = {"error": 1.0, "gain": 0.1}.get(name, 3 * abs(expected)) / DIM
        excess = max(abs(found[name].mean - expected) - bias, 0.0)
        out.append(excess / found[name].se)
    return np.array(out)


@pytest.mark.parametrize("name", ["error", "gain", "square_loss", "log_loss", "readout_norm2"])
def test_sixty_random_points(measured, name):
    """Within four standard errors of 16 trials each."""
    assert distances(measured, name).max() < 4


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("gain", {"flips1": 0.3}),  # the source's flips
        ("gain", {"labels": "real", "flips1": 0.0}),  # signs taken for real labels
        ("log_loss", {"flips2": 0.0}),
        ("error", {"loss": "square", "ridge": 0.1}),
    ],
)
def test_a_wrong_formula_fails(measured, name, change):
    assert distances([(p, f) for p, f in measured if p["loss"] != "margin"], name, **change).max() > 6


def test_the_bias_falls_as_one_over_the_dimension():
    """About 0.8/D in error at alpha = 0.3, bulk 0.2; 1200 and 800 trials, within 4 standard errors."""
    point = {"alpha2": 0.3, "rho": 0.3, "c_signal": 2.0, "c_cross": 0.0, "c_noise": 0.0, "bulk": 0.2, "ridge": 0.05}
    limit = float(classify(0.3, [2.0], [0.09], bulk=0.2, ridge=0.05).error)
    scaled = []
    for dim, trials in ((40, 1200), (80, 800)):
        found = simulate_classification_ansatz(point, dim=dim, trials=trials, seed=9)["error"]
        scaled.append(((found.mean - limit) * dim, found.se * dim))
    (first, error1), (second, error2) = scaled
    assert abs(first - second) < 4 * np.hypot(error1, error2)
    assert first > 8 * error1  # there is a bias
    assert abs(first - second / 2) > 3 * np.hypot(error1, error2 / 2), "nor does it fall as 1/D^2"


def test_from_the_command_line_and_judged(tmp_path):
    out = tmp_path / "out"
    command = "finetune-loss --solver linear-classify --alpha1 2 --alpha2 0.5,1 --gamma0 2 --rho 0.9 --flips2 0.05"
    done = call(f"{command} --ridge 0.1 --simulate --dim 60 --trials 12 -o {out}")
    assert done.code == 0, done.err
    judged = call(f"check {out}")
    assert judged.code == 0, judged.out
    assert "sim_error,sim_error_se" in (out / "table.csv").read_text()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--ridge 1 --gamma0 inf", "no gamma0 = inf; it needs a finite one"),
        ("--ridge 1 --init-scale 0", "no init_scale = 0; it needs a positive one"),
        ("--ridge 1 --dim 2 --alpha2 0.1", "leaves the experiment no sample at D = 2"),
    ],
)
def test_what_the_experiment_refuses(flags, sentence):
    done = call(f"finetune-loss --solver linear-classify --simulate {flags} -o -")
    assert done.code == 2
    assert sentence in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        "--alpha1 2 --alpha2 0.5 --gamma0 2 --flips2 0.1 --ridge best",
        "--alpha1 2 --alpha2 0.5,4 --gamma0 2 --flips2 0.1 --ridge 0",
        "--alpha1 2 --alpha2 0.5,4 --gamma0 2 --flips2 0.1 --ridge 0 --loss hinge",
        "--alpha2 0.5 --spikes 5,2,1 --overlaps 0.6,-0.4,0.2 --ridge 0.1",
        "--alpha1 2 --alpha2 0.5 --gamma0 2 --loss square --times 1,10,inf --ridge 0.1",
    ],
)
def test_best_ridges_none_spikes_and_times_are_judged(tmp_path, arguments):
    command = f"finetune-loss --solver linear-classify {arguments} --simulate --trials 12 --dim 60 -o {tmp_path}/out"
    assert call(command).code == 0
    judged = call(f"check {tmp_path}/out")
    assert judged.code == 0, judged.out
    assert "comparisons" in judged.out


@pytest.mark.parametrize("loss", ["logistic", "hinge"])
def test_without_ridge_separable_labels_have_the_maximum_margin_and_others_the_optimum(loss):
    z, y = data(20, 30, 0.0)
    margin = fit_classifier("margin", z, y, 0.0)
    np.testing.assert_allclose(fit_classifier(loss, z, y, 0.0), margin, rtol=1e-6)
    z, y = data(200, 10, 0.3)
    free = fit_classifier(loss, z, y, 0.0)
    tiny = fit_classifier(loss, z, y, 1e-4)
    np.testing.assert_allclose(free, tiny, rtol=0.05, atol=0.02)
    u = y * (z @ free)
    ell = {"logistic": np.logaddexp(0, -u), "hinge": np.maximum(0, 1 - u)}[loss].mean()
    for other in (0.98 * free, 1.02 * free, free + 0.02, tiny):
        v = y * (z @ other)
        assert {"logistic": np.logaddexp(0, -v), "hinge": np.maximum(0, 1 - v)}[loss].mean() >= ell - 1e-9


def test_stopped_gradient_flow_is_many_small_steps():
    z, y = data(15, 25, 0.1)
    theta = np.zeros(25)
    for _ in range(4000):
        theta += 5e-4 * (z.T @ (y - z @ theta) / 15 - 0.1 * theta)
    np.testing.assert_allclose(fit_classifier("square", z, y, 0.1, 2.0), theta, rtol=0.01, atol=1e-4)
    whole = fit_classifier("square", z, y, 0.1)
    np.testing.assert_allclose(fit_classifier("square", z, y, 0.1, 1e6), whole, rtol=1e-8)


def test_bad_points():
    with pytest.raises(UsageError, match="Unknown parameter 'ridges'"):
        simulate_classification({"alpha1": 1, "alpha2": 1, "ridges": 1}, dim=10, trials=2, seed=0)
    with pytest.raises(DomainError, match="alpha2 = inf has no classification experiment"):
        simulate_classification({"alpha1": 1, "alpha2": np.inf}, dim=10, trials=2, seed=0)
    bad = {"alpha2": 1, "c_signal": -2, "c_cross": 0, "c_noise": 0}
    with pytest.raises(DomainError, match="bulk \\+ C has the eigenvalue -1"):
        simulate_classification_ansatz(bad, dim=10, trials=2, seed=0)
