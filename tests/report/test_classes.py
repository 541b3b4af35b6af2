"""Figures of classifiers: tables of confusion, reliability, and kernels sorted by class, as what is drawn."""

import csv
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

import tlcli
from tlcli.report.classes import draw_confusions, draw_reliability, reliability, shares
from tlcli.report.kernels import Shown, block_lines, draw_kernels

LAZY = {"gamma0": 0, "gamma2": 0, "dim": 6, "p1": 9, "p2": 12, "ptest": 80, "times": "0,30", "t1": 10}  # exact


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def drawn(found, name):
    return found.figures()[name]


def test_a_confusion_before_and_after_transfer_is_that_of_the_predictions(tmp_path):
    found = tlcli.dmft_solve(source="argmax:3", target="argmax:3", loss="softmax", predictions=True, **LAZY)
    found.save(tmp_path)
    with (tmp_path / "predictions.csv").open() as stream:
        rows = [r for r in csv.DictReader(stream) if (r["set"], r["stage"], r["time"]) == ("test", "2", "30")]
    f = np.array([float(r["prediction"]) for r in rows]).reshape(-1, 3)
    label = np.array([float(r["label"]) for r in rows]).reshape(-1, 3)[:, 0].astype(int)
    counts = np.zeros((3, 3))
    np.add.at(counts, (label, f.argmax(axis=1)), 1)
    arrays = np.load(tmp_path / "kernels.npz")
    np.testing.assert_array_equal(arrays["confusion_target"], counts)
    assert set(np.unique(arrays["right_target"])) == {0.0, 1.0}
    assert arrays["right_target"].mean() == pytest.approx(np.trace(counts) / counts.sum())
    figure = drawn(found, "figure-confusion")
    panels = [axis for axis in figure.axes if axis.images]
    wrong = 100 * (1 - np.trace(counts) / counts.sum())
    assert [axis.get_title().partition(":")[0] for axis in panels] == [
        "source, after stage 1",
        "source, after stage 2",
        "target, no pre-training",
        "target, pre-trained",
    ]
    assert panels[-1].get_title() == f"target, pre-trained: {wrong:.3g} % wrong"
    image = np.asarray(panels[-1].images[0].get_array())
    np.testing.assert_allclose(image, counts / counts.sum(axis=1, keepdims=True))
    texts = {(int(t.get_position()[1]), int(t.get_position()[0])): t.get_text() for t in panels[-1].texts}
    wanted = {(i, j): f"{100 * image[i, j]:.0f}" for i in range(3) for j in range(3) if image[i, j] >= 0.005}
    assert texts == wanted
    assert [t.get_text() for t in panels[-1].get_yticklabels()] == ["0", "1", "2"]


def test_reliability_of_a_run_is_that_of_its_confidences():
    found = tlcli.dmft_solve(source="sign:linear", target="sign:linear", loss="logistic", **LAZY)
    figure = drawn(found, "figure-reliability")
    panels = [axis for axis in figure.axes if axis.lines]
    assert [axis.get_title() for axis in panels] == ["target, no pre-training", "target, pre-trained"]
    arrays = next(a for a in found.outcomes[0].found.arrays if a is not None)
    for axis, head in zip(panels, ("baseline", "target"), strict=True):
        for bars, values in zip(axis.containers, arrays[f"confidence_{head}"], strict=True):
            sure, share, error, _ = reliability(values, arrays[f"right_{head}"])
            np.testing.assert_allclose(bars.lines[0].get_xydata(), np.stack([sure, share], axis=1))
            heights = [np.ptp(segment[:, 1]) / 2 for segment in bars.lines[2][0].get_segments()]
            np.testing.assert_allclose(heights, error)
    names = found.figures()
    assert {"figure", "figure-confusion", "figure-reliability"} == set(names)


def test_what_is_no_likelihood_has_no_reliability_and_numbers_no_confusion():
    mse = tlcli.dmft_solve(source="sign:linear", target="sign:linear", loss="mse", **LAZY).figures()
    assert "figure-confusion" in mse
    assert "figure-reliability" not in mse
    plain = tlcli.dmft_solve(source="linear", target="linear", loss="huber:1", **LAZY).figures()
    assert "figure-confusion" not in plain


def test_bins_of_equally_many_points_and_the_calibration_error():
    confidence = np.repeat([0.6, 0.9], 20)
    right = np.concatenate([np.repeat([1, 0], [12, 8]), np.repeat([1, 0], [14, 6])]).astype(float)
    sure, share, error, gap = reliability(confidence, right, bins=2)
    np.testing.assert_allclose(sure, [0.6, 0.9])
    np.testing.assert_allclose(share, [0.6, 0.7])
    np.testing.assert_allclose(error, np.sqrt(np.array([14 * 10, 16 * 8]) / 24**3))
    assert gap == pytest.approx(0.1)
    assert len(reliability(confidence[:9], right[:9])[0]) == 1, "few points are one bin"


def test_a_calibrated_prediction_is_nearly_reliable_and_an_overconfident_one_is_not():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, 4000)
    right = (rng.random(4000) < p).astype(float)
    assert reliability(p, right)[3] < 0.03
    assert reliability(1 - (1 - p) / 5, right)[3] > 0.1


