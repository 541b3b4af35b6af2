"""The proportional-limit theories: thin adapters from grids of options to `tlcli.linear`."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tlcli.arrays import Flags, Floats
from tlcli.errors import DomainError, UsageError
from tlcli.linear.ansatz import check_alignment
from tlcli.linear.linear_transfer import Transfer, transfer_ansatz, transfer_exact
from tlcli.linear.pretraining import Pretrained, collapse_ratio, pretrain
from tlcli.status import SOLVED, Status, phase_of
from tlcli.theories.base import Case, ClosedForm, Columns, Experiment, Findings, Parameters
from tlcli.theories.linear.constants import admissible, constants
from tlcli.theories.linear.correlations import ansatz_kernel, check_size, correlation_arrays, exact_kernel
from tlcli.theories.linear.experiment import FiniteNetworks, Regression, UnreducedDynamics
from tlcli.theories.linear.structured import structured_columns
from tlcli.theories.linear.two_time import two_time_arrays, two_time_columns

_SOURCE = ("alpha1", "gamma0", "sigma1", "weight_decay", "init_scale", "kernel")
_KERNEL = ("overlap", "norm2", "bulk", "spike")
_COEFFICIENTS = ("c_signal", "c_cross", "c_noise")
_TRANSFER = ("loss", "baseline", "gain", "train_loss", "phase", "residual", "status")

_DIM = 400  # of a power-law spectrum

# What each kind of input spectrum brings along, or has no use for: no options then, and no columns.
_FIXED_BY = {
    "power": ("source", "target", "modes"),
    "digits": ("dim", "spectrum_exponent", "teacher_exponent", "rho", "sigma1", "sigma2"),
    "file": ("dim", "spectrum_exponent", "teacher_exponent", "rho", "source", "target", "modes"),
}


def _given(p: Parameters, *names: str) -> dict[str, Any]:
    return {name: p[name] for name in names}


def _found(record: Any, *names: str) -> Columns:
    return {name: getattr(record, name) for name in names}


def _at_infinity(p: Parameters, *names: str) -> Flags:
    return np.logical_or.reduce(np.broadcast_arrays(*(np.isinf(np.asarray(p[name], dtype=float)) for name in names)))


class _Linear(ClosedForm):
    """What linear theories share: a single infinite answer is a mistake to be told."""

    def judge(self, case: Case, columns: Columns) -> None:
        """Refuse one point at the interpolation threshold; in a grid it is a row with its status."""
        if case.grid.size != 1 or not np.any(np.asarray(columns["status"]) == Status.DIVERGED):
            return
        if np.all(np.isfinite(columns[self.quantity])):
            return  # only a coefficient of the kernel is infinite: the row has an answer
        values = {name: float(v.array[0]) for name, v in case.grid.values.items()}
        for alpha, sigma, remedy in (("alpha1", "sigma1", "weight decay"), ("alpha2", "sigma2", "ridge")):
            if values.get(alpha) == 1.0 and values.get(sigma, 0.0) > 0:
                raise DomainError(
                    f"{alpha} = 1 with {sigma} = {values[sigma]:g} is the interpolation threshold, where the "
                    f"interpolator's norm diverges; use {alpha} below or above 1, {sigma} = 0 or a {remedy}."
                )
        raise DomainError("the answer at this point is infinite (interpolation threshold with label noise).")


@dataclass(frozen=True, eq=False)
class Pretraining(_Linear):
    """`pretrain-kernel`: the kernel that the source task leaves."""

    name: str = "linear-exact"
    parameters: tuple[str, ...] = (*_SOURCE, "time")
    quantity: str = "spike"
    archive: str = "kernel"
    experiments: tuple[Experiment, ...] = (Regression(), UnreducedDynamics(), FiniteNetworks())

    def evaluate(self, p: Parameters) -> Columns:
        """Return what `tlcli.linear.pretraining.pretrain` leaves behind."""
        source = pretrain(t1=p["time"], **_given(p, *_SOURCE))
        columns = _found(source, *_KERNEL, "n_signal", "n_noise", *_COEFFICIENTS)
        columns["source_loss"] = 1 - 2 * source.overlap + source.norm2
        columns["source_train_loss"] = source.train_loss
        return {**columns, **self._left_for_target(p, source), **_found(source, "residual", "status")}

    @staticmethod
    def _left_for_target(p: Parameters, source: Pretrained) -> Columns:
        """What the kernel is worth to a target, where one is named: the spike's overlap with it, its loss and gain."""
        if "rho" not in p:
            return {}
        check_alignment(p["rho"], p["rho_xi"])
        columns: Columns = {"spike_alignment": p["rho"] * source.n_signal + p["rho_xi"] * source.n_noise}
        if "alpha2" in p:
            found = transfer_exact(t1=p["time"], **_given(p, *_SOURCE, "alpha2", "rho", "rho_xi"))
            columns |= _found(found, "loss", "baseline", "gain", "phase")
        return columns

    def archives(self, case: Case) -> dict[str, str]:
        """Return the file of the matrices."""
        return {self.archive: "npz"}

    def arrays(self, case: Case, found: Findings) -> Columns:
        """Return the kernel's 2 x 2 block on (source teacher, noise direction), k I + C, as last two axes."""
        columns = found.columns
        c1, c3, c2, k = np.broadcast_arrays(*(columns[n] for n in ("c_signal", "c_cross", "c_noise", "bulk")))
        block = np.stack([np.stack([k + c1, c3], -1), np.stack([c3, k + c2], -1)], -2)
        return {"kernel": block, "bulk": k, "spike": np.broadcast_to(columns["spike"], k.shape)}


