"""Networks of finite width trained by gradient descent on a source task, then on a target task.

The experiment that the theory of networks is tested against. Deep networks are those of `tlcli.simulate.deep_network`;
units, steps, records and columns are those of `tlcli.simulate.two_layer`, whose network has one hidden layer.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlcli.arrays import Floats
from tlcli.dmft.activations import activation
from tlcli.simulate.deep_network import DeepNetwork, draw_deep, redraw
from tlcli.simulate.trials import Estimate
from tlcli.simulate.two_layer import Network, NetworkExperiment, estimate
from tlcli.training import TransferSettings

if TYPE_CHECKING:
    from tlcli.tasks.transfer_tasks import TransferData


@dataclass(frozen=True)
class DeepExperiment(NetworkExperiment):
    """The same with several hidden layers, some of which are kept or drawn anew between the stages."""

    def draw(self, seed: int, number: int, dim: int) -> tuple[DeepNetwork, Floats]:
        """Network `number` of inputs of dimension `dim` at its start, and a second readout (N,)."""
        t = self.training
        return draw_deep(seed, number, self.width, dim, t.depth, activation(t.activation))

    def switch(self, net: Network, second: Floats, seed: int, number: int) -> None:
        """Redraw and freeze layers of network `number` between its stages, in place."""
        super().switch(net, second, seed, number)
        assert isinstance(net, DeepNetwork)
        if self.training.reinit_from is not None:
            redraw(net, self.training.reinit_from, seed, number)
        net.frozen = self.training.freeze


def simulate_networks(
    data: "TransferData",
    training: TransferSettings,
    *,
    width: int,
    nets: int,
    seed: int,
    dt: float | None = None,
    sampled: tuple[int, int] = (0, 0),
) -> dict[str, Estimate]:
    """Train `nets` networks of `width` neurons per hidden layer on the source, then on the target of `data`.

    Stage 1: gradient descent with gamma0, recorded at times1. Stage 2 goes on from these weights with gamma2, recorded
    at times2; where it regresses it is linear in what it trains, from zero output: kernel regression with the features
    of each network after stage 1, or with its tangent kernel of all layers, Phi^L + sum_l G^l Phi^{l-1}. The baseline
    trains all layers of the same initial weights on the target alone, for the same times.
    `freeze` = K: in stage 2 the first K layers (w, W^1 .. W^{K-1}) get no update and no weight decay; K = depth trains
    the readout alone. `reinit_from` = K: before stage 2 all weights above layer K (W^K .., the readout, and w if K = 0)
    are drawn afresh; K = depth is a readout that is reset. As with every redrawn readout, stage 2 starts from an output
    of order 1/(gamma2 sqrt(N)), or from zero with "carry-centred". `ablate` is of the theory alone.

    The step: unless `dt` states one, network 0 is trained with the step and half of it, and the step is halved,
    up to `HALVINGS` times, until no recorded loss changes by more than half of its standard error over networks,
    held between 0.1% and 1% of that loss at its largest. The spread is foreseen from the first `PILOTS` networks.
    `step_error` is what the largest change was for the step that was used, whether or not this sufficed. `sampled` are
    the seed and the draw of the data, on which minibatches depend.

    Returns (mean, standard error over networks; NaN for one network) of the mean squared errors loss (target,
    test points), source_loss, train_loss, source_train_loss (training points with their noise), baseline and
    gain = baseline - loss (its error from the differences within networks), arrays (n_times1 + n_times2,), and
    the number step_error, with error 0.

    Raises:
        UsageError: nets < 1, or an unknown activation.
        DomainError: gamma0 = 0, a width or step that no network has, or a stage without training points.
        ConvergenceError: the training diverges, or needs too many steps.
    """
    return estimate(experiment_of(training, width, dt, sampled), data, nets, seed)


def experiment_of(
    training: TransferSettings, width: int, dt: float | None, sampled: tuple[int, int] = (0, 0)
) -> NetworkExperiment:
    """Return networks of the depth of a training."""
    kind = DeepExperiment if training.depth > 1 or training.freeze or training.reinit_from is not None else None
    return (kind or NetworkExperiment)(training, width, dt, sampled)
