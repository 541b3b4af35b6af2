"""The experiment beside the Bayesian theory: posteriors of networks of finite width, sampled on the data."""

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

from tlcli.arrays import Floats
from tlcli.bayes.bayes_transfer import other_loss
from tlcli.bayes.observables import BayesProblem
from tlcli.dmft.activations import activation
from tlcli.dmft.loss_setup import side_of
from tlcli.errors import ConvergenceError, UsageError
from tlcli.sweep.drawn import Drawn
from tlcli.sweep.forms import check_numbers, with_errors
from tlcli.sweep.runner import Placed, Task
from tlcli.theories.base import Case, Experiment
from tlcli.theories.bayes.measured import measured_losses
from tlcli.theories.bayes.points import parameters_of, settings_of
from tlcli.theories.draws import whole
from tlcli.theories.network.points import data_of, identity_of

FUNCTION = "tlcli.theories.bayes.experiment:run"


# Measured columns; each is compared with the theory's of the same name.
MEASURED = (
    "loss",
    "baseline",
    "gain",
    "source_loss",
    "train_loss",
    "source_train_loss",
    "source_overlap",
    "target_overlap",
    "cross_overlap",
    "retained_overlap",
)
# Shares of misclassified points, measured where the labels of their task are classes.
_ERRORS = ("error", "baseline_error", "gain_error", "train_error", "source_error", "source_train_error")
_SAMPLES = {"gibbs": 400, "hmc": 300, "losses": 400}
_BURN = {"gibbs": 200, "hmc": 300, "losses": 300}
_SOURCES = 8  # states of each source network around which a target is sampled
_RAREST = 1e-4  # probability of the largest drift of a table's point, of chains at rest; below it they are not


