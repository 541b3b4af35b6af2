"""The time of networks, from two repeats of a few points: what a machine takes is replaced by a rule."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tlcli.dmft.deep import solve
from tlcli.dmft.deep.field import DeepField
from tlcli.dmft.estimates import small_sample
from tlcli.dmft.network_transfer import planned
from tlcli.options.commands import COMMANDS
from tlcli.run.job import prepare
from tlcli.run.solve import planned as planned_experiments
from tlcli.simulate.steps import Trainer, checked
from tlcli.sweep.runner import evaluate
from tlcli.theories.network import cost, experiment
from tlcli.theories.network.points import data_of, numerics_of, settings_of

FLAGS = {"source": "linear", "target": "hermite:2", "dim": 4, "p1": 8, "p2": 6, "ptest": 20, "t1": 2, "t2": 2}


@pytest.fixture
def looks(monkeypatch):
    """Let a point take (repeats + 0.6)(1 + neurons/100) gamma2 seconds on one thread; return what was looked at."""
    seen = []

    def seconds(task, p):
        repeats, neurons = p.get("repeats") or 8, p.get("neurons") or 512
        seen.append((p["gamma2"], repeats, neurons))
        return (repeats + 0.6) * (1 + neurons / 100) * p["gamma2"]

    monkeypatch.setattr(cost, "_look", lambda task, p: ({}, seconds(task, p)))
    monkeypatch.setattr(cost, "_limited", lambda task, p, tell: seconds(task, p))
    monkeypatch.setattr(cost, "thread_count", lambda: 1)
    return seen


def expected(**flags):
    job = prepare("dmft-solve", COMMANDS["dmft-solve"].options, None, {**FLAGS, **flags})
    (case,) = job.cases
    tasks = list(case.theory.tasks(case, 0))
    return cost.expected_seconds(tasks), tasks


@pytest.mark.parametrize(("flags", "neurons", "repeats"), [({}, 512, 8), ({"neurons": 256, "repeats": 4}, 256, 4)])
def test_points_and_repeats_are_counted(looks, monkeypatch, flags, neurons, repeats):
    monkeypatch.setattr(cost, "_LONG", 1e6)
    found, _ = expected(gamma2="1,2,3,4,5,6", activation="relu", **flags)
    truth = sum((repeats + 0.6) * (1 + neurons / 100) * g for g in range(1, 7))
    assert found == pytest.approx(truth, rel=0.15), "the middle of each third stands for it"
    assert max(p for _, p, _ in looks) == 2, "never more than two repeats"
    assert len({g for g, *_ in looks}) == 3


def test_what_takes_long_is_looked_at_with_few_neurons(looks):
    found, _ = expected(gamma2="0.3", activation="relu", neurons=4096, repeats=8)
    assert max(n for *_, n in looks) < 1000
    assert found == pytest.approx((8 + 0.6) * (1 + 4096 / 100) * 0.3)
    looks.clear()
    found, _ = expected(gamma2="9", activation="relu", neurons=4096, repeats=8)
    assert [n for *_, n in looks] == [64], "too long for another look: all is taken to grow with the neurons"
    assert 1 < found / ((8 + 0.6) * (1 + 4096 / 100) * 9) < 64


@pytest.mark.parametrize("missed", [0.5, 1.2, 2.0, 100.0])
def test_an_accuracy_that_will_be_missed_costs_a_second_solution(looks, monkeypatch, missed):
    """All neurons would miss the accuracy by a factor; a look of two repeats with fewer neurons foresees it."""
    flags = {"gamma2": "1", "activation": "relu", "accuracy": "0.003"}
    (case,) = prepare("dmft-solve", COMMANDS["dmft-solve"].options, None, {**FLAGS, **flags}).cases
    p = next(iter(case.theory.tasks(case, 0))).parameters
    problem, numerics = (data_of(p), settings_of(p)), numerics_of(p)
    chosen = planned(*problem, numerics)
    second = planned(*problem, replace(numerics, accuracy=0.003 * max(0.4, 1 / missed)))
    assert second.neurons > chosen.neurons or missed < 1.25

    def look(task, p):
        repeats, neurons = p["repeats"], p["neurons"]
        less = math.sqrt(chosen.repeats * chosen.neurons / (repeats * neurons))
        reached = 0.003 * missed * less * small_sample(repeats) / small_sample(chosen.repeats)
        return {"info": {"reached": reached}}, (repeats + 0.6) * neurons / 1000 * p["gamma2"]

    monkeypatch.setattr(cost, "_look", look)
    found, _ = expected(**flags)
    neurons = chosen.neurons + (second.neurons if missed > 1.25 else 0)
    assert found == pytest.approx((chosen.repeats + 0.6) * neurons / 1000)


def test_threads_share_the_repeats(looks, monkeypatch):
    monkeypatch.setattr(cost, "_LONG", 1e6)
    one, _ = expected(gamma2="1", activation="relu")
    monkeypatch.setattr(cost, "thread_count", lambda: 4)
    four, _ = expected(gamma2="1", activation="relu")
    assert four / one == pytest.approx((2 + 0.6) / (1 + 0.6) / ((8 + 0.6) / (2 + 0.6)))


def test_nothing_left_takes_no_time():
    assert cost.expected_seconds([]) == 0.0


def test_lazy_and_exact_networks_are_solved_as_they_are(looks):
    found, _ = expected(gamma0="0", gamma2="2", activation="linear", depth="2")
    assert found == pytest.approx((8 + 0.6) * (1 + 512 / 100) * 2)


def test_networks_of_finite_width_take_their_number_of_trainings(monkeypatch):
    seen = []

    def evaluate(function, p, seed):
        seen.append(p)
        loading = 1.0 if len(seen) == 1 else 0.0
        return {}, loading + 0.1 + 3 * 5.0 * p["times2"][-1] / 8.0  # three trainings of 5 s, and a start

    monkeypatch.setattr(experiment, "evaluate", evaluate)
    p = {"times1": [], "times2": [1.0, 8.0], "nets": 10, "width": 100, "p1": 5, "p2": 5, "dt": None, "data_seed": 0}
    seconds, size = experiment.expected_cost(p)
    assert seconds == pytest.approx(1.5 * 5.0 * 12, rel=0.02), "half-way to half the step"
    assert size > 0
    assert all(call["nets"] == 1 and call["times2"][-1] < 1 for call in seen)
    experiment.expected_cost({**p, "dt": 0.5})
    assert [call["times2"] for call in seen[-3:]] == [[0.5], [0.5], [0.5, 1.5]], "whole steps, more of them"


def test_networks_whose_records_cost_or_that_take_few_steps_are_known_to_a_factor_of_two(monkeypatch):
    """A record of every network costs 0.2 s, and a step of 0.5 costs 0.1 s: parts of 2 and 6 % have one each."""

    def spent(times):
        return 3 * (0.2 * len(times) + 0.1 * math.ceil(times[-1] / 0.5))

    monkeypatch.setattr(experiment, "evaluate", lambda function, p, seed: ({}, spent(p["times2"])))
    p = {"times1": [], "times2": [1.0, 4.0, 6.0], "nets": 10, "width": 9, "p1": 5, "p2": 5, "dt": None, "data_seed": 0}
    truth = spent(p["times2"]) / 3 * 12
    assert truth / 2 < experiment.expected_cost(p)[0] < 2 * truth
    assert not truth / 2 < 3 * 0.3 + 12 * 0.0 < 2 * truth, "what the shortest part alone would say"


@pytest.mark.parametrize("needed", [0, 1, 2])
@pytest.mark.parametrize("loss", [{}, {"loss": "logistic"}])
def test_networks_that_train_fast_choose_their_step_for_the_dry_run(monkeypatch, needed, loss):
    """Work is networks times steps: of the whole training it is what the rehearsal says, however often steps halve."""
    work, found = [0.0], {}

    def train(numbers, halvings):
        work[0] += 0.05 * len(numbers) * 2**halvings
        value = np.array([[1.0 + 0.5 ** min(halvings, needed + 0.0)] for _ in numbers])
        return {"loss": value + 1e-9 * np.arange(len(numbers))[:, None]}

    monkeypatch.setattr("tlcli.simulate.two_layer.trainer", lambda *_: Trainer(train, lambda found: found))
    networks = SimpleNamespace(train=train, losses=lambda found: found)
    monkeypatch.setattr("tlcli.simulate.loss_networks.networks_of", lambda *_: networks)
    monkeypatch.setattr(experiment.time, "perf_counter", lambda: work[0])
    monkeypatch.setattr(experiment, "evaluate", lambda *_: ({}, 0.15))
    flags = {**FLAGS, "gamma2": "1", "simulate": True, "width": "16", "nets": "12", **loss}
    flags |= {"source": "sign:linear", "target": "sign:linear"} if loss else {}
    job = prepare("dmft-solve", COMMANDS["dmft-solve"].options, None, flags)
    ((_, _, (task, *_)),) = planned_experiments(job.cases[0], job.settings)
    seconds, _ = experiment.expected_cost(task.parameters)
    work[0] = 0.0
    found, _ = checked(Trainer(train, lambda found: found), 12, None)
    assert len(found["loss"]) == 12
    assert seconds == pytest.approx(work[0])


def test_a_dry_run_says_a_time(tmp_path, capsys):
    from tlcli.run.execute import execute

    flags = {**{name: str(value) for name, value in FLAGS.items()}, "neurons": "32", "repeats": "2", "accuracy": "1"}
    flags |= {"simulate": True, "width": "16", "nets": "2", "dry_run": True, "output": str(tmp_path / "r")}
    assert execute("dmft-solve", COMMANDS["dmft-solve"].options, None, flags) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "1 point and draw of the data, 0 already stored" in lines[1]
    assert "on 1 worker" in lines[2]
    assert lines[3].startswith("  experiments: 1 point, ")
    assert "on 1 worker" in lines[4]
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    "flags", [{}, {"responses": True}, {"neurons": "300"}, {"depth": "3", "dim": "3", "repeats": "2"}]
)
def test_the_work_of_a_deep_network_is_that_of_its_looks(flags, monkeypatch):
    """Not seconds, but passes through the network times neurons and points, of the looks and of the whole run."""
    work, forward = [0.0], DeepField.forward

    def counted(self, t, weights):
        found = forward(self, t, weights)
        work[0] += found.phi[-1].size
        return found

    def of(task, p):
        before = work[0]
        record, _ = evaluate(task.function, {**p, "threads": 1}, task.seed)
        assert record["status"] == "converged", record["message"]
        return record, work[0] - before

    def limited(task, p, tell):
        record, found = of(task, p)
        tell(task, record)
        return found

    monkeypatch.setattr(DeepField, "forward", counted)
    monkeypatch.setattr(solve, "LEAST", 128)
    monkeypatch.setattr(cost, "_FEW_DEEP", 128)
    monkeypatch.setattr(cost, "_limited", limited)
    monkeypatch.setattr(cost, "thread_count", lambda: 1)
    monkeypatch.setattr(cost, "_LONG", np.inf)
    flags = {"activation": "tanh", "depth": "2", "accuracy": "0.1", "repeats": "3", **flags}
    found, (task,) = expected(**flags)
    looked = work[0]
    record, truth = of(task, task.parameters)
    assert (record["info"]["neurons"] > 256) or "neurons" in flags, "more than the first repeat had"
    assert truth / 2 < found < 2 * truth
    assert looked < truth


def test_a_look_at_a_deep_network_ends(monkeypatch):
    found, tasks = expected(gamma2="1", activation="relu", depth=2, neurons=200, repeats=8)
    assert 0 < found < 600
    monkeypatch.setattr(cost, "LIMIT", 0.01)
    assert cost.expected_seconds(tasks) == np.inf
    (case,) = prepare("dmft-solve", COMMANDS["dmft-solve"].options, None, {**FLAGS, "depth": 2}).cases
    assert case.theory.estimate(case, tasks, tasks, 1)[0].startswith("more than 60 s on 1 worker, ")
