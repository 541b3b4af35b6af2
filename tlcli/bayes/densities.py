"""Densities of preactivations on the target's training points, where a solver gives them.

In a linear network h is Gaussian at every point, with variance Φ(x, x): its density over all points is a mixture. The
population has neurons of both stages; for the quadrature they are drawn from the measure of its v.
"""

from typing import Any

import numpy as np
from scipy.special import ndtr

from tlcli.arrays import Array, Floats
from tlcli.bayes.bayes_transfer import BayesSettings
from tlcli.bayes.observables import BayesProblem
from tlcli.bayes.saddle import Saddle
from tlcli.bayes.sampling.draws import source_neurons, target_neurons
from tlcli.bayes.sampling.source import SampledSaddle
from tlcli.dmft.activations import activation

BINS = 80


def densities(
    route: str,
    problem: BayesProblem,
    settings: BayesSettings,
    source: Saddle | None,
    target: Saddle | None,
    seed: int = 0,
) -> dict[str, Array]:
    """Return bin_edges (n + 1,), and density_stageK (n,), variance_stageK and excess_kurtosis_stageK of h.

    Stage 1 is the source network, stage 2 the target network, both on the target's training points; a stage that is
    not certified is left out. Empty without any.

    Args:
        route: one of `tlcli.bayes.bayes_transfer.ROUTES`.
        problem: points and training rows.
        settings: networks.
        source: saddle of the source.
        target: saddle of the target.
        seed: of the draws for the quadrature.
    """
    moments: dict[str, Any] = {}
    samples: dict[str, Floats] = {}
    neurons = _neurons(route, problem, settings, source, target, seed)
    for stage, saddle in (("stage1", source), ("stage2", target)):
        if saddle is None or not saddle.converged:
            continue
        if route == "linear":
            moments[stage] = np.diagonal(saddle.kernel)[problem.rows2]
        elif stage in neurons:
            samples[stage] = neurons[stage] @ problem.x[problem.rows2].T / np.sqrt(problem.x.shape[1])
    if not (moments or samples):
        return {}
    sizes = [float(np.sqrt(np.max(v))) for v in moments.values()] + [float(np.std(h)) for h in samples.values()]
    reach = 6 * max(max(sizes), 1.0)
    edges = np.linspace(-reach, reach, BINS + 1)
    out: dict[str, Any] = {"bin_edges": edges}
    for stage, variances in moments.items():
        width = np.sqrt(np.maximum(variances, 1e-300))[:, None]
        mass = np.diff(ndtr(edges[None, :] / width), axis=1).mean(axis=0)
        fourth = 3 * float(np.mean(variances**2))
        out |= _described(stage, mass / np.diff(edges), float(variances.mean()), fourth)
    for stage, h in samples.items():
        counts, _ = np.histogram(h, edges)
        density = counts / (h.size * np.diff(edges))
        out |= _described(stage, density, float(np.mean(h**2)), float(np.mean(h**4)))
    return out


def _neurons(
    route: str, problem: BayesProblem, settings: BayesSettings, source: Saddle | None, target: Saddle | None, seed: int
) -> dict[str, Floats]:
    """Return equally weighted neurons (N, D) by stage; none for linear networks and for several outputs."""
    if route == "linear" or source is None:
        return {}
    if route == "quadrature" and any(s is not None and s.v.ndim > 1 for s in (source, target)):
        return {}  # the chains that would draw neurons have one field, and several outputs one each
    if route == "sampling":
        pairs = {"stage1": source, "stage2": source if np.isinf(settings.delta) else target}
        return {name: s.neurons for name, s in pairs.items() if isinstance(s, SampledSaddle) and s.neurons.size}
    act, x = activation(settings.activation), problem.x
    first = source_neurons(act, x, problem.rows1, source.v, settings.gamma0, seed)
    out = {"stage1": first}
    if target is not None:
        more = (settings.second_gamma, settings.delta, first, seed + 1)
        out["stage2"] = target_neurons(act, x, problem.rows2, target.v, *more)
    return out


def _described(stage: str, density: Floats, second: float, fourth: float) -> dict[str, Any]:
    kurtosis = fourth / second**2 - 3 if second > 0 else 0.0
    return {
        f"density_{stage}": density,
        f"variance_{stage}": np.array(second),
        f"excess_kurtosis_{stage}": np.array(kurtosis),
    }
