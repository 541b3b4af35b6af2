"""Figures as objects: the whole way of a command, up to the moment before a figure is saved."""

from unittest import mock

import matplotlib.pyplot as plt
import pytest

from tlcli.options.commands import COMMANDS
from tlcli.run.execute import execute
from tlcli.run.recipe import parse_recipe

# A network that takes no time, as flags.
TINY = {"source": "linear", "target": "linear", "dim": "4", "p1": "6", "p2": "4", "ptest": "20", "t1": "1", "t2": "1"}
TINY |= {"repeats": "2", "accuracy": "1"}


class Drawn(dict):
    """Figures by the names of their files; each is drawn as it is taken: titles, ticks and layout must not warn."""

    def __init__(self, figures):
        super().__init__(figures)
        self.waiting = set(figures)

    def __getitem__(self, name):
        figure = super().__getitem__(name)
        if name in self.waiting:
            self.waiting.remove(name)
            figure.canvas.draw()
        return figure

    def values(self):
        return [self[name] for name in self]

    def items(self):
        return [(name, self[name]) for name in self]


@pytest.fixture
def draw(tmp_path):
    """Return a function: command, recipe and flags in, file name → figure out."""

    def figures(command, recipe=None, **flags):
        found = {}

        def keep(figure, path, facts, drawing):
            found[path.name] = figure
            path.write_bytes(b"")  # the provenance has the hash of every file

        loaded = None if recipe is None else parse_recipe(recipe, "test")
        flags |= {"output": str(tmp_path), "quiet": True, "force": True}
        with mock.patch("tlcli.report.writer.save", keep):
            assert execute(command, COMMANDS[command].options, loaded, flags) == 0
        return Drawn(found)

    yield figures
    plt.close("all")
