"""The experiment beside the theory of networks: finite-width networks trained on the very data of each draw."""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tlcli.arrays import Floats
from tlcli.errors import UsageError
from tlcli.options.columns import BEST_LOSS, BEST_TIME
from tlcli.simulate.steps import PILOTS, Trainer, chosen
from tlcli.sweep.drawn import Drawn
from tlcli.sweep.forms import check_numbers, with_errors
from tlcli.sweep.runner import Placed, Task, evaluate
from tlcli.theories.base import Case, Experiment
from tlcli.theories.draws import seed_of, told, whole
from tlcli.theories.network.points import data_of, identity_of, parameters_of, settings_of, stage_times
from tlcli.theories.network.results import chosen_records
from tlcli.theories.network.stopping import best_of

FUNCTION = "tlcli.theories.network.experiment:point"
MEASURED = ("loss", "source_loss", "train_loss", "source_train_loss", "baseline", "gain")
ERRORS = ("error", "source_error", "train_error", "source_train_error", "baseline_error", "gain_error")


class WideNetworks(Experiment):
    """Networks of finite width, trained on the very data of each draw."""

    name = "network"

    def check(self, case: Case, settings: Mapping[str, Any]) -> None:
        """Refuse a lazy source stage, and a stage that ends when the theory is at rest."""
        if case.words.get("until") is not None:
            raise UsageError(
                f"--until {case.words['until']:g} ends the theory at rest, and networks would go on; give --t1 and "
                "--t2 instead with --simulate."
            )
        if np.any(case.grid.values["gamma0"].array == 0):
            raise UsageError("the network experiment has no gamma0 = 0; it needs a positive finite one.")

    def variants(self, case: Case, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the widths and the number of networks of each."""
        widths = settings["width"].array
        return [{"experiment": "network", "width": int(n), "nets": int(case.words["nets"])} for n in widths]

    def tasks(self, case: Case, variant: Mapping[str, Any], settings: Mapping[str, Any], seed: int) -> Drawn:
        """Return a task per point and draw of the data."""
        gradient_descent = case.words.get("integrator") == "euler"
        more = {
            "solver": case.theory.name,
            "ptest": case.words.get("ptest"),
            "raw_inputs": bool(case.words.get("raw_inputs")),
            "colour": bool(case.words.get("colour")),
            "dt": case.words.get("dt") if gradient_descent else None,
            "data_seed": seed,
            **identity_of(case),
        }
        more |= {**variant, "draw": 0}
        points = enumerate(case.grid.points())
        first = [Task(FUNCTION, {**parameters_of(case, point), **more}, seed, index) for index, point in points]
        return Drawn(first, int(case.words["draws"]))

    def merge(self, case: Case, found: Sequence[Placed]) -> Mapping[str, Any] | None:
        """Average the draws of one point: means, and the errors that the networks leave in them.

        Draws of the data are the theory's own, so their spread is no error of the comparison. The largest step error of
        the draws is kept. None where a draw belongs to another shard, the failed draw where one failed.
        """
        part = whole(found)
        if part is None or part[1] is not None:
            return None if part is None else part[1]
        at = case.grid.point(found[0].point)
        merged = _mean(part[0], chosen_records(case, at), bool(case.theory.inner))
        if case.words["layout"] == "curve":
            times = stage_times(case, at)
            stage = np.repeat([1, 2], [len(t) for t in times])
            early = best_of(merged, stage, np.concatenate(times))
            merged |= {name: early[name].tolist() for name in (BEST_TIME, BEST_LOSS, f"{BEST_LOSS}_se")}
        return {**merged, "step_error": 0.0} if _same_steps(case) else merged


def point(parameters: Mapping[str, Any], seeds: np.random.SeedSequence) -> dict[str, Any]:
    """Train the networks of one point and draw; `NAME` and `NAME_se` for every column they measure."""
    return told(run(parameters, seed_of(seeds)))


def check_record(p: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Raise one of `tlcli.sweep.forms.WRONG` for a stored record that `point` cannot have returned."""
    check_numbers(record, with_errors(measured_of(p)), (len(p["times1"]) + len(p["times2"]),))
    check_numbers(record, with_errors(["step_error"]))


def run(p: Mapping[str, Any], seed: int) -> Any:
    """Train the networks of one width on one draw of the data; `seed` is that of the networks alone."""
    from tlcli.simulate.deep import simulate_networks
    from tlcli.simulate.loss_networks import simulate_losses

    data, nets = data_of({**p, "seed": p["data_seed"]}), int(p["nets"])
    if _squared(p):
        return simulate_networks(data, settings_of(p), nets=nets, seed=seed, **_way(p))
    return simulate_losses(data, _experiment(p), nets=nets, seed=seed, measured=measured_of(p))


def _way(p: Mapping[str, Any]) -> dict[str, Any]:
    return {"width": int(p["width"]), "dt": p["dt"], "sampled": (int(p["data_seed"]), int(p["draw"]))}


def _squared(p: Mapping[str, Any]) -> bool:
    return p.get("loss1") is None and p.get("loss2") is None


def _experiment(p: Mapping[str, Any]) -> Any:
    from tlcli.simulate.deep import experiment_of

    return experiment_of(settings_of(p), **_way(p))


def measured_of(p: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns that the networks of a point measure."""
    return MEASURED if _squared(p) else (*MEASURED, *ERRORS)


_SHARES = (0.02, 0.06)  # of the stages, whose steps are equal
_TOLD = 0.1  # seconds between two looks, below which longer ones tell more
_STEP_LOOKS = 3  # trainings of one network whose step is looked at: itself, and once more with half of it
_HALVED = 1.5  # between those whose first step will do and those that all networks take twice as many steps for
_REHEARSED = 10.0  # seconds, up to which the step is chosen to be known


def expected_cost(p: Mapping[str, Any]) -> tuple[float, float]:
    """Return seconds and bytes that the networks of a point need, from short trainings of one of them.

    All records are kept, which cost much with many test points. The shortest comes twice: the first time it may load
    what it needs, and seem longer than the other one.
    """

    def spent(share: float) -> float:
        times = {name: _part(share, p[name], p["dt"]) for name in ("times1", "times2")}
        return evaluate(FUNCTION, {**p, **times, "nets": 1}, int(p["data_seed"]))[1]

    first, share = _SHARES
    short = min(spent(first), spent(first))
    while (more := spent(share) - short) < _TOLD and share < 0.5:
        share *= 3
    whole = short + max(0.0, more) * (1 - first) / (share - first)
    points = sum(int(p.get(name) or 0) for name in ("p1", "p2", "ptest"))
    each = 8.0 * 4 * int(p["width"]) * points
    size = each * int(p["nets"])
    if p["dt"] is None and whole / _STEP_LOOKS * (PILOTS + _STEP_LOOKS - 1) < _REHEARSED:
        return _rehearsed(p), size
    trained = (int(p["nets"]) + _STEP_LOOKS - 1) / _STEP_LOOKS * (1.0 if p["dt"] is not None else _HALVED)
    return whole * trained, size


def _rehearsed(p: Mapping[str, Any]) -> float:
    """Return the seconds of all networks after their step is chosen in earnest: what is left is more of the same."""
    from tlcli.simulate.loss_networks import networks_of
    from tlcli.simulate.two_layer import trainer

    data, experiment, nets = data_of({**p, "seed": p["data_seed"]}), _experiment(p), int(p["nets"])
    seed, each = int(p["data_seed"]), dict[int, float]()
    if _squared(p):
        plain = trainer(experiment, data, seed)
    else:
        networks = networks_of(experiment, data, seed)
        plain = Trainer(networks.train, networks.losses)

    def timed(numbers: Sequence[int], halvings: int) -> dict[str, Floats]:
        start = time.perf_counter()
        found = plain.train(numbers, halvings)
        each[halvings] = (time.perf_counter() - start) / len(numbers)
        return found

    start = time.perf_counter()
    done, halvings, _ = chosen(Trainer(timed, plain.judged), nets, None)
    return time.perf_counter() - start + (nets - len(next(iter(done.values())))) * each[halvings]


def _part(share: float, times: Sequence[float], dt: float | None) -> list[float]:
    """Return the records of a part of a stage: of gradient descent at whole steps, at least one."""
    if dt is None:
        return [share * time for time in times]
    return sorted({time if math.isinf(time) else dt * max(1, round(share * time / dt)) for time in times})


def _same_steps(case: Case) -> bool:
    """Whether the theory makes the very steps of the networks: their size is then no difference between the two."""
    return case.words.get("integrator") == "euler" and case.words.get("dt") is not None


def _mean(part: Sequence[Mapping[str, Any]], keep: slice, several: bool) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for name in part[0]:
        if name.endswith("_se") or name == "step_error":
            continue
        values = np.array([record[name] for record in part], dtype=float)[:, keep]
        errors = np.array([record[f"{name}_se"] for record in part], dtype=float)[:, keep]
        mean, error = values.mean(axis=0), np.sqrt(np.sum(errors**2, axis=0)) / len(part)
        merged[name] = mean.tolist() if several else float(mean[-1])
        merged[f"{name}_se"] = error.tolist() if several else float(error[-1])
    merged["step_error"] = max(float(record["step_error"]) for record in part)
    return merged
