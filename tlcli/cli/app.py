"""The `tlcli` program: its subcommands, and how an error becomes one sentence and an exit code."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tlcli.cli import completion, interrupts
from tlcli.cli import plot as plotting
from tlcli.cli.commands import build
from tlcli.cli.help import Plain, class_of
from tlcli.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_UNEXPECTED, EXIT_USAGE, TlcliError
from tlcli.options.commands import COMMANDS, Command
from tlcli.paths import expanded
from tlcli.run import streams
from tlcli.run.shipped import shipped
from tlcli.version import __version__

app = typer.Typer(
    name="tlcli",
    help="Transfer learning in infinite-width networks that learn features: kernels, losses, phases.\n\n"
    "Grids: 0.5 · 0.1,0.5,inf · 0.1:2:40 (linear) · log:0.1:10:20.\n\n"
    "Exit codes: 0 ok · 1 unexpected · 2 usage or recipe · 3 some points not converged · 4 check failed · "
    "5 store incompatible · 6 cannot write · 130 interrupted.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_COMPLETE = "_TLCLI_COMPLETE"  # set by the shell's script of --install-completion
_COMPLETIONS = ("--install-completion", "--show-completion")


def _show_version(value: bool) -> None:
    if value:
        print(f"tlcli {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and stop.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    pass


def _run(command: Command, recipe: Path | None, flags: dict[str, Any]) -> None:
    from tlcli.cli.console import Console
    from tlcli.run.again import any_recipe
    from tlcli.run.execute import execute

    loaded = None if recipe is None else any_recipe(recipe)
    raise typer.Exit(execute(command.name, command.options, loaded, flags, Console(bool(flags.get("quiet")))))


def _with_commands() -> typer.Typer:
    """Return the program with the commands as they are now: a theory may have brought options of its own."""
    whole = typer.Typer()
    whole.info, whole.registered_callback = app.info, app.registered_callback
    for command in COMMANDS.values():
        whole.command(command.name, cls=class_of(command))(build(command, _run))
    whole.registered_commands += app.registered_commands
    return whole


def _with_one(name: str, words: Sequence[str]) -> typer.Typer:
    """Return the program with one command and, of its hundred flags, those among `words`: each costs a millisecond."""
    part = typer.Typer()
    part.info, part.registered_callback = app.info, app.registered_callback
    if name in COMMANDS:
        given = {word.partition("=")[0] for word in words}
        part.command(name, cls=class_of(COMMANDS[name]))(build(COMMANDS[name], _run, given))
    part.registered_commands += [one for one in app.registered_commands if one.name == name]
    return part


def _parse_and_run() -> Any:
    """Run what the arguments say; where a part of the program does not understand them, the whole says why."""
    name, *words = sys.argv[1:] or [""]
    if (name in COMMANDS or name in {one.name for one in app.registered_commands}) and _COMPLETE not in os.environ:
        try:
            return _with_one(name, words)(standalone_mode=False, prog_name="tlcli")
        except Exception as error:
            if not hasattr(error, "format_message"):
                raise
    return _with_commands()(standalone_mode=False, prog_name="tlcli")


@app.command("run", cls=Plain)
def run(
    recipes: Annotated[
        list[Path],
        typer.Argument(
            metavar="RECIPE...",
            help="Recipe files, names of those that come with tlcli, or files of results to run again.",
            autocompletion=completion.recipes,
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="DIR", help="Folder that receives one folder per recipe."),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", metavar="INT", help="Worker processes for experiments.")] = 1,
    executor: Annotated[str, typer.Option("--executor", metavar="WORD", help="local, dask:ADDRESS or mpi.")] = "local",
    seed: Annotated[int | None, typer.Option("--seed", metavar="INT", help="Seed of the experiments.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace another result and stored points.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be computed and stop.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no messages but errors.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 where a row missed the accuracy.")] = False,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Let recipes name Python code of your own to run (activations).")
    ] = False,
) -> None:
    """Run recipe files, whatever their command; a failing one does not stop the others.

    Examples:

        tlcli run recipes/fig1a.yaml

        tlcli run recipes/*.yaml -o results --jobs 2
    """
    from tlcli.cli.run import run_recipes

    flags = {"jobs": jobs, "executor": executor, "force": force, "dry_run": dry_run, "quiet": quiet, "strict": strict}
    flags["allow_code"] = allow_code
    if seed is not None:
        flags["seed"] = seed
    raise typer.Exit(run_recipes(recipes, output, flags))


@app.command("recipes", cls=Plain)
def recipes(
    show: Annotated[
        str | None,
        typer.Argument(metavar="[show]", help="show: print the recipe NAME.", autocompletion=lambda: ["show"]),
    ] = None,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Its name.", autocompletion=lambda: list(shipped()))
    ] = None,
) -> None:
    """List the recipes that come with tlcli, or print one.

    Examples:

        tlcli recipes

        tlcli recipes show fig1b

        tlcli run fig1b -o results
    """
    from tlcli.errors import UsageError
    from tlcli.run.shipped import find_recipe, title_of

    if show is None:
        for known, path in shipped().items():
            print(f"{known:22} {title_of(path)}".rstrip())
    elif show == "show" and name is not None:
        print(find_recipe(expanded(name)).read_text(encoding="utf-8"), end="")
    else:
        raise UsageError(f"recipes: '{show}' is unknown here; use `tlcli recipes` or `tlcli recipes show NAME`.")


@app.command("check", cls=Plain)
def check(
    tables: Annotated[list[Path], typer.Argument(metavar="TABLE...", help="Tables (CSV) or their folders.")],
    sigmas: Annotated[
        float,
        typer.Option("--sigmas", metavar="NUMBER", help="Allowed distance of one comparison, in standard errors."),
    ] = 4.0,
    finite_size: Annotated[
        float,
        typer.Option("--finite-size", help="Allowed systematic error, C/D of the theory's value.", metavar="C"),
    ] = 1.0,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 where a row missed the accuracy.")] = False,
) -> None:
    """Check results: complete, converged, and experiment within the standard errors of theory.

    The threshold holds for the whole table: with many comparisons, and with few trials per point, each may be
    farther than --sigmas standard errors by chance; it is widened so that a correct table fails as rarely as
    one Gaussian number beyond --sigmas. Exit codes: 0 good; 3 some points not converged (with
    --strict: or inaccurate); 4 incomplete, in disagreement, or with files that the run of the provenance did not
    write.

    Examples:

        tlcli check results/fig1a

        tlcli check results/*/table.csv --sigmas 5
    """
    from tlcli.report.checking import check_tables

    raise typer.Exit(check_tables([expanded(table) for table in tables], sigmas, finite_size, strict, print))


def _plot(folders: Sequence[Path], output: str | None, allow_code: bool, settings: Mapping[str, Any]) -> None:
    raise typer.Exit(plotting.plot(folders, output, allow_code, settings))


app.command("plot", cls=Plain)(plotting.command(_plot))


def main() -> None:
    """Run the program; the only place where exceptions become messages."""
    with streams.guarded():
        code = _exit_code()
        try:
            sys.stdout.flush()
        except TlcliError as error:
            _say(str(error))
            code = error.exit_code
    sys.exit(code)


def _exit_code() -> int:
    try:
        result = _parse_and_run()
        code = result if isinstance(result, int) else EXIT_OK
    except typer.Exit as leave:
        code = leave.exit_code
    except (typer.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    except TlcliError as error:
        _say(str(error))
        return error.exit_code
    except MemoryError:
        _say("not enough memory; use a smaller grid or --dim.")
        return EXIT_UNEXPECTED
    except SystemExit as leave:
        if _COMPLETE in os.environ or any(word.startswith(_COMPLETIONS) for word in sys.argv[1:]):
            # Typer leaves so once the shell has its answer, or its script
            return EXIT_OK if leave.code in (None, 0) else EXIT_UNEXPECTED
        _say(f"code that the command loaded called sys.exit({leave.code!r}), which a library must not; mend it.")
        return EXIT_UNEXPECTED
    except Exception as error:
        if not interrupts.seen():
            return _usage_or_unexpected(error)
        code = EXIT_INTERRUPTED  # Ctrl-C while a library was loading
    if code == EXIT_INTERRUPTED:  # some versions of Typer turn Ctrl-C into this code by themselves
        _say("interrupted; finished points are stored, the same command continues.")
    return code


def _usage_or_unexpected(error: Exception) -> int:
    """Typer's usage errors have another base class in each version, but all of them format themselves."""
    format_message = getattr(error, "format_message", None)
    if format_message is not None:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(format_message(), file=sys.stderr)
        else:
            text = " ".join(format_message().split())
            if found := re.search(r"unexpected extra arguments?(?:\(s\))? \((.*)\)", text):
                from tlcli.cli.commands import WITH_COMMAS

                text = f"'{found[1]}' stands by itself; {WITH_COMMAS}."
            _say(text)
        return EXIT_USAGE
    if os.environ.get("TLCLI_DEBUG"):
        raise error
    _say(f"unexpected {type(error).__name__}: {error} (set TLCLI_DEBUG=1 for the traceback; please report it)")
    return EXIT_UNEXPECTED


def _say(text: str) -> None:
    print(f"error: {text}", file=sys.stderr)
