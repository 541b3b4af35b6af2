"""Tasks of many draws are those that a list holds, and a plan of them makes none."""

import pytest

from tlcli.options.commands import COMMANDS
from tlcli.run.job import prepare
from tlcli.sweep import runner
from tlcli.sweep.drawn import Drawn, of_points, per_point, together
from tlcli.sweep.runner import Task, left_of, plan
from tlcli.sweep.store import PointStore
from tlcli.theories.bayes.cost import cost_of

POINTS, DRAWS = 3, 4


def task(point, draw, value=None):
    parameters = {"value": point if value is None else value, "draw": draw, "keep": draw == 0}
    return Task("mine:point", parameters, 7, point, draw)


def drawn(slowest=False, values=range(POINTS)):
    return Drawn([task(i, 0, value) for i, value in enumerate(values)], DRAWS, {"keep": False}, slowest)


@pytest.mark.parametrize("slowest", [False, True])
def test_the_tasks_of_draws_are_those_of_a_list(slowest):
    every = [task(point, draw) for point in range(POINTS) for draw in range(DRAWS)]
    if slowest:
        every.sort(key=lambda one: one.draw)
    found = drawn(slowest)
    assert list(found) == every
    assert len(found) == POINTS * DRAWS
    assert found[-1] == every[-1]
    assert found[1:9:3] == every[1:9:3]
    with pytest.raises(IndexError):
        found[POINTS * DRAWS]
    assert list(found) != [task(point, 0) for point in range(POINTS) for _ in range(DRAWS)]


def test_parts_stand_together_where_they_have_the_same_draws():
    one, other = drawn(), drawn(values=[5, 6])
    both = together([one, other])
    assert isinstance(both, Drawn)
    assert list(both) == [*one, *other]
    assert together([one, list(other)]) == [*one, *other]
    assert together([one, drawn(slowest=True)]) == [*one, *drawn(slowest=True)]
    assert per_point(one) == [task(point, 0) for point in range(POINTS)]
    assert list(of_points(one, per_point(one)[1:2])) == [task(1, draw) for draw in range(DRAWS)]


@pytest.mark.parametrize("shard", [None, (1, 3)])
@pytest.mark.parametrize("stored", [None, 0, 2])
@pytest.mark.parametrize("values", [range(POINTS), [0, 1, 1.0]])
def test_a_plan_of_draws_is_that_of_their_list(values, stored, shard, tmp_path):
    tasks, store = drawn(values=values), None
    if stored is not None:
        store = PointStore(tmp_path / "store", "mine", "1")
        for one in tasks[:stored]:
            store.put(store.key(one.parameters, one.seed), {"value": 1.0})
    assert plan(tasks, store, shard) == plan(list(tasks), store, shard)
    key = "draw"
    found, expected = left_of(tasks, store, shard), left_of(list(tasks), store, shard)
    assert sorted((t.parameters["value"], t.parameters[key]) for t in found) == sorted(
        (t.parameters["value"], t.parameters[key]) for t in expected
    )


def test_a_store_that_is_computed_anew_is_empty(tmp_path):
    store = PointStore(tmp_path / "store", "mine", "1")
    assert store.empty()
    store.put(store.key({"value": 1}, 0), {"value": 1.0})
    assert not store.empty()
    assert not PointStore(tmp_path / "store", "mine", "1").empty()
    assert PointStore(tmp_path / "store", "mine", "1", force=True).empty() == (
        not PointStore(tmp_path / "store", "mine", "1", force=True).has(store.key({"value": 1}, 0))
    )


def test_a_plan_of_a_million_draws_makes_no_million_keys(monkeypatch):
    counted = []
    made = runner.canonical_json
    monkeypatch.setattr(runner, "canonical_json", lambda value: counted.append(1) or made(value))
    tasks = Drawn([task(point, 0) for point in range(POINTS)], 10**6, {"keep": False})
    assert plan(tasks, None) == (POINTS * 10**6, 0)
    assert len(left_of(tasks, None)) == POINTS * 10**6
    assert 0 < len(counted) <= 2 * POINTS


def test_bayesian_draws_cost_what_their_stages_cost():
    flags = {"source": "linear", "target": "linear", "gamma0": "0.5,2", "delta": "0,1,inf", "draws": 3, "dim": 5}
    flags |= {"p1": "10", "p2": "5"}
    job = prepare("bayes-saddle", COMMANDS["bayes-saddle"].options, None, flags)
    tasks = job.cases[0].theory.tasks(job.cases[0], 0)
    one, other = cost_of(tasks), cost_of(list(tasks))
    assert one.stages == other.stages
    assert (one.seconds, one.most, one.size) == pytest.approx((other.seconds, other.most, other.size))
    assert cost_of(tasks.first).seconds == pytest.approx(other.seconds / 3)
