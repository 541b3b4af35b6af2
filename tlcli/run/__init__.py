"""From a question to a result: merging of settings, execution, files. Called, `tlcli.run(RECIPE)` runs a recipe."""

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """The package is the function `tlcli.run`, too: what it is called is taken, and fits both."""

    def __call__(self, recipe: Any, **settings: Any) -> Any:
        """Run a recipe by its own command and return its `tlcli.run.result.Result`.

        Args:
            recipe: a recipe file, the name of one that comes with tlcli, a mapping with the same keys, or a file of a
                result, which is computed again: its provenance.json or a figure.
            settings: options of the recipe's command, which are stronger than the recipe.

        Raises:
            tlcli.errors.UsageError: what cannot be run, in one sentence.
        """
        from tlcli.run.functions import run

        return run(recipe, settings)


sys.modules[__name__].__class__ = _Callable
