"""Bayesian networks as theories: which options they take, what their tables hold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tlcli.dmft.activations import activation
from tlcli.errors import DomainError, UsageError, counted
from tlcli.sweep.runner import Placed, Task
from tlcli.theories.amounts import shown_size, shown_time
from tlcli.theories.base import Case, Columns, Findings, PointByPoint
from tlcli.theories.bayes import points, results
from tlcli.theories.bayes.cost import cost_of
from tlcli.theories.bayes.experiment import FinitePosteriors
from tlcli.theories.bayes.whitened import Whitened, whitened_theory
from tlcli.theories.network.theory import network_theory

_TASK = ("source", "target", "dim", "p1", "alpha1", "p2", "alpha2", "rho", "noise1", "noise2", "flips1", "flips2")
_LOSSES = ("loss1", "loss2", "label_smoothing", "class_weights")
_WORDS = ("losses", "kinds", "meaning", "mixed")  # what the labels are, where a loss is named
_NETWORK = ("gamma0", "beta", "gamma2", "beta2", "delta")


@dataclass(frozen=True, eq=False)
class BayesTheory(PointByPoint):
    """Bayesian networks on a pair of tasks, as `bayes_theory` makes them."""

    store: ClassVar[str] = points.STORE
    version: ClassVar[str] = points.VERSION

    def check(self, case: Case) -> None:
        """Refuse values that no network has, at any point of the grid."""
        points.check_points(case)

    def columns(self, case: Case) -> Columns:
        """Return the names of the columns."""
        return results.placeholder(case)

    def tasks(self, case: Case, seed: int) -> Sequence[Task]:
        """Return a task per point of the grid and draw of the data."""
        return points.tasks_of(case, seed)

    def combine(self, case: Case, found: Sequence[Placed]) -> Findings:
        """Return means over the draws, with their errors, and the best coupling."""
        return results.combine(case, found)

    def estimate(self, case: Case, tasks: Sequence[Task], left: Sequence[Task], workers: int) -> list[str]:
        """Return the time and memory of the tasks that are left, from the sizes of their stages."""
        if not left:
            return []
        cost = cost_of(left)
        workers = min(workers, len(left))
        names = ("source", "target alone", "tied target")
        counts = ", ".join(f"{n} {name}{'s' if n > 1 else ''}" for n, name in zip(cost.stages, names, strict=True) if n)
        low, high = (
            f"{shown_time(seconds / workers)} on {counted(workers, 'worker')}, {shown_size(size * workers)}"
            for seconds, size in ((cost.seconds, cost.size), (cost.most, cost.size_most))
        )
        need = low if low == high else f"{low} if all is certified at once, at most {high}"
        words = f"{counts.replace('target alones', 'targets alone')} by {cost.route}"
        return [f"{need}: {words}"]

    def memory(self, tasks: Sequence[Task]) -> float:
        """Return the bytes of a process that solves the largest of the tasks, if certified at once."""
        return cost_of(tasks).size if tasks else 0.0


def bayes_theory(command: str, name: str | None, get: Callable[[str], Any]) -> BayesTheory | Whitened:
    """Return the theory `name` with the parameters that the given options leave open.

    `name` None (bayes-saddle): whitened where `whitened` is given, else by the activation. `get` returns the parsed
    value of an option, None where it is not given. The theory's `words` hold its layout: `saddle` keeps kernels and
    predictions, `end` (phase-diagram) does not.

    Raises:
        DomainError: a richness below zero.
        UsageError: an unknown task or activation, a missing or impossible one, sizes that the data do not have, a
            nonlinear activation for bayes-linear, an activation for whitened data.
    """
    _check_richness(get)
    if name is None:
        linear = activation((get("activation") or "linear").strip()).kind == "linear"
        name = "bayes-whitened" if get("whitened") else "bayes-linear" if linear else "bayes-network"
    if name == "bayes-whitened":
        tasks = [option for option in ("source", "target") if get(option) is not None]
        if tasks:
            raise UsageError(
                f"--{tasks[0]} and whitened data are two ways to say what is learned; leave out --{tasks[0]}, or "
                "--whitened and bayes-whitened."
            )
        return whitened_theory(get("whitened") or "same", get)
    phi = (get("activation") or ("linear" if name == "bayes-linear" else "tanh")).strip()
    if (activation(phi).kind == "linear") != (name == "bayes-linear"):
        allowed = "linear alone" if name == "bayes-linear" else "every other one; use bayes-linear"
        raise UsageError(f"{name} has no activation '{phi}'; it takes {allowed}.")
    tasks = network_theory(command, "network-rich", get)  # checks tasks and sizes
    losses = bool(tasks.words.get("losses"))
    parameters = [option for option in tasks.parameters if option in _TASK]
    trained = [option for option in tasks.parameters if option in _LOSSES]
    layout = "saddle" if command == "bayes-saddle" else "end"
    outputs = ("predictions",) if layout == "saddle" else ()
    sampled = ("moves",) if name == "bayes-network" else ()
    said = tuple(option for option in ("loss", "classes", "regression") if get(option))
    return BayesTheory(
        name,
        (*parameters, "activation", *trained, *_NETWORK, "draws"),
        experiments=(FinitePosteriors(),),
        quantity="error" if losses and tasks.words["kinds"][1] else "loss",
        archive="kernels",
        words={"layout": layout, **{k: v for k, v in tasks.words.items() if k in _WORDS}},
        hidden=("ptest", "raw_inputs", "drop_columns", "colour", "nets", "optimal_delta", *said, *sampled, *outputs),
        defaults={**{k: v for k, v in tasks.defaults.items() if k in (*_TASK, *_LOSSES)}, "activation": phi},
    )


def _check_richness(get: Callable[[str], Any]) -> None:
    """Refuse a richness that is outside the range of the option, in the words of this theory: it has no gamma = inf."""
    for name in ("gamma0", "gamma2"):
        try:
            get(name)
        except DomainError as error:
            raise DomainError(
                f"{str(error).partition(';')[0]}; it must be >= 0 and finite for Bayesian networks."
            ) from None
