"""Networks as solvers: which options they take, what a point of a grid is, how records become columns."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.theories.records import experiments_of, merged, placed
from tlcli.dmft.network_transfer import solve_transfer
from tlcli.errors import UsageError
from tlcli.options import OPTIONS
from tlcli.options.columns import COLUMNS, OVERFITTING, SAMPLED, SPREAD, TESTED, errors_of
from tlcli.options.commands import COMMANDS
from tlcli.run.job import prepare
from tlcli.status import Phase, Status
from tlcli.sweep.grids import parse_values
from tlcli.sweep.runner import Placed, evaluate
from tlcli.sweep.seeds import point_seed
from tlcli.tasks.transfer_tasks import transfer_data
from tlcli.theories.network import points as network
from tlcli.theories.network import results as network_results
from tlcli.theories.network.experiment import WideNetworks
from tlcli.theories.network.experiment import point as run
from tlcli.theories.search import grid_boundaries
from tlcli.training import TransferSettings

TINY = {"source": "linear", "target": "hermite:2", "dim": 3, "p1": 8, "p2": 6, "ptest": 20, "neurons": 64, "repeats": 2}
INF = math.inf


def case_of(command="dmft-solve", **options):
    """Return the only case of a command with the tiny task."""
    flags = {"t1": 1, "t2": 1, **TINY, **options}
    if command != "dmft-solve" and "solver" not in options:
        flags["model"] = "network"
    if command == "pretrain-kernel":
        del flags["t2"]
    flags = {name: value for name, value in flags.items() if value is not None}
    (case,) = prepare(command, COMMANDS[command].options, None, flags).cases
    return case


def combined(case, records):
    """Join records that are in the order of the points, draws fastest."""
    return network_results.combine(case, placed(records, int(case.words["draws"])))


def solved(case, seed=0):
    """Compute all tasks of a case and join them."""
    tasks = network.tasks_of(case, seed)
    records = [evaluate(t.function, t.parameters, t.seed)[0] for t in tasks]
    return network_results.combine(case, [Placed(t.point, t.draw, r) for t, r in zip(tasks, records, strict=True)])


def test_each_command_has_its_solver_layout_and_records():
    curve = case_of()
    assert (curve.theory.name, curve.words["layout"], curve.theory.inner["record"].size) == (
        "network-rich",
        "curve",
        62,
    )
    end = case_of("finetune-loss")
    assert (end.theory.name, end.words["layout"], dict(end.theory.inner)) == ("network-frozen", "end", {})
    assert case_of("phase-diagram", solver="network-rich").theory.name == "network-rich"
    alone = case_of("pretrain-kernel", target=None, p2=None)
    assert (alone.theory.name, alone.words["alone"]) == ("network-pretrain", True)
    assert "target" not in alone.theory.parameters
    assert alone.words["target"] == "linear"
    assert not case_of("pretrain-kernel").words["alone"]


def test_what_only_a_target_has_gives_a_source_alone_its_target():
    for given in ({"rho": "0.3,0.6"}, {"p2": "4,6"}, {"alpha2": "1,2"}, {"noise2": "0.1"}):
        implied = case_of("pretrain-kernel", **{"target": None, "p2": None, **given})
        written = case_of("pretrain-kernel", **{"target": "linear", "p2": None, **given})
        tasks = [network.tasks_of(case, 0) for case in (implied, written)]
        assert [task.parameters for task in tasks[0]] == [task.parameters for task in tasks[1]]
        assert not implied.words["alone"]
        assert "target_alignment" in network_results.columns_of(implied)


@pytest.mark.parametrize(
    ("options", "first", "second"),
    [
        ({}, np.linspace(0, 1, 31), np.linspace(0, 1, 31)),
        ({"t1": None, "t2": None}, np.linspace(0, 100, 31), np.linspace(0, 100, 31)),
        ({"t1": None, "t2": None, "times": "0,0.5,3"}, [0, 0.5, 3], [0, 0.5, 3]),
        ({"t1": 2, "t2": None, "times": "3,0.5"}, [0.5, 2], [0.5, 3]),
        ({"t1": 3, "t2": 0.5, "times": "0.5,3"}, [0.5, 3], [0.5]),
        ({"t1": 0}, [0], np.linspace(0, 1, 31)),
        # Gradient descent is recorded at the nearest of its own times; without a given step it has none.
        ({"integrator": "euler", "dt": 0.1, "t2": 3}, np.linspace(0, 1, 11), np.linspace(0, 3, 31)),
        ({"integrator": "euler", "dt": 0.02}, *2 * [np.round(np.linspace(0, 1, 31) / 0.02) * 0.02]),
        ({"integrator": "euler"}, np.linspace(0, 1, 31), np.linspace(0, 1, 31)),
    ],
)
def test_recorded_times_of_curves(options, first, second):
    case = case_of(**options)
    (point,) = case.grid.points()
    got = network.stage_times(case, point)
    for ours, wanted in zip(got, (first, second), strict=True):
        np.testing.assert_allclose(ours, wanted)
    assert case.theory.inner["record"].size == len(got[0]) + len(got[1])


def test_a_stage_that_ends_at_rest_is_long_and_recorded_on_a_logarithmic_line():
    case = case_of(t1=None, t2=None, until=1e-3)
    (point,) = case.grid.points()
    first, second = network.stage_times(case, point)
    assert first == second
    assert (first[0], first[-1], len(first)) == (0.0, 1e4, 31)
    steps = np.diff(np.log(first[1:]))
    np.testing.assert_allclose(steps, steps[0])


@pytest.mark.parametrize(
    ("command", "options", "first", "second"),
    [
        ("finetune-loss", {"t2": None}, [1], [INF]),
        ("finetune-loss", {"t2": 3}, [1], [3]),
        ("finetune-loss", {"t1": None, "t2": None, "times": "1,inf,0.1"}, [100], [0.1, 1, INF]),
        ("phase-diagram", {"solver": "network-rich", "t2": None}, [1], [100]),
        ("pretrain-kernel", {"t1": 4}, [4], []),
        ("pretrain-kernel", {"t1": None, "times": "4,2"}, [2, 4], []),
    ],
)
def test_recorded_times_where_ends_are_asked_for(command, options, first, second):
    case = case_of(command, **options)
    (point,) = case.grid.points()
    assert network.stage_times(case, point) == (first, second)


def test_sizes_are_given_once_and_alphas_are_rounded():
    case = case_of(p1=None, alpha1="2,2.4", p2=None, alpha2=1, dim=5)
    sizes = [
        (network.parameters_of(case, point)["p1"], network.parameters_of(case, point)["p2"])
        for point in case.grid.points()
    ]
    assert sizes == [(10, 5), (12, 5)]
    assert case.grid.axes == ("alpha1",)
    default = case_of(p1=None, p2=None)
    (point,) = default.grid.points()
    assert [network.parameters_of(default, point)[name] for name in ("p1", "p2", "dim")] == [100, 50, 3]
    for bad, words in (
        ({"alpha1": 1}, "--p1 and --alpha1 are both given"),
        ({"p1": None, "alpha1": "inf"}, "alpha1 = inf is no number of samples"),
        ({"p2": None, "alpha2": "1,0.1"}, r"alpha2 = 0\.1 leaves no sample at D = 3; use at least alpha2 = 0\.333"),
        ({"p1": "inf"}, "p1 = inf is no number of samples"),
    ):
        with pytest.raises(UsageError, match=words):
            case_of(**bad)


def test_times_and_a_grid_of_durations_must_give_rectangular_tables():
    assert case_of(t1="1,2").theory.inner["record"].size == 62
    with pytest.raises(UsageError, match="give one t1 and one t2"):
        case_of(t1="1,2", times="0.5,1.5")


def test_options_that_a_task_does_not_use_are_refused():
    digits = {"source": "digits:3v8", "target": "digits:4v9", "dim": None}
    assert case_of(**digits).words["dim"] == 64
    with pytest.raises(UsageError, match="does not use 'rho'"):
        case_of(**digits, rho=0.5)
    with pytest.raises(UsageError, match="needs --target"):
        case_of(target=None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gamma0": "1,inf"}, "gamma0 = inf must be a finite number"),
        ({"dt": 0.1}, r"dt = 0\.1 is the learning rate of --integrator euler; rkc has none"),
        ({"kernels": "0,0.51"}, r"kernels: 0\.51 is no recorded time"),
        ({"t1": "inf"}, "a network is trained for a finite time"),
        (
            {"integrator": "euler", "dt": 0.3},
            r"time = 1 lies between two steps of gradient descent with dt = 0\.3; the nearest times .* 0\.9 and 1\.2 ",
        ),
    ],
)
def test_every_point_is_checked_before_the_first_is_computed(options, words):
    with pytest.raises(UsageError, match=words):
        network.check_points(case_of(**options))
    network.check_points(case_of(kernels="0,1", dt=None))


BARE = {"neurons": None, "repeats": None, "depth": 2}
LINEAR = {**BARE, "activation": "linear"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({**LINEAR, "neurons": 500}, "neurons = 500 has no effect: deep linear networks are solved exactly"),
        ({**LINEAR, "repeats": 3}, "repeats = 3 has no effect"),
        ({**LINEAR, "population": "mc"}, "population = mc has no effect"),
        ({**LINEAR, "basis_tolerance": 0.1}, r"basis_tolerance = 0\.1 has no effect.*leave --basis-tolerance out"),
        ({**LINEAR, "accuracy": 0.1}, r"accuracy = 0\.1 has no effect"),
        ({**LINEAR, "integrator": "euler", "dt": 0.1, "tolerance": 1e-4}, "tolerance = 0.0001 has no effect with"),
        ({**BARE, "integrator": "richardson", "dt": 0.1, "tolerance": 1e-4}, "no effect with --integrator richardson"),
        (
            {**BARE, "depth": 1, "integrator": "euler", "dt": 0.1, "tolerance": 0.1},
            "tolerance = 0.1 has no effect with --integrator euler",
        ),
        ({**BARE, "gamma0": 0, "gamma2": 0, "neurons": 30}, "neurons = 30 has no effect at gamma0 = 0"),
    ],
)
def test_numerics_without_effect_on_deep_networks_are_refused(options, words):
    with pytest.raises(UsageError, match=words):
        network.check_points(case_of(**options))
    # They have one on the two-layer networks of the same grid, or on nonlinear ones.
    if "integrator" not in options and "gamma0" not in options:
        network.check_points(case_of(**{**options, "activation": "tanh"}))


def test_data_and_neurons_are_the_same_all_over_a_grid():
    tasks = network.tasks_of(case_of(gamma2="0.5,2", noise1="0,0.1", draws=2), seed=5)
    assert len(tasks) == 8
    assert [t.parameters["draw"] for t in tasks] == [0, 1] * 4
    assert {t.parameters["seed"] for t in tasks} == {5}
    keep = [t.parameters["keep"] for t in tasks]
    assert keep == [True, False] * 4, "arrays are those of the first draw"
    seeds = {name for t in tasks for name in t.parameters if "seed" in name}
    assert seeds == {"seed"}
    data = network.data_of(tasks[0].parameters)
    again = network.data_of(tasks[4].parameters)  # another gamma2
    np.testing.assert_array_equal(data.x_source, again.x_source)
    assert not np.array_equal(data.x_source, network.data_of(tasks[1].parameters).x_source)


def test_points_that_differ_in_words_of_their_size_only_are_one_task():
    by_count, by_alpha = (
        network.tasks_of(case_of(dim=4, **size), 0)[0] for size in ({"p1": 8}, {"p1": None, "alpha1": 2})
    )
    assert by_count.parameters == by_alpha.parameters


def test_a_changed_file_or_activation_is_another_task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    x = np.random.default_rng(0).standard_normal((6, 4))
    sets = {f"{kind}_{name}": x[:, 0] if kind == "y" else x for kind in "xy" for name in ("source", "target", "test")}
    np.savez("data.npz", **sets)
    (tmp_path / "own_phi.py").write_text(
        "import numpy as np\ndef phi(h):\n    return np.tanh(h), 1 - np.tanh(h) ** 2\n"
    )
    options = {"source": "file:data.npz", "target": "file:data.npz", "dim": None, "p1": None, "p2": None, "ptest": None}
    case = case_of(**options, activation="own_phi:phi")
    first = network.tasks_of(case, 0)[0].parameters
    np.savez("data.npz", **{**sets, "y_source": -x[:, 0]})
    second = network.tasks_of(case, 0)[0].parameters
    assert {name for name in first if first[name] != second.get(name)} == {"file_sha256"}
    assert len(first["activation_sha256"]) == 64


def test_a_changed_file_or_archive_is_another_experiment(tmp_path, monkeypatch):
    """Stored networks of old data beside the theory of new data would look like a disagreement."""
    x = np.random.default_rng(0).standard_normal((6, 4))
    sets = {f"{kind}_{name}": x[:, 0] if kind == "y" else x for kind in "xy" for name in ("source", "target", "test")}
    path = tmp_path / "data.npz"
    np.savez(path, **sets)
    task = f"file:{path}"
    case = case_of(source=task, target=task, dim=None, p1=None, p2=None, ptest=None, simulate=True, width="8")
    settings = {"width": parse_values("8", "width")}
    first = experiments_of(case, settings)[0][0].parameters
    np.savez(path, **{**sets, "y_source": -x[:, 0]})
    second = experiments_of(case, settings)[0][0].parameters
    assert {name for name in first if first[name] != second[name]} == {"file_sha256"}

    monkeypatch.setattr(network, "cifar_location", lambda: tmp_path / "batches")
    (tmp_path / "batches").mkdir()
    images = replace(case, words={**case.words, "source": "cifar10:cat-dog", "target": "cifar10:cat-dog"})
    found = []
    for content in (b"one", b"two", b"one"):
        (tmp_path / "batches" / "data_batch_1").write_bytes(content)
        found.append(network.identity_of(images)["cifar_sha256"])
    assert found[0] == found[2] != found[1]


def test_a_point_is_the_engine_on_the_data_of_its_seed_and_draw():
    case = case_of(
        gamma0=0.7,
        gamma2=0.4,
        weight_decay=0.1,
        readout="reset",
        times="0,1",
        predictions=True,
        draws=2,
        t1=None,
        t2=None,
    )
    task = network.tasks_of(case, 3)[1]
    record = network.point(task.parameters, point_seed(0, "anything"))
    data = transfer_data(
        "linear", "hermite:2", dim=3, rho=0.8, noise1=0, noise2=0, p1=8, p2=6, ptest=20, seed=3, draw=1
    )
    settings = TransferSettings(
        gamma0=0.7, gamma2=0.4, weight_decay=0.1, readout="reset", times1=(0.0, 1.0), times2=(0.0, 1.0)
    )
    wanted = solve_transfer(data, settings, network.Numerics(neurons=64, repeats=2, seed=3, draw=1))
    for name, column in wanted.columns.items():
        np.testing.assert_array_equal(record["columns"][name], column)
    assert record["data"]["draw"] == 1
    assert "arrays" not in record
    first = network.point(network.tasks_of(case, 3)[0].parameters, point_seed(0, "anything"))
    arrays = network.unpack(first["arrays"])
    assert arrays["predictions"].shape == (4, 8 + 6 + 20)
    assert arrays["y_test_target"].shape == (20,)


def test_arrays_survive_their_text():
    arrays = {"a": np.array([[1.5, np.nan], [np.inf, -0.0]]), "n": np.array(3)}
    back = network.unpack(network.pack(arrays))
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
    assert network.pack(arrays) == network.pack(arrays), "equal points are equal bytes"


def made(case, values, errors, status="converged", message="", reached=0.004, points=0.0, **data):
    """Return a record of the engine with the same number in every column; `points`: its error by the test points."""
    (point, *_) = case.grid.points()
    first, second = network.stage_times(case, point)
    n = len(first) + len(second)
    columns = {name: (np.zeros(n) + values).tolist() for name in SAMPLED}
    columns |= {f"{name}_se": (np.zeros(n) + errors).tolist() for name in SAMPLED}
    columns |= {f"{name}_test_se": (np.zeros(n) + points).tolist() for name in (*TESTED, OVERFITTING)}
    columns["predictor_distance"] = [0.5] * n
    info = {"reached": reached, "accuracy": 0.01, "notes": []}
    return {"columns": columns, "status": status, "message": message, "info": info, "data": {"p1": 8, "p2": 6, **data}}


def test_draws_are_averaged_with_both_kinds_of_errors():
    case = case_of("finetune-loss", draws=3)
    records = [made(case, [9.0, value], [9.0, error]) for value, error in ((1.0, 0.3), (2.0, 0.4), (6.0, 0.0))]
    found = combined(case, records).columns
    assert found["loss"] == 3.0, "the mean over draws of the record of stage 2"
    np.testing.assert_allclose(found["loss_se"], 0.5 / 3)
    np.testing.assert_allclose(found["loss_draw_se"], np.std([1, 2, 6], ddof=1) / np.sqrt(3))
    assert {name for name in found if name.endswith("_draw_se")} == {f"{name}_draw_se" for name in SPREAD}
    assert (found["status"], found["residual"]) == (Status.CONVERGED, 0.004)
    assert "loss_draw_se" not in network_results.combine(case_of("finetune-loss"), placed(records[:1])).columns


def test_test_points_of_a_file_are_the_same_in_all_draws_and_those_of_a_task_are_not():
    """Independent ones average out, and the spread over draws holds their error; the same ones do neither."""
    case, values = case_of("finetune-loss", draws=4), (1.0, 2.0, 6.0, 3.0)
    spread = np.std(values, ddof=1) / 2
    own = combined(case, [made(case, value, 0.1, points=0.8) for value in values]).columns
    np.testing.assert_allclose([own["loss_test_se"], own["loss_draw_se"]], [0.4, spread])
    same = combined(case, [made(case, value, 0.1, points=0.8, file="x.npz") for value in values]).columns
    np.testing.assert_allclose([same["loss_test_se"], same["loss_draw_se"]], [0.8, np.hypot(spread, 0.8)])
    curve = case_of(times="0,1", t1=None, t2=None, draws=2)
    both = [made(curve, [5, 5, 1, v], 0.1, points=0.8, file="x.npz") for v in (2.0, 4.0)]
    np.testing.assert_allclose(combined(curve, both).columns["overfitting_draw_se"][-1], np.hypot(1.0, 0.8))
    alone = combined(curve, [made(curve, [5, 5, 1, v], 0.1, points=math.nan, file="x.npz") for v in (2.0, 4.0)])
    np.testing.assert_allclose(alone.columns["overfitting_draw_se"][-1], 1.0, err_msg="one test point")


@pytest.mark.parametrize(("points", "phase"), [(0.2, Phase.POSITIVE), (0.4, Phase.NEUTRAL)])
def test_a_gain_is_one_beyond_two_errors_of_neurons_and_test_points(points, phase):
    """The error by the neurons alone, 0.3, is a third of the gain; with 0.4 it is 0.5."""
    case = case_of("finetune-loss")
    record = made(case, 0.9, 0.3, points=points)
    found = combined(case, [record]).columns
    assert errors_of("gain", found) == ("gain_se", "gain_test_se")
    assert found["phase"] == phase


def test_the_worst_draw_decides_the_status_and_a_break_only_that_of_later_rows():
    case = case_of(times="0,1", t1=None, t2=None, draws=2, gamma2="1,2")
    good = made(case, 1.0, 0.1)
    broken = made(case, [1, 1, np.nan, np.nan], 0.1, "not_converged", "stage 2: broke off at t = 0.3")
    found = combined(case, [good, broken, good, good])
    assert found.columns["status"].tolist() == [[0, 0, *[Status.NOT_CONVERGED] * 2], [0, 0, 0, 0]]
    assert np.isnan(found.columns["loss"][0, 2:]).all()
    assert found.messages == ["gamma2 = 1, draw 1: stage 2: broke off at t = 0.3"]
    restless = made(case, 1.0, 0.1, "not_converged", "not at rest")
    assert (combined(case, [restless] * 4).columns["status"] == Status.NOT_CONVERGED).all()


def test_failed_points_are_rows_and_one_mistake_everywhere_is_an_error():
    case = case_of("finetune-loss", gamma0="1,2")
    failed = {"status": "failed", "message": "UsageError: population: quadrature needs rank 3 or less."}
    found = combined(case, [made(case, 1.0, 0.1), failed])
    assert found.columns["status"].tolist() == [Status.CONVERGED, Status.FAILED]
    assert np.isnan(found.columns["gain"][1])
    assert found.columns["phase"].tolist() == [Phase.POSITIVE, Phase.UNKNOWN]
    with pytest.raises(UsageError, match=r"^population: quadrature needs rank 3 or less\.$"):
        combined(case, [failed, failed])
    crash = {"status": "failed", "message": "ZeroDivisionError: division by zero"}
    assert (combined(case, [crash, crash]).columns["status"] == Status.FAILED).all()


def test_inaccurate_rows_are_told_once_with_the_worst_of_them():
    case = case_of("finetune-loss", gamma0="1,2,4")
    late = [made(case, 1.0, 0.1, "inaccurate", reached=reached) for reached in (0.02, 0.04)]
    found = combined(case, [made(case, 1.0, 0.1), *late])
    assert found.columns["status"].tolist() == [Status.CONVERGED, Status.INACCURATE, Status.INACCURATE]
    (message,) = found.messages
    assert message.startswith("2 of 3 solutions are inaccurate: asked 0.01, reached 0.04 (errors of losses")
    assert combined(case, [made(case, 1.0, 0.1)] * 3).messages == []


@pytest.mark.parametrize(
    ("act", "target", "told"),
    [
        ("tanh", "hermite:2", True),
        ("tanh", "he1+0.5*he4", True),
        ("tanh", "he1-he3", False),
        ("relu", "hermite:2", False),
    ],
)
def test_an_odd_activation_with_an_even_task_is_told(act, target, told):
    case = case_of("finetune-loss", activation=act, target=target)
    notes = combined(case, [made(case, 1.0, 0.1)]).notes
    assert (len(notes) == 1) is told
    assert all(note.startswith("tanh is odd") and target in note for note in notes)


def test_notes_that_differ_in_numbers_only_are_told_once_with_the_largest():
    case = case_of("finetune-loss", activation="relu", gamma0="1,2")
    records = [made(case, 1.0, 0.1), made(case, 1.0, 0.1)]
    for record, error in zip(records, (2e-3, 5e-3), strict=True):
        record["info"] |= {"time_error": error, "notes": [f"changes by up to {error:.1g}, and no tolerance helps."]}
    found = combined(case, records)
    assert found.notes == ["changes by up to 0.005, and no tolerance helps."]
    assert found.columns["time_error"].tolist() == [2e-3, 5e-3]


def test_a_gain_within_its_error_is_neutral():
    case = case_of("phase-diagram", solver="network-frozen", gamma0="1,2,3,4", x=None)
    records = [made(case, value, 0.1) for value in (-0.3, -0.19, 0.19, 0.3)]
    found = combined(case, records).columns
    assert found["phase"].tolist() == [Phase.NEGATIVE, Phase.NEUTRAL, Phase.NEUTRAL, Phase.POSITIVE]


@pytest.mark.parametrize("command", ["dmft-solve", "finetune-loss", "pretrain-kernel"])
def test_the_placeholder_has_the_columns_that_come(command):
    case = case_of(command, times="0.5,1", t1=None if command != "finetune-loss" else 1, t2=None)
    planned, found = network_results.placeholder(case), solved(case).columns
    assert set(planned) <= set(found)
    for name, column in found.items():
        assert COLUMNS.get(name) is not None or name in ("p1", "p2"), name
        assert column.shape == planned["residual"].shape


def test_all_points_of_a_file_are_used_unless_said_otherwise(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).standard_normal((9, 4))
    np.savez("d.npz", x_source=x, y_source=x[:, 0], x_target=x[:5], y_target=x[:5, 1], x_test=x, y_test=x[:, 1])
    sizes = {"dim": None, "p1": None, "p2": 3, "ptest": None}
    case = case_of(source="file:d.npz", target="file:d.npz", **sizes, times="1", t1=None, t2=None)
    found = solved(case)
    assert found.columns["p1"].tolist() == [9, 9]
    assert "p2" not in found.columns, "it is a parameter"
    assert (found.data["p1"], found.data["p2"], found.data["dim"]) == (9, 3, 4)


def test_crossings_are_interpolated_between_neighbours():
    case = case_of("phase-diagram", solver="network-frozen", gamma0="log:1:100:3", p2="2,4,6")
    gain = np.array([[1.0, -1.0, -3.0], [np.nan, 1.0, -1.0], [2.0, 2.0, 2.0]])
    assert case.grid.axes == ("p2", "gamma0")
    across = grid_boundaries(case, "gamma0", True, gain)
    np.testing.assert_allclose(across.values["gamma0"], [10**0.5, 10**1.5])
    assert across.values["p2"].tolist() == [2, 4]
    assert set(across.kind) == {"interpolated"}
    along = grid_boundaries(case, "p2", False, gain)
    np.testing.assert_allclose(along.values["p2"], [3, 4 + 2 / 3])
    assert along.values["gamma0"].tolist() == [10, 100]
    assert grid_boundaries(case, "p2", False, np.ones((3, 3))) is None


def test_the_experiment_trains_on_the_data_of_the_draw_with_networks_of_its_own():
    case = case_of(times="0,1", t1=None, t2=None, draws=2, simulate=True, width="8,16", nets=3)
    tasks, variants = experiments_of(case, {"width": OPTIONS["width"].parse("8,16")}, 4)
    assert variants == [{"experiment": "network", "width": n, "nets": 3} for n in (8, 16)]
    assert [(t.parameters["width"], t.parameters["draw"]) for t in tasks] == [(8, 0), (8, 1), (16, 0), (16, 1)]
    assert all(t.parameters["data_seed"] == 4 for t in tasks)
    record = run(tasks[0].parameters, point_seed(4, "a"))
    other = run(tasks[0].parameters, point_seed(4, "b"))
    assert len(record["loss"]) == 4
    assert record["loss"] != other["loss"], "networks belong to the point, data to the draw"
    assert math.isnan(record["gain"][0])


def test_draws_of_the_experiment_are_averaged():
    case = case_of("finetune-loss", draws=2, gamma0="1,2")
    part = [{"loss": [9.0, v], "loss_se": [9.0, e], "step_error": s} for v, e, s in ((1, 0.3, 0.1), (3, 0.4, 0.2))]
    failed = {"status": "failed", "message": "why"}
    found = merged(WideNetworks(), case, [*part, part[0], failed, part[1], None], 2)
    assert found[0] == pytest.approx({"loss": 2.0, "loss_se": 0.25, "step_error": 0.2})
    assert found[1] == failed
    assert found[2] is None
    assert merged(WideNetworks(), case, part[::-1], 2)[0] == found[0]


def test_a_step_that_theory_and_networks_share_is_no_error_of_their_comparison():
    part = [{"loss": [9.0, 1.0], "loss_se": [9.0, 0.3], "step_error": 0.1}]
    shared = case_of("finetune-loss", integrator="euler", dt=0.1)
    assert merged(WideNetworks(), shared, part, 1)[0]["step_error"] == 0
    assert merged(WideNetworks(), case_of("finetune-loss"), part, 1)[0]["step_error"] == 0.1, (
        "gradient flow against steps"
    )


def test_a_lazy_source_has_no_experiment():
    with pytest.raises(UsageError, match="no gamma0 = 0"):
        WideNetworks().check(case_of(gamma0="0,1"), {})
    WideNetworks().check(case_of(gamma2="0,1"), {})


def test_draws_of_a_whole_file_would_be_one_and_the_same(tmp_path):
    x = np.random.default_rng(0).standard_normal((12, 4))
    np.savez(
        tmp_path / "data.npz", x_source=x[:4], y_source=x[:4, 0], x_target=x[4:8], y_target=x[4:8, 1], x_test=x[8:]
    )
    task = f"file:{tmp_path / 'data.npz'}"
    whole = {"source": task, "target": task, "dim": None, "p1": None, "p2": None, "ptest": None, "rho": None}
    with pytest.raises(UsageError, match="draws = 3: a file taken as a whole is one draw"):
        case_of(**whole, draws=3)
    assert case_of(**{**whole, "p1": 3}, draws=3).words["draws"] == 3
