"""Two-layer networks of finite width trained by gradient descent on a source task, then on a target task.

The experiment that the infinite-width theory is tested against. It works on the weights themselves and shares
no integrator with the theory. With inputs x (P, D) and width N

    f(x) = (1/(gamma N)) sum_i a_i phi(h_i(x)),   h_i(x) = w_i.x / sqrt(D),   w, a ~ N(0, 1) at t = 0,

and Delta = y - f on the training points of the active stage, one step of gradient descent of the loss
(1/2P) sum Delta^2 with the learning rate eta gamma^2 N and weight decay lambda is

    W += eta ((gamma/P) sum_mu Delta_mu a phi'(h_mu) x_mu / sqrt(D) - lambda W),
    a += eta ((gamma/P) sum_mu Delta_mu phi(h_mu) - lambda a)

(`reduction = "sum"`: without the factors 1/P). The initial weights are plain draws: the output starts at about
1/(gamma sqrt(N)), as it does in the networks that people train, and the difference from the theory is 1/N in
the mean and 1/sqrt(N) in one network.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from threadpoolctl import threadpool_limits

from tlcli.arrays import Floats, Indices
from tlcli.batches import Batches
from tlcli.dmft.activations import Activation, activation
from tlcli.errors import ConvergenceError, DomainError
from tlcli.losses.objective import Objective
from tlcli.simulate.steps import Trainer, checked
from tlcli.simulate.trials import Estimate, summarise, trial_rng
from tlcli.training import TransferSettings

if TYPE_CHECKING:
    from tlcli.tasks.transfer_tasks import TransferData


LOSSES = ("loss", "source_loss", "train_loss", "source_train_loss", "baseline")

SAFETY = 0.25  # step times the fastest rate of the training; explicit steps are stable below 2
REFRESH = 20  # steps between two measurements of the curvature ...
DRIFT = 0.1  # ... or less: the relative growth of the readout after which it is measured again
MAX_STEPS = 400_000
BLOCK = 1 << 16  # preactivations held at once: what fits the processor's cache


@dataclass(frozen=True)
class NetworkExperiment:
    """Networks of `width` neurons in each layer, trained with steps of length `dt` (None: chosen as training goes).

    `sampled`: the seed and the draw of the data that minibatches depend on.
    """

    training: TransferSettings
    width: int
    dt: float | None = None
    sampled: tuple[int, int] = (0, 0)

    def batches(self, stage: int, points: int) -> Batches | None:
        """Return the minibatches of a stage, 1 or 2, of so many points; None without."""
        size = self.training.batch
        return None if size is None else Batches(points, size, *self.sampled, stage)

    def __post_init__(self) -> None:
        activation(self.training.activation)
        if self.width < 1:
            raise DomainError(f"width = {self.width}: a network needs at least one neuron.")
        for name, value in (("gamma0", self.training.gamma0), ("dt", self.dt)):
            if value is not None and not (np.isfinite(value) and value > 0):
                raise DomainError(f"{name} = {value:g}: networks of finite width need a positive, finite value.")

    def draw(self, seed: int, number: int, dim: int) -> tuple["Network", Floats]:
        """Network `number` of inputs of dimension `dim` at its start, and a second readout (N,)."""
        return draw_network(seed, number, self.width, dim, activation(self.training.activation))

    def switch(self, net: "Network", second: Floats, seed: int, number: int) -> None:
        """Change network `number` between its stages, in place; `second` is the readout of a reset."""
        if self.training.readout == "reset":
            net.readout = second


@dataclass
class Network:
    """First-layer weights (N, D) and readout (N,), changed in place by training.

    `descend` and `frozen_outputs` see a network through the methods; xs (P, D) are inputs over sqrt(D), and
    `passes` is what `forward` returns about them.
    """

    weights: Floats
    readout: Floats
    phi: Activation

    @property
    def arrays(self) -> list[Floats]:
        """All weights."""
        return [self.weights, self.readout]

    def blocks(self, points: int) -> Iterator[slice]:
        """Yield consecutive ranges of neurons whose preactivations at `points` inputs fit the cache."""
        size = max(16, BLOCK // max(points, 1))
        for start in range(0, len(self.readout), size):
            yield slice(start, start + size)

    def outputs(self, x: Floats, gamma: float) -> Floats:
        """Return f (n,) at the inputs x (n, D), on the output scale gamma."""
        xs, out = x.T / np.sqrt(x.shape[1]), np.zeros(len(x))
        for rows in self.blocks(len(x)):
            out += self.readout[rows] @ self.phi.phi(self.weights[rows] @ xs)
        return out / (gamma * len(self.readout))

    def forward(self, xs: Floats) -> tuple[Any, Floats]:
        """Return the passes, (rows, phi, phi') of each block, and sum_i a_i phi_i (P,)."""
        passes, f = [], np.zeros(len(xs))
        for rows in self.blocks(len(xs)):
            phi, slope = self.phi.both(self.weights[rows] @ xs.T)
            f += self.readout[rows] @ phi
            passes.append((rows, phi, slope))
        return passes, f

    def force(self, passes: Any, pull: Floats) -> Floats:
        """Velocity (N,) of the readout, sum_mu pull_mu phi_mu, for pull = gamma Delta / P (P,)."""
        return np.concatenate([phi @ pull for _, phi, _ in passes])

    def growth(self, passes: Any, pull: Floats, force: Floats) -> float:
        """Relative rate at which the weights behind the tangent kernel grow: here those of the readout."""
        return float(np.sqrt(np.mean(force**2) / max(float(np.mean(self.readout**2)), 1e-300)))

    def curvature(self, passes: Any, xs: Floats, v: Floats, turns: int) -> tuple[float, Floats]:
        """Largest eigenvalue of the tangent kernel (P, P) and its vector, from `turns` products.

        The kernel is J J^T / N and is never formed.
        """
        a, top = self.readout, 0.0
        for _ in range(turns):
            v = v / max(float(np.linalg.norm(v)), 1e-300)
            image, spread = np.zeros_like(v), v[:, None] * xs
            for rows, phi, slope in passes:
                image += (phi @ v) @ phi
                back = ((slope @ spread) * (a[rows] ** 2)[:, None]) @ xs.T
                image += np.einsum("ip,ip->p", back, slope)
            v = image / len(a)
            top = float(np.linalg.norm(v))
        return top, v

    def update(self, passes: Any, xs: Floats, pull: Floats, force: Floats, step: float, decay: float) -> None:
        """Make one step of gradient descent, of length `step`, in place."""
        w, a = self.weights, self.readout
        kept, kick = 1.0 - step * decay, (step * pull)[:, None] * xs
        for rows, _, slope in passes:
            move = slope @ kick
            move *= a[rows, None]
            if decay:
                w[rows] *= kept
            w[rows] += move
        a *= kept
        a += step * force

    def kernel(self, x: Floats, train: slice, kind: str) -> Floats:
        """Kernel (n, P) between the inputs x (n, D) and those of x[train], see `frozen_outputs`."""
        xs, k = x / np.sqrt(x.shape[1]), np.zeros((len(x), len(x[train])))
        inputs = xs @ xs[train].T
        for rows in self.blocks(len(x)):
            phi, slope = self.phi.both(self.weights[rows] @ xs.T)
            k += phi.T @ phi[:, train]
            if kind == "ntk":
                slope *= self.readout[rows, None]
                k += (slope.T @ slope[:, train]) * inputs
        return k / len(self.readout)


def draw_network(seed: int, net: int, width: int, dim: int, phi: Activation) -> tuple[Network, Floats]:
    """Draw network number `net`: N(0, 1) weights, and a second readout (N,) for a readout that is reset.

    The draw depends on (seed, net) alone, whatever else is trained.
    """
    rng = trial_rng(seed, net)
    weights, readout, second = (rng.standard_normal(shape) for shape in ((width, dim), width, width))
    return Network(weights, readout, phi), second


@dataclass(frozen=True, eq=False)
class Pull:
    """The force of a loss of P samples on outputs (P,) or (P, C), from which `rest` is subtracted first.

    `objective` None is half the squared distance from `labels`; another has no basis: its coordinates are the outputs.
    """

    labels: Floats
    rest: Floats | float = 0.0
    objective: Objective | None = None

    def force(self, f: Floats) -> Floats:
        """Return Delta = -dl/df, weighted."""
        return self.labels - f if self.objective is None else self.objective.force(f - self.rest)

    def at(self, rows: Indices) -> "Pull":
        """Return the same of some samples."""
        rest = self.rest[rows] if isinstance(self.rest, np.ndarray) else self.rest
        loss = self.objective
        if loss is not None:
            loss = replace(loss, y=loss.y[rows], weights=None if loss.weights is None else loss.weights[rows])
        return Pull(self.labels[rows], rest, loss)

    @property
    def curvature(self) -> float:
        """The largest curvature that a sample's loss can have."""
        if self.objective is None:
            return 1.0
        weights = self.objective.weights
        return self.objective.loss.smoothness * (1.0 if weights is None else float(weights.max()))


def descend(
    net: Network,
    x: Floats,
    y: Floats | Pull,
    times: Sequence[float],
    *,
    gamma: float,
    decay: float = 0.0,
    reduction: str = "mean",
    safety: float = SAFETY,
    dt: float | None = None,
    stage: str = "training",
    batches: Batches | None = None,
    momentum: float = 0.0,
) -> Iterator[float]:
    """Train `net` in place on inputs x (P, D) and labels y (P,), or any loss; yield at each of the recorded `times`.

    The step is `safety` over the fastest rate of the current network: the largest eigenvalue of its tangent
    kernel (divided by P for the mean loss, times the largest curvature of the loss), found by power iteration, plus
    the growth rate of the readout and the weight decay, measured again as training goes: feature learning raises it 10
    to 100 times. `dt` replaces it by a fixed step. The last step before a record is shortened to end on it. `batches`
    are the samples that each step sees, and `momentum` the part of its velocity that it keeps.

    Raises:
        ConvergenceError: the training diverges, or needs more than `MAX_STEPS` steps.
    """
    xs, width, share = x / np.sqrt(x.shape[1]), len(net.readout), 1.0 / len(x) if reduction == "mean" else 1.0
    part = aim = y if isinstance(y, Pull) else Pull(y)
    whole, weight, kicks = xs, 1.0, _Kicks(net, momentum)
    pace = _Pace(net, xs, share * aim.curvature, safety, decay)
    time, step, steps, limit = 0.0, 0.0, 0, np.inf
    advice = "use a smaller dt" if dt is not None else "use a smaller gamma, a shorter time or an explicit dt"
    for end in times:
        while time < end:
            if batches is not None:
                rows = batches.rows(steps)
                xs, part, weight = whole[rows], aim.at(rows), len(whole) / len(rows)
            passes, f = net.forward(xs)
            delta = weight * part.force(f / (gamma * width))
            error = float(np.vdot(delta, delta))
            if steps == 0:
                limit = 1e12 * (error + float(np.vdot(aim.labels, aim.labels)) + 1e-300)
            if not error <= limit:
                raise ConvergenceError(
                    f"{stage}: gradient descent diverged at t = {time:.4g}, step {step:.3g}; {advice}."
                )
            force = net.force(passes, pull := gamma * share * delta)
            step = pace.next(passes, pull, force) if dt is None else dt
            if steps + (end - time) / step > MAX_STEPS:
                raise ConvergenceError(
                    f"{stage}: more than {MAX_STEPS} steps of gradient descent are needed (step {step:.3g} at t = "
                    f"{time:.4g}, time {times[-1]:g}); shorten the stage, lower gamma or use a larger dt."
                )
            if end - time < step * (1 + 1e-9):
                step, time = end - time, end
            else:
                time += step
            kicks.update(passes, xs, pull, force, step, decay)
            steps += 1
        yield end


class _Kicks:
    """The updates of a network with momentum m: v := m v + (1 - m) step, from v = 0."""

    def __init__(self, net: Network, momentum: float) -> None:
        self.net, self.momentum = net, momentum
        self.velocities = [np.zeros_like(array) for array in net.arrays] if momentum else []

    def update(self, passes: Any, xs: Floats, pull: Floats, force: Floats, step: float, decay: float) -> None:
        """Make one step, in place."""
        if not self.momentum:
            self.net.update(passes, xs, pull, force, step, decay)
            return
        before = [array.copy() for array in self.net.arrays]
        self.net.update(passes, xs, pull, force, step, decay)
        for array, old, v in zip(self.net.arrays, before, self.velocities, strict=True):
            v *= self.momentum
            v += (1 - self.momentum) * (array - old)
            array[...] = old + v


class _Pace:
    """The lengths of the steps of one training: `safety` over the fastest rate of the network as it is.

    `share` is what the curvature of the network is multiplied by: 1/P for a mean, and the loss's own curvature.
    """

    def __init__(self, net: Network, xs: Floats, share: float, safety: float, decay: float) -> None:
        self.net, self.xs, self.share, self.safety, self.decay = net, xs, share, safety, decay
        shape = (len(xs), *net.readout.shape[1:])
        self.vector = np.random.default_rng(0).standard_normal(shape)  # any start that is not special will do
        self.turns, self.age, self.drift, self.curvature = 12, REFRESH, 0.0, 0.0

    def next(self, passes: Any, pull: Floats, force: Floats) -> float:
        """Return the length of the next step."""
        growth = self.net.growth(passes, pull, force)
        if self.age >= REFRESH or self.drift > DRIFT:
            self.curvature, self.vector = self.net.curvature(passes, self.xs, self.vector, self.turns)
            self.turns, self.age, self.drift = 3, 0, 0.0
        step = self.safety / max(self.share * self.curvature + growth + self.decay, 1e-300)
        self.age, self.drift = self.age + 1, self.drift + step * growth
        return step


def frozen_outputs(
    net: Network, x: Floats, train: slice, y: Floats, times: ArrayLike, kernel: str, ridge: float, reduction: str
) -> Floats:
    """Outputs (n_times, n) at all inputs x (n, D) of a model that is linear in what it trains, from zero output.

    "feature": only a readout is trained on the frozen features, K = (1/N) sum phi phi^T. "ntk": the network
    linearised around its weights, K = (1/N) sum (phi phi^T + a^2 phi' phi'^T x.x/D). TransferSettings points are
    x[train] (P, D), labels y (P,). With c = 1/P (mean loss; 1 for the sum) the flow df/dt = c K (y - f) - ridge f
    gives f(x, t) = c K(x, X) R^{-1} (1 - exp(-t R)) y, R = c K(X, X) + ridge; at t = inf this is kernel ridge
    regression, K(x, X) [K(X, X) + (ridge/c) I]^{-1} y.
    """
    k = net.kernel(x, train, kernel)
    share = 1.0 / len(y) if reduction == "mean" else 1.0
    values, vectors = np.linalg.eigh(k[train])
    # A null direction of K(X, X) is one of K(x, X) too: it never learns.
    live = values > 1e-13 * len(y) * max(float(values[-1]), 0.0)
    values, vectors = values[live], vectors[:, live]
    rates = share * values + ridge
    gains = -np.expm1(-np.multiply.outer(np.asarray(times, dtype=float), rates)) / rates
    return (gains * (share * (vectors.T @ y))) @ (k @ vectors).T


def train_networks(
    experiment: NetworkExperiment, data: "TransferData", nets: Sequence[int], seed: int, halvings: int = 0
) -> tuple[Floats, Floats]:
    """Train the networks numbered `nets`; return their outputs at every record, and those of the baseline.

    The points are those of x_source, x_target and x_test, in this order. Returns f (nets, n1 + n2, n_points), on
    the output scale of the active stage, and f from scratch (nets, n2, n_points): the same initial weights
    trained on the target alone. `halvings`: how often the step is halved.

    Raises:
        ConvergenceError: see `descend`.
        DomainError: a stage without training points.
    """
    e = experiment.training
    x = np.concatenate([data.x_source, data.x_target, data.x_test])
    p1, p2, gamma2 = len(data.x_source), len(data.x_target), e.second_gamma
    _refuse_empty({"source": (p1, e.times1), "target": (p2, e.times2)})
    step = {
        "reduction": e.reduction,
        "safety": SAFETY / 2**halvings,
        "dt": None if experiment.dt is None else experiment.dt / 2**halvings,
        "momentum": e.momentum,
    }
    target, n1, n2 = slice(p1, p1 + p2), len(e.times1), len(e.times2)

    def second_stage(net: Network, rest: Floats, stage: str) -> Floats:
        if e.regresses:
            return frozen_outputs(net, x, target, data.y_target, e.times2, e.kernel, e.second_ridge, e.reduction)
        y = data.y_target + rest[target]
        how = {**step, "batches": experiment.batches(2, p2), "decay": e.weight_decay2}
        path = descend(net, data.x_target, y, e.times2, gamma=gamma2, stage=stage, **how)
        return np.array([_finite(net.outputs(x, gamma2), t, stage) - rest for t in path])

    f, scratch = np.empty((len(nets), n1 + n2, len(x))), np.full((len(nets), n2, len(x)), np.nan)
    # One BLAS thread: the sums then do not depend on the machine. Overflows are caught as divergence.
    with threadpool_limits(1), np.errstate(over="ignore", invalid="ignore"):
        for i, number in enumerate(nets):
            net, second = experiment.draw(seed, number, x.shape[1])
            path = descend(
                net,
                data.x_source,
                data.y_source,
                e.times1,
                gamma=e.gamma0,
                decay=e.weight_decay,
                stage="stage 1",
                batches=experiment.batches(1, p1),
                **step,
            )
            for record, t in enumerate(path):
                f[i, record] = _finite(net.outputs(x, e.gamma0), t, "stage 1")
            if not n2:
                continue
            experiment.switch(net, second, seed, number)
            centred = e.readout == "carry-centred" and not e.regresses
            rest = net.outputs(x, gamma2) if centred else np.zeros(len(x))
            f[i, n1:] = second_stage(net, rest, "stage 2")
            fresh, _ = experiment.draw(seed, number, x.shape[1])
            scratch[i] = second_stage(fresh, np.zeros(len(x)), "baseline")
    return f, scratch


def _refuse_empty(stages: Mapping[str, tuple[int, Sequence[float]]]) -> None:
    for name, (points, times) in stages.items():
        if points == 0 and len(times):
            raise DomainError(f"The {name} task has 0 training points; its stage needs at least one.")


def _finite(outputs: Floats, time: float, stage: str) -> Floats:
    """Return `outputs`; raise ConvergenceError if the last step before a record is the one that diverged."""
    if not np.isfinite(outputs).all():
        raise ConvergenceError(f"{stage}: gradient descent diverged at t = {time:.4g}; use a smaller dt or gamma.")
    return outputs


def transfer_losses(f: Floats, scratch: Floats, data: "TransferData") -> dict[str, Floats]:
    """Mean squared errors (nets, n_records) of the outputs of `train_networks`; `gain` is taken network by network.

    Test points without a label of a task (NaN) do not count for it; a task without any has loss NaN. `baseline`
    and `gain` are NaN in stage 1.
    """
    p1, p2 = len(data.x_source), len(data.x_target)

    def error(outputs: Floats, y: Floats, points: slice) -> Floats:
        known = np.isfinite(y)
        if not known.any():
            return np.full(outputs.shape[:-1], np.nan)
        return np.mean((outputs[..., points][..., known] - y[known]) ** 2, axis=-1)

    test = slice(p1 + p2, None)
    out = {
        "loss": error(f, data.y_test_target, test),
        "source_loss": error(f, data.y_test_source, test),
        "train_loss": error(f, data.y_target, slice(p1, p1 + p2)),
        "source_train_loss": error(f, data.y_source, slice(0, p1)),
    }
    baseline = np.full_like(out["loss"], np.nan)
    baseline[:, f.shape[1] - scratch.shape[1] :] = error(scratch, data.y_test_target, test)
    return {**out, "baseline": baseline, "gain": baseline - out["loss"]}


def estimate(experiment: NetworkExperiment, data: "TransferData", nets: int, seed: int) -> dict[str, Estimate]:
    """Train `nets` networks with a step that is checked; see `tlcli.simulate.deep.simulate_networks`."""
    done, step_error = checked(trainer(experiment, data, seed), nets, experiment.dt)
    return {**{name: summarise(values) for name, values in done.items()}, "step_error": Estimate(step_error, 0.0)}


def trainer(experiment: NetworkExperiment, data: "TransferData", seed: int) -> Trainer:
    """Return what trains networks; their losses judge the step."""

    def train(numbers: Sequence[int], halvings: int) -> dict[str, Floats]:
        return transfer_losses(*train_networks(experiment, data, numbers, seed, halvings), data)

    return Trainer(train, lambda found: {name: found[name] for name in LOSSES})
