"""The help of a command that computes: its examples as they are to be copied, then its options, common or all."""

import shutil
import textwrap
from dataclasses import replace
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from tlcli.options import OPTIONS
from tlcli.options.commands import Command, option_of
from tlcli.options.option import Option
from tlcli.theories.registry import ENTRIES

METAVARS = {"grid": "GRID", "number": "NUMBER", "integer": "INT", "choice": "WORD", "expression": "EXPR"}
_COLUMN = 28  # where the meaning of an option starts


def offered(command: Command, name: str) -> Option:
    """Return an option as the command's help offers it: --solver with the theories of this command alone."""
    option = option_of(command, name)
    if name != "solver":
        return option
    return replace(option, choices=tuple(word for word in option.choices if (command.name, word) in ENTRIES))


def meaning(option: Option, *, default: bool = True) -> str:
    """Return what an option does, its default and its choices."""
    text = option.help
    if default and option.default is not None and option.default is not False:
        text += f" (default: {option.default})"
    if option.choices:
        text += f" One of: {', '.join(option.choices)}."
    return text


def text_of(command: Command, width: int, *, everything: bool = False) -> str:
    """Return the help; examples are never wrapped, so that a line of them is a command."""
    lines = [f"Usage: tlcli {command.name} [OPTIONS] [RECIPE]", "", *textwrap.wrap(command.summary, width), ""]
    lines += ["Examples:", ""]
    for example in command.examples:
        lines += [f"  {example}", ""]
    names = [name for name in dict.fromkeys(command.options) if _is_shown(command, name)]
    shown = [name for name in names if everything or name in command.common]
    options = [offered(command, name) for name in shown]
    lines.append("All options:" if everything else "Options:")
    for panel in dict.fromkeys(option.panel for option in options):
        lines += ["", f" {panel}"]
        for option in (option for option in options if option.panel == panel):
            lines += _row(_flag(option), meaning(option), width)
    lines += ["", " Help"]
    if everything:
        lines += _row("--recipe FILE", "The recipe file [RECIPE], as a flag.", width)
        lines += _row("-h, --help", "Show the examples and the common options.", width)
    else:
        rest = len(names) - len(shown)
        lines += _row("--help-all", f"Show the {rest} other options of {command.name} too.", width)
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
    wrapped = textwrap.wrap(text, width - _COLUMN, break_long_words=False, break_on_hyphens=False)
    first = f"  {flag}".ljust(_COLUMN)
    if len(first) > _COLUMN:
        return [first, *(" " * _COLUMN + line for line in wrapped)]
    return [first + wrapped[0], *(" " * _COLUMN + line for line in wrapped[1:])]


def _width() -> int:
    return min(max(shutil.get_terminal_size().columns, 60), 100)


def class_of(command: Command) -> type[TyperCommand]:
    """Return the class of Typer's command that writes this help."""

    class Helpful(TyperCommand):
        def format_help(self, ctx: Any, formatter: Any) -> None:
            formatter.write(text_of(command, _width()))

    return Helpful


def help_all(command: Command) -> Any:
    """Return the annotation of the flag --help-all."""

    def show(value: bool) -> None:
        if value:
            print(text_of(command, _width(), everything=True), end="")
            raise typer.Exit

    return Annotated[
        bool,
        typer.Option("--help-all", is_eager=True, callback=show, help="Show all options."),
    ]
