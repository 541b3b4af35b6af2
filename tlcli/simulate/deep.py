"""Deep networks of finite width trained by gradient descent on a source task, then on a target task.

The experiment that the deep theory is tested against. Networks are those of `tlcli.simulate.deep_network`; units,
steps, records and columns are those of `tlcli.simulate.two_layer`, and one hidden layer is that module's network.
In stage 2 the first layers may be frozen, and the last ones redrawn before it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tlcli.dmft.activations import activation as activation_of
from tlcli.errors import DomainError
from tlcli.simulate.deep_network import DeepNetwork, draw_deep, redraw
from tlcli.simulate.trials import Estimate
from tlcli.simulate.two_layer import Experiment, Network, estimate, simulate_two_layer

if TYPE_CHECKING:
    from tlcli.tasks.transfer import TransferData

Array = NDArray[np.float64]


def check_layers(depth: int, freeze: int, reinit_from: int | None) -> None:
    """Refuse a depth, or layers to freeze or to redraw, that no network has.

    Raises:
        DomainError: depth < 1, freeze outside 0 .. depth or reinit_from outside 0 .. depth.
    """
    if depth < 1:
        raise DomainError(f"depth = {depth}: a network needs at least one hidden layer.")
    for name, value in (("freeze", freeze), ("reinit_from", reinit_from)):
        if value is not None and not 0 <= value <= depth:
            raise DomainError(f"{name} = {value}: with depth {depth} it must lie between 0 and {depth}.")


@dataclass(frozen=True, kw_only=True)
class DeepExperiment(Experiment):
    """What is done to each network; the arguments of `simulate_deep` of the same names."""

    depth: int = 1
    freeze: int = 0
    reinit_from: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_layers(self.depth, self.freeze, self.reinit_from)

    def draw(self, seed: int, number: int, dim: int) -> tuple[DeepNetwork, Array]:
        """Network `number` of inputs of dimension `dim` at its start, and a second readout (N,)."""
        return draw_deep(seed, number, self.width, dim, self.depth, activation_of(self.activation))

    def switch(self, net: Network, second: Array, seed: int, number: int) -> None:
        """Redraw and freeze layers of network `number` between its stages, in place."""
        super().switch(net, second, seed, number)
        assert isinstance(net, DeepNetwork)
        if self.reinit_from is not None:
            redraw(net, self.reinit_from, seed, number)
        net.frozen = self.freeze


def simulate_deep(
    data: "TransferData",
    *,
    activation: str,
    depth: int,
    gamma0: float,
    gamma2: float | None,
    times1: ArrayLike,
    times2: ArrayLike,
    weight_decay: float = 0.0,
    weight_decay2: float = 0.0,
    readout: str = "carry",
    reduction: str = "mean",
    width: int,
    nets: int,
    seed: int,
    dt: float | None = None,
    baseline: bool = True,
    target: str = "rich",
    kernel: str = "feature",
    ridge: float = 0.0,
    freeze: int = 0,
    reinit_from: int | None = None,
) -> dict[str, Estimate]:
    """Train `nets` networks of `depth` hidden layers of `width` neurons on the source, then on the target of `data`.

    Arguments, units, the choice of the step and the returned columns are those of `simulate_two_layer`, to which
    depth 1 goes. With the tangent kernel of all layers, Phi^L + sum_l G^l Phi^{l-1}: `target = "frozen"` is kernel
    regression with it ("ntk") or with Phi^L alone ("feature"), of each network after its first stage.

    `freeze` = K: in stage 2 the first K layers (w, W^1 .. W^{K-1}) get no update and no weight decay; K = depth
    trains the readout alone. A frozen "ntk" then leaves out the terms of these layers. `reinit_from` = K: before
    stage 2 all weights above layer K (W^K .., the readout, and w if K = 0) are drawn afresh; K = depth is a readout
    that is reset. As with every redrawn readout, stage 2 starts from an output of order 1/(gamma2 sqrt(N)), or from
    zero with "carry-centred". The baseline, the same initial weights on the target alone, trains all layers.

    Raises:
        UsageError: nets < 1, or an unknown activation, readout, reduction, target or kernel.
        DomainError: depth < 1, freeze or reinit_from outside 0 .. depth, times, scales or decays outside their
            range, or a stage without training points.
        ConvergenceError: the training diverges, or needs too many steps.
    """
    check_layers(depth, freeze, reinit_from)
    settings: dict[str, Any] = {
        "activation": activation,
        "gamma0": gamma0,
        "gamma2": gamma2,
        "weight_decay": weight_decay,
        "weight_decay2": weight_decay2,
        "readout": readout,
        "reduction": reduction,
        "width": width,
        "dt": dt,
        "baseline": baseline,
        "target": target,
        "kernel": kernel,
        "ridge": ridge,
    }
    if depth == 1 and freeze == 0 and reinit_from is None:
        return simulate_two_layer(data, times1=times1, times2=times2, nets=nets, seed=seed, **settings)
    experiment = DeepExperiment(
        times1=[float(t) for t in np.atleast_1d(times1)],
        times2=[float(t) for t in np.atleast_1d(times2)],
        depth=depth,
        freeze=freeze,
        reinit_from=reinit_from,
        **settings,
    )
    return estimate(experiment, data, nets, seed)
