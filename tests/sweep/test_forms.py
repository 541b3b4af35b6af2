"""A record that is not whole is told: missing names, other forms, other kinds."""

import pytest

from tlcli.sweep.forms import check_notes, check_numbers, check_of, check_texts, form_of, with_errors


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (1, 0),
        (1.5, 0),
        (True, None),
        ("1", None),
        (None, None),
        ([1, 2.0], (0, 0)),
        ([[1], [2]], ((0,), (0,))),
        ([1, "x"], None),
        ([[1], 2], ((0,), 0)),
        ([], ()),
    ],
)
def test_forms(value, form):
    assert form_of(value) == form


def test_numbers_of_a_shape():
    record = {"loss": 1.0, "loss_se": 0.1, "curve": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]}
    check_numbers(record, with_errors(["loss"]))
    check_numbers(record, ["curve"], (2, 3))
    for names, shape, words in (
        (["gain"], (), "no gain"),
        (["curve"], (3, 2), "curve is of another form"),
        (["curve"], (), "curve is of another form"),
        (["loss"], (1,), "loss is of another form"),
    ):
        with pytest.raises(ValueError, match=words):
            check_numbers(record, names, shape)
    with pytest.raises(ValueError, match="no mapping"):
        check_numbers([1.0], ["loss"])


def test_texts_and_notes():
    check_texts({"status": "converged"}, ["status"])
    with pytest.raises(ValueError, match="status is no text"):
        check_texts({"status": 1}, ["status"])
    check_notes(["one", "two"])
    for wrong in ("one", ["one", 2], None):
        with pytest.raises(ValueError, match="no list of texts"):
            check_notes(wrong)


def test_the_check_of_a_task_stands_beside_it():
    assert check_of("tlcli.theories.linear.experiment:run") is not None
    assert check_of("tlcli.sweep.forms:form_of") is None
