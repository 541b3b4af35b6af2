"""Commands as functions of Python: the same options, the same validation, a `Result` instead of files.

They are built from the declarations of the commands, as the flags are (`tlcli.cli.commands`); `signature_of` gives
them real signatures, `stub` the types of the package's face for type checkers (`tlcli/__init__.pyi`).
"""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlcli.errors import UsageError, suggest
from tlcli.options.commands import COMMANDS, Command, option_of
from tlcli.options.option import Kind, Option
from tlcli.run.values import as_path, plain

if TYPE_CHECKING:
    from tlcli.report.checking import Checked
    from tlcli.run.result import Result

# Options that are about printing and writing, which a function does not do, and what stands for them.
WITHOUT = {
    "output": "call .save(FOLDER) on the result",
    "shard": "a part of a sweep has no result; divide it with the command line",
    "dry_run": "use the command line",
    "quiet": "nothing is printed",
    "strict": "look at .status of the result",
}
_TYPES = {
    **dict.fromkeys(("grid", "expression", "numbers"), "Grid"),
    "number": "float",
    "integer": "int",
    "text": "str",
    "flag": "bool",
}


def options_of(command: Command) -> dict[str, Option]:
    """Return the options that the command's function takes, by name."""
    return {name: option_of(command, name) for name in dict.fromkeys(command.options) if name not in WITHOUT}


def type_of(option: Option) -> str:
    """Return the type of an option's values as a type checker reads it; `Grid` is declared in the stub."""
    if option.kind == "choice":
        return f"Literal[{', '.join(repr(choice) for choice in option.choices)}]".replace("'", '"')
    return _TYPES[option.kind]


def function_of(command: Command) -> Callable[..., "Result"]:
    """Return the function of a command: recipe first, then every option by name."""

    def function(recipe: Any = None, **settings: Any) -> "Result":
        return answer(command.name, recipe, settings)

    function.__name__ = function.__qualname__ = command.name.replace("-", "_")
    function.__module__ = "tlcli"
    function.__doc__ = _docstring(command)
    function.__signature__ = signature_of(command)  # type: ignore[attr-defined]
    return function


def signature_of(command: Command) -> inspect.Signature:
    """Return the signature; every default is None, which leaves the choice to the theory."""
    kind = inspect.Parameter
    parameters = [kind("recipe", kind.POSITIONAL_OR_KEYWORD, default=None, annotation="Recipe | None")]
    parameters += [
        kind(name, kind.KEYWORD_ONLY, default=None, annotation=f"{type_of(option)} | None")
        for name, option in options_of(command).items()
    ]
    return inspect.Signature(parameters, return_annotation="Result")


def _docstring(command: Command) -> str:
    lines = [
        command.summary,
        "",
        "Values are numbers, lists, arrays or the texts of the command line (0.1:2:40, log:0.1:10:20).",
        "",
        "Args:",
        "    recipe: a recipe file, the name of one that comes with tlcli, or a mapping with the same keys.",
    ]
    for name, option in options_of(command).items():
        default = "" if option.default in (None, False) else f" Default: {option.default}."
        choices = f" One of {', '.join(option.choices)}." if option.choices else ""
        lines.append(f"    {name}: {option.help}{choices}{default}")
    lines += ["", "Returns:", "    Its table, arrays and figures, as a tlcli.run.result.Result.", "", "Raises:"]
    lines += ["    tlcli.errors.UsageError: a value or a combination that is not allowed, in one sentence."]
    return "\n".join(lines)


def answer(command: str, recipe: Any, settings: Mapping[str, Any]) -> "Result":
    """Run a command from Python.

    Raises:
        UsageError: an unknown option, a bad value, a recipe that cannot be used.
    """
    flags = _flags(COMMANDS[command], settings)
    from dataclasses import replace

    import matplotlib  # noqa: F401 (as the user has configured it, before a run would load it without)

    from tlcli.run.again import any_recipe
    from tlcli.run.compute import ask, compute
    from tlcli.run.messages import Kept
    from tlcli.run.stores import Stores, stores_of

    messages = Kept()
    loaded = None if recipe is None else any_recipe(recipe, command)
    job, how = ask(command, COMMANDS[command].options, loaded, flags, messages)
    result = compute(job, how, stores_of(job, how) if how.store else Stores({}, None), messages)
    assert result is not None  # there are no shards here
    return replace(result, notes=tuple(messages.notes), warnings=tuple(messages.warnings))


