"""Source, target and the target alone: one Bayesian transfer, by whichever route solves it (docs/bayes.md).

The points of a transfer stand in the order [source train, target train, test]. Linear networks are solved exactly
(`linear`); nonlinear ones by deterministic quadrature where all training inputs span at most two dimensions, else by
sampling (`sampling`). The target never feeds back on the source, so a source is solved once for all targets
that share it, and a target alone (δ = 0, the baseline) once for all sources: both are remembered by this process.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tlcli.arrays import Floats, Indices
from tlcli.bayes.linear import linear_source, linear_target, same_inputs_note
from tlcli.bayes.linear_losses import linear_loss_source, linear_loss_target
from tlcli.bayes.loss_columns import NEEDS as LOSS_NEEDS
from tlcli.bayes.loss_columns import loss_errors, loss_values
from tlcli.bayes.observables import (
    ALONE,
    NEEDS,
    SOURCE,
    TARGET,
    BayesProblem,
    certificate_of,
    errors_of,
    values_of,
)
from tlcli.bayes.saddle import CONVERGED, NOT_CONVERGED, Saddle, check_beta, check_delta, check_gamma
from tlcli.dmft.activations import Activation, activation
from tlcli.dmft.loss_setup import Side, side_of
from tlcli.dmft.settings import Data
from tlcli.errors import ConvergenceError, DomainError
from tlcli.losses import Objective

ROUTES = ("linear", "quadrature", "sampling")

_FEW_OUTSIDE = 10
_REMEMBERED = 16  # saddles of sources and of targets alone
# Relative difference of v and Φ on two quadrature rules that counts as agreement: the finer one is far better than it.
_AGREEMENT = 1e-5


@dataclass(frozen=True)
class BayesSettings:
    """The two networks: richness γ₁ = gamma0 and γ₂ = gamma2 (None: gamma0), inverse temperatures, coupling δ.

    `beta` multiplies the sum of squares (kernel ridge 1/β); `beta2` None means `beta`.
    """

    activation: str = "linear"
    gamma0: float = 1.0
    gamma2: float | None = None
    beta: float = 50.0
    beta2: float | None = None
    delta: float = 1.0
    loss1: str | None = None
    loss2: str | None = None
    label_smoothing: float = 0.0
    class_weights: str | None = None

    def __post_init__(self) -> None:
        activation(self.activation)
        for name, gamma in (("gamma0", self.gamma0), ("gamma2", self.second_gamma)):
            check_gamma(gamma, name)
        for name, beta in (("beta", self.beta), ("beta2", self.second_beta)):
            check_beta(beta, name)
        check_delta(self.delta)

    @property
    def second_gamma(self) -> float:
        """The richness of the target."""
        return self.gamma0 if self.gamma2 is None else self.gamma2

    @property
    def named(self) -> bool:
        """Whether the losses are named, and the columns those of `tlcli.bayes.loss_columns`."""
        return self.loss1 is not None or self.loss2 is not None

    @property
    def second_beta(self) -> float:
        """The inverse temperature of the target."""
        return self.beta if self.beta2 is None else self.beta2


@dataclass(frozen=True)
class BayesNumerics:
    """How the sampled route is run: its seed, HMC moves of the first pool (None: its default), threads of one point.

    The answer does not depend on `threads`.
    """

    seed: int = 0
    moves: int | None = None
    threads: int = 2


@dataclass(frozen=True, eq=False)
class BayesResult:
    """One transfer, solved.

    Attributes:
        values: the columns named in `NEEDS`; NaN where a stage they need is not certified, or labels are missing.
        errors: standard errors of losses and overlaps, NAME_se; empty for the deterministic routes.
        status: "converged" if source, target and target alone are.
        reasons: what is not certified or was refused, in sentences that name the stages and a remedy; at δ = 0 target
            and target alone are one stage.
        residual: largest |y − v/β − Kv|/|y| of the three stages.
        gap, gap_floor: largest certified gap of the three stages and its floor, nats per neuron.
        source, target, baseline: the three saddles; None where the solver gave up or refused.
        certificate: the columns of `certificate_of`; empty for linear networks.
        info: route, notes and the diagnostics of each stage, JSON-plain.
    """

    values: dict[str, float]
    errors: dict[str, float]
    status: str
    reasons: tuple[str, ...]
    residual: float
    gap: float
    gap_floor: float
    source: Saddle | None
    target: Saddle | None
    baseline: Saddle | None
    certificate: dict[str, float] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def message(self) -> str:
        """All reasons; empty if the transfer is solved."""
        return " ".join(self.reasons)


def route_of(act: Activation, problem: BayesProblem) -> str:
    """Return which of `ROUTES` solves the problem."""
    if act.kind == "linear":
        return "linear"
    # With a kink every pair of points outside the span costs an integral of its own: minutes for a hundred of them.
    fine = problem.rank <= 2 and (act.smooth or problem.outside <= _FEW_OUTSIDE)
    return "quadrature" if fine else "sampling"


def solve_bayes(data: Data, settings: BayesSettings, numerics: BayesNumerics | None = None) -> BayesResult:
    """Solve source, target and target alone, and evaluate losses, alignments, overlaps and free energies.

    Losses are mean squared errors (test labels noiseless, missing ones left out). With unit label vectors ŷ, Φ̄ the
    kernel of the source and Φ that of the target: source_overlap ŷ₁ᵀΦ̄ŷ₁, target_overlap ŷ₂ᵀΦŷ₂, cross_overlap ŷ₁ᵀΦŷ₂,
    retained_overlap ŷ₁ᵀΦŷ₁, each between training points (on whitened data these are the λ̄, k22, k12 and k11 of
    `whitened`). Free energies are the minima of -log Z/N, nats per neuron; evidence_gain is that of the target alone
    minus that of the target.

    Errors of the sampling route are bounds from its two starts, with error_v and error_kernel the relative errors of
    v and of the kernel (`sampling.certificate.spreads`): |ΔL| ≤ 2√L |Δf| with |Δf|/|f| the root of the sum of their
    squares for losses on test points, 2L·error_v for train losses |v|²/(Pβ²), and error_kernel times the overlap for
    overlaps (ŷ₁ᵀΦŷ₂: times the geometric mean of the two overlaps of its labels). Of named losses they are those of
    `loss_columns.loss_errors`.

    A stage that is refused (beta = inf with labels that the kernel cannot fit, a tilt that is not normalisable) is not
    solved, and says why in `reasons`; what the other stages find stays.

    Raises:
        DomainError: every stage is refused; the message starts with the first of them.
    """
    how = numerics or BayesNumerics()
    act, problem = activation(settings.activation), BayesProblem.of(data)
    route = route_of(act, problem)
    sides = (side_of(data, settings, 1), side_of(data, settings, 2)) if settings.named else None
    solver = _Solver(act, problem, settings, how, route, sides)
    saddles, errors = solver.stages()
    texts = {name: str(errors[name]) if saddle is None else saddle.message for name, saddle in saddles.items()}
    if all(isinstance(errors.get(name), DomainError) for name in saddles):
        raise DomainError(_reasons(texts, settings.delta == 0)[0])
    values = values_of(data, problem, saddles) if sides is None else loss_values(problem, sides, saddles)
    solved = {name: saddle is not None and saddle.converged for name, saddle in saddles.items()}
    needed = NEEDS if sides is None else LOSS_NEEDS
    for name in values:
        if not all(solved[stage] for stage in needed[name]):
            values[name] = math.nan
    reasons = _reasons({name: text for name, text in texts.items() if not solved[name]}, settings.delta == 0)
    kept = [saddle for saddle in saddles.values() if saddle is not None]
    note = None
    if route == "linear" and sides is None:
        note = same_inputs_note(problem.x, problem.rows1, problem.rows2, settings.second_beta)
    return BayesResult(
        values,
        _errors(problem, settings, sides, saddles, values) if route == "sampling" else {},
        CONVERGED if all(solved.values()) else NOT_CONVERGED,
        reasons,
        max((s.info["residual"] for s in kept), default=math.nan),
        max((s.gap for s in kept), default=math.nan),
        max((s.gap_floor for s in kept), default=math.nan),
        saddles[SOURCE],
        saddles[TARGET],
        saddles[ALONE],
        {} if route == "linear" else certificate_of(saddles),
        {
            "route": route,
            "notes": [] if note is None else [note],
            **{name: _diagnostics(saddle) for name, saddle in saddles.items()},
        },
    )


def _errors(
    problem: BayesProblem,
    settings: BayesSettings,
    sides: tuple[Side, Side] | None,
    saddles: dict[str, Saddle | None],
    values: dict[str, float],
) -> dict[str, float]:
    if sides is None:
        return errors_of(saddles, values)
    return loss_errors(problem, sides, (settings.beta, settings.second_beta), saddles, values)


@dataclass(frozen=True, eq=False)
class _Solver:
    """The three stages of one transfer by one route.

    Each raises DomainError where its settings have no answer, and ConvergenceError where none was found.
    """

    act: Activation
    problem: BayesProblem
    settings: BayesSettings
    numerics: BayesNumerics
    route: str
    sides: tuple[Side, Side] | None = None

    def objective(self, stage: str) -> Objective | None:
        """Return the losses of a stage; None for the squared error of one output, which has solvers of its own."""
        if self.sides is None:
            return None
        return other_loss(self.sides[0 if stage == SOURCE else 1].objective)

    def stages(self) -> tuple[dict[str, Saddle | None], dict[str, "_Unsolved"]]:
        """Return the three saddles, None where a stage raised, and what it raised."""
        errors: dict[str, _Unsolved] = {}
        source = _kept(SOURCE, self.source, errors)
        alone = target = _kept(ALONE, self.alone, errors)
        if self.settings.delta != 0:
            target = _kept(TARGET, lambda: self.target(source, errors.get(SOURCE)), errors)
        elif ALONE in errors:  # one stage
            errors[TARGET] = errors[ALONE]
        return {SOURCE: source, TARGET: target, ALONE: alone}, errors

    @property
    def _agreement(self) -> float | None:
        return _AGREEMENT if self.act.smooth or self.act.homogeneous else None

    def source(self) -> Saddle:
        s, p = self.settings, self.problem
        return self._one(SOURCE, p.rows1, p.y1, s.gamma0, s.beta)

    def alone(self) -> Saddle:
        s, p = self.settings, self.problem
        return self._one(ALONE, p.rows2, p.y2, s.second_gamma, s.second_beta)

    def _one(self, stage: str, rows: Indices, y: Floats, gamma: float, beta: float) -> Saddle:
        s, objective = self.settings, self.objective(stage)
        key = (self.problem.key, stage, self.act.name, gamma, beta)
        key += (self.numerics.seed, self.numerics.moves) if self.route == "sampling" else ()
        if objective is not None:
            key += (objective.loss.text, s.label_smoothing, s.class_weights)
        return _remembered(key, lambda: self._solve(rows, y, gamma, beta, objective))

    def _solve(self, rows: Indices, y: Floats, gamma: float, beta: float, objective: Objective | None) -> Saddle:
        x, how = self.problem.x, self.numerics
        if self.route == "linear":
            if objective is not None:
                return linear_loss_source(x, rows, objective, gamma, beta)
            return linear_source(x, rows, y, gamma, beta)
        if self.route == "quadrature":
            from tlcli.bayes.quadrature.solve import quadrature_source

            return quadrature_source(self.act, x, rows, y, gamma, beta, accuracy=self._agreement, objective=objective)
        from tlcli.bayes.sampling.source import sampled_source

        more: dict[str, Any] = {"seed": how.seed, "threads": how.threads, "objective": objective}
        more |= {} if how.moves is None else {"moves": how.moves}
        return sampled_source(self.act, x, rows, y, gamma, beta, **more)

    def target(self, source: Saddle | None, error: "_Unsolved | None") -> Saddle:
        if source is None:  # of the same kind: what follows from a refusal is one
            kind = DomainError if isinstance(error, DomainError) else ConvergenceError
            raise kind("the source is not solved, so neither is its target: repair the source first.")
        if not source.converged and self.route != "linear":  # hours of sampling on a wrong measure
            raise ConvergenceError("the source is not certified, so neither is its target: repair the source first.")
        s, p, how = self.settings, self.problem, self.numerics
        where = (p.x, p.rows2, p.y2, s.second_gamma, s.second_beta, s.delta)
        if self.route == "linear":
            return self._linear_target(source)
        if self.route == "quadrature":
            from tlcli.bayes.quadrature.solve import quadrature_target

            more = {"source_rows": p.rows1, "source_gamma": s.gamma0, "accuracy": self._agreement}
            return quadrature_target(self.act, *where, source, **more, objective=self.objective(TARGET))
        from tlcli.bayes.sampling.source import SampledSaddle
        from tlcli.bayes.sampling.target import sampled_target

        assert isinstance(source, SampledSaddle)
        # A target's chains are many more, and shorter, than a source's: its default is a fifth of the latter's.
        options: dict[str, Any] = {"seed": how.seed, "threads": how.threads, "objective": self.objective(TARGET)}
        options |= {} if how.moves is None else {"moves": max(5, how.moves // 5)}
        return sampled_target(self.act, *where, source, **options)

    def _linear_target(self, source: Saddle) -> Saddle:
        s, p, objective = self.settings, self.problem, self.objective(TARGET)
        more = (s.second_gamma, s.second_beta, s.delta, source)
        if objective is None and self.objective(SOURCE) is None:
            return linear_target(p.x, p.rows2, p.y2, *more)
        if objective is None:
            assert self.sides is not None
            objective = self.sides[1].objective
        return linear_loss_target(p.x, p.rows2, objective, *more)


def other_loss(objective: Objective) -> Objective | None:
    """Return the objective; None for the squared error of one output, which has solvers and samplers of its own."""
    plain = objective.loss.gaussian and objective.readouts is None and objective.weights is None
    return None if plain else objective


_Unsolved = DomainError | ConvergenceError
_MEMORY: OrderedDict[Any, Saddle | _Unsolved] = OrderedDict()


def _remembered(key: Any, compute: Callable[[], Saddle]) -> Saddle:
    """Return, or raise, what `compute` did for this key, the last `_REMEMBERED` ones being kept."""
    if key not in _MEMORY:
        try:
            _MEMORY[key] = compute()
        except (DomainError, ConvergenceError) as error:
            _MEMORY[key] = error
        while len(_MEMORY) > _REMEMBERED:
            _MEMORY.popitem(last=False)
    _MEMORY.move_to_end(key)
    found = _MEMORY[key]
    if isinstance(found, Saddle):
        return found
    raise found.with_traceback(None)


def _kept(name: str, solve: Callable[[], Saddle], errors: dict[str, _Unsolved]) -> Saddle | None:
    """Return the saddle of stage `name`; where it has none, None, and its error goes into `errors`."""
    try:
        return solve()
    except (DomainError, ConvergenceError) as error:
        errors[name] = error
        return None


_WORDS = {SOURCE: "source", TARGET: "target", ALONE: "target alone"}


def _reasons(texts: Mapping[str, str], same: bool) -> tuple[str, ...]:
    """Return a sentence per text of unsolved stages, which names them; with `same` the target is the target alone."""
    stages: dict[str, list[str]] = {}
    for name, text in texts.items():
        if name != TARGET or not same:
            stages.setdefault(text, []).append(_WORDS[name])
    return tuple(f"{' and '.join(names)}: {text}" for text, names in stages.items())


def _diagnostics(saddle: Saddle | None) -> dict[str, Any]:
    if saddle is None:
        return {}
    return {**saddle.info, "gap": saddle.gap, "gap_floor": saddle.gap_floor, "status": saddle.status}
