"""How good are sampled networks: stated against true errors on random problems, and which population is sharper.

`python -m benchmarks.populations` prints the coverage table of docs/networks.md and the comparison of populations; with
`coverage` or `sharpness` one of them. Truth is a quadrature over neurons and, in time, DOP853.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tlcli.dmft.activations import activation
from tlcli.dmft.ensemble import Numerics, Plan, plan, solve_by
from tlcli.dmft.network_transfer import solve_transfer
from tlcli.dmft.parts import TransferResult
from tlcli.dmft.plan import feature_movement
from tlcli.dmft.settings import Setup
from tlcli.dmft.two_layer import Problem
from tlcli.tasks.data import TransferData
from tlcli.tasks.transfer_tasks import transfer_data
from tlcli.training import TransferSettings

LOSSES = ("loss", "baseline", "gain", "train_loss", "source_loss", "source_train_loss")
ALIGNMENTS = ("source_alignment", "target_alignment", "test_alignment")
RULES = ("rich", "frozen", "pretrain")
KERNELS = ("phi_stage1", "g_stage1", "phi_stage2", "g_stage2")
_ROUNDING = 1e-6  # of the truth


@dataclass(frozen=True)
class Case:
    """A random small problem: its data and settings, and the numerics whose errors are judged."""

    data: TransferData
    settings: TransferSettings
    numerics: Numerics


def case(seed: int, rule: str, longest: float = 20.0) -> Case:
    """Return the problem of a seed in two dimensions, where a quadrature knows the truth; rich, frozen or pretrain."""
    rng = np.random.default_rng(seed)
    p1, p2 = int(rng.integers(3, 8)), int(rng.integers(3, 7))
    data = transfer_data(
        "linear", "hermite:2", dim=2, rho=0.7, noise1=0.3, noise2=0.3, p1=p1, p2=p2, ptest=30, seed=seed
    )
    gamma0, gamma2 = np.exp(rng.uniform(np.log(0.02), np.log(3.0), 2))
    end = float(np.exp(rng.uniform(0.0, np.log(longest))))
    settings = TransferSettings(
        activation=str(rng.choice(["tanh", "erf", "gelu", "softplus"])),
        gamma0=float(gamma0),
        gamma2=float(gamma2),
        times1=(end / 3, end),
        times2=() if rule == "pretrain" else (end / 3, end),
        target="frozen" if rule == "frozen" else "rich",
        ridge=0.01 if rule == "frozen" else 0.0,
    )
    kind = str(rng.choice(["mc", "sobol", "auto"]))
    return Case(data, settings, Numerics(population=kind, neurons=int(rng.choice([128, 256])), seed=seed))


def ratios(c: Case, neurons: int = 20_000) -> dict[str, np.ndarray]:
    """Return name -> |value - truth| / stated error, of all numbers of losses, alignments, kernels and predictions."""
    moments = (c.settings.times1[-1],)
    exact = Numerics(population="quadrature", integrator="dop853", tolerance=1e-9, neurons=neurons)
    truth = solve_transfer(c.data, c.settings, exact, predictions=True, kernel_times=moments)
    found = solve_transfer(c.data, c.settings, c.numerics, predictions=True, kernel_times=moments)
    groups = {name: (name,) for name in LOSSES} | {"alignments": ALIGNMENTS, "kernels": KERNELS}
    out = {name: ratio(found, truth, members) for name, members in groups.items()}
    return out | {"predictions": ratio(found, truth, ("predictions",))}


def ratio(found: TransferResult, truth: TransferResult, names: Sequence[str]) -> np.ndarray:
    """Return |value - truth| / stated error of all numbers of some columns and arrays."""
    parts = []
    for name in names:
        place, true = (found.columns, truth.columns) if name in found.columns else (found.arrays, truth.arrays)
        error = name.replace("_stage", "_se_stage") if "_stage" in name else f"{name}_se"
        if name in place and name in true:
            away = np.ravel(np.abs(place[name] - true[name]))
            stated = np.ravel(np.hypot(place[error], true[error]))  # of the quadrature too, where it is not far smaller
            known = np.isfinite(away) & np.isfinite(stated)
            parts.append(away[known] / (stated[known] + _ROUNDING))
    return np.concatenate(parts) if parts else np.zeros(0)


def coverage(seeds: Sequence[int], neurons: int = 20_000, longest: float = 20.0) -> dict[str, np.ndarray]:
    """Return name -> all ratios of the random problems, rich, frozen and pretrain in turn."""
    found = [ratios(case(seed, RULES[i % len(RULES)], longest), neurons) for i, seed in enumerate(seeds)]
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def coverage_table(count: int = 60) -> Iterator[str]:
    """Yield the rows of the coverage table, Markdown."""
    yield "| quantity | numbers | within 1 error | within 2 errors | within 3 errors | median error / stated |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name, values in coverage(range(count)).items():
        inside = " | ".join(f"{100 * np.mean(values <= k):.0f} %" for k in (1, 2, 3))
        yield f"| {name} | {len(values)} | {inside} | {np.median(values):.2f} |"


# ---------------------------------------------------------------------------------------------- which is sharper


POPULATIONS = {
    "plain": ("mc", False, False),
    "pairs": ("mc", True, False),
    "pairs, control": ("mc", True, True),
    "Sobol": ("sobol", True, False),
    "Sobol, control": ("sobol", True, True),
}


def sharpness(act: str, dim: int, samples: int, gamma: float, time: float, repeats: int = 8) -> str:
    """Return the sd of the target's loss between populations of 512 neurons, and what `auto` takes, a Markdown row."""
    data = transfer_data(
        "linear", "hermite:2", dim=dim, rho=0.6, noise1=0, noise2=0, p1=samples, p2=samples, ptest=100, seed=0
    )
    settings = TransferSettings(activation=act, gamma0=gamma, times1=(time,), times2=(time,))
    setup = Setup(data, settings, activation(act), np.concatenate([data.x_source, data.x_target, data.x_test]))
    problem = Problem(setup.act, setup.geometry, [setup.stage(1), setup.stage(2)])
    chosen = plan(problem, Numerics())
    auto = next((name for name, words in POPULATIONS.items() if words == (chosen.kind, chosen.pairs, chosen.lazy)), "?")
    spreads = [f"{_spread(problem, setup, chosen, words, repeats):.2g}" for words in POPULATIONS.values()]
    move = feature_movement(problem)
    return f"| {act} | {dim} | {samples} | {gamma:g} | {time:g} | {move:.2f} | {' | '.join(spreads)} | {auto} |"


