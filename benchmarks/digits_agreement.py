"""Do networks agree with the theory of classifiers? Digits 0-4, then 5-9, of many networks and several widths.

`python -m benchmarks.digits_agreement` prints the table of docs/losses.md. Theory and networks take the same steps of
gradient descent, so that what is left between them is chance and 1/N. Networks are judged in groups of 32, as the
recipe digits-classes does: how often is a column beyond two standard errors, over how many times and groups? All of
them together show what of a deviation stays, and several widths whether it falls as 1/N.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tlcli.arrays import Floats
from tlcli.dmft.activations import activation
from tlcli.dmft.ensemble import Numerics
from tlcli.dmft.loss_setup import LossSetup
from tlcli.dmft.network_transfer import solve_transfer
from tlcli.simulate.loss_networks import LossNetworks, columns_of
from tlcli.simulate.two_layer import NetworkExperiment
from tlcli.tasks.transfer_tasks import transfer_data
from tlcli.training import TransferSettings

TIMES = (2.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0)
STEP, GROUP = 0.5, 32
LOSSES = ("loss", "baseline", "source_loss", "train_loss", "source_train_loss")
ERRORS = ("error", "baseline_error", "source_error")
SETTINGS = TransferSettings(
    gamma0=1.0, times1=TIMES, times2=TIMES, readout="reset", loss1="softmax", loss2="softmax", activation="tanh"
)
Measured = Mapping[str, tuple[Any, Any]]  # name -> value and standard error (n_record,)


def problem() -> LossSetup:
    """Return the digits of the recipe digits-classes."""
    data = transfer_data(
        "digits:0-4", "digits:5-9", dim=64, rho=1.0, noise1=0.0, noise2=0.0, p1=150, p2=40, ptest=600, seed=0
    )
    x = np.concatenate([data.x_source, data.x_target, data.x_test])
    return LossSetup(data, SETTINGS, activation("tanh"), x)


def theory(setup: LossSetup, neurons: int) -> Measured:
    """Return the columns of the theory, of eight populations of `neurons`."""
    numerics = Numerics(neurons=neurons, integrator="euler", dt=STEP)
    columns = solve_transfer(setup.data, SETTINGS, numerics).columns
    return {name: (columns[name], columns[f"{name}_se"]) for name in (*LOSSES, *ERRORS)}


def networks(setup: LossSetup, width: int, count: int) -> dict[str, Floats]:
    """Return the outputs of `count` networks at all records."""
    made = LossNetworks(NetworkExperiment(SETTINGS, width=width, dt=STEP), setup, seed=width)
    return made.train(range(count), 0)


def distance(ours: Measured, theirs: Measured, names: Sequence[str]) -> tuple[Floats, Floats]:
    """Return networks minus theory (n,) and its standard error, over all columns and records that both have."""
    pairs = [(ours[name], theirs[name]) for name in names]
    gap = np.concatenate([b[0] - a[0] for a, b in pairs])
    error = np.concatenate([np.hypot(a[1], b[1]) for a, b in pairs])
    keep = np.isfinite(gap) & (error > 0)
    return gap[keep], error[keep]


def lines(setup: LossSetup, ours: Measured, widths: Sequence[int], counts: Sequence[int]) -> Iterator[str]:
    """Yield the rows of the table: a line per width, losses and errors apart."""
    yield "| N | networks | columns | beyond 2 SE, groups of 32 | largest | all: rms deviation | rms SE | rms z |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for width, count in zip(widths, counts, strict=True):
        found = networks(setup, width, count)
        groups = [{n: f[i : i + GROUP] for n, f in found.items()} for i in range(0, count, GROUP)]
        for word, names in (("losses", LOSSES), ("errors", ERRORS)):
            apart = [distance(ours, columns_of(setup, group, names), names) for group in groups]
            z = np.concatenate([gap / error for gap, error in apart])
            gap, error = distance(ours, columns_of(setup, found, names), names)
            whole = (np.sqrt(np.mean(x**2)) for x in (gap, error, gap / error))
            tail = " | ".join(f"{x:.2g}" for x in whole)
            beyond = f"{100 * np.mean(np.abs(z) > 2):.1f} % of {len(z)}"
            yield f"| {width} | {count} | {word} | {beyond} | {np.abs(z).max():.1f} | {tail} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.digits_agreement", description=__doc__)
    parser.add_argument("--widths", default="128,256,512")
    parser.add_argument("--nets", default="256,256,128", help="networks of each width, multiples of 32")
    parser.add_argument("--neurons", type=int, default=8192, help="of each of the theory's eight populations")
    given = parser.parse_args()
    widths, counts = ([int(part) for part in text.split(",")] for text in (given.widths, given.nets))
    setup = problem()
    for line in lines(setup, theory(setup, given.neurons), widths, counts):
        print(line, flush=True)


if __name__ == "__main__":
    main()
