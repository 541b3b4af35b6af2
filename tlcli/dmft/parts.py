"""The pieces of a transfer of an infinitely wide network, trained one by one and joined into columns and arrays."""

import contextlib
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tlcli.arrays import Array, Floats, Indices
from tlcli.batches import Batches
from tlcli.dmft.deep.solve import DeepEnsemble, deep_plan
from tlcli.dmft.ensemble import Numerics, Solution, sample_kernels, solve
from tlcli.dmft.estimates import Piece, estimate, pieces_of, seen_at, spread_of, time_change
from tlcli.dmft.lazy import lazy_solution
from tlcli.dmft.observe import BIN_EDGES
from tlcli.dmft.plan import Plan, plan
from tlcli.dmft.regression import adaptive_predictor, kernel_regression
from tlcli.dmft.settings import Setup
from tlcli.dmft.square_columns import Squares
from tlcli.dmft.stage import Stage
from tlcli.dmft.two_layer import Problem
from tlcli.dmft.two_time_kernels import two_time_arrays
from tlcli.errors import DomainError
from tlcli.training import Surgery

# Neurons of one population per target sample of a frozen kernel: eight of them leave a bias of 1/40, which the
# jackknife takes off to the second order.
_PER_SAMPLE = 5


@dataclass(eq=False)
class TransferResult:
    """Columns (n_record,) over the records of stage 1 and then stage 2, arrays, and how it was reached.

    `columns` holds stage, time, and with `_se` standard errors: loss and source_loss (test), train_loss and
    source_train_loss, baseline and gain (NaN in stage 1), source_, target_ and test_alignment; with `_test_se` the
    errors of means over test points by their number; predictor_distance. `status`: converged, inaccurate (`reached` is
    more than 1.25 times the accuracy asked for) or not_converged, with one sentence as `message`. `info`: population,
    neurons, repeats, streamed, evaluations, rank, dtype, reached (largest error of the loss and the
    baseline, relative to the mean square of the target's labels or to a loss above it), time_error (the part of the
    integration in it), notes.
    """

    columns: dict[str, Array]
    arrays: dict[str, Array]
    status: str
    message: str
    info: dict[str, Any]