class _Tuned(_Linear):
    """What theories of a readout on a frozen kernel share: the correlations of its error, where they are asked for."""

    @abstractmethod
    def kernel(self, p: Parameters, columns: Columns) -> tuple[Floats, Floats, Any]:
        """Return eigenvalues and eigenvectors of C, and the bulk."""

    def check(self, case: Case) -> None:
        """Refuse correlations at more times than memory should hold."""
        check_size(case)

    def archives(self, case: Case) -> dict[str, str]:
        """Return the file of the correlations."""
        return {self.archive: "npz"} if case.words.get("correlations") else {}

    def arrays(self, case: Case, found: Findings) -> Columns | None:
        """Return correlations of the error with signal and noise, and at two times."""
        if not case.words.get("correlations"):
            return None
        return correlation_arrays(case, *self.kernel(case.parameters(), found.columns))


@dataclass(frozen=True, eq=False)
class Exact(_Tuned):
    """Fine-tuning on the kernel that pre-training really leaves."""

    name: str = "linear-exact"
    parameters: tuple[str, ...] = (
        *("alpha1", "alpha2", "rho", "rho_xi", "gamma0", "sigma1", "sigma2", "weight_decay", "init_scale", "kernel"),
        *("ridge", "t1", "time"),
    )
    archive: str = "correlations"
    experiments: tuple[Experiment, ...] = (Regression(), UnreducedDynamics(), FiniteNetworks())
    collapses: ClassVar[bool] = True

    def evaluate(self, p: Parameters) -> Columns:
        """Return `tlcli.linear.linear_transfer.transfer_exact`."""
        result = transfer_exact(**_given(p, *self.parameters))
        return {**_found(result.pretrained, *_KERNEL, *_COEFFICIENTS), **_found(result, *_TRANSFER)}

    def kernel(self, p: Parameters, columns: Columns) -> tuple[Floats, Floats, Any]:
        """Return the spike that pre-training leaves, and its bulk."""
        return *exact_kernel(columns), columns["bulk"]

    def margin(self, p: Parameters) -> Floats:
        """Return the logarithm of the ratio that features survive above (docs/theory.md, Section 2)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            margin = np.log(collapse_ratio(p["alpha1"], p["gamma0"], p["weight_decay"], p["sigma1"]))
        endless = _at_infinity(p, "t1") & (np.asarray(p["weight_decay"], dtype=float) > 0)
        return np.where(endless & ~np.isnan(margin), margin, 1.0)


@dataclass(frozen=True, eq=False)
class Ansatz(_Tuned):
    """Fine-tuning on a kernel with free coefficients."""

    name: str = "linear-ansatz"
    parameters: tuple[str, ...] = (
        *("alpha1", "alpha2", "rho", "rho_xi", "gamma0", "sigma2", "ridge", "bulk"),
        *("c_signal", "c_cross", "c_noise", "time"),
    )
    archive: str = "correlations"
    experiments: tuple[Experiment, ...] = (Regression(),)
    partial: ClassVar[bool] = True

    def missing(self, name: str) -> Any:
        """Refuse a kernel without its signal."""
        if name == "c_signal":
            raise UsageError(f"{self.name} needs --c-signal, a number or an expression such as 'alpha1*gamma0'.")
        return super().missing(name)

    def evaluate(self, p: Parameters) -> Columns:
        """Return `tlcli.linear.linear_transfer.transfer_ansatz`."""
        c = constants(p)
        given = {f"{name}_value": value for name, value in c.items() if isinstance(p[name], str)}
        return {**given, **_found(self._transfer(p, c), *_TRANSFER)}

    def kernel(self, p: Parameters, columns: Columns) -> tuple[Floats, Floats, Any]:
        """Return the kernel that was given."""
        return *ansatz_kernel(p), p["bulk"]

    def search(self, p: Parameters) -> Columns:
        """Return the same where it is admissible, NaN elsewhere."""
        good, c = admissible(p)
        columns = _found(self._transfer(p, c), "loss", "gain")
        return {name: np.where(good, column, np.nan) for name, column in columns.items()}

    def _transfer(self, p: Parameters, c: dict[str, Any]) -> Transfer:
        return transfer_ansatz(**{**_given(p, *self.parameters), **c})


@dataclass(frozen=True, eq=False)
class JointTheory(_Linear):
    """Both stages learn features."""

    name: str = "linear-joint"
    parameters: tuple[str, ...] = (
        *("alpha1", "alpha2", "rho", "gamma0", "gamma2", "sigma1", "sigma2", "weight_decay", "weight_decay2"),
        *("init_scale", "t1", "time"),
    )
    experiments: tuple[Experiment, ...] = (UnreducedDynamics(), FiniteNetworks())
    cheap: bool = False
    partial: ClassVar[bool] = True

    def evaluate(self, p: Parameters) -> Columns:
        """Return `tlcli.linear.stages.joint`."""
        from tlcli.linear.stages import joint

        gamma2 = p["gamma0"] if p["gamma2"] is None else p["gamma2"]
        for name, values in (("gamma0", p["gamma0"]), ("gamma2", gamma2)):
            if np.any(np.isinf(values)):
                raise DomainError(f"{name} = inf is no limit of joint training; use a large finite {name}.")
        if p["gamma2"] is not None and np.any(np.asarray(gamma2) == 0):
            raise DomainError("gamma2 = 0 is not allowed in linear-joint; it must be > 0.")
        result = joint(
            gamma1=p["gamma0"],
            gamma2=gamma2,
            weight_decay1=p["weight_decay"],
            t2=p["time"],
            **_given(p, "alpha1", "alpha2", "rho", "sigma1", "sigma2", "weight_decay2", "init_scale", "t1"),
        )
        columns = _found(result, "overlap", "norm2", "source_loss_before", "loss", "baseline", "gain")
        columns |= _found(result, "source_loss", "forgetting", "norm2_end")
        columns["phase"] = phase_of(
            result.gain, result.loss, result.baseline, relative=SOLVED, collapsed=result.status == Status.COLLAPSED
        )
        return {**columns, **_found(result, "residual", "status")}

    def search(self, p: Parameters) -> Columns:
        """Return the same where it can be integrated: an infinite richness gives NaN."""
        names = ("gamma0",) if p["gamma2"] is None else ("gamma0", "gamma2")
        infinite = _at_infinity(p, *names)
        columns = self.evaluate({**p, **{name: np.where(np.isinf(p[name]), 1.0, p[name]) for name in names}})
        return {name: np.where(infinite, np.nan, columns[name]) for name in ("loss", "gain")}


@dataclass(frozen=True, eq=False)
class Structured(_Linear):
    """Inputs with a spectrum."""

    name: str = "linear-structured"
    parameters: tuple[str, ...] = (
        *("spectrum", "dim", "spectrum_exponent", "teacher_exponent", "source", "target", "modes", "p1", "p2", "rho"),
        *("gamma0", "sigma1", "sigma2", "init_scale", "ridge", "reduction"),
    )
    experiments: tuple[Experiment, ...] = (Regression(),)
    cheap: bool = False
    smooth: ClassVar[bool] = True

    def refuse(self, given: Mapping[str, Any]) -> None:
        """Refuse a dimension of inputs that have their own."""
        if "dim" not in self.parameters and given.get("dim") is not None:
            raise UsageError(
                f"dim = {given['dim']} has no effect: spectrum {given['spectrum']} has a dimension of its own; "
                "leave out --dim."
            )

    def missing(self, name: str) -> Any:
        """Return the dimension of a power law."""
        return _DIM if name == "dim" else super().missing(name)

    def evaluate(self, p: Parameters) -> Columns:
        """Return `tlcli.linear.structured.structured_transfer` for the spectrum that the options name."""
        return structured_columns(p)


@dataclass(frozen=True, eq=False)
class TwoTimeTheory(_Linear):
    """The two-time DMFT of linear regression."""

    name: str = "linear-two-time"
    parameters: tuple[str, ...] = ("alpha2", "sigma2", "steps", "time")
    experiments: tuple[Experiment, ...] = (Regression(),)
    archive: str = "two-time"
    cheap: bool = False

    def evaluate(self, p: Parameters) -> Columns:
        """Return losses on the diagonal of the two-time correlations."""
        return two_time_columns(p)

    def archives(self, case: Case) -> dict[str, str]:
        """Return the file of the matrices."""
        return {self.archive: "npz"}

    def arrays(self, case: Case, found: Findings) -> Columns:
        """Return correlation and response functions."""
        return two_time_arrays(case.parameters())


def pretraining(with_target: bool, with_size: bool) -> Pretraining:
    """Return pretrain-kernel, with the target's alignment where one is named, and with its samples where they are.

    What is drawn is what the kernel is worth to the target that is named; without one, its spike.
    """
    target = (*(("alpha2",) if with_size else ()), *(("rho", "rho_xi") if with_target or with_size else ()))
    first, *rest = Pretraining.parameters
    drawn = "loss" if with_size else "spike_alignment" if with_target else "spike"
    return Pretraining(parameters=(first, *target, *rest), quantity=drawn)


BY_NAME = {theory.name: theory for theory in (Exact, Ansatz, TwoTimeTheory)}


def structured(spectrum: str) -> Structured:
    """Return linear-structured with the parameters that this input spectrum leaves open."""
    fixed = _FIXED_BY.get(spectrum.partition(":")[0], ())
    return Structured(parameters=tuple(name for name in Structured.parameters if name not in fixed))
