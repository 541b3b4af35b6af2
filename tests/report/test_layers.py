"""The table and the pictures of layers."""

import csv

import matplotlib.pyplot as plt
import numpy as np
import pytest

from tlcli.report.kernels import Shown, kernel_figures
from tlcli.report.layers import Layers, draw_layers, write_layers
from tlcli.theories.network.layers import LAYER_COLUMNS


def layers(depth, records=4, fixed=None):
    rng = np.random.default_rng(depth)
    columns = {"stage": np.repeat([1.0, 2.0], records // 2), "time": np.tile(np.arange(records // 2) * 1.0, 2)}
    for name in LAYER_COLUMNS:
        columns[name], columns[f"{name}_se"] = rng.random((records, depth)), np.full((records, depth), 0.01)
    columns["test_alignment"][:] = np.nan
    return Layers(None, {"depth": float(depth)} if fixed is None else fixed, columns)


def test_a_row_per_record_and_layer(tmp_path):
    found = [layers(1), layers(3)]
    write_layers(tmp_path / "layers.csv", found)
    with (tmp_path / "layers.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 4 * (1 + 3)
    last = rows[-1]
    assert (last["depth"], last["stage"], last["time"], last["layer"]) == ("3", "2", "1", "3")
    assert float(last["movement"]) == found[1].columns["movement"][3, 2]
    assert last["test_alignment"] == ""


def test_stages_follow_each_other_and_every_layer_has_a_line():
    found = [layers(1), layers(3)]
    figure = draw_layers(found, "mean-loss")
    rows = np.array(figure.axes).reshape(2, 3)
    for axes, one, depth in zip(rows, found, (1, 3), strict=True):
        lines = [line for line in axes[0].lines if len(line.get_xdata()) == 4]
        assert len(lines) == depth
        np.testing.assert_allclose(lines[-1].get_xdata(), [0, 1, 1, 2])
        np.testing.assert_allclose(lines[-1].get_ydata(), one.columns["movement"][:, -1])
    top = max(float(np.max(one.columns["movement"])) for one in found)
    assert rows[0, 0].get_ylim()[0] == 0
    assert rows[0, 0].get_ylim()[1] >= top  # the deepest network is not cut off
    plt.close(figure)


@pytest.mark.parametrize("missing", ["movement", "source_alignment"])
def test_a_quantity_that_nobody_has_gets_no_column(missing):
    one = layers(2)
    one.columns[missing][:] = np.nan
    figure = draw_layers([one], "mean-loss")
    assert len(figure.axes) == 2
    plt.close(figure)


def test_kernels_and_densities_of_the_last_layer_say_so():
    kernel, edges = np.eye(4), np.linspace(-3, 3, 31)
    flat = {"bin_edges": edges, "n_source": np.array(2), "n_target": np.array(2), "y_target": np.array([-1.0, 1.0])}
    flat |= {f"phi_{m}": kernel for m in ("start", "stage1")}
    flat |= {"density_stage1": 0 * edges[1:], "variance_stage1": np.array(1.0), "excess_kurtosis_stage1": 0.0}
    deep = flat | {f"phi_layer{layer}_start": kernel for layer in (1, 2, 3)}
    points = [Shown(None, {"depth": 1.0}, flat), Shown("case", {"depth": 3.0}, deep)]
    for name, build in kernel_figures(points):
        titles = [axis.get_title() for axis in build().axes if axis.get_title()]
        assert sum("layer" in title for title in titles) == len(titles) // 2, name
        assert titles[-1].startswith("case, layer 3\n"), name
    plt.close("all")
