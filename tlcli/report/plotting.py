"""The plotting library without what the user has configured for it: equal runs are equal bytes on every account."""

import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tlcli.errors import UsageError
from tlcli.report.logs import logged

# Inches that texts may take in one line and in height: a title is broken into lines, a label stands over one panel.
_WIDEST = {"title": 15.0, "label": 6.0}
_HIGHEST = 1.5


def load() -> None:
    """Import matplotlib without MPLBACKEND and matplotlibrc files, one of which could make the import fail."""
    if "matplotlib" in sys.modules:
        return
    logger = logging.getLogger("matplotlib")
    saved = {name: os.environ.get(name) for name in ("MPLBACKEND", "MATPLOTLIBRC")}
    level, here = logger.level, os.getcwd() if os.path.exists("matplotlibrc") else None
    os.environ.update(MPLBACKEND="agg", MATPLOTLIBRC=os.devnull)
    logger.setLevel(logging.CRITICAL)  # of caches and folders that are no concern of a result
    try:
        if here is not None:  # a file in the working folder comes before MATPLOTLIBRC
            os.chdir(Path(__file__).parent)
        import matplotlib.pyplot  # noqa: F401
    finally:
        if here is not None:
            os.chdir(here)
        logger.setLevel(level)
        for name, value in saved.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def check_style(path: Path, formats: Sequence[str]) -> list[str]:
    """Draw a little of all with the settings of an mplstyle file; return the fonts of it that are not installed.

    Raises:
        UsageError: a line is no setting, or nothing can be drawn so: formulas of an absent LaTeX, sizes that are none.
    """
    load()
    from tlcli.report.style import look, new_figure

    try:
        with look(path), warnings.catch_warnings(), logged() as said:
            warnings.simplefilter("ignore")
            figure, ((axis,),) = new_figure(1, 1, (3.0, 2.5))
            axis.errorbar([0.1, 0.9], [1.0, 2.0], yerr=0.1, label="1")
            axis.plot([0.1, 0.9], [2.0, 1.0], label=r"$\gamma_0 = \infty$")
            axis.imshow([[0.0, 1.0], [1.0, 0.0]])
            axis.legend()
            for ending in formats or ("png",):
                figure.savefig(io.BytesIO(), format=ending)
    except UsageError:
        raise
    except Exception as error:  # what settings can do wrong has many types
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UsageError(f"style: figures cannot be drawn with '{path}' ({reason}); correct it.") from None
    found = (re.search(r"Font family '(.*)' not found", text) for text in said)
    return list(dict.fromkeys(f"'{match[1]}'" for match in found if match))


def check_text(kind: str, text: str) -> str:
    """Refuse a "title" or a case's "label" that cannot be drawn; return the characters that no font has.

    Raises:
        UsageError: a formula that is none, text that is no text, or a line wider than any figure.
    """
    load()
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure

    from tlcli.report.style import RC

    shown = (text if len(text) <= 60 else text[:57] + "...").replace("\n", "\\n")
    with plt.rc_context(RC), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure = Figure()
        size = RC["figure.titlesize" if kind == "title" else "axes.titlesize"]
        drawn = figure.text(0.0, 0.0, text, fontsize=size)
        try:
            box = drawn.get_window_extent()
        except Exception as error:  # what a formula can do wrong has many types
            raise UsageError(_refusal(kind, shown, error)) from None
    for size, most, side in ((box.width, _WIDEST[kind], "wide"), (box.height, _HIGHEST, "high")):
        if size > most * figure.dpi:
            raise UsageError(
                f"{kind}: '{shown}' has {len(text)} characters and is {size / figure.dpi:.0f} inches {side}, where a "
                f"figure has room for {most:g}; shorten it."
            )
    missing = any("missing from font" in str(warning.message) for warning in caught)
    return "".join(c for c in dict.fromkeys(text) if c != "\n" and not _has_glyph(c)) if missing else ""


def _has_glyph(character: str) -> bool:
    from matplotlib import font_manager

    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    return bool(font.get_char_index(ord(character)))


def _refusal(kind: str, shown: str, error: Exception) -> str:
    reason: Any = str(error).strip().splitlines()
    formula = "$" in shown and isinstance(error, ValueError) and reason
    if not formula:
        return f"{kind}: {shown!r} cannot be drawn ({type(error).__name__}); use letters, digits and formulas in $...$."
    problem = reason[-1].partition(": ")[2].partition("  (at char")[0]
    return (
        rf"{kind}: '{shown}' cannot be drawn ({problem}); correct what stands between the $ signs, or write \$ for a $."
    )
