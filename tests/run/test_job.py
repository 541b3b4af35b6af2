"""From recipe and flags to grids: precedence, roles of axes, what a solver does not take, what provenance keeps."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tlcli.errors import RecipeError, UsageError
from tlcli.options import OPTIONS
from tlcli.options.commands import COMMANDS
from tlcli.report.provenance import recipe_hash
from tlcli.run.job import prepare
from tlcli.run.recipe import parse_recipe
from tlcli.theories.linear.theory import TwoTimeTheory
from tlcli.theories.registry import ENTRIES, Entry


def job(command="finetune-loss", recipe=None, **flags):
    loaded = None if recipe is None else parse_recipe(recipe, "test")
    return prepare(command, COMMANDS[command].options, loaded, flags)


def values(found, name, case=0):
    return found.cases[case].grid.values[name].array.tolist()


def test_defaults():
    found = job()
    assert found.name == "finetune-loss"
    (case,) = found.cases
    assert case.label is None
    assert case.theory.name == "linear-exact"
    assert case.grid.axes == ()
    assert case.words == {"kernel": "feature"}
    assert case.experiments == ()
    for name in case.theory.parameters:
        key = "t2" if name == "time" else name
        if OPTIONS[key].kind == "grid":
            assert values(found, name) == OPTIONS[key].parse(OPTIONS[key].default).array.tolist()


def test_flag_before_case_before_recipe_before_default():
    recipe = {"rho": 0.3, "sigma2": 0.1, "cases": [{"label": "a"}, {"label": "b", "rho": 0.4, "ridge": 0.2}]}
    found = job(recipe=recipe)
    assert [values(found, "rho", i) for i in (0, 1)] == [[0.3], [0.4]]
    assert [values(found, "ridge", i) for i in (0, 1)] == [[0], [0.2]]
    assert [values(found, "sigma2", i) for i in (0, 1)] == [[0.1], [0.1]]
    assert values(found, "alpha2") == [0.5]
    found = job(recipe=recipe, sigma2="0.9")
    assert [values(found, "sigma2", i) for i in (0, 1)] == [[0.9], [0.9]]
    assert found.name == "test"
    recipe["cases"] = [{"label": "a", "rho": 0.4, "ridge": 0.1}, {"label": "b", "rho": 0.4, "ridge": 0.2}]
    found = job(recipe=recipe, rho="0.9")
    assert [values(found, "rho", i) for i in (0, 1)] == [[0.9], [0.9]], "what all cases share sets none apart"
    assert found.notes == ()


def test_a_case_keeps_what_sets_it_apart():
    recipe = {"t1": 200, "cases": [{"label": "no pre-training", "t1": 0}, {"label": "pre-trained"}]}
    found = job(recipe=recipe, t1="60", rho="0.9")
    assert [values(found, "t1", i) for i in (0, 1)] == [[0], [60]]
    assert [values(found, "rho", i) for i in (0, 1)] == [[0.9], [0.9]]
    (note,) = found.notes
    assert note.startswith("--t1 60 is not for the case 'no pre-training' of the recipe, whose own value sets it apart")
    again = job(recipe=found.resolved)
    assert again.resolved == found.resolved
    assert [values(again, "t1", i) for i in (0, 1)] == [[0], [60]]


def test_a_case_keeps_it_also_where_the_flag_is_the_other_word_for_it():
    network = {"model": "network", "source": "linear", "target": "linear", "dim": 10}
    recipe = {**network, "cases": [{"label": "poor", "p1": 20}, {"label": "default"}]}
    found = job(recipe=recipe, alpha1="4")
    assert values(found, "p1", 0) == [20]
    assert "alpha1" not in found.cases[0].grid.values
    assert values(found, "alpha1", 1) == [4]
    assert "--alpha1 4 is not for the case 'poor'" in found.notes[0]


@pytest.mark.parametrize(
    ("cases", "flags", "shown"),
    [
        ([{"label": "lazy", "gamma0": 0.3}, {"label": "rich", "gamma0": 2}], {"gamma0": "1"}, "--gamma0 1"),
        ([{"label": "lazy", "gamma0": 0.3}, {"label": "rich", "gamma0": 2}], {"x": "gamma0=1,2"}, "--gamma0 1,2"),
        ([{"label": "lazy", "gamma0": 0.3}], {"gamma0": "1"}, "--gamma0 1"),
        (
            [{"label": "a", "solver": "linear-exact"}, {"label": "b", "solver": "linear-joint"}],
            {"solver": "linear-structured"},
            "--solver linear-structured",
        ),
    ],
)
def test_a_flag_that_no_case_would_follow_is_refused(cases, flags, shown):
    labels = ", ".join(f"'{case['label']}'" for case in cases)
    with pytest.raises(UsageError, match=f"{shown} has no effect: it is what sets the cases {labels} of the recipe ap"):
        job(recipe={"cases": cases}, **flags)


def test_experiments_of_a_case_can_be_left_out():
    recipe = {"cases": [{"label": "a", "simulate": True}, {"label": "b"}]}
    assert [case.experiments for case in job(recipe=recipe, simulate=False).cases] == [(), ()]


def test_recipe_of_another_command():
    recipe = {"command": "phase-diagram"}
    with pytest.raises(UsageError, match="recipe 'test' is for phase-diagram, not finetune-loss; use `tlcli phase"):
        job(recipe=recipe)
    assert job("phase-diagram", recipe).command == "phase-diagram"


def test_axes_from_x_and_y():
    found = job(x="alpha2=0.1:1:5", y="gamma0=log:0.1:10:3")
    assert found.cases[0].grid.axes == ("alpha2", "gamma0")
    assert found.roles == {"x": "alpha2", "y": "gamma0"}
    assert found.cases[0].grid.values["gamma0"].scale == "log"
    found = job(x=" weight-decay = 0,1 ")
    assert values(found, "weight_decay") == [0, 1]
    assert found.roles == {"x": "weight_decay"}
    found = job(rho="0:1:3", x="rho")
    assert found.roles == {"x": "rho"}
    assert job(times="0:1:3", x="times").roles == {"x": "time"}
    assert values(job(x="times=0:1:3"), "time") == [0, 0.5, 1]
    assert values(job(x="t2=1,2"), "time") == [1, 2]
    assert values(job(solver="linear-ansatz", c_signal="0", x="c-noise=0,1"), "c_noise") == [0, 1]


def test_a_flag_is_stronger_than_the_grid_in_a_recipes_x():
    recipe = {"x": "alpha2=0.1:1:5", "rho": "0.2,0.3"}
    assert values(job(recipe=recipe), "alpha2") == np.linspace(0.1, 1, 5).tolist()
    assert values(job(recipe=recipe, alpha2="0.7,0.8"), "alpha2") == [0.7, 0.8]
    found = job(recipe=recipe, x="rho=0.5,0.6,0.7")
    assert values(found, "rho") == [0.5, 0.6, 0.7]
    assert values(found, "alpha2") == [0.5], "the axis of the recipe is replaced"
    assert found.roles == {"x": "rho"}


def test_a_case_is_stronger_than_the_grid_in_a_recipes_x():
    recipe = {"x": "alpha2=0.1:1:5", "cases": [{"label": "a"}, {"label": "b", "alpha2": [0.2, 0.3]}]}
    found = job(recipe=recipe)
    assert len(values(found, "alpha2", 0)) == 5
    assert values(found, "alpha2", 1) == [0.2, 0.3]
    found = job(recipe=recipe, x="alpha2=0.4,0.5,0.6")
    assert values(found, "alpha2", 0) == [0.4, 0.5, 0.6]
    assert values(found, "alpha2", 1) == [0.2, 0.3], "what sets the case apart"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"x": "foo"}, r"--x: 'foo' is no parameter; use PARAMETER or PARAMETER=GRID\."),
        ({"x": "alfa2"}, r"--x: 'alfa2' is no parameter \(did you mean 'alpha2'\?\)"),
        ({"y": "kernel=1:2:3"}, "--y: 'kernel' is no parameter"),
        ({"x": "rho=0:2:3"}, "rho = 2 is not allowed"),
        ({"x": "rho="}, "rho: '' is not a grid"),
        ({"x": "rho=0:1:3", "y": "rho=0:1:4"}, "--x and --y are both 'rho'"),
        ({"x": "t2=1,2", "y": "times=1,2"}, "--x and --y are both 'time'"),
    ],
)
def test_roles_that_are_none(flags, message):
    with pytest.raises(UsageError, match=message):
        job(**flags)


@pytest.mark.parametrize(
    ("command", "flags", "message"),
    [
        ("finetune-loss", {"gamma2": "2"}, "linear-exact does not use 'gamma2'; finetune-loss with it takes alpha1,"),
        ("finetune-loss", {"c_signal": "2"}, "linear-exact does not use 'c_signal'"),
        ("finetune-loss", {"steps": 20}, "linear-exact does not use 'steps'"),
        ("phase-diagram", {"solver": "linear-joint", "ridge": "1"}, "linear-joint does not use 'ridge'; phase-diagram"),
        ("phase-diagram", {"solver": "linear-joint", "x": "rho_xi=0:1:3"}, "linear-joint does not use 'rho_xi'"),
        ("finetune-loss", {"solver": "linear-ansatz", "c_signal": "1", "sigma1": "1"}, "does not use 'sigma1'"),
        ("finetune-loss", {"solver": "linear-two-time", "times": "1,2", "rho": "0"}, "does not use 'rho'"),
        ("finetune-loss", {"solver": "linear-structured", "alpha2": "1"}, "does not use 'alpha2'"),
        ("finetune-loss", {"solver": "linear-structured", "modes": 3}, "does not use 'modes'"),
        ("finetune-loss", {"solver": "linear-structured", "spectrum": "digits", "rho": "0"}, "does not use 'rho'"),
        ("finetune-loss", {"solver": "linear-structured", "spectrum": "digits", "sigma1": "1"}, "use 'sigma1'"),
        ("finetune-loss", {"solver": "linear-structured", "spectrum": "file:a.npz", "source": "a"}, "use 'source'"),
        ("pretrain-kernel", {"t2": "1"}, "pretrain-kernel does not take 't2'"),
        ("pretrain-kernel", {"alpha3": "1"}, "pretrain-kernel does not take 'alpha3' .did you mean 'alpha"),
        ("pretrain-kernel", {"solver": "linear-joint"}, "pretrain-kernel has no solver 'linear-joint'; use one of"),
        ("finetune-loss", {"solver": "linear-ansatz"}, "linear-ansatz needs --c-signal, a number or an expression"),
        ("finetune-loss", {"experiment": "network"}, "--experiment has an effect with --simulate only"),
        (
            "finetune-loss",
            {"simulate": True, "experiment": "regresion"},
            r"experiment: 'regresion' is not available for linear-exact; use regression, population, network \(did",
        ),
        (
            "finetune-loss",
            {"solver": "linear-joint", "simulate": True, "experiment": "regression"},
            r"experiment: 'regression' is not available for linear-joint; use population, network\.",
        ),
    ],
)
def test_what_does_not_fit_is_refused(command, flags, message):
    with pytest.raises(UsageError, match=message):
        job(command, **flags)


def test_a_solver_without_experiments(monkeypatch):
    bare = Entry("linear-two-time", ("finetune-loss",), lambda asked: TwoTimeTheory(experiments=()))
    monkeypatch.setitem(ENTRIES, ("finetune-loss", "linear-two-time"), bare)
    with pytest.raises(UsageError, match="linear-two-time has no experiment; leave out --simulate"):
        job(solver="linear-two-time", times="1,2", simulate=True)


@pytest.mark.parametrize("key", ["x", "style", "quantity", "title", "format", "trials", "width", "dim", "seed"])
def test_what_belongs_to_the_whole_recipe_is_refused_in_a_case(key):
    value = {"x": "rho", "trials": 3, "width": 100, "dim": 10, "seed": 1, "style": "map", "format": "svg"}
    recipe = {"cases": [{"label": "a"}, {"label": "b", key: value.get(key, "loss")}]}
    with pytest.raises(UsageError, match=f"case 'b': '{key}' belongs to the whole recipe"):
        job(recipe=recipe)


def test_a_case_may_choose_solver_experiment_and_dimension_of_a_spectrum():
    recipe = {
        "rho": 0.5,
        "cases": [
            {"label": "a", "simulate": True, "experiment": "population"},
            {"label": "b", "solver": "linear-structured", "dim": 30},
        ],
    }
    first, second = job(recipe=recipe).cases
    assert [experiment.name for experiment in first.experiments] == ["population"]
    assert second.experiments == ()
    assert second.words["dim"] == 30


def test_gamma2_is_gamma0_unless_given():
    (case,) = job(solver="linear-joint", gamma0="0.5,2").cases
    assert case.words == {"gamma2": None}
    same = case.theory.evaluate({**case.parameters(), "time": np.array([1.0]), "t1": np.array([1.0])})
    (case,) = job(solver="linear-joint", gamma0="0.5,2", gamma2="0.5,2").cases
    both = case.theory.evaluate({**case.parameters(), "time": np.array([[1.0]]), "t1": np.array([[1.0]])})
    np.testing.assert_allclose(np.diagonal(both["loss"]), same["loss"], rtol=1e-8)
    assert abs(both["loss"][0, 1] - both["loss"][0, 0]) > 1e-3


def test_times_replace_the_duration_of_the_last_stage():
    assert values(job(), "time") == [math.inf]
    assert values(job(t2="1,2"), "time") == [1, 2]
    assert values(job(times="3,4"), "time") == [3, 4]
    assert values(job(times="3,4", t1="1"), "t1") == [1]
    assert values(job("pretrain-kernel", t1="5"), "time") == [5]
    assert values(job("pretrain-kernel", times="0,5"), "time") == [0, 5]
    assert job("pretrain-kernel", x="t1=0,5").roles == {"x": "time"}
    assert job(x="t1=0,5").roles == {"x": "t1"}
    with pytest.raises(UsageError, match="times and t2 are both given"):
        job(times="3,4", t2="1")
    with pytest.raises(UsageError, match="times and t1 are both given"):
        job("pretrain-kernel", {"times": "3,4", "t1": 1})


def test_times_and_duration_of_a_stronger_layer_replace_those_of_a_weaker():
    assert values(job(recipe={"t2": 4}, times="3,4"), "time") == [3, 4]
    assert values(job(recipe={"times": "3,4"}, t2="1"), "time") == [1]
    recipe = {"t2": 4, "cases": [{"label": "a"}, {"label": "b", "times": "1,2"}, {"label": "c", "t2": 7}]}
    found = job(recipe=recipe)
    assert [values(found, "time", i) for i in range(3)] == [[4], [1, 2], [7]]
    again = job(recipe=found.resolved)
    assert [values(again, "time", i) for i in range(3)] == [[4], [1, 2], [7]]
    found = job(recipe=recipe, times="5,6")
    assert [values(found, "time", i) for i in range(3)] == [[5, 6], [1, 2], [7]]
    assert job(recipe=found.resolved).resolved == found.resolved


def test_constants_of_the_ansatz_are_axes_or_words():
    found = job(solver="linear-ansatz", c_signal="0,1", c_cross="gamma0*0.1")
    (case,) = found.cases
    assert case.grid.axes == ("c_signal",)
    assert case.words == {"c_cross": "gamma0*0.1"}
    assert values(found, "c_noise") == [0]


def test_dimension_of_a_power_law_has_a_default():
    assert job(solver="linear-structured").cases[0].words["dim"] == 400  # of a power law
    assert job(solver="linear-structured", dim=70).cases[0].words["dim"] == 70
    digits = job(solver="linear-structured", spectrum="digits", source="digits:0v1", target="digits:2v3").cases[0]
    assert "dim" not in digits.words
    assert not {"rho", "sigma1", "spectrum_exponent"} & set(digits.grid.values)
    assert digits.words["source"] == "digits:0v1"


def test_experiments_are_a_list_without_repetition():
    assert [e.name for e in job(simulate=True).cases[0].experiments] == ["regression"]
    found = job(simulate=True, experiment="network, population,network")
    assert [e.name for e in found.cases[0].experiments] == ["network", "population"]
    assert [e.name for e in job(solver="linear-joint", simulate=True).cases[0].experiments] == ["population"]
    assert job(recipe={"simulate": True}, simulate=False).cases[0].experiments == ()


def test_curricula():
    stages = [{"alpha": 2, "gamma": [0.5, 1, 2], "duration": 3}, {"alpha": 1, "gamma": 1, "duration": ".inf"}]
    recipe = {"solver": "linear-joint", "stages": stages, "gram": [[1, 0.5], [0.5, 1]]}
    found = job(recipe=recipe)
    (case,) = found.cases
    assert case.grid.axes == ("gamma_1",)
    assert values(found, "duration_2") == [math.inf]
    assert case.theory.inner["task"].tolist() == [1, 2]
    assert found.resolved["stages"][1] == {
        "alpha": "1",
        "gamma": "1",
        "duration": "inf",
        "teacher": 2,
        "sigma": "0",
        "weight_decay": "0",
    }
    with pytest.raises(UsageError, match="stages need solver: linear-joint, not linear-exact"):
        job(recipe={"stages": stages})
    with pytest.raises(UsageError, match=r"does not use 'alpha1'; finetune-loss with it takes init_scale\."):
        job(recipe=recipe, alpha1="2")
    with pytest.raises(RecipeError, match="stages with several teachers need 'gram'"):
        job(recipe={"solver": "linear-joint", "stages": stages})
    with pytest.raises(RecipeError, match="a stage has teacher 2, but gram knows 1 to 1"):
        job(recipe={**recipe, "gram": [[1]]})
    with pytest.raises(UsageError, match="alpha_1 = 0 is not allowed"):
        job(recipe={**recipe, "stages": [{"alpha": 0, "gamma": 1}], "gram": [[1]]})


def test_what_provenance_keeps_is_a_recipe_with_the_defaults_that_matter():
    found = job("phase-diagram", {"rho": [0.5], "title": "t"}, x="alpha2=0.1:1:5", jobs=2, quiet=True, seed=3)
    kept = found.resolved
    assert kept["rho"] == "0.5"
    assert kept["x"] == "alpha2"
    assert kept["alpha2"] == "0.1:1:5"
    assert kept["gamma0"] == "1"
    assert kept["title"] == "t"
    assert not {"jobs", "quiet", "seed", "output", "gamma2", "c_signal", "p1", "steps"} & set(kept)
    again = job("phase-diagram", kept)
    assert again.resolved == kept
    assert recipe_hash(again.resolved) == recipe_hash(kept)
    assert recipe_hash(job("phase-diagram", {"rho": 0.4}).resolved) != recipe_hash(job("phase-diagram").resolved)


def test_spelling_does_not_change_the_hash_of_a_recipe():
    one = job(recipe={"rho": 0.5, "alpha2": [0.1, 0.2]}).resolved
    other = job(alpha2="1e-1,0.2", rho="5e-1").resolved
    assert recipe_hash(one) == recipe_hash(other)


_RANGES = {
    "alpha1": (0.1, 3),
    "alpha2": (0.1, 3),
    "rho": (-0.7, 0.7),
    "rho_xi": (-0.7, 0.7),
    "gamma0": (0.1, 5),
    "gamma2": (0.1, 5),
    "sigma1": (0, 1),
    "sigma2": (0, 1),
    "ridge": (0, 1),
    "weight_decay": (0, 0.1),
    "weight_decay2": (0, 0.1),
    "init_scale": (0.5, 2),
    "t1": (0, 9),
    "times": (0, 9),
    "bulk": (0.5, 2),
    "c_signal": (0, 1),
}


@st.composite
def grid_texts(draw, low, high):
    numbers = st.floats(low, high).map(lambda v: round(v, 6) + 0.0)
    if draw(st.booleans()):
        start, stop = draw(numbers), draw(numbers)
        if start < stop:
            return f"{start}:{stop}:{draw(st.integers(2, 5))}"
    return draw(st.lists(numbers, min_size=1, max_size=4, unique=True))


@st.composite
def recipes(draw):
    solver = draw(st.sampled_from(["linear-exact", "linear-ansatz", "linear-joint"]))
    takes = {*job(solver=solver, **({"c_signal": "1"} if "ansatz" in solver else {})).cases[0].theory.parameters}
    takes = (takes - {"time"}) | {"times"}
    names = draw(st.lists(st.sampled_from(sorted(takes & set(_RANGES))), max_size=4, unique=True))
    recipe = {"solver": solver, **{name: draw(grid_texts(*_RANGES[name])) for name in names}}
    if solver == "linear-ansatz":
        recipe.setdefault("c_signal", draw(st.sampled_from(["alpha1*gamma0", 0.25, "0,1"])))
    cases = draw(st.lists(st.sampled_from(sorted(takes & set(_RANGES))), max_size=2, unique=True))
    if cases:
        recipe["cases"] = [{"label": f"no {i}", name: draw(grid_texts(*_RANGES[name]))} for i, name in enumerate(cases)]
    return recipe


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(recipes())
def test_a_resolved_recipe_is_the_same_job(recipe):
    found = job(recipe=recipe)
    again = job(recipe=found.resolved)
    assert again.resolved == found.resolved
    for one, other in zip(found.cases, again.cases, strict=True):
        assert one.label == other.label
        assert one.words == other.words
        assert one.grid.values.keys() == other.grid.values.keys()
        for name, grid in one.grid.values.items():
            np.testing.assert_array_equal(grid.array, other.grid.values[name].array)
            assert grid.scale == other.grid.values[name].scale


def test_words_are_those_of_the_theory():
    with pytest.raises(UsageError, match="linear-exact has no ridge 'best'; use numbers"):
        job(ridge="best")
    with pytest.raises(UsageError, match="'besst' is not a grid"):
        job(ridge="besst")
