"""The points of a grid of nonlinear networks as tasks of a sweep.

Every point of the grid is solved on every draw of the data. Data and neurons depend on the seed and the draw alone,
so that they are the same all over a grid and differences between its points are not hidden by their noise.
"""

import base64
import io
import math
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tlcli.arrays import Array, Floats
from tlcli.dmft.activations import activation
from tlcli.dmft.deep.size import DeepSize, expected_neurons, expected_rank, size_of
from tlcli.dmft.devices import cuda
from tlcli.dmft.ensemble import Numerics
from tlcli.dmft.network_transfer import check_two_time, moments_of, solve_transfer
from tlcli.dmft.settings import Wanted, check_descent, check_steps
from tlcli.errors import UsageError, digits
from tlcli.options import OPTIONS
from tlcli.options.columns import OVERFITTING, SAMPLED, TESTED
from tlcli.status import Status
from tlcli.sweep.drawn import Drawn
from tlcli.sweep.forms import check_arrays, check_notes, check_numbers, check_texts, with_errors
from tlcli.sweep.runner import Task
from tlcli.tasks.arrays import ROWS
from tlcli.tasks.cifar import cifar_location
from tlcli.tasks.data import DEFAULT_PTEST
from tlcli.tasks.transfer_tasks import TransferData, transfer_data
from tlcli.theories.base import Case
from tlcli.theories.network.layers import LAYER_COLUMNS
from tlcli.theories.network.losses import check_losses
from tlcli.training import TransferSettings, parameters

ENGINE = "10"  # of the numbers that averages over samples share
VERSION = f"{ENGINE}.3"
FUNCTION = "tlcli.theories.network.points:point"

DURATION = 100.0  # of a stage, unless said otherwise
LONGEST = 1e4  # of a stage that ends at rest
RECORDS = 31  # of a stage whose curve is asked for

NUMERICS = (
    "population",
    "neurons",
    "repeats",
    "accuracy",
    "integrator",
    "tolerance",
    "dt",
    "until",
    "device",
    "basis_tolerance",
)
EXTRA = ("two_time", "responses", "test_kernels")  # what kernels.npz may hold besides
_DATA = ("source", "target", "dim", "rho", "noise1", "noise2", "p1", "p2", "ptest", "raw_inputs", "colour")
LABELS = ("flips1", "flips2", "meaning")  # only where they are given: other points keep the keys they are stored under
_TRAINING = tuple(dict.fromkeys(name for where in ("rich", "frozen") for name in parameters(where)))
_WHOLE = tuple(name for name in _TRAINING if (domain := OPTIONS[name].domain) and domain.whole)
_LAYERS = ("depth", "freeze", "reinit_from", "ablate")
_KERNEL = re.compile(r"(phi|g|ntk)(_layer\d+)?(_se)?_(start|stage\d)")  # between points of the data


def samples(name: str, value: float, dim: int) -> int:
    """Return the number of samples P: `value` itself for p1 and p2, round(value D) for alpha1 and alpha2.

    Raises UsageError where this is no number from 1.
    """
    if math.isinf(value):
        raise UsageError(f"{name} = inf is no number of samples; a network needs a finite {name}.")
    found = value * dim if name.startswith("alpha") else value
    if math.isinf(found):
        raise UsageError(f"{name} = {value:g} is too much at D = {dim}: P = {name} D is beyond all numbers; use less.")
    count = round(found)
    if count < 1:
        raise UsageError(f"{name} = {value:g} leaves no sample at D = {dim}; use at least {name} = {1 / dim:g}.")
    return count


def step_of(integrator: str | None, dt: float | None) -> float | None:
    """Return the step of gradient descent, which fixes the times that can be recorded; None for gradient flow."""
    return dt if integrator == "euler" else None


