"""A source task, then a target task: losses, kernels and predictions of an infinitely wide network.

Stage 1 trains on the source with richness gamma0, stage 2 on the target with gamma2 (paper, Result 1); the same network
without stage 1 is the baseline. Where a richness is zero a stage is lazy: the kernel of the network that enters it is
frozen, and its predictions are kernel regression.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tlcli.arrays import Floats
from tlcli.dmft.activations import activation
from tlcli.dmft.ensemble import Numerics
from tlcli.dmft.loss_setup import LossSetup
from tlcli.dmft.loss_transfer import LossParts
from tlcli.dmft.parts import Parts, TransferResult
from tlcli.dmft.plan import Plan
from tlcli.dmft.settings import PLAIN, Data, Setup, Wanted, check_descent, check_steps
from tlcli.dmft.two_time_kernels import check_size
from tlcli.errors import UsageError, digits
from tlcli.training import Surgery, TransferSettings

_LEAST = 0.4  # of the accuracy that was asked for, of which a second solution may be


def solve_transfer(
    data: Data,
    settings: TransferSettings,
    numerics: Numerics,
    *,
    predictions: bool = False,
    kernel_times: tuple[float, ...] | None = None,
    wanted: Wanted = PLAIN,
) -> TransferResult:
    """Solve pre-training, transfer and the baseline on one set of data.

    `predictions` adds f at every point and record to the arrays; `kernel_times` adds recorded times at which kernels
    and densities are kept, besides the start and the ends of the stages; `wanted` is what is asked for besides. With an
    accuracy that was not reached, the neurons are increased once.

    Raises:
        UsageError: settings that exclude each other, an unknown word, a kernel time that is not recorded, or a recorded
            time between two steps of gradient descent.
    """
    check_descent(settings, numerics.integrator, numerics.dt, numerics.until)
    if numerics.integrator == "euler" and numerics.dt is not None:
        check_steps(settings, numerics.dt)
    result = _solve_transfer(data, settings, numerics, predictions, kernel_times, wanted)
    reached, accuracy = result.info["reached"], numerics.accuracy
    second = finer(numerics, reached)
    if second is not None and not result.message:
        with contextlib.suppress(UsageError):  # more neurons than allowed: what is known is reported as it is
            result = _solve_transfer(data, settings, second, predictions, kernel_times, wanted)
    result.info["accuracy"] = accuracy
    if result.status == "converged" and _missed(result.info["reached"], accuracy):
        result.status = "inaccurate"
    return result


def planned(data: Data, settings: TransferSettings, numerics: Numerics) -> Plan | None:
    """Return how `solve_transfer` will solve its costliest network; None where all that is learnt is lazy."""
    act = activation(settings.activation)
    x = np.concatenate([data.x_source, data.x_target, data.x_test])
    return _parts(data, settings, act, x, PLAIN)(numerics, [frozenset(), frozenset()]).plan()


def finer(numerics: Numerics, reached: float) -> Numerics | None:
    """Return the settings with which all is solved once more where an error missed the accuracy, else None."""
    if numerics.neurons is not None or not math.isfinite(reached) or not _missed(reached, numerics.accuracy):
        return None
    return replace(numerics, accuracy=numerics.accuracy * max(_LEAST, numerics.accuracy / reached))


def _missed(reached: float, wanted: float) -> bool:
    """Whether an error is beyond the accuracy by more than what errors themselves are uncertain by."""
    return bool(reached > 1.25 * wanted)


def _solve_transfer(
    data: Data,
    settings: TransferSettings,
    numerics: Numerics,
    predictions: bool,
    kernel_times: tuple[float, ...] | None,
    wanted: Wanted,
) -> TransferResult:
    act = activation(settings.activation)
    x = np.concatenate([data.x_source, data.x_target, data.x_test])
    moments = moments_of(settings, kernel_times)
    check_two_time(settings, moments, len(data.y_source) + len(data.y_target), wanted)
    parts = _parts(data, settings, act, x, wanted)(numerics, moments)
    parts.run()
    return parts.result(predictions)


def check_two_time(
    settings: TransferSettings, moments: Sequence[frozenset[int]], n_trained: int, wanted: Wanted
) -> None:
    """Refuse kernels and responses between two times where there are none.

    Raises:
        UsageError: named losses, more numbers than memory should hold; responses of one hidden layer, of kinks, of
            changed layers or with momentum.
    """
    for flag, asked in (("--two-time", wanted.two_time), ("--responses", wanted.responses)):
        if not asked:
            continue
        if settings.loss1 is not None or settings.loss2 is not None:
            raise UsageError(
                f"{flag} is for the squared error of a single output, not for a loss of its own, weights or several "
                "outputs; leave it out."
            )
        check_size(moments, n_trained, settings.depth, flag)
    if wanted.responses:
        _check_responses(settings)


def _check_responses(settings: TransferSettings) -> None:
    if not settings.deep:
        raise UsageError(
            f"--responses at depth {settings.depth}: A and B belong to hidden matrices, of which there are none; give "
            "--depth 2 or more."
        )
    if not activation(settings.activation).smooth:
        raise UsageError(
            f"--responses needs a second derivative, which {settings.activation} with its kinks does not have; use a "
            "smooth --activation."
        )
    if settings.surgery != Surgery() or settings.momentum > 0:
        what = f"--momentum {settings.momentum:g}" if settings.momentum > 0 else "--freeze, --reinit-from or --ablate"
        raise UsageError(f"--responses has not been worked out with {what}; leave out one of both.")


def _parts(data: Data, settings: TransferSettings, act: Any, x: Floats, wanted: Wanted) -> Callable[..., Parts]:
    """Return what makes the parts: of the squared error of one output, or of any loss that is named."""
    if settings.loss1 is None and settings.loss2 is None:
        return functools.partial(Parts, Setup(data, settings, act, x, wanted))
    return functools.partial(LossParts, LossSetup(data, settings, act, x, wanted))


def moments_of(settings: TransferSettings, kernel_times: tuple[float, ...] | None) -> list[frozenset[int]]:
    """Return per stage the records at which kernels are kept: the last, and those asked for."""
    out, found = [], set()
    for times in (settings.times1, settings.times2):
        keep = {len(times) - 1} if times else set()
        for wanted in kernel_times or ():
            near = [i for i, t in enumerate(times) if math.isclose(t, wanted, rel_tol=1e-9, abs_tol=1e-12)]
            keep |= set(near)
            found |= {wanted} if near else set()
        out.append(frozenset(keep))
    for wanted in kernel_times or ():
        if wanted not in found:
            raise UsageError(f"kernels: {digits(wanted)} is no recorded time; add it to --times.")
    return out
