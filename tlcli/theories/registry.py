"""Which theory answers which command: one entry for each, and what leads to it.

A theory comes in by `register`: its name is then a choice of --solver, its options are flags of its commands, and
everything else (table, figure, sweep, resuming, help) follows from the contract in `tlcli.theories.base`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tlcli.errors import UsageError, suggest
from tlcli.options import BAYES_SOLVERS, NETWORK_SOLVERS, OPTIONS, SOLVERS
from tlcli.options.commands import COMMANDS
from tlcli.options.option import Option

if TYPE_CHECKING:
    from tlcli.theories.base import Theory

Get = Callable[[str], Any]  # the parsed value of an option, None where it is not given


@dataclass(frozen=True)
class Asked:
    """What a command asks of a theory: `get` gives options as they are written, `value` with their defaults.

    `stages` and `gram` are those of a recipe, empty and None elsewhere.
    """

    command: str
    get: Get
    value: Get
    stages: Sequence[Mapping[str, Any]] = ()
    gram: Sequence[Sequence[float]] | None = None


Build = Callable[[Asked], "Theory"]


@dataclass(frozen=True)
class Entry:
    """A theory under a name for some commands: how it is built, and whether it takes a recipe's `stages`."""

    name: str
    commands: tuple[str, ...]
    build: Build
    stages: bool = False


TRANSFER = ("finetune-loss", "phase-diagram")
ENTRIES: dict[tuple[str, str], Entry] = {}


def register(entry: Entry, options: Sequence[Option] = ()) -> None:
    """Add a theory, and the options that it alone has.

    Raises:
        ValueError: a name that one of the commands has already, or an option of another meaning.
    """

    for command in entry.commands:
        if (command, entry.name) in ENTRIES:
            raise ValueError(f"{command} has a theory '{entry.name}' already")
        ENTRIES[command, entry.name] = entry
    solver = OPTIONS["solver"]
    if entry.name not in solver.choices:
        OPTIONS["solver"] = replace(solver, choices=(*solver.choices, entry.name))
    for option in options:
        if OPTIONS.setdefault(option.name, option) is not option:
            raise ValueError(f"there is an option '{option.name}' already")
        for command in entry.commands:
            known = COMMANDS[command]
            COMMANDS[command] = replace(
                known, options=(*known.options, option.name), common=(*known.common, option.name)
            )


def find(asked: Asked) -> "Theory":
    """Return the theory that a command asks for, with the parameters that its options leave open.

    Raises:
        UsageError: a command or a model without such a theory, or what the theory refuses.
    """
    name = _name(asked)
    entry = ENTRIES.get((asked.command, name))
    if entry is None:
        known = [other for command, other in ENTRIES if command == asked.command and other in SOLVERS]
        raise UsageError(
            f"{asked.command} has no solver '{name}'; use one of {', '.join(known)}{suggest(name, known)}."
        )
    if asked.stages and not entry.stages:
        raise UsageError(f"stages need solver: linear-joint, not {name}.")
    return entry.build(asked)


def solvers_of(model: str) -> tuple[str, ...]:
    """Return the solvers that a word of --model allows."""
    return (
        NETWORK_SOLVERS
        if model == "network"
        else tuple(s for s in SOLVERS if s not in (*NETWORK_SOLVERS, *BAYES_SOLVERS))
    )


def _name(asked: Asked) -> str:
    """Return the name of the theory that command, model and solver lead to."""
    command, model, solver = asked.command, asked.get("model"), asked.get("solver")
    if command == "bayes-saddle":
        return command
    if command == "dmft-solve":
        return "network-rich"
    if solver in BAYES_SOLVERS:
        if command != "phase-diagram":
            raise UsageError(f"{command} has no solver '{solver}'; use tlcli bayes-saddle, or phase-diagram with it.")
        if model is not None:
            raise UsageError(f"--model {model} has no solver '{solver}'; leave out --model.")
        return str(solver)
    named = solver in NETWORK_SOLVERS
    if command == "pretrain-kernel":
        if named or (model == "network" and solver is not None):
            raise UsageError(f"pretrain-kernel has no solver '{solver}' for networks; give --model network alone.")
        return "network-pretrain" if model == "network" else str(asked.value("solver"))
    if model is not None and solver is not None and (model == "network") != named:
        raise UsageError(f"--model {model} has no solver '{solver}'; use one of {', '.join(solvers_of(str(model)))}.")
    return "network-frozen" if model == "network" and not named else str(asked.value("solver"))


def _pretraining(asked: Asked) -> "Theory":
    from tlcli.theories.linear.theory import pretraining

    return pretraining(any(asked.get(name) is not None for name in ("rho", "rho_xi")), asked.get("alpha2") is not None)


def _linear(name: str) -> Build:
    def build(asked: Asked) -> "Theory":
        from tlcli.theories.linear.theory import BY_NAME

        hidden = ("correlations",) if name != "linear-two-time" and asked.get("correlations") else ()
        return BY_NAME[name](hidden=hidden)

    return build


def _classify(asked: Asked) -> "Theory":
    from tlcli.theories.linear.classify import classify_theory

    return classify_theory(asked.get)


def _joint(asked: Asked) -> "Theory":
    from tlcli.theories.linear.curriculum import curriculum
    from tlcli.theories.linear.theory import JointTheory

    return curriculum(asked.stages, asked.gram) if asked.stages else JointTheory()


def _structured(asked: Asked) -> "Theory":
    from tlcli.theories.linear.theory import structured

    return structured(asked.value("spectrum"))


def _network(name: str) -> Build:
    def build(asked: Asked) -> "Theory":
        from tlcli.theories.network.theory import network_theory

        return network_theory(asked.command, name, asked.get)

    return build


def _bayes(name: str | None) -> Build:
    def build(asked: Asked) -> "Theory":
        from tlcli.theories.bayes.theory import bayes_theory

        return bayes_theory(asked.command, name, asked.get)

    return build


_BUILT_IN = (
    Entry("linear-exact", ("pretrain-kernel",), _pretraining),
    *(Entry(name, TRANSFER, _linear(name)) for name in ("linear-exact", "linear-ansatz")),
    Entry("linear-classify", TRANSFER, _classify),
    Entry("linear-joint", TRANSFER, _joint, stages=True),
    Entry("linear-structured", TRANSFER, _structured),
    Entry("linear-two-time", TRANSFER, _linear("linear-two-time")),
    Entry("network-pretrain", ("pretrain-kernel",), _network("network-pretrain")),
    Entry("network-frozen", TRANSFER, _network("network-frozen")),
    Entry("network-rich", (*TRANSFER, "dmft-solve"), _network("network-rich")),
    Entry("bayes-saddle", ("bayes-saddle",), _bayes(None)),
    *(Entry(name, ("phase-diagram",), _bayes(name)) for name in BAYES_SOLVERS),
)
ENTRIES.update({(command, entry.name): entry for entry in _BUILT_IN for command in entry.commands})
