"""Run a recipe and reduce it to what is pinned: a few hundred rows, boundary points, the structure of its figures."""

import contextlib
import csv
import functools
import gzip
import io
import json
import math
import os
import pickle
import re
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from tlcli.options.commands import COMMANDS
from tlcli.report import writer
from tlcli.run.execute import execute
from tlcli.run.recipe import load_recipe
from tlcli.tasks import cifar

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
REFERENCE = ROOT / "tests" / "reference"
MOST_ROWS = 300
OUTCOME = "outcome.pickle"

# Experiments and networks at a cost that CI can pay; the full-size figures come from `make figures`.
FEW = {"neurons": 256, "repeats": 4, "accuracy": 1, "ptest": 200}
SMALL = {**FEW, "dim": 8, "p1": 80, "p2": 30, "gamma2": "0.5,2", "t1": "50", "t2": "60"}
IMAGES = {**FEW, "p1": 40, "p2": 10, "gamma0": "0.3,3", "t2": "10"}
TWO_NETS = {"nets": 2, "width": "32"}
FROZEN = {"neurons": 512, "repeats": 4, "accuracy": 1, "draws": 2, "t1": "10"}
# Deep networks: in CI linear ones, which are exact. Samples draw Gaussians in the order in which directions appear,
# which the rounding of another library may change.
UNSET = {"neurons": None, "repeats": None, "basis_tolerance": None, "accuracy": None}
DEEP = {"activation": "linear", "dim": 4, "p1": 6, "ptest": 40, "t1": "3", "t2": "3", **UNSET}
CI_FLAGS: dict[str, dict[str, Any]] = {
    "digits-spectrum": {"trials": "4"},
    "joint-rich": {"x": "gamma0=log:0.2:8:9", "y": "gamma2=log:0.2:8:9"},
    "fig3a": SMALL,
    "fig3a-forgetting": {**FEW, "dim": 10, "p1": 100, "p2": 40, "gamma0": "0.5,2", "t2": "60"},
    "fig3b": {**SMALL, "p1": 200, "p2": 20, "dim": 10, "t1": "200"},
    "fig3b-noise": {**SMALL, "p1": 80, "p2": 20, "dim": 10, "t1": "10", "t2": "30"},
    "fig4a": {**IMAGES, **TWO_NETS, "p1": 100, "p2": 20, "t2": "20", "draws": 1},
    "fig4b": {**IMAGES, **TWO_NETS, "p1": 100, "p2": 20, "t1": "20", "t2": "20", "draws": 1},
    "fig4c": {**IMAGES, "t1": "10"},
    "fig4-cifar10": {**IMAGES, "nets": 2, "width": "8", "p1": 40, "p2": 20, "t2": "20", "ptest": 80, "gamma0": "3"},
    "fig2b": {**FROZEN, "p1": 200, "p2": "40,120", "gamma0": "0.5,2", "pool": 250, "draws": 1, "t1": "50"},
    "fig2c": {**FROZEN, "p2": "40,120", "gamma0": "0.5,2", "pool": 250, "draws": 1, "t1": "50"},
    "fig2-cifar10": {**FROZEN, "p1": "20,60", "p2": "8,16", "gamma0": "0.5,2", "neurons": 300, "pool": 60, "t1": "10"},
    "deep-transfer": {**DEEP, "p2": 4, "depth": "1,2,3"},
    "deep-freeze": {**DEEP, "p2": "3,6", "draws": 2, "t1": "1", "t2": "1"},
    "deep-ablation": {**DEEP, "p2": 4, "times": "0:3:7", "nets": 2, "width": "32"},
    "digits-classes": {**FEW, "p1": 40, "p2": 20, "t1": "10", "t2": "10", "times": "0,5,10", **TWO_NETS},
    "loss-matters": {**FEW, "p1": 40, "t1": "10", "t2": "10", "times": "1,10"},
    "classification-map": {**FEW, "neurons": 512, "p1": 40, "t1": "10", "x": "p2=10,40", "y": "gamma0=0.5,2"},
    "learning-curves": {"p2": "10,30", "gamma0": "1", "neurons": 256, "t1": "10", "pool": 100},
    "learning-curves-hard": {"p2": "10,30", "gamma0": "1", "p1": 40, "neurons": 128, "t1": "5"},
    "nonlinear-map-digits": {"x": "p2=8,30", "y": "gamma0=0.5,2", "p1": 40, "neurons": 128, "t1": "5", "draws": 2},
    "nonlinear-map": {"x": "p2=8,30", "y": "gamma0=0.5,1,2", "neurons": 256, "t1": "10", "draws": 1},
    "richness-p2": {**FEW, "dim": 6, "p1": 20, "p2": "6,24", "draws": 2, "t1": "10", "times": "10"},
    "richness-p2-digits": {**FEW, "p1": 60, "ptest": 100, "p2": "5,20", "draws": 2, "t1": "10", "times": "10"},
    "fig9": {**FROZEN, "dim": 10, "p2": "40", "gamma0": "0.5,3", "t1": "20"},
    "fig11": {"draws": 2, "delta": "0,log:0.1:1000:5,inf"},
    "fig11-equal": {"draws": 2, "delta": "0,log:0.1:1000:5,inf"},
    "fig12": {"draws": 2, "x": "delta=log:0.1:100:5", "y": "gamma2=log:0.1:10:5"},
    "fig13": {"draws": 3, "delta": "0,log:0.1:100:4,inf", "rho": "0,0.5,1"},
    "fig14": {"p1": "30", "p2": "20"},
    "bayes-classes": {"p1": "40", "draws": 2, "delta": "0,1,inf", "gamma0": "0.1,5", "ptest": 200},
    "fig14-same": {"p1": "30", "p2": "20"},
}
BAYES = ("fig11", "fig11-equal", "fig12", "fig13", "fig14", "fig14-same", "bayes-whitened", "bayes-classes")
_IMAGES = ("loss-matters", "digits-classes", "classification-map")
_NETWORKS = ("fig", "deep", "richness", "learning-curves", "nonlinear-map", *_IMAGES)
NETWORKS = tuple(name for name in CI_FLAGS if name.startswith(_NETWORKS) and name not in BAYES)

