"""What the gallery says about a recipe is what the recipe's own table shows: numbers of a verdict, read from both."""

import csv
import math
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.recipe_regression import CI_FLAGS, RECIPES
from tests.test_recipe_physics import FOLDERS, run

DOCS = Path(__file__).resolve().parent.parent / "docs"
TABLES = DOCS / "tables"  # of recipes that tests run at a smaller size: written with the figures, by docs/figures.py


@pytest.fixture(autouse=True, scope="module")
def _the_runs_of_all_tests(recipe_runs):
    FOLDERS["all"] = recipe_runs


@cache
def sections():
    """Text of the gallery by recipe, on one line, minus signs as Python writes them."""
    text = (DOCS / "gallery.md").read_text(encoding="utf-8").replace("−", "-")
    found = {}
    for title, body in re.findall(r"^### (.*)\n((?:(?!^##).*\n?)*)", text, re.MULTILINE):
        for name in re.findall(r"`([\w-]+)\.yaml`", title):
            found[name] = " ".join(body.split())
    return found


@cache
def rows(name):
    """Rows of the recipe's whole table, which its figure in the gallery shows."""
    if name not in CI_FLAGS:
        return run(name).rows
    with (TABLES / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def pick(name, key, **wanted):
    """Column `key` of the rows whose cells are `wanted` (numbers by value, words by their beginning)."""
    case = wanted.pop("is_case", None)  # the whole name, where one begins another
    kept = [row for row in rows(name) if all(_is(row[k], value) for k, value in wanted.items())]
    kept = [row for row in kept if case in (None, row.get("case"))]
    assert kept, (name, wanted)
    return np.array([float(row[key] or "nan") for row in kept])


def _is(cell, value):
    return cell.startswith(value) if isinstance(value, str) else math.isclose(float(cell or "nan"), value, abs_tol=1e-9)


def alignment():
    exact, cancelled = (
        pick("fig1b-alignment", "loss", case=f"$\\rho_\\xi = {w}$", gamma0=np.inf) for w in ("0", "-0.5")
    )
    assert np.all(np.diff(exact) < 0)
    rho = pick("fig1b-alignment", "rho", case="$\\rho_\\xi = -0.5$", gamma0=np.inf)
    top = cancelled.argmax()
    assert np.all(np.diff(cancelled[: top + 1]) > 0)
    assert np.all(np.diff(cancelled[top:]) < 0)
    return [
        f"from {cancelled[0]:.3f} to {cancelled[top]:.3f} at $\\rho = {rho[top]:.1f}$, and falls to {cancelled[-1]:.3f}"
    ]


def cell(name, key, digits=2, **wanted):
    """One number of a table, as the gallery writes it; a gain with its error, see `error`."""
    (value,) = pick(name, key, **wanted)
    text = f"{value:.{digits}f}"
    if key != "gain":
        return text
    return f"{text} ± {error(name, key, **wanted)[0]:.{digits}f}"


def error(name, key, **wanted):
    """Errors of a column: by the neurons (and a pool), and by draws or, without these, by the test points."""
    own, draws, points = (
        pick(name, f"{key}{end}", **wanted) if f"{key}{end}" in rows(name)[0] else 0.0
        for end in ("_se", "_draw_se", "_test_se")
    )
    return np.hypot(own, points) if np.ndim(draws) == 0 else np.maximum(own, draws)


def frozen_digits():
    """Losses meet at the small ridge and stay apart at the large one."""
    said = []
    for name in ("fig2b", "fig2c"):
        small, large = (pick(name, "loss", p2=320, ridge=ridge) for ridge in (1e-4, 0.01))
        assert np.ptp(small) < 0.015  # a tenth of the loss
        assert np.ptp(large) > 0.09
        said += [f"{small.min():.3f} to {small.max():.3f}", f"{large.min():.2f} to {large.max():.2f}"]
        assert np.all(np.diff(large) < 0), "the richer the better"
        said += [
            cell(name, "gain", 3, p2=320, ridge=1e-4, gamma0=5),
            cell(name, "gain", 3, p2=320, ridge=0.01, gamma0=5),
        ]
        said += [
            cell(name, "gain", 3, p2=10, ridge=1e-4, gamma0=5),
            cell(name, "gain", 3, p2=20, ridge=1e-4, gamma0=0.5),
        ]
    return said


def low_to_high_degree():
    """Pre-training helps at every time and richness; after it, unlike from scratch, the least rich target is best."""
    end = {"case": "pre-trained", "stage": 2, "time": 200}
    assert np.all(
        pick("fig3a", "gain", case="pre-trained", stage=2) > -2 * error("fig3a", "gain", case="pre-trained", stage=2)
    )
    loss, baseline = (pick("fig3a", key, **end) for key in ("loss", "baseline"))
    assert loss.argmin() == 0
    assert np.all(np.diff(baseline) < 0)
    return [
        f"{loss[0]:.2f} against {baseline[0]:.2f} at the end for $\\gamma_2 = 0.5$",
        f"{loss[-1]:.2f} against {baseline[-1]:.2f} for $\\gamma_2 = 4$",
    ]


def high_to_low_degree():
    """Features of a cubic task harm in the end; no test loss rises at any time."""
    end = {"case": "pre-trained", "stage": 2, "time": 100}
    loss, baseline = (pick("fig3b", key, **end) for key in ("loss", "baseline"))
    assert np.all(pick("fig3b", "gain", **end) < -4 * error("fig3b", "gain", **end))
    for case in ("pre-trained", "no pre-training"):
        for gamma2 in (0.5, 1, 2):
            assert np.all(np.diff(pick("fig3b", "loss", case=case, stage=2, gamma2=gamma2)) < 1e-3)
    learned = pick("fig3b", "source_loss", case="pre-trained", stage=1, time=200).mean()  # equal but for its sampling
    return [
        f"falls to {learned:.2f}",
        ", ".join(f"{value:.2f}" for value in loss) + " for $\\gamma_2 = 0.5, 1, 2$",
        f"{baseline.min():.2f} to {baseline.max():.2f}",
    ]


def forgetting():
    """The richer, the more is forgotten and the better the target; the mean of both losses has a flat optimum."""
    name, end = "fig3a-forgetting", {"case": "pre-trained", "stage": 2, "time": 200}
    forgotten, loss = (pick(name, key, **end) for key in ("source_loss", "loss"))
    before = pick(name, "source_loss", case="pre-trained", stage=1, time=100)
    assert np.all(np.diff(forgotten) > 0)
    assert np.all(np.diff(loss) < 0)
    assert before.max() < 0.02
    told = pick(name, "gain", **end) > 2 * error(name, "gain", **end)
    assert np.all(np.diff(told.astype(int)) >= 0)
    both = (forgotten + loss) / 2
    gamma = pick(name, "gamma0", **end)
    return [
        ", ".join(f"{v:.2f}" for v in forgotten),
        ", ".join(f"{v:.2f}" for v in loss),
        ", ".join(f"{v:.2f}" for v in both),
        f"least at $\\gamma = {gamma[both.argmin()]:g}$",
        f"surely from $\\gamma = {gamma[told.argmax()]:g}$ on",
        cell(name, "gain", gamma0=4, **end),
        cell(name, "gain", gamma0=0.25, **end),
    ]


def stopping_early():
    """Transfer is ahead early and not at the end; the richer, the earlier the loss is least."""
    end = {name: {"stage": 2, "time": 100.0} for name in ("fig4a", "fig4b")}
    richness, said = (0.3, 1, 3), []
    for time in (3.3333, 100.0):
        said.append(", ".join(cell("fig4b", "gain", 3, stage=2, time=time, gamma0=gamma) for gamma in richness))
    best = {name: pick(name, "best_time", **end[name]) for name in end}
    assert all(np.all(np.diff(times) < 0) for times in best.values())
    a, b = (", ".join(f"{time:.0f}" for time in best[name]) for name in end)
    said.append(f"at $t$ = {a} without pre-training and at {b} with it")
    over = []
    for name in end:
        value, error = (pick(name, key, gamma0=3, **end[name])[0] for key in ("overfitting", "overfitting_draw_se"))
        assert 0 < value < 2 * error
        over.append(f"{value:.3f} ± {error:.3f}")
    said.append(f"by {over[0]} and {over[1]}")
    a, b = (pick(name, "sim_loss", **end[name]) - pick(name, "loss", **end[name]) for name in end)
    said.append(f"{a[0]:.3f}, {a[1]:.3f} and {a[2]:.3f} above it at the end, after pre-training")
    errors = np.concatenate([pick(name, "sim_loss_se", **end[name]) for name in end])
    assert np.all((errors > 0.0005) & (errors < 0.0025))
    return [*said, f"after pre-training {b[0]:.3f}, {b[1]:.3f} and {b[2]:.3f}, with"]


def preactivations():
    """Excess kurtosis after both stages grows with richness."""
    with (TABLES / "fig4c-kurtosis.csv").open(encoding="utf-8", newline="") as stream:
        found = list(csv.DictReader(stream))
    first, errors, last, more = (
        np.array([float(row[f"excess_kurtosis_{part}"]) for row in found])
        for part in ("stage1", "se_stage1", "stage2", "se_stage2")
    )
    for values in (first, last):
        assert np.all(np.diff(values) > 0)
    lists = [", ".join(f"{value:.2f}" for value in values) for values in (first, last)]
    largest = max(errors.max(), more.max())
    return [f"{lists[0]} for $\\gamma_0 = 0.3, 1, 3, 10$", lists[1], f"at most {largest:.2f} by the neurons"]


def frozen_polynomials():
    """A data-rich source helps everywhere, a data-poor one too unless its labels are noisy."""
    said, cases = [], ("data-rich source", "data-poor source", "data-poor source, noisy labels")
    gains = {case: np.array([pick("fig9", "gain", p2=p2, is_case=case) for p2 in (20, 80, 240)]) for case in cases}
    errors = {
        case: np.array([pick("fig9", "gain_draw_se", p2=p2, is_case=case) for p2 in (20, 80, 240)]) for case in cases
    }
    assert np.all(gains[cases[0]] > 2 * errors[cases[0]])
    unsure = gains[cases[1]] < 2 * errors[cases[1]]
    assert np.all(gains[cases[1]] > 0)
    assert np.argwhere(unsure).tolist() == [[0, 5]], "20 points, the richest"
    assert np.all(np.abs(gains[cases[1]] / gains[cases[0]] - 0.5)[1:, 4] < 0.12)
    said.append(", ".join(cell("fig9", "gain", 3, is_case=cases[1], p2=p2, gamma0=3.4657) for p2 in (20, 80, 240)))
    lines = [cell("fig9", "gain", 3, is_case=cases[2], p2=240, gamma0=gamma) for gamma in (0.41628, 3.4657, 10)]
    said.append(f"{lines[0]} at $\\gamma_0 = 0.42$, {lines[1]} at 3.5 and {lines[2]} at 10")
    richness = pick("fig9", "gamma0", p2=20, is_case=cases[0])
    best = {case: ", ".join(f"{richness[line.argmax()]:.2g}" for line in gains[case]) for case in cases}
    assert best[cases[2]] == "0.42, 0.42, 0.42"
    return [*said, f"$\\gamma_0$ = {best[cases[1]]} without noise and 0.42 for all with it"]


def noisy_labels():
    """Every curve has a least loss and rises from there to the end; in the end pre-training helps."""
    said, name = [], "fig3b-noise"
    for case in ("no pre-training", "pre-trained"):
        least, last, places = [], [], []
        for gamma2 in (0.5, 1, 2):
            at = {"case": case, "stage": 2, "gamma2": gamma2}
            time, loss = pick(name, "time", **at), pick(name, "loss", **at)
            assert np.all(np.diff(loss[loss.argmin() :]) > -5e-4)  # errors by neurons are larger
            least.append(f"{loss.min():.2f}")
            last.append(f"{loss[-1]:.2f}")
            places.append(f"{time[loss.argmin()]:g}")
        said += [", ".join(least), f"ends at {', '.join(last)}"]
        said += [f"$t = {', '.join(places)}$" if len(set(places)) > 1 else f"$t = {places[0]}$"]
    gains = pick(name, "gain", case="pre-trained", stage=2, time=300)
    assert (gains > 2 * error(name, "gain", case="pre-trained", stage=2, time=300)).tolist() == [True, True, False]
    gains = [cell(name, "gain", case="pre-trained", stage=2, time=300, gamma2=gamma2) for gamma2 in (0.5, 1, 2)]
    return [*said, ", ".join(gains)]


def target_data():
    """Richness of the target helps where data are plenty; transfer helps a rich target where they are few."""
    name, said = "richness-p2", []
    lazy, rich = (pick(name, "baseline", gamma2=gamma) for gamma in (0.3, 3))
    assert np.all(rich[:2] > lazy[:2])
    assert np.all(rich[2:] < lazy[2:] / 2)
    pairs = [without(name, p2) for p2 in (10, 40, 160, 400)]
    said += [f"losses of {pairs[0]} at $P_2 = 10$, {pairs[1]} at 40, {pairs[2]} at 160, {pairs[3]} at 400"]
    gains = {gamma: [cell(name, "gain", p2=p2, gamma2=gamma) for p2 in (10, 40, 160, 400)] for gamma in (0.3, 3)}
    said += [f"gains {gains[3][1]} at $P_2 = 40$, {gains[3][2]} at 160 and {gains[3][3]} at 400"]
    assert np.all(np.diff(pick(name, "gain", gamma2=0.3)) > 0)
    assert [row["phase"] for row in rows(name) if row["gamma2"] == "3"][2:] == ["neutral", "negative"]
    return [*said, f"{gains[0.3][0]} at 10 and {gains[0.3][3]} at 400"]


def without(name, p2, digits=2):
    """Losses of the lazy and the rich target alone, each with its error."""
    found = []
    for gamma in (0.3, 3):
        (loss,), (wrong,) = pick(name, "baseline", p2=p2, gamma2=gamma), error(name, "baseline", p2=p2, gamma2=gamma)
        found.append(f"{loss:.{digits}f} ± {wrong:.{digits}f}")
    return " and ".join(found)


def target_data_of_digits():
    """A lazy target is hurt at few samples and helped at many; a rich one never beyond errors."""
    name = "richness-p2-digits"
    lazy = [row["phase"] for row in rows(name) if row["gamma2"] == "0.3"]
    assert lazy == ["neutral", "negative", "positive", "positive"]
    assert {row["phase"] for row in rows(name) if row["gamma2"] == "3"} == {"neutral"}
    gains = [cell(name, "gain", 3, p2=p2, gamma2=0.3) for p2 in (5, 20, 80, 160)]
    return [
        f"{without(name, 5)} at $P_2 = 5$, and {without(name, 160, 3)} at 160",
        f"it gains {', '.join(gains[:3])} and {gains[3]} with 5, 20, 80 and 160 samples",
    ]


def kept_layers():
    """With many target points one or two kept layers gain, none or all do not; with few two do."""
    sure = {p2: [row["phase"] for row in rows("deep-freeze") if float(row["p2"]) == p2] for p2 in (6, 24)}
    assert sure == {
        6: ["neutral", "neutral", "positive", "neutral"],
        24: ["neutral", "positive", "positive", "neutral"],
    }
    few, many = ([cell("deep-freeze", "gain", p2=p2, freeze=kept) for kept in range(4)] for p2 in (6, 24))
    return [
        f"gains {many[1]} and {many[2]}; keeping none or all, {many[0]} and {many[3]}, is not",
        f"keeping two gains {few[2]}, and the other gains, {few[0]}, {few[1]} and {few[3]} for",
    ]


def depths():
    """Gains of one to four hidden layers at the end, of which neurons leave little open and test points much."""
    last = {"stage": 2, "time": 20}
    gains, points = (pick("deep-transfer", key, **last) for key in ("gain", "gain_test_se"))
    assert np.all(np.diff(gains) < 0)
    assert pick("deep-transfer", "gain_se", **last).max() < 0.003
    assert np.all(np.round(points, 2) == 0.03)
    return [f"{', '.join(f'{gain:.3f}' for gain in gains)} for one to four hidden layers"]


def small_target_richness():
    """A lazy target gains as much as a rich one from a rich source; only if both are lazy is the gain small."""
    said = []
    for gamma2 in (0.05, 3):
        said.append(cell("fig11", "gain", case="rich source, $\\rho = 1$", gamma2=gamma2, delta=np.inf))
    little, much = (pick("fig11-equal", "gain", gamma0=gamma, delta=np.inf)[0] for gamma in (0.05, 3))
    assert little < 0.12 * much
    ends = [
        pick("fig11", "gain", case="rich source, $\\rho = 1$", gamma2=gamma, delta=np.inf)[0] for gamma in (0.05, 3)
    ]
    assert abs(ends[0] - ends[1]) < 0.01
    assert "delta_high" not in rows("fig11")[0], "infinite everywhere: a constant column is not kept"
    return said


def equal_richness():
    """Gains at infinite coupling."""
    return [cell("fig11-equal", "gain", gamma0=gamma, delta=np.inf) for gamma in (0.05, 0.3, 1, 3)]


def valley():
    """The best coupling of every target richness, and the loss there."""
    found = []
    for gamma2 in np.unique(pick("fig12", "gamma2", case="rich")):
        loss, delta = (pick("fig12", key, case="rich", gamma2=gamma2) for key in ("loss", "delta"))
        found.append((loss.min(), delta[loss.argmin()]))
    losses, deltas = np.array(found).T
    assert np.all(np.diff(deltas) >= 0)
    assert deltas[-3] < 100 == deltas[-2] == deltas[-1]
    assert np.all(pick("fig12", "delta_opt", case="lazy") == 100)
    assert "delta_high" not in rows("fig12")[0], "the strongest coupling everywhere: a constant column is not kept"
    return [
        f"from {deltas[0]:.2g} at $\\gamma_2 = 0.1$ to {deltas[-3]:.2g} at 3.2",
        f"{losses.min():.3f} to {losses.max():.3f}",
    ]


def best_coupling():
    """The best coupling of every number of samples rises with the alignment, from 0 to infinity."""
    best = {p2: pick("fig13", "delta_opt", p2=p2, delta=0.0) for p2 in (10, 20, 40)}
    assert all(
        line[0] == 0 and np.all(line[1:] >= line[:-1]) and np.all(line[4:] == np.inf) for line in (best[10], best[20])
    )
    assert np.all(best[40] == np.inf)
    inside = {
        p2: (pick("fig13", "delta_low", p2=p2, delta=0.0) > 0)
        & np.isfinite(pick("fig13", "delta_high", p2=p2, delta=0.0))
        for p2 in (10, 20, 40)
    }
    assert np.flatnonzero(inside[10]).tolist() == [1]
    assert not inside[20].any()
    few, more = ([f"{value:.2g}" for value in best[p2]] for p2 in (10, 20))
    return [
        f"{few[1]} at $\\rho = 0.2$ and {few[2]} at 0.4",
        f"{more[1]}, {more[2]} and {more[3]} at $\\rho$ = 0.2, 0.4, 0.6",
    ]


def clustering(name):
    """Alignments with the labels, of the source and of the target at no and at infinite coupling, lazy and rich."""
    said = []
    for key, delta in (("source_alignment", 0), ("target_alignment", 0), ("target_alignment", np.inf)):
        lazy, rich = (cell(name, key, gamma0=gamma, delta=delta) for gamma in (0.1, 5))
        said.append(f"from {lazy} to {rich}")
    assert np.all(np.diff(pick(name, "source_alignment", delta=0)) > 0)
    assert np.all(np.diff(pick(name, "target_alignment", delta=0)) > 0)
    return said


def bayesian_classifiers():
    """Gains in error of a tied target, of the same digits and of others, and the evidence of the latter."""
    end = {"gamma0": 5, "delta": np.inf}
    evidence = pick("bayes-classes", "evidence_gain", case="then digits 5–9", **end)[0]
    return [
        *(
            cell("bayes-classes", "gain_error", case=case, **end)
            for case in ("then the same digits", "then digits 5–9")
        ),
        f"{evidence:.2f} nats",
    ]


def infinite_source():
    assert pick("fig1a", "gain").min() > 0
    losses = [cell("fig1a", "loss", 3, alpha2=0.5, rho=0.8, gamma0=gamma) for gamma in (0.5, 2, 5, np.inf)]
    assert losses == sorted(losses, reverse=True)
    assert pick("fig1a", "loss", rho=1, gamma0=np.inf) == pytest.approx(0, abs=1e-12)
    return [
        f"the losses are {', '.join(losses)} for",
        f"the baseline is {pick('fig1a', 'baseline', alpha2=0.5)[0]:.3g}",
    ]


def crossings():
    """Where the ansatz crosses the baseline; the exact kernel does not, nor the best aligned task."""
    assert pick("fig1b", "gain", case="exact").min() > 0
    assert pick("fig1b", "gain", case="ansatz", rho=0.8).min() > 0
    places = []
    for rho in (0.1, 0.3, 0.5):
        alpha2, gain = (pick("fig1b", key, case="ansatz", rho=rho) for key in ("alpha2", "gain"))
        (last,) = np.flatnonzero(np.diff(np.sign(gain)))
        (root,) = (float(row["alpha2"]) for row in run("fig1b").boundary if float(row["rho"]) == rho)
        assert alpha2[last] < root < alpha2[last + 1]
        assert gain[last] > 0
        places.append(f"{root:.3f}")
    return [f"$\\alpha_2$ = {', '.join(places)} for"]


def one_feature():
    little, much = (cell("fig1c", "loss", 3, alpha1=alpha1, rho=0.9, rho_xi=0.4) for alpha1 in (0.6, np.inf))
    assert little < much
    assert np.all(np.diff(pick("fig1c", "loss", alpha1=0.6, rho_xi=0)) < 0)
    return [f"{little} for $\\alpha_1 = 0.6$ and {much} for $\\infty$"]


def best_richness():
    best = [pick("fig2a", "gamma0_opt", alpha2=alpha2)[0] for alpha2 in (0.1, 0.3, 0.5, 0.7, 0.9)]
    assert np.all(np.diff(best) < 0)
    assert pick("fig2a", "gain", alpha2=0.9)[-1] < 0
    return [f"from {best[0]:.2f} at $\\alpha_2 = 0.1$ to {best[-1]:.2f} at 0.9"]


def no_signal():
    hurt = [cell("fig6a", "loss", 3, alpha2=0.5, c_cross=c) for c in (0, 0.3, 0.6, 0.9)]
    healed = [cell("fig6b", "loss", 3, alpha2=0.5, c_noise=c) for c in (0, 1, 3, 10)]
    assert hurt == sorted(hurt)
    assert healed == sorted(healed, reverse=True)
    assert healed[0] == hurt[-1]
    return [f"from {hurt[0]} to {hurt[-1]} at $\\alpha_2 = 0.5$, and to {healed[-1]}"]


def equations():
    """How far the equations are from regression, in per cent that bound it, and gains with a cubic target."""
    off = {}
    for target in ("cubic", "quadratic"):
        exact, direct = (
            pick("learning-curves", "loss", case=f"{target} target, {how}") for how in ("equations", "subsets")
        )
        enough = pick("learning-curves", "p2", case=f"{target} target, subsets") >= 40
        off[target], off["few", target] = (np.abs(exact / direct - 1)[kept].max() for kept in (enough, ~enough))
    few, enough = max(off["few", target] for target in ("cubic", "quadratic")), off["quadratic"]
    gain = cell("learning-curves", "gain", case="cubic target, equations", p2=120, gamma0=1).split()[0]
    assert pick("learning-curves", "gain", case="cubic target, equations", p2=120, gamma0=5) < 0
    return [
        f"within {math.ceil(100 * off['cubic'])} % of regression",
        f"within {math.ceil(100 * enough)} % for the quadratic one, and within {math.ceil(100 * few)} % below",
        f"one of {gain} at 120 samples",
    ]


def hard_equations():
    off = {}
    for task in ("cubic target, relu", "digits, tanh"):
        exact, direct = (
            pick("learning-curves-hard", "loss", case=f"{task}, {how}") for how in ("equations", "subsets")
        )
        off[task] = exact / direct - 1
    assert np.all(off["digits, tanh"] < 0)
    far, near = (100 * np.abs(off[task]).max() for task in ("digits, tanh", "cubic target, relu"))
    return [f"within {math.ceil(near)} % for the cubic target", f"too low by up to {math.ceil(far)} %"]


def frozen_maps():
    def gain(kind, p2):
        return cell("nonlinear-map", "gain", case=f"to a {kind}", p2=p2, gamma0=5)

    assert gain("cubic", 70).startswith("-")
    quadratic = [row for row in rows("nonlinear-map") if row["case"].startswith("to a quadratic")]
    assert {row["phase"] for row in quadratic if float(row["p2"]) >= 12} == {"positive"}
    mixed = [gain("linear plus cubic", p2) for p2 in (8, 70)]
    return [
        f"the gain is {gain('quadratic', 30)} at $\\gamma_0 = 5$",
        f"samples by {gain('cubic', 70)[1:]}",
        f"the gain is {mixed[0]} with 8 samples, {mixed[1]} with 70",
    ]


def frozen_digit_maps():
    name = "nonlinear-map-digits"
    column = np.unique(pick(name, "gamma0"))
    small = cell(name, "gain", 3, p2=45, gamma0=column[1])
    large = cell(name, "gain", 3, p2=30, gamma0=10)
    return [f"{small} at $\\gamma_0 = {column[1]:.2f}$", f"{large} at $\\gamma_0 = 10$"]


# What each section must say, made of its table.
SAYS = {
    "fig1a": infinite_source,
    "fig1b": crossings,
    "fig1c": one_feature,
    "fig2a": best_richness,
    "fig6a": no_signal,
    "learning-curves": equations,
    "learning-curves-hard": hard_equations,
    "nonlinear-map": frozen_maps,
    "nonlinear-map-digits": frozen_digit_maps,
    "fig1b-alignment": alignment,
    "fig2b": frozen_digits,
    "fig3a": low_to_high_degree,
    "fig3b": high_to_low_degree,
    "fig3b-noise": noisy_labels,
    "fig3a-forgetting": forgetting,
    "fig4a": stopping_early,
    "fig4c": preactivations,
    "deep-transfer": depths,
    "deep-freeze": kept_layers,
    "fig9": frozen_polynomials,
    "richness-p2": target_data,
    "richness-p2-digits": target_data_of_digits,
    "fig11": small_target_richness,
    "fig11-equal": equal_richness,
    "fig12": valley,
    "bayes-classes": bayesian_classifiers,
    "fig13": best_coupling,
    "fig14": lambda: clustering("fig14"),
    "fig14-same": lambda: clustering("fig14-same"),
}


@pytest.mark.parametrize("name", SAYS)
def test_the_gallery_says_what_the_table_shows(name):
    missing = [words for words in SAYS[name]() if words not in sections()[name]]
    assert not missing, f"the table of {name} shows {missing}; the gallery: {sections()[name]}"


def test_whatever_is_said_to_agree_is_read_from_a_table():
    checked = {sections()[name] for name in SAYS}  # a section may be of several recipes
    said = {name for name, text in sections().items() if re.search(r"\*\*[^*]*agree", text, re.IGNORECASE)}
    assert len(said) > 20
    assert not {name for name in said if sections()[name] not in checked}


def test_every_recipe_has_its_section():
    assert sections().keys() >= {path.stem for path in RECIPES}
