"""Deep linear networks from the single-site equations themselves, time row by time row.

See docs/references.md, Deep linear networks, row by row.

In a linear network g^l has no point index, and all fields are linear in what W(0) gave: with u^l = W(0) h^{l-1} and
r^l = W(0)^T g^{l+1}, h = Hu u + Hr r and g = Gu u + Gr r. Both equations of a layer,

    h^l = R u^l + C^l g^l,   C^l(mu t, s) = R A^{l-1}_mu(t,s) + R(t,s+1) q_s sum_nu Delta_nu(s) Phi^{l-1}_{mu nu}(t,s),
    g^l = R r^l + D^l h^l,   D^l(t, nu s) = R B^l_nu(t,s) + R(t,s+1) q_s Delta_nu(s) G^{l+1}(t,s),

are strictly causal, so that row t of Hu, Hr, Gu, Gr, of the kernels and of the responses A^l = Hr^l, B^l = Gu^{l+1}
follows from earlier rows. Nothing is sampled or iterated. This is the theory written out with kernels and responses at
all pairs of times, (n T)^2 numbers per layer: what the causal sweep, which never forms them, is checked against, and
the place where single terms of the theory can be struck out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tlcli.arrays import Flags, Floats, Indices
from tlcli.dmft.stage import Stage
from tlcli.errors import ConvergenceError, DomainError
from tlcli.training import Surgery

MAX_WORDS = 100_000_000  # 0.8 GB


@dataclass(frozen=True, eq=False)
class KernelRows:
    """Gradient descent of a deep linear network at all states k = 0..K and points.

    `f` (K+1, n): the state at which a stage begins has that stage's gamma. Per layer l = 1..L `phi` (K+1, n, K+1, n),
    Phi^l between points and times, and `g` (K+1, K+1), G^l. Per hidden matrix l = 1..L-1 the responses `forward`
    (K+1, n, K+1), A^l(mu t, s) = d h^l_mu(t) / d r^l(s), and `backward` (K+1, K+1, n), B^l(t, s nu) = d g^{l+1}(t) /
    d u^{l+1}_nu(s). `starts`: the states at which the stages begin.
    """

    f: Floats
    phi: list[Floats]
    g: list[Floats]
    forward: list[Floats]
    backward: list[Floats]
    starts: list[int]


def steps_of(stages: Sequence[Stage], dt: float) -> list[int]:
    """Return how many steps of length dt each stage takes.

    Raises:
        DomainError: dt is not positive, or a stage is not a whole number of steps long.
    """
    if not dt > 0:
        raise DomainError(f"dt = {dt:g} must be positive.")
    counts = []
    for stage in stages:
        count = round(float(stage.times[-1]) / dt)
        if abs(count * dt - stage.times[-1]) > 1e-9 * dt * max(count, 1):
            raise DomainError(f"A stage of length {stage.times[-1]:g} is not a whole number of steps dt = {dt:g}.")
        counts.append(count)
    return counts


def kernel_rows(
    gram: Floats, stages: Sequence[Stage], depth: int, dt: float, surgery: Surgery | None = None
) -> KernelRows:
    """Train a linear network of `depth` hidden layers by gradient descent with step dt, in infinite width.

    `gram` (n, n) is Phi^0 = x.x'/D at all points. Of a stage its end `times[-1]` counts; all steps are returned. The
    loss is (s/2) sum Delta^2 with s the `scale` of a stage. Memory: (2 L - 1) (n (K + 1))^2 words, time ~ (n K)^3.
    `surgery.ablate` strikes terms out of the equations above, for s before the stage of t: A, B ("stage-responses"),
    the sums of Delta Phi and Delta G in the hidden matrices ("memory"), or both ("cross-stage"); "responses": A, B at
    all times.

    Raises:
        DomainError: no hidden layer, a gram of the wrong shape, a stage that is no whole number of steps, layers that
            are not there, or more than `MAX_WORDS` words. ConvergenceError: the step is too long and f overflows.
    """
    surgery = surgery or Surgery()
    if depth < 1:
        raise DomainError(f"depth = {depth}: a network has at least 1 hidden layer.")
    surgery.check(depth)
    gram = np.asarray(gram, dtype=float)
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1]:
        raise DomainError(f"The kernel of the inputs is square, not of shape {gram.shape}.")
    steps = steps_of(stages, dt)
    states = len(gram) * (sum(steps) + 1)
    if (words := (2 * depth - 1) * states**2) > MAX_WORDS:
        raise DomainError(
            f"{len(gram)} points at {sum(steps) + 1} times need {words:.2g} words, and {MAX_WORDS:.2g} are allowed; "
            "use fewer points, a larger step or the causal sweep."
        )
    with np.errstate(over="ignore", invalid="ignore"):
        return _Rows(gram, stages, steps, depth, dt, surgery).run()


@dataclass(frozen=True, eq=False)
class _Matrix:
    """What a weight matrix keeps: R (T,) of its last draw, R(t, s+1) q_s (T, T), and the number of its draw (T,)."""

    kept: Floats
    since: Floats
    draw: Indices

    @property
    def same(self) -> Flags:
        """Whether two times (T, T) see the same draw."""
        return self.draw[:, None] == self.draw[None, :]


def _matrix(stages: Sequence[Stage], stage_of: list[int], dt: float, frozen: bool, redrawn: list[bool]) -> _Matrix:
    count = len(stage_of)
    kept, since, draw = np.ones(count), np.zeros((count, count)), np.zeros(count, dtype=int)
    for t in range(1, count):
        stage, fixed = stages[stage_of[t - 1]], frozen and stage_of[t - 1] > 0
        factor = 1.0 if fixed else 1.0 - dt * stage.decay
        kept[t], since[t], draw[t] = factor * kept[t - 1], factor * since[t - 1], draw[t - 1]
        since[t, t - 1] = 0.0 if fixed else dt * stage.scale * stage.gamma
        if stage_of[t] > stage_of[t - 1] and redrawn[stage_of[t]]:
            kept[t], since[t], draw[t] = 1.0, 0.0, draw[t] + 1
    return _Matrix(kept, since, draw)


class _Rows:
    """The rows so far; states (t, mu) are flat, in this order."""

    def __init__(
        self, gram: Floats, stages: Sequence[Stage], steps: list[int], depth: int, dt: float, surgery: Surgery
    ) -> None:
        n, count = len(gram), sum(steps) + 1
        self.gram, self.stages, self.depth, self.n, self.count = gram, stages, depth, n, count
        # The state at a switch belongs to the new stage; the last state to the last stage.
        self.stage_of = [*np.repeat(np.arange(len(stages)), steps).tolist(), len(stages) - 1]
        self.starts = [0, *np.cumsum(steps)[:-1].tolist()]
        self.matrices = []
        for w in range(depth + 1):
            above = surgery.reinit_from is not None and w >= surgery.reinit_from
            last = surgery.reinit_from is not None and w == depth
            redrawn = [above or last or (w == depth and stage.readout == "reset") for stage in stages]
            self.matrices.append(_matrix(stages, self.stage_of, dt, w < surgery.freeze, redrawn))
        older = np.array(self.stage_of)[None, :] < np.array(self.stage_of)[:, None]
        one = np.ones((count, count))
        self.responding = {"responses": 0 * one, "stage-responses": one * ~older, "cross-stage": one * ~older}.get(
            surgery.ablate, one
        )
        self.remembering = one * ~older if surgery.ablate in ("memory", "cross-stage") else one

        size = n * count
        first, last = self.matrices[0].draw[-1] + 1, self.matrices[-1].draw[-1] + 1
        wide_u = [n * first, *[size] * (depth - 1)]
        wide_r = [*[count] * (depth - 1), last]
        self.hu, self.hr = [np.zeros((size, w)) for w in wide_u], [np.zeros((size, w)) for w in wide_r]
        self.gu, self.gr = [np.zeros((count, w)) for w in wide_u], [np.zeros((count, w)) for w in wide_r]
        self.phi, self.g = [np.zeros((size, size)) for _ in wide_u], [np.zeros((count, count)) for _ in wide_u]
        # Covariances of u^1 and of the readout.
        self.first: Floats = np.asarray(np.kron(np.eye(first), gram), dtype=np.float64)
        self.readout: Floats = np.eye(last)
        self.pull = np.zeros((count, n))  # Delta where it trains

    def run(self) -> KernelRows:
        n, count, depth = self.n, self.count, self.depth
        f, centre = np.zeros((count, n)), np.zeros(n)
        for t in range(count):
            for layer in range(depth):
                self._ascend(layer, t)
            self._row_of_g(depth - 1, t, self.matrices[-1].since[t, :t, None] * self.pull[:t])
            stage = self.stages[self.stage_of[t]]
            raw = self._output(t)
            if t in self.starts[1:]:
                centre = raw if stage.readout == "carry-centred" else np.zeros(n)
            f[t] = (raw - centre) / stage.gamma
            if not np.all(np.isfinite(f[t])):
                raise ConvergenceError(f"Gradient descent overflows at step {t} of {count - 1}; use a smaller dt.")
            self.pull[t, stage.rows] = stage.labels - f[t, stage.rows]
            for layer in range(depth - 2, -1, -1):
                self._descend(layer, t)
        return KernelRows(
            f,
            [p.reshape(count, n, count, n) for p in self.phi],
            self.g,
            [h.reshape(count, n, count) for h in self.hr[:-1]],
            [g.reshape(count, count, n) for g in self.gu[1:]],
            self.starts,
        )

    def _covariance_u(self, layer: int, t: int) -> Floats:
        """Return <u u^T> of a layer up to time t."""
        if layer == 0:
            return self.first
        size, same = self.n * (t + 1), self.matrices[layer].same[: t + 1, : t + 1]
        if same.all():
            return self.phi[layer - 1][:size, :size]
        return self.phi[layer - 1][:size, :size] * np.kron(same, np.ones((self.n, self.n)))

    def _covariance_r(self, layer: int, t: int) -> Floats:
        """Return <r r^T> of a layer up to time t - 1; the row of time t is known later, and nothing needs it yet."""
        if layer == self.depth - 1:
            return self.readout
        return self.g[layer + 1][:t, :t] * self.matrices[layer + 1].same[:t, :t]

    def _ascend(self, layer: int, t: int) -> None:
        """Fill the rows of h and Phi of a layer at time t."""
        n, w, before, upto = self.n, self.matrices[layer], slice(0, t), self.n * (t + 1)
        here = slice(t * n, upto)
        if layer == 0:
            c = w.since[t, before] * (self.gram @ self.pull[before].T)
        else:
            phi = self.phi[layer - 1][here, : t * n].reshape(n, t, n)
            learned = w.since[t, before] * self.remembering[t, before] * np.einsum("msk,sk->ms", phi, self.pull[before])
            heard = w.kept[t] * (w.same & (self.responding > 0))[t, before]
            c = learned + heard * self.hr[layer - 1][here, before]
        hu, hr = self.hu[layer], self.hr[layer]
        hu[here], hr[here] = c @ self.gu[layer][before], c @ self.gr[layer][before]
        unit = w.draw[t] * n if layer == 0 else t * n
        hu[here, unit : unit + n] += w.kept[t] * np.eye(n)
        row = self._mixed(hu[here], self._covariance_u(layer, t), hu[:upto])
        row = row + self._mixed(hr[here], self._covariance_r(layer, t), hr[:upto])
        self.phi[layer][here, :upto], self.phi[layer][:upto, here] = row, row.T

    def _descend(self, layer: int, t: int) -> None:
        """Fill the rows of g and G of a layer below the last one at time t."""
        w, before = self.matrices[layer + 1], slice(0, t)
        learned = w.since[t, before] * self.remembering[t, before] * self.g[layer + 1][t, before]
        heard = w.kept[t] * (w.same & (self.responding > 0))[t, before]
        response = self.gu[layer + 1][t, : t * self.n].reshape(t, self.n)
        self._row_of_g(layer, t, learned[:, None] * self.pull[before] + heard[:, None] * response)

    def _row_of_g(self, layer: int, t: int, d: Floats) -> None:
        """Fill row t of g and G from D(t, nu s) (t, n)."""
        n, w = self.n, self.matrices[layer + 1]
        gu, gr = self.gu[layer], self.gr[layer]
        gu[t], gr[t] = d.ravel() @ self.hu[layer][: t * n], d.ravel() @ self.hr[layer][: t * n]
        last = layer == self.depth - 1
        gr[t, w.draw[t] if last else t] += w.kept[t]
        row = self._mixed(gu[t : t + 1], self._covariance_u(layer, t), gu[: t + 1])[0]
        row = row + self._mixed(gr[t : t + 1], self._covariance_r(layer, t + 1), gr[: t + 1])[0]
        self.g[layer][t, : t + 1] = self.g[layer][: t + 1, t] = row

    def _output(self, t: int) -> Floats:
        """Return <a(t) h^L(t)> (n,)."""
        here, last = slice(t * self.n, (t + 1) * self.n), self.depth - 1
        out = self._mixed(self.hu[last][here], self._covariance_u(last, t), self.gu[last][t : t + 1])
        out = out + self._mixed(self.hr[last][here], self._covariance_r(last, t), self.gr[last][t : t + 1])
        return np.asarray(out[:, 0], dtype=np.float64)

    @staticmethod
    def _mixed(left: Floats, covariance: Floats, right: Floats) -> Floats:
        """Return left cov right^T, of the columns that the covariance has."""
        size = len(covariance)
        return left[:, :size] @ covariance @ right[:, :size].T
