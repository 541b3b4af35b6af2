"""Neurons of a known saddle point: equally weighted draws of w from the measure of a given v.

The deterministic routes know v and Φ but keep no neurons. Chains at this v, with the moves of the sampling route, give
them; v is not changed.
"""

import numpy as np
from threadpoolctl import threadpool_limits

from tlcli.arrays import Floats, Indices
from tlcli.bayes.saddle import mean_weight
from tlcli.bayes.sampling.everywhere import neurons_of, row_space
from tlcli.bayes.sampling.fits import SampledSquares
from tlcli.bayes.sampling.jumps import Mixture, fit
from tlcli.bayes.sampling.run import Run, SourceStage, Trips, fields, refreshed, sample
from tlcli.bayes.sampling.start import walk
from tlcli.bayes.sampling.target_run import Tied, neurons_at, sample_target, with_lobes
from tlcli.bayes.sampling.tilt import Tilt
from tlcli.dmft.activations import Activation

COUNT = 4096
_CHAINS, _MOVES = 512, 100
_REACH = 12.0  # beyond the |γs| of every lobe of a measure of rank two


def source_neurons(act: Activation, x: Floats, rows: Indices, v: Floats, gamma: float, seed: int) -> Floats:
    """Return draws w (4096, D) from the source's measure of v (P,), trained on `rows` of x (n, D)."""
    rng = np.random.default_rng(seed)
    basis = row_space(x, rows)
    b = x[rows] @ basis / np.sqrt(x.shape[1])
    tilt = Tilt(act, b.astype(np.float32), sphere=act.homogeneous)
    stage = SourceStage(tilt, SampledSquares(np.zeros(len(v)), 1.0), gamma, act.odd)
    with threadpool_limits(1, user_api="blas"):
        umbrella, chains = walk(tilt, v, gamma, fields(tilt, _REACH), _CHAINS, rng, odd=act.odd)
        run = Run(v, v, umbrella, Mixture.none(), chains, None, Trips(_CHAINS, 1.0))
        for _ in range(2):
            pool, _ = sample(stage, run, _MOVES)
            run.ladder = refreshed(stage, run, pool)
            run.mixture = fit(tilt, pool, v, gamma, run.ladder, even=act.odd, components=10)
        pool, _ = sample(stage, run, 2 * _MOVES)
        return neurons_of(tilt, pool, v, gamma, basis, COUNT, rng)


def target_neurons(
    act: Activation, x: Floats, rows: Indices, v: Floats, gamma: float, delta: float, source: Floats, seed: int
) -> Floats:
    """Return draws w (8N, D) from the target's measure of v (P,), eight around each neuron of `source` (N, D)."""
    if np.isinf(delta):
        return source
    rng = np.random.default_rng(seed)
    basis = row_space(x, rows)
    scaled = x[rows] / np.sqrt(x.shape[1])
    means, precision = float(mean_weight(delta)) * source, 1.0 + float(delta)
    own = scaled @ basis
    tilt = Tilt(act, (own / np.sqrt(precision)).astype(np.float32), (means @ scaled.T).astype(np.float32))
    nothing = SampledSquares(np.zeros(len(v)), 1.0)
    tied = Tied(SourceStage(tilt, nothing, gamma, act.odd), means, means @ basis)
    alone = SourceStage(Tilt(act, own.astype(np.float32)), nothing, gamma, act.odd)
    with threadpool_limits(1, user_api="blas"):
        run = with_lobes(tied, alone, precision, v, _REACH, rng)
        sample_target(run, _MOVES)
        return neurons_at(run, basis, _MOVES)
