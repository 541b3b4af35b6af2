"""The mean field: what every neuron of a population feels, written once against the Python array API.

With S neurons (u_i, a_i) of weights q_i and the active training points h_mu = C_mu . u,

    f_mu = (1/gamma) sum_i q_i a_i phi(h_mu_i),   Delta = y - f,
    du/dt = s gamma a sum_mu Delta_mu phi'(h_mu) C_mu - lambda u,   da/dt = s gamma sum_mu Delta_mu phi(h_mu) - lambda a

with s = 1/P for the mean loss and 1 for the summed one (paper, Result 1). Neurons are independent but for f, so a
population is cut into blocks: a first pass collects f, a second applies the forces. Blocks are of fixed size and
summed in fixed order, so no number depends on how many threads share them.
"""

import itertools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlcli.arrays import Array, Floats
from tlcli.dmft.activations import Activation
from tlcli.dmft.arithmetic import Arithmetic
from tlcli.losses.objective import Objective
from tlcli.losses.scores import margins

_BLOCK_BYTES = 2**20
_SMALL = 2**18  # elements below which threads cost more than they save


class Batched:
    """What trains at times in batches: `sampled(t)` (P,), if given, weighs the points at the step from t."""

    sampled: Callable[[float], Floats] | None

    def now(self, t: float, delta: Floats) -> Floats:
        """Return what of Delta trains at time t: with `sampled` weights (P,) of the points that of a minibatch."""
        if self.sampled is None:
            return delta
        weights = self.sampled(t)
        return delta * (weights if delta.ndim == 1 else weights[:, None])


@dataclass(frozen=True, eq=False)
class Drive(Batched):
    """What trains a population in one stage, as float64 NumPy arrays.

    `coords` (P, rank) and `labels` (P,) of the active points; `gamma`; `scale` s; `decay` lambda. `shift(t)` (P,),
    if given, is added to f at the active points; `response` (P, P), if given, adds response @ I with
    dI/dt = s Delta - 2 lambda I, see docs/references.md, Lazy control variate. `objective` is the loss, in
    whose coordinates f and Delta then are, (P,) or (P, K); None is half the squared distance from `labels`.
    `sampled(t)` (P,), if given, are weights of the points at the step from t: those of a minibatch.
    """

    coords: Floats
    labels: Floats
    gamma: float
    scale: float
    decay: float = 0.0
    shift: Callable[[float], Floats] | None = None
    response: Floats | None = None
    objective: Objective | None = None
    sampled: Callable[[float], Floats] | None = None

    @property
    def unit(self) -> float:
        """The rms label, or 1 where all are zero; the size of the outputs that any other loss asks for."""
        if self.objective is not None:
            return self.objective.size
        return float(np.sqrt(np.mean(self.labels**2))) or 1.0

    def force(self, f: Floats) -> Floats:
        """Return Delta at outputs f of the active points."""
        return self.labels - f if self.objective is None else self.objective.force(f)

    def bend(self, f: Floats, v: Any) -> Any:
        """Return the Hessian of the loss at f times v."""
        return v if self.objective is None else self.objective.bend(f, v)


class Threads:
    """A pool that maps functions over blocks; one worker means a plain loop."""

    def __init__(self, count: int | None = None) -> None:
        self.count = thread_count() if count is None else count
        self._pool = ThreadPoolExecutor(self.count, initializer=_quiet) if self.count > 1 else None

    def map(self, function: Callable[[int], Any], items: Iterable[int], size: int = _SMALL) -> list[Any]:
        """Return the results in order; `size` is the number of elements that they work on."""
        if self._pool is None or size < _SMALL:
            return [function(i) for i in items]
        return list(self._pool.map(function, items))

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.shutdown()


def _quiet() -> None:
    """A diverging run is told by its outcome; NumPy's warnings are settings of each thread."""
    np.seterr(over="ignore", invalid="ignore")


