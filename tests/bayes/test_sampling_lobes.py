"""relu near the edge of its domain: jumps to every narrow lobe of the outermost field, and what they leave as it is."""

import numpy as np
import pytest
from scipy.optimize import minimize

from tlcli.bayes.domain import normalisable
from tlcli.bayes.sampling.fits import SampledSquares
from tlcli.bayes.sampling.jumps import Mixture, fit, fit_lobes, jump
from tlcli.bayes.sampling.ladder import ladder
from tlcli.bayes.sampling.moves import start_chains
from tlcli.bayes.sampling.pool import Pool
from tlcli.bayes.sampling.run import Run, SourceStage, Trips, fields, propose_lobes, refreshed, sample
from tlcli.bayes.sampling.start import walk
from tlcli.bayes.sampling.tilt import Tilt
from tlcli.dmft.activations import activation

RELU, RANK, GAMMA, STATES = activation("relu"), 3, 1.0, 4000


class Umbrella:
    """Eight points in three dimensions, v at 0.93 of the edge; states of the umbrella, resampled from very many."""

    def __init__(self, seed=2):
        rng = np.random.default_rng(seed)
        b = rng.standard_normal((8, RANK))
        v = rng.standard_normal(8)
        v *= np.sqrt(0.93 / normalisable(RELU, b, v, GAMMA)[2])
        self.tilt, self.v = Tilt(RELU, b.astype(np.float32), sphere=True), v.astype(np.float32)
        z = rng.standard_normal((400_000, RANK)).astype(np.float32)
        t, nodes = self.field(z), np.arange(RANK + 5, dtype=float)
        log_z = np.array([np.log(np.mean(np.exp(a * t))) for a in nodes])
        self.ladder = ladder(nodes, log_z[None])
        bias = self.ladder.bias(t)[0]
        weight = np.exp(bias - bias.max())
        assert weight.sum() ** 2 / (weight**2).sum() > 5 * STATES
        self.states = z[rng.choice(len(z), size=STATES, p=weight / weight.sum())]
        pool = Pool(self.states[None], self.ladder.bias(self.field(self.states))[0][None])
        self.plain = fit(self.tilt, pool, v, GAMMA, self.ladder, even=False, components=10)
        self.lobes = fit_lobes(self.tilt, pool, v, GAMMA, nodes[-1], rng)

    def s(self, z):
        return self.tilt.project(z, self.v).astype(float)

    def field(self, z):
        return self.tilt.statistic(GAMMA * self.s(z))[0]

    def jumped(self, proposal, times=5, seed=0):
        """The states after so many jumps."""
        chains = start_chains(self.tilt, self.v, self.states.copy(), None, 0.1, np.random.default_rng(seed))
        for _ in range(times):
            jump(self.tilt, chains, self.v, GAMMA, self.ladder, proposal)
        return chains.z


@pytest.fixture(scope="module")
def umbrella():
    return Umbrella()


def test_every_lobe_has_a_proposal_and_is_reached(umbrella):
    lobes = umbrella.lobes
    assert len(lobes.mean) > 1
    assert np.all(np.isnan(lobes.fields))
    axes = lobes.mean / np.linalg.norm(lobes.mean, axis=1, keepdims=True)
    far = umbrella.states[np.abs(umbrella.s(umbrella.states)) > 0.9 * np.sqrt(RANK)]
    far = far / np.linalg.norm(far, axis=1, keepdims=True)
    assert np.all((far @ axes.T > 0.9).any(axis=1))
    # Those of either sign: states of all lobes have more than the usual |u|.
    assert np.all(np.abs(umbrella.s(np.sqrt(RANK) * axes.astype(np.float32))) > 1.2)
    assert np.median(np.abs(umbrella.s(np.random.default_rng(0).standard_normal((1000, RANK), dtype=np.float32)))) < 0.8
    assert len(umbrella.plain.joined(lobes).without_lobes().mean) == len(umbrella.plain.mean)


def on_the_edge(b, v):
    """The v of the domain nearest to one far outside, by cuts at the steepest direction of each trial, drawn inwards.

    As at a saddle point with a condensate, many directions are at the edge at once.
    """
    rows, trial = [], v
    for _ in range(25):
        _, direction, steepness = normalisable(RELU, b, trial, GAMMA)
        if steepness < 1.0005:
            break
        s = np.maximum(b @ direction, 0)
        rows.append(s * np.sign(s @ trial))
        cuts = np.array(rows)

        def dual(mass, cuts=cuts):
            rest = v - cuts.T @ mass
            return 0.5 * rest @ rest + mass.sum(), 1 - cuts @ rest

        mass = minimize(dual, np.zeros(len(cuts)), jac=True, bounds=[(0, None)] * len(cuts)).x
        trial = v - cuts.T @ mass
    return trial * np.sqrt(0.998 / normalisable(RELU, b, trial, GAMMA)[2])


def test_chains_cross_between_many_narrow_lobes():
    """Twenty points in eight dimensions: a Gaussian per field has its mean between the lobes."""
    rng = np.random.default_rng(1)
    b = rng.standard_normal((20, 8)) / np.sqrt(8)
    v = on_the_edge(b, 10 * np.sign(rng.standard_normal(20)))
    stage = SourceStage(Tilt(RELU, b.astype(np.float32), sphere=True), SampledSquares(np.ones(20), 50.0), GAMMA, False)
    umbrella, chains = walk(stage.tilt, v, GAMMA, fields(stage.tilt, 0.0), 128, rng, odd=False)
    run = Run(v, v, umbrella, Mixture.none(), chains, None, Trips(128, 1.0))
    for _ in range(2):
        run.pool, _ = sample(stage, run, 60)
        run.ladder = refreshed(stage, run, run.pool)
        run.mixture = fit(stage.tilt, run.pool, v, GAMMA, run.ladder, even=False, components=10)
    top = float(np.quantile(np.abs(GAMMA * chains.s), 0.93))
    _, before = sample(stage, run, 100, trips=Trips(128, top), frozen=True)
    propose_lobes(stage, run)
    count = len(run.mixture.mean)
    assert count > 13
    _, after = sample(stage, run, 100, trips=Trips(128, top), frozen=True)
    assert after.mean > 2 * before.mean
    propose_lobes(stage, run)  # a second time replaces them
    assert abs(len(run.mixture.mean) - count) <= 2


def test_jumps_to_lobes_leave_the_umbrella_as_it_is(umbrella, monkeypatch):
    """Moments of u and of the states, from independent draws, within 4 standard errors of their change."""

    def away():
        after = umbrella.jumped(umbrella.plain.joined(umbrella.lobes))
        seen = [np.column_stack([z / np.linalg.norm(z, axis=1, keepdims=True), np.abs(umbrella.s(z))]) for z in
                (umbrella.states, after)]  # fmt: skip
        change = seen[1] - seen[0]
        return np.max(np.abs(change.mean(axis=0)) / (change.std(axis=0) / np.sqrt(len(change))))

    assert away() < 4
    right = Mixture.log_density
    monkeypatch.setattr(Mixture, "log_density", lambda self, z: right(self.without_lobes(), z))
    assert away() > 6
