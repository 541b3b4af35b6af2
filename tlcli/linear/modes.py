"""One stage of feature-learning training, mode by mode (docs/theory.md, Sections 2 and 4).

Predictor β = b/γ = C β* + E n + N over Marchenko–Pastur modes ℓ. With S = s + k and s = √(k² + γ²|β|²),
equation (*) reads dX/dt = S g_X + (B − 2λ) X, B = γ²(β·g)/S, and three facts shrink it:

* N = C σ/√(αℓ): signal and noise are driven alike;
* E = |β₀| exp(φ − ℓτ), dτ/dt = S, dφ/dt = B − 2λ: the carried predictor obeys the homogeneous equation;
* in the clock τ, with a = e^{−φ}, U = aC and q = 1/S, everything is linear but three scalars:

      dU/dτ = ℓ(a − U),  d log a/dτ = 2λq − m,  d log q/dτ = 2λq − 2m,  dt/dτ = q,
      m = B/S = γ²q² (β·g).

So one implicit step costs the solution of 2p scalar equations (p stages), and no stiffness is left. Nothing
divides by γ: γ = 0 is the lazy limit, S = 2k. While |β| is small ("young" points) the code follows U, later
D = U − a, i.e. C − 1: tiny initialisations and tiny losses both keep their digits. In each step a starts again
from 1, freed of exp(−μτ) with the last known μ = dφ/dτ, so that a quasi-steady decay costs no steps.
"""

import numpy as np
from numpy.typing import ArrayLike

from tlcli.arrays import Flags, Floats, Indices
from tlcli.linear.integrate import radau
from tlcli.linear.spectrum import marchenko_pastur

N_OUTPUTS = 8  # ∫C, ∫E, |β|², test loss, train loss, k, τ, φ
_NEWTON_STEPS = 9
_STOP = 1e-10  # for duration = inf: |dβ/dτ|/|β| times what is ahead, see `Modes._settled`
_DEAD = 1e-10  # |β| and k/k₀ below which weight decay has removed the features
_FADED = 600.0  # sizes are followed down to e^-600: beyond, only their ratios matter, and zero would be another limit