def thread_count() -> int:
    """Return TLCLI_THREADS, or the number of cores that this process may use."""
    asked = os.environ.get("TLCLI_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Field(Arithmetic):
    """The velocity of a population under a `Drive`, and its outputs.

    The state is one flat vector: hidden (S, rank), readout (S,), and the integral I (P,) of the control variate, where
    the drive has one, in units of the rms label, which therefore changes no step. `xp` is an array-API namespace and
    `device` one of its devices; NumPy works in place.
    """

    def __init__(
        self,
        act: Activation,
        size: int,
        drive: Drive,
        weights: Floats | None = None,
        dtype: str = "float64",
        xp: Any = np,
        device: Any = None,
        threads: Threads | None = None,
    ) -> None:
        self.act, self.size, self.drive, self.xp = act, size, drive, xp
        self.n_train, self.rank = drive.coords.shape
        self.dtype = getattr(xp, dtype)
        self._where = {} if device is None else {"device": device}
        self.threads = threads or Threads(1)
        self.evaluations = 0
        self._coords = self.asarray(drive.coords)
        self._weights = None if weights is None else self.asarray(weights)
        self.blocks = blocks_of(size, max(self.n_train, self.rank), np.dtype(dtype).itemsize if xp is np else 0)
        self._phi = [self._buffer(b) for b in self.blocks]
        self._h = [self._buffer(b) if act.slope_needs_input else None for b in self.blocks]

    @property
    def length(self) -> int:
        """Length of the state vector."""
        return self.size * (self.rank + 1) + (0 if self.drive.response is None else self.n_train)

    def asarray(self, values: Any) -> Any:
        """Return values in the field's library, precision and device."""
        return self.xp.asarray(values, dtype=self.dtype, **self._where)

    def _buffer(self, block: slice) -> Any:
        return np.empty((block.stop - block.start, self.n_train), dtype=self.dtype) if self.xp is np else None

    def split(self, z: Any) -> tuple[Any, Any]:
        """Return (hidden (S, rank), readout (S,)), views of the state where the library has views."""
        cut = self.size * self.rank
        return self.xp.reshape(z[:cut], (self.size, self.rank)), z[cut : cut + self.size]

    def neuron_weights(self) -> Floats:
        """Return the neurons' weights (S,), of sum 1."""
        return np.full(self.size, 1 / self.size) if self._weights is None else to_numpy(self._weights).astype(float)

    def _weighted(self, a: Any, block: slice) -> Any:
        if self._weights is None:
            return a / self.size
        return a * (self._weights[block] if a.ndim == 1 else self._weights[block][:, None])

    def _forward(self, z: Any) -> Floats:
        """Fill the buffers with phi (and h) and return the population's own f at the active points."""
        u, a = self.split(z)

        def one(i: int) -> Floats:
            block = self.blocks[i]
            return to_numpy(self._weighted(a[block], block) @ self._features(u, i))

        parts = self.threads.map(one, range(len(self.blocks)), self.size * self.n_train)
        return np.sum(parts, axis=0, dtype=float) / self.drive.gamma

    def _features(self, u: Any, i: int) -> Any:
        """Fill the buffers of block i with phi (and h); return phi."""
        h = matmul(self.xp, u[self.blocks[i], :], self._coords.T, self._phi[i] if self._h[i] is None else self._h[i])
        if self.act.slope_needs_input:
            self._h[i] = h
        self._phi[i] = apply(self.act, h, self._phi[i], self.xp)
        return self._phi[i]

    def _corrected(self, t: float, z: Any, f: Floats) -> Floats:
        if self.drive.shift is not None:
            f = f + self.drive.shift(t)
        if self.drive.response is not None:
            f = f + self.drive.response @ self.tail(z)
        return f

    def tail(self, z: Any) -> Floats:
        """Return the integral I (P,) of the control variate."""
        return to_numpy(z[self.size * (self.rank + 1) :]).astype(float) * self.drive.unit

    def residual(self, t: float, z: Any) -> Floats:
        """Return Delta (P,) at the active points; the buffers then hold this state's phi."""
        return self.drive.force(self.active(t, z))

    def active(self, t: float, z: Any) -> Floats:
        """Return f at the active points, with what is added to the population's own; fills the buffers."""
        return self._corrected(t, z, self._forward(z))

    def __call__(self, t: float, z: Any) -> Any:
        """Return dz/dt."""
        self.evaluations += 1
        d, xp = self.drive, self.xp
        delta = d.now(t, self.residual(t, z))
        pull = self.asarray(d.scale * d.gamma * delta)
        drift = pull[:, None] * self._coords
        u, a = self.split(z)
        out = np.empty(self.length, dtype=self.dtype) if xp is np else None
        du, da = (None, None) if out is None else self.split(out)

        def one(i: int) -> tuple[Any, Any]:
            block = self.blocks[i]
            slope = slope_of(self.act, self._h[i], self._phi[i], xp)
            new_u = matmul(xp, slope, drift, None if du is None else du[block])
            new_u = scale_rows(xp, new_u, a[block])
            new_a = matmul(xp, self._phi[i], pull, None if da is None else da[block])
            if d.decay:
                new_u -= d.decay * u[block, :]
                new_a -= d.decay * a[block]
            return new_u, new_a

        parts = self.threads.map(one, range(len(self.blocks)), self.size * self.n_train)
        return self._joined(parts, out, delta, z)

    def _joined(self, parts: Any, out: Any, delta: Floats, z: Any) -> Any:
        """Return dz/dt of the blocks' (du, da), which `out` holds where it is not None, and of the tail's forces."""
        xp, d = self.xp, self.drive
        tail = None
        if d.response is not None:
            tail = xp.reshape(self.asarray((d.scale * delta - 2 * d.decay * self.tail(z)) / d.unit), (-1,))
        if out is not None:
            if tail is not None:
                out[len(out) - len(tail) :] = tail
            return out
        pieces = [xp.reshape(part[which], (-1,)) for which in (0, 1) for part in parts]
        return xp.concat(pieces if tail is None else [*pieces, tail])

    def fit(self, t: float, z: Any) -> tuple[float, bool]:
        """Return the mean loss of the active points as it is minimised, and whether all have a positive margin."""
        objective = self.drive.objective
        if objective is None:
            return float("inf"), False
        f = self.active(t, z)
        right = margins(objective.outputs(f), objective.y) > 0
        return objective.value(f) / self.n_train, bool(right.all())

    def stiffness(self, t: float, z: Any, start: Floats | None = None, sweeps: int = 20) -> tuple[float, Floats]:
        """Return an estimate of the fastest rate, and the power iteration's vector.

        The rate of the feedback is s lambda_max(Theta), Theta = Phi + K o G; power iteration on Theta v = J J^T v
        needs no matrix and, unlike finite differences, is not misled by kinks. The forces' own rates,
        gamma s (|C^T Delta| + |C^T diag(Delta) C|) of the frozen field, and the decay are added.
        """
        d, xp = self.drive, self.xp
        f = self.active(t, z)
        delta = d.force(f)
        a = self.split(z)[1]
        slopes: list[Any] = [None] * len(self.blocks)

        def image(v: Floats) -> Floats:
            v_here = self.asarray(d.bend(f, v))
            spread = v_here[:, None] * self._coords

            def one(i: int) -> Floats:
                block = self.blocks[i]
                if slopes[i] is None:
                    slopes[i] = slope_of(self.act, self._h[i], self._phi[i], xp)
                q = self._weighted(xp.ones_like(a[block]), block)
                mixed = (self._phi[i] @ v_here) * q
                tangent = scale_rows(xp, slopes[i] @ spread, q * a[block] ** 2)
                part = to_numpy(mixed @ self._phi[i]).astype(float)
                return part + np.sum(to_numpy(slopes[i].T @ tangent) * d.coords, axis=1, dtype=float)

            self.evaluations += 1
            return np.sum(self.threads.map(one, range(len(self.blocks)), self.size * self.n_train), axis=0)

        top, v = power_iteration(image, np.ones(self.n_train) if start is None else start, sweeps)
        largest = None if d.objective is None else float(xp.max(xp.abs(a)))
        return d.scale * top + free_rate(d, delta, largest, bend_of(self.act)), v

    def outputs(self, z: Any, coords: Floats, still: Any = None, readout: Any = None) -> Floats:
        """Return the population's own f (n_point,) at points `coords`, with `still` (S, n_point) added to h.

        Another `readout`, (S,) or (S, K), takes the place of the state's: f is (n_point,) or (n_point, K).
        """
        u, a = self.split(z)
        a = a if readout is None else self.asarray(readout)
        c = self.asarray(coords)
        blocks = blocks_of(self.size, len(coords), np.dtype(self.dtype).itemsize if self.xp is np else 0)

        def one(i: int) -> Floats:
            block = blocks[i]
            h = u[block, :] @ c.T
            if still is not None:
                h = h + still[block, :]
            own = self._weighted(a[block, ...], block)
            return to_numpy((own if own.ndim == 1 else own.T) @ self.act.phi(h, self.xp))

        parts = self.threads.map(one, range(len(blocks)), self.size * len(coords))
        return np.sum(parts, axis=0, dtype=float).T / self.drive.gamma

    def _squares(self, a: Any) -> Any:
        """Return the factor a^2 (S,) of G."""
        return a**2

    def kernels(
        self,
        z: Any,
        coords: Floats,
        others: Floats,
        still: Any = None,
        still_others: Any = None,
        plain: bool = False,
    ) -> Any:
        """Return Phi = <phi phi^T> and G = <a^2 phi' phi'^T> between two sets of points, each (n, m).

        `plain`: without the factor a^2, as with a readout that is drawn anew.

        Several outputs: |a|^2 / K in the place of a^2, the mean over the blocks of the outputs.
        """
        xp = self.xp
        u, a = self.split(z)
        square = self._squares(a)
        c, e = self.asarray(coords), self.asarray(others)
        blocks = blocks_of(self.size, max(len(coords), len(others)), np.dtype(self.dtype).itemsize if xp is np else 0)

        def one(i: int) -> tuple[Floats, Floats]:
            block = blocks[i]
            h, k = u[block, :] @ c.T, u[block, :] @ e.T
            if still is not None:
                h = h + still[block, :]
            if still_others is not None:
                k = k + still_others[block, :]
            (phi, slope), (phi2, slope2) = self.act.both(h, xp), self.act.both(k, xp)
            q = self._weighted(xp.ones_like(square[block]), block)
            first = to_numpy(phi.T @ scale_rows(xp, phi2 + 0, q)).astype(float)
            own = q if plain else q * square[block]
            return first, to_numpy(slope.T @ scale_rows(xp, slope2 + 0, own)).astype(float)

        totals: list[Any] = [0, 0]
        # Between many points the kernels of all blocks are large: never more of them than threads.
        for start in range(0, len(blocks), self.threads.count):
            now = range(start, min(start + self.threads.count, len(blocks)))
            for part in self.threads.map(one, now, self.size * len(coords)):
                totals = [total + more for total, more in zip(totals, part, strict=True)]
        return totals[0], totals[1]


def bend_of(act: Activation) -> float:
    """Return the largest |phi''|, away from kinks; 1.5 where it is not known."""
    return 0.0 if act.homogeneous else {"tanh": 0.7699, "erf": 0.9679}.get(act.kind, 1.5)


def power_iteration(image: Callable[[Floats], Floats], v: Floats, sweeps: int) -> tuple[float, Floats]:
    """Return the largest eigenvalue of a linear map of v, to 2 %, after at most `sweeps` images, and its vector."""
    v = v / np.linalg.norm(v)
    top, last = 0.0, 0.0
    for _ in range(sweeps):
        found = image(v)
        top = float(np.linalg.norm(found))
        if not np.isfinite(top) or top == 0.0:
            break
        v = found / top
        if abs(top - last) < 0.02 * top:
            break
        last = top
    return top, v


def free_rate(drive: Drive, delta: Floats, largest: float | None = None, bend: float = 1.0) -> float:
    """Return a neuron's rate in a field that does not react: s gamma (|C^T Delta| + |C^T diag(Delta) C|) + 2 lambda.

    With `largest`, the largest |a| of the neurons, and `bend`, the largest |phi''|, the second term is
    bend |a| |C^T diag(|Delta|) C| of the neuron that turns fastest: losses whose curvature is small bring the feedback
    below it. Delta is (P,) or (P, K).
    """
    c = drive.coords
    pull = float(np.linalg.norm(c.T @ delta)) if delta.ndim == 1 else float(np.linalg.norm(c.T @ delta, 2))
    if not np.all(np.isfinite(delta)):
        bent = np.inf
    elif largest is None:
        bent = float(np.linalg.norm((c.T * delta) @ c, 2))
    else:
        size = np.abs(delta) if delta.ndim == 1 else np.linalg.norm(delta, axis=1)
        bent = largest * bend * float(np.linalg.norm((c.T * size) @ c, 2)) if bend else 0.0
    return drive.scale * drive.gamma * (pull + bent) + 2 * drive.decay


def blocks_of(size: int, columns: int, itemsize: int) -> list[slice]:
    """Cut `size` neurons into blocks of about a megabyte; one block where the library runs elsewhere (itemsize 0)."""
    if itemsize == 0:
        return [slice(0, size)]
    rows = max(64, _BLOCK_BYTES // itemsize // columns)
    count = max(1, round(size / rows))
    if count > 1:
        count += count % 2  # two threads shall not wait for an odd block
    edges = np.linspace(0, size, count + 1).astype(int)
    return [slice(int(i), int(j)) for i, j in itertools.pairwise(edges) if j > i]


def matmul(xp: Any, left: Any, right: Any, out: Any) -> Any:
    """Matrix product, into `out` where the library can."""
    return np.matmul(left, right, out=out) if xp is np and out is not None else left @ right


def scale_rows(xp: Any, matrix: Any, factors: Any) -> Any:
    """Multiply row i by factors[i], in place for NumPy."""
    if xp is np:
        matrix *= factors[:, None]
        return matrix
    return matrix * factors[:, None]


def apply(act: Activation, h: Any, out: Any, xp: Any) -> Any:
    """Return phi(h); NumPy writes into `out`, which may be h itself."""
    if xp is not np:
        return act.phi(h, xp)
    if act.kind == "tanh":
        return np.tanh(h, out=out)
    if act.kind == "relu":
        return np.maximum(h, 0, out=out)
    if act.kind == "linear":
        if out is not h:
            out[...] = h
        return out
    out[...] = act.phi(h)
    return out


def slope_of(act: Activation, h: Any, phi: Any, xp: Any, out: Any = None) -> Any:
    """Return phi' as a new array, or in `out` where it is simple to make."""
    if xp is np and act.kind == "tanh":
        slope = np.multiply(phi, phi, out=out)
        return np.subtract(1, slope, out=slope)
    return act.slope(h, phi, xp)


def to_numpy(values: Any) -> Array:
    """Return an array of any library as a NumPy array on the CPU."""
    if isinstance(values, np.ndarray):
        return values
    if hasattr(values, "detach"):  # torch
        return values.detach().cpu().numpy()
    return values.get() if hasattr(values, "get") else np.asarray(values)
