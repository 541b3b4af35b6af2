"""A source's condensate seen from a target: neurons of unbounded weight that the target's training drags along.

An atom of the source is a share ε of its neurons with weights Lẑ_k, L → ∞, and m_k = εL² (see `condense`). Around such
a neuron log Z(v|Lẑ) = L²M(v) + O(log L), so that the dual of the target loses Σ m_k M_k(v):

    M(v) = max_x F(x, v),  F = ½γ²s(x)² - ½(1+δ)|x - αẑ|²,  s(x) = v·φ(Bx),  α = δ/(1+δ)

The weights of the target are Lx*, and give Φ the part m φ(x*)φ(x*)ᵀ, since ∂M/∂v = γ²s(x*)φ(x*). M tends to infinity at
the edge of the domain, γ²s(u)² → 1+δ, so that the target does not condense by itself. φ is homogeneous and s piecewise
linear: on the face of its kinks where x* lies (T projects on it, G = T∇s),

    k = 1 - γ²|G|²/(1+δ),  s = αG·ẑ/k,  x* = αTẑ + γ²sG/(1+δ)

Where maximisers tie, M has a kink, the saddle point may lie on it, and the mass of the atom splits among them: the
m_kj, Σ_j m_kj = m_k, are multipliers of a quadratic programme in every step of Newton's method.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_solve

from tlcli.arrays import Flags, Floats, Indices
from tlcli.bayes.domain import steep_directions
from tlcli.bayes.sampling.condense import factor_of
from tlcli.dmft.activations import Activation

_STEPS, _INNER = 20, 30  # of the ascent, and of its least squares; the closed form on a face ends it
_MIRRORED = 4  # searches behind the kinks, each from what the last one found
_NEAR_KINKS = (0.3, 0.1, 0.03, 0.01, 1e-3, 1e-6)  # |h| over |b||x| below which a kink is taken to be one of x*
_ON = 1e-9
_KEPT = 6  # maximisers of an atom, of those within _BELOW of the largest
_BELOW = 0.05  # times the range ½(1+δ)α²|ẑ|² of M
_ALIKE = 1e-3  # relative distance below which two maximisers are one
_STEEPEST = 10  # directions from which the lobes of other neurons are looked for
_DIRECTIONS, _RANDOM = 24, 96  # steep and random directions from which a maximiser is looked for
_MODELS = 4  # models of a step, each with the curvature of the last one's masses


@dataclass(frozen=True, eq=False)
class Split:
    """The masses m_kj (J,) on maximisers x_kj (J, r) of the atoms `owner` at one v: `kernel` Σ mφφᵀ (P, P), and the
    `cost` Σ m_kj(M_k - F_kj) of masses below the maximum, nats."""

    x: Floats
    owner: Indices
    mass: Floats
    kernel: Floats
    cost: float

    def slack(self, v: Floats, gamma: float, rank: int) -> float:
        """Return the cost, as `condense.Atoms.slack` does."""
        return self.cost

    def everywhere(self, act: Activation, basis: Floats, outside: Floats, inputs: Floats) -> Floats:
        """Return Σ m φφᵀ between other points, (n, n), whose `inputs` are x/√D (n, D).

        The weights are x in the `basis` (D, r) of the target's inputs, and `outside` (K, D) it those of αẑ.
        """
        φ = np.asarray(act.phi((self.x @ basis.T + outside[self.owner]) @ inputs.T), dtype=float)
        return (φ.T * self.mass) @ φ


@dataclass(frozen=True, eq=False)
class Pieces:
    """Maximisers of all atoms at one v: x (J, r), the atom `owner` (J,) of each, F (J,), s (J,) and φ (J, P)."""

    x: Floats
    owner: Indices
    value: Floats
    s: Floats
    features: Floats


class NewtonStep(NamedTuple):
    """A step (P,), the masses of the pieces at its end (J,), and by how much the model of the dual rises, nats."""

    step: Floats
    mass: Floats
    rise: float


@dataclass(frozen=True, eq=False)
class Cut:
    """Tangents of M_owner at other v: an M is convex, so that they bound it from below everywhere.

    `slopes` (C, P) are ∂M/∂v/γ², `base` (C,) the values at v = 0, nats.
    """

    slopes: Floats
    base: Floats
    owner: Indices
    gamma: float

    @staticmethod
    def of(pieces: Pieces, v: Floats, gamma: float) -> "Cut":
        """The tangents of all pieces at v (P,)."""
        slopes = pieces.s[:, None] * pieces.features
        return Cut(slopes, pieces.value - gamma**2 * (slopes @ v), pieces.owner, gamma)

    def joined(self, other: "Cut | None") -> "Cut":
        """Both sets."""
        if other is None:
            return self
        return Cut(
            np.concatenate([self.slopes, other.slopes]),
            np.concatenate([self.base, other.base]),
            np.concatenate([self.owner, other.owner]),
            self.gamma,
        )

    def at(self, v: Floats) -> Floats:
        """Return the bounds at v (P,), nats."""
        return self.base + self.gamma**2 * (self.slopes @ v)


@dataclass(frozen=True, eq=False)
class Dragged:
    """Atoms ẑ_k (K, r) of masses m_k (K,) in the row space of the target's inputs, B (P, r), γ, and 1+δ."""

    act: Activation
    b: Floats
    z: Floats
    mass: Floats
    gamma: float
    precision: float
    _last: dict[str, Floats] = field(default_factory=dict, init=False, repr=False)

    def steepest(self, v: Floats) -> tuple[Floats, Floats]:
        """Return the steepest of the directions u (k, r) at v (P,) that differ, and their γ²s²; the last are kept."""
        if "v" not in self._last or not np.array_equal(self._last["v"], v):
            u, steep = _apart(*steep_directions(self.act, self.b, v, self.gamma))
            self._last.update(v=v.copy(), u=u, steep=steep)
        return self._last["u"], self._last["steep"]

    def inside(self, v: Floats) -> bool:
        """Whether the target's tilt can be normalised at v (P,)."""
        return bool(self.steepest(v)[1].max(initial=0.0) < self.precision)

    @property
    def _pull(self) -> Floats:
        return (1 - 1 / self.precision) * self.z

    @property
    def untilted(self) -> Floats:
        """Σ m φφᵀ (P, P) at αẑ: what v = 0 leaves."""
        h = self._pull @ self.b.T
        φ = self._slopes(h) * h
        return (φ.T * self.mass) @ φ

    @property
    def sides(self) -> tuple[float, float]:
        """φ' above and below zero."""
        up, down = (float(self.act.phi(np.array([one]))[0]) * one for one in (1.0, -1.0))
        return up, down

    def _slopes(self, h: Floats) -> Floats:
        up, down = self.sides
        return np.where(h > 0, up, down)

    def _height(self, x: Floats, pull: Floats, v: Floats) -> tuple[Floats, Floats, Floats]:
        """Return F (m,), s (m,) and h (m, P) at x (m, r) for the pulls αẑ (m, r)."""
        h = x @ self.b.T
        s = (self._slopes(h) * h) @ v
        away = x - pull
        return 0.5 * self.gamma**2 * s**2 - 0.5 * self.precision * np.einsum("ij,ij->i", away, away), s, h

    def pieces(self, v: Floats, near: Sequence[Pieces] = (), *, search: bool = True) -> Pieces:
        """Return the local maximisers at v (P,) of each atom that are near its largest.

        They are ascended to from αẑ, from those `near`, and with `search` from the steepest directions at v, the
        maximisers of the other atoms and random points.
        """
        K = len(self.z)
        start, owner = [self._pull], [np.arange(K)]
        for one in near:
            start.append(one.x)
            owner.append(one.owner)
        if search:
            u, steep = self.steepest(v)
            length = _length(self._pull)
            # Along a ray ρu F is largest at ρ = αẑ·u/(1 - γ²s²/(1+δ)), where that is positive.
            along = (self._pull @ u.T) / np.maximum(1 - steep / self.precision, 1e-6)
            found = [np.maximum(along[:, [j]], 0.3 * length) * one for j, one in enumerate(u)]
            away = np.random.default_rng(0).standard_normal((_RANDOM, self.z.shape[1]))
            away /= np.linalg.norm(away, axis=1, keepdims=True)
            found += [self._pull + (0.5, 1.5, 4.0)[j % 3] * length * one for j, one in enumerate(away)]
            start += found
            owner += [np.arange(K)] * len(found)
        x, at = np.concatenate(start), np.concatenate(owner)
        x, value = self._ascended(x, self._pull[at], v)
        found = self._kept(x, at, value, v)
        return self._with_neighbours(found, v) if search else found

    def lobes(self, pull: Floats, v: Floats) -> tuple[Floats, Indices, Floats]:
        """Return local maxima x (m, r) of F at v (P,) around other αẑ = `pull` (n, r), their owners (m,) and values.

        They are ascended to from αẑ and the steepest directions at v; one may occur more than once.
        """
        u, steep = (one[:_STEEPEST] for one in self.steepest(v))
        along = np.maximum((pull @ u.T) / np.maximum(1 - steep / self.precision, 1e-6), 0.3 * _length(pull))
        x = np.concatenate([pull[:, None], along[:, :, None] * u], axis=1).reshape(-1, pull.shape[1])
        owner = np.repeat(np.arange(len(pull)), 1 + len(u))
        x, value = self._ascended(x, pull[owner], v)
        return x, owner, value

    def _with_neighbours(self, found: Pieces, v: Floats) -> Pieces:
        """Return `found`, with what is ascended to from the mirror images of the maximisers behind every kink."""
        size = np.maximum(np.einsum("ij,ij->i", self.b, self.b), 1e-300)
        for _ in range(_MIRRORED):
            top = self.tops(found)
            away = found.x[:, None] - 1.1 * ((found.x @ self.b.T) / size)[:, :, None] * self.b
            x, at = away.reshape(-1, self.b.shape[1]), np.repeat(found.owner, len(self.b))
            x, value = self._ascended(x, self._pull[at], v)
            x, at = np.concatenate([found.x, x]), np.concatenate([found.owner, at])
            found = self._kept(x, at, np.concatenate([found.value, value]), v)
            if np.all(self.tops(found) <= top + 1e-9 * np.abs(top)):
                break
        return found

    def _ascended(self, x: Floats, pull: Floats, v: Floats) -> tuple[Floats, Floats]:
        """Return local maxima x (m, r) of F and its values (m,), by minorants that are tight at the last x.

        s² >= 2s₀s - s₀², and of ±s₀s the kinks that are convex are replaced by their slopes at x₀. What is left is
        concave, and its maximum, which may lie on the concave kinks, is a least-squares problem in the multipliers of
        these kinks in a box. The step is lengthened for as long as F rises.
        """
        up, down = self.sides
        kink, straight = v * (up - down), down * v @ self.b
        rate = 1 / max(float(np.linalg.norm(self.b, 2)) ** 2, 1e-300)
        value, s, h = self._height(x, pull, v)
        longer, share = np.ones(len(x)), (h > 0).astype(float)
        for _ in range(_STEPS):
            sign = np.where(s < 0, -1.0, 1.0)[:, None]
            c = (self.gamma**2 / self.precision) * np.abs(s)[:, None]
            turn = c * sign * kink
            target = pull + c * sign * straight + (np.where(h > 0, np.maximum(turn, 0.0), 0.0)) @ self.b
            most = np.maximum(-turn, 0.0)
            y = ahead = share * most
            for n in range(_INNER):
                before, y = y, np.clip(ahead + rate * ((target - ahead @ self.b) @ self.b.T), 0.0, most)
                ahead = y + n / (n + 3) * (y - before)
            share = np.where(most > 0, y / np.maximum(most, 1e-300), h > 0)
            step = target - y @ self.b - x
            trials = [x + one[:, None] * step for one in (longer, np.ones(len(x)))]
            heights = [self._height(one, pull, v) for one in trials]
            longer = np.where(heights[0][0] > heights[1][0], np.minimum(2 * longer, 64.0), 1.0 + 0.5 * (longer - 1))
            for trial, (there, s_there, h_there) in zip(trials, heights, strict=True):
                better = there > value
                x, h = np.where(better[:, None], trial, x), np.where(better[:, None], h_there, h)
                s, value = np.where(better, s_there, s), np.where(better, there, value)
        return x, value

    def _kept(self, x: Floats, at: Indices, value: Floats, v: Floats) -> Pieces:
        kept_x: list[Floats] = []
        kept_at: list[int] = []
        for k, z in enumerate(self.z):
            pull = self._pull[k]
            room = _BELOW * (0.5 * self.precision * float(pull @ pull) + 1e-300)
            mine = np.flatnonzero(at == k)
            mine = mine[np.argsort(-value[mine])]
            mine = mine[value[mine] > value[mine[0]] - 2 * room]
            ends = [self._on_face(one, pull, v) for one in _distinct(x[mine], z)[: 4 * _KEPT]]
            heights = self._height(np.stack(ends), pull, v)[0]
            order = [j for j in np.argsort(-heights) if heights[j] >= heights.max() - room]
            best = _distinct(np.stack(ends)[order], z)[:_KEPT]
            kept_x += best
            kept_at += [k] * len(best)
        x, at = np.stack(kept_x), np.array(kept_at)
        value, s, h = self._height(x, self._pull[at], v)
        return Pieces(x, at, value, s, self._slopes(h) * h)

    def _face(self, x: Floats, near: float, v: Floats) -> tuple[Flags, Floats, Floats]:
        """Return the kinks (P,) on which x (r,) nearly lies, an orthonormal basis (r, n) of them, and G (r,)."""
        h = self.b @ x
        on = np.abs(h) <= near * np.linalg.norm(self.b, axis=1) * np.linalg.norm(x)
        left, size, _ = np.linalg.svd(self.b[on].T, full_matrices=False)
        basis = left[:, size > 1e-10 * size.max(initial=1e-300)]
        slope = (np.where(on, 0.0, self._slopes(h)) * v) @ self.b
        return on, basis, slope - basis @ (basis.T @ slope)

    def _on_face(self, x: Floats, pull: Floats, v: Floats) -> Floats:
        """Return the maximum on the face of kinks where x (r,) nearly lies, x itself where none is higher."""
        best = float(self._height(x[None], pull[None], v)[0][0])
        for _ in range(3):
            before, tried = best, []
            for near in _NEAR_KINKS:
                on, basis, slope = self._face(x, near, v)
                if any(np.array_equal(on, one) for one in tried):
                    continue
                tried.append(on)
                k = 1 - self.gamma**2 * float(slope @ slope) / self.precision
                if k <= 0:
                    continue
                s = float(slope @ pull) / k
                trial = pull - basis @ (basis.T @ pull) + (self.gamma**2 / self.precision) * s * slope
                there = float(self._height(trial[None], pull[None], v)[0][0])
                if there >= best - 1e-12 * abs(best):
                    x, best = trial, max(there, best)
            if best <= before + 1e-12 * abs(before):
                break
        return x

    def bend(self, x: Floats, s: float, features: Floats, v: Floats) -> Floats:
        """Return ∂²M/∂v²/γ² (P, P) of the maximiser x (r,), which moves with v on its face.

        F_vv + F_vx(-F_xx)⁻¹F_xv with F_vv = γ²φφᵀ, F_vx = γ²(φGᵀ + s∂φ), -F_xx = (1+δ)T - γ²GGᵀ.
        """
        on, basis, slope = self._face(x, _ON, v)
        g = self.gamma**2 / self.precision
        k = max(1 - g * float(slope @ slope), 1e-12)
        moved = np.where(on, 0.0, self._slopes(self.b @ x))[:, None] * self.b
        moved -= (moved @ basis) @ basis.T
        mixed = np.outer(features, slope) + s * moved
        along = mixed @ slope
        return np.outer(features, features) + g * (mixed @ mixed.T + (g / k) * np.outer(along, along))

    def step(
        self, pieces: Pieces, v: Floats, gradient: Floats, curvature: Floats, cuts: "Cut | None" = None
    ) -> NewtonStep:
        """Return the step that maximises the model of the whole dual, and the masses m_kj of the pieces at its end.

        `gradient` (P,) and `curvature` (P, P) are those of the bulk, over γ². Every M_k is the largest of its pieces
        and `cuts`, linear in v, with the curvature of those that carry the mass.
        """
        slopes, height, owner = pieces.s[:, None] * pieces.features, pieces.value, pieces.owner
        if cuts is not None:
            slopes = np.concatenate([slopes, cuts.slopes])
            height, owner = np.concatenate([height, cuts.at(v)]), np.concatenate([owner, cuts.owner])
        height = (height - self.tops(pieces)[owner]) / self.gamma**2
        count, bends = len(pieces.owner), {}
        step, H = np.zeros_like(v), curvature
        start = mass = np.concatenate([self.first(pieces), np.zeros(len(owner) - count)])
        for _ in range(_MODELS):
            H = curvature.copy()
            for j in np.flatnonzero(mass[:count] > 1e-9 * self.mass.max()):
                if j not in bends:
                    bends[j] = self.bend(pieces.x[j], float(pieces.s[j]), pieces.features[j], v)
                H += mass[j] * bends[j]
            factor = factor_of(H)
            solved = cho_solve(factor, slopes.T)
            mass = _masses(slopes @ solved, solved.T @ gradient + height, owner, self.mass, start)
            step = cho_solve(factor, gradient) - solved @ mass
        ahead = np.full(len(self.z), -np.inf)
        np.maximum.at(ahead, owner, height + slopes @ step)
        rise = float(gradient @ step - 0.5 * step @ H @ step - self.mass @ ahead)
        return NewtonStep(step, mass[:count], self.gamma**2 * rise)

    def tops(self, pieces: Pieces) -> Floats:
        """Return M_k (K,)."""
        out = np.full(len(self.z), -np.inf)
        np.maximum.at(out, pieces.owner, pieces.value)
        return out

    def value(self, pieces: Pieces) -> float:
        """Return Σ m_k M_k, nats."""
        return float(self.mass @ self.tops(pieces))

    def first(self, pieces: Pieces) -> Floats:
        """Return masses (J,) that lie on the largest maximiser of each atom."""
        out = np.zeros(len(pieces.owner))
        for k, m in enumerate(self.mass):
            mine = np.flatnonzero(pieces.owner == k)
            out[mine[np.argmax(pieces.value[mine])]] = m
        return out

    def split(self, pieces: Pieces, mass: Floats) -> Split:
        """Return the split of masses (J,) over the maximisers."""
        kernel = (pieces.features.T * mass) @ pieces.features
        cost = float(mass @ (self.tops(pieces)[pieces.owner] - pieces.value))
        at = mass > 0
        return Split(pieces.x[at], pieces.owner[at], mass[at], kernel, cost)

    def at(self, v: Floats, gradient: Floats, curvature: Floats) -> Split:
        """Return the split at v (P,) that leaves the smallest gap beside a bulk with this gradient and curvature."""
        pieces = self.pieces(v)
        return self.split(pieces, self.step(pieces, v, gradient, curvature).mass)


