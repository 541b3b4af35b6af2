"""The mean field of a network with several outputs: as `tlcli.dmft.field`, with readouts a (S, K).

    f_mu = (1/gamma) sum_i q_i a_i phi(h_mu_i),   Delta = -dl/df (P, K),
    du/dt = s gamma sum_mu (a.Delta_mu) phi'(h_mu) C_mu - lambda u,
    da/dt = s gamma sum_mu Delta_mu phi(h_mu) - lambda a

The tangent kernel has blocks delta_cc' Phi + K o <a_c a_c' phi' phi'>: outputs share the features and move them.
"""

from typing import Any

import numpy as np

from tlcli.arrays import Floats
from tlcli.dmft.field import Field, bend_of, free_rate, matmul, power_iteration, slope_of, to_numpy


class VectorField(Field):
    """The velocity of a population with K readouts under a `Drive` whose objective has K of them.

    The state is one flat vector: hidden (S, rank), readout (S, K), and the integral I (P, K) of the control variate.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:
        """Take what `Field` takes."""
        super().__init__(*arguments, **more)
        # Kept: fresh pages cost more than the products.
        self._pulled, self._slope = ([self._buffer(block) for block in self.blocks] for _ in range(2))

    @property
    def width(self) -> int:
        """The number K of readouts."""
        objective = self.drive.objective
        assert objective is not None
        return objective.readouts or 1

    @property
    def length(self) -> int:
        """Length of the state vector."""
        tail = 0 if self.drive.response is None else self.n_train * self.width
        return self.size * (self.rank + self.width) + tail

    def split(self, z: Any) -> tuple[Any, Any]:
        """Return (hidden (S, rank), readout (S, K)), views of the state where the library has views."""
        cut, end = self.size * self.rank, self.size * (self.rank + self.width)
        hidden, readout = (self.size, self.rank), (self.size, self.width)
        return self.xp.reshape(z[:cut], hidden), self.xp.reshape(z[cut:end], readout)

    def _forward(self, z: Any) -> Floats:
        u, a = self.split(z)

        def one(i: int) -> Floats:
            block = self.blocks[i]
            own = a[block, :] if self._weights is None else self._weighted(a[block, :], block)
            return to_numpy(own.T @ self._features(u, i))

        parts = self.threads.map(one, range(len(self.blocks)), self.size * self.n_train)
        total = self.drive.gamma * (self.size if self._weights is None else 1.0)
        whole = parts[0].astype(float) if len(parts) == 1 else np.sum(parts, axis=0, dtype=float)
        return whole.T / total

    def tail(self, z: Any) -> Floats:
        """Return the integral I (P, K) of the control variate."""
        flat = to_numpy(z[self.size * (self.rank + self.width) :]).astype(float)
        return flat.reshape(self.n_train, self.width) * self.drive.unit

    def __call__(self, t: float, z: Any) -> Any:
        """Return dz/dt."""
        self.evaluations += 1
        d, xp = self.drive, self.xp
        delta = d.now(t, self.residual(t, z))
        pull = self.asarray(d.scale * d.gamma * delta)
        across = np.ascontiguousarray(pull.T) if xp is np else pull.T
        u, a = self.split(z)
        out = np.empty(self.length, dtype=self.dtype) if xp is np else None
        du, da = (None, None) if out is None else self.split(out)

        def one(i: int) -> tuple[Any, Any]:
            block = self.blocks[i]
            slope = slope_of(self.act, self._h[i], self._phi[i], xp, self._slope[i])
            slope *= matmul(xp, a[block, :], across, self._pulled[i])
            new_u = matmul(xp, slope, self._coords, None if du is None else du[block])
            new_a = matmul(xp, self._phi[i], pull, None if da is None else da[block])
            if d.decay:
                new_u -= d.decay * u[block, :]
                new_a -= d.decay * a[block, :]
            return new_u, new_a

        parts = self.threads.map(one, range(len(self.blocks)), self.size * self.n_train)
        return self._joined(parts, out, delta, z)

    def stiffness(self, t: float, z: Any, start: Floats | None = None, sweeps: int = 20) -> tuple[float, Floats]:
        """Return an estimate of the fastest rate, and the power iteration's vector (P, K).

        The rate of the feedback is s lambda_max(Theta H), H the Hessian of the loss; the forces' own rate is that of
        the neuron with the largest |a| (`tlcli.dmft.field.free_rate`).
        """
        d, xp = self.drive, self.xp
        f = self.active(t, z)
        delta, a = d.force(f), self.split(z)[1]
        slopes = [slope_of(self.act, h, phi, xp) for h, phi in zip(self._h, self._phi, strict=True)]

        def image(v: Floats) -> Floats:
            v_here = self.asarray(d.bend(f, v))

            def one(i: int) -> Floats:
                block = self.blocks[i]
                own = self._weighted(a[block, :], block)
                mixed = self._weighted(self._phi[i] @ v_here, block)
                tangent = (slopes[i] * (a[block, :] @ v_here.T)) @ self._coords
                back = slopes[i] * (tangent @ self._coords.T)
                return to_numpy(self._phi[i].T @ mixed + back.T @ own).astype(float)

            self.evaluations += 1
            return np.sum(self.threads.map(one, range(len(self.blocks)), self.size * self.n_train), axis=0)

        first = np.ones((self.n_train, self.width)) + np.eye(self.n_train, self.width) if start is None else start
        top, v = power_iteration(image, first, sweeps)
        largest = float(xp.max(xp.sum(a * a, axis=1))) ** 0.5
        return d.scale * top + free_rate(d, delta, largest, bend_of(self.act)), v

    def _squares(self, a: Any) -> Any:
        return self.xp.sum(a * a, axis=1) / self.width
