"""Cases of the solvers, made as the command line makes them."""

import pytest

from tlcli.options.commands import COMMANDS
from tlcli.run.job import prepare
from tlcli.run.recipe import parse_recipe


@pytest.fixture(scope="session")
def case():
    """Return a function: command (or None for finetune-loss) and settings in, one case out."""

    def make(command="finetune-loss", recipe=None, **flags):
        loaded = None if recipe is None else parse_recipe(recipe, "test")
        (found,) = prepare(command, COMMANDS[command].options, loaded, flags).cases
        return found

    return make
