"""The help of a command: its examples as they are to be copied, then its options, common or all."""

import inspect
import shutil
import textwrap
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from typer.core import TyperCommand

from tlcli.options import OPTIONS
from tlcli.options.commands import Command, option_of
from tlcli.options.option import Option
from tlcli.theories.registry import ENTRIES, solvers_of

METAVARS = {"grid": "GRID", "number": "NUMBER", "integer": "INT", "choice": "WORD", "expression": "EXPR"}
_COLUMN = 28  # where the meaning of an option starts


def offered(command: Command, name: str, model: str | None = None) -> Option:
    """Return an option as the command's help offers it: --solver with the theories of this command and model alone."""
    option = option_of(command, name)
    if name != "solver":
        return option
    words = [word for word in option.choices if (command.name, word) in ENTRIES]
    return replace(option, choices=tuple(word for word in words if model is None or word in solvers_of(model)))


def meaning(option: Option, *, default: bool = True) -> str:
    """Return what an option does, its default and its choices."""
    text = option.help
    if default and option.default is not None and option.default is not False:
        value = option.default
        text += f" (default: {f'{value:g}' if isinstance(value, float) else value})"
    if option.choices:
        text += f" One of: {', '.join(option.choices)}."
    return text


def text_of(
    command: Command,
    width: int,
    only: Container[str] | None = None,
    *,
    everything: bool = False,
    model: str | None = None,
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Return the help of a command that computes, with all its options or all of `only`, or with the common ones.

    `defaults` replace those of the options, as a theory's own.
    """
    names = [name for name in dict.fromkeys(command.options) if _is_shown(command, name)]
    shown = [name for name in names if (name in (only or names) if everything else name in command.common)]
    panels: dict[str, list[tuple[str, str]]] = {}
    for option in (offered(command, name, model) for name in shown):
        if option.name == "solver" and not option.choices:
            continue
        own = replace(option, default=defaults.get(option.name, option.default))
        panels.setdefault(option.panel, []).append((_flag(option), meaning(own)))
    if everything:
        panels["Help"] = [("--recipe FILE", "The recipe file [RECIPE], as a flag.")]
        panels["Help"] += [("-h, --help", "Show the examples and the common options.")]
    else:
        text = (
            f"Show the {len(names) - len(shown)} other options of {command.name} too; beside --solver, what it takes."
        )
        panels["Help"] = [("--help-all", text)]
    examples = "\n\n".join(f"    {example}" for example in command.examples)
    about = f"{command.summary}\n\nExamples:\n\n{examples}"
    heading = "All options:" if everything else "Options:"
    return _page(f"{command.name} [OPTIONS] [RECIPE]", about, heading, panels, width)


def _page(usage: str, about: str, heading: str, panels: Mapping[str, Sequence[tuple[str, str]]], width: int) -> str:
    """Return a page of help; indented lines are examples, never wrapped, so that a line of them is a command."""
    lines = [f"Usage: tlcli {usage}", ""]
    for part in about.strip().split("\n\n"):
        lines += [f"  {part.strip()}"] if part.startswith("    ") else textwrap.wrap(part, width)
        lines.append("")
    lines.append(heading)
    for panel, rows in panels.items():
        lines += ["", f" {panel}"]
        for flag, text in rows:
            lines += _row(flag, text, width)
    return "\n".join(lines) + "\n"


def _is_shown(command: Command, name: str) -> bool:
    """One word for one thing, and nothing that is refused."""
    return name not in command.refused and OPTIONS[name].synonym not in command.options


def _flag(option: Option) -> str:
    if option.kind == "flag":  # a flag that decides by itself what it is has a way to be switched off
        return option.flag if option.default is False else f"{option.flag}, --no-{option.flag[2:]}"
    short = "-o, " if option.name == "output" else ""
    return f"{short}{option.flag} {option.metavar or METAVARS.get(option.kind, 'TEXT')}"


def _row(flag: str, text: str, width: int) -> list[str]:
    wrapped = textwrap.wrap(text, width - _COLUMN, break_long_words=False, break_on_hyphens=False) or [""]
    first = f"  {flag}".ljust(_COLUMN)
    if len(first) > _COLUMN:
        return [first, *(" " * _COLUMN + line for line in wrapped)]
    return [first + wrapped[0], *(" " * _COLUMN + line for line in wrapped[1:])]


def _width() -> int:
    return min(max(shutil.get_terminal_size().columns, 60), 100)


class Plain(TyperCommand):
    """A command whose help is a page of the same kind, from its docstring and its parameters."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page."""
        panels: dict[str, list[tuple[str, str]]] = {}
        words = []
        parameters: list[Any] = list(self.get_params(ctx))
        for parameter in parameters:
            if parameter.param_type_name == "argument":
                words.append(parameter.metavar or parameter.name.upper())
                panels.setdefault("Arguments", []).append(
                    (words[-1], parameter.help or "")
                )  # lost by typer 0.16 with click 8.5
            elif not parameter.hidden:
                panel = getattr(parameter, "rich_help_panel", None) or "General"
                panels.setdefault(panel, []).append((_flag_of(parameter), _meaning_of(parameter)))
        about = inspect.cleandoc(self.help or "")
        formatter.write(_page(f"{self.name} [OPTIONS] {' '.join(words)}", about, "Options:", panels, _width()))


def _flag_of(parameter: Any) -> str:
    """Return the flag as its row shows it, a short name first: -o, --output DIR."""
    names = ", ".join(sorted([*parameter.opts, *parameter.secondary_opts], key=lambda flag: flag.startswith("--")))
    return names if parameter.is_flag else f"{names} {parameter.metavar or 'TEXT'}"


def _meaning_of(parameter: Any) -> str:
    default = parameter.default
    if parameter.is_flag or not isinstance(default, (str, int, float)):
        return parameter.help
    return f"{parameter.help} (default: {default})"


def class_of(command: Command) -> type[TyperCommand]:
    """Return the class of Typer's command that writes this help."""

    class Helpful(TyperCommand):
        def format_help(self, ctx: Any, formatter: Any) -> None:
            formatter.write(text_of(command, _width()))

    return Helpful


def print_all(command: Command, given: Mapping[str, Any]) -> None:
    """Print all options; beside flags that choose a theory, those that it takes.

    Raises:
        UsageError: flags that lead to no theory.
    """
    only, defaults = None, dict[str, Any]()
    if given:
        from tlcli.run.job import defaults_with, taken_with

        only, defaults = taken_with(command.name, given), defaults_with(command.name, given)
    print(text_of(command, _width(), only, everything=True, model=given.get("model"), defaults=defaults), end="")
