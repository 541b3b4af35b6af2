"""Typer commands, built from the commands as data."""

import inspect
import re
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tlcli.cli.completion import completion_of, recipes
from tlcli.cli.help import METAVARS, meaning, offered, print_all
from tlcli.errors import UsageError
from tlcli.options import OPTIONS
from tlcli.options.commands import Command
from tlcli.options.option import Option

WITH_COMMAS = "write several values of one option with commas and without spaces, as in --gamma0 0.5,1"
_STRAY = re.compile(r"[-+.,:\d]+(e[-+]?\d+)?|-?inf", re.ASCII)  # a value whose option ended at a space


def build(
    command: Command, run: Callable[[Command, Path | None, dict[str, Any]], None], given: Container[str] | None = None
) -> Callable[..., None]:
    """Return a function whose signature Typer turns into the flags of `command`: all, or those that are `given`."""

    def callback(**values: Any) -> None:
        every = values.pop("help_all")
        positional, named = values.pop("recipe_file"), values.pop("recipe")
        if positional is not None and named is not None:
            raise UsageError(f"two recipes are given, '{positional}' and '{named}'; give one, or use `tlcli run`.")
        if positional is not None and _STRAY.fullmatch(str(positional)) and not positional.exists():
            raise UsageError(f"'{positional}' stands by itself; {WITH_COMMAS}.")
        chosen = {k: v for k, v in values.items() if v is not None}
        if every:
            print_all(command, chosen)
        else:
            run(command, named or positional, chosen)

    path = Path | None
    parameters = [
        _parameter(
            "recipe_file",
            Annotated[path, typer.Argument(metavar="[RECIPE]", help="A recipe file.", autocompletion=recipes)],
        ),
        _parameter(
            "recipe",
            Annotated[path, typer.Option("--recipe", help="The same, as a flag.", autocompletion=recipes)],
        ),
        *(
            _parameter(name, annotation(offered(command, name), command.options))
            for name in dict.fromkeys(command.options)
            if given is None or any(flag in given for flag in _flags_of(OPTIONS[name]))
        ),
        _parameter("help_all", Annotated[bool, typer.Option("--help-all", help="Show all options.")], default=False),
    ]
    callback.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    callback.__doc__ = command.help
    callback.__name__ = command.name.replace("-", "_")
    return callback


def _parameter(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _flags_of(option: Option) -> list[str]:
    if option.name == "output":
        return ["-o", "--output"]
    return [option.flag, f"--no-{option.flag[2:]}"] if option.kind == "flag" else [option.flag]


def annotation(option: Option, axes: Sequence[str] = tuple(OPTIONS), *, default: bool = True) -> Any:
    """Return what Typer makes a flag of; its help names the default, unless nothing given means something else.

    `axes` are the options among which a shell finds --x and --y.
    """
    flags = _flags_of(option)
    kind: Any = str
    if option.kind == "flag":
        kind = bool
        flags = ["/".join(flags)]
    metavar = None if option.kind == "flag" else option.metavar or METAVARS.get(option.kind, "TEXT")
    return Annotated[
        kind | None,
        typer.Option(
            *flags,
            help=meaning(option, default=default),
            metavar=metavar,
            show_default=False,
            autocompletion=completion_of(option, axes),
            rich_help_panel=option.panel,
        ),
    ]