def bulk_after(bulk0: ArrayLike, decay: ArrayLike, time: ArrayLike) -> Floats:
    """Return k(t) = k₀ e^{−2λt} of a finite time t, never zero for k₀ > 0: it ends at k₀ e^{−600}.

    A ridgeless fit on k I + χ n nᵀ has another limit for k → 0⁺ than at k = 0, which no finite time reaches.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # faded all the same; 0·∞ is not asked for
        lost = np.minimum(2.0 * np.asarray(decay, dtype=float) * np.asarray(time, dtype=float), _FADED)
    return np.asarray(bulk0, dtype=float) * np.exp(-lost)


class Modes:
    """A batch of stages on n points with K modes each; the `System` that `march` advances."""

    def __init__(self, points: Floats, times: Floats, n_nodes: int, stages: int, tolerance: float) -> None:
        (alpha, self.gamma, duration, self.sigma, self.decay, self.start, self.bulk0, self.r) = points.T
        self.alpha, self.tolerance, self.rule = alpha, tolerance, radau(stages)
        self.times = np.concatenate([times, duration[:, None]], axis=1)
        self.ell, self.weight = marchenko_pastur(alpha, n_nodes)
        with np.errstate(over="ignore", invalid="ignore"):  # noise beyond floats: the step, then the status, tells
            s2 = self.sigma**2 / alpha
            self.noise = np.where(self.ell > 0, self.weight, 0.0) * s2[:, None]  # weight of N² ℓ/C²
            self.noise_over = np.divide(self.noise, self.ell, where=self.ell > 0, out=np.zeros_like(self.ell))
            self.power = self.weight * self.ell + self.noise
            # Noise that training never removes: outside the column space of X, and at ℓ = 0 within it (a quadrature
            # correction near α = 1, see `marchenko_pastur`).
            zero_modes = self.weight[:, -1] - np.maximum(0.0, 1.0 - alpha)
            self.outside = self.sigma**2 * np.maximum(0.0, 1.0 - 1.0 / alpha) + s2 * zero_modes
        n = alpha.size
        self.x = np.zeros(self.ell.shape)  # C of young points, C − 1 of the others
        self.young = np.ones(n, dtype=bool)
        self.t, self.tau, self.phi, self.mu = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n)
        with np.errstate(over="ignore"):  # as above
            spread = self.gamma * self.start
            total = self.bulk0 + np.sqrt(self.bulk0**2 + spread**2)
            # Neither bulk nor predictor, or no time: nothing moves.
            self.frozen = total == 0
            self.q = 1.0 / np.where(self.frozen, 1.0, total)
        self.out = np.full((n, self.times.shape[1], N_OUTPUTS), np.nan)
        self.residual = np.full(n, np.inf)
        self.collapsed = np.zeros(n, dtype=bool)
        for column in range(self.times.shape[1]):
            still = np.flatnonzero(self.frozen | (self.times[:, column] == 0))
            none = np.zeros(still.size)
            self._record(still, column, none, self.x[still], none + 1.0, self.q[still])
        self.residual[self.frozen] = 0.0

    @np.errstate(over="ignore", invalid="ignore")  # rates beyond floats: no step, and the status tells
    def first_step(self) -> Floats:
        """Step in τ that resolves the fastest mode, the growth from zero and the carried predictor."""
        m2 = np.einsum("nk,nk->n", self.power, self.ell) + 1.0
        feature = self.gamma * self.q
        rates = [
            self.ell.max(axis=1),
            feature * np.sqrt(m2),
            feature**2 * self.start**2 * m2,
            self.decay * self.q,
        ]
        return 0.1 / np.max(rates, axis=0)

    @np.errstate(over="ignore", divide="ignore", invalid="ignore")  # as above
    def limit(self, points: Indices) -> Floats:
        """Do not shoot far past the last recorded time."""
        return 2.0 * (self.times[points, -1] - self.t[points]) / self.q[points]

    @np.errstate(over="ignore", invalid="ignore")  # as above
    def carried(self, points: Indices, shift: Floats) -> Floats:
        """E·a·exp(μ shift) at τ + shift (n, p): shape (n, K, p)."""
        clock = (self.tau[points, None] + shift)[:, None, :]
        exponent = (self.phi[points, None] + self.mu[points, None] * shift)[:, None, :]
        exponent = exponent - self.ell[points, :, None] * clock
        return self.start[points, None, None] * np.exp(exponent)

    def attempt(self, points: Indices, step: Floats) -> Floats:
        """Solve the collocation equations of one step by Newton; see `System.attempt`."""
        with np.errstate(all="ignore"):  # a wild trial is rejected through its error
            return self._attempt(points, step)

    def _attempt(self, points: Indices, step: Floats) -> Floats:
        equations = _Collocation(self, points, step)
        x, a, q, m, change = equations.solve()
        x0, q0, zero = self.x[points], self.q[points, None], np.zeros((points.size, 1))
        clock = np.einsum("njm,nm->nj", equations.h_matrix, q)
        self._trial = (
            step,
            np.concatenate([x0[..., None], x], axis=2),
            np.concatenate([zero + 1.0, a], axis=1),
            np.concatenate([q0, q], axis=1),
            np.concatenate([zero, clock], axis=1),
        )
        self._trial_mu = np.minimum(m[:, -1] - equations.decay2[:, 0] * q[:, -1], 0.0)
        # The top Legendre coefficient of each collocation polynomial, relative to what it belongs to.
        top = self.rule.basis[-1]
        measure = self.weight[points] + self.noise_over[points]
        size = np.sqrt(np.einsum("nk,nk->n", measure, (equations.above * a[:, -1:] + x[..., -1]) ** 2))
        spatial = np.sqrt(np.einsum("nk,nk->n", measure, (self._trial[1] @ top) ** 2)) / size
        scalars = [np.abs(self._trial[i] @ top) / self._trial[i].min(axis=1) for i in (2, 3)]
        error = np.max([spatial, *scalars], axis=0) / self.tolerance
        return np.where((change < 1e-5) & np.isfinite(error), error, np.inf)

    def commit(self, points: Indices, accepted: Flags) -> Flags:
        """Record the times passed by the accepted steps and move on; see `System.commit`."""
        step, x, a, q, clock = self._trial
        elapsed = self.t[points] + clock[:, -1]
        for column in range(self.times.shape[1]):
            target = self.times[points, column]
            hit = np.flatnonzero(accepted & (target > self.t[points]) & (target <= elapsed))
            if hit.size:
                theta = self.rule.invert(clock[hit], target[hit] - self.t[points[hit]])
                at = self.rule.dense_weights(theta)
                a_hit, q_hit = np.sum(a[hit] * at, axis=1), np.sum(q[hit] * at, axis=1)
                x_hit = np.einsum("nkp,np->nk", x[hit], at) / a_hit[:, None]
                self._record(points[hit], column, step[hit] * theta, x_hit, a_hit, q_hit)
        on = points[accepted]
        self.t[on] = elapsed[accepted]
        self.x[on] = x[accepted, :, -1] / a[accepted, -1:]
        self.q[on] = q[accepted, -1]
        self.phi[on] += self.mu[on] * step[accepted] - np.log(a[accepted, -1])
        self.tau[on] += step[accepted]
        self.mu[on] = np.where(self.decay[on] > 0, self._trial_mu[accepted], 0.0)
        self._age(on)
        finished = accepted & (self.times[points, -1] <= elapsed)
        finished[accepted] |= self._bury(on)
        forever = accepted & np.isinf(self.times[points, -1])
        if forever.any():
            finished[forever] = self._settled(points[forever])
        return finished

    def _age(self, points: Indices) -> None:
        """Follow C − 1 once C is of order one, and C again when weight decay has made it small."""
        young = self.young[points]
        c = self.x[points] + np.where(young, 0.0, 1.0)[:, None]
        size2 = np.sum((self.weight[points] + self.noise_over[points]) * c**2, axis=1)
        grown, shrunk = points[young & (size2 > 0.1)], points[~young & (size2 < 0.03)]
        self.x[grown] -= 1.0
        self.x[shrunk] += 1.0
        self.young[grown], self.young[shrunk] = False, True

    def _split(self, points: Indices, x: Floats) -> tuple[Floats, Floats]:
        """C and C − 1 from the followed one of the two."""
        young = self.young[points, None]
        return np.where(young, x, 1.0 + x), np.where(young, x - 1.0, x)

    def _moments(self, points: Indices, x: Floats, e: Floats) -> Floats:
        """∫C, ∫E, |β|², test loss, train loss from C (or C − 1) and E (n, K); shape (n, 5)."""
        return self._moments_of(points, *self._split(points, x), e)

    @np.errstate(over="ignore", invalid="ignore")  # as in `first_step`
    def _moments_of(self, points: Indices, c: Floats, gap: Floats, e: Floats) -> Floats:
        w, r = self.weight[points], self.r[points]
        noise, outside = self.noise[points], self.outside[points]
        left_over = np.sum(self.noise_over[points] * c**2, axis=1)
        ce, de = np.sum(w * c * e, axis=1), gap**2 + e**2 + 2.0 * r[:, None] * gap * e
        return np.stack(
            [
                np.sum(w * c, axis=1),
                np.sum(w * e, axis=1),
                np.sum(w * (c**2 + e**2), axis=1) + 2.0 * r * ce + left_over,
                np.sum(w * de, axis=1) + left_over,
                np.sum(w * self.ell[points] * de + noise * gap**2, axis=1) + outside,
            ],
            axis=1,
        )

    def _record(self, points: Indices, column: int, shift: Floats, x: Floats, a: Floats, q: Floats) -> None:
        with np.errstate(under="ignore"):
            e = self.carried(points, shift[:, None])[..., 0] / a[:, None]
        moments = self._moments(points, x, e)
        time = self.times[points, column]
        time = np.where(np.isinf(time), self.t[points], time)
        bulk = bulk_after(self.bulk0[points], self.decay[points], time)
        tau, phi = self.tau[points] + shift, self.phi[points] + self.mu[points] * shift - np.log(a)
        self.out[points, column] = np.column_stack([moments, bulk, tau, phi])
        # s² = k² + γ²|β|² ⇔ 1 = 2kq + (γ|β|q)²: not used by the integration, so it measures its error.
        with np.errstate(over="ignore", invalid="ignore"):  # squares beyond floats are no small residual
            self.residual[points] = np.abs(1.0 - 2.0 * bulk * q - self.gamma[points] ** 2 * moments[:, 2] * q**2)

    def _bury(self, points: Indices) -> Flags:
        """Has weight decay removed everything? Then all times still ahead are recorded: see `_fade`."""
        if not np.any(self.decay[points] > 0):
            return np.zeros(points.size, dtype=bool)
        e = self.carried(points, np.zeros((points.size, 1)))[..., 0]
        bulk = np.exp(-2.0 * self.decay[points] * self.t[points])
        dead = (self._moments(points, self.x[points], e)[:, 2] <= _DEAD**2) & (bulk <= _DEAD)
        # At every finite time there still is a kernel, however small.
        self.collapsed[points] = dead & np.isinf(self.times[points, -1])
        for column in range(self.times.shape[1]):
            ends = points[dead & np.isnan(self.out[points, column, 0])]
            if ends.size:
                self._fade(ends, column)
        self.residual[points[dead]] = 0.0
        return dead

    @np.errstate(over="ignore", invalid="ignore")  # as in `first_step`
    def _fade(self, points: Indices, column: int) -> None:
        """Record a later time of features that have died: their force is constant, g = −∇L(β = 0) =: |g| ĝ.

        The Gram matrix [[s, b], [b, M]] of the neurons then is boosted along ĝ by the rapidity η = γ|g| t, and
        decays. With b∥ = ĝ·b, M∥ = k + b∥²/(s + k), c = cosh η and h = sinh η,
        b' = (c + h b∥/(s + k)) b⊥ + [(c² + h²) b∥ + (s + M∥) c h] ĝ. Only the ratio of |b| and k is left to know.
        """
        record = (points, column, np.zeros(points.size), self.x[points], np.ones(points.size), self.q[points])
        self._record(*record)
        t = self.times[points, column] - self.t[points]
        finite = np.isfinite(t) & (self.gamma[points] > 0)
        points, t = points[finite], t[finite]
        if not points.size:
            return
        ell, gamma, w = self.ell[points], self.gamma[points], self.weight[points]
        c_now, _ = self._split(points, self.x[points])
        e = self.carried(points, np.zeros((points.size, 1)))[..., 0]
        pull = np.sum(self.power[points] * c_now + self.r[points, None] * w * ell * e, axis=1)  # β·g
        force = np.sqrt(np.sum(self.power[points] * ell, axis=1))  # |g|
        k = self.bulk0[points] * np.exp(-2.0 * self.decay[points] * self.t[points])
        along, total = gamma * pull / force, 1.0 / self.q[points]  # b∥ and s + k
        eta = np.minimum(gamma * force * t, _FADED / 3)
        c, h = np.cosh(eta), np.sinh(eta)
        stay = c + h * along / total
        moved = (c * c + h * h - stay) * along + (total + along**2 / total) * c * h
        c_new = stay[:, None] * c_now + (moved / (gamma * force))[:, None] * ell
        e_new = stay[:, None] * e
        lost = np.minimum(2.0 * self.decay[points] * t, 2.0 * eta + _FADED / 3)
        fade = np.exp(-lost)
        self.out[points, column, :5] = self._moments_of(
            points, c_new * fade[:, None], c_new * fade[:, None] - 1.0, e_new * fade[:, None]
        )
        self.out[points, column, 5] = np.maximum(k * fade, self.bulk0[points] * np.exp(-_FADED))

    def _settled(self, points: Indices) -> Flags:
        """For duration = inf: has β stopped moving? Records the end if so."""
        ell, w, x = self.ell[points], self.weight[points], self.x[points]
        c, gap = self._split(points, x)
        decay, q, n = self.decay[points], self.q[points], points.size
        e = self.carried(points, np.zeros((n, 1)))[..., 0]
        norm2, r = self._moments(points, x, e)[:, 2], self.r[points, None]
        rest = self.power[points] * c * gap + w * ell * (e**2 + r * e * (c + gap))
        mu = (-(self.gamma[points] ** 2) * q**2 * rest.sum(axis=1) - 2.0 * decay * q)[:, None]
        dc, de = -ell * gap + mu * c, (mu - ell) * e
        speed2 = np.sum(w * (dc**2 + de**2 + 2.0 * r * dc * de) + self.noise_over[points] * dc**2, axis=1)
        bulk = self.bulk0[points] * np.exp(-2.0 * decay * self.t[points])
        faded = (decay == 0) | (bulk * q <= _STOP)
        # The distance still to go is the speed times τ (power laws) or over the slowest rate, if that is less.
        slowest = np.min(np.where(ell > 0, ell, np.inf), axis=1) - np.minimum(mu[:, 0], 0.0)
        ahead = np.minimum(np.maximum(1.0, self.tau[points]), 1.0 / slowest)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            change = np.where(speed2 > 0, np.sqrt(np.maximum(speed2, 0.0) / norm2) * ahead, 0.0)
        done = ~self.collapsed[points] & faded & (change <= _STOP + 4e-15 * ahead)
        ends = points[done]
        self._record(ends, -1, np.zeros(ends.size), x[done], np.ones(ends.size), q[done])
        self.residual[ends] = np.maximum(self.residual[ends], change[done])
        # Should the budget end here, the last state is reported with the change it still had.
        rest = points[~done & ~self.collapsed[points]]
        if rest.size:
            pending = np.isin(points, rest)
            self._record(rest, -1, np.zeros(rest.size), x[pending], np.ones(rest.size), q[pending])
            self.residual[rest] = change[pending]
        return done | self.collapsed[points]


class _Collocation:
    """The equations of one step of n points: a and q at the p stages of the rule, (n, p); C follows from them."""

    def __init__(self, modes: Modes, points: Indices, step: Floats) -> None:
        rule = self.rule = modes.rule
        self.n, self.p, self.eye = points.size, rule.stages, np.eye(rule.stages)
        ell, self.power, self.young = modes.ell[points], modes.power[points, :, None], modes.young[points]
        self.gamma2, self.decay2 = modes.gamma[points, None] ** 2, 2.0 * modes.decay[points, None]
        self.mu, self.q0 = modes.mu[points, None], modes.q[points, None]
        z = ell * step[:, None]
        self.h_matrix = step[:, None, None] * rule.matrix
        self.resolvent = rule.resolvent(z - self.mu * step[:, None])
        self.fixed = self.resolvent * (modes.x[points][..., None] * rule.left.sum(axis=1))
        # With z = (ℓ − μ)h, (1 + zA)^{-1} acts on U₀ + ℓhA a for U, and on D₀ + 1 − a + μhA a for D.
        self.lift = self.resolvent * np.where(self.young[:, None, None], z[..., None] * rule.eigenvalues, 1.0)
        self.shift = self.mu * step[:, None] * rule.eigenvalues
        self.below, self.above = np.where(self.young, 1.0, 0.0)[:, None], np.where(self.young, 0.0, 1.0)[:, None]
        self.self_term, self.cross = np.zeros((self.n, self.p)), np.zeros((1, 1, self.p))
        if np.any(modes.start[points] > 0):
            e = modes.carried(points, step[:, None] * rule.nodes)
            we = (modes.weight[points] * ell)[..., None] * e
            self.self_term, self.cross = np.einsum("nkp,nkp->np", we, e), modes.r[points, None, None] * we
        self.cross_sum = self.cross.sum(axis=1)

    def follow(self, a: Floats) -> Floats:
        """Return C of young points, C − 1 of the others, (n, K, p)."""
        left = self.rule.left.T
        old = np.where(self.young[:, None], a @ left, (1.0 - a) @ left + self.shift * (a @ left))
        return self.rule.combine(self.fixed + self.lift * old[:, None, :])

    def solve(self) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """Return C (or C − 1), a, q and m at the stages, and the last relative change (n,), inf where Newton fails."""
        n, p = self.n, self.p
        a, q, m = np.ones((n, p)), np.repeat(self.q0, p, axis=1), np.zeros((n, p))
        change = np.full(n, np.inf)
        for _ in range(_NEWTON_STEPS):
            m, jacobian, defect = self._linearised(a, q)
            usable = np.isfinite(jacobian).all(axis=(1, 2)) & np.isfinite(defect).all(axis=1)
            jacobian[~usable], defect[~usable] = np.eye(2 * p), 0.0
            try:
                delta = np.linalg.solve(jacobian, defect[..., None])[..., 0]
            except np.linalg.LinAlgError:  # some point is far beyond what its equations can resolve
                usable &= np.linalg.slogdet(jacobian)[0] != 0
                jacobian[~usable], defect[~usable] = np.eye(2 * p), 0.0
                delta = np.linalg.solve(jacobian, defect[..., None])[..., 0]
            a, q = a - delta[:, :p], q - delta[:, p:]
            change = np.max(np.abs(delta) / np.concatenate([a, q], axis=1), axis=1)
            change[~usable | np.any((a <= 0) | (q <= 0), axis=1)] = np.inf
            if np.all((change < 1e-6) | np.isinf(change)):
                break
        return self.follow(a), a, q, m, change

    def _linearised(self, a: Floats, q: Floats) -> tuple[Floats, Floats, Floats]:
        """Return m, the Jacobian (n, 2p, 2p) and the defect (n, 2p) of the equations for a and q."""
        p, eye, h_matrix, decay2, mu = self.p, self.eye, self.h_matrix, self.decay2, self.mu
        x = self.follow(a)
        gap, u = x - (self.below * a)[:, None, :], x + (self.above * a)[:, None, :]
        # −β·g a² of the docstring: Σ (wℓ + noise)(a+D)D + wℓE² + r wℓE(a + 2D)
        slope = self.power * (u + gap) + 2.0 * self.cross
        pull = -(np.einsum("nkp,nkp->np", self.power * u + 2.0 * self.cross, gap) + self.self_term + self.cross_sum * a)
        m = self.gamma2 * q**2 * pull / a**2
        # ∂pull_j/∂a_m: directly, and through D_j = … − Re Σ right·resolvent·left a_m
        to_eigen = np.matmul(slope.transpose(0, 2, 1), self.resolvent.view(np.float64)).view(np.complex128)
        pull_a = np.real((to_eigen * self.rule.right * (1.0 - self.shift)[:, None, :]) @ self.rule.left)
        pull_a -= eye * (np.einsum("nkp,nk->np", gap, self.power[..., 0]) + self.cross_sum)[:, None, :]
        m_a = (self.gamma2 * q**2 / a**2)[..., None] * pull_a - eye * (2.0 * m / a)[:, None, :]
        m_q = 2.0 * m / q
        jacobian = np.empty((self.n, 2 * p, 2 * p))
        inner = eye * (decay2 * q - m + mu)[:, None, :] - a[..., None] * m_a
        jacobian[:, :p, :p] = eye - h_matrix @ inner
        jacobian[:, :p, p:] = -h_matrix * (a * (decay2 - m_q))[:, None, :]
        jacobian[:, p:, :p] = h_matrix @ (2.0 * q[..., None] * m_a)
        jacobian[:, p:, p:] = eye - h_matrix * (2 * decay2 * q - 2 * m - 2 * q * m_q)[:, None, :]
        first = a - 1.0 - np.einsum("njm,nm->nj", h_matrix, a * (decay2 * q - m + mu))
        second = q - self.q0 - np.einsum("njm,nm->nj", h_matrix, q * (decay2 * q - 2 * m))
        return m, jacobian, np.concatenate([first, second], axis=1)
