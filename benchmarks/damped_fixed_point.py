"""The usual way to solve the deep theory, which the causal sweep is compared with: a damped all-times fixed point.

Two hidden layers, discrete gradient descent. Kernels and responses at all pairs of times are guessed; from them
Gaussian fields are drawn, the single-site equations are run once through time with the outputs that they have on the
way, and averages over the samples give new kernels, of which a part is taken. The responses follow from Stein's lemma
with an explicit inverse,

    A = <phi(h^1) r^T> M^{-1},  M = Cov r = G^2,        B = <g^2 u^T> M^{-1},  M = Cov u = Phi^1,

over the fields of the past, which alone can matter: with all times, noise that cancels in the sums over all of them
is left in those over the past. The kernels of smooth trajectories are nearly singular: they need a jitter, which is an
error, and their inverse amplifies the noise of the samples. The random numbers are the same in every iteration.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from tests.oracles.deep_ensemble import DeepStage
from tlcli.arrays import Floats
from tlcli.dmft.activations import Activation
from tlcli.errors import ConvergenceError, DomainError


@dataclass
class Guess:
    """What is iterated, with n (K + 1) states (t, mu) in this order and m training entries (s, nu in T(s)).

    Phi^1 between all states, G^2 between the entries, A (states, entries), B (entries, entries).
    """

    phi: Floats
    g: Floats
    a: Floats
    b: Floats


class Problem:
    """Times, weights and random numbers that stay the same in all iterations."""

    def __init__(
        self, x: Floats, stages: Sequence[DeepStage], activation: Activation, dt: float, samples: int, seed: int
    ) -> None:
        if any(stage.readout != "carry" or stage.freeze or stage.reinit_from is not None for stage in stages):
            raise DomainError("The fixed point carries the readout and trains all layers.")
        which = np.repeat(np.arange(len(stages)), [stage.steps for stage in stages])
        stage_of = [stages[int(i)] for i in which]
        rows = [np.asarray(stage.rows) for stage in stage_of]
        sizes = [len(r) for r in rows]
        self.act, self.n, self.last = activation, len(x), len(which)
        self.starts = [0, *np.cumsum(sizes).tolist()]
        self.time, self.point = np.repeat(np.arange(self.last), sizes), np.concatenate(rows)
        self.entry = self.time * self.n + self.point
        self.labels = np.concatenate([np.asarray(stage.labels, dtype=float) for stage in stage_of])
        self.rate = np.repeat([dt * stage.omega * stage.gamma for stage in stage_of], sizes)
        self.gamma = np.array([stage.gamma for stage in [*stage_of, stage_of[-1]]])
        self.start = np.concatenate([[1.0], np.cumprod([1.0 - dt * stage.decay for stage in stage_of])])  # R(t, 0)
        before = self.time[None, :] < np.arange(self.last + 1)[:, None]
        self.since = np.where(before, self.start[:, None] / self.start[self.time + 1], 0.0)  # R(t, s + 1), s < t
        self.inputs = x @ x.T / x.shape[1]
        rng = np.random.default_rng(seed)
        self.u1 = x @ rng.standard_normal((x.shape[1], samples)) / np.sqrt(x.shape[1])
        self.readout = rng.standard_normal(samples)
        self.noise_u = rng.standard_normal((self.n * (self.last + 1), samples))
        self.noise_r = rng.standard_normal((len(self.time), samples))

    def sweep(self, guess: Guess, jitter: float, *, trains: bool = True) -> tuple[Guess, Floats]:
        """Run the single-site equations with the guess; return what their averages make of it, and f (K + 1, n)."""
        n, samples, entries = self.n, len(self.readout), len(self.time)
        cov_u = _with_jitter(guess.phi, jitter)
        root_r = linalg.cholesky(_with_jitter(guess.g, jitter), lower=True)
        u2, r1 = linalg.cholesky(cov_u, lower=True) @ self.noise_u, root_r @ self.noise_r
        phi1 = np.empty((n * (self.last + 1), samples))
        phi1_train, phi2_train, g1, g2 = (np.empty((entries, samples)) for _ in range(4))
        f, offset, pull = np.empty((self.last + 1, n)), np.zeros(n), np.zeros(entries)
        for t in range(self.last + 1):
            here, past, kept = slice(t * n, (t + 1) * n), self.starts[t], self.start[t]
            old, since = slice(0, past), self.since[t, :past] * pull[:past]
            to_h2 = kept * guess.a[here, old] + since * guess.phi[here, self.entry[old]]
            h1 = kept * self.u1 + (since * self.inputs[:, self.point[old]]) @ g1[old]
            phi1[here], slope1 = self.act.both(h1)
            phi2, slope2 = self.act.both(kept * u2[here] + to_h2 @ g2[old])
            a = kept * self.readout + since @ phi2_train[old]
            raw = phi2 @ a / samples
            if t == 0:
                offset = raw  # what the samples give before the training is no output
            f[t] = (raw - offset) / self.gamma[t]
            if t == self.last:
                break
            now, rows = slice(past, self.starts[t + 1]), self.point[past : self.starts[t + 1]]
            phi1_train[now], phi2_train[now], g2[now] = phi1[here][rows], phi2[rows], slope2[rows] * a
            # B has an equal-time part, of a point with itself.
            to_z1 = kept * guess.b[now, old] + since * guess.g[now, old]
            same = kept * np.diag(guess.b)[now, None]
            g1[now] = slope1[rows] * (kept * r1[now] + to_z1 @ phi1_train[old] + same * phi1_train[now])
            pull[now] = self.rate[now] * (self.labels[now] - f[t, rows]) * trains
        # <phi r^T> M^{-1} = <phi xi^T> root^{-1} for r = root xi: the xi of the past are what r in the past spans.
        states = np.repeat(np.arange(self.last + 1), n)
        cross_a = np.where(self.time < states[:, None], phi1 @ self.noise_r.T / samples, 0.0)
        root_u = linalg.cholesky(cov_u[np.ix_(self.entry, self.entry)], lower=True)
        white = linalg.solve_triangular(root_u, u2[self.entry], lower=True)
        cross_b = np.where(self.time <= self.time[:, None], g2 @ white.T / samples, 0.0)
        new = Guess(
            phi=phi1 @ phi1.T / samples,
            g=g2 @ g2.T / samples,
            a=linalg.solve_triangular(root_r, cross_a.T, lower=True, trans=1).T,
            b=linalg.solve_triangular(root_u, cross_b.T, lower=True, trans=1).T,
        )
        return new, f


def fixed_point(
    x: Floats,
    stages: Sequence[DeepStage],
    activation: Activation,
    dt: float,
    *,
    samples: int = 2000,
    iterations: int = 25,
    jitter: float = 1e-3,
    damping: float = 0.5,
    seed: int = 0,
) -> Floats:
    """Outputs f (K + 1, n) at inputs x (n, D) and all states, L = 2, after so many iterations from an untrained guess.

    `jitter`: added to the covariances, in units of their mean diagonal. `damping`: the part of the last guess that is
    kept. Stages carry the readout over.

    Raises:
        ConvergenceError: the iteration overflows, or a covariance is not positive: the jitter is too small.
        DomainError: a stage that redraws or freezes layers, or no iteration.
    """
    if iterations < 1:
        raise DomainError(f"iterations = {iterations}: at least one is needed.")
    problem = Problem(np.asarray(x, dtype=float), stages, activation, dt, samples, seed)
    guess, f = _untrained(problem, jitter), np.empty(0)
    with np.errstate(over="ignore", invalid="ignore"):
        for i in range(iterations):
            try:
                new, f = problem.sweep(guess, jitter)
            except (linalg.LinAlgError, ValueError) as error:
                raise ConvergenceError(f"Iteration {i} failed with jitter {jitter:g} ({error}); use more.") from None
            guess = Guess(*(damping * old + (1 - damping) * vars(new)[name] for name, old in vars(guess).items()))
    return f


def _untrained(problem: Problem, jitter: float) -> Guess:
    """The kernels of the initial weights at all times, no response and no output."""
    states, entries = problem.n * (problem.last + 1), len(problem.time)
    phi1 = problem.act.phi(problem.u1)
    phi = np.tile(phi1 @ phi1.T / phi1.shape[1], (problem.last + 1, problem.last + 1))
    a, b = np.zeros((states, entries)), np.zeros((entries, entries))
    static, _ = problem.sweep(Guess(phi, np.eye(entries), a, b), jitter, trains=False)
    return Guess(phi, static.g, a, b)


def _with_jitter(kernel: Floats, jitter: float) -> Floats:
    return kernel + jitter * np.mean(np.diag(kernel)) * np.eye(len(kernel))
