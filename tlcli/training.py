"""How a network is trained on a source, then on a target: one record, read by the theory and by its experiment.

A parameter of the training is a field of `TransferSettings`, the `Option` of the same name, and the code that uses it:
flags, columns, the tasks of a sweep and both engines read the fields from here.
"""

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import Any

from tlcli.errors import DomainError, UsageError, check_choice

READOUTS = ("carry", "carry-centred", "reset")
ABLATIONS = ("none", "responses", "stage-responses", "memory", "cross-stage", "equal-time")

_CHOICES = {
    "readout": READOUTS,
    "target": ("rich", "frozen"),
    "kernel": ("feature", "ntk"),
    "reduction": ("mean", "sum"),
}
_EVERY = ("pretrain", "frozen", "rich")


def _of(default: Any, *where: str, asked: bool = False) -> Any:
    """Return a field that is a parameter `where` (by default everywhere): of stage 1 alone (pretrain), of a readout on
    frozen features (frozen), of both layers in both stages (rich); `asked`: only where it is given.
    """
    return dataclasses.field(default=default, metadata={"where": where or _EVERY, "asked": asked})


@dataclass(frozen=True)
class Surgery:
    """What happens to a deep network between the stages.

    `freeze`: the first K layers keep their weights after stage 1; `reinit_from`: the weights above layer K are drawn
    anew before stage 2 (None: none); `ablate`, a study of the theory: see docs/references.md, Ablations.
    """

    freeze: int = 0
    reinit_from: int | None = None
    ablate: str = "none"

    def check(self, depth: int) -> None:
        """Refuse what a network of `depth` hidden layers does not have.

        Raises:
            DomainError: no hidden layer, or more layers than there are. UsageError: an unknown ablation.
        """
        check_choice("ablate", self.ablate, ABLATIONS)
        if depth < 1:
            raise DomainError(f"depth = {depth} must be a whole number from 1, the number of hidden layers.")
        if self.ablate != "none" and depth == 1:
            raise UsageError(f"ablate = {self.ablate}: one hidden layer has no hidden matrix; give --depth 2 or more.")
        for name, value in (("freeze", self.freeze), ("reinit_from", self.reinit_from)):
            if value is not None and not 0 <= value <= depth:
                raise DomainError(
                    f"{name} = {value}: the network has {depth} hidden layer{'s' * (depth > 1)}; use 0 to {depth}."
                )


