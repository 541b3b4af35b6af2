"""The answer of a run in words: what pre-training does, by how much, and where."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tlcli.arrays import Floats, in_quadrature
from tlcli.options.axes import BEST
from tlcli.options.columns import BASELINES, OVERFITTING, errors_of, judged
from tlcli.report.numbers import number, span, with_error
from tlcli.report.records import RECORD, early_stop, final
from tlcli.report.tables import Block
from tlcli.status import Phase, Status

_EXPERIMENT = "experiment"
_UNSOLVED = (Status.NOT_CONVERGED, Status.FAILED)
_PARTS = {"_se": "neurons", "_test_se": "test points"}
_MEANS = {
    Phase.POSITIVE: "helps",
    Phase.NEGATIVE: "hurts",
    Phase.NEUTRAL: "makes no difference",
    Phase.COLLAPSED: "leaves no feature under this weight decay",
    Phase.UNKNOWN: "has an effect that is not known",
}


def verdict(blocks: Sequence[Block], edges: Sequence[Sequence[Mapping[str, Any]]] = (), default: str = "loss") -> str:
    """Return one line per case that answers what its table was computed for.

    `blocks` are the cases of a table; `edges` are the boundary points of each (lists of columns, as `boundary.csv` has
    them); `default` is the quantity of theories that know no gain. A gain counts as one only where its phase says so:
    beyond two of its standard errors.
    """
    lines = []
    for index, block in enumerate(blocks):
        text = _of_case(block, edges[index] if index < len(edges) else (), default)
        lines.append(f"{block.label}: {text}" if block.label else text)
    return "\n".join(lines)


def _of_case(block: Block, edges: Sequence[Mapping[str, Any]], default: str) -> str:
    theory = _theory(block)
    end = final(theory)
    if "gain" in end.columns:
        parts = [_point(end) if end.size == 1 else _grid(end, edges)]
        if RECORD in theory.axes:
            parts[0] += _losses(end) + _earlier(theory, _loss(end))
        parts += [_best(end, name) for name in BEST]  # what one is free to choose
    else:
        parts = [_quantity(end, name) for name in _shown(end, default)]
    return "; ".join([*(part for part in parts if part), *_reservations(end)])


def _theory(block: Block) -> Block:
    """Return the block without its axis of experiments, whose theory is the same in all."""
    if _EXPERIMENT not in block.axes:
        return block
    axes = {name: values for name, values in block.axes.items() if name != _EXPERIMENT}
    columns = {name: np.asarray(c)[0] if np.ndim(c) == len(block.axes) else c for name, c in block.columns.items()}
    return Block(axes, columns, block.scales, block.label)


def error_of(block: Block, name: str, same_points: bool = False) -> Any:
    """Return the standard error of a column at the block's shape, see `tlcli.options.columns.errors_of`."""
    known = errors_of(name, block.columns, same_points)
    return in_quadrature([block.full(n) for n in known]) if known else np.full(block.shape, np.nan)


def _phases(block: Block) -> Any:
    """Return the phase of every point; tables in time have none, and decide by two standard errors."""
    if "phase" in block.columns:
        return block.full("phase")
    name = _gain(block)
    gain = block.full(name)
    # Few draws may agree by chance on what the neurons and the integration leave open.
    own = block.full(f"{name}_se") if f"{name}_se" in block.columns else 0.0
    wide = 2.0 * np.nan_to_num(np.fmax(error_of(block, name), own))
    with np.errstate(invalid="ignore"):
        sign = np.where(np.abs(gain) > wide, np.sign(gain), 0)
    return np.where(np.isnan(gain), Phase.UNKNOWN, sign).astype(np.int8)


def _gain(block: Block) -> str:
    """Return the gain that the phase is of: of classes that in the share of misclassified points."""
    return "gain_error" if "gain_error" in block.columns else "gain"


def _loss(block: Block) -> str:
    """Return the column that the gain of the phase belongs to."""
    return "error" if _gain(block) == "gain_error" else judged(block.columns)


def _at(block: Block, name: str, where: tuple[int, ...]) -> str:
    return with_error(block.full(name)[where], error_of(block, name)[where])


