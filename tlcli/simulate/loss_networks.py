"""Networks of finite width trained with any loss, and as many outputs as their tasks have classes.

Networks are judged together. Losses are those of their mean output, whose bias by the number of networks the jackknife
takes off; errors are means, and their errors spreads, over networks that are drawn again from those that there are: a
point whose margin is within the noise counts as wrong in part. So a column is what infinitely many networks of this
width agree on, and differs from the theory by 1/N, where the error of a single network differs by the share of points
that its fluctuations reach.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from tlcli.arrays import Floats
from tlcli.dmft.activations import activation
from tlcli.dmft.estimates import Piece, averaged, jackknife
from tlcli.dmft.loss_columns import Heads, Statistic
from tlcli.dmft.loss_regression import loss_regression
from tlcli.dmft.loss_setup import LossSetup
from tlcli.errors import DomainError
from tlcli.losses.objective import Objective
from tlcli.losses.scores import point_losses
from tlcli.simulate.deep_network import DeepNetwork
from tlcli.simulate.steps import Trainer, checked
from tlcli.simulate.trials import Estimate, trial_rng
from tlcli.simulate.two_layer import SAFETY, Network, NetworkExperiment, Pull, descend
from tlcli.simulate.vector_network import VectorDeepNetwork, VectorNetwork

_AGAIN = 200  # times that networks are drawn again


@dataclass(frozen=True, eq=False)
class LossNetworks:
    """Networks of one experiment on the data of `setup`; the draw of a network depends on (seed, number) alone."""

    experiment: NetworkExperiment
    setup: LossSetup
    seed: int

    def draw(self, number: int) -> tuple[Network, Network, Floats]:
        """Return network `number` at its start, the one from scratch, and the readout of a new head.

        Both have the same first layer, and where the stages have the same outputs the same readout.
        """
        first, second = (side.outputs for side in self.setup.sides)
        rng, width = trial_rng(self.seed, number), self.experiment.width
        weights = rng.standard_normal((width, self.setup.x.shape[1]))
        readout, new = (rng.standard_normal((width, *outputs)) for outputs in (first, second))
        hidden = [rng.standard_normal((width, width)) for _ in range(self.setup.settings.depth - 1)]
        other = readout if first == second else new
        copied = [matrix.copy() for matrix in hidden]
        return self.network(weights.copy(), readout.copy(), hidden), self.network(weights, other.copy(), copied), new

    def network(self, weights: Floats, readout: Floats, hidden: list[Floats]) -> Network:
        """Return a network of these weights."""
        act = self.setup.act
        if self.setup.settings.deep:
            return (DeepNetwork if readout.ndim == 1 else VectorDeepNetwork)(weights, readout, act, hidden)
        return (Network if readout.ndim == 1 else VectorNetwork)(weights, readout, act)

    def headed(self, net: Network, readout: Floats) -> Network:
        """Return the same network with another readout, which may have other outputs."""
        found = self.network(net.weights, readout, net.hidden if isinstance(net, DeepNetwork) else [])
        if isinstance(net, DeepNetwork) and isinstance(found, DeepNetwork):
            found.frozen = net.frozen
        return found

    def train(self, numbers: Sequence[int], halvings: int) -> dict[str, Floats]:
        """Train networks; return their outputs (network, n_time, n_point[, C]) by name.

        `source`: stage 1; `target`: stage 2; `scratch`: the target alone; `old`: the source's readout in stage 2, where
        it is another.
        """
        found = [self._one(number, halvings) for number in numbers]
        return {name: np.array([one[name] for one in found]) for name in found[0]}

    def _one(self, number: int, halvings: int) -> dict[str, Floats]:
        s, x = self.setup.settings, self.setup.x
        net, scratch, new = self.draw(number)
        gammas = (s.gamma0, s.second_gamma)
        # One BLAS thread: the sums then do not depend on the machine. Overflows are caught as divergence.
        with threadpool_limits(1), np.errstate(over="ignore", invalid="ignore"):
            out = {"source": self._stage(net, 0, halvings, "stage 1")[0]}
            if not s.times2:
                return out
            if s.regresses:
                out["old"] = np.repeat(out["source"][-1:], len(s.times2), axis=0)
                return out | {"target": self._regress(net, new), "scratch": self._regress(scratch, new)}
            old = None
            if s.readout == "reset":
                old, net = net.readout if s.reinit_from is None else None, self.headed(net, new)
            self.experiment.switch(net, new, self.seed, number)
            rest = net.outputs(x, gammas[1]) if s.readout == "carry-centred" else 0.0
            out["target"], passive = self._stage(net, 1, halvings, "stage 2", rest, old)
            out["scratch"] = self._stage(scratch, 1, halvings, "baseline")[0]
        return out | ({} if old is None else {"old": passive})

    def _stage(
        self, net: Network, stage: int, halvings: int, name: str, rest: Floats | float = 0.0, old: Floats | None = None
    ) -> tuple[Floats, Floats]:
        """Return the outputs at every record of a stage, and those of the source's readout `old`."""
        s, x, side, dt = self.setup.settings, self.setup.x, self.setup.sides[stage], self.experiment.dt
        rows = (self.setup.source, self.setup.target)[stage]
        gamma, decay = ((s.gamma0, s.weight_decay), (s.second_gamma, s.weight_decay2))[stage]
        if not len(rows):
            raise DomainError(f"The {('source', 'target')[stage]} task has 0 training points; it needs at least one.")
        held = rest[rows] if isinstance(rest, np.ndarray) else rest
        path = descend(
            net,
            x[rows],
            Pull(side.objective.y, held, outputs_of(side.objective)),
            (s.times1, s.times2)[stage],
            gamma=gamma,
            decay=decay,
            reduction=s.reduction,
            safety=SAFETY / 2**halvings,
            dt=None if dt is None else dt / 2**halvings,
            stage=name,
            batches=self.experiment.batches(stage + 1, len(rows)),
            momentum=s.momentum,
        )
        own, passive = [], []
        for _ in path:
            own.append(net.outputs(x, gamma) - rest)
            if old is not None:
                passive.append(self.headed(net, old).outputs(x, s.gamma0))
        found = np.array(own)
        if side.objective.basis is not None:  # logits are reported centred; softmax does not see their mean
            found -= found.mean(axis=-1, keepdims=True)
        return found, np.array(passive)

    def _regress(self, net: Network, new: Floats) -> Floats:
        """Return the outputs of a new readout on the frozen features; of several the kernel is the mean over them."""
        s, target, x = self.setup.settings, self.setup.target, self.setup.x
        rows, readouts = slice(int(target[0]), int(target[-1]) + 1), [net.readout]
        if net.readout.ndim > 1 or self.setup.several:
            # The readout matters to the tangent kernel alone: there it is a new one.
            readouts = list(np.atleast_2d(new.T)) if s.kernel == "ntk" else [np.zeros(len(new))]
            if not self.setup.settings.deep:
                readouts = [np.ones(len(new))]  # of one hidden layer the mean is known
        found = [self.headed(net, readout).kernel(x, rows, s.kernel) for readout in readouts]
        kernel = np.mean(found, axis=0)
        objective = self.setup.sides[1].objective
        return loss_regression(
            kernel[target], kernel, objective, ridge=s.second_ridge, time=s.times2, reduction=s.reduction
        )

    def losses(self, outputs: dict[str, Floats]) -> dict[str, Floats]:
        """Return mean losses (network, n_time) on training and test points: what the step is judged by."""
        first, second = self.setup.sides
        found = {}
        for name, side, rows, times in (
            ("source", first, self.setup.source, self.setup.settings.times1),
            ("target", second, self.setup.target, self.setup.settings.times2),
            ("scratch", second, self.setup.target, self.setup.settings.times2),
        ):
            if name not in outputs or not times:
                continue
            f, test = outputs[name], self.setup.test[side.known]
            found[f"{name}_train"] = point_losses(side.loss, f[:, :, rows], side.train).mean(axis=-1)
            if len(test):
                found[f"{name}_test"] = point_losses(side.loss, f[:, :, test], side.test[side.known]).mean(axis=-1)
        return found


