"""K training stages in a row as a solver: every stage's parameters are axes, stage and task are inner axes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlcli.errors import DomainError, RecipeError
from tlcli.linear.stages import LinearStage, check_gram, run_stages
from tlcli.options import OPTIONS
from tlcli.options.commands import STAGE_OPTIONS
from tlcli.sweep.grids import parse_values
from tlcli.theories.base import ClosedForm, Columns, Experiment, Parameters
from tlcli.theories.linear.experiment import UnreducedDynamics

_OVERLAPS = 6  # different ones that a figure says one by one

FIELDS = ("alpha", "gamma", "duration", "sigma", "weight_decay")


@dataclass(frozen=True, eq=False)
class Curriculum(ClosedForm):
    """Any number of stages, each on a teacher of its own: `teachers` by stage, from 1, and their Gram matrix."""

    cheap: bool = False
    experiments: tuple[Experiment, ...] = (UnreducedDynamics(),)

    def evaluate(self, p: Parameters) -> Columns:
        """Return `tlcli.linear.stages.run_stages`, with the axes stage and task last."""
        return _evaluate(p, self.words["teachers"], np.asarray(self.words["gram"]))

    def told(self) -> str:
        """Return the teachers in the order of the stages, where that is not their own, and their overlaps."""
        teachers, gram = self.words["teachers"], self.words["gram"]
        words = [] if teachers == list(range(1, len(gram) + 1)) else [f"teachers {' → '.join(map(str, teachers))}"]
        pairs = [(i, j) for j in range(len(gram)) for i in range(j)]
        values = dict.fromkeys(gram[i][j] for i, j in pairs)
        if len(values) > _OVERLAPS:
            return ", ".join([*words, f"overlaps of teachers {_number(min(values))} to {_number(max(values))}"])
        for value in values:
            symbols = [rf"$\rho_{{{i + 1}{j + 1}}}$" for i, j in pairs if gram[i][j] == value]
            words.append(" = ".join([*symbols, _number(value)]))
        return ", ".join(words)


def _number(value: float) -> str:
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def curriculum(stages: Sequence[Mapping[str, Any]], gram: Sequence[Sequence[float]] | None) -> Curriculum:
    """Return the theory of a recipe's `stages:` and `gram:`.

    Raises:
        RecipeError: more teachers than the Gram matrix knows, or a bad value.
    """
    teachers = [stage["teacher"] for stage in stages]
    if gram is None:
        if max(teachers) > 1:
            raise RecipeError("stages with several teachers need 'gram', the matrix of the teachers' overlaps.")
        gram = [[1.0]]
    matrix = check_gram(gram)
    if max(teachers) > len(matrix):
        raise RecipeError(f"a stage has teacher {max(teachers)}, but gram knows 1 to {len(matrix)}.")
    own: dict[str, Any] = {}
    for number, stage in enumerate(stages, start=1):
        for field in FIELDS:
            name = f"{field}_{number}"
            own[name] = parse_values(stage[field], name)
            domain = OPTIONS[str(STAGE_OPTIONS[field])].domain
            assert domain is not None
            for value in own[name].array.tolist():
                domain.check(name, value)
                if field == "gamma" and value == 0:
                    raise DomainError(f"{name} = 0 is not allowed; it must be > 0, or inf.")
    return Curriculum(
        "linear-joint",
        ("init_scale", *own),
        own=own,
        inner={"stage": np.arange(1.0, len(stages) + 1), "task": np.arange(1.0, len(matrix) + 1)},
        words={"teachers": teachers, "gram": matrix.tolist()},
    )


def _evaluate(p: Parameters, teachers: Sequence[int], gram: Any) -> Columns:
    stages = [
        LinearStage(teacher - 1, *(p[f"{field}_{number}"] for field in FIELDS))
        for number, teacher in enumerate(teachers, start=1)
    ]
    results = run_stages(stages, gram, init_scale=p["init_scale"])
    shape = np.broadcast_shapes(*(result.status.shape for result in results))

    def stacked(arrays: Sequence[Any], width: int) -> Any:
        """Join one array per stage, (...) or (..., n_task), along a stage axis before the task axis."""
        return np.stack([np.broadcast_to(a, (*shape, width)) for a in arrays], axis=-2)

    n_task = len(gram)
    return {
        "overlap": stacked([r.overlap[..., -1] for r in results], n_task),
        "norm2": stacked([r.norm2[..., -1:] for r in results], 1),
        "loss": stacked([r.loss[..., -1] for r in results], n_task),
        "residual": stacked([r.residual[..., None] for r in results], 1),
        "status": stacked([r.status[..., None] for r in results], 1),
    }
