"""Training histories of K stages from recipes: the two-stage solver is the list of length two."""

import numpy as np
import pytest

from tlcli.errors import RecipeError
from tlcli.theories.linear.curriculum import curriculum


def stage(teacher, alpha, gamma, duration="inf", sigma=0, weight_decay=0):
    return {
        "teacher": teacher,
        "alpha": alpha,
        "gamma": gamma,
        "duration": duration,
        "sigma": sigma,
        "weight_decay": weight_decay,
    }


def recipe(stages, gram):
    return {"solver": "linear-joint", "stages": stages, "gram": gram}


def test_two_stages_are_the_joint_solver(case):
    first, second = stage(1, 0.6, 1.7, 1.2, 0.21, 0.013), stage(2, 0.45, 0.9, 2.1, 0.17, 0.05)
    listed = case(recipe=recipe([first, second], [[1, 0.62], [0.62, 1]]), init_scale="1.1")
    columns = listed.theory.evaluate(listed.parameters())
    joint = case(
        solver="linear-joint",
        alpha1="0.6",
        alpha2="0.45",
        rho="0.62",
        gamma0="1.7",
        gamma2="0.9",
        sigma1="0.21",
        sigma2="0.17",
        weight_decay="0.013",
        weight_decay2="0.05",
        t1="1.2",
        t2="2.1",
        init_scale="1.1",
    )
    expected = {name: np.asarray(c).item() for name, c in joint.theory.evaluate(joint.parameters()).items()}
    loss = columns["loss"]
    assert loss.shape == (2, 2), "stage, task"
    assert loss[0, 0] == pytest.approx(expected["source_loss_before"], rel=1e-8)
    assert loss[1, 1] == pytest.approx(expected["loss"], rel=1e-8)
    assert loss[1, 0] == pytest.approx(expected["source_loss"], rel=1e-8)


def test_axes_of_stages_and_inner_axes(case):
    stages = [stage(1, "1,2", [0.5, 1, 2], 1), stage(2, 1, 1, 1), stage(1, 0.5, 1, 1)]
    found = case(recipe=recipe(stages, np.eye(2).tolist()))
    assert found.grid.axes == ("alpha_1", "gamma_1")
    assert list(found.theory.inner) == ["stage", "task"]
    columns = found.theory.evaluate(found.parameters())
    assert columns["loss"].shape == (2, 3, 3, 2)
    assert columns["norm2"].shape == (2, 3, 3, 1)
    assert columns["status"].shape == (2, 3, 3, 1)
    # Every point of the grid is the curriculum alone.
    alone = case(recipe=recipe([stage(1, 2, 0.5, 1), *stages[1:]], np.eye(2).tolist()))
    np.testing.assert_allclose(
        columns["loss"][1, 0], alone.theory.evaluate(alone.parameters())["loss"], rtol=1e-7, atol=1e-10
    )


def test_unrelated_tasks_are_not_learned_before_their_stage(case):
    found = case(recipe=recipe([stage(1, "inf", 1, 2), stage(2, "inf", 1, 2)], np.eye(2).tolist()))
    loss = found.theory.evaluate(found.parameters())["loss"]
    assert loss[0, 1] > 0.99, "an orthogonal teacher: at least the loss of knowing nothing"
    assert loss[1, 1] < 0.3 < loss[1, 0]


def test_what_experiments_must_know(case):
    found = case(recipe=recipe([stage(2, 1, 1, 1), stage(1, 1, 1, 1)], [[1, 0.5], [0.5, 1]]), simulate=True)
    assert found.words == {"teachers": [2, 1], "gram": [[1, 0.5], [0.5, 1]]}
    assert [experiment.name for experiment in found.experiments] == ["population"]


@pytest.mark.parametrize(
    ("stages", "gram", "message"),
    [
        ([stage(1, 1, 1), stage(2, 1, 1)], None, "need 'gram'"),
        ([stage(3, 1, 1)], [[1, 0], [0, 1]], "a stage has teacher 3, but gram knows 1 to 2"),
        ([stage(1, 1, 1)], [[1, 2], [2, 1]], "gram"),
        ([stage(1, 1, 1)], [[1, 0.5], [0.4, 1]], "gram"),
        ([stage(1, 1, 1)], [[2]], "gram"),
        ([stage(1, 1, 1)], [[1, 0]], "gram"),
        ([stage(1, 0, 1)], None, "alpha_1 = 0 is not allowed; it must be > 0"),
        ([stage(1, 1, 1), stage(1, 1, 0)], None, "gamma_2 = 0 is not allowed; it must be > 0"),
        ([stage(1, 1, 1, -1)], None, "duration_1 = -1 is not allowed"),
        ([stage(1, 1, 1, 1, -1)], None, "sigma_1 = -1 is not allowed"),
        ([stage(1, 1, 1, 1, 0, "inf")], None, "weight_decay_1 = inf is not allowed"),
        ([stage(1, "1:2", 1)], None, "alpha_1: '1:2' is not a grid"),
    ],
)
def test_what_is_refused(stages, gram, message):
    with pytest.raises(Exception, match=message) as caught:
        curriculum(stages, gram)
    assert caught.value.exit_code == RecipeError.exit_code
    assert "\n" not in str(caught.value)


def test_one_teacher_needs_no_matrix():
    solver = curriculum([stage(1, 1, 1), stage(1, 1, 1)], None)
    assert solver.inner["task"].tolist() == [1]