def simulate_losses(
    data: Any, experiment: NetworkExperiment, *, nets: int, seed: int, measured: Sequence[str]
) -> dict[str, Estimate]:
    """Train `nets` networks of any loss; return the columns `measured` over all records, and `step_error`.

    Each is (value, standard error over networks; NaN for one network) of the mean output of the networks. The step is
    chosen as in `tlcli.simulate.deep.simulate_networks`, by the losses of single networks.

    Raises:
        UsageError, DomainError, ConvergenceError: as `tlcli.simulate.deep.simulate_networks`.
    """
    networks = networks_of(experiment, data, seed)
    found, step_error = checked(Trainer(networks.train, networks.losses), nets, experiment.dt)
    return {**columns_of(networks.setup, found, measured), "step_error": Estimate(step_error, 0.0)}


def networks_of(experiment: NetworkExperiment, data: Any, seed: int) -> LossNetworks:
    """Return networks of any loss for some data; raises as `simulate_losses`."""
    training = experiment.training
    x = np.concatenate([data.x_source, data.x_target, data.x_test])
    setup = LossSetup(data, training, activation(training.activation), x)
    setup.check()
    return LossNetworks(experiment, setup, seed)


def columns_of(setup: LossSetup, found: dict[str, Floats], measured: Sequence[str]) -> dict[str, Estimate]:
    """Return the columns `measured` of the mean output of networks, from what `LossNetworks.train` returns of each."""
    stages = [averaged(found[name]) for name in ("source", "target") if name in found]
    old, scratch = (averaged(found[name]) if name in found else None for name in ("old", "scratch"))
    heads = Heads.of(setup, stages, old, scratch, estimated)
    columns = heads.losses()
    out = {name: Estimate(columns[name], columns[f"{name}_se"]) for name in measured if name in columns}
    names = [
        *(("source", "target") if setup.settings.times2 else ("source",)),
        *(n for n in ("old", "scratch") if n in found),
    ]
    out |= {name: value for name, value in _shares(heads, [found[name] for name in names]).items() if name in measured}
    return out


