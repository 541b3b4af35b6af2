"""The points of a grid of Bayesian networks as tasks of a sweep: a pair of tasks, on every draw of the data.

Data depend on the seed and the draw alone, so that
differences between the points of a grid are not hidden by their noise.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tlcli.arrays import Array, Floats
from tlcli.bayes.bayes_transfer import ROUTES, BayesNumerics, BayesResult, BayesSettings, solve_bayes
from tlcli.bayes.densities import densities
from tlcli.bayes.likelihood import check_limit
from tlcli.bayes.loss_columns import needs_of
from tlcli.bayes.observables import CERTIFICATE, NEEDS, BayesProblem
from tlcli.errors import UsageError
from tlcli.losses import loss_of
from tlcli.sweep.drawn import Drawn
from tlcli.sweep.forms import check_arrays, check_notes, check_numbers, check_texts
from tlcli.sweep.runner import Task
from tlcli.tasks.polynomial import is_polynomial
from tlcli.theories.base import Case
from tlcli.theories.bayes.results import ERRORS
from tlcli.theories.network.losses import check_noise
from tlcli.theories.network.points import LABELS, data_of, file_options, identity_of, pack, samples, unpack

VERSION = "10"
STORE = "bayes"
FUNCTION = "tlcli.theories.bayes.points:point"

DEFAULT_PTEST = 200  # where kernels between all points are sums over many neurons
_MOST_KEPT = 400  # training points of each task in the kernels that are kept
_MOST_TESTED = 300  # test points in them, as for other networks
_LOSSES = ("loss1", "loss2", "label_smoothing", "class_weights")
_MOST_EXACT = 400  # points up to which they keep double precision


def tasks_of(case: Case, seed: int) -> Drawn:
    """Return a task per point of the grid and draw of the data.

    Neighbours share their source, which a process solves once.

    The parameters of the source stand before those of the target in the grid.
    """
    words = case.words
    more: dict[str, Any] = {"seed": seed, **identity_of(case)}
    if words.get("moves") is not None:
        more["moves"] = words["moves"]
    if words["layout"] == "saddle":
        more["predictions"] = bool(words.get("predictions"))
    more |= {"draw": 0, "keep": words["layout"] == "saddle"}
    points = enumerate(case.grid.points())
    first = [Task(FUNCTION, {**parameters_of(case, point), **more}, seed, index) for index, point in points]
    # Draws slowest: points of one source follow each other in the grid.
    return Drawn(first, int(words["draws"]), {"keep": False}, slowest=True)


def parameters_of(case: Case, point: Mapping[str, float]) -> dict[str, Any]:
    """Return what determines the answer at a point of the grid, JSON-plain: data and networks."""
    values = {**case.words, **point}
    dim = int(values["dim"])
    out = {name: values[name] for name in ("source", "target", "noise1", "noise2", "activation")}
    out |= {name: float(values[name]) for name in ("gamma0", "beta", "delta")}
    for name, other in (("gamma2", "gamma0"), ("beta2", "beta")):
        out[name] = float(values[other] if values.get(name) is None else values[name])
    out["dim"], out["rho"] = dim, values.get("rho", 1.0)
    for stage in ("1", "2"):
        for size in (f"p{stage}", f"alpha{stage}"):
            if values.get(size) is not None:
                out[f"p{stage}"] = samples(size, values[size], dim)
    out["ptest"] = values.get("ptest")
    costly = case.theory.name == "bayes-network" or case.experiments
    if out["ptest"] is None and costly and is_polynomial(str(values["source"]).strip()):
        out["ptest"] = DEFAULT_PTEST
    out |= {name: True for name in ("raw_inputs", "colour") if values.get(name)}
    given = (*LABELS, *_LOSSES)  # only where they are: other points keep the keys they are stored under
    out |= {name: values[name] for name in given if values.get(name) is not None}
    out |= file_options(values)
    return out


def check_points(case: Case) -> None:
    """Refuse values that no network has, at any point of the grid, before anything is computed.

    Raises:
        DomainError: as `BayesSettings`.
        UsageError: a number of samples that is none, --optimal-delta without several delta.
    """
    if case.words.get("optimal_delta") and "delta" not in case.grid.axes:
        raise UsageError(f"--optimal-delta chooses among the grid's; {case.theory.name} needs several --delta for it.")
    settings = [settings_of(parameters_of(case, point)) for point in case.grid.points()]
    if case.words.get("losses"):
        _check_losses(case, settings)


def _check_losses(case: Case, settings: Sequence[BayesSettings]) -> None:
    """Refuse label smoothing of losses without it, noise of classes, and infinite temperatures without a limit."""
    check_noise(case)
    for one in settings:
        losses = [loss_of(text or "mse") for text in (one.loss1, one.loss2)]
        if one.label_smoothing and not any(loss.smooths for loss in losses):
            loss_of(losses[-1].text, one.label_smoothing)  # refuses
        for loss, beta, name in zip(losses, (one.beta, one.second_beta), ("beta", "beta2"), strict=True):
            check_limit(beta, loss_of(loss.text, one.label_smoothing if loss.smooths else 0.0), name)


def settings_of(p: Mapping[str, Any]) -> BayesSettings:
    """Return the settings of one point."""
    losses = {name: p[name] for name in _LOSSES if p.get(name) is not None}
    return BayesSettings(p["activation"], p["gamma0"], p["gamma2"], p["beta"], p["beta2"], p["delta"], **losses)


def point(parameters: Mapping[str, Any], seeds: np.random.SeedSequence) -> dict[str, Any]:
    """Solve one point on one draw of the data; the streams are those of its seed and draw, not `seeds`.

    Returns columns with their errors, status, reasons, residual, gap, gap_floor, certificate, info, the description of
    the data, and with `keep` kernels and predictions as the base64 text of an NPZ file.
    """
    p = parameters
    data: Any = data_of(p)
    # The same streams all over a grid: a source keeps its neurons while its targets change.
    numerics = BayesNumerics(seed=int(p["seed"]) * 1_000_003 + int(p["draw"]), moves=p.get("moves"))
    settings = settings_of(p)
    found = solve_bayes(data, settings, numerics)
    record: dict[str, Any] = {
        "columns": {**found.values, **found.errors},
        "status": found.status,
        "reasons": list(found.reasons),
        "residual": found.residual,
        "gap": found.gap,
        "gap_floor": found.gap_floor,
        "certificate": found.certificate,
        "info": found.info,
        "data": data.description,
    }
    if p["keep"]:
        words = {"seed": numerics.seed, "predictions": bool(p.get("predictions"))}
        record["arrays"] = pack(arrays_of(data, settings, found, **words))
    return record


def check_record(p: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Raise one of `tlcli.sweep.forms.WRONG` for a stored record that `point` cannot have returned."""
    info, sampled = record["info"], record["info"]["route"] == "sampling"
    names = list(NEEDS)
    if "loss1" in p:
        names = [name for name in needs_of((True, True)) if name in record["columns"]]
        if "loss" not in names:
            raise ValueError("no loss")
    check_numbers(record["columns"], [*names, *(ERRORS if sampled else ())])
    check_numbers(record, ["residual", "gap", "gap_floor"])
    certificate = () if info["route"] == "linear" else CERTIFICATE
    check_numbers(record["certificate"], certificate)
    check_numbers(record["data"], ["p1", "p2"])
    for notes in (record["reasons"], info["notes"], record["data"].get("notes", [])):
        check_notes(notes)
    check_texts(record, ["status", *(["arrays"] if p["keep"] else [])])
    known = record["status"] in ("converged", "not_converged") and info["route"] in ROUTES
    if not known or len(record["certificate"]) != len(certificate):
        raise ValueError("an unknown status, route or certificate")
    if p["keep"]:
        _check_arrays(unpack(record["arrays"]))