def _flags(command: Command, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as the command line would give them; refuse names that the function does not have."""
    name, known = command.name.replace("-", "_"), options_of(command)
    for key in settings:
        if key in WITHOUT:
            raise UsageError(f"{name} takes no '{key}' in Python; {WITHOUT[key]}.")
        if key not in known:
            hint = suggest(key, known)
            raise UsageError(f"{name} does not take '{key}'{hint}; help(tlcli.{name}) lists what it takes.")
    return {key: plain(known[key], value) for key, value in settings.items() if value is not None}


def run(recipe: Any, settings: Mapping[str, Any]) -> "Result":
    """Run a recipe by its own command.

    Raises:
        UsageError: a recipe without a command, or what the command refuses.
    """
    from tlcli.run.again import any_recipe

    loaded = any_recipe(recipe)
    if loaded.command is None:
        raise UsageError(f"the recipe names no command; add one of {', '.join(COMMANDS)}.")
    return answer(loaded.command, loaded, settings)


def load(folder: Any, *, allow_code: bool = False) -> "Result":
    """Return the result that a run has written into `folder`; nothing is computed.

    Args:
        folder: the folder of a result.
        allow_code: let the recipe of the result name Python code of your own (activations).

    Raises:
        tlcli.errors.UsageError: no result, a file that was changed since, or a recipe for another version.
    """
    from tlcli.run.stored import load

    allow = _given("allow_code", "flag", allow_code)
    return load(as_path(folder, "a folder of a result"), allow_code=allow)


def _given(name: str, kind: Kind, value: Any) -> Any:
    """Return a value of an argument that is no option, read as one. Raises UsageError."""
    option = Option(name, kind, None, "")
    return option.parse(plain(option, value))


def check(result: Any, *, sigmas: float = 4.0, finite_size: float = 1.0, strict: bool = False) -> "Checked":
    """Return what `tlcli check` says of a result, or of a folder or table: true where it is complete and agrees.

    Args:
        result: a Result, or the path of a folder or table.
        sigmas: allowed distance of one comparison, in standard errors.
        finite_size: allowed systematic error, C/D of the theory's value.
        strict: whether inaccurate rows count as not converged.

    Raises:
        tlcli.errors.UsageError: no table, or a limit that is none.
    """
    from tempfile import TemporaryDirectory

    from tlcli.report.checking import Checked, check_tables
    from tlcli.run.outputs import save
    from tlcli.run.result import Result

    sigmas, finite_size = _given("sigmas", "number", sigmas), _given("finite_size", "number", finite_size)
    strict = _given("strict", "flag", strict)
    lines: list[str] = []
    if not isinstance(result, Result):
        path = as_path(result, "a Result, a table or a folder")
        code = check_tables([path], sigmas, finite_size, strict, lines.append)
        return Checked("\n".join(lines), code)
    with TemporaryDirectory() as name:  # what is judged is what would stand in the file
        folder = Path(name) / "result"
        save(result, folder, force=False, figures=False)
        code = check_tables([folder], sigmas, finite_size, strict, lines.append)
    return Checked("\n".join(lines).replace(str(folder), result.job.name), code)


def stub() -> str:
    """Return the types of the package's face, `tlcli/__init__.pyi`."""
    head = '''"""Types of the functions that tlcli.run.functions builds; `python -m tlcli.run.functions` writes them."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Literal

from numpy.typing import NDArray

from tlcli.report.checking import Checked as Checked
from tlcli.run.result import Result as Result

__version__: str
__all__: list[str]

Grid = float | str | Sequence[float | str] | NDArray[Any]
Recipe = str | PathLike[str] | Mapping[str, Any]
'''
    parts = [head]
    for command in COMMANDS.values():
        lines = [f"def {command.name.replace('-', '_')}(", "    recipe: Recipe | None = None,", "    *,"]
        lines += [_line(name, option) for name, option in options_of(command).items()]
        parts.append("\n".join([*lines, ") -> Result: ..."]) + "\n")
    parts.append("def run(recipe: Recipe, **settings: Any) -> Result: ...\n")
    parts.append("def load(folder: str | PathLike[str], *, allow_code: bool = False) -> Result: ...\n")
    parts.append(
        "def check(\n    result: Result | str | PathLike[str],\n    *,\n    sigmas: float = 4.0,\n"
        "    finite_size: float = 1.0,\n    strict: bool = False,\n) -> Checked: ...\n"
    )
    return parts[0] + "\n" + "".join(parts[1:])


def _line(name: str, option: Option) -> str:
    whole = f"    {name}: {type_of(option)} | None = None,"
    if len(whole) <= 120:
        return whole
    inner = "\n".join(f'        "{choice}",' for choice in option.choices)
    return f"    {name}: Literal[\n{inner}\n    ]\n    | None = None,"


if __name__ == "__main__":
    (Path(__file__).parent.parent / "__init__.pyi").write_text(stub(), encoding="utf-8")
