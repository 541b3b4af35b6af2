"""Numbers of a table as sentences tell them: with their errors, what these are by, and where on the grid they are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tlcli.arrays import Floats, in_quadrature
from tlcli.options.columns import BASELINES, errors_of, judged
from tlcli.report.numbers import number, with_error
from tlcli.report.tables import Block
from tlcli.status import SIGNIFICANT, Phase

_PARTS = {"_se": "neurons", "_test_se": "test points"}


def error_of(block: Block, name: str, same_points: bool = False) -> Any:
    """Return the standard error of a column at the block's shape, see `tlcli.options.columns.errors_of`."""
    known = errors_of(name, block.columns, same_points)
    return in_quadrature([block.full(n) for n in known]) if known else np.full(block.shape, np.nan)


def phases_of(block: Block) -> Any:
    """Return the phase of every point; tables in time have none, and decide by two standard errors."""
    if "phase" in block.columns:
        return block.full("phase")
    name = gain_of(block)
    gain = block.full(name)
    # Few draws may agree by chance on what the neurons and the integration leave open.
    own = block.full(f"{name}_se") if f"{name}_se" in block.columns else 0.0
    wide = SIGNIFICANT * np.nan_to_num(np.fmax(error_of(block, name), own))
    with np.errstate(invalid="ignore"):
        sign = np.where(np.abs(gain) > wide, np.sign(gain), 0)
    return np.where(np.isnan(gain), Phase.UNKNOWN, sign).astype(np.int8)


def gain_of(block: Block) -> str:
    """Return the gain that the phase is of: of classes that in the share of misclassified points."""
    return "gain_error" if "gain_error" in block.columns else "gain"


def loss_of(block: Block) -> str:
    """Return the column that the gain of the phase belongs to."""
    return "error" if gain_of(block) == "gain_error" else judged(block.columns)


def baseline_of(block: Block) -> str:
    """Return what that column is without pre-training."""
    name = BASELINES.get(loss_of(block), "baseline")
    return name if name in block.columns else "baseline"


def words_of(name: str) -> str:
    """Return the name of a column in words."""
    return name.replace("_", " ")


def gain_words(block: Block) -> str:
    """Return what the gain is called: one that is not in the target's test loss says in what it is."""
    name = loss_of(block)
    return "gain" if name == "loss" else f"gain in {words_of(name)}"


def at(block: Block, name: str, where: Sequence[Any]) -> str:
    """Return a number with its error."""
    return with_error(block.full(name)[tuple(where)], error_of(block, name)[tuple(where)])


def at_with_parts(block: Block, name: str, where: Sequence[Any]) -> str:
    """Return a number with its error and where that comes from, if it has one."""
    text, where = at(block, name, where), tuple(where)
    if "±" not in text:
        return text
    parts = {ending: block.full(f"{name}{ending}")[where] for ending in _PARTS if f"{name}{ending}" in block.columns}
    known = [f"{number(parts[end])} by the {words}" for end, words in _PARTS.items() if parts.get(end, 0) > 0]
    if f"{name}_draw_se" in block.columns:
        return f"{text} over {_draws(block)}"
    if "_test_se" not in parts:
        return text
    return f"{text} ({', '.join(known)})" if len(known) > 1 else f"{text}{known[0][known[0].index(' ') :]}"


def origin(block: Block, name: str) -> str:
    """Return what the errors of a column are, where tables can have different ones; nothing of those that cannot."""
    if f"{name}_draw_se" in block.columns:
        return f"; errors over {_draws(block)}"
    known = [words for ending, words in _PARTS.items() if np.any(block.columns.get(f"{name}{ending}", 0) > 0)]
    return f"; errors by {' and '.join(known)}" if f"{name}_test_se" in block.columns and known else ""


def _draws(block: Block) -> str:
    counts = {float(count) for count in np.ravel(block.columns.get("draws", ()))}
    return f"{counts.pop():g} draws of the data" if len(counts) == 1 else "draws of the data"


def without_error(block: Block) -> bool:
    """Whether a gain is of one draw of the data and no error says how far it is that draw's own."""
    single = bool(np.all(np.asarray(block.columns.get("draws", 0), dtype=float) == 1))
    return single and not any(f"{gain_of(block)}{part}_se" in block.columns for part in ("_draw", "_test", "_pool"))


def ends(block: Block, name: str, chosen: Any = None) -> str:
    """Return the least and the largest value of a column, of all known or the `chosen` points, and where they are."""
    values = block.full(name)
    chosen = ~np.isnan(values) if chosen is None else chosen
    if not np.any(chosen):
        return "not known"
    among = np.flatnonzero(chosen)
    found = (among[np.argmin(values.flat[among])], among[np.argmax(values.flat[among])])
    if values[np.unravel_index(found[0], block.shape)] == values[np.unravel_index(found[1], block.shape)]:
        first = np.unravel_index(int(found[0]), block.shape)
        return at(block, name, first) if np.sum(chosen) > 1 else there(block, name, first)
    return " to ".join(there(block, name, np.unravel_index(int(end), block.shape)) for end in found)


def there(block: Block, name: str, where: Sequence[Any]) -> str:
    """Return a number with its error and where it is."""
    return f"{at(block, name, where)}{placed(block.axes, where)}"


def placed(axes: Mapping[str, Floats], where: Sequence[Any]) -> str:
    """Return a place of a grid in brackets, by what varies; nothing where there is one place only."""
    places = zip(axes.items(), where, strict=True)
    words = ", ".join(f"{name} = {number(values[int(i)])}" for (name, values), i in places if len(values) > 1)
    return f" ({words})" if words else ""