def _shares(heads: Heads, outputs: Sequence[Floats]) -> dict[str, Estimate]:
    """Return the shares of misclassified points, from networks drawn again; `outputs` in the order of the pieces."""
    shares, count, rng = heads.shares(), len(outputs[0]), np.random.default_rng(0)
    drawn: dict[str, list[Floats]] = {name: [] for name in shares}
    for _ in range(_AGAIN if count > 1 else 1):
        weights = rng.multinomial(count, np.full(count, 1 / count)) / count if count > 1 else np.ones(1)
        f = [np.tensordot(weights, found, axes=1) for found in outputs]
        for name, statistic in shares.items():
            drawn[name].append(statistic(f))
    means = {name: np.mean(values, axis=0) for name, values in drawn.items()}
    none = np.full(next(iter(means.values())).shape, np.nan)
    return {
        name: Estimate(mean, np.std(drawn[name], axis=0, ddof=1) if count > 1 else none) for name, mean in means.items()
    }


def estimated(pieces: Sequence[Piece], statistic: Statistic) -> tuple[Floats, Floats]:
    """Return a statistic of the mean output, without the bias of the number of networks, and its standard error."""
    value = np.asarray(statistic([p.whole for p in pieces]), dtype=float)
    parts = [p.left_out for p in pieces]
    count = len(parts[0]) if parts[0] is not None else 1
    if count < 2:
        return value, np.full(value.shape, np.nan)
    left_out = np.array([statistic([p[r] for p in parts if p is not None]) for r in range(count)], dtype=float)
    return value + (count - 1) * (value - left_out.mean(axis=0)), jackknife(left_out)


def outputs_of(objective: Objective) -> Objective:
    """Return an objective whose coordinates are the outputs themselves."""
    return replace(objective, basis=None)
