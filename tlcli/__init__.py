"""Theory of transfer learning in infinite-width networks that learn features.

Every command of the program is a function of this package, with the same options:

    import tlcli

    r = tlcli.finetune_loss(alpha1=0.5, alpha2="0.05:1.5:30", rho=[0.5, 0.9], gamma0=[0, 1, 5])
    r["loss"], r.verdict, r.plot(), r.save("results/mine")

`run` runs a recipe, `load` reads a result back, `check` compares theory and experiment. What takes time is loaded when
it is asked for.
"""

from typing import TYPE_CHECKING, Any

from tlcli.version import __version__

_COMMANDS = ("pretrain_kernel", "finetune_loss", "dmft_solve", "bayes_saddle", "phase_diagram")
_OWN = ("check", "load", "run")

__all__ = [*_COMMANDS, *_OWN, "Result", "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Make a function when it is first asked for: importing the package costs next to nothing."""
        if name in _COMMANDS:
            from tlcli.options.commands import COMMANDS
            from tlcli.run.functions import function_of

            return globals().setdefault(name, function_of(COMMANDS[name.replace("_", "-")]))
        if name in _OWN:
            import importlib

            from tlcli.run import functions

            return importlib.import_module("tlcli.run") if name == "run" else getattr(functions, name)
        if name == "Result":
            from tlcli.run.result import Result

            return Result
        raise AttributeError(f"module 'tlcli' has no attribute '{name}'")

    def __dir__() -> list[str]:
        """Return the face of the package."""
        return [*__all__, "__doc__"]
