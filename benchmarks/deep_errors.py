"""Are the errors of deep networks true? Stated against true errors on random small problems.

`python -m benchmarks.deep_errors` prints the coverage table of docs/deep.md. Truth is exact for linear networks, which
are sampled here as others are, and for others a far finer solution.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from unittest.mock import patch

import numpy as np

from benchmarks.populations import ALIGNMENTS, LOSSES, Case, ratio
from tlcli.dmft.activations import activation
from tlcli.dmft.ensemble import Numerics
from tlcli.dmft.network_transfer import solve_transfer
from tlcli.dmft.parts import TransferResult
from tlcli.dmft.settings import TransferSettings
from tlcli.tasks.transfer_tasks import transfer_data

SAMPLED = replace(activation("linear"), kind="")  # of no kind that is known to have an exact solution
RULES = ("rich", "frozen", "kept")  # both stages; a target on frozen features; a layer kept, another drawn anew
FINE = Numerics(neurons=4000, repeats=8, basis_tolerance=0.025, tolerance=1e-4)
FINE_KINKS = Numerics(neurons=3000, repeats=4, basis_tolerance=0.05, tolerance=5e-4)


def case(seed: int, rule: str, act: str, numerics: Numerics | None = None, longest: float = 8.0) -> Case:
    """Return the problem of a seed, of two or three hidden layers, and what it is to be solved by."""
    rng = np.random.default_rng(seed)
    p1, p2 = int(rng.integers(3, 6)), int(rng.integers(3, 5))
    data = transfer_data(
        "linear", "he1+0.5*he3", dim=4, rho=0.7, noise1=0.2, noise2=0.2, p1=p1, p2=p2, ptest=20, seed=seed
    )
    gamma0, gamma2 = np.exp(rng.uniform(np.log(0.05), np.log(2.0), 2))
    end = float(np.exp(rng.uniform(0.0, np.log(longest))))
    depth = int(rng.integers(2, 4))
    settings = TransferSettings(
        activation=act,
        depth=depth,
        gamma0=float(gamma0),
        gamma2=float(gamma2),
        times1=(end / 3, end),
        times2=(end / 3, end),
        target="frozen" if rule == "frozen" else "rich",
        kernel=str(rng.choice(["feature", "ntk"])),
        ridge=0.01 if rule == "frozen" else 0.0,
        freeze=1 if rule == "kept" else 0,
        reinit_from=depth - 1 if rule == "kept" else None,
    )
    return Case(data, settings, replace(numerics or Numerics(neurons=int(rng.choice([256, 512]))), seed=seed))


def solved(c: Case, numerics: Numerics) -> TransferResult:
    """Return the solution with predictions and kernels; linear networks are sampled unless nothing is asked."""
    linear = c.settings.activation == "linear" and numerics.neurons is not None
    with patch("tlcli.dmft.network_transfer.activation", lambda name: SAMPLED) if linear else nullcontext():
        return solve_transfer(c.data, c.settings, numerics, predictions=True)


def truth_of(c: Case) -> TransferResult:
    """Return what is known of a problem: exactly, or from far more neurons, directions and steps."""
    linear = c.settings.activation == "linear"
    return solved(c, Numerics() if linear else FINE_KINKS if c.settings.activation == "relu" else FINE)


def ratios(c: Case, truth: TransferResult) -> dict[str, np.ndarray]:
    """Return name -> |value - truth| / stated error, of all losses, alignments, movements, kernels and predictions."""
    found = solved(c, c.numerics)
    layers = range(1, c.settings.depth + 1)
    words = ("movement", *ALIGNMENTS)
    kernels = [f"{name}_layer{layer}_stage{k}" for name in ("phi", "g") for layer in layers for k in (1, 2)]
    groups = {name: (name,) for name in LOSSES} | {
        "alignments": ALIGNMENTS,
        "layers.csv": [f"layer{layer}_{word}" for layer in layers for word in words],
        "kernels": [*kernels, "ntk_stage1", "ntk_stage2"],
        "predictions": ("predictions",),
    }
    return {name: ratio(found, truth, members) for name, members in groups.items()}


def cases(count: int, acts: Sequence[str], numerics: Numerics | None = None, longest: float = 8.0) -> list[Case]:
    """Return random problems, rules and activations in turn."""
    words = [(RULES[i % len(RULES)], acts[(i // len(RULES)) % len(acts)]) for i in range(count)]
    return [case(seed, rule, act, numerics, longest) for seed, (rule, act) in enumerate(words)]


def coverage(problems: Sequence[Case], truths: Sequence[TransferResult]) -> dict[str, np.ndarray]:
    """Return name -> all ratios of the problems."""
    found = [ratios(c, truth) for c, truth in zip(problems, truths, strict=True)]
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def coverage_table() -> Iterator[str]:
    """Yield the rows of the coverage table, Markdown."""
    yield "| networks | quantity | numbers | within 1 error | within 2 | within 3 | median error / stated |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for label, acts, count in (
        ("linear", ("linear",), 36),
        ("smooth", ("tanh", "erf", "gelu"), 18),
        ("relu", ("relu",), 9),
    ):
        problems = cases(count, acts)
        for name, values in coverage(problems, [truth_of(c) for c in problems]).items():
            inside = " | ".join(f"{100 * np.mean(values <= k):.0f} %" for k in (1, 2, 3))
            yield f"| {label} | {name} | {len(values)} | {inside} | {np.median(values):.2f} |"


if __name__ == "__main__":
    for line in coverage_table():
        print(line, flush=True)
