"""What a shell offers when a value is begun: choices, parameters, activations, tasks, recipes."""

from collections.abc import Callable, Sequence
from pathlib import Path

from tlcli.dmft.activation_table import ACTIVATIONS
from tlcli.options import OPTIONS
from tlcli.options.option import Option
from tlcli.run.shipped import shipped

Complete = Callable[[str], list[str]]

TASKS = ("linear", "hermite:", "he1+0.5*he3", "sign:", "argmax:", "digits:", "cifar10:", "file:")


def completion_of(option: Option, names: Sequence[str] = tuple(OPTIONS)) -> Complete | None:
    """Return what completes a value of the option; `names` are the options that an axis may be. None: nothing does."""
    if option.name in ("x", "y"):
        kinds = ("grid", "expression")
        return _starting([name for name in names if name in OPTIONS and OPTIONS[name].kind in kinds])
    known = {"activation": ACTIVATIONS, "source": TASKS, "target": TASKS}.get(option.name, option.choices)
    return _starting(known) if known else None


def _starting(known: Sequence[str]) -> Complete:
    def complete(incomplete: str) -> list[str]:
        return [word for word in known if word.startswith(incomplete)]

    return complete


def recipes(incomplete: str) -> list[str]:
    """Return the shipped recipes, folders and files of recipes whose names begin so."""
    begun = Path(incomplete)
    folder, start = (begun, "") if incomplete.endswith("/") else (begun.parent, begun.name)
    found = [name for name in shipped() if name.startswith(incomplete)]
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.name.startswith(start) and not (path.name.startswith(".") and not start):
                found += [f"{path}/"] if path.is_dir() else [str(path)] if path.suffix in (".yaml", ".yml") else []
    return found
