"""Paths as the user writes them: `~` is his home folder wherever one is given, quoted for the shell or in Python."""

import os
from pathlib import Path

from tlcli.errors import UsageError


def expanded(path: "str | os.PathLike[str]") -> Path:
    """Return a path whose leading `~` or `~user` is the home folder that it means.

    Raises UsageError for a user that there is not: a folder called `~name` would be made where one stands.
    """
    text = os.fspath(path)
    found = os.path.expanduser(text)
    if found == text and text.startswith("~"):
        user = Path(text).parts[0]
        raise UsageError(f"'{text}': there is no home folder of {user}; write './{text}' for a path that begins so.")
    return Path(found)