# (relative, absolute) tolerance per column: closed forms to rounding, the rest to what its algorithm promises.
TOLERANCE: dict[str, tuple[float, float]] = {
    "gamma0_opt": (1e-5, 1e-9),  # where a minimum is flat, its position is known to the root of the rounding error
    "sim_": (1e-6, 1e-9),  # linear algebra libraries differ
}
# Newton stops at a relative gradient of 1e-10; gaps of exact answers are rounding.
SADDLE = (1e-6, 1e-9)
ROUNDING = (0.0, 1e-6)
INTEGRATED = {"joint-rich": (1e-7, 1e-9), "curriculum": (1e-7, 1e-9)}
# Newton stops at 1e-10, and a gain is a difference.
INTEGRATED |= dict.fromkeys(("classify-map", "classify-critical", "label-noise"), (1e-6, 1e-9))
CLOSED_FORM = (1e-9, 1e-12)
# Sampled neurons are float32 and integrated adaptively. Another BLAS or CPU adds in another order, which alone changes
# losses by 1e-5; but a neuron of relu near its kink may then end on the other side, and one of 512 neurons that does
# moves a loss by up to 1/512. OpenBLAS's oldest kernels and NumPy without AVX change losses by at most 0.0022
# and their standard errors, differences of two repeats or draws, by 0.0055. How much a finer integration changes
# (`time_error`) is made of such neurons alone.
SAMPLED = (5e-3, 5e-3)
SPREAD = (1e-2, 1e-2)
FLIPS = (1.0, 5e-3)
LARGEST_RESIDUAL = 1e-6


@dataclass(frozen=True)
class Outcome:
    """Pinned rows of the table and of the boundary (header first), and the structure of every figure."""

    table: list[list[str]]
    boundary: list[list[str]]
    figures: list[dict[str, Any]]


def run_recipe(path: Path, folder: Path) -> Outcome:
    """Run the recipe into `folder` and reduce it."""
    recipe = load_recipe(path)
    assert recipe.command is not None
    structures: list[dict[str, Any]] = []
    save = writer.save
    flags = {"output": str(folder), "quiet": True, **CI_FLAGS.get(path.stem, {})}

    def record(figure: Any, target: Path, *more: Any) -> None:
        structures.append({"file": target.name, **structure(figure)})
        save(figure, target, *more)

    with contextlib.ExitStack() as stack:
        stack.enter_context(data_of(path.stem))
        stack.enter_context(patch.object(writer, "save", record))
        code = execute(recipe.command, COMMANDS[recipe.command].options, recipe, flags)
    assert code == 0, f"{path.name} ended with exit code {code}"
    return Outcome(pinned_rows(folder / "table.csv"), pinned_rows(folder / "boundary.csv"), structures)


def shared_run(name: str, base: Path) -> tuple[Outcome, Path]:
    """Return what `run_recipe` finds, and its folder below `base`: tests of one session run a recipe once."""
    done = base / name
    if not done.exists():
        with tempfile.TemporaryDirectory(dir=base) as private:
            folder = Path(private, name)
            outcome = run_recipe(ROOT / "recipes" / f"{name}.yaml", folder)
            (folder / OUTCOME).write_bytes(pickle.dumps(outcome))
            with contextlib.suppress(OSError):  # another worker was first; its run is the same
                folder.rename(done)
    return pickle.loads((done / OUTCOME).read_bytes()), done


