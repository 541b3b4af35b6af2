"""Whitened data, C = I, with other losses: one margin m for all points, for whole grids (docs/bayes.md, Section 2).

Labels are ±1, or C balanced classes, and every point has the dual variable w(m) = -β dℓ/dm along its label. With n = P
(P/C of classes) points per label direction, α = δ/(1+δ) and ℓ̄ the source's eigenvalue along the labels,

    q = 1/(1 - γ²nw²/(1+δ)),   λ = q(1 + α²γ²qu)/(1+δ) + α²qℓ̄,   u = ℓ̄nw²,   m = λw,

and the source is δ = 0, λ̄ = q. m - λ(w)w grows as w falls, so that there is one solution.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize.elementwise import find_root

from tlcli.arrays import Array, Floats
from tlcli.bayes.likelihood import check_limit
from tlcli.bayes.saddle import check_beta, check_delta, check_gamma, mean_weight
from tlcli.errors import DomainError, check_choice
from tlcli.losses.base import Loss

CASES = ("decoupled", "same")
_RESIDUAL = 1e-10


def whitened_losses(
    case: str,
    loss: Loss,
    *,
    gamma1: ArrayLike,
    gamma2: ArrayLike,
    beta1: ArrayLike,
    beta2: ArrayLike,
    delta: ArrayLike,
    points1: ArrayLike,
    points2: ArrayLike,
    classes: int = 2,
) -> dict[str, Array]:
    """Solve source and target on whitened data over the broadcast grid of all arguments.

    Args (the others as in `tlcli.bayes.whitened.whitened`; temperatures are finite):
        case: "decoupled" (C₁₂ = 0) or "same" (same inputs and labels).
        loss: of both stages; `vector` ones have `classes` balanced classes, others labels ±1.
        points1: number of source points P₁ > 0, the squared length of labels ±1.
        points2: number of target points; of the same data those of the source.
        classes: C.

    Returns:
        Arrays of the broadcast shape as `tlcli.bayes.whitened.whitened`: lam_source, q, u, k22, k12, k11, perp,
        free_energy, residual and status; train_loss is the mean reported loss, margin the target's m, source_margin the
        source's.

    Raises:
        UsageError: an unknown case.
        DomainError: a value outside its range, unequal numbers of points of the same data, or a `vector` loss that is
            not `invariant`.
    """
    arguments = {"gamma1": gamma1, "gamma2": gamma2, "beta1": beta1, "beta2": beta2, "delta": delta}
    shape, (γ1, γ2, β1, β2, δ, P1, P2) = _checked(case, loss, {**arguments, "points1": points1, "points2": points2})
    one, zero = np.ones_like(δ), np.zeros_like(δ)
    margin = _Margin(loss, classes)
    source = _stage(margin, γ1, β1, P1, one, zero, one)
    ct, α2 = 1 / (1 + δ), mean_weight(δ) ** 2
    target = _stage(margin, γ2, β2, P2, ct, α2, source["lam"] if case == "same" else one)
    same = case == "same"
    found = {
        "lam_source": source["lam"],
        "source_margin": source["margin"],
        "q": target["q"],
        "u": target["u"],
        "k22": target["lam"],
        "k12": target["lam"] if same else zero,
        "k11": target["lam"] if same else ct + α2 * source["lam"],
        "perp": ct + α2,
        "margin": target["margin"],
        "train_loss": loss.factor * margin.value(target["margin"]),
        "free_energy": target["free_energy"],
        "residual": np.maximum(source["residual"], target["residual"]),
    }
    found["status"] = np.asarray(found["residual"] <= _RESIDUAL)
    return {name: values.reshape(shape) for name, values in found.items()}


def _checked(case: str, loss: Loss, arguments: Mapping[str, ArrayLike]) -> tuple[tuple[int, ...], list[Floats]]:
    """Return the shape of the grid and all arguments over it (n,), in their order. Raises as `whitened_losses`."""
    check_choice("case", case, CASES)
    for name in ("gamma1", "gamma2", "points1", "points2"):
        check_gamma(arguments[name], name)
    for name in ("beta1", "beta2"):
        check_beta(arguments[name], name)
        for β in np.ravel(np.asarray(arguments[name], dtype=float)):
            check_limit(float(β), loss, name.removesuffix("1"))
    check_delta(arguments["delta"])
    grid = np.broadcast_arrays(*(np.asarray(values, dtype=float) for values in arguments.values()))
    flat = [np.ravel(a) for a in grid]
    first, second = flat[-2:]
    if case == "same" and np.any(first != second):
        at = int(np.flatnonzero(first != second)[0])
        raise DomainError(
            f"{first[at]:g} and {second[at]:g} points (label_norm1, label_norm2 of labels -1, +1): the same data have "
            "as many in both tasks."
        )
    return grid[0].shape, flat


class _Margin:
    """A loss as a function of the margin of points that all have the same one."""

    def __init__(self, loss: Loss, classes: int):
        if loss.vector and not loss.invariant:
            raise DomainError(f"loss: {loss.text} of several outputs is no function of a margin; use softmax.")
        self.loss = loss
        self.classes = classes if loss.vector else 2
        self.directions = classes - 1 if loss.vector else 1
        label = np.eye(self.classes)[0]
        self._y = loss.soften(label if loss.vector else np.array(1.0))
        self._along = label - 1 / self.classes
        # Along its label an output of one number moves by m, centred ones by m(1 - 1/C) of their squared length.
        self.share = float(self._along @ self._along) if loss.vector else 1.0

    def _outputs(self, m: Floats) -> tuple[Floats, Floats]:
        f = m[..., None] * self._along if self.loss.vector else m
        return f, np.broadcast_to(self._y, f.shape)

    def force(self, m: Floats) -> Floats:
        """Return w/β."""
        found = self.loss.force(*self._outputs(m))
        return found[..., 0] - found[..., 1] if self.loss.vector else found

    def excess(self, m: Floats, w: Floats, β: Floats) -> Floats:
        """Return a number with the sign of w - β·force(m), which is zero where it is.

        Of quadratic losses it is m less the margin whose force is w/β: the margin is 1 - w/β, and a force that is taken
        from it has lost β times its rounding.
        """
        if self.loss.steep:
            return w - β * self.force(m)
        _, high = self.loss.domain(np.broadcast_to(self._y, m.shape))
        inside = w / β <= high
        return np.where(inside, m - self.loss.inverse(np.where(inside, w / β, 0.0), self._y), w - β * high)

    def value(self, m: Floats) -> Floats:
        """Return ℓ(m)."""
        return self.loss.value(*self._outputs(m))

    def per_direction(self, points: Floats) -> Floats:
        """Return n."""
        return points / self.classes if self.loss.vector else points


def _stage(
    margin: _Margin, γ: Floats, β: Floats, points: Floats, ct: Floats, α2: Floats, before: Floats
) -> dict[str, Floats]:
    """Solve one stage for arrays (n,): `ct` is 1/(1+δ), `before` the source's eigenvalue along the labels."""
    n = margin.per_direction(points)

    def parts(
        log_Y: Floats, γ: Floats, n: Floats, ct: Floats, α2: Floats, before: Floats
    ) -> tuple[Floats, Floats, Floats]:
        """Return q = 1 + γ²Y/(1+δ), w and λ: near the edge q - 1 has its digits where 1 - γ²nw²/(1+δ) has lost them."""
        Y = np.exp(log_Y)
        q = 1 + γ**2 * ct * Y
        return q, np.sqrt(Y / (q * n)), q * ct * (1 + α2 * γ**2 * before * Y) + α2 * q * before

    def mismatch(log_Y: Floats, β: Floats, *more: Floats) -> Floats:
        _, w, λ = parts(log_Y, *more)
        return margin.excess(np.minimum(λ * w, 1e150), w, β)

    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        top = np.log(n) + 2 * np.log(β * margin.force(np.zeros_like(β)))
        tolerances = {"xatol": 4e-16, "xrtol": 4e-16, "fatol": 0.0, "frtol": 0.0}
        arguments = (β, γ, n, ct, α2, before)
        found = find_root(mismatch, (top - 300, top + 150), args=arguments, tolerances=tolerances, maxiter=400)
        q, w, λ = parts(found.x, *arguments[1:])
        m = λ * w
        u = before * n * w**2
        fit = points * (β * margin.value(m) + w * m * margin.share)
        log_z = margin.directions * (0.5 * np.log(q) + 0.5 * α2 * γ**2 * q * u)
        residual = np.abs(β * margin.force(m) - w) / w
        if not margin.loss.steep:
            residual = np.minimum(residual, np.abs(margin.excess(m, w, β)) / np.abs(m))
    return {"lam": λ, "q": q, "u": u, "margin": m, "free_energy": γ**2 * fit - log_z, "residual": residual}
