"""Solvers against per-point alternatives: a Python loop, brentq and solve_ivp."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from benchmarks.timing import Line, seconds_of
from tlcli.linear.linear_transfer import transfer_ansatz, transfer_exact
from tlcli.linear.pretraining import pretrain
from tlcli.linear.search import boundary_roots
from tlcli.linear.spectrum import marchenko_pastur
from tlcli.linear.stages import LinearStage, joint, run_stages
from tlcli.linear.structured import structured_transfer
from tlcli.linear.two_time import two_time
from tlcli.tasks.spectra import power_law

SIDE = 1000


def lines() -> Iterator[Line]:
    yield from converged()
    yield from decayed()
    yield timed()
    yield from jointly_rich()
    yield from structured()
    yield volterra()
    yield boundary()


def converged() -> Iterator[Line]:
    alpha2, gamma0 = np.linspace(0.01, 0.99, SIDE)[:, None], np.geomspace(0.01, 100, SIDE)
    open_grid = seconds_of(lambda: transfer_exact(0.5, alpha2, rho=0.8, gamma0=gamma0), 5, 0.1)
    few = [(a, g) for a in alpha2[::20, 0].tolist() for g in gamma0[::20].tolist()]
    same(
        transfer_exact(0.5, alpha2[::20], rho=0.8, gamma0=gamma0[::20]).loss, [by_hand(0.5, a, 0.8, g) for a, g in few]
    )
    loop = len(few) / seconds_of(lambda: [by_hand(0.5, a, 0.8, g) for a, g in few], 5, 0.1)
    yield Line("exact losses, open grid", SIDE**2, "points", open_grid, "Python loop, same formula", loop)
    calls = len(few[:200]) / seconds_of(lambda: [transfer_exact(0.5, a, rho=0.8, gamma0=g) for a, g in few[:200]], 2)
    rng = np.random.default_rng(0)
    a1, a2, rho, gamma = (rng.uniform(0.1, 0.9, SIDE**2) for _ in range(4))
    flat = seconds_of(lambda: transfer_exact(a1, a2, rho=rho, gamma0=gamma))
    yield Line("exact losses, four flat lists", SIDE**2, "points", flat, "one call per point", calls)
    spike = 0.5 * gamma0
    ansatz = seconds_of(
        lambda: transfer_ansatz(
            0.5, alpha2, rho=0.8, rho_xi=0.1, gamma0=gamma0, c_signal=spike, c_cross=0.1 * spike, c_noise=0.2 * spike
        )
    )
    yield Line("ansatz losses, open grid", SIDE**2, "points", ansatz)


def same(ours: Any, theirs: Any) -> None:
    """An alternative that computes something else is none."""
    np.testing.assert_allclose(np.ravel(ours), np.ravel(theirs), rtol=1e-6)


def by_hand(alpha1: float, alpha2: float, rho: float, gamma0: float) -> float:
    """Noiseless loss of one point, alpha1 and alpha2 < 1, in plain Python."""
    chi = math.sqrt(1 + gamma0**2 * alpha1) - 1
    learned = alpha2 * chi * (2 + alpha2 * chi) / (1 + alpha2 * chi) ** 2
    return (1 - alpha2) * (1 - rho**2 * alpha1 * learned)


def decayed() -> Iterator[Line]:
    alpha1, gamma0 = np.linspace(0.1, 3, 300)[:, None], np.geomspace(0.5, 50, 300)
    ours = seconds_of(lambda: pretrain(alpha1, gamma0, weight_decay=0.3, sigma1=0.2))
    few = [(a, g) for a in alpha1[::60, 0].tolist() for g in gamma0[::60].tolist()]
    found = pretrain(alpha1[::60], gamma0[::60], weight_decay=0.3, sigma1=0.2).norm2
    same(found, [ridge_by_brentq(a, g) for a, g in few])
    theirs = len(few) / seconds_of(lambda: [ridge_by_brentq(a, g) for a, g in few])
    yield Line("pre-training with weight decay", 300 * 300, "points", ours, "brentq per point", theirs)


def ridge_by_brentq(alpha1: float, gamma0: float, decay: float = 0.3, sigma: float = 0.2) -> float:
    """Squared norm of the predictor, its self-consistent ridge by quadrature and a scalar root finder."""
    ell, w = marchenko_pastur(alpha1)

    def norm2(r: float) -> float:
        return float(w @ (ell**2 / (ell + r) ** 2 + sigma**2 / alpha1 * ell / (ell + r) ** 2))

    def excess(log_r: float) -> float:
        r = math.exp(log_r)
        return r * math.sqrt(norm2(r)) - decay / gamma0

    return norm2(math.exp(brentq(excess, -30.0, 10.0, xtol=1e-13)))


def timed() -> Line:
    alpha2, gamma0, times = np.linspace(0.1, 2, 20)[:, None, None], np.geomspace(0.1, 10, 20)[:, None], np.arange(100.0)
    ours = seconds_of(lambda: transfer_exact(0.5, alpha2, rho=0.8, gamma0=gamma0, sigma2=0.2, time=times))
    return Line("fine-tuning followed in time", 20 * 20 * 100, "points", ours)


def jointly_rich() -> Iterator[Line]:
    gamma1, gamma2 = np.geomspace(0.1, 4, 40)[:, None], np.geomspace(0.1, 4, 40)
    ours = seconds_of(lambda: joint(0.8, 0.5, rho=0.8, gamma1=gamma1, gamma2=gamma2, sigma2=0.2, t1=4, t2=4), 2)
    few = [(0.1, 0.1), (1.0, 0.3), (1.0, 1.0), (4.0, 4.0)]
    for g1, g2 in few:
        found = joint(0.8, 0.5, rho=0.8, gamma1=g1, gamma2=g2, sigma2=0.2, t1=4, t2=4)
        same(found.loss, joint_by_solve_ivp(g1, g2))
    theirs = len(few) / seconds_of(lambda: [joint_by_solve_ivp(g1, g2) for g1, g2 in few], 1)
    yield Line("joint training, 40 x 40, finite times", 1600, "points", ours, "solve_ivp per point", theirs)
    stages = [
        LinearStage(0, 2.0, np.geomspace(0.1, 4, 200), 3.0),
        LinearStage(1, 1.0, 1.0, 3.0),
        LinearStage(2, 0.5, 1.0, 3.0),
    ]
    gram = [[1, 0.7, 0.4], [0.7, 1, 0.7], [0.4, 0.7, 1]]
    yield Line("curriculum of three stages", 200, "points", seconds_of(lambda: run_stages(stages, gram), 2))


def joint_by_solve_ivp(gamma1: float, gamma2: float, rho: float = 0.8) -> float:
    """Two stages (0.8, 4) and (0.5, 4) of the mode equations, target noise 0.2, by LSODA at the same accuracy."""
    norm = 0.0
    overlap = 0.0
    for alpha, gamma, sigma in ((0.8, gamma1, 0.0), (0.5, gamma2, 0.2)):
        ell, w = marchenko_pastur(alpha, 96)
        n, drive, r = len(ell), sigma * np.sqrt(ell / alpha), rho * overlap

        def rhs(t: float, z: np.ndarray, ell=ell, w=w, n=n, drive=drive, gamma=gamma, r=r) -> np.ndarray:
            c, e, noise = z[:n], z[n : 2 * n], z[2 * n :]
            gc, ge, gn = ell * (1 - c / gamma), -ell * e / gamma, drive - ell * noise / gamma
            b2 = w @ (c * c + e * e + 2 * r * c * e + noise * noise)
            s = math.sqrt(1 + b2)
            grow = gamma / (s + 1) * (w @ (c * gc + e * ge + r * (c * ge + e * gc) + noise * gn))
            return np.concatenate([gamma * (s + 1) * g + grow * x for g, x in ((gc, c), (ge, e), (gn, noise))])

        start = np.concatenate([np.zeros(n), np.full(n, norm), np.zeros(n)])
        z = solve_ivp(rhs, (0, 4), start, method="LSODA", rtol=1e-10, atol=1e-12).y[:, -1]
        c, e, noise = z[:n], z[n : 2 * n], z[2 * n :]
        norm = math.sqrt(w @ (c * c + e * e + 2 * r * c * e + noise * noise))
        overlap = float(w @ (c + r * e)) / norm
    loss = (1 - c / gamma) ** 2 + (e / gamma) ** 2 - 2 * r * (1 - c / gamma) * e / gamma + (noise / gamma) ** 2
    return float(w @ loss)


def structured() -> Iterator[Line]:
    spectrum = power_law(500, 1.2, 0.5)
    p1, p2 = np.arange(5.0, 1005.0, 5)[:, None], np.arange(2.0, 402.0, 2)
    args = (spectrum.eigenvalues, spectrum.teacher1, spectrum.teacher_orthogonal)
    ours = seconds_of(lambda: structured_transfer(*args, p1, p2, 5.0, rho=0.7, sigma1=0.3, ridge=0.05))
    few = [(a, b) for a in p1[::40, 0].tolist() for b in p2[::40].tolist()]

    def one_by_one() -> list[float]:
        return [float(structured_transfer(*args, a, b, 5.0, rho=0.7, sigma1=0.3, ridge=0.05).loss) for a, b in few]

    theirs = len(few) / seconds_of(one_by_one)
    yield Line("structured inputs, 500 modes", 200 * 200, "points", ours, "one call per point", theirs)


def volterra() -> Line:
    return Line("two-time DMFT, 600 steps", 1, "solutions", seconds_of(lambda: two_time(0.5, 10.0, 600, sigma=0.2)))


def boundary() -> Line:
    """Roots of gain = 0 over alpha2, one per richness, to 1e-12."""
    gamma0, alpha2 = np.geomspace(0.5, 50, 400), np.linspace(0.02, 0.98, 49)

    def gain(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return transfer_exact(0.5, x, rho=0.8, gamma0=gamma0[rows], weight_decay=0.3, sigma1=0.2).gain

    found = boundary_roots(gain, alpha2, gamma0.size)
    ours = seconds_of(lambda: boundary_roots(gain, alpha2, gamma0.size))

    def scalar(x: float, g: float) -> float:
        return float(transfer_exact(0.5, x, rho=0.8, gamma0=g, weight_decay=0.3, sigma1=0.2).gain)

    few = gamma0[::40].tolist()
    same(found.x[::40], [brentq(scalar, 0.02, 0.98, args=(g,), xtol=1e-13) for g in few])
    theirs = len(few) / seconds_of(lambda: [brentq(scalar, 0.02, 0.98, args=(g,), xtol=1e-13) for g in few], 1)
    return Line("phase boundary, refined", found.x.size, "roots", ours, "brentq per root", theirs)