@contextlib.contextmanager
def data_of(name: str) -> Iterator[None]:
    """Provide what the recipe `name` reads: for CIFAR-10 a small archive of its format, never the real one."""
    if "cifar10" not in name:
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / cifar.ARCHIVE
        path.write_bytes(cifar_like())
        with patch.dict(os.environ, {cifar.ENVIRONMENT: str(path)}):
            yield


@functools.cache
def cifar_like(images: int = 400) -> bytes:
    """An archive of two batches in the format of CIFAR-10; an image is a pattern of its class and three parts noise."""
    rng = np.random.default_rng(10)
    patterns = rng.integers(0, 256, (10, 3 * cifar.PIXELS))
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in (cifar.BATCHES[0], cifar.TEST_BATCH):
            classes = np.arange(images) % 10
            noise = rng.integers(0, 256, (images, 3 * cifar.PIXELS))
            pixels = ((patterns[classes] + 3 * noise) // 4).astype(np.uint8)
            content = pickle.dumps({b"data": pixels, b"labels": classes.tolist()}, protocol=4)
            about = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    # Without a time in its header: seeds of networks depend on the checksum of the file.
    return gzip.compress(stream.getvalue(), mtime=0)


def structure(figure: Any) -> dict[str, Any]:
    """What a reader sees of a figure: its words and scales, and the numbers that are drawn."""
    panels = [
        {
            "title": axis.get_title(),
            "x": axis.get_xlabel(),
            "y": axis.get_ylabel(),
            "scales": [axis.get_xscale(), axis.get_yscale()],
            "texts": [text.get_text() for text in axis.texts],
            "limits": [digest(axis.get_xlim()), digest(axis.get_ylim())],
            "lines": [
                {"style": f"{line.get_linestyle()}{line.get_marker()}", "x": digest(x), "y": digest(y)}
                for line in axis.lines
                for x, y in [(line.get_xdata(), line.get_ydata())]
            ],
            "images": [[digest(one.get_array()), digest(one.get_clim())] for one in axis.images],
            "collections": [_collection(one) for one in axis.collections],
            "error_bars": len(axis.containers),
        }
        for axis in figure.axes
    ]
    legends = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return {"title": figure.get_suptitle().replace("\N{NO-BREAK SPACE}", " "), "panels": panels, "legend": legends}


def _collection(one: Any) -> dict[str, Any]:
    """What a mesh, a band, hatching or error bars show."""
    out: dict[str, Any] = {"kind": type(one).__name__, "hatches": [h for h in getattr(one, "hatches", []) if h]}
    if one.get_array() is not None and out["kind"] == "QuadMesh":
        return {**out, "values": digest(one.get_array()), "colours": digest(one.get_clim())}
    points = [path.vertices for path in one.get_paths() if len(path.vertices)]
    if not points or out["hatches"]:
        return out  # hatching ends where rounding lets it
    every = np.concatenate(points)
    return {**out, "x": digest(every[:, 0]), "y": digest(every[:, 1])}


def digest(values: Any) -> list[float | None]:
    """Reduce numbers to their count, how many are finite, mean, spread, and eight of them at equal steps."""
    flat = np.ma.filled(np.ma.asarray(values, dtype=float), np.nan).ravel()
    finite = flat[np.isfinite(flat)]
    kept = flat[np.unique(np.linspace(0, len(flat) - 1, min(8, len(flat))).round().astype(int))] if len(flat) else flat
    mean, spread = (float(finite.mean()), float(finite.std())) if len(finite) else (math.nan, math.nan)
    return [_short(v) for v in (len(flat), len(finite), mean, spread, *kept.tolist())]


def _short(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def unlike(found: Any, reference: Any, tolerance: float, where: str = "figures") -> list[str]:
    """Compare structures of figures: words exactly, lists of numbers within a part of their largest one."""
    if isinstance(reference, dict):
        if not isinstance(found, dict) or found.keys() != reference.keys():
            return [f"{where}: {found}, reference {reference}"]
        return [line for key in reference for line in unlike(found[key], reference[key], tolerance, f"{where}.{key}")]
    if isinstance(reference, list):
        if not isinstance(found, list) or len(found) != len(reference):
            return [f"{where}: {found}, reference {reference}"]
        if reference and all(isinstance(v, (int, float)) or v is None for v in reference):
            return _unlike_numbers(found, reference, tolerance, where)
        pairs = enumerate(zip(found, reference, strict=True))
        return [line for i, pair in pairs for line in unlike(*pair, tolerance, f"{where}[{i}]")]
    return [] if found == reference else [f"{where}: {found!r}, reference {reference!r}"]


def _unlike_numbers(found: list[Any], reference: list[Any], tolerance: float, where: str) -> list[str]:
    counts, rest = slice(0, 2), slice(2, None)
    size = max((abs(v) for v in reference[rest] if v is not None), default=0.0)
    near = found[counts] == reference[counts] and all(
        (a is None) == (b is None) and (a is None or abs(a - b) <= tolerance * size)
        for a, b in zip(found[rest], reference[rest], strict=True)
    )
    return [] if near else [f"{where}: {found}, reference {reference}, tolerance {tolerance:g}"]


def figure_tolerance(name: str) -> float:
    """Return how far drawn numbers of a recipe may be from the pinned ones, as a part of the largest of a line."""
    return 0.05 if name in NETWORKS else 1e-3


def pinned_rows(path: Path) -> list[list[str]]:
    """Return header and at most `MOST_ROWS` evenly spread rows, each with its number in front."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    kept = np.unique(np.linspace(0, len(rows) - 1, min(MOST_ROWS, len(rows))).round().astype(int))
    return [["row", *header], *([str(i), *rows[i]] for i in kept)]


def differences(name: str, found: list[list[str]], reference: list[list[str]]) -> list[str]:
    """Compare pinned rows; one line per cell that differs, with value, reference, difference and tolerance."""
    if not found or not reference:
        return [] if found == reference else [f"{name}: {len(found)} lines, reference {len(reference)}"]
    if found[0] != reference[0]:
        return [f"{name}: columns {found[0]}, reference {reference[0]}"]
    if len(found) != len(reference):
        return [f"{name}: {len(found)} lines, reference {len(reference)}"]
    lines = []
    for row, expected in zip(found[1:], reference[1:], strict=True):
        for column, value, wanted in zip(found[0], row, expected, strict=True):
            if problem := _difference(name, column, value, wanted):
                lines.append(f"{name} row {row[0]} {column}: {problem}")
    return lines


def _difference(name: str, column: str, value: str, wanted: str) -> str | None:
    try:
        number, reference = float(value), float(wanted)
    except ValueError:
        return None if value == wanted else f"value {value!r}, reference {wanted!r}"
    if column == "residual" and name.split()[0] not in NETWORKS:
        return None if number <= LARGEST_RESIDUAL else f"value {number:g}, tolerance {LARGEST_RESIDUAL:g}"
    if number == reference or (math.isnan(number) and math.isnan(reference)):
        return None
    relative, absolute = tolerance(name, column)
    allowed = absolute + relative * abs(reference)
    if abs(number - reference) <= allowed:
        return None
    return f"value {value}, reference {wanted}, difference {number - reference:.3g}, tolerance {allowed:.3g}"


def tolerance(name: str, column: str) -> tuple[float, float]:
    """Return the (relative, absolute) tolerance of a column in a recipe's table."""
    if name.split()[0] in NETWORKS:
        if column == "time_error":
            return FLIPS
        return SPREAD if column.endswith("_se") or column == "residual" else SAMPLED
    if column.startswith("sim_"):
        return TOLERANCE["sim_"]
    if name.split()[0] in BAYES:
        return ROUNDING if column.startswith("gap") else SADDLE
    return TOLERANCE.get(column, INTEGRATED.get(name.split()[0], CLOSED_FORM))


def read_reference(name: str) -> Outcome:
    """Read what is pinned for the recipe `name`."""

    def rows(path: Path) -> list[list[str]]:
        if not path.exists():
            return []
        with path.open(encoding="utf-8", newline="") as stream:
            return list(csv.reader(stream))

    figures = json.loads((REFERENCE / "figures" / f"{name}.json").read_text(encoding="utf-8"))
    tables = REFERENCE / "recipes"
    return Outcome(rows(tables / f"{name}.csv"), rows(tables / f"{name}.boundary.csv"), figures)


def _on_one_line(numbers: re.Match[str]) -> str:
    return " ".join(numbers[0].split())


def write_reference(name: str, outcome: Outcome) -> None:
    """Pin the outcome of the recipe `name`."""
    for part in ("recipes", "figures"):
        (REFERENCE / part).mkdir(parents=True, exist_ok=True)
    for suffix, rows in (("", outcome.table), (".boundary", outcome.boundary)):
        path = REFERENCE / "recipes" / f"{name}{suffix}.csv"
        path.unlink(missing_ok=True)
        if rows:
            with path.open("w", encoding="utf-8", newline="") as stream:
                csv.writer(stream, lineterminator="\n").writerows(rows)
    text = re.sub(r"\[[^\[\]{}\"]*\]", _on_one_line, json.dumps(outcome.figures, indent=1, ensure_ascii=False)) + "\n"
    (REFERENCE / "figures" / f"{name}.json").write_text(text, encoding="utf-8")
