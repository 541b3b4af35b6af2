"""The step of gradient descent: halved until the spread of networks hides what it changes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tlcli.arrays import Floats
from tlcli.errors import UsageError

PILOTS = 4  # networks from which the spread is foreseen when the step is chosen
HALVINGS = 3


@dataclass(frozen=True)
class Trainer:
    """`train(numbers, halvings)` returns arrays (len(numbers), ...) of networks, `judged` what is judged of them."""

    train: Callable[[Sequence[int], int], dict[str, Floats]]
    judged: Callable[[dict[str, Floats]], dict[str, Floats]]


def checked(trainer: Trainer, nets: int, dt: float | None) -> tuple[dict[str, Floats], float]:
    """Train `nets` networks with a step that is halved while this changes what is judged too much.

    Returns the arrays of all networks, and the largest change that another halving would make.

    Raises:
        UsageError: nets < 1.
    """
    done, halvings, change = chosen(trainer, nets, dt)
    have = len(next(iter(done.values())))
    if have < nets:
        more = trainer.train(range(have, nets), halvings)
        done = {name: np.concatenate([done[name], more[name]]) for name in done}
    return done, change


def chosen(trainer: Trainer, nets: int, dt: float | None) -> tuple[dict[str, Floats], int, float]:
    """Choose the step for `nets` networks (a stated `dt` stays).

    Returns the arrays of the networks that are trained with it already, how often it is halved, and the largest change
    that another halving would make.

    Raises:
        UsageError: nets < 1.
    """
    if nets < 1:
        raise UsageError(f"nets = {nets}: an experiment needs at least one network.")
    train, judged = trainer.train, trainer.judged
    pilots = train(range(min(nets, PILOTS)), 0)
    allowed = {name: _allowed_change(values, nets) for name, values in judged(pilots).items()}
    coarse, halvings = {name: values[:1] for name, values in pilots.items()}, 0
    while True:
        fine, old = train([0], halvings + 1), judged(coarse)
        change = {name: np.nan_to_num(abs(values - old[name])[0]) for name, values in judged(fine).items()}
        if dt is not None or halvings == HALVINGS or all(np.all(change[n] <= allowed[n]) for n in allowed):
            break
        coarse, halvings = fine, halvings + 1
    largest = max((float(c.max()) for c in change.values() if c.size), default=0.0)
    return coarse if halvings else pilots, halvings, largest


def _allowed_change(samples: Floats, nets: int) -> Floats:
    """Change (n_records,) of a loss on halving the step that its spread over `nets` networks hides."""
    mean = np.nan_to_num(samples.mean(axis=0))
    scale = float(mean.max(initial=0.0))
    if len(samples) < 2:
        return np.full(len(mean), 1e-2 * scale)
    se = np.nan_to_num(samples.std(axis=0, ddof=1)) / np.sqrt(nets)
    return np.clip(se / 2, 1e-3 * scale, 1e-2 * scale)
