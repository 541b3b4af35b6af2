"""`tlcli run`: recipe files one after the other, each by its own command."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tlcli.cli.console import Console
from tlcli.errors import EXIT_OK, TlcliError, UsageError
from tlcli.options.commands import COMMANDS
from tlcli.run.again import any_recipe
from tlcli.run.execute import execute


def run_recipes(paths: Sequence[Path], output: str | None, flags: Mapping[str, Any]) -> int:
    """Run every recipe; return the first exit code that is not 0. An error in one does not stop the others."""
    console = Console(bool(flags.get("quiet")))
    if output == "-" and len(paths) > 1:
        raise UsageError("-o - takes one recipe, since a CSV holds one table.")
    code = EXIT_OK
    seen: dict[str, Path] = {}
    for path in paths:
        try:
            recipe = any_recipe(path)
            if recipe.command is None:
                raise UsageError(f"recipe '{path}' names no command; add one of {', '.join(COMMANDS)}.")
            if recipe.name in seen:
                raise UsageError(
                    f"recipe '{path}' has the name '{recipe.name}' of '{seen[recipe.name]}' and would replace its "
                    "results; give it another with the key 'name'."
                )
            seen[recipe.name] = path
            folder = {} if output is None else {"output": output if output == "-" else str(Path(output) / recipe.name)}
            command = COMMANDS[recipe.command]
            found = execute(recipe.command, command.options, recipe, {**flags, **folder}, console)
        except TlcliError as error:
            if len(paths) == 1:
                raise
            console.error(str(error))
            found = error.exit_code
        code = code or found
    return code