def _check_arrays(found: Mapping[str, Array]) -> None:
    """Raise ValueError or KeyError unless kernels, duals and labels are there as `arrays_of` makes them."""
    n1, n2, tested = (len(found[f"points_{name}"]) for name in ("source", "target", "test"))
    n, shapes = n1 + n2, dict[str, tuple[int, ...]]()
    for name, size in (("source", n1), ("target", n2)):
        shapes |= {f"kernel_{name}": (n, n), f"kernel_{name}_test": (tested, n + tested)}
        shapes |= {f"{word}_{name}": (size, *found[f"{word}_{name}"].shape[1:]) for word in ("labels", "dual")}
    check_arrays(found, shapes)


def arrays_of(
    data: Any, settings: BayesSettings, found: BayesResult, *, seed: int = 0, predictions: bool = False
) -> dict[str, Any]:
    """Return the arrays of one point: kernels between training points sorted by their labels, and with test points.

    Of each task at most 400 training points, spread evenly over the sorted ones, in `points_source` and
    `points_target` (indices into the task's training points), with their labels and the dual vectors
    v = (Φ + I/β)⁻¹y there, `dual_source` and `dual_target`; and the first 300 test points, in `points_test`.
    `kernel_source` is Φ̄ and `kernel_target` Φ, both (n, n) between [source points, target points];
    `kernel_source_test` and `kernel_target_test` (n_test, n + n_test) have the test points as rows, and the same points
    and then the test points as columns. In double precision where n + n_test <= 400, else in single; NaN where a stage
    is not certified.
    `predictions` (2, n_input) are those of the source network and of the target network at all points in the order of
    the data, `predictions_se` their unknown errors; with several outputs they are `predictions_stage1` and
    `predictions_stage2`, (1, n_input) or (1, n_input, C), and duals are (P, C). The rest are `tlcli.bayes.densities`,
    drawn with `seed`.
    """
    n1, n2 = len(data.y_source), len(data.y_target)
    at1, at2 = _spread(data.y_source), _spread(data.y_target)
    tested = np.arange(min(len(data.x_test), _MOST_TESTED))
    train, rows = np.concatenate([at1, n1 + at2]), n1 + n2 + tested
    both = np.concatenate([train, rows])
    kind = np.float64 if len(both) <= _MOST_EXACT else np.float32
    out: dict[str, Any] = {
        "points_source": at1,
        "points_target": at2,
        "points_test": tested,
        "labels_source": data.y_source[at1],
        "labels_target": data.y_target[at2],
    }
    for name, saddle, at, size in (("source", found.source, at1, n1), ("target", found.target, at2, n2)):
        dual = saddle.v if saddle is not None and saddle.converged else np.full(size, np.nan)
        out[f"dual_{name}"] = dual[at]
    route = str(found.info["route"])
    out |= densities(route, BayesProblem.of(data), settings, found.source, found.target, seed)
    if "bin_edges" in out:
        out["variance_start"] = np.array(np.mean(np.sum(data.x_target**2, axis=1)) / data.x_target.shape[1])
    outputs = []
    for name, saddle in (("source", found.source), ("target", found.target)):
        kept = saddle if saddle is not None and saddle.converged else None
        for suffix, at, to in (("", train, train), ("_test", rows, both)):
            block = np.full((len(at), len(to)), np.nan) if kept is None else kept.kernel[np.ix_(at, to)]
            out[f"kernel_{name}{suffix}"] = block.astype(kind)
        outputs.append(np.full(n1 + n2 + len(data.x_test), np.nan) if kept is None else kept.outputs)
    if predictions:
        out |= _predictions(outputs)
        out |= {name: getattr(data, name) for name in ("y_source", "y_target", "y_test_source", "y_test_target")}
    return out


