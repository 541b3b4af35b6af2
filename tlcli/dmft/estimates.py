"""Values and standard errors of what independent repeats found.

A statistic (a loss, a prediction) is that of all repeats together, and the jackknife takes off its bias: a loss of the
mean output holds the variance of that mean, a regression the inverse number of neurons. The error has three parts,
added in quadrature: the spread between repeats, widened by a t-factor so that twice the error covers as often as two
sigma do, since few repeats know their own spread badly; the bias that the jackknife leaves, by extrapolation from
either half of the repeats; the integration in time, from one population that is integrated at another tolerance too.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from tlcli.arrays import Array, Floats

Statistic = Callable[[list[Floats]], Floats]


@dataclass(frozen=True, eq=False)
class Piece:
    """An output (n_time, n_point) as all repeats together find it, and as parts of them do.

    `left_out` (repeat, ...) are all repeats but one; `halves` (2, ...) the first half of them and the second; None for
    what has no chance in it. `coarse` (rule, ...) the outputs of coarser rules, None for random repeats; `retimed` the
    output with the time error of another tolerance added once more, None where nothing was integrated.
    """

    whole: Floats
    left_out: Floats | None = None
    halves: Floats | None = None
    coarse: Floats | None = None
    retimed: Floats | None = None


def averaged(samples: Floats, coarse: Floats | None = None, retimed: Floats | None = None) -> Piece:
    """Return the piece of an output that is averaged over repeats (repeat, n_time, n_point); see `pieces_of`."""
    return pieces_of(samples, lambda kernel: kernel, coarse, retimed)


def pieces_of(
    samples: Floats, function: Callable[[Floats], Floats], coarse: Floats | None = None, retimed: Floats | None = None
) -> Piece:
    """Return the piece `function`(mean of samples (repeat, ...)), for instance of kernels that a regression takes.

    `coarse` (rule, ...) are the samples of coarser rules; `retimed` (2, ...) one repeat, or rule, at the tolerance of
    the samples and again at another one.
    """
    count, mean = len(samples), samples.mean(axis=0)
    whole = function(mean)
    later = None
    if retimed is not None:
        # One repeat of `count` changes: what all of them would change is as many times more.
        later = whole + count * (function(mean + (retimed[1] - retimed[0]) / count) - whole)
    if coarse is not None:
        return Piece(whole, coarse=np.array([function(sample) for sample in coarse]), retimed=later)
    if count < 2:
        return Piece(whole, np.full((1, *whole.shape), np.nan), None, None, later)
    left_out = np.array([function((mean * count - sample) / (count - 1)) for sample in samples])
    half = count // 2
    halves = np.array([function(part.mean(axis=0)) for part in (samples[:half], samples[half:])])
    return Piece(whole, left_out, halves, None, later)


def estimate(pieces: Sequence[Piece], statistic: Statistic) -> tuple[Floats, Floats]:
    """Return a statistic of outputs [(n_time, n_point), ...] and its standard error (module docstring).

    NaN is the error of a single random repeat.
    """
    value = np.asarray(statistic([p.whole for p in pieces]), dtype=float)
    late = time_change(pieces, statistic)
    if all(p.left_out is None for p in pieces):
        rules = max((len(p.coarse) for p in pieces if p.coarse is not None), default=0)
        rough = [
            np.asarray(statistic([_part(p.whole, p.coarse, k) for p in pieces]), dtype=float) for k in range(rules)
        ]
        return value, np.hypot(np.max([np.abs(value - found) for found in rough], axis=0, initial=0.0), late)
    count = next(len(p.left_out) for p in pieces if p.left_out is not None)
    if count < 2:
        return value, np.full(value.shape, np.nan)
    left_out = np.array([statistic([_part(p.whole, p.left_out, r) for p in pieces]) for r in range(count)], dtype=float)
    halves = np.array([statistic([_part(p.whole, p.halves, h) for p in pieces]) for h in range(2)], dtype=float)
    best = value + (count - 1) * (value - left_out.mean(axis=0))
    spread = small_sample(count) * jackknife(left_out)
    error = np.sqrt(spread**2 + _remaining_bias(value, best, halves, count) ** 2 + late**2)
    return best, np.where(error <= 1e-14 * np.abs(value), 0.0, error)  # of what is exact


def _part(whole: Floats, parts: Floats | None, index: int) -> Floats:
    return whole if parts is None else parts[index]


def _remaining_bias(value: Floats, best: Floats, halves: Floats, count: int) -> Floats:
    """Return the error of `best` by the second order in 1/S, which extrapolation from either half shows.

    Of c/(n S)^2, with n = `count` repeats, the jackknife leaves -c/(n (n - 1) S^2), and the extrapolation from halves
    of h and n - h repeats c (2/n^2 - 1/(h (n - h)))/S^2.
    """
    h = count // 2
    if count == 2:  # the halves are the jackknife's
        return np.abs(best - value)
    extrapolated = 2 * value - (h * halves[0] + (count - h) * halves[1]) / count
    ours, theirs = -1 / (count * (count - 1)), 2 / count**2 - 1 / (h * (count - h))
    return np.abs(best - extrapolated) * ours / (theirs - ours)


def time_change(pieces: Sequence[Piece], statistic: Statistic) -> Floats:
    """Return how much a statistic changes with the tolerance of the integration, 0 where nothing was integrated."""
    value = np.asarray(statistic([p.whole for p in pieces]), dtype=float)
    if all(p.retimed is None for p in pieces):
        return np.zeros(value.shape)
    later = np.asarray(statistic([p.whole if p.retimed is None else p.retimed for p in pieces]), dtype=float)
    return np.abs(later - value)


def spread_of(samples: Array, coarse: Array | None, retimed: Array | None) -> Floats:
    """Return the standard error of the mean of samples (repeat, ...): alignments, kernels, densities.

    `coarse` (rule, ...) and `retimed` (2, ...) as in `pieces_of`.
    """
    late = np.zeros(samples.shape[1:]) if retimed is None else np.abs(retimed[1] - retimed[0])
    if coarse is not None:
        return np.hypot(np.max(np.abs(samples[0] - coarse), axis=0), late)
    count = len(samples)
    if count < 2:
        return np.full(samples.shape[1:], np.nan)
    return np.hypot(small_sample(count) * samples.std(axis=0, ddof=1) / math.sqrt(count), late)


def seen_at(
    name: str,
    position: int,
    observed: Mapping[str, Array],
    coarse: Mapping[str, Array] | None,
    retimed: Mapping[str, Array],
) -> tuple[Floats, Floats]:
    """Return the mean over repeats of what was observed at one position, and its standard error.

    Names -> (repeat, position, ...), as in `tlcli.dmft.ensemble.Solution`.
    """
    samples, late = observed[name][:, position], retimed.get(name)
    parts = (None if coarse is None else coarse[name][:, position], None if late is None else late[:, position])
    return samples.mean(axis=0), spread_of(samples, *parts)


def mean_over_points(each: Floats) -> Floats:
    """Return the mean (n_record,) of what was found at every point (n_record, n), NaN without points."""
    return each.mean(axis=1) if each.shape[1] else np.full(len(each), np.nan)


def error_by_points(each: Floats) -> Floats:
    """Return the standard error (n_record,) of `mean_over_points` by the number of independent points, NaN of one."""
    n = each.shape[1]
    return each.std(axis=1, ddof=1) / np.sqrt(n) if n > 1 else np.full(len(each), np.nan)


def overfitting_by_points(losses: Floats) -> Floats:
    """Return the error of what the last mean of losses (n_record, n) is above that of a record, paired over points."""
    return error_by_points(losses[-1:] - losses)


def jackknife(left_out: Floats) -> Floats:
    """Return the jackknife standard error from statistics (repeat, ...) that each leave one repeat out."""
    count = len(left_out)
    return np.sqrt((count - 1) / count * np.sum((left_out - left_out.mean(axis=0)) ** 2, axis=0))


def small_sample(count: int) -> float:
    """Return how much wider an error from `count` repeats is, so that twice it covers as often as two sigma do."""
    return float(special.stdtrit(count - 1, special.ndtr(2.0))) / 2