def test_classes_without_points_and_facets():
    table = np.array([[3.0, 1.0], [0.0, 0.0]])
    assert np.isnan(shares(table)[1]).all()
    arrays = {"confusion_target": table, "classes_target": np.array(2), "class_names_target": np.array(["a", "b"])}
    figure = draw_confusions([Shown("one", {"gamma0": g}, arrays) for g in (1.0, 2.0)], "2 of 5 points")
    assert figure is not None
    figure.canvas.draw()
    panels = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in panels] == [
        f"one\n$\\gamma_0$ = {g}\ntarget, pre-trained: 25 % wrong" for g in (1, 2)
    ]
    assert [t.get_text() for t in panels[0].get_xticklabels()] == ["a", "b"]
    assert draw_confusions([Shown(None, {}, {})]) is None
    assert draw_reliability([Shown(None, {}, {})]) is None


def test_kernels_are_sorted_by_class_with_a_line_between_any_two():
    labels = np.array([2.0, 0, 1, 0, 2, 2])
    np.testing.assert_array_equal(block_lines(np.sort(labels), True), [1.5, 2.5])
    np.testing.assert_array_equal(block_lines(np.array([-2.0, -1, 3, 4]), False), [1.5])
    kernel = np.add.outer(labels, labels)
    wide = {f"phi_{m}": np.pad(kernel, ((1, 0), (1, 0))) for m in ("start", "stage1")}
    arrays = {
        "n_source": np.array(1),
        "n_target": np.array(6),
        "y_target": labels,
        "classes_target": np.array(3),
        **wide,
    }
    figure = draw_kernels([Shown(None, {}, arrays)])
    assert figure is not None
    panel = figure.axes[0]
    np.testing.assert_array_equal(panel.images[0].get_array(), np.add.outer(np.sort(labels), np.sort(labels)))
    across = sorted(line.get_ydata()[0] for line in panel.lines if line.get_ydata()[0] == line.get_ydata()[1])
    assert across == [1.5, 2.5]
    assert panel.get_ylabel() == "target points, sorted by class"
    assert [t.get_text() for t in panel.get_yticklabels()] == ["0", "1", "2"]
    np.testing.assert_allclose(panel.get_yticks(), [0.5, 2.0, 4.0])


def test_vectors_of_outputs_have_a_figure_of_kernels():
    kernel = np.eye(3)
    wide = {f"phi_{m}": np.pad(kernel, ((1, 0), (1, 0))) for m in ("start", "stage1")}
    rows = np.array([[0.0, 2.0], [1.0, -1.0], [3.0, 0.0]])
    arrays = {"n_source": np.array(1), "n_target": np.array(3), "y_target": rows, **wide}
    assert draw_kernels([Shown(None, {}, arrays)]) is not None


def test_every_class_has_two_lines_of_error_by_neurons_and_test_points(tmp_path):
    """Exact networks leave every point right or wrong: over n points a share p has the error sqrt(p(1 - p)/(n - 1))."""
    found = tlcli.dmft_solve(source="argmax:3", target="argmax:3", loss="softmax", **LAZY)
    found.save(tmp_path)
    with Path(tmp_path, "table.csv").open() as stream:
        last = list(csv.DictReader(stream))[-1]
    for name in ("error", "baseline_error", "source_error"):
        p = float(last[name])
        assert float(last[f"{name}_test_se"]) == pytest.approx(np.sqrt(p * (1 - p) / 79), rel=1e-9), name
    assert float(last["gain_error_test_se"]) <= np.hypot(
        float(last["error_test_se"]), float(last["baseline_error_test_se"])
    ), "paired"
    for name in ("loss", "baseline", "loss_calibrated", "baseline_calibrated", "source_loss"):
        assert float(last[f"{name}_test_se"]) > 0
    assert "train_loss_test_se" not in last


def test_a_gain_in_error_has_a_line_at_zero_and_its_whole_band(tmp_path):
    rich = {**LAZY, "gamma0": 1, "gamma2": 1, "times": "0,1,2,3", "t1": 3, "neurons": 128, "repeats": 2}
    found = tlcli.dmft_solve(source="argmax:3", target="argmax:3", loss="softmax", quantity="gain_error", **rich)
    found.save(tmp_path)
    (axis,) = drawn(found, "figure").axes
    assert [line.get_ydata()[0] for line in axis.lines if list(line.get_xdata()) == [0, 1]] == [0.0]
    with Path(tmp_path, "table.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["stage"] == "2"]
    names = ("gain_error", "gain_error_se", "gain_error_test_se")
    gain, neurons, points = (np.array([float(r[n]) for r in rows]) for n in names)
    band = axis.collections[0].get_paths()[0].vertices
    low, high = axis.get_ylim()
    assert low <= band[:, 1].min() < band[:, 1].max() <= high
    assert points.max() > 0
    assert band[:, 1].max() == pytest.approx((gain + 2 * np.hypot(neurons, points)).max(), rel=1e-6)
    assert [t.get_text() for t in drawn(found, "figure").legends[0].get_texts()] == ["±2 SE by neurons and test points"]
