import numpy as np
import pytest

from tests.oracles.boost import run_boost
from tlcli.errors import ConvergenceError, DomainError
from tlcli.linear.linear_transfer import transfer_exact
from tlcli.simulate.regression import draw, train_source
from tlcli.simulate.unreduced import (
    DataStage,
    run_full,
    simulate_curriculum,
    simulate_unreduced,
    teachers_with_gram,
)

DIM = 20
GRAM = np.array([[1.0, 0.6], [0.6, 1.0]])


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("init_scale", [1.0, 0.5])
def test_boost_identity_in_both_stages(decay, init_scale):
    rng = np.random.default_rng(0)
    t1, t2 = teachers_with_gram(rng, GRAM, DIM)
    stages = [
        DataStage(draw(rng, t1, 14, 0.2), 1.5, 3.0, decay),
        DataStage(draw(rng, t2, 30, 0.1), 0.7, 2.0, decay / 2),
    ]
    full = run_full(stages, DIM, init_scale, rtol=1e-13)
    for one, two in zip(full, run_boost(stages, DIM, init_scale, rtol=1e-13), strict=True):
        np.testing.assert_allclose(one.covariance, two.covariance, atol=1e-10)
        np.testing.assert_allclose(one.b, two.b, atol=1e-10)
        assert one.readout == pytest.approx(two.readout, abs=1e-10)
        k = np.linalg.eigvalsh(one.covariance)
        np.testing.assert_allclose(k[:-1], k[0], atol=1e-10)  # a bulk and one spike
    # twin: without the readout's own growth, M + k I instead of M + m I, the identity fails
    assert abs(full[0].readout - init_scale**2 * np.exp(-2 * decay * 3.0)) > 1e-2


@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_first_stage_ends_where_regression_says(decay):
    rng = np.random.default_rng(1)
    data = draw(rng, teachers_with_gram(rng, GRAM, DIM)[0], 10, 0.3)
    end = run_full([DataStage(data, 1.5, np.inf, decay)], DIM)[0]
    expected = train_source(data, 1.5, decay)
    np.testing.assert_allclose(end.beta, expected.beta, atol=1e-5)
    assert np.linalg.eigvalsh(end.covariance)[-1] == pytest.approx(expected.bulk + expected.spike, abs=1e-4)
    middle = run_full([DataStage(data, 1.5, 0.7, decay)], DIM)[0]
    np.testing.assert_allclose(middle.beta, train_source(data, 1.5, decay, t1=0.7).beta, atol=1e-7)


POINT = {"alpha1": 0.5, "alpha2": 0.4, "rho": 0.8, "gamma0": 1.5, "sigma1": 0.2}


def test_frozen_mode_agrees_with_theory():
    run = simulate_unreduced(POINT | {"mode": "frozen", "ridge": 0.1}, dim=100, trials=16, seed=0)
    theory = transfer_exact(**POINT, ridge=0.1)
    for name in ("loss", "baseline", "gain"):
        assert abs(run[name].mean - float(getattr(theory, name))) <= 4 * run[name].se, name


def test_same_task_twice_starts_where_it_ended():
    run = simulate_unreduced(POINT | {"rho": 1.0, "alpha1": np.inf, "sigma1": 0.0}, dim=40, trials=2, seed=0)
    assert run["loss"].mean == pytest.approx(0, abs=1e-6)
    assert run["source_loss"].mean == pytest.approx(0, abs=1e-6)
    assert run["baseline"].mean > 0.3


def test_two_stages_are_a_curriculum_of_two():
    point = POINT | {"t1": 2.0, "t2": 1.5, "gamma2": 0.8, "rho": 0.6, "weight_decay": 0.1}
    run = simulate_unreduced(point, dim=30, trials=3, seed=4)
    stages = [
        {"teacher": 0, "alpha": 0.5, "gamma": 1.5, "time": 2.0, "sigma": 0.2, "weight_decay": 0.1},
        {"teacher": 1, "alpha": 0.4, "gamma": 0.8, "time": 1.5},
    ]
    loss = simulate_curriculum(stages, GRAM, dim=30, trials=3, seed=4)["loss"].mean
    expected = [run["source_loss_before"].mean, run["source_loss"].mean, run["loss"].mean]
    np.testing.assert_allclose([loss[0, 0], loss[1, 0], loss[1, 1]], expected, rtol=1e-7)


def test_joint_agrees_with_theory():
    stages = pytest.importorskip("tlcli.linear.stages")
    point = {"alpha1": 0.5, "alpha2": 0.6, "rho": 0.7, "sigma1": 0.3, "sigma2": 0.2, "t1": 3.0, "t2": 2.0}
    run = simulate_unreduced(point | {"gamma0": 1.2, "gamma2": 0.8, "weight_decay": 0.05}, dim=100, trials=24, seed=1)
    theory = stages.joint(point.pop("alpha1"), point.pop("alpha2"), **point, gamma1=1.2, gamma2=0.8, weight_decay1=0.05)
    assert abs(run["loss"].mean - float(theory.loss)) <= 4 * run["loss"].se + 0.5 / 100
    # twin: stage 2 alone
    assert abs(run["baseline"].mean - float(theory.loss)) > 6 * run["baseline"].se


def test_errors(monkeypatch):
    with pytest.raises(DomainError, match="init_scale = 0"):
        simulate_unreduced(POINT | {"init_scale": 0.0}, dim=10, trials=1, seed=0)
    with pytest.raises(DomainError, match="mode = 'loose'"):
        simulate_unreduced(POINT | {"mode": "loose"}, dim=10, trials=1, seed=0)
    with pytest.raises(DomainError, match="teacher = 2"):
        simulate_curriculum([{"teacher": 2, "alpha": 1.0, "gamma": 1.0}], GRAM, dim=10, trials=1, seed=0)
    for gram in ([[1.0, 1.2], [1.2, 1.0]], [[2.0]], [[1.0, 0.1], [0.2, 1.0]]):
        with pytest.raises(DomainError, match="Gram matrix"):
            teachers_with_gram(np.random.default_rng(0), np.array(gram), 10)
    monkeypatch.setattr("tlcli.simulate.unreduced.MAX_STEPS", 3)
    with pytest.raises(ConvergenceError, match="did not settle within 3 steps"):
        simulate_unreduced(POINT, dim=10, trials=1, seed=0)
