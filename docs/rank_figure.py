"""Draw the rank of the revealed basis in time for docs/deep.md: `python docs/rank_figure.py`."""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from docs.figures import DOCS, shrink
from tlcli.dmft.activations import activation
from tlcli.dmft.deep.run import Surgery, run_stages
from tlcli.dmft.deep.start import sampled
from tlcli.dmft.geometry import reduce_inputs
from tlcli.dmft.integrate import Control
from tlcli.dmft.two_layer import Stage
from tlcli.report.style import COLOURS, RC
from tlcli.tasks.transfer_tasks import transfer_data

LENGTH = 6.0  # of each stage, mean-loss units
RUNS = [(f"gradient descent, {n} steps", Control("euler", dt=2 * LENGTH / n)) for n in (60, 120, 240)]
RUNS.append(("Runge-Kutta-Chebyshev", Control("rkc", tolerance=1e-3)))


def ranks(control: Control) -> tuple[np.ndarray, np.ndarray]:
    data = transfer_data("linear", "hermite:3", dim=8, rho=0.6, noise1=0, noise2=0, p1=6, p2=5, ptest=1, seed=0)
    geometry = reduce_inputs(np.concatenate([data.x_source, data.x_target]), 11)
    times = np.linspace(0, LENGTH, 31)
    sets = ((np.arange(6), data.y_source), (np.arange(6, 11), data.y_target))
    stages = [Stage(rows, y, 1.0, times, 1 / len(rows)) for rows, y in sets]
    start = sampled(activation("tanh"), geometry, 2, 4000, np.random.default_rng(0), np.arange(11), tol=0.05)
    seen: list[tuple[float, int]] = []

    def look(stage, record, time, scene):
        seen.append((stage * LENGTH + time, scene.start.hidden[0].ins.count))
        return {}

    run_stages(start, stages, control, Surgery(), look)
    return tuple(np.array(seen).T)


def main() -> None:
    with plt.rc_context(RC):
        figure, axis = plt.subplots(figsize=(5.6, 3.4), layout="constrained")
        for colour, (label, control) in zip(COLOURS, RUNS, strict=False):
            axis.plot(*ranks(control), color=colour, lw=1.7, label=label)
        axis.axvline(LENGTH, color="0.5", lw=0.8, ls=":")
        axis.text(
            LENGTH,
            0.98,
            "switch to the target ",
            color="0.4",
            fontsize=8,
            ha="right",
            va="top",
            transform=axis.get_xaxis_transform(),
        )
        axis.set_xlabel("time $t$ over both stages (mean-loss units)")
        axis.set_ylabel("revealed directions $r$")
        axis.set_ylim(bottom=0)
        axis.legend(frameon=False, loc="lower right")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rank.png"
            figure.savefig(path, metadata={"Software": "tlcli"})
            shrink(path, DOCS / "figures" / "deep-rank.png")
    for label, control in RUNS:
        print(label, int(ranks(control)[1][-1]))


if __name__ == "__main__":
    main()