def _masses(Q: Floats, c: Floats, owner: Indices, mass: Floats, start: Floats) -> Floats:
    """Return the m (J,) >= 0 that minimise ½mᵀQm - cᵀm where those of each owner add up to its `mass` (K,).

    An active set grows and shrinks from `start` (J,).
    """
    Q = Q + 1e-13 * float(np.trace(Q)) * np.eye(len(Q))
    m, small = start, 1e-11 * (float(np.abs(c).max()) + float(np.abs(Q).max() * mass.sum()))
    used = np.flatnonzero(m > 0)
    for _ in range(20 * len(Q)):
        member = (owner[None, used] == np.arange(len(mass))[:, None]).astype(float)
        whole = np.block([[Q[np.ix_(used, used)], member.T], [member, np.zeros((len(mass), len(mass)))]])
        solved = np.linalg.lstsq(whole, np.concatenate([c[used], mass]), rcond=1e-15)[0]
        best, price = np.zeros_like(m), solved[len(used) :]
        best[used] = solved[: len(used)]
        down = np.flatnonzero(best < 0)
        if len(down):
            share = m[down] / (m[down] - best[down])
            first = int(np.argmin(share))
            m = m + share[first] * (best - m)
            used = used[used != down[first]]
            m[down[first]] = 0.0
            continue
        m = best
        gain = c - Q @ m - price[owner]
        gain[used] = 0.0
        if gain.max() <= small:
            break
        used = np.append(used, int(np.argmax(gain)))
    m = np.maximum(m, 0.0)
    return m * (mass / np.bincount(owner, m, len(mass)))[owner]


def _apart(u: Floats, steep: Floats) -> tuple[Floats, Floats]:
    """Return the steepest of the directions u (k, r) that differ, and their γ²s²."""
    kept: list[int] = []
    for j, one in enumerate(u):
        if len(kept) < _DIRECTIONS and all(float(one @ u[i]) < 0.99 for i in kept):
            kept.append(j)
    return u[kept], steep[kept]


def _length(x: Floats) -> Floats:
    return np.linalg.norm(x, axis=1, keepdims=True)


def _distinct(x: Floats, z: Floats) -> list[Floats]:
    """Return the rows of x (m, r) that are further than round-off from those before them; |z| sets the scale."""
    kept: list[Floats] = []
    for one in x:
        if all(np.linalg.norm(one - other) > _ALIKE * np.linalg.norm(z) for other in kept):
            kept.append(one)
    return kept