def _spread(problem: Problem, setup: Setup, chosen: Plan, words: tuple[str, bool, bool], repeats: int) -> float:
    kind, pairs, lazy = words
    given = replace(chosen, kind=kind, pairs=pairs, whiten=pairs, lazy=lazy, neurons=512, repeats=repeats, streamed=0)
    f = solve_by(problem, Numerics(seed=1), given).f[1][:, -1, setup.test]
    losses = np.mean((f - setup.data.y_test_target) ** 2, axis=1)
    return float(losses.std(ddof=1))


def sharpness_table() -> Iterator[str]:
    """Yield the comparison of populations, Markdown."""
    yield f"| activation | D | P | gamma | t | movement | {' | '.join(POPULATIONS)} | auto |"
    yield "|" + " --- |" * (7 + len(POPULATIONS))
    for act in ("relu", "tanh"):
        for dim, samples in ((4, 20), (10, 40), (20, 50), (784, 25)):
            for gamma, time in ((0.3, 20.0), (1.0, 1.0), (1.0, 20.0), (1.0, 100.0)):
                yield sharpness(act, dim, samples, gamma, time)


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["coverage", "sharpness"]
    for word in wanted:
        for line in {"coverage": coverage_table, "sharpness": sharpness_table}[word]():
            print(line, flush=True)
