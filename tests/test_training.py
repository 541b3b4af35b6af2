"""The record of a training: what it refuses is tested with the engines that read it."""

from dataclasses import fields

import numpy as np
import pytest

from tlcli.options import OPTIONS
from tlcli.options.commands import COMMANDS
from tlcli.theories.network import points
from tlcli.training import TransferSettings, parameters

OWN = {"target", "times1", "times2"}  # of the solver and of --times, --t1 and --t2


def test_every_parameter_of_a_training_is_an_option_with_the_same_default():
    for field in fields(TransferSettings):
        assert (field.name in OWN) != bool(field.metadata)
        if field.name in OWN:
            continue
        option = OPTIONS[field.name]
        written = option.parse(str(option.default)) if isinstance(option.default, str) else option.default
        value = written.array.item() if hasattr(written, "array") else written
        assert value is None or value == field.default
        assert value is not None or field.default is None or field.metadata["asked"]
        assert field.name in COMMANDS["dmft-solve"].options or field.name == "ridge"


@pytest.mark.parametrize("kind", ["pretrain", "frozen", "rich"])
def test_the_sweep_hands_every_parameter_to_the_engine(kind):
    """Each has another value than its default in the record that the engine reads."""
    usual = TransferSettings()
    given = {}
    for name in parameters(kind):
        choices = OPTIONS[name].choices
        other = next((word for word in choices if word != getattr(usual, name)), None)
        given[name] = other or {"activation": "relu", "depth": 3, "freeze": 1, "reinit_from": 2}.get(name, 0.25)
    rule = "frozen" if kind == "frozen" else "rich"
    made = points.settings_of({**given, "times1": [1.0], "times2": [2.0], "rule": rule})
    for name, value in given.items():
        assert getattr(made, name) == value != getattr(usual, name)
    assert (made.target, made.times1, made.times2) == (rule, (1.0,), (2.0,))


def test_parameters_of_the_table_are_ordered_and_those_that_few_ask_for_are_apart():
    assert parameters("pretrain", asked=False) == ["activation", "gamma0", "weight_decay", "reduction"]
    assert {"depth", "freeze", "reinit_from", "ablate"} <= set(parameters("rich", asked=True))
    assert parameters("frozen", asked=False)[-3:] == ["kernel", "ridge", "reduction"]


def test_the_ridge_of_the_second_stage_is_that_of_its_kind():
    words = {"ridge": 0.3, "weight_decay2": 0.1}
    assert TransferSettings(**words, target="frozen").second_ridge == 0.3
    assert np.isclose(TransferSettings(**words, gamma2=0.0).second_ridge, 0.4)