def _at_with_parts(block: Block, name: str, where: tuple[int, ...]) -> str:
    """Return a number with its error and where that comes from, if it has one."""
    text = _at(block, name, where)
    if "±" not in text:
        return text
    parts = {ending: block.full(f"{name}{ending}")[where] for ending in _PARTS if f"{name}{ending}" in block.columns}
    known = [f"{number(parts[end])} by the {words}" for end, words in _PARTS.items() if parts.get(end, 0) > 0]
    if f"{name}_draw_se" in block.columns:
        return f"{text} over {_draws(block)}"
    if "_test_se" not in parts:
        return text
    return f"{text} ({', '.join(known)})" if len(known) > 1 else f"{text}{known[0][known[0].index(' ') :]}"


def _draws(block: Block) -> str:
    counts = {float(count) for count in np.ravel(block.columns.get("draws", ()))}
    return f"{counts.pop():g} draws of the data" if len(counts) == 1 else "draws of the data"


def _origin(block: Block, name: str) -> str:
    """Return what the errors of a column are, where tables can have different ones; nothing of those that cannot."""
    if f"{name}_draw_se" in block.columns:
        return f"; errors over {_draws(block)}"
    known = [words for ending, words in _PARTS.items() if np.any(block.columns.get(f"{name}{ending}", 0) > 0)]
    return f"; errors by {' and '.join(known)}" if f"{name}_test_se" in block.columns and known else ""


def _point(end: Block) -> str:
    """Return the answer of a single point: its losses and what they mean."""
    where = (0,) * len(end.shape)
    gain, name = _gain(end), _loss(end)
    baseline = BASELINES.get(name, "baseline")
    baseline = baseline if baseline in end.columns else "baseline"
    phase = Phase(int(_phases(end)[where]))
    words = name.replace("_", " ")
    text = (
        f"{words} {_at(end, name, where)} (no pre-training {_at(end, baseline, where)}): pre-training {_MEANS[phase]}"
    )
    if phase not in (Phase.UNKNOWN, Phase.COLLAPSED):
        text += f", {gain.replace('_', ' in ')} {_at_with_parts(end, gain, where)}"
    return text


def _earlier(block: Block, name: str) -> str:
    """Return the least loss of the target stage, where it is below the last by more than two standard errors."""
    found, words = _stops(block, name), name.replace("_", " ")
    count = block.size // block.shape[-1]
    if not len(found):
        return ""
    losses, errors, times = found.T
    if count == 1:
        return f"; least {words} {with_error(losses[0], errors[0])} at t = {number(times[0])}"
    where = f"{len(found)} of {count} points" if len(found) < count else f"all {count} points"
    return f"; {words} is less before the end at {where}: {span(losses)} at t = {span(times)}"


def _stops(block: Block, name: str) -> Floats:
    """Return the least value of a column, its error and its time, (n, 3), at the points where it comes early."""
    rows = [block.full(n).reshape(-1, block.shape[-1]) for n in (name, "time")]
    paired = OVERFITTING if name == "loss" and OVERFITTING in block.columns else name
    # Both times see the same test points: only the loss has an error of the difference.
    errors = (error_of(block, name), error_of(block, paired, same_points=paired != OVERFITTING))
    rows += [error.reshape(rows[0].shape) for error in errors]
    stages = block.full("stage").reshape(rows[0].shape) if "stage" in block.columns else np.full(rows[0].shape, 2)
    found = []
    for row in zip(*rows, stages, strict=True):
        losses, times, errors, wide = (part[row[-1] == 2] for part in row[:-1])
        if (best := early_stop(losses, wide)) is not None:
            found.append((losses[best], np.nan_to_num(errors[best]), times[best]))
    return np.array(found, dtype=float).reshape(-1, 3)


def _grid(block: Block, edges: Sequence[Mapping[str, Any]]) -> str:
    """Return the share of each phase, the range of gains with its ends, and where the gain changes sign."""
    phases = _phases(block)
    counts = {phase: int(np.sum(phases == phase)) for phase in _MEANS}
    shares = [f"{_MEANS[phase]} at {'all ' if n == block.size else ''}{n}" for phase, n in counts.items() if n]
    text = f"pre-training {', '.join(shares)} {'points' if len(shares) == 1 else f'of {block.size} points'}"
    signed = np.isin(phases, (Phase.POSITIVE, Phase.NEGATIVE))
    if signed.any():  # where there is no effect, the gain is noise or rounding
        name = _gain(block)
        text += f"; {name.replace('_', ' in ')} {_ends(block, name, signed)}{_origin(block, name)}"
    elif _origin(block, _gain(block)):
        gain = np.abs(block.full(_gain(block)))
        largest = _ends(block, _gain(block), gain == np.nanmax(gain)) if np.isfinite(gain).any() else "not known"
        text += f"; the largest {_gain(block).replace('_', ' in ')} is {largest}{_origin(block, _gain(block))}"
    both = (phases == Phase.POSITIVE).any() and (phases == Phase.NEGATIVE).any()  # else the line lies in the noise
    crossings = [place for some in edges if both and (place := _crossing(some, block))]
    return text + (f"; it changes sign at {', at '.join(crossings)}" if crossings else "")


