"""Integrators of a population's dynamics: stabilised Runge-Kutta-Chebyshev, high order, and gradient descent.

Feature learning makes the feedback stiff (lambda_max of Theta grows 10 to 60 times), the trajectories of single
neurons stay smooth. RKC2 (Sommeijer, Shampine and Verwer 1998) takes s stages for a stability interval of 0.65 s^2,
so that its cost grows with the root of the stiffness only. DOP853 is for high accuracy with smooth activations;
explicit Euler is gradient descent with learning rate `dt`.

The tolerance bounds the error of a step, not that of the trajectory, which the dynamics may amplify. `halved` repeats a
run with every accepted step cut in two; the difference times `error_factor` is the error of the run, at any record and
for any function of the state (Richardson extrapolation; Hairer, Norsett and Wanner, section II.4).
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.integrate import DOP853

from tlcli.dmft.arithmetic import Dynamics

INTEGRATORS = ("rkc", "dop853", "euler")
_MAX_STAGES = 250
_HOPELESS = 3.0  # times the allowed evaluations: rates may yet fall
_COSTLY = 2000  # evaluations
_LOOK = 1000  # evaluations between looks at the pace
_TIGHT = 1e-5  # tolerance up to which it is the first cause of short steps
_REFRESH = 15  # accepted steps between estimates of the stiffness
_REST = 1e-4  # relative speed that is rest where `until` is a training loss, which says nothing of speeds
_WARM = 3  # sweeps of the power iteration where the last vector is known


@dataclass(frozen=True, eq=False)
class Step:
    """An accepted step; `at(t)` interpolates the state between t0 and t1."""

    t0: float
    t1: float
    at: Callable[[float], Any]


@dataclass(frozen=True, eq=False)
class Outcome:
    """Where an integration ended: state, time reached, whether it settled, accepted steps, and why it broke off.

    `taken` are the ends of the accepted steps and the stages of each (1 but for rkc), from which `halved` repeats it.
    """

    state: Any
    time: float
    settled: bool
    steps: int
    message: str = ""
    taken: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True)
class Control:
    """How to integrate: `tolerance` per step, `dt` of gradient descent, `until` the relative speed that counts as rest.

    In a stage of richness (gamma times the rms label) g < 1 the weights move g times less than the output does: `until`
    is g times that there, and with `scaled` the tolerance too, since an error of the state counts 1/g times in f. With
    `idle`, a stiff run ends where what is left to move, at the speed of the moment, is less than this part of the
    tolerance. `reached`, of losses without a minimum, is the mean training loss at which a stage ends. `momentum` m of
    gradient descent: steps are along v := m v + (1 - m) dz/dt, from v = 0.
    """

    method: str = "rkc"
    tolerance: float = 3e-4
    dt: float | None = None
    until: float | None = None
    max_evaluations: int = 200_000
    scaled: bool = False
    idle: float = 0.0
    reached: float | None = None
    momentum: float = 0.0

    def of_stage(self, richness: float, momentum: float = 0.0) -> "Control":
        """Return the control of a stage of this richness and momentum of gradient descent."""
        if momentum:
            return replace(self.of_stage(richness), momentum=momentum)
        if richness >= 1:
            return self
        tolerance = max(1e-8, self.tolerance * richness) if self.scaled else self.tolerance
        return replace(self, tolerance=tolerance, until=None if self.until is None else self.until * richness)


def integrate(
    field: Dynamics, state: Any, duration: float, control: Control, on_step: Callable[[Step], None] | None = None
) -> Outcome:
    """Advance `state` by `duration`, calling `on_step` for every accepted step.

    Ends early, settled, once rms(dz/dt) < until * rms(z), or the training loss is at most `reached`. What breaks off
    (no finite state, too many evaluations) says so in `message`, and `time` is how far it came; nothing is raised, so
    what was computed is kept.
    """
    if duration <= 0:
        return Outcome(state, 0.0, True, 0)
    stepper = {"rkc": _rkc, "dop853": _dop853, "euler": _euler}[control.method]
    taken: list[tuple[float, int]] = []

    def accept(step: Step, stages: int = 1) -> None:
        taken.append((step.t1, stages))
        if on_step is not None:
            on_step(step)

    with np.errstate(over="ignore", invalid="ignore"):  # a diverging run is told by its outcome
        return replace(stepper(field, state, float(duration), control, accept), taken=tuple(taken))


def halved(
    field: Dynamics, state: Any, run: Outcome, method: str, on_step: Callable[[Step], None] | None = None
) -> Outcome:
    """Repeat the integration `run` from `state` with each of its steps cut in two, to learn its error.

    It ends where `run` ended, with the same `settled` and `message`; a state that is not finite ends it earlier, with a
    message of its own.
    """
    steps, start = list[tuple[float, int]](), 0.0
    for end, stages in run.taken:
        # h/2 is stable with the stages that half of this step's h * rate needs.
        fewer = 2 + int(math.sqrt(1 + ((stages - 1) ** 2 - 1) / 2))
        steps += [((start + end) / 2, fewer), (end, fewer)]
        start = end
    return _along(field, state, run, method, steps, on_step)


def doubled(
    field: Dynamics, state: Any, run: Outcome, method: str, on_step: Callable[[Step], None] | None = None
) -> Outcome:
    """Repeat the integration `run` from `state` with two of its steps at a time, the last three at once if odd.

    It says what `halved` does, less sharply and at a third of its cost; a single step is halved. A looser tolerance
    would say nothing where it is loose already and steps are as long as the stage.
    """
    if len(run.taken) == 1:
        return halved(field, state, run, method, on_step)
    firsts = list(range(0, len(run.taken) - 1, 2))
    groups = [run.taken[a:b] for a, b in itertools.pairwise([*firsts, len(run.taken)])]
    steps = [
        (group[-1][0], 2 + int(math.sqrt(1 + sum(max(0, (stages - 1) ** 2 - 1) for _, stages in group))))
        for group in groups
    ]
    return _along(field, state, run, method, steps, on_step)


def _along(
    field: Dynamics,
    state: Any,
    run: Outcome,
    method: str,
    steps: Sequence[tuple[float, int]],
    on_step: Callable[[Step], None] | None,
) -> Outcome:
    """Take `steps`, their ends and stages, and end as `run` did."""
    t, z, taken = 0.0, state, []
    with np.errstate(over="ignore", invalid="ignore"):
        velocity = field(t, z) if steps else None
        for t_new, stages in steps:
            new, fresh, at = _fixed_step(field, method, t, z, velocity, t_new, stages)
            if not math.isfinite(field.rms(new)):
                return Outcome(z, t, False, len(taken), _broken(t, "the dynamics diverges"), tuple(taken))
            if on_step is not None:
                on_step(Step(t, t_new, at))
            t, z, velocity = t_new, new, fresh
            taken.append((t, stages))
    return replace(run, state=z, steps=len(taken), taken=tuple(taken))


def error_factor(method: str, smooth: bool = True) -> float:
    """Return the error of a run per difference from its `halved` repetition: 2^p / (2^p - 1) for a method of order p.

    Across kinks every method is of first order (docs/references.md, Time steps and kinks).
    """
    order = {"rkc": 2, "dop853": 8, "euler": 1}[method] if smooth else 1
    return 2**order / (2**order - 1)


def _fixed_step(
    field: Dynamics, method: str, t: float, z: Any, velocity: Any, t_new: float, stages: int
) -> tuple[Any, Any, Callable[[float], Any]]:
    """Return the state at t_new after one step, its velocity, and the interpolant in between."""
    h = t_new - t
    if method == "dop853":
        huge = 1e100  # every step is accepted
        solver = DOP853(field, t, z, t_new, first_step=h, rtol=huge, atol=huge)
        solver.step()
        return solver.y, solver.f, solver.dense_output()
    if method == "euler":
        new = field.combine((1.0, z), (h, velocity))
        return new, field(t_new, new), _line(field, t, t_new, z, new)
    new = rkc_step(field, t, z, velocity, h, stages)
    fresh = field(t_new, new)
    return new, fresh, hermite(field, t, h, z, velocity, new, fresh)


def _settled(field: Dynamics, t: float, z: Any, velocity: Any, control: Control) -> bool:
    if control.until is None:
        return False
    if control.reached is not None:
        loss, separated = field.fit(t, z)
        if loss <= control.reached or separated:  # what is separated never rests, however slow it is
            return loss <= control.reached
        return field.rms(velocity) < min(control.until, _REST) * field.rms(z)
    return field.rms(velocity) < control.until * field.rms(z)


def _broken(time: float, why: str) -> str:
    return f"broke off at t = {time:.4g} of the stage: {why}"


def _needed(rate: float, duration: float) -> float:
    """Return how many evaluations RKC2 needs at least for `duration`, since its steps must be stable."""
    steps = duration * 1.54 * 1.1 * rate / (_MAX_STAGES**2 - 1)
    return steps * _MAX_STAGES if steps > 1 else math.sqrt(steps) * _MAX_STAGES


@dataclass(eq=False)
class _Pace:
    """How fast a run advances, to say early that it cannot end: `time` and `evaluations` at the last look."""

    time: float = 0.0
    evaluations: int = 0
    slow: int = 0

    def stuck(self, field: Dynamics, control: Control, rate: float, t: float, left: float) -> str | None:
        """Say why a run that is at t with `left` to go will take more evaluations than are allowed, if it will."""
        if not math.isfinite(rate):
            return "the dynamics diverges; lower gamma or the labels' scale, or use an activation that is bounded"
        if control.until is not None:  # it may end at any time
            return None
        needed, limit = _needed(rate, left), _HOPELESS * control.max_evaluations
        if field.evaluations - self.evaluations >= _LOOK:
            pace = (field.evaluations - self.evaluations) / max(t - self.time, 1e-300)
            self.slow = self.slow + 1 if field.evaluations + pace * left > control.max_evaluations else 0
            self.time, self.evaluations = t, field.evaluations
            if self.slow == 2:
                needed = max(needed, limit, pace * left)
        if field.evaluations + needed < limit:
            return None
        stiff = _needed(rate, left) >= needed
        cause = (
            f"a fastest rate of {rate:.2g}"
            if stiff
            else f"steps as short as a tolerance of {control.tolerance:.1g} asks for"
        )
        first = "" if stiff or control.tolerance > _TIGHT else "raise the tolerance, "
        return (
            f"with {cause}, what is left would take about {needed:.1g} field evaluations, "
            f"more than the {control.max_evaluations} allowed; {first}lower gamma or the labels' scale, shorten the "
            "stage, or use an activation that is bounded"
        )


def _idle(field: Dynamics, velocity: Any, rate: float, left: float, control: Control) -> bool:
    """Whether what is left is costly and moves nothing."""
    if not control.idle or _needed(rate, left) < _COSTLY:
        return False
    return field.rms(velocity) * left < control.idle * control.tolerance


def _exhausted(field: Dynamics, control: Control) -> str | None:
    if field.evaluations < control.max_evaluations:
        return None
    return (
        f"more than {control.max_evaluations} field evaluations; shorten the stage, raise the tolerance or lower gamma"
    )


# ------------------------------------------------------------------------------------------------ RKC2


@functools.lru_cache(maxsize=_MAX_STAGES + 1)
def chebyshev(stages: int) -> tuple[tuple[float, ...], ...]:
    """Return (mu, nu, mu_tilde, gamma_tilde, c) of RKC2, each indexed by the stage 0..s."""
    w0 = 1 + 2 / 13 / stages**2
    value, first, second = [1.0, w0], [0.0, 1.0], [0.0, 0.0]
    for _ in range(2, stages + 1):
        value.append(2 * w0 * value[-1] - value[-2])
        first.append(2 * value[-2] + 2 * w0 * first[-1] - first[-2])
        second.append(4 * first[-2] + 2 * w0 * second[-1] - second[-2])
    w1 = first[stages] / second[stages]
    b = [0.0, 0.0, *(second[j] / first[j] ** 2 for j in range(2, stages + 1))]
    b[0] = b[1] = b[2]
    a = [1 - b[j] * value[j] for j in range(stages + 1)]
    c = [0.0, 0.0, *(w1 * second[j] / first[j] for j in range(2, stages + 1))]
    c[1] = c[2] / first[2]
    mu = [0.0, 0.0, *(2 * b[j] * w0 / b[j - 1] for j in range(2, stages + 1))]
    nu = [0.0, 0.0, *(-b[j] / b[j - 2] for j in range(2, stages + 1))]
    mu_t = [0.0, b[1] * w1, *(2 * b[j] * w1 / b[j - 1] for j in range(2, stages + 1))]
    gamma_t = [0.0, 0.0, *(-a[j - 1] * mu_t[j] for j in range(2, stages + 1))]
    return tuple(mu), tuple(nu), tuple(mu_t), tuple(gamma_t), tuple(c)


def rkc_step(field: Dynamics, t: float, z: Any, velocity: Any, h: float, stages: int) -> Any:
    """Return the state after one RKC2 step of size h with the given number of stages (at least 2)."""
    mu, nu, mu_t, gamma_t, c = chebyshev(stages)
    before, now = z, field.combine((1.0, z), (mu_t[1] * h, velocity))
    for j in range(2, stages + 1):
        slope = field(t + c[j - 1] * h, now)
        new = field.combine(
            (1 - mu[j] - nu[j], z),
            (mu[j], now),
            (nu[j], before),
            (mu_t[j] * h, slope),
            (gamma_t[j] * h, velocity),
        )
        before, now = now, new
    return now


def hermite(field: Dynamics, t0: float, h: float, z0: Any, v0: Any, z1: Any, v1: Any) -> Callable[[float], Any]:
    """Return the cubic interpolant of states and velocities at both ends."""

    def at(t: float) -> Any:
        s = (t - t0) / h
        if s >= 1.0:
            return z1
        r = 1 - s
        terms = ((1 + 2 * s) * r * r, z0), (s * r * r * h, v0), (s * s * (3 - 2 * s), z1), (-s * s * r * h, v1)
        return field.combine(*terms)

    return at


def _rkc(field: Dynamics, z: Any, end: float, control: Control, accept: Callable[..., None]) -> Outcome:
    t, tol, steps, since, pace = 0.0, control.tolerance, 0, 0, _Pace()
    velocity = field(t, z)
    rate, vector = field.stiffness(t, z)
    h = min(end, 1.0 / max(rate, 1e-300))
    while t < end:
        if _settled(field, t, z, velocity, control):
            return Outcome(z, t, True, steps)
        if why := _exhausted(field, control):
            return Outcome(z, t, False, steps, _broken(t, why))
        if since >= _REFRESH:
            rate, vector = field.stiffness(t, z, vector, _WARM)
            since = 0
        if _idle(field, velocity, rate, end - t, control):
            return Outcome(z, t, True, steps)
        if why := pace.stuck(field, control, rate, t, end - t):
            return Outcome(z, t, False, steps, _broken(t, why))
        h = min(h, end - t, (_MAX_STAGES**2 - 1) / (1.54 * 1.1 * max(rate, 1e-300)))
        stages = 2 + int(math.sqrt(1 + 1.54 * 1.1 * h * rate))
        new = rkc_step(field, t, z, velocity, h, stages)
        fresh = field(t + h, new)
        error = _error(field, z, new, velocity, fresh, h, tol)
        if not error <= 1.0:  # NaN is refused as well
            if h < 1e-12 * end:
                return Outcome(z, t, False, steps, _broken(t, _too_short(control)))
            h *= 0.1 if not math.isfinite(error) else max(0.1, 0.8 * error ** (-1 / 3))
            # A stale estimate of the stiffness shows as a rejected step.
            rate, vector = field.stiffness(t, z, vector, _WARM)
            since = 0
            continue
        t_new = end if t + h >= end * (1 - 1e-12) else t + h
        accept(Step(t, t_new, hermite(field, t, h, z, velocity, new, fresh)), stages)
        t, z, velocity = t_new, new, fresh
        steps, since = steps + 1, since + 1
        h *= min(5.0, 0.8 * max(error, 1e-9) ** (-1 / 3))
    return Outcome(z, t, _settled(field, t, z, velocity, control), steps)


def _too_short(control: Control) -> str:
    remedy = "raise the tolerance, or lower gamma" if control.tolerance <= _TIGHT else "lower gamma"
    return f"no step is small enough; {remedy}"


def _error(field: Dynamics, z: Any, new: Any, velocity: Any, fresh: Any, h: float, tol: float) -> float:
    estimate = field.combine((0.8, z), (-0.8, new), (0.4 * h, velocity), (0.4 * h, fresh))
    return field.error(estimate, z, new) / tol


# ------------------------------------------------------------------------------------------------ others


def _dop853(field: Dynamics, z: Any, end: float, control: Control, accept: Callable[..., None]) -> Outcome:
    solver = DOP853(field, 0.0, z, end, rtol=control.tolerance, atol=control.tolerance)
    steps = 0
    while solver.status == "running":
        if why := _exhausted(field, control):
            return Outcome(solver.y, float(solver.t), False, steps, _broken(float(solver.t), why))
        before = float(solver.t)
        message = solver.step()
        if solver.status == "failed" or not np.all(np.isfinite(solver.y)):
            return Outcome(solver.y, before, False, steps, _broken(before, message or "the dynamics diverges"))
        accept(Step(before, float(solver.t), solver.dense_output()))
        steps += 1
        if _settled(field, float(solver.t), solver.y, solver.f, control):
            return Outcome(solver.y, float(solver.t), True, steps)
    return Outcome(solver.y, float(solver.t), False, steps)


def _euler(field: Dynamics, z: Any, end: float, control: Control, accept: Callable[..., None]) -> Outcome:
    """Gradient descent with learning rate `dt` (default: 0.2 of the fastest rate at the start)."""
    rate = field.stiffness(0.0, z)[0]
    dt = control.dt or 0.2 / rate
    stable = min(dt / 2, 1.0 / max(rate, 1e-300))
    count = max(1, math.ceil(end / dt * (1 - 1e-12)))
    start, kick = field.rms(z), None
    for k in range(count):
        t, t_new = k * dt, end if k == count - 1 else (k + 1) * dt
        velocity = field(t, z)
        if _settled(field, t, z, velocity, control):
            return Outcome(z, t, True, k)
        if control.momentum:
            m = control.momentum
            kick = field.combine((1 - m, velocity), *([] if kick is None else [(m, kick)]))
            velocity = kick
        new = field.combine((1.0, z), (t_new - t, velocity))
        size = field.rms(new)
        if not size < 1e3 * (start + 1):
            why = f"gradient descent diverges with the step {dt:.3g}; use --dt {stable:.1g} or less"
            return Outcome(z, t, False, k, _broken(t, why))
        accept(Step(t, t_new, _line(field, t, t_new, z, new)))
        z = new
        if why := _exhausted(field, control):
            return Outcome(z, t_new, False, k + 1, _broken(t_new, why) if k + 1 < count else "")
    return Outcome(z, end, _settled(field, end, z, field(end, z), control), count)


def _line(field: Dynamics, t0: float, t1: float, z0: Any, z1: Any) -> Callable[[float], Any]:
    def at(t: float) -> Any:
        s = min(1.0, (t - t0) / (t1 - t0))
        return field.combine((1 - s, z0), (s, z1))

    return at
