"""The losses of networks as help texts name them: those that `tlcli.losses` registers, read without importing it.

`tlcli.losses` needs NumPy, and `--help` must not: the classes of its files are read as text.
"""

import functools
import re
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "losses"
_FIRST = ("mse", "logistic", "softmax")  # the usual ones, the others by their files
_FORM = re.compile(r'^    form(?:: [^=]+)? = "([^"]+)"', re.MULTILINE)
_SMOOTHS = re.compile(r"^    smooths(?:: [^=]+)? = True", re.MULTILINE)


@functools.cache
def network_losses(smooths: bool = False, folder: Path = FOLDER) -> tuple[str, ...]:
    """Return how every loss is written (huber:k), or every one that label smoothing is for."""
    found: list[str] = []
    for path in sorted(folder.glob("*.py")):
        for part in re.split(r"^class ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            form = _FORM.search(part)
            if form and (not smooths or _SMOOTHS.search(part)):
                found.append(form[1])
    return tuple(sorted(found, key=lambda form: _FIRST.index(form) if form in _FIRST else len(_FIRST)))


def one_of(names: Sequence[str]) -> str:
    """Return `a, b or c`."""
    return " or ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)
