"""Stored records whose checksum is valid but which are not whole: refused, or of no consequence, for every value."""

import copy
from itertools import chain

import numpy as np
import pytest

from tests.theories.records import placed
from tlcli.run.solve import planned
from tlcli.sweep.forms import WRONG, check_of
from tlcli.sweep.grids import parse_values
from tlcli.sweep.runner import evaluate
from tlcli.theories.base import PointByPoint
from tlcli.theories.bayes.results import ERRORS
from tlcli.theories.network.points import pack, unpack

_NET = {
    "source": "linear",
    "target": "hermite:2",
    "dim": "3",
    "ptest": "6",
    "t1": "0.3",
    "t2": "0.2",
    "times": "0,0.1",
    "neurons": "32",
    "p1": "3",
    "p2": "3",
    "repeats": "2",
}
_WIDE = {"simulate": True, "width": "8", "nets": 3}
_BAYES = {"source": "linear", "target": "linear", "dim": "3", "p1": "4", "p2": "3", "ptest": "8"}
_LINEAR = {"simulate": True, "dim": 8, "trials": 2, "alpha1": "1", "gamma0": "1"}
_TIMED = {**_LINEAR, "t1": "0.3", "times": "0.2", "alpha2": "0.5"}
_STAGES = {
    "command": "finetune-loss",
    "solver": "linear-joint",
    "simulate": True,
    "dim": 8,
    "trials": 2,
    "stages": [
        {"teacher": 1, "alpha": 2, "gamma": 1, "duration": 0.2},
        {"teacher": 2, "alpha": 1, "gamma": 1, "duration": 0.2},
    ],
    "gram": [[1, 0.5], [0.5, 1]],
}
FAMILIES = {
    "network-rich": ("dmft-solve", {**_NET, **_WIDE}),
    "deep": ("dmft-solve", {**_NET, "depth": "2"}),
    "frozen layers": ("dmft-solve", {**_NET, "freeze": "1"}),
    "lazy": ("dmft-solve", {**_NET, "gamma0": "0", "neurons": None, "repeats": None}),
    "network-frozen": ("finetune-loss", {**_NET, **_WIDE, "solver": "network-frozen", "draws": 2, "times": None}),
    "network, pre-training": (
        "pretrain-kernel",
        {**_NET, "p2": None, "t1": None, "t2": None, "model": "network"},
    ),
    "bayes-linear": ("bayes-saddle", {**_BAYES, "activation": "linear", "draws": 2, **_WIDE}),
    "bayes-network": ("bayes-saddle", {**_BAYES, "activation": "tanh", "dim": "2"}),
    "regression": ("finetune-loss", {**_LINEAR, "alpha2": "0.5"}),
    "population": ("finetune-loss", {**_TIMED, "experiment": "population"}),
    "network": ("finetune-loss", {**_TIMED, "experiment": "network", "width": "8"}),
    "ansatz": ("finetune-loss", {**_LINEAR, "solver": "linear-ansatz", "c_signal": "1", "alpha2": "0.5"}),
    "two-time": (
        "finetune-loss",
        {"solver": "linear-two-time", "alpha2": "0.5", "times": "1", "simulate": True, "dim": 8, "trials": 2},
    ),
    "structured": (
        "finetune-loss",
        {"solver": "linear-structured", "p1": "6", "p2": "3", "dim": 8, "simulate": True, "trials": 2},
    ),
    "joint": ("finetune-loss", {**_TIMED, "solver": "linear-joint", "t1": "1", "times": "1"}),
    "joint network": ("finetune-loss", {**_TIMED, "solver": "linear-joint", "experiment": "network", "width": "8"}),
    "curriculum": (None, _STAGES),
    **{
        f"pre-training, {name}": (
            "pretrain-kernel",
            {**_LINEAR, "times": "0.3", "experiment": name, **({"width": "8"} if name == "network" else {})},
        )
        for name in ("regression", "population", "network")
    },
}


def places(value, path=()):
    """Yield the path to every value of a record, of a list to its first and its last."""
    if path:
        yield path
    if isinstance(value, dict):
        yield from chain(*(places(inner, (*path, name)) for name, inner in value.items()))
    elif isinstance(value, list):
        yield from chain(*(places(value[i], (*path, i)) for i in sorted({0, len(value) - 1}) if value))


def changed(record, path, change):
    """Return a copy with one value changed or, for `del`, without it."""
    out = copy.deepcopy(record)
    *way, last = path
    inner = out
    for step in way:
        inner = inner[step]
    if change is del_:
        del inner[last]
    else:
        inner[last] = change(inner[last])
    return out


def del_(value):
    raise AssertionError


CHANGES = [
    del_,
    lambda value: None,
    lambda value: True,
    lambda value: [value],
    lambda value: {"a": value},
    lambda value: [],
    lambda value: 0.5 if isinstance(value, str) else "0.5",
]


