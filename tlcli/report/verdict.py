"""The answer of a run in words: what pre-training does, by how much, and where."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tlcli.arrays import Floats
from tlcli.options import OPTIONS
from tlcli.options.axes import BEST
from tlcli.options.columns import OVERFITTING
from tlcli.report.markup import plain_text
from tlcli.report.numbers import number, points, span, with_error
from tlcli.report.records import RECORD, early_stop, final
from tlcli.report.tables import Block
from tlcli.report.told import (
    at,
    at_with_parts,
    baseline_of,
    ends,
    error_of,
    gain_of,
    gain_words,
    loss_of,
    origin,
    phases_of,
    placed,
    there,
    without_error,
    words_of,
)
from tlcli.report.where import Ends, where
from tlcli.status import Phase, Status

_EXPERIMENT, _STAGE, _TASK, _TIME = "experiment", "stage", "task", "time"
_UNSOLVED = (Status.NOT_CONVERGED, Status.FAILED)
_MEANS = {
    Phase.POSITIVE: "helps",
    Phase.NEGATIVE: "hurts",
    Phase.NEUTRAL: "makes no difference",
    Phase.COLLAPSED: "leaves no feature under this weight decay",
    Phase.UNKNOWN: "has an effect that is not known",
}
_LINES = 6  # of a grid, each of whose numbers is told


@dataclass(frozen=True)
class Beside:
    """What is known of a case beside its table.

    `edges`: points of its boundary, lists of columns as `boundary.csv` has them. `ends`: where an effect ends between
    two values of the grid, see `tlcli.report.where`. `asked`: the accuracy that was asked for. `searched`: best values
    are sought beyond those of the grid.
    """

    edges: Sequence[Mapping[str, Any]] = ()
    ends: Ends | None = None
    asked: float = math.nan
    searched: bool = True


def verdict(blocks: Sequence[Block], beside: Sequence[Beside] = (), default: str = "loss") -> str:
    """Return one line per case that answers what its table was computed for.

    `blocks` are the cases of a table, `beside` what else is known of each; `default` is the quantity of theories that
    know no gain. A gain counts as one only where its phase says so: beyond two of its standard errors.
    """
    lines = []
    for index, block in enumerate(blocks):
        text = _of_case(block, beside[index] if index < len(beside) else Beside(), default)
        lines.append(f"{plain_text(block.label)}: {text}" if block.label else text)
    return "\n".join(lines)


def _of_case(block: Block, beside: Beside, default: str) -> str:
    theory = _theory(block)
    end = final(theory)
    if "gain" not in end.columns or _untrained(end):
        parts = [*_quantities(theory, default), *(["nothing was pre-trained"] if "gain" in end.columns else [])]
    else:
        parts = [_point(end) if end.size == 1 else _grid(end, beside)]
        if RECORD in theory.axes:
            parts[0] += _losses(end) + _earlier(theory, loss_of(end))
        parts += _best(end, beside)  # what one is free to choose
    return "; ".join([*(part for part in parts if part), *_reservations(end, beside.asked)])


def _theory(block: Block) -> Block:
    """Return the block without its axis of experiments, whose theory is the same in all."""
    return block if _EXPERIMENT not in block.axes else _cut(block, _EXPERIMENT, 0)


def _cut(block: Block, axis: str, index: int) -> Block:
    """Return the block at one value of an axis."""
    position = list(block.axes).index(axis)

    def cut(column: Any) -> Any:
        array = np.asarray(column)
        if not array.ndim:
            return column
        whole = array.reshape((1,) * (len(block.axes) - array.ndim) + array.shape)
        return np.take(whole, index if whole.shape[position] > 1 else 0, axis=position)

    axes = {name: values for name, values in block.axes.items() if name != axis}
    return Block(axes, {name: cut(c) for name, c in block.columns.items()}, block.scales, block.label)


def _untrained(block: Block) -> bool:
    """Whether no network of the case was pre-trained: there is nothing to compare, its gain is that of two samples."""
    durations = [block.columns[name] for name, option in OPTIONS.items() if option.lasts == 1 and name in block.columns]
    return any(bool(np.all(np.asarray(duration) == 0)) for duration in durations)


def _point(end: Block) -> str:
    """Return the answer of a single point: its losses and what they mean."""
    place = (0,) * len(end.shape)
    name = loss_of(end)
    phase = Phase(int(phases_of(end)[place]))
    text = (
        f"{words_of(name)} {at(end, name, place)} (no pre-training {at(end, baseline_of(end), place)}): "
        f"pre-training {_MEANS[phase]}{_of_one_draw(end)}"
    )
    if phase not in (Phase.UNKNOWN, Phase.COLLAPSED):
        text += f", {gain_words(end)} {at_with_parts(end, gain_of(end), place)}"
    return text


def _grid(block: Block, beside: Beside) -> str:
    """Return the share of each phase and where it is, and the range of gains with its ends."""
    phases = phases_of(block)
    counts = {phase: n for phase in _MEANS if (n := int(np.sum(phases == phase)))}
    if len(counts) == 1:
        (phase,) = counts
        text = f"pre-training {_MEANS[phase]} at {points(block.size, none=phase == Phase.NEUTRAL)}"
    else:
        shares = ", ".join(f"{_MEANS[phase]} at {n}" for phase, n in counts.items())
        text = f"pre-training {shares} of {block.size} points"
    text += _of_one_draw(block) + where(block, beside.edges, beside.ends)
    name, words = gain_of(block), gain_words(block)
    signed = np.isin(phases, (Phase.POSITIVE, Phase.NEGATIVE))
    if signed.any():  # where there is no effect, the gain is noise or rounding
        text += f"; {words} {ends(block, name, signed)}{origin(block, name)}"
    elif told := origin(block, name):
        size = np.abs(block.full(name))
        text += f"; the {words} largest in size is {_largest(block, name, size)}{told}"
    return text


def _of_one_draw(block: Block) -> str:
    return " on this one draw of the data (the error over draws is not known)" if without_error(block) else ""


def _largest(block: Block, name: str, size: Any) -> str:
    if not np.isfinite(size).any():
        return "not known"
    return there(block, name, np.unravel_index(int(np.nanargmax(size)), block.shape))


def _losses(end: Block) -> str:
    """Return the range of the loss of a grid after training; a single point has said it."""
    loss = loss_of(end)
    known = np.isfinite(end.full(loss))
    return "" if end.size == 1 or not known.any() else f"; {words_of(loss)} in the end {ends(end, loss, known)}"


def _earlier(block: Block, name: str) -> str:
    """Return the least loss of the target stage, where it is below the last by more than two standard errors."""
    found, words = _stops(block, name), words_of(name)
    count = block.size // block.shape[-1]
    if not found:
        return ""
    axes = {n: values for n, values in block.axes.items() if n != RECORD}
    shape = tuple(len(values) for values in axes.values())

    def told(row: int) -> str:
        loss, error, time = found[row]
        place = placed(axes, np.unravel_index(row, shape)) if count > 1 else ""
        return f"{with_error(loss, error)} at t = {number(time)}{place}"

    if count == 1:
        return f"; least {words} {told(0)}"
    extremes = dict.fromkeys((min(found, key=lambda row: found[row][0]), max(found, key=lambda row: found[row][0])))
    at_which = points(count) if len(found) == count else f"{len(found)} of {count} points"
    return f"; {words} is less before the end at {at_which}: {' to '.join(map(told, extremes))}"


def _stops(block: Block, name: str) -> dict[int, tuple[float, float, float]]:
    """Return the least value of a column, its error and its time, by the points where it comes early."""
    rows = [block.full(n).reshape(-1, block.shape[-1]) for n in (name, "time")]
    paired = OVERFITTING if name == "loss" and OVERFITTING in block.columns else name
    # Both times see the same test points: only the loss has an error of the difference.
    errors = (error_of(block, name), error_of(block, paired, same_points=paired != OVERFITTING))
    rows += [error.reshape(rows[0].shape) for error in errors]
    stages = block.full("stage").reshape(rows[0].shape) if "stage" in block.columns else np.full(rows[0].shape, 2)
    found = {}
    for index, row in enumerate(zip(*rows, stages, strict=True)):
        losses, times, errors, wide = (part[row[-1] == 2] for part in row[:-1])
        if (best := early_stop(losses, wide)) is not None:
            found[index] = (losses[best], np.nan_to_num(errors[best]), times[best])
    return found


def _best(block: Block, beside: Beside) -> list[str]:
    """Return the best values of strengths where pre-training helps: searched ones, else those of the grid."""
    searched: list[str] = []
    chosen: list[str] = []
    everywhere = True
    for name in BEST:
        if name not in block.axes or len(block.axes[name]) < 2:
            continue
        best, helps = _best_values(block, name)
        best = best[helps & ~np.isnan(best)]
        if not best.size:
            continue
        everywhere = everywhere and bool(helps.all())
        (searched if beside.searched and _is_judged(block, name) else chosen).append(f"{name} = {span(best)}")
    found = [f"best {' and '.join(searched)}"] if searched else []
    found += [f"best of the grid: {' and '.join(chosen)}"] if chosen else []
    return [f"{text}{'' if everywhere else ' where it helps'}" for text in found]


def _is_judged(block: Block, name: str) -> bool:
    """Whether the table has the best value of a strength for the quantity that the phase is of."""
    return f"{name}_opt" in block.columns and f"{loss_of(block)}_opt" in block.columns


def _best_values(block: Block, name: str) -> tuple[Floats, Any]:
    """Return the best value of a strength for all values of the others, and whether pre-training helps there."""
    position = list(block.axes).index(name)
    phases = np.moveaxis(phases_of(block), position, 0)
    if _is_judged(block, name):
        best = np.take(block.full(f"{name}_opt"), 0, axis=position)
        return best, np.any(phases == Phase.POSITIVE, axis=0)
    losses = np.moveaxis(block.full(loss_of(block)), position, 0)
    least = np.argmin(np.where(np.isnan(losses), np.inf, losses), axis=0)
    helps = np.take_along_axis(phases, least[None], axis=0)[0] == Phase.POSITIVE  # the best may be no pre-training
    return np.asarray(block.axes[name], dtype=float)[least], helps


def _quantities(block: Block, default: str) -> list[str]:
    """Return what a case says that compares nothing: of times the last."""
    end = final(block)
    last = RECORD in block.axes
    if _TIME in end.axes:
        end, last = _cut(end, _TIME, int(np.argmax(end.axes[_TIME]))), True
    names = [loss_of(end)] if "gain" in end.columns else _shown(end, default)
    if _TASK in end.axes and _STAGE in end.axes:
        return _tasks(end, names[0])
    parts = [_quantity(end, name, " in the end" if last else "") for name in names]
    if RECORD in block.axes and "gain" in end.columns:
        parts[0] += _earlier(block, names[0])
    if "phase" not in end.columns and "status" in end.columns:
        lost = int(np.sum(end.full("status") == Status.COLLAPSED))
        parts += [f"no feature is left under this weight decay at {lost} of {end.size} points"] if lost else []
    return parts


def _tasks(block: Block, name: str) -> list[str]:
    """Return of every task its loss after the last stage, and how much less it had been after an earlier one."""
    parts = []
    for index, task in enumerate(block.axes[_TASK]):
        alone = _cut(block, _TASK, index)
        end = _cut(alone, _STAGE, len(block.axes[_STAGE]) - 1)
        losses = np.moveaxis(alone.full(name), list(alone.axes).index(_STAGE), 0)
        end = replace(end, columns={**end.columns, "forgotten": losses[-1] - losses.min(axis=0)})
        lost = end.full("forgotten")
        words = f"{ends(end, 'forgotten')} of it forgotten" if np.any(lost > 0) else "nothing forgotten"
        parts.append(f"task {number(task)}: {words_of(name)} in the end {ends(end, name)}, {words}")
    return parts


def _shown(block: Block, default: str) -> list[str]:
    """Return which columns answer a command that compares nothing."""
    wanted = (
        ("spike", "bulk", "overlap", "spike_alignment")
        if "spike" in block.columns
        else (default, "loss", "source_loss")
    )
    known = [name for name in wanted if name in block.columns]
    return known if "spike" in block.columns else known[:1]


def _quantity(block: Block, name: str, when: str) -> str:
    words, values = f"{words_of(name)}{when}", block.full(name)
    if values.size == 1:
        return f"{words} {at_with_parts(block, name, (0,) * len(block.shape))}"
    if not np.isfinite(values).any():
        return f"{words} is not known"
    if when and 2 < values.size <= _LINES:
        return f"{words} {', '.join(there(block, name, place) for place in np.ndindex(block.shape))}"
    return f"{words} {ends(block, name)}{origin(block, name)}"


def _reservations(block: Block, asked: float) -> list[str]:
    """Return what the answer does not hold for."""
    if "status" not in block.columns:
        return []
    status = block.full("status")
    late, missing = np.isin(status, (Status.INACCURATE,)), np.isin(status, _UNSOLVED)
    texts = []
    if late.any():
        texts.append(f"{_of(late)} less accurate than asked{_reached(block, late, asked)}")
    if missing.any():
        texts.append(f"{_of(missing)} not converged")
    return texts


def _reached(block: Block, late: Any, asked: float) -> str:
    """Return the accuracy that was asked for, that of the loss that is told, and that of any other time if it is worse.

    Errors are relative to losses above one, as the accuracy is.
    """
    if math.isnan(asked):
        return ""
    worst = float(np.nanmax(block.full("residual")[late], initial=0.0))
    name = next((n for n in ("loss", "source_loss") if f"{n}_se" in block.columns), None)
    if _TIME not in block.columns or name is None:
        return f": asked {number(asked)}, reached {worst:.2g}"
    losses, errors = block.full(name)[late], block.full(f"{name}_se")[late]
    reached = float(np.nanmax(errors / np.fmax(1.0, np.abs(losses)), initial=0.0))
    more = f" in the end, {worst:.2g} at its worst time" if worst > 1.05 * reached else ""
    return f": asked {number(asked)}, reached {reached:.2g}{more}"


def _of(chosen: Any) -> str:
    count = int(np.sum(chosen))
    return "it is" if chosen.size == 1 else f"{count} of {chosen.size} points {'is' if count == 1 else 'are'}"