def recorded(line: Floats | None, end: float, duration: float = DURATION, step: float | None = None) -> list[float]:
    """Return the recorded times of a stage that lasts to `end`, for its curve: those of `line`, or 31 times.

    The 31 are equally spaced from 0, or logarithmically where the stage has the length of one that ends at rest; with a
    `step` of gradient descent they are those of its times that are nearest.
    """
    if line is not None:
        return [*(t for t in line.tolist() if t < end), end]
    if not 0 < end < math.inf:
        return [end]
    if duration == LONGEST:
        times = np.array([0.0, *np.geomspace(min(0.1, end / 10), end, RECORDS - 1).tolist()[:-1], end])
    else:
        times = np.linspace(0.0, end, RECORDS)
    if step is not None:
        snapped = {float(f"{step * round(t / step):.12g}") for t in times.tolist()}
        return [*sorted(t for t in snapped if t < end * (1 - 1e-9)), end]
    return times.tolist()


def stage_times(case: Case, point: Mapping[str, float]) -> tuple[list[float], list[float]]:
    """Return the recorded times of both stages at a point of the grid; the last of each is its duration."""
    words, layout = case.words, case.words["layout"]
    line = None if words.get("times") is None else np.sort(np.asarray(words["times"], dtype=float))
    if layout == "curve":
        duration = LONGEST if words.get("until") is not None else DURATION
        step = step_of(words.get("integrator"), words.get("dt"))
        return recorded(line, point["t1"], duration, step), recorded(line, point["t2"], duration, step)
    last = [point["time"]] if line is None else line.tolist()
    return (last, []) if layout == "pretrain" else ([point["t1"]], last)


def parameters_of(case: Case, point: Mapping[str, float]) -> dict[str, Any]:
    """Return what determines the training at a point of the grid, JSON-plain: data, network, training and times."""
    values = {**case.words, **point}
    dim = int(values["dim"])
    out = {name: values[name] for name in (*_DATA, *_TRAINING) if name in values}
    out |= {name: int(values[name]) for name in _WHOLE if name in values}
    out |= file_options(values)
    out |= {name: values[name] for name in LABELS if values.get(name) is not None}
    out["dim"], out["rho"] = dim, values.get("rho", 1.0)
    for stage in ("1", "2"):
        for size in (f"p{stage}", f"alpha{stage}"):
            if values.get(size) is not None:
                out[f"p{stage}"] = samples(size, values[size], dim)
    if out.get("gamma2") is None:
        out["gamma2"] = out["gamma0"]
    out["rule"] = "frozen" if case.theory.name == "network-frozen" else "rich"
    out["times1"], out["times2"] = stage_times(case, point)
    return out


def tasks_of(case: Case, seed: int) -> Drawn:
    """Return a task per point of the grid and draw of the data, draws fastest; the first draw is kept."""
    words = case.words
    more = {name: words[name] for name in NUMERICS if words.get(name) is not None}
    if case.words["layout"] != "end":
        more |= {"predictions": bool(words.get("predictions")), "kernels": _kernels(words)}
        more |= {name: True for name in EXTRA if words.get(name)}
    more |= {**identity_of(case), "seed": seed, "draw": 0, "keep": words["layout"] != "end"}
    points = enumerate(case.grid.points())
    first = [Task(FUNCTION, {**parameters_of(case, point), **more}, seed, index) for index, point in points]
    return Drawn(first, int(words["draws"]), {"keep": False})


def identity_of(case: Case) -> dict[str, str]:
    """Return checksums of what lies in the user's files: a stored point must not outlive their change.

    These are a `file:` task, the CIFAR-10 archive or batch files, and the module of the user's own activation.
    """
    import importlib

    found = {}
    source, phi = str(case.words["source"]).strip(), str(case.words["activation"])
    if source.startswith("file:"):
        found["file_sha256"] = _checksum([Path(source.removeprefix("file:"))])
        found["file_rows"] = ROWS
    if source.startswith("cifar10:"):
        place = cifar_location()
        found["cifar_sha256"] = _checksum([place] if place.is_file() else sorted(place.glob("*_batch*")))
    if ":" in phi:
        activation(phi)
        path = getattr(importlib.import_module(phi.partition(":")[0]), "__file__", None)
        if path:
            found["activation_sha256"] = _checksum([Path(path)])
    return found