def seen(case, experiment, records):
    """Return what of the records of one point reaches the table and the user."""
    if experiment is not None:
        merged = experiment.merge(case, placed(records, len(records)))
        return {name: np.asarray(value) for name, value in (merged or {}).items()}
    found = case.theory.combine(case, placed(records, len(records)))
    arrays = {name: array for part in found.arrays for name, array in (part or {}).items()}
    layers = {f"layers of {name}": array for part in found.layers for name, array in (part or {}).items()}
    words = {"told": [*found.messages, *found.notes, found.reached]}
    return {name: np.asarray(value) for name, value in {**found.columns, **arrays, **layers, **words}.items()}


def same(one, other):
    return one.keys() == other.keys() and all(
        a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        for a, b in ((one[name], other[name]) for name in one)
    )


def asked(case):
    """Return every family of tasks of a case, an experiment's with the experiment."""
    theory = [(None, case.theory.tasks(case, 0))] if isinstance(case.theory, PointByPoint) else []
    width = parse_values("8", "width")
    settings = {"seed": 0, "dim": 8, "trials": 2, "width": width}
    return theory + [(experiment, tasks) for _, experiment, tasks in planned(case, settings)]


def passes(check, task, record):
    try:
        check(task.parameters, record)
    except WRONG:
        return False
    return True


def may_change(path, change):
    """Whether a record may be like that: runs that broke off have no error in time, and there are any notes."""
    emptied = change is del_ or change is CHANGES[5]
    return (path == ("info", "time_error") and change is del_) or (path[1:2] == ("notes",) and emptied)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_record_that_is_not_whole_is_refused_or_of_no_consequence(case, family):
    command, flags = FAMILIES[family]
    found = (
        case(recipe=flags) if command is None else case(command, **{n: v for n, v in flags.items() if v is not None})
    )
    groups = asked(found)
    assert groups
    for experiment, tasks in groups:
        records = [evaluate(task.function, task.parameters, task.seed)[0] for task in tasks]
        check = check_of(tasks[0].function)
        assert check is not None
        for task, record in zip(tasks, records, strict=True):
            assert record.get("status") != "failed", record
            check(task.parameters, record)
        whole = seen(found, experiment, records)
        accepted = [
            (path, CHANGES.index(change))
            for path in places(records[0])
            for change in CHANGES
            if not may_change(path, change)
            if passes(check, tasks[0], other := changed(records[0], path, change))
            if not same(whole, seen(found, experiment, [other, *records[1:]]))
        ]
        assert accepted == []


def lacking(name):
    return lambda arrays: {other: array for other, array in arrays.items() if other != name}


def with_other(name, change):
    return lambda arrays: {**arrays, name: change(arrays[name])}


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("network-rich", ["phi_start", "phi_stage1", "g_se_stage2", "density_stage2", "y_target", "points"]),
        ("deep", ["phi_start", "phi_layer2_stage1", "ntk_stage2", "density_layer1_stage1"]),
        ("bayes-linear", ["kernel_source", "kernel_target_test", "dual_target", "labels_source", "points_test"]),
    ],
)
def test_arrays_of_a_record_have_the_shapes_that_figures_count_on(case, family, names):
    """A record with a valid checksum whose kernels are short, texts or not there ended in a figure that fails."""
    command, flags = FAMILIES[family]
    found = case(command, **{n: v for n, v in flags.items() if v is not None})
    task = found.theory.tasks(found, 0)[0]
    record = evaluate(task.function, task.parameters, task.seed)[0]
    check, arrays = check_of(task.function), unpack(record["arrays"])
    assert passes(check, task, record)

    def judged(edit):
        return passes(check, task, {**record, "arrays": pack(edit(arrays))})

    assert judged(dict)
    assert not judged(lambda _: {})
    for name in names:
        assert not judged(with_other(name, lambda array: array[:-1])), name
        assert not judged(with_other(name, lambda array: np.array(["x"]))), name
    for name in {names[0], "phi_start" if "phi_start" in arrays else "dual_source"}:
        assert not judged(lacking(name)), name


def test_errors_below_zero_are_refused(case):
    found = case("dmft-solve", **FAMILIES["network-rich"][1])
    task = found.theory.tasks(found, 0)[0]
    record = evaluate(task.function, task.parameters, task.seed)[0]
    check = check_of(task.function)
    assert passes(check, task, record)
    record["columns"]["loss_se"][-1] = -1.0
    assert not passes(check, task, record)


def test_what_is_sampled_has_errors(case):
    """The record of the sampling route is that of quadrature with errors; to sample one takes half a minute."""
    task = case("bayes-saddle", **FAMILIES["bayes-network"][1])
    (task,) = task.theory.tasks(task, 0)
    record = evaluate(task.function, task.parameters, task.seed)[0]
    check = check_of(task.function)
    assert passes(check, task, record)
    record["info"]["route"] = "sampling"
    assert not passes(check, task, record)
    record["columns"] |= dict.fromkeys(ERRORS, 0.1)
    assert passes(check, task, record)
    del record["columns"][ERRORS[-1]]
    assert not passes(check, task, record)
