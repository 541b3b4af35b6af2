"""Labels c·y at richness γ/c are labels y at γ in every solver of networks: no choice may see either alone."""

import numpy as np
import pytest

import tlcli

FACTORS = (2.0**-10, 300.0)
FEW = {"p1": 8, "p2": 5, "t1": 1.0, "t2": 1.0, "activation": "tanh"}
NEURONS = {"neurons": 100, "repeats": 2}


def task_of(path, factor, outputs):
    """A file with `outputs` labels of rms order one, times `factor`."""
    x = np.random.default_rng(3).normal(size=(60, 3))
    y = factor * np.stack([x[:, 0], np.sin(x[:, 1]), x[:, 2] * x[:, 0]], axis=1)[:, :outputs]
    y = y[:, 0] if outputs == 1 else y
    parts = {"source": slice(0, 20), "target": slice(20, 40), "test": slice(40, 60)}
    np.savez(path, **{f"{k}_{name}": a[part] for k, a in (("x", x), ("y", y)) for name, part in parts.items()})
    return f"file:{path}"


def two_layers(gamma, **more):
    return lambda task, c: tlcli.dmft_solve(
        source=task, target=task, gamma0=1.0 / c, gamma2=gamma / c, times=[1.0], **FEW, **NEURONS, **more
    )


def averaged(task, c):
    settings = {**FEW, **NEURONS, "p2": [4, 8], "gamma0": [0.5 / c, 1.0 / c], "x": "p2", "y": "gamma0"}
    del settings["t2"]
    return tlcli.phase_diagram(solver="network-frozen", source=task, target=task, **settings)


def bayesian(task, c):
    return tlcli.bayes_saddle(source=task, target=task, p1=10, p2=6, gamma0=1.0 / c, delta=[0.0, 1.0, np.inf])


CASES = {
    "rich": (two_layers(1.0), 1),
    "frozen": (two_layers(0.0), 1),
    "frozen outputs": (two_layers(0.0, loss="mse"), 3),
    "outputs": (two_layers(1.0, loss="mse"), 3),
    "deep": (two_layers(1.0, depth=2), 1),
    "deep outputs": (two_layers(1.0, depth=2, loss="mse"), 3),
    "averages": (averaged, 1),
    "Bayes": (bayesian, 1),
}


@pytest.mark.parametrize(("name", "factor"), [(name, FACTORS[i % 2]) for i, name in enumerate(CASES)])
def test_the_unit_of_labels_does_not_matter(tmp_path, name, factor):
    solve, outputs = CASES[name]
    one = solve(task_of(tmp_path / "one.npz", 1.0, outputs), 1.0)
    other = solve(task_of(tmp_path / "other.npz", factor, outputs), factor)
    np.testing.assert_array_equal(other["status"], one["status"])
    for column in {"loss", "baseline", "gain", "loss_se", "train_loss"} & set(one.columns):
        size = np.nanmax(np.abs(one["loss"]))
        np.testing.assert_allclose(other[column] / factor**2, one[column], rtol=1e-6, atol=1e-9 * size, err_msg=column)
    assert np.nanmax(np.abs(one["gain"])) > 1e-3 * np.nanmax(one["loss"])
    # The twin: with the richness as it is the labels' unit does matter.
    changed = solve(task_of(tmp_path / "other.npz", 4.0, outputs), 1.0)["loss"] / 4.0**2
    assert np.nanmax(np.abs(changed / one["loss"] - 1)) > 1e-2
