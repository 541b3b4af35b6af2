"""How options behave as axes of tables and figures; their declarations say it."""

from collections.abc import Mapping
from typing import Any

from tlcli.options import OPTIONS

BEST = tuple(name for name, option in OPTIONS.items() if option.best)  # axes whose best value is sought


def has_ends(name: str) -> bool:
    """Whether 0 and infinity have places of their own on an axis."""
    return name in OPTIONS and OPTIONS[name].ends


def stepped(name: str | None) -> bool:
    """Whether there is nothing between two values of an axis: stages, layers."""
    return name in ("stage", "task") or (name is not None and name in OPTIONS and OPTIONS[name].stepped)


def time_unit(words: Mapping[str, Any]) -> str:
    """Return what times are counted in, for the texts or settings of a result."""
    return "summed-loss" if words.get("reduction") == "sum" else "mean-loss"


def best_columns(name: str) -> tuple[str, str, str]:
    """Return the columns of the best value of an axis, and of the range in which a value is as good."""
    return f"{name}_opt", f"{name}_low", f"{name}_high"


def summarised_axis(quantity: str | None) -> str | None:
    """Return the axis to all of whose values a quantity belongs at once: it is its best value, or what is found there.

    What is found at the best of an axis without places of its own has a value at every point of that axis.
    """
    if quantity in ("loss_opt", "train_loss_opt"):
        return next(filter(has_ends, BEST), None)
    return next((name for name in BEST if quantity in best_columns(name)), None)