class Parts:
    """Runs the pieces of a transfer and joins them."""

    def __init__(self, setup: Setup, numerics: Numerics, moments: list[frozenset[int]]) -> None:
        self.setup, self.numerics, self.moments = setup, numerics, moments
        self.solutions: list[Solution] = []
        self.observed: list[dict[str, Any]] = [{}, {}]
        self.coarse_observed: list[dict[str, Any] | None] = [None, None]
        self.outputs: list[Piece] = []
        self.baseline: Piece | None = None
        self.retimed: list[dict[str, Any]] = [{}, {}]

    def run(self) -> None:
        """Train both stages and the baseline."""
        s, setup = self.setup.settings, self.setup
        rich = bool(s.times2) and not s.regresses
        stages = self._stages()
        if stages:
            main = self._solve(stages, setup.watch(self.moments, whole=s.regresses))
            self._keep_observed(main, 0)
            self.outputs = main.pieces()
        else:
            self.outputs = [Piece(self._lazy_source())]
        if not s.times2:
            return
        if rich:
            scratch = self._solve([setup.stage(2)], None if s.gamma0 > 0 else setup.watch(self.moments[1:], False))
            (self.baseline,) = scratch.pieces()
            if s.gamma0 == 0:
                # The output of a lazy network is carried over times gamma0/gamma2 = 0, its features as they were drawn.
                self.outputs = [self.outputs[0], self.baseline]
                self._keep_observed(scratch, 1)
            return
        scratch_f = self._regress(self._initial())
        self.baseline = Piece(scratch_f)
        self.outputs.append(self._frozen() if s.gamma0 > 0 else self.baseline)

    def _stages(self) -> list[Stage]:
        """Return the stages through which a network is trained; none where the source is learnt lazily."""
        s, setup = self.setup.settings, self.setup
        if s.gamma0 == 0:
            return []
        rich = bool(s.times2) and not s.regresses
        return [setup.stage(1), *([setup.stage(2, s.readout)] if rich else [])]

    def plan(self) -> Plan | None:
        """Return how the costliest network will be solved, before any is; None where all that is learnt is lazy."""
        s, setup = self.setup.settings, self.setup
        stages = self._stages() or ([setup.stage(2)] if s.times2 and not s.regresses else [])
        if not stages:
            return None
        if s.deep:
            return deep_plan(setup.act, stages, self.numerics)
        return plan(Problem(setup.act, setup.geometry, stages), self.numerics, coupled=self._least())

    def _keep_observed(self, found: Solution, first: int) -> None:
        """Keep what was observed, as that of the stages from `first` on."""
        for stage, observed in enumerate(found.observed, first):
            self.observed[stage] = observed
            if found.coarse_observed is not None:
                self.coarse_observed[stage] = found.coarse_observed[stage - first]
            if found.retimed_observed is not None:
                self.retimed[stage] = found.retimed_observed[stage - first]

    def _descent(self, stages: list[Stage]) -> list[Stage]:
        """Return stages with the minibatches and the momentum of stochastic gradient descent."""
        s, n = self.setup.settings, self.numerics
        out = []
        for stage in stages:
            which = 1 if np.array_equal(stage.rows, self.setup.source) else 2
            batches = None if s.batch is None else Batches(len(stage.rows), s.batch, n.seed, n.draw, which)
            out.append(replace(stage, batches=batches, momentum=s.momentum))
        return out

    def _solve(self, stages: list[Stage], watch: Any) -> Solution:
        if self.setup.settings.stochastic:
            stages = self._descent(stages)
        if self.setup.settings.deep:
            # The baseline is a whole network: surgery belongs to the transfer.
            surgery = self.setup.settings.surgery if len(stages) > 1 else Surgery()
            found = self.ensemble.solve(stages, surgery, watch)
            if self.setup.wanted.responses and watch is not None:
                found.join(self.ensemble.again().solve(stages, surgery, self.setup.responding(watch)), "responses")
        else:
            problem = Problem(self.setup.act, self.setup.geometry, stages)
            found = solve(problem, self.numerics, watch, coupled=self._least())
        self.solutions.append(found)
        return found

    @functools.cached_property
    def ensemble(self) -> DeepEnsemble:
        """The deep networks of all repeats, with and without pre-training from the same initial weights."""
        setup = self.setup
        return DeepEnsemble(
            setup.act,
            setup.geometry,
            setup.settings.depth,
            setup.trained,
            self.numerics,
            lambda: setup.initial,
            readouts=setup.readouts,
        )

    def _least(self) -> int:
        """Return how many neurons a population needs so that its frozen kernel is one for so many samples."""
        if not self.setup.settings.regresses:
            return 0
        return math.ceil(_PER_SAMPLE * len(self.setup.target) * max(1.0, 1e-2 / self.numerics.accuracy))

    def _lazy_source(self) -> Floats:
        setup, s = self.setup, self.setup.settings
        return lazy_solution(
            setup.act,
            setup.x,
            setup.source,
            setup.data.y_source,
            s.times1,
            weight_decay=s.weight_decay,
            reduction=s.reduction,
            kernel=setup.initial.ntk[:, setup.source],
            depth=s.depth,
        )

    def _initial(self) -> Floats:
        """Return the frozen kernel at initialisation, all points x target."""
        found = self.setup.initial
        return (found.phi[-1] if self.setup.settings.kernel == "feature" else found.ntk)[:, self.setup.target]

    def _frozen_kernel(self, phi: Floats, g: Floats, points: Any = slice(None)) -> Floats:
        """Return the frozen kernel of a two-layer network, points x target."""
        if self.setup.settings.kernel == "feature":
            return phi
        x = self.setup.x
        return phi + (x[points] @ x[self.setup.target].T / x.shape[1]) * g

    def _regress(self, kernel: Floats) -> Floats:
        s, data = self.setup.settings, self.setup.data
        return kernel_regression(
            kernel[self.setup.target], kernel, data.y_target, ridge=s.second_ridge, time=s.times2, reduction=s.reduction
        )

    def _frozen_shape(self) -> tuple[int, ...]:
        return (len(self.setup.settings.times2), len(self.setup.x))

    def _frozen(self) -> Piece:
        """Regress with the kernel after stage 1, of all repeats together and of parts of them."""
        shape = self._frozen_shape()
        if "phi" not in self.observed[0] or self.solutions[0].message:
            nothing = np.full(shape, np.nan)
            return Piece(nothing, np.full((len(self.solutions[0].f[0]), *shape), np.nan), np.full((2, *shape), np.nan))
        found, rough, later = self._last_kernels(self.observed[0]), self.coarse_observed[0], None
        if "phi" in self.retimed[0]:
            later = self._last_kernels(self.retimed[0])
        if rough is not None:
            return pieces_of(found, self._regress, self._last_kernels(rough), later)
        corrected = self._corrected_kernels(found) if len(found) > 1 else None
        if corrected is not None:
            # A sum that is not positive is no kernel: then the samples stand alone, all of them.
            with contextlib.suppress(DomainError):
                return pieces_of(corrected, self._regress, None, later)
        return pieces_of(found, self._regress, None, later)

    def _last_kernels(self, observed: dict[str, Any]) -> Floats:
        """Return the frozen kernel of every repeat (repeat, point, target)."""
        columns = self.setup.target
        if self.setup.settings.deep:
            word = "phi" if self.setup.settings.kernel == "feature" else "ntk"
            return np.array([found[-1][:, columns] for found in observed[word]])
        pairs = zip(observed["phi"], observed["g"], strict=True)
        return np.array([self._frozen_kernel(phi[-1][:, columns], g[-1][:, columns]) for phi, g in pairs])

    def _corrected_kernels(self, found: Floats, points: Any = slice(None)) -> Floats | None:
        """Add what the samples' kernels (repeat, points, target) lack at initialisation, where they still are near it.

        With weight decay, or after long training, the kernel has forgotten its start and the sum is further off:
        then it varies more between repeats, and None is returned.
        """
        solution, setup = self.solutions[0], self.setup
        if not (solution.plan.lazy and solution.populations) or setup.settings.weight_decay > 0:
            return None
        rows, exact, corrected = np.arange(len(setup.x))[points], self._initial()[points], np.empty_like(found)
        for out, kernel, population in zip(corrected, found, solution.populations, strict=True):
            sample = sample_kernels(setup.act, setup.geometry, population, rows, setup.target)
            out[:] = kernel + (exact - self._frozen_kernel(*sample, points))
        scatter = [sum(np.sum(k[:, i].var(axis=0)) for i in range(len(rows))) for k in (corrected, found)]
        return corrected if scatter[0] < 0.5 * scatter[1] else None

    def result(self, predictions: bool) -> TransferResult:
        """Join what was found; `predictions` as in `solve_transfer`."""
        s = self.setup.settings
        stages = [1] * len(s.times1) + [2] * len(s.times2)
        columns: dict[str, Array] = {
            "stage": np.array(stages),
            "time": np.array([*s.times1, *s.times2], dtype=float),
        }
        found, changes = self._measured()
        columns |= found
        columns |= self._alignments()
        columns["predictor_distance"] = self._distances([p.whole for p in self.outputs])
        arrays = self._arrays()
        if predictions:
            arrays |= self._predicted(self._pieces())
        message = next((p.message for p in self.solutions if p.message), "")
        message = message or self.unsettled()
        info = self._info(columns, changes)
        return TransferResult(columns, arrays, "not_converged" if message else "converged", message, info)

    def unsettled(self) -> str:
        """Return a sentence where a solution ended before it came to rest as asked, else nothing."""
        until = self.numerics.until
        if until is None or all(p.settled for p in self.solutions):
            return ""
        return f"not at rest to --until {until:g} when the stage ended; raise --t1 and --t2 or --until"

    def _pieces(self) -> list[Piece]:
        return [*self.outputs, *([self.baseline] if self.baseline is not None else [])]

    def _measured(self) -> tuple[dict[str, Array], list[Floats]]:
        """Return the columns of losses and the gain, and the part of the integration in the judged ones."""
        pieces = self._pieces()
        squares = Squares(self.setup, len(self.outputs), self.baseline is not None)
        columns, statistics = squares.columns(pieces), squares.statistics()
        return columns, [time_change(pieces, statistics[name]) for name in self._judged(columns)]

    def _predicted(self, pieces: Sequence[Piece]) -> dict[str, Array]:
        """Return the predictions at all points and records, with their errors."""
        value, error = estimate(pieces, lambda f: np.concatenate(f[: len(self.outputs)]))
        return {"predictions": value, "predictions_se": error}

    def _alignments(self) -> dict[str, Array]:
        s, out = self.setup.settings, {}
        counts = (len(s.times1), len(s.times2))
        names = [f"{group}_alignment" for group in ("source", "target", "test")]
        if s.deep or self.setup.wanted.layers:
            words = ("movement", *names)
            names += [f"layer{layer}_{word}" for layer in range(1, s.depth + 1) for word in words]
        for name in names:
            values, errors = [], []
            for stage, count in enumerate(counts):
                seen = self._seen(self.observed, name, stage, count)
                values.append(seen.mean(axis=0))
                if np.array_equal(seen[0], seen[-1]) and len(seen) > 1:  # exact
                    errors.append(np.zeros(count))
                    continue
                rough = self.coarse_observed
                coarse = None if rough[0] is None and rough[1] is None else self._seen(rough, name, stage, count)
                later = self._seen(self.retimed, name, stage, count)
                errors.append(spread_of(seen, coarse, None if np.all(np.isnan(later)) else later))
            out[name], out[f"{name}_se"] = np.concatenate(values), np.concatenate(errors)
        return out

    def _seen(self, observed: Sequence[dict[str, Any] | None], name: str, stage: int, count: int) -> Floats:
        """Return the alignment (repeat, record); a frozen kernel keeps that of the end of stage 1, or of the start."""
        here, before = observed[stage] or {}, observed[0] or {}
        if name in here:
            seen = here[name]
            return np.pad(seen, ((0, 0), (0, count - seen.shape[1])), constant_values=np.nan)
        if stage and name in before:
            return np.repeat(before[name][:, -1:], count, axis=1)
        if self.setup.settings.gamma0 > 0 or name not in self.setup.start_alignments:
            return np.full((1, count), np.nan)
        return np.full((2, count), self.setup.start_alignments[name])

    def _distances(self, outputs: Sequence[Floats]) -> Floats:
        """Return at the end of a stage with weight decay the rms distance from the adaptive-kernel predictor."""
        setup, s = self.setup, self.setup.settings
        n1, n2 = len(s.times1), len(s.times2)
        out = np.full(n1 + n2, np.nan)
        for stage, rows, decay, at in (
            (0, setup.source, s.weight_decay, n1 - 1),
            (1, setup.target, s.weight_decay2, n1 + n2 - 1),
        ):
            # A centred output is not the readout's: what stands still is another predictor.
            other = s.gamma0 == 0 if stage == 0 else s.readout == "carry-centred"
            if decay == 0 or "phi" not in self.observed[stage] or other:
                continue
            phi = self.observed[stage]["phi"][:, -1].mean(axis=0)[:, rows]
            f = outputs[stage][-1]
            if np.all(np.isfinite(phi)) and np.all(np.isfinite(f)):
                # The kept points are the first ones: training points, then test points.
                f = f[: len(phi)]
                wanted = self._at_rest(stage, phi, rows, decay)
                out[at] = float(np.sqrt(np.mean((f - wanted) ** 2)))
        return out

    def _at_rest(self, stage: int, phi: Floats, rows: Indices, decay: float) -> Floats:
        """Return what a network at rest with the feature kernel phi, points x trained points, would predict."""
        data = self.setup.data
        labels = data.y_target if stage else data.y_source
        return adaptive_predictor(phi[rows], phi, labels, decay, self.setup.settings.reduction)

    def _unit(self) -> float:
        """Return the mean square of the labels."""
        labels = self.setup.data.y_target if len(self.setup.target) else self.setup.data.y_source
        return float(np.mean(np.square(labels)))

    def _arrays(self) -> dict[str, Array]:
        """Return kernels, densities and what their rows and columns are."""
        setup = self.setup
        kept, start = setup.kept, setup.initial
        data = setup.data
        out: dict[str, Array] = {
            "points": kept,
            "n_source": np.array(len(setup.source)),
            "n_target": np.array(len(setup.target)),
            "y_source": np.asarray(data.y_source),
            "y_target": np.asarray(data.y_target),
            "phi_start": start.phi[-1][: len(kept)],
            "g_start": start.g[-1][: len(kept)],
            "bin_edges": BIN_EDGES,
        }
        names = ["phi", "g", "density", "variance", "excess_kurtosis"]
        if setup.settings.deep:
            layers = range(1, setup.settings.depth + 1)
            for layer, phi, g in zip(layers, start.phi, start.g, strict=True):
                out[f"phi_layer{layer}_start"], out[f"g_layer{layer}_start"] = phi[: len(kept)], g[: len(kept)]
            out["ntk_start"] = start.ntk[: len(kept)]
            names += ["ntk", *(f"{name}_layer{layer}" for layer in layers for name in names)]
        out |= setup.tested_start
        names += [name.removesuffix("_start") for name in setup.tested_start]
        for stage, (observed, keep) in enumerate(zip(self.observed, self.moments, strict=True), 1):
            times = (setup.settings.times1, setup.settings.times2)[stage - 1]
            for position, record in enumerate(sorted(keep)):
                end = record == len(times) - 1
                word = f"stage{stage}" if end else f"stage{stage}_t{times[record]:g}"
                for name in names:
                    if name not in observed or observed[name].shape[1] <= position:
                        continue
                    rough, later = self.coarse_observed[stage - 1], self.retimed[stage - 1]
                    value, error = seen_at(name, position, observed, rough, later)
                    kernel = name.partition("_")[0] in ("phi", "g", "ntk")
                    out[f"{name}_{word}"] = value[: len(kept)] if kernel else value
                    out[f"{name}_se_{word}"] = error[: len(kept)] if kernel else error
        if setup.wanted.layers and not setup.settings.deep:
            out |= self._single_layer(out, kept)
        lines = (setup.settings.times1, setup.settings.times2)
        return out | two_time_arrays(self.observed, self.coarse_observed, self.retimed, self.moments, lines)

    def _single_layer(self, arrays: dict[str, Array], kept: Indices) -> dict[str, Array]:
        """Return the arrays of one hidden layer under the names that those of deep networks have."""
        x, found = self.setup.x, {}
        below = x[kept] @ x[self.setup.trained].T / x.shape[1]
        for name in ("phi", "g", "density", "variance", "excess_kurtosis"):
            for key in [key for key in arrays if key.startswith(f"{name}_s")]:  # start, stage1, stage2
                word = key.removeprefix(f"{name}_")
                found[f"{name}_layer1_{word}"] = arrays[key]
                if name == "phi":
                    join = np.hypot if word.startswith("se_") else np.add
                    found[f"ntk_{word}"] = join(arrays[key], below * arrays[f"g_{word}"])
        return found

    def _judged(self, columns: dict[str, Array]) -> tuple[str, ...]:
        """Return the losses whose errors count; without labels of the test points the training loss has to do."""
        return ("loss", "baseline") if np.any(np.isfinite(columns["loss"])) else ("train_loss",)

    def _info(self, columns: dict[str, Array], changes: Sequence[Floats]) -> dict[str, Any]:
        """Return what `TransferResult.info` holds; `changes` of the judged losses by the integration in time."""
        judged = self._judged(columns)
        # In the unit of the labels, whose choice changes nothing.
        unit = self._unit() or 1.0

        def largest(errors: Sequence[Floats]) -> float:
            ratios = [e / np.maximum(unit, np.abs(columns[name])) for name, e in zip(judged, errors, strict=True)]
            return float(np.nanmax(ratios)) if np.any(np.isfinite(ratios)) else math.nan

        reached = largest([columns[f"{name}_se"] for name in judged])
        out: dict[str, Any] = {"rank": self.setup.geometry.rank, "reached": reached}
        if self.solutions:
            chosen = self.solutions[0].plan
            out |= {
                "population": chosen.kind,
                "neurons": chosen.neurons,
                "repeats": chosen.repeats,
                "streamed": chosen.streamed,
                "dtype": chosen.dtype,
                "integrator": chosen.control.method,
                "tolerance": chosen.control.tolerance,
            }
        notes = list(dict.fromkeys(note for p in self.solutions for note in p.notes))
        if self.solutions and self.solutions[0].plan.repeats == 1 and self.solutions[0].coarse is None:
            notes.append("one population has no standard error; use --repeats 2 or more.")
        smooth = self.setup.act.smooth and not self.setup.settings.deep
        if out.get("integrator") == "rkc" and out["tolerance"] <= 1e-7 and smooth:
            notes.append("at so small a --tolerance --integrator dop853 takes fewer evaluations.")
        if self.setup.settings.deep:
            out["revealed"] = max((p.rank or 0 for p in self.solutions), default=0)
        elif self.solutions and self.solutions[0].plan.neurons < self._least():
            few, samples = self.solutions[0].plan.neurons, len(self.setup.target)
            notes.append(
                f"{few} neurons are few for a frozen kernel between {samples} target samples, and what is learnt "
                f"from it is biased; use --neurons {self._least()} or more."
            )
        if any(p.retimed is not None for p in self.solutions):
            out["time_error"] = error = largest(changes)
            if not (self.setup.act.smooth or self.setup.settings.deep):
                notes.append(
                    f"{self.setup.act.name} has kinks, at which single neurons flip: a 4 times tighter integration of "
                    f"one population changes losses by up to {error:.1g}; a tighter --tolerance lowers it only slowly."
                )
        out["evaluations"] = sum(p.evaluations for p in self.solutions)
        out["notes"] = notes
        return out