class FinitePosteriors(Experiment):
    """Posteriors of networks of finite width, sampled on the data."""

    name = "posterior"

    def check(self, case: Case, settings: Mapping[str, Any]) -> None:
        """Refuse gamma0 or gamma2 = 0 (f has 1/γ in front), and fewer than 3 networks (their losses have no error)."""
        if int(case.words["nets"]) < 3:
            raise UsageError(f"nets = {case.words['nets']} leaves posterior losses without an error; use 3 or more.")
        for name in ("gamma0", "gamma2"):
            values = case.grid.values.get(name)
            if values is not None and np.any(values.array == 0):
                raise UsageError(f"the posterior experiment has no {name} = 0; it needs a positive one.")

    def variants(self, case: Case, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the widths and the number of networks of each."""
        nets = int(case.words["nets"])
        return [{"experiment": "posterior", "width": int(n), "nets": nets} for n in settings["width"].array]

    def tasks(self, case: Case, variant: Mapping[str, Any], settings: Mapping[str, Any], seed: int) -> Drawn:
        """Return a task per point and draw of the data."""
        more = {**identity_of(case), **variant, "data_seed": seed, "draw": 0}
        points = enumerate(case.grid.points())
        first = [Task(FUNCTION, {**parameters_of(case, point), **more}, seed, index) for index, point in points]
        return Drawn(first, int(case.words["draws"]))

    def merge(self, case: Case, found: Sequence[Placed]) -> Mapping[str, Any] | None:
        """Average the draws of one point: means, and the errors that the replicas leave in them.

        Draws of the data are the theory's own, so their spread is no error of the comparison. None where a draw belongs
        to another shard, the failed draw where one failed. `drift` is the largest change of yᵀΦy between the halves of
        a chain, in standard errors over networks, of all draws and stages, and `acceptance` the smallest share of
        accepted moves. Chains that drift beyond `largest_drift` are not at rest: the record's status is not_converged,
        and what was measured is NaN.
        """
        part = whole(found)
        if part is None or part[1] is not None:
            return None if part is None else part[1]
        records, draws = part[0], len(part[0])
        drift = max(float(record["drift"]) for record in records)
        rests = drift <= largest_drift(int(case.words["nets"]), draws)
        merged: dict[str, Any] = {
            "drift": drift,
            "acceptance": min(float(record["acceptance"]) for record in records),
            **({} if rests else {"status": "not_converged"}),
        }
        for name in (*MEASURED, *_ERRORS):
            if name not in records[0]:
                continue
            errors = np.array([record[f"{name}_se"] for record in records])
            mean = float(np.mean([record[name] for record in records])), float(np.sqrt(np.sum(errors**2))) / draws
            merged[name], merged[f"{name}_se"] = mean if rests else (math.nan, math.nan)
        return merged


def run(parameters: Mapping[str, Any], seeds: np.random.SeedSequence) -> dict[str, Any]:
    """Sample the posteriors of one width on one draw of the data; NAME and NAME_se of every measured column.

    A mean over replicas is that of the posterior's mean predictor: losses are corrected for the noise of finitely many
    replicas, and errors are jackknife errors over replicas. `drift` and `acceptance` are the largest |drift| and the
    smallest acceptance of source, target and target alone.
    """
    from tlcli.simulate.posterior import sample_posterior

    p = parameters
    data: Any = data_of({**p, "seed": p["data_seed"]})
    problem = BayesProblem.of(data)
    common = _chains(p)
    first, second = (int(s) for s in seeds.generate_state(2, np.uint64))
    settings = settings_of(p)
    sides = (side_of(data, settings, 1), side_of(data, settings, 2)) if settings.named else None
    first_loss, second_loss = (None, None) if sides is None else (other_loss(side.objective) for side in sides)
    both = sample_posterior(
        *(problem.x, problem.rows1, problem.y1, problem.rows2, problem.y2),
        gamma1=p["gamma0"],
        beta1=p["beta"],
        gamma2=p["gamma2"],
        beta2=p["beta2"],
        delta=p["delta"],
        sources=_SOURCES,
        seed=first,
        objectives=(first_loss, second_loss),
        **common,
    )
    alone = sample_posterior(
        *(problem.x, problem.rows2, problem.y2),
        gamma1=p["gamma2"],
        beta1=p["beta2"],
        seed=second,
        objectives=(second_loss, None),
        **common,
    ).source
    assert both.target is not None
    if sides is None:
        out = _measured(data, problem, both.source, both.target, alone)
    else:
        sampled = {"source": both.source, "target": both.target, "alone": alone}
        out = {}
        for name, (value, error) in measured_losses(problem, sides, sampled).items():
            out[name], out[f"{name}_se"] = value, error
    # Drift and acceptance tell a chain that is not at rest.
    stages = (both.source, both.target, alone)
    return {
        **out,
        "drift": max(abs(stage.drift) for stage in stages),
        "acceptance": min(stage.acceptance for stage in stages),
    }


def check_record(p: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Raise one of `tlcli.sweep.forms.WRONG` for a stored record that `run` cannot have returned."""
    known = [name for name in _ERRORS if name in record]
    check_numbers(record, [*with_errors((*MEASURED, *known)), "drift", "acceptance"])


def expected_cost(parameters: Mapping[str, Any]) -> tuple[float, float]:
    """Return seconds and bytes of one `run`, for `--dry-run`: a few moves of a few source networks are timed.

    A run has a chain for each replica in source and target alone, and one for each of 8 states of it in the target.
    """
    from tlcli.simulate.posterior import sample_posterior

    p = parameters
    data: Any = data_of({**p, "seed": p["data_seed"]})
    problem, common = BayesProblem.of(data), _chains(p)
    few = min(4, common["replicas"])
    settings = settings_of(p)
    source = other_loss(side_of(data, settings, 1).objective) if settings.named else None

    def trial(moves: int) -> float:
        short = {**common, "samples": moves, "burn": moves, "replicas": few}
        start = time.process_time()  # other work on the machine is no cost of ours
        with contextlib.suppress(ConvergenceError):  # few moves do not adapt their step
            sample_posterior(
                *(problem.x, problem.rows1, problem.y1),
                gamma1=p["gamma0"],
                beta1=p["beta"],
                seed=0,
                objectives=(source, None),
                **short,
            )
        return time.process_time() - start

    trial(2)  # the first call loads libraries
    long, short = (min(trial(moves) for _ in range(3)) for moves in (8, 2))
    move = max(long - short, 1e-6) / (2 * 6 * few)
    chains = common["replicas"] * (2 + _SOURCES)
    points, dim = problem.x.shape
    size = 8.0 * common["replicas"] * _SOURCES * (3 * points**2 + common["width"] * (min(points, dim) + 2 * points))
    return move * chains * (common["samples"] + common["burn"]), size


def _chains(p: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the chains of a point are run, as `sample_posterior` takes it."""
    act = activation(p["activation"])
    kind = "gibbs" if act.kind == "linear" else "hmc"
    if settings_of(p).named:
        kind = "losses"
    return {
        "activation": act,
        "width": int(p["width"]),
        "replicas": int(p["nets"]),
        "samples": _SAMPLES[kind],
        "burn": _BURN[kind],
    }


def _measured(data: Any, problem: BayesProblem, source: Any, target: Any, alone: Any) -> dict[str, float]:
    p = problem
    unit1, unit2 = (y / max(float(np.linalg.norm(y)), 1e-300) for y in (p.y1, p.y2))
    known1, known2 = (np.flatnonzero(np.isfinite(y)) for y in (data.y_test_source, data.y_test_target))
    test1, test2 = data.y_test_source[known1], data.y_test_target[known2]
    found: dict[str, tuple[float, float]] = {
        "loss": _loss(target.replica_outputs[:, p.test[known2]], test2),
        "baseline": _loss(alone.replica_outputs[:, p.test[known2]], test2),
        "source_loss": _loss(source.replica_outputs[:, p.test[known1]], test1),
        "train_loss": _loss(target.replica_outputs[:, p.rows2], p.y2),
        "source_train_loss": _loss(source.replica_outputs[:, p.rows1], p.y1),
        "source_overlap": _overlap(source.replica_kernels, p.rows1, p.rows1, unit1, unit1),
        "target_overlap": _overlap(target.replica_kernels, p.rows2, p.rows2, unit2, unit2),
        "cross_overlap": _overlap(target.replica_kernels, p.rows1, p.rows2, unit1, unit2),
        "retained_overlap": _overlap(target.replica_kernels, p.rows1, p.rows1, unit1, unit1),
    }
    loss, baseline = found["loss"], found["baseline"]
    found["gain"] = (baseline[0] - loss[0], math.hypot(baseline[1], loss[1]))
    out: dict[str, float] = {}
    for name in MEASURED:
        out[name], out[f"{name}_se"] = found[name]
    return out


def _loss(outputs: Floats, labels: Floats) -> tuple[float, float]:
    """Return the mean squared error of the mean predictor, without the noise of replicas, and its jackknife error.

    `outputs` (R, n), `labels` (n,).
    """
    if not labels.size:
        return math.nan, math.nan

    def of(part: Floats) -> float:
        noise = np.var(part, axis=0, ddof=1) / len(part) if len(part) > 1 else 0.0
        return float(np.mean((part.mean(axis=0) - labels) ** 2 - noise))

    return of(outputs), _jackknife(of, outputs)


def _jackknife(of: Callable[[Floats], float], outputs: Floats) -> float:
    count = len(outputs)
    if count < 3:
        return math.nan
    left_out = np.array([of(np.delete(outputs, r, axis=0)) for r in range(count)])
    return float(np.sqrt((count - 1) * np.var(left_out)))


def _overlap(kernels: Floats, rows: Any, columns: Any, one: Floats, other: Floats) -> tuple[float, float]:
    values = np.einsum("rij,i,j->r", kernels[:, rows[:, None], columns], one, other)
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


def largest_drift(nets: int, draws: int) -> float:
    """Return the drift, in standard errors over `nets` networks, that chains at rest exceed once in 10,000 points.

    A drift is a Student t of nets - 1 degrees of freedom, and there are three stages on every draw.
    """
    return float(-special.stdtrit(nets - 1, _RAREST / (2 * 3 * draws)))
