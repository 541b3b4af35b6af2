"""The frozen kernels of a pre-trained network on a pool of target points."""

import contextlib
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tlcli.arrays import Floats
from tlcli.dmft.activations import activation
from tlcli.dmft.ensemble import Numerics
from tlcli.dmft.loss_setup import LossSetup
from tlcli.dmft.loss_transfer import LossParts
from tlcli.dmft.network_transfer import moments_of
from tlcli.dmft.parts import _PER_SAMPLE, Parts
from tlcli.dmft.regression import FrozenKernel
from tlcli.dmft.settings import Data, Setup
from tlcli.errors import DomainError
from tlcli.training import TransferSettings


@dataclass(frozen=True, eq=False)
class PoolKernels:
    """Kernels between the target points of `data`: of every repeat after stage 1 (R, N, N), and at the start (N, N).

    Without stage 1 (gamma0 = 0) both are the exact one. `message` says why there is none (training broke off),
    `restless` that training ended before it came to rest as asked.
    """

    kernels: Floats
    start: Floats
    message: str
    info: dict[str, Any]
    restless: str = ""


class _Trained(Parts):
    """The pieces of a transfer whose target points are a pool: neurons are chosen by the samples taken of it."""

    samples = 0

    def _least(self) -> int:
        return math.ceil(_PER_SAMPLE * self.samples * max(1.0, 1e-2 / self.numerics.accuracy))


class _TrainedByLoss(_Trained, LossParts):
    """The same of a source with a loss that is named."""


def pool_kernels(data: Data, settings: TransferSettings, numerics: Numerics, samples: int) -> PoolKernels:
    """Train on the source and return the kernels that a readout on target points would see.

    `data.x_target` is the pool; at most `samples` of its points will be learnt from at once. Raises UsageError as
    `tlcli.dmft.network_transfer.solve_transfer`.
    """
    settings = replace(settings, target="frozen", times2=(math.inf,))
    x = np.concatenate([data.x_source, data.x_target, data.x_test])
    act, moments = activation(settings.activation), moments_of(settings, None)
    parts: _Trained
    if settings.loss1 is None and settings.loss2 is None:
        parts = _Trained(Setup(data, settings, act, x), numerics, moments)
    else:
        parts = _TrainedByLoss(LossSetup(data, settings, act, x), numerics, moments)
    setup, parts.samples = parts.setup, samples
    rows = setup.target
    start = parts._initial()[rows]
    if settings.gamma0 == 0:
        return PoolKernels(start[None], start, "", {"rank": setup.geometry.rank})
    main = parts._solve([setup.stage(1)], setup.watch(parts.moments, whole=True))
    parts._keep_observed(main, 0)
    chosen = main.plan
    info = {"rank": setup.geometry.rank, "population": chosen.kind, "neurons": chosen.neurons, "notes": main.notes}
    info |= {"repeats": chosen.repeats, "integrator": chosen.control.method, "tolerance": chosen.control.tolerance}
    if main.message or "phi" not in parts.observed[0]:
        return PoolKernels(np.full((1, len(rows), len(rows)), np.nan), start, main.message or "no kernel", info)
    found = parts._last_kernels(parts.observed[0])
    corrected = parts._corrected_kernels(found) if len(found) > 1 else None
    if corrected is not None:
        with contextlib.suppress(DomainError):  # a sum that is not positive is no kernel: the samples stand alone
            FrozenKernel(corrected[:, rows].mean(axis=0))
            found = corrected
    return PoolKernels(found[:, rows], start, "", info, parts.unsettled())