def _predictions(outputs: Sequence[Floats]) -> dict[str, Floats]:
    """Return the predictions of both networks in one array, or by stage (1, n[, C]) where one has several outputs."""
    if all(one.ndim == 1 for one in outputs):
        return {"predictions": np.array(outputs), "predictions_se": np.full((2, len(outputs[0])), np.nan)}
    found: dict[str, Floats] = {}
    for stage, one in enumerate(outputs, start=1):
        found |= {
            f"predictions_stage{stage}": one[None],
            f"predictions_stage{stage}_se": np.full_like(one[None], np.nan),
        }
    return found


def in_data_order(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays of `arrays_of`, of one point or stacked over a grid, with training points as the data has them.

    `points_source` and `points_target` then grow; labels and kernels follow them.
    """
    out = dict(arrays)
    for name in arrays:
        if not name.startswith("points_source"):
            continue
        end = name.removeprefix("points_source")  # of one point of a grid
        orders = [np.argsort(arrays[f"points_{task}{end}"], axis=-1) for task in ("source", "target")]
        for task, order in zip(("source", "target"), orders, strict=True):
            for kind in ("points", "labels", "dual"):
                out[f"{kind}_{task}{end}"] = np.take_along_axis(arrays[f"{kind}_{task}{end}"], order, -1)
        train = np.concatenate([orders[0], orders[0].shape[-1] + orders[1]], axis=-1)
        tested = train.shape[-1] + np.arange(arrays[f"points_test{end}"].shape[-1])
        both = np.concatenate([train, np.broadcast_to(tested, (*train.shape[:-1], len(tested)))], axis=-1)
        for task in ("source", "target"):
            rows = np.take_along_axis(arrays[f"kernel_{task}{end}"], train[..., :, None], -2)
            out[f"kernel_{task}{end}"] = np.take_along_axis(rows, train[..., None, :], -1)
            between = arrays[f"kernel_{task}_test{end}"]
            out[f"kernel_{task}_test{end}"] = np.take_along_axis(between, both[..., None, :], -1)
    return out


def _spread(labels: np.ndarray) -> np.ndarray:
    """Return the indices of points sorted by label, at most `_MOST_KEPT` of them at equal steps."""
    order = np.argsort(labels if labels.ndim == 1 else labels.argmax(axis=1), kind="stable")
    return order[np.unique(np.linspace(0, len(order) - 1, min(len(order), _MOST_KEPT)).round().astype(int))]
