"""The experiments as tasks of a sweep: one point in, means and standard errors of its columns out."""

import functools
import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tlcli.errors import UsageError
from tlcli.sweep.forms import check_numbers, with_errors
from tlcli.sweep.runner import Task
from tlcli.theories.base import Case, Experiment
from tlcli.theories.draws import seed_of, told

FUNCTION = "tlcli.theories.linear.experiment:run"
_WORKER = 100e6  # bytes of a process that runs experiments


class _Linear(Experiment):
    """What the experiments beside linear theories share."""

    dim: int  # of the inputs unless given: large where linear algebra does the work, D << N where networks are trained
    untrainable: tuple[tuple[str, tuple[float, ...], str], ...]

    def check(self, case: Case, settings: Mapping[str, Any]) -> None:
        """Refuse rho_xi, the NTK, and limits of the richness or the initial scale with an experiment that trains."""
        self._check_samples(case, settings)
        if self.name == "regression" and case.theory.name != "linear-structured":
            return
        offered = [other.name for other in case.theory.experiments]
        other = "" if "regression" not in offered else "; use --experiment regression"
        if case.words.get("kernel") == "ntk":
            raise UsageError(f"the {self.name} experiment freezes the feature kernel{other}.")
        for name, bad, allowed in self.untrainable:
            values = case.grid.values.get(name)
            for value in values.array[np.isin(values.array, bad)] if values is not None else ():
                raise UsageError(f"the {self.name} experiment has no {name} = {value:g}; it needs {allowed}{other}.")
        rho_xi = case.grid.values.get("rho_xi")
        if rho_xi is not None and np.any(rho_xi.array != 0):
            raise UsageError(f"the {self.name} experiment has rho_xi = 0{other}.")

    def variants(self, case: Case, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the experiment with its dimension and number of trials."""
        given = settings["dim"] or case.words.get("dim")
        if case.words.get("spectrum") not in (None, "power"):
            given = int(np.count_nonzero(_spectrum(_words(case), 0).eigenvalues))
        rest = {"dim": given or self.dim, "trials": settings["trials"]}
        return [{"experiment": self.name, **own, **rest} for own in self.sizes(settings)]

    def sizes(self, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return what else is varied."""
        return [{}]

    def tasks(self, case: Case, variant: Mapping[str, Any], settings: Mapping[str, Any], seed: int) -> list[Task]:
        """Return a task per point."""
        words = _words(case)
        common = {"solver": case.theory.name, **words}
        if case.theory.archive == "kernel":
            common["pretraining"] = True
        if str(words.get("spectrum", "power")).startswith("file:"):  # stored points must not outlive the file
            found = _spectrum(words, 0)
            content = np.concatenate([found.eigenvalues, found.teacher1, found.teacher2])
            common["spectrum_sha256"] = hashlib.sha256(content.tobytes()).hexdigest()
        points = enumerate(case.grid.points())
        return [Task(FUNCTION, {**common, **variant, **point}, seed, index) for index, point in points]

    def memory(self, parameters: Mapping[str, Any]) -> float:
        """Return the bytes of a worker at one point, measured at D = 100 to 2000 and P/D = 0.5 to 10.

        A regression holds P x D inputs and two D x D matrices, the population's integrator some fifty D x D matrices,
        and gradient descent six matrices of N x D weights.
        """
        p, dim = parameters, int(parameters["dim"])
        counts = [dim * float(p[name]) for name in ("alpha1", "alpha2") if name in p]
        counts += [float(p[name]) for name in ("p1", "p2") if name in p]
        samples = max((count for count in counts if math.isfinite(count)), default=0.0)
        numbers = {
            "population": 50.0 * dim**2,
            "network": 6.0 * int(p.get("width", 0)) * dim + samples * dim,
        }.get(self.name, samples * dim + 2.2 * dim**2)
        return _WORKER + 8.0 * numbers

    def _check_samples(self, case: Case, settings: Mapping[str, Any]) -> None:
        grid = case.grid.values
        dim = settings["dim"] or self.dim
        for name in ("alpha1", "alpha2"):
            smallest = float(grid[name].array.min()) if name in grid else math.inf
            if smallest * dim < 0.5:
                raise UsageError(
                    f"{name} = {smallest:g} leaves the experiment no sample at D = {dim}; use a larger --dim."
                )
        if "p2" in grid and np.any(np.isinf(grid["p2"].array)):
            raise UsageError("the regression experiment needs a finite p2; leave out --simulate for p2 = inf.")
        ends = [grid[name].array for name in ("t1", "time") if name in grid]
        rich = "gamma0" in grid and np.any(np.isinf(grid["gamma0"].array))
        if self.name == "regression" and rich and any(np.any(np.isfinite(end)) for end in ends):
            raise UsageError("the regression experiment has no gamma0 = inf at finite times; use a finite gamma0.")
        if self.name == "network" and np.any(settings["width"].array % 2):
            raise UsageError("the network experiment mirrors its neurons; every --width must be even.")


_FINITE = "a finite one"
_POSITIVE = "a positive one"


class Regression(_Linear):
    """Actual regressions on Gaussian inputs, or on real images."""

    name = "regression"
    dim = 400
    untrainable = (("init_scale", (0.0,), _POSITIVE),)


class Classification(_Linear):
    """Actual classifiers on the features of an actual source regression."""

    name = "classification"
    dim = 200

    def check(self, case: Case, settings: Mapping[str, Any]) -> None:
        """Refuse what has no finite features or no readout of finite norm."""
        self._check_samples(case, settings)
        for name, bad, allowed in (("gamma0", math.inf, _FINITE), ("init_scale", 0.0, _POSITIVE)):
            values = case.grid.values.get(name)
            if values is not None and np.any(values.array == bad) and "c_signal" not in case.theory.parameters:
                raise UsageError(f"the {self.name} experiment has no {name} = {bad:g}; it needs {allowed}.")

    def tasks(self, case: Case, variant: Mapping[str, Any], settings: Mapping[str, Any], seed: int) -> list[Task]:
        """Return a task per point; the best ridges are those of the theory, which searches for them."""
        tasks = super().tasks(case, variant, settings, seed)
        if case.words.get("ridge") is None:
            return tasks
        own, other = (column.tolist() for column in _best_ridges(case))
        return [
            replace(task, parameters={**task.parameters, "ridge": own[task.point], "baseline_ridge": other[task.point]})
            for task in tasks
        ]


@functools.lru_cache(maxsize=4)  # the tasks of a case are asked for several times
def _best_ridges(case: Case) -> tuple[Any, Any]:
    """Return the best ridges of a case with and without pre-training, flat, as numbers."""
    found = case.theory.columns(case)
    names = ("ridge_opt", "baseline_ridge_opt")
    every = (np.broadcast_to(found[name], case.grid.shape).ravel() for name in names)
    own, other = (np.minimum(np.nan_to_num(one, nan=1.0, posinf=_ENDLESS), _ENDLESS) for one in every)
    return own, other


_ENDLESS = 1e9  # stands for an infinite ridge, as in theory: only the direction of the predictor is left


class UnreducedDynamics(_Linear):
    """The un-reduced population dynamics on actual data."""

    name = "population"
    dim = 100
    untrainable = (
        ("gamma0", (math.inf,), _FINITE),
        ("gamma2", (math.inf,), _FINITE),
        ("init_scale", (0.0,), _POSITIVE),
    )


class FiniteNetworks(_Linear):
    """Networks of finite width."""

    name = "network"
    dim = 40
    untrainable = (
        ("gamma0", (0.0, math.inf), "a positive finite one"),
        ("gamma2", (0.0, math.inf), "a positive finite one"),
        ("init_scale", (0.0,), _POSITIVE),
    )

    def sizes(self, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the widths."""
        return [{"width": int(n)} for n in settings["width"].array]


# What the records of the experiments hold, each with its standard error.
_FITTED = ("loss", "train_loss")
_REGRESSED = ("loss", "baseline", "gain", "train_loss")
_ALONE = ("overlap", "norm2", "bulk", "spike", "source_loss")
_SOLVED = (*_REGRESSED, *_ALONE, "c_signal", "c_cross", "c_noise")
_TRAINED = ("loss", "baseline", "gain", *_ALONE, "source_loss_before", "forgetting", "norm2_end")
_SPIKED = ("norm2", "spike", "source_loss", "loss", "baseline", "gain")


def _words(case: Case) -> dict[str, Any]:
    return {name: word for name, word in case.words.items() if word is not None}


def run(parameters: Mapping[str, Any], seeds: np.random.SeedSequence) -> dict[str, Any]:
    """Run the experiment of one point; `NAME` and `NAME_se` for every column it measures."""
    p = dict(parameters)
    return told(_EXPERIMENTS[p.pop("solver"), p.pop("experiment")](p, seed_of(seeds)))


def check_record(p: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Raise one of `tlcli.sweep.forms.WRONG` for a stored record that `run` cannot have returned."""
    solver, experiment = p["solver"], p["experiment"]
    if "teachers" in p:
        check_numbers(record, with_errors(["loss"]), (len(p["teachers"]), len(p["gram"])))
        return
    names = {"linear-two-time": _FITTED, "linear-structured": _SPIKED}.get(solver, _TRAINED)
    if experiment == "regression" and names is _TRAINED:
        names = _REGRESSED if solver == "linear-ansatz" else _SOLVED
    elif "pretraining" in p and names is _TRAINED:
        names = _ALONE
    more = ["step_error"] if experiment == "network" and names is _TRAINED else []
    check_numbers(record, with_errors([*names, *more]))


def _size(p: dict[str, Any]) -> dict[str, int]:
    return {"dim": int(p.pop("dim")), "trials": int(p.pop("trials"))}


def _frozen_point(p: dict[str, Any]) -> dict[str, Any]:
    """Pre-training alone is measured by a transfer whose target stage costs nothing."""
    if p.pop("pretraining", False):
        return {**p, "t1": p.pop("time"), "alpha2": math.inf, "rho": 1.0, "rho_xi": 0.0}
    return p


def _exact_regression(p: dict[str, Any], seed: int) -> Any:
    from tlcli.simulate.regression import simulate_regression

    size = _size(p)
    return simulate_regression(_frozen_point(p), **size, seed=seed)


def _ansatz_regression(p: dict[str, Any], seed: int) -> Any:
    from tlcli.simulate.regression import simulate_ansatz

    size = _size(p)
    return simulate_ansatz(_with_numbers(p), **size, seed=seed)


def _classification(p: dict[str, Any], seed: int) -> Any:
    from tlcli.simulate.classification import (
        simulate_classification,
        simulate_classification_ansatz,
        simulate_classification_spikes,
    )
    from tlcli.theories.linear.constants import numbers_of

    size = _size(p)
    if "spikes" in p:
        spikes, overlaps = (numbers_of(name, p.pop(name)) for name in ("spikes", "overlaps"))
        return simulate_classification_spikes(p, spikes, overlaps, **size, seed=seed)
    if "c_signal" not in p:
        return simulate_classification(p, **size, seed=seed)
    return simulate_classification_ansatz(_with_numbers(p), **size, seed=seed)


def _with_numbers(p: dict[str, Any]) -> dict[str, Any]:
    """Evaluate the coefficients of an ansatz; gamma0 and alpha1 have no other part in it."""
    from tlcli.linear.ansatz import parse_expression

    where = {"gamma0": p.pop("gamma0"), "alpha1": p.pop("alpha1")}
    for name in ("c_signal", "c_cross", "c_noise"):
        if isinstance(p[name], str):
            p[name] = float(parse_expression(p[name]).evaluate(**where))
    return p


def _two_time_regression(p: dict[str, Any], seed: int) -> Any:
    """Linear regression without any pre-training: the lazy limit of the frozen kernel."""
    from tlcli.simulate.regression import simulate_regression

    size = _size(p)
    point = {"alpha1": math.inf, "gamma0": 0.0, **{name: p[name] for name in ("alpha2", "sigma2", "time")}}
    found = simulate_regression(point, **size, seed=seed)
    return {name: found[name] for name in ("loss", "train_loss")}


def _structured_regression(p: dict[str, Any], seed: int) -> Any:
    from tlcli.simulate.structured import Images, simulate_structured

    ridge = p["ridge"] / p["p2"] if p["reduction"] == "sum" else p["ridge"]
    found, images = _spectrum(p, int(p["dim"])), None
    if p["spectrum"] == "power":
        teacher2 = p["rho"] * found.teacher1 + math.sqrt(1 - p["rho"] ** 2) * found.teacher_orthogonal
    else:
        teacher2 = found.teacher2
    if p["spectrum"] == "digits":
        images, noise = Images(found.x, found.y1, found.y2), (found.sigma1, found.sigma2)
    else:
        noise = p["sigma1"], p["sigma2"]
    return simulate_structured(
        found.eigenvalues,
        found.teacher1,
        teacher2,
        p["p1"],
        p["p2"],
        p["gamma0"],
        sigma1=noise[0],
        sigma2=noise[1],
        ridge=ridge,
        init_scale=p["init_scale"],
        trials=int(p["trials"]),
        seed=seed,
        images=images,
    )


def _spectrum(p: Mapping[str, Any], dim: int) -> Any:
    from tlcli.theories.linear.structured import spectrum_of

    exponents = (p.get("spectrum_exponent", 0.0), p.get("teacher_exponent", 0.0))
    return spectrum_of(p["spectrum"], dim, *exponents, p.get("source"), p.get("target"), p.get("modes"))


def _exact_population(p: dict[str, Any], seed: int) -> Any:
    from tlcli.simulate.unreduced import simulate_unreduced

    size, alone = _size(p), "pretraining" in p
    found = simulate_unreduced({**_frozen_target(p), "mode": "frozen"}, **size, seed=seed)
    return _source_only(found) if alone else found


def _exact_network(p: dict[str, Any], seed: int) -> Any:
    from tlcli.simulate.network import simulate_network

    size, width, alone = _size(p), int(p.pop("width")), "pretraining" in p
    found = simulate_network(_frozen_target(p), **size, width=width, seed=seed, mode="frozen")
    return _source_only(found) if alone else found


def _source_only(found: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what pre-training alone leaves; the source loss is that at the switch."""
    kept = {name: found[name] for name in ("overlap", "norm2", "bulk", "spike")}
    return {**kept, "source_loss": found["source_loss_before"]}


def _frozen_target(p: dict[str, Any]) -> dict[str, Any]:
    point = _frozen_point(p)
    rest = {k: v for k, v in point.items() if k not in ("kernel", "rho_xi", "time")}
    return {**rest, "t2": point.get("time", math.inf)}


def _joint_population(p: dict[str, Any], seed: int) -> Any:
    from tlcli.simulate.unreduced import simulate_curriculum, simulate_unreduced

    size = _size(p)
    if "teachers" in p:
        stages = [
            {
                "teacher": teacher - 1,
                "alpha": p[f"alpha_{number}"],
                "gamma": p[f"gamma_{number}"],
                "time": p[f"duration_{number}"],
                "sigma": p[f"sigma_{number}"],
                "weight_decay": p[f"weight_decay_{number}"],
            }
            for number, teacher in enumerate(p["teachers"], start=1)
        ]
        found = simulate_curriculum(stages, p["gram"], **size, seed=seed, init_scale=p["init_scale"])
        return {"loss": found["loss"]}
    return simulate_unreduced({**_joint_target(p), "mode": "joint"}, **size, seed=seed)


def _joint_network(p: dict[str, Any], seed: int) -> Any:
    from tlcli.simulate.network import simulate_network

    size, width = _size(p), int(p.pop("width"))
    return simulate_network(_joint_target(p), **size, width=width, seed=seed, mode="joint")


def _joint_target(p: dict[str, Any]) -> dict[str, Any]:
    rest = {k: v for k, v in p.items() if k != "time"}
    return {"gamma2": p["gamma0"], **rest, "t2": p["time"]}


_EXPERIMENTS = {
    ("linear-exact", "regression"): _exact_regression,
    ("linear-exact", "population"): _exact_population,
    ("linear-exact", "network"): _exact_network,
    ("linear-ansatz", "regression"): _ansatz_regression,
    ("linear-classify", "classification"): _classification,
    ("linear-joint", "population"): _joint_population,
    ("linear-joint", "network"): _joint_network,
    ("linear-structured", "regression"): _structured_regression,
    ("linear-two-time", "regression"): _two_time_regression,
}
