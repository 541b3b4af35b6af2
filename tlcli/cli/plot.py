"""`tlcli plot`: figures of stored results, drawn anew without computing anything."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tlcli.cli.commands import annotation
from tlcli.errors import EXIT_OK, TlcliError, UsageError
from tlcli.options import DRAWN, OPTIONS
from tlcli.paths import expanded

HELP = """Draw the figures of stored results anew, without computing: other axes, columns, sizes, styles, formats.

The new figures go into FOLDER/plots (with -o DIR into DIR, for several folders into DIR/NAME each), with a
provenance of their own; the result stays as it is. Figures keep the recipe that makes them.

Examples:

    tlcli plot results/fig1b --size 3.4x2.6 --format pdf,png

    tlcli plot results/* --style paper.mplstyle -o figures

    tlcli plot results/finetune-loss --x gamma0 --quantity gain --xlim 0.1,10 --log-x
"""


def command(run: Callable[[Sequence[Path], str | None, bool, Mapping[str, Any]], None]) -> Callable[..., None]:
    """Return a function whose signature Typer turns into the flags of `plot`."""

    def callback(folders: Any, output: Any, allow_code: Any, **settings: Any) -> None:
        run(folders, output, allow_code, {name: value for name, value in settings.items() if value is not None})

    kind = inspect.Parameter
    folder = Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Folders of results.")]
    output = Annotated[
        str | None, typer.Option("-o", "--output", metavar="DIR", help="Folder of the figures (default: FOLDER/plots).")
    ]
    code = Annotated[bool, typer.Option("--allow-code", help=OPTIONS["allow_code"].help)]
    callback.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            kind("folders", kind.KEYWORD_ONLY, annotation=folder),
            *(
                kind(name, kind.KEYWORD_ONLY, default=None, annotation=annotation(OPTIONS[name], default=False))
                for name in ("x", "y", *DRAWN)
            ),
            kind("output", kind.KEYWORD_ONLY, default=None, annotation=output),
            kind("allow_code", kind.KEYWORD_ONLY, default=False, annotation=code),
        ]
    )
    callback.__doc__ = HELP
    callback.__name__ = "plot"
    return callback


def plot(folders: Sequence[Path], output: str | None, allow_code: bool, settings: Mapping[str, Any]) -> int:
    """Draw every result; return the first exit code that is not 0. An error in one does not stop the others."""
    from tlcli.cli.console import Console
    from tlcli.run.outputs import pages_told, save_figures
    from tlcli.run.stored import load

    folders = [expanded(folder) for folder in folders]
    parent = None if output is None else expanded(output)
    names = [folder.resolve().name for folder in folders]
    if output is not None and (twice := [folder for folder in folders if names.count(folder.resolve().name) > 1]):
        raise UsageError(
            f"'{twice[0]}' and '{twice[1]}' have one name, and so have the folders of their figures below {output}; "
            "draw them one by one."
        )
    console = Console()
    code = EXIT_OK
    for folder in folders:
        name = folder.resolve().name
        where = folder / "plots" if parent is None else parent / name if len(folders) > 1 else parent
        try:
            if output == "-":
                raise UsageError("-o - takes no figure; give a folder.")
            result = load(folder, allow_code=allow_code)
            paths = save_figures(result.redrawn(settings), where)
            console.note(f"{where}/ holds {', '.join(path.name for path in paths)}")
            if (told := pages_told([path.name for path in paths])) is not None:
                console.note(told)
            console.note(result.verdict)
        except TlcliError as error:
            if len(folders) == 1:
                raise
            console.error(str(error))
            code = code or error.exit_code
    return code
