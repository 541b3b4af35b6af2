"""The frozen kernels of a pre-trained network on a pool of target points."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tlcli.arrays import Floats, Indices
from tlcli.dmft.activations import activation
from tlcli.dmft.ensemble import Numerics
from tlcli.dmft.loss_setup import LossSetup
from tlcli.dmft.loss_transfer import LossParts
from tlcli.dmft.network_transfer import moments_of
from tlcli.dmft.parts import _PER_SAMPLE, Parts
from tlcli.dmft.regression import FrozenKernel
from tlcli.dmft.settings import Data, Setup
from tlcli.dmft.two_layer import View
from tlcli.errors import DomainError
from tlcli.training import TransferSettings


@dataclass(frozen=True, eq=False)
class PoolKernels:
    """Kernels between the target points of `data`: of every repeat after stage 1 (R, N, N), and at the start (N, N).

    Without stage 1 (gamma0 = 0) both are the exact one. `message` says why there is none (training broke off),
    `restless` that training ended before it came to rest as asked. `corrected`: what the sampled neurons lack at the
    start is added, so that the rank is no longer their number.
    """

    kernels: Floats
    start: Floats
    message: str
    info: dict[str, Any]
    restless: str = ""
    corrected: bool = False


class _Trained(Parts):
    """The pieces of a transfer whose target points are a pool: neurons are chosen by the samples taken of it."""

    samples = 0

    def _least(self) -> int:
        return math.ceil(_PER_SAMPLE * self.samples * max(1.0, 1e-2 / self.numerics.accuracy))

    @functools.cached_property
    def _start(self) -> Floats:
        """The frozen kernel at initialisation, all points x target; of the other kernels there nothing is kept."""
        found = super()._initial().copy()
        vars(self.setup).pop("initial", None)
        return found

    def _initial(self) -> Floats:
        return self._start

    def watch(self) -> Any:
        """Return the observer of a training: pools are large, and nothing but their kernel is kept of two layers."""
        return self.setup.watch(self.moments, whole=True) if self.setup.settings.deep else self._kernel

    def _kernel(self, stage: int, record: int, time: float, view: View) -> dict[str, Any]:
        rows = self.setup.target
        kept = record in self.moments[stage]
        return {"kernel": self._frozen_kernel(*view.kernels(rows, rows), rows)} if kept else {}

    def kernels_of(self, observed: dict[str, Any]) -> Floats | None:
        """Return the kernel of every repeat (R, N, N) at the end of training; None where it was not reached."""
        if self.setup.settings.deep:
            return self._last_kernels(observed)[:, self.setup.target] if "phi" in observed else None
        return observed["kernel"][:, -1] if "kernel" in observed else None


class _TrainedByLoss(_Trained, LossParts):
    """The same of a source with a loss that is named."""


def pool_kernels(
    data: Data, settings: TransferSettings, numerics: Numerics, samples: int, blocks: Sequence[Indices] | None = None
) -> PoolKernels:
    """Train on the source and return the kernels that a readout on target points would see.

    `data.x_target` is the pool; at most `samples` of its points will be learnt from at once, all of one of the `blocks`
    where it is divided. Raises UsageError as `tlcli.dmft.network_transfer.solve_transfer`.
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
    main = parts._solve([setup.stage(1)], parts.watch())
    chosen = main.plan
    info = {"rank": setup.geometry.rank, "population": chosen.kind, "neurons": chosen.neurons, "notes": main.notes}
    info |= {"repeats": chosen.repeats, "integrator": chosen.control.method, "tolerance": chosen.control.tolerance}
    found = None if main.message else parts.kernels_of(main.observed[0])
    if found is None:
        return PoolKernels(np.full((1, len(rows), len(rows)), np.nan), start, main.message or "no kernel", info)
    main.observed, main.coarse_observed, main.retimed_observed = [], None, None  # the largest arrays
    corrected = parts._corrected_kernels(found, rows) if len(found) > 1 else None
    good = corrected is not None and _positive(corrected, [np.arange(len(rows))] if blocks is None else blocks)
    if corrected is not None and good:
        found = corrected
    return PoolKernels(found, start, "", info, parts.unsettled(), good)


def _positive(kernels: Floats, blocks: Sequence[Indices]) -> bool:
    """Whether the mean of kernels (R, N, N) is one in every block: a sum that is not positive is no kernel."""
    try:
        for block in blocks:
            FrozenKernel(kernels[:, block[:, None], block].mean(axis=0))
    except DomainError:
        return False
    return True