def file_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is left out of a file, where anything is: other points keep the keys they are stored under."""
    return {name: values[name] for name in ("drop_columns",) if values.get(name) is not None}


def _checksum(paths: Sequence[Path]) -> str:
    import hashlib

    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def check_points(case: Case) -> None:
    """Refuse settings that no network has, at any point of the grid, before anything is computed.

    Raises:
        UsageError: as `TransferSettings` and `Numerics`; a learning rate without gradient descent, kernels at a time
            that is not recorded, a device that is not there.
    """
    words = case.words
    numerics = numerics_of({**words, "seed": 0, "draw": 0})
    if numerics.dt is not None and numerics.integrator not in ("euler", "richardson"):
        raise UsageError(
            f"dt = {numerics.dt:g} is the learning rate of --integrator euler; {numerics.integrator} has none."
        )
    settings = [settings_of(parameters_of(case, point)) for point in case.grid.points()]
    check_losses(case, settings)
    check_deep(numerics, [one.deep for one in settings])
    _refuse_without_effect(numerics, settings)
    if numerics.device == "cuda":
        cuda()
    for point in case.grid.points():
        settings = settings_of(parameters_of(case, point))
        check_descent(settings, numerics.integrator, numerics.dt, numerics.until)
        if numerics.integrator == "euler" and numerics.dt is not None:
            check_steps(settings, numerics.dt)
        times = np.array([*settings.times1, *settings.times2])
        for wanted in _kernels(words) or ():
            if not np.any(np.isclose(times, wanted, rtol=1e-9, atol=1e-12)):
                if words.get("kernels") is None:
                    raise UsageError(
                        f"--responses of the steps of {numerics.integrator} to the end of stage 1 stand at t = 0 of "
                        "stage 2, which is not recorded; add 0 to --times, or give moments with --kernels."
                    )
                raise UsageError(f"kernels: {digits(wanted)} is no recorded time; add it to --times.")
        check_two_time(settings, moments_of(settings, _kernel_times(words)), _trained(case, point), _wanted(words))


def _trained(case: Case, point: Mapping[str, Any]) -> int:
    """Return the number of training points of both stages; none where a file says it."""
    found = parameters_of(case, point)
    return int((found.get("p1") or 0) + (found.get("p2") or 0))


def _wanted(words: Mapping[str, Any]) -> Wanted:
    return Wanted(**{name: bool(words.get(name)) for name in EXTRA})


def _kernels(words: Mapping[str, Any]) -> Sequence[float] | None:
    """Return the times at which kernels are kept besides the ends of the stages.

    Responses of discrete steps, which begin at a moment and not before it, vanish between the ends: a step that would
    begin at the end of stage 1 is the first of stage 2. So the starts are kept too, unless other moments are asked for.
    """
    if words.get("kernels") is None and words.get("responses"):
        return [0.0] if words.get("integrator") in ("euler", "richardson") else None
    return words.get("kernels")


def _kernel_times(words: Mapping[str, Any]) -> tuple[float, ...] | None:
    found = _kernels(words)
    return None if found is None else tuple(found)


def check_deep(numerics: Numerics, deep: Sequence[bool]) -> None:
    """Refuse numerics that the networks of a grid, `deep` or not, do not have.

    Raises:
        UsageError: see `tlcli.dmft.deep.solve.check_numerics`; options of deep networks alone for two layers.
    """
    from tlcli.dmft.deep.solve import check_numerics

    if any(deep):
        check_numerics(numerics)
    for name, given in (
        ("integrator: richardson", numerics.integrator == "richardson"),
        ("basis_tolerance", numerics.basis_tolerance is not None),
    ):
        if given and not any(deep):
            raise UsageError(f"{name} is for deep networks; give --depth 2 or more, or leave it out.")


def _refuse_without_effect(numerics: Numerics, points: Sequence[TransferSettings]) -> None:
    """Refuse what no point of a grid uses: a frozen kernel, a readout at the switch, numerics of deep networks.

    Raises:
        UsageError: there are such.
    """
    from tlcli.dmft.deep.solve import without_effect

    frozen = [point.regresses for point in points if point.times2]
    if frozen and not any(frozen) and points[0].kernel != "feature":
        raise UsageError(
            f"--kernel {points[0].kernel} has no effect at gamma2 above 0, where no kernel is frozen; give --gamma2 0 "
            "or --solver network-frozen, or leave it out."
        )
    if frozen and all(frozen) and points[0].readout != "carry":
        raise UsageError(
            f"--readout {points[0].readout} has no effect on frozen features, whose readout is learnt from zero; leave "
            "it out."
        )
    if numerics.population == "quadrature" and numerics.repeats is not None:
        raise UsageError(
            f"--repeats {numerics.repeats} has no effect with --population quadrature, a rule without chance, whose "
            "error is the distance from coarser ones; leave it out."
        )
    if numerics.tolerance is not None and numerics.integrator in ("euler", "richardson"):
        raise UsageError(
            f"tolerance = {numerics.tolerance:g} has no effect with --integrator {numerics.integrator}, whose steps "
            "are dt; leave --tolerance out."
        )
    if not all(point.deep for point in points):
        return
    if all(point.gamma0 == 0 and (point.regresses or not point.times2) for point in points):
        usual = Numerics()
        for name in NUMERICS:
            if name != "device" and getattr(numerics, name) != getattr(usual, name):
                raise UsageError(
                    f"{name} = {getattr(numerics, name)} has no effect at gamma0 = 0: lazy networks are solved "
                    f"exactly; leave --{name.replace('_', '-')} out."
                )
    why = without_effect(activation(points[0].activation), numerics)
    if why:
        raise UsageError(why)


def settings_of(p: Mapping[str, Any]) -> TransferSettings:
    """Return the training of one point."""
    given = {name: p[name] for name in _TRAINING if p.get(name) is not None}
    return TransferSettings(**given, times1=tuple(p["times1"]), times2=tuple(p["times2"]), target=p["rule"])


def numerics_of(p: Mapping[str, Any]) -> Numerics:
    """Return how the engine solves one point; what only deep networks have is left out for the others of a grid."""
    given = {name: p[name] for name in NUMERICS if p.get(name) is not None}
    if "rule" in p and not settings_of(p).deep:
        given.pop("basis_tolerance", None)
        if given.get("integrator") == "richardson":  # gradient flow, as rkc is
            given = {name: value for name, value in given.items() if name not in ("integrator", "dt")}
    return Numerics(**given, seed=int(p["seed"]), draw=int(p["draw"]))


def expected_size_of(p: Mapping[str, Any], scale: float = 1.0) -> DeepSize:
    """Return what the process of a deep point needs; without P1 and P2 they are those of the data.

    `scale`: how many times the expected directions a look at some of the points has found.
    """
    sizes = [p.get("p1"), p.get("p2") if p["times2"] else 0]
    dim = p.get("dim")
    if None in (*sizes, dim):
        data = data_of(p)
        sizes = [len(data.y_source), len(data.y_target) if p["times2"] else 0]
        dim = data.x_source.shape[1]
    act, numerics, gamma = activation(p["activation"]), numerics_of(p), max(float(p["gamma0"]), float(p["gamma2"] or 0))
    others = DEFAULT_PTEST if p.get("ptest") is None else int(p["ptest"])
    samples = sum(int(n or 0) for n in sizes)
    duration = max((float(times[-1]) for times in (p["times1"], p["times2"]) if times), default=0.0)
    rank = math.ceil(scale * expected_rank(act, samples, gamma, duration))
    neurons = expected_neurons(numerics, gamma, rank)
    return size_of(act, int(p["depth"]), samples + others, int(dim or 1), rank, neurons, numerics)


def data_of(p: Mapping[str, Any]) -> TransferData:
    """Return the data of one point and draw."""
    return transfer_data(
        p["source"],
        p["target"],
        dim=p["dim"],
        rho=p["rho"],
        noise1=p.get("noise1", 0.0),
        noise2=p.get("noise2", 0.0),
        p1=p.get("p1"),
        p2=p.get("p2"),
        ptest=p.get("ptest"),
        seed=int(p["seed"]),
        draw=int(p["draw"]),
        raw_inputs=bool(p.get("raw_inputs")),
        drop_columns=p.get("drop_columns"),
        meaning=p.get("meaning"),
        flips=(float(p.get("flips1") or 0.0), float(p.get("flips2") or 0.0)),
        colour=bool(p.get("colour")),
    )


def point(parameters: Mapping[str, Any], seeds: np.random.SeedSequence) -> dict[str, Any]:
    """Solve one point on one draw of the data; the streams are those of its seed and draw, not `seeds`.

    Returns the engine's columns (lists over all records), status, message, info, the description of the data, and
    with `keep` its arrays as the base64 text of an NPZ file.
    """
    p = parameters
    data: Any = data_of(p)
    found = solve_transfer(
        data,
        settings_of(p),
        numerics_of(p),
        predictions=bool(p.get("predictions")),
        kernel_times=_kernel_times(p),
        wanted=replace(_wanted(p), layers=any(name in p for name in _LAYERS)),
    )
    record: dict[str, Any] = {
        "columns": {name: np.asarray(column).tolist() for name, column in found.columns.items()},
        "status": found.status,
        "message": found.message,
        "info": found.info,
        "data": data.description,
    }
    if p["keep"]:
        variance = float(np.mean(np.sum(data.x_target**2, axis=1)) / data.x_target.shape[1])
        labels = {"y_test_source": data.y_test_source, "y_test_target": data.y_test_target}
        for word in ("source", "target"):
            names = data.description.get(f"{word}_classes")
            labels |= (
                {f"class_names_{word}": np.array(names, dtype=str)}
                if names and f"classes_{word}" in found.arrays
                else {}
            )
        record["arrays"] = pack({**found.arrays, **labels, "variance_start": np.array(variance)})
    return record


def check_record(p: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Raise one of `tlcli.sweep.forms.WRONG` for a stored record that `point` cannot have returned."""
    records = (len(p["times1"]) + len(p["times2"]),)
    layers = range(1, int(p.get("depth", 1)) + 1) if any(name in p for name in _LAYERS) else ()
    sampled = [*SAMPLED, *(f"layer{layer}_{word}" for layer in layers for word in LAYER_COLUMNS)]
    tested = [f"{name}_test_se" for name in (*SAMPLED, OVERFITTING) if name in (*TESTED, OVERFITTING)]
    check_numbers(record["columns"], ["stage", "time", "predictor_distance", *with_errors(sampled), *tested], records)
    info, data = record["info"], record["data"]
    check_numbers(info, ["reached", "accuracy", *(["time_error"] if "time_error" in info else [])])
    check_numbers(data, ["p1", "p2"])
    check_notes(info["notes"])
    check_notes(data.get("notes", []))
    check_texts(record, ["status", "message", *(["arrays"] if p["keep"] else [])])
    Status[record["status"].upper()]
    if p["keep"]:
        _check_arrays(unpack(record["arrays"]))


def _check_arrays(found: Mapping[str, Array]) -> None:
    """Raise ValueError or KeyError unless kernels and labels are there, in the shapes that figures count on."""
    n1, n2 = int(found["n_source"]), int(found["n_target"])
    kernel, bins = (len(found["points"]), n1 + n2), len(found["bin_edges"]) - 1
    shapes = dict.fromkeys(["phi_start", "g_start", *filter(_KERNEL.fullmatch, found)], kernel)
    shapes |= {name: (bins,) for name in found if name.startswith("density")}
    shapes |= {f"y_{name}": (n, *found[f"y_{name}"].shape[1:]) for name, n in (("source", n1), ("target", n2))}
    check_arrays(found, {**shapes, "variance_start": ()})


def pack(arrays: Mapping[str, Array]) -> str:
    """Return arrays as text: an NPZ file in base64."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    return base64.b64encode(stream.getvalue()).decode("ascii")


def unpack(text: str) -> dict[str, Array]:
    """Undo `pack`. Raises ValueError for a text that it cannot have made."""
    try:
        with np.load(io.BytesIO(base64.b64decode(text, validate=True))) as archive:
            return {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, EOFError, AttributeError) as error:  # AttributeError: the text of a lone NPY file
        raise ValueError("no arrays") from error
