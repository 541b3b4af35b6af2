"""The experiment that the Bayesian theory predicts: samples of the posterior of networks of finite width.

Conventions of docs/bayes.md, Section 1: f(x) = (γN)⁻¹ Σ aᵢφ(wᵢ·x/√D), N(0, 1) priors, likelihood
exp(-½βγ²N Σ(y - f)²), or exp(-βγ²N Σ ωℓ(f, y)) of another loss, and the target's hidden weights (not its readout)
drawn around the source's, N(αw̄, I/(1+δ)). Each replica samples a source network; some of its states are kept, and a
target is sampled around each with the source fixed. Sources are never weighted by how well their targets fit: the
source is learnt first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from tlcli.arrays import Floats, Indices
from tlcli.bayes.likelihood import Likelihood, check_finite
from tlcli.bayes.saddle import check_beta, check_delta, check_gamma, check_problem, mean_weight
from tlcli.dmft.activations import Activation
from tlcli.errors import ConvergenceError, DomainError, check_choice
from tlcli.losses import Objective
from tlcli.simulate.posterior_hmc import HmcChains, SampledStage
from tlcli.simulate.posterior_linear import GibbsChains
from tlcli.simulate.posterior_losses import LossChains, LossStage

SAMPLERS = ("auto", "gibbs", "hmc")
LOWEST_ACCEPTANCE = 0.4


@dataclass(frozen=True, eq=False)
class StagePosterior:
    """Posterior means of one stage and their standard errors over replicas.

    Attributes:
        outputs: f at all points, (n,), in units of the labels; the readout is averaged exactly given the weights (of
            the squared error of one output; of several outputs f is (n, C)).
        outputs_error: of the shape of outputs.
        kernel: Φ = Σ φᵢφᵢᵀ/N between all points, (n, n).
        kernel_error: (n, n).
        test_loss: mean over test points of (f - y)² of the mean predictor, without the noise of f; NaN if none.
        test_loss_error: by the jackknife over replicas.
        acceptance: mean acceptance of the moves kept.
        drift: difference of yᵀΦy on the training points between the halves of the samples, in standard errors.
        replica_outputs: f of each replica, (R, n) or (R, n, C).
        replica_kernels: Φ of each replica, (R, n, n).
    """

    outputs: Floats
    outputs_error: Floats
    kernel: Floats
    kernel_error: Floats
    test_loss: float
    test_loss_error: float
    acceptance: float
    drift: float
    replica_outputs: Floats
    replica_kernels: Floats


@dataclass(frozen=True, eq=False)
class Posterior:
    """The sampled posterior: source and, if there is one, target."""

    source: StagePosterior
    target: StagePosterior | None
    width: int
    replicas: int


@dataclass(frozen=True, eq=False)
class Sampling:
    """How the posterior is sampled.

    Attributes:
        replicas: independent networks, at least 2; standard errors are over them.
        sources: states of each source network around which a target is sampled, evenly spaced among `samples`.
        samples: states kept per replica and stage, one after every move.
        burn: moves before them, during which the step is adapted.
        seed: of all random numbers.
        sampler: "gibbs" (linear networks only), "hmc", or "auto": Gibbs for linear networks.
        start: where the chains of the source begin: "prior", or neurons (k, D) of which each of the N of a replica is
            drawn at random with replacement (draws of the theory's measure put the right share into each of its lobes).
            The equilibrium does not depend on it; the time to reach it does.

    Raises:
        UsageError: an unknown sampler. DomainError: a number that is too small.
    """

    replicas: int = 16
    sources: int = 4
    samples: int = 200
    burn: int = 200
    seed: int = 0
    sampler: str = "auto"
    start: Literal["prior"] | ArrayLike = "prior"

    def __post_init__(self) -> None:
        check_choice("sampler", self.sampler, SAMPLERS)
        for name, least in (("replicas", 2), ("samples", 2), ("burn", 0)):
            _check_least(name, getattr(self, name), least)


@dataclass(frozen=True, eq=False)
class _Task:
    """What one stage learns, at which richness and temperature."""

    rows: Indices
    labels: Floats
    gamma: float
    beta: float
    objective: Objective | None = None


def sample_posterior(
    x: ArrayLike,
    source_rows: ArrayLike,
    source_labels: ArrayLike,
    target_rows: ArrayLike | None = None,
    target_labels: ArrayLike | None = None,
    test_rows: ArrayLike | None = None,
    test_labels: ArrayLike | None = None,
    *,
    activation: Activation,
    width: int,
    gamma1: float,
    beta1: float,
    gamma2: float = 1.0,
    beta2: float = 1.0,
    delta: float = 0.0,
    objectives: tuple[Objective | None, Objective | None] = (None, None),
    **how: Any,
) -> Posterior:
    """Sample the posterior of source networks and of targets tied to them.

    Args:
        x: all points (n, D), ordered [source train, target train, test].
        source_rows: training points of the source, (P1,).
        source_labels: (P1,).
        target_rows: training points of the target, (P2,), or None for the source alone.
        target_labels: (P2,).
        test_rows: points of the test loss, or None.
        test_labels: their labels.
        activation: activation of both networks.
        width: hidden neurons N.
        gamma1: richness of the source >= 0.
        beta1: inverse temperature of the source > 0, or inf (then width >= P1).
        gamma2: richness of the target.
        beta2: inverse temperature of the target.
        delta: elastic coupling >= 0; inf keeps the weights of the source.
        objectives: losses of source and target in the place of the squared error of the labels (which then are not
            used); γ must be positive and β finite.
        how: the fields of `Sampling`.

    Raises:
        UsageError: an unknown sampler, a word for `start` that is not "prior".
        DomainError: a bad value.
        ConvergenceError: HMC accepts less than 40 % of its moves.
    """
    points, at1, y1 = check_problem(x, source_rows, source_labels)
    tasks = [_Task(at1, y1, gamma1, beta1, objectives[0])]
    if target_rows is not None and target_labels is not None:
        tasks.append(_Task(*check_problem(x, target_rows, target_labels)[1:], gamma2, beta2, objectives[1]))
    test = None if test_rows is None or test_labels is None else check_problem(x, test_rows, test_labels)[1:]
    check_delta(delta)
    sampling = Sampling(**how)
    _check(tasks, activation, width, sampling.sampler)
    found = _sample(points, tasks, test, activation, width, float(delta), sampling)
    return Posterior(found[0], found[1] if len(found) == 2 else None, width, sampling.replicas)


def _check_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise DomainError(f"{name} = {value} is too small: use {least} or more.")


def _check(tasks: Sequence[_Task], act: Activation, width: int, sampler: str) -> None:
    _check_least("width", width, 1)
    for number, task in enumerate(tasks, start=1):
        check_gamma(task.gamma, f"gamma{number}")
        check_beta(task.beta, f"beta{number}")
        if task.objective is not None:
            check_finite(task.beta, task.objective)
            if task.gamma == 0:
                raise DomainError(f"gamma{number} = 0: f has 1/gamma in front; use a positive gamma{number}.")
        if np.isinf(task.beta) and width < len(task.rows):
            raise DomainError(
                f"width = {width}: beta = inf needs at least as many neurons as training points, {len(task.rows)}."
            )
    if sampler == "gibbs" and act.kind != "linear":
        raise DomainError(f"sampler = gibbs is exact for linear networks only, not for {act.name}: use hmc.")


def _sample(
    points: Floats,
    tasks: Sequence[_Task],
    test: tuple[Indices, Floats] | None,
    act: Activation,
    width: int,
    delta: float,
    how: Sampling,
) -> list[StagePosterior]:
    """Return what the stages have found, each tied to the kept states of the one before."""
    neurons = _neurons(how.start, points.shape[1])
    # Weights enter through their components along the inputs; the others keep their prior and are never seen.
    _, size, right = np.linalg.svd(points / np.sqrt(points.shape[1]), full_matrices=False)
    along = right[size > 1e-12 * max(size[0], 1e-300)].T
    inputs = points @ along / np.sqrt(points.shape[1])
    gibbs = act.kind == "linear" and how.sampler != "hmc"
    mean, found = np.zeros((how.replicas, width, inputs.shape[1])), []
    *streams, first_stream = np.random.SeedSequence(how.seed).spawn(len(tasks) + 1)
    first: Floats | None = None
    if neurons is not None:
        drawn = np.random.default_rng(first_stream).integers(len(neurons), size=(how.replicas, width))
        first = (neurons @ along)[drawn]
    for number, (task, stream) in enumerate(zip(tasks, streams, strict=True)):
        δ, at, y = delta if number == 1 else 0.0, task.rows, task.labels
        frozen = bool(np.isinf(δ))
        network, rng = _network(act, inputs[at], task, 1.0 + δ, mean), np.random.default_rng(stream)
        begin = first if number == 0 else None
        chains: HmcChains | GibbsChains | LossChains | None = None
        if isinstance(network, LossStage):
            chains = LossChains(network, rng, begin)
        elif not frozen:
            chains = GibbsChains(network, rng, begin) if gibbs else HmcChains(network, rng, begin)
        outputs, kernels, states = _run(
            network, chains, inputs, at, how.samples, how.burn, min(how.sources, how.samples)
        )
        outputs, kernels = (
            table.reshape(2, how.replicas, -1, *table.shape[2:]).mean(axis=2) for table in (outputs, kernels)
        )
        aligned = y if task.objective is None else _columns(task.objective)
        found.append(_summary(outputs, kernels, at, aligned, test, 1.0 if chains is None else chains.acceptance))
        mean = float(mean_weight(delta)) * states.reshape(-1, width, inputs.shape[1])
    return found


def _network(act: Activation, inputs: Floats, task: _Task, tightness: float, mean: Floats) -> SampledStage | LossStage:
    """Return the stage that is sampled."""
    if task.objective is None:
        return SampledStage(act, inputs, task.labels, float(task.gamma), 1.0 / float(task.beta), tightness, mean)
    likelihood, frozen = Likelihood(task.objective, float(task.beta)), bool(np.isinf(tightness))
    return LossStage(act, inputs, likelihood, float(task.gamma), tightness, mean, frozen)


def _columns(objective: Objective) -> Floats:
    """Return labels (P, k), probabilities of classes without their mean."""
    y = objective.y
    return y[:, None] if y.ndim == 1 else y - y.mean(axis=1, keepdims=True) if objective.loss.invariant else y


def _neurons(start: Literal["prior"] | ArrayLike, dimension: int) -> Floats | None:
    """Return the neurons (k, D) to start from, None for the prior."""
    if isinstance(start, str):
        check_choice("start", start, ("prior",))
        return None
    neurons = np.asarray(start, dtype=float)
    if neurons.ndim != 2 or neurons.shape[1] != dimension or not len(neurons):
        raise DomainError(
            f"start of shape {neurons.shape}: give one neuron per row, with {dimension} weights each, or 'prior'."
        )
    if not np.all(np.isfinite(neurons)):
        raise DomainError(f"start holds {neurons[~np.isfinite(neurons)][0]}: use finite weights.")
    return neurons


def _run(
    network: SampledStage | LossStage,
    chains: HmcChains | GibbsChains | LossChains | None,
    inputs: Floats,
    at: Indices,
    samples: int,
    burn: int,
    kept: int,
) -> tuple[Floats, Floats, Floats]:
    """Return time means of f (2, R, n[, C]) and Φ (2, R, n, n) over the two halves, and `kept` states (R, kept, N, d).

    Without chains W stays at its mean.
    """
    count = samples if chains is not None else 2
    outputs: list[Floats] = [np.zeros(0)] * 2
    kernels: list[Floats] = [np.zeros(0)] * 2
    halves = (count // 2, count - count // 2)
    states, keep = [], set(np.linspace(samples / kept, samples, kept).astype(int)) if chains is not None else set()
    done = 0
    if chains is not None:
        for _ in range(burn):
            chains.move(adapt=True)
    for half, moves in enumerate(halves):
        f: Floats | float = 0.0
        Φ = np.zeros((len(network.mean), len(inputs), len(inputs)))
        for _ in range(moves):
            if chains is not None:
                chains.move(adapt=False)
            done += 1
            if chains is not None and done in keep:
                states.append(chains.weights)
            one_f, one_Φ = _seen(network, chains, inputs, at)
            f = f + one_f / moves
            Φ += one_Φ / moves
        outputs[half], kernels[half] = np.asarray(f), Φ
    if chains is not None and chains.acceptance < LOWEST_ACCEPTANCE:
        raise ConvergenceError(
            f"the sampler accepts {chains.acceptance:.2f} of its moves, less than {LOWEST_ACCEPTANCE}: raise burn, "
            "or lower beta or gamma."
        )
    return np.stack(outputs), np.stack(kernels), np.stack(states or [network.mean], axis=1)


def _seen(
    network: SampledStage | LossStage, chains: HmcChains | GibbsChains | LossChains | None, inputs: Floats, at: Indices
) -> tuple[Floats, Floats]:
    """Return f and Φ of the present state."""
    if isinstance(chains, LossChains):
        return chains.observe(inputs)
    assert isinstance(network, SampledStage)
    return _observe(network, network.mean if chains is None else chains.weights, inputs, at)


def _observe(network: SampledStage, weights: Floats, inputs: Floats, at: Indices) -> tuple[Floats, Floats]:
    """Return E f given the weights, Φ(·, train) M⁻¹ y, (R, n), and Φ (R, n, n)."""
    φ = np.asarray(network.act.phi(weights @ inputs.T), dtype=float)
    kernel = np.swapaxes(φ, 1, 2) @ φ / weights.shape[1]
    M = kernel[:, at[:, None], at] + network.inverse_beta * np.eye(len(at))
    v = np.linalg.solve(M, np.broadcast_to(network.labels[:, None], (len(M), len(at), 1)))
    return (kernel[:, :, at] @ v)[..., 0], kernel


def _summary(
    outputs: Floats,
    kernels: Floats,
    at: Indices,
    y: Floats,
    test: tuple[Indices, Floats] | None,
    acceptance: float,
) -> StagePosterior:
    f, Φ = outputs.mean(axis=0), kernels.mean(axis=0)
    replicas = len(f)
    root = np.sqrt(replicas)
    form = "hrij,i,j->hr" if y.ndim == 1 else "hrij,ik,jk->hr"
    alignment = np.einsum(form, kernels[:, :, at[:, None], at], y, y)
    change = alignment[1] - alignment[0]
    error = float(np.std(change, ddof=1) / root)
    loss, loss_error = np.nan, np.nan
    if test is not None:
        rows, labels = test

        def of(part: Floats) -> float:
            noise = np.var(part, axis=0, ddof=1) / len(part) if len(part) > 1 else 0.0
            return float(np.mean((part.mean(axis=0) - labels) ** 2 - noise))

        loss = of(f[:, rows])
        left_out = np.array([of(np.delete(f[:, rows], r, axis=0)) for r in range(replicas)])
        loss_error = float(np.sqrt((replicas - 1) * np.var(left_out)))
    return StagePosterior(
        outputs=f.mean(axis=0),
        outputs_error=np.std(f, axis=0, ddof=1) / root,
        kernel=Φ.mean(axis=0),
        kernel_error=np.std(Φ, axis=0, ddof=1) / root,
        test_loss=loss,
        test_loss_error=loss_error,
        acceptance=acceptance,
        drift=float(change.mean() / error) if error > 0 else 0.0,
        replica_outputs=f,
        replica_kernels=Φ,
    )