def _losses(end: Block) -> str:
    """Return the range of the loss of a grid after training; a single point has said it."""
    loss = _loss(end)
    known = np.isfinite(end.full(loss))
    return (
        "" if end.size == 1 or not known.any() else f"; {loss.replace('_', ' ')} in the end {_ends(end, loss, known)}"
    )


def _ends(block: Block, name: str, chosen: Any) -> str:
    """Return the least and the largest value of a column among the `chosen` points, and where they are."""
    values = block.full(name)
    ends = (np.argmin(np.where(chosen, values, np.inf)), np.argmax(np.where(chosen, values, -np.inf)))
    return " to ".join(_there(block, name, np.unravel_index(int(end), block.shape)) for end in dict.fromkeys(ends))


def _there(block: Block, name: str, where: Any) -> str:
    """Return a number with its error and where it is."""
    axes = ", ".join(
        f"{name} = {number(values[i])}" for (name, values), i in zip(block.axes.items(), where, strict=True)
    )
    return f"{_at(block, name, tuple(where))} ({axes})"


def _crossing(edge: Mapping[str, Any], block: Block) -> str:
    """Return between which values of its axis the boundary lies."""
    axis = str(edge["refined"])
    values = np.asarray(edge[axis], dtype=float)[np.asarray(edge["kind"]) != "collapse"]
    if axis not in block.axes or not np.isfinite(values).any():
        return ""
    return f"{axis} = {span(values)}"


def _best(block: Block, name: str) -> str:
    """Return the best value of a strength where pre-training helps: the searched one, else the best of the grid."""
    if name not in block.axes or len(block.axes[name]) < 2:
        return ""
    at = list(block.axes).index(name)
    helps = np.any(_phases(block) == Phase.POSITIVE, axis=at)
    if not helps.any():
        return ""
    if (known := f"{name}_opt") in block.columns:
        best = np.take(block.full(known), 0, axis=at)
        how = "best"
    else:
        losses = block.full(_loss(block))
        best = block.axes[name][np.argmin(np.where(np.isnan(losses), np.inf, losses), axis=at)]
        how = "best of the grid:"
    best = best[helps]
    if np.isnan(best).all():
        return ""
    return f"{how} {name} = {span(best)}{'' if best.size == 1 else ' where it helps'}"


def _shown(block: Block, default: str) -> list[str]:
    """Return which columns answer a command that compares nothing."""
    wanted = (
        ("spike", "bulk", "overlap", "spike_alignment")
        if "spike" in block.columns
        else (default, "loss", "source_loss")
    )
    known = [name for name in wanted if name in block.columns]
    return known if "spike" in block.columns else known[:1]


def _quantity(block: Block, name: str) -> str:
    words, values = name.replace("_", " "), block.full(name)
    if values.size == 1:
        return f"{words} {_at_with_parts(block, name, (0,) * len(block.shape))}"
    return f"{words} {span(values)}" if np.isfinite(values).any() else f"{words} is not known"


def _reservations(block: Block) -> list[str]:
    """Return what the answer does not hold for."""
    if "status" not in block.columns:
        return []
    status = block.full("status")
    late, missing = (int(np.sum(np.isin(status, codes))) for codes in ((Status.INACCURATE,), _UNSOLVED))
    texts = []
    if late:
        texts.append(f"{_of(late, block.size)} less accurate than asked")
    if missing:
        texts.append(f"{_of(missing, block.size)} not converged")
    return texts


def _of(count: int, size: int) -> str:
    return "it is" if size == 1 else f"{count} of {size} points {'is' if count == 1 else 'are'}"