@dataclass(frozen=True)
class TransferSettings:
    """The network and its training.

    `times1`, `times2` are the recorded times from the start of each stage, ascending, the last one its duration;
    empty `times2`: pre-training only. `weight_decay`, `weight_decay2`, `ridge` and the times belong to the loss of
    `reduction`: t_mean = P t_sum. `target`: rich trains both layers on the target; frozen only a readout, by regression
    with the kernel that pre-training left (`kernel`), from zero output and with `ridge`. gamma2 None means gamma0;
    gamma2 = 0 is the same regression with the ridge weight_decay2. `readout` at the switch: carry (the output jumps by
    gamma0/gamma2), carry-centred (the output at the switch is subtracted: stage 2 starts from zero), reset (redrawn).
    `depth` is the number of hidden layers; `freeze` and `reinit_from` are those of `Surgery`; so is `ablate`, which
    leaves out a part of the theory and which no experiment has. `loss1`, `loss2`: the losses of the stages by name
    (`tlcli.losses`), with `label_smoothing` and `class_weights`; None in both is the squared error of one output.
    `batch`, `momentum`: stochastic gradient descent on minibatches of `batch` points (`tlcli.batches`; None: all), with
    velocity v := m v + (1 - m) force, so that small steps are gradient flow at the same times for any momentum m.

    Raises:
        UsageError: an unknown choice. DomainError: a number outside its range, times that are not ascending or that do
            not end, layers that are not there.
    """

    activation: str = _of("tanh")
    gamma0: float = _of(1.0)
    gamma2: float | None = _of(None, "rich")
    depth: int = _of(1, asked=True)
    freeze: int = _of(0, "rich", asked=True)
    reinit_from: int | None = _of(None, "rich", asked=True)
    ablate: str = _of("none", "rich", asked=True)
    weight_decay: float = _of(0.0)
    weight_decay2: float = _of(0.0, "rich")
    readout: str = _of("carry", "rich")
    kernel: str = _of("feature", "frozen", "rich")
    ridge: float = _of(0.0, "frozen")
    reduction: str = _of("mean")
    loss1: str | None = _of(None, asked=True)
    loss2: str | None = _of(None, "frozen", "rich", asked=True)
    label_smoothing: float = _of(0.0, asked=True)
    class_weights: str = _of("none", asked=True)
    batch: int | None = _of(None, asked=True)
    momentum: float = _of(0.0, asked=True)
    target: str = "rich"
    times1: tuple[float, ...] = (100.0,)
    times2: tuple[float, ...] = (100.0,)

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            check_choice(name, getattr(self, name), allowed)
        for name, number in (("gamma0", self.gamma0), ("gamma2", self.second_gamma)):
            if not (0 <= number < math.inf):
                raise DomainError(f"{name} = {number:g} must be a finite number from 0 for a network.")
        for name in ("weight_decay", "weight_decay2", "ridge"):
            if not 0 <= (value := getattr(self, name)) < math.inf:
                raise DomainError(f"{name} = {value:g} must be finite and at least 0.")
        for name, times in (("times1", self.times1), ("times2", self.times2)):
            if any(not late >= early for early, late in itertools.pairwise((0.0, *times))):
                shown = ", ".join(f"{t:g}" for t in times)
                raise DomainError(f"{name} = {shown} must be ascending numbers from 0.")
        if self.gamma0 == 0 and self.weight_decay > 0 and self.times2:
            raise UsageError(
                f"gamma0 = 0 with weight_decay = {self.weight_decay:g}: a lazy network's features only decay; use a "
                "positive gamma0 or no weight decay on the source."
            )
        if not 0 <= self.momentum < 1:
            raise DomainError(f"momentum = {self.momentum:g} must be at least 0 and below 1.")
        if self.stochastic and self.gamma0 == 0:
            raise UsageError(
                "gamma0 = 0: lazy networks are solved exactly, without steps; leave --batch and --momentum."
            )
        self.surgery.check(self.depth)
        if self.surgery != Surgery() and (self.regresses or self.gamma0 == 0 or not self.times2):
            raise UsageError(
                "freeze, reinit_from and ablate change a network between two stages that both train it; use positive "
                "gamma0 and gamma2, and no frozen target."
            )
        ends = [self.times1[-1] if self.times1 else math.nan]
        if self.times2 and not self.regresses:
            ends.append(self.times2[-1])
        if not all(math.isfinite(end) for end in ends):
            raise DomainError("a network is trained for a finite time; give --t1 and --t2, or --times.")

    @property
    def stochastic(self) -> bool:
        """Whether training is descent in steps that gradient flow does not have: on minibatches, or with momentum."""
        return self.batch is not None or self.momentum > 0

    @property
    def second_gamma(self) -> float:
        """The richness of the target stage."""
        return self.gamma0 if self.gamma2 is None else self.gamma2

    @property
    def surgery(self) -> Surgery:
        """What happens to a deep network between the stages."""
        return Surgery(self.freeze, self.reinit_from, self.ablate)

    @property
    def deep(self) -> bool:
        """Whether the solver of deep networks is asked."""
        return self.depth > 1 or self.surgery != Surgery()

    @property
    def regresses(self) -> bool:
        """Whether the target stage is kernel regression."""
        return self.target == "frozen" or self.second_gamma == 0

    @property
    def second_ridge(self) -> float:
        """The ridge of that regression."""
        return self.ridge if self.target == "frozen" else self.ridge + self.weight_decay2


def parameters(where: str, asked: bool | None = None) -> list[str]:
    """Return the parameters of a training of the kind `where`, see `_of`; `asked` True or False: of these alone."""
    fields = [field for field in dataclasses.fields(TransferSettings) if where in field.metadata.get("where", ())]
    return [field.name for field in fields if asked in (None, field.metadata["asked"])]
