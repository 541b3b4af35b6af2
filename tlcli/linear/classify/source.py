"""Pre-training on labels that are signs: the kernel that a linear network with squared loss leaves (Section 4).

Labels y₁ = sign(β*₁·x + τ₁ε), flipped with probability f₁, act on a squared loss as g₁β*₁·x and independent noise of
variance 1 − g₁², g₁ = (1 − 2f₁)√(2/π)/√(1 + τ₁²). So signs are never noiseless, and at α₁ = 1 the features are noise.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from tlcli.errors import DomainError
from tlcli.linear.classify.channels import signal_of
from tlcli.linear.domain import SQUARED, require
from tlcli.linear.pretraining import Kernel, Pretrained, pretrain

Labels = Literal["sign", "real"]


def check_flips(name: str, flips: ArrayLike) -> None:
    """Raise `DomainError` unless every share of flipped labels is below one half."""
    f = np.asarray(flips, dtype=float)
    if np.any(bad := ~((f >= 0) & (f < 0.5))):
        raise DomainError(
            f"{name} = {f[bad].flat[0]:g} is not allowed; the share of flipped labels must be >= 0 and < 0.5 "
            "(at 0.5 labels say nothing, and beyond it the opposite)."
        )


def pretrain_labels(
    alpha1: ArrayLike,
    gamma0: ArrayLike,
    *,
    labels: Labels = "sign",
    sigma1: ArrayLike = 0.0,
    flips1: ArrayLike = 0.0,
    init_scale: ArrayLike = 1.0,
    weight_decay: ArrayLike = 0.0,
    t1: ArrayLike = np.inf,
    kernel: Kernel = "feature",
) -> Pretrained:
    """Return `pretraining.pretrain` for labels that are signs, or for real ones; all arguments broadcast.

    sigma1: noise before the sign (real labels: on them). flips1: share of flipped signs, below ½; real labels have
    none. Raises `DomainError`. Source: docs/averages.md, Section 4.
    """
    check_flips("flips1", flips1)
    rest = {"init_scale": init_scale, "weight_decay": weight_decay, "t1": t1}
    f, γ = np.asarray(flips1, dtype=float), np.asarray(gamma0, dtype=float)
    if labels == "real":
        if np.any(f > 0):
            raise DomainError(f"flips1 = {f[f > 0].flat[0]:g} needs labels that are signs; real labels have no flips.")
        return pretrain(alpha1, γ, sigma1=sigma1, kernel=kernel, **rest)
    require(SQUARED, sigma1=sigma1)
    g = signal_of(1 / np.sqrt(1 + np.square(np.asarray(sigma1, dtype=float))), f)
    # A teacher of length g is one of length 1 at g times the richness.
    found = pretrain(alpha1, γ * g, sigma1=np.sqrt(1 - g * g) / g, kernel=kernel, **rest)
    return replace(found, overlap=found.overlap * g, norm2=found.norm2 * g * g)
