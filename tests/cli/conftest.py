"""The program in this process: arguments in, exit code and both streams out."""

import contextlib
import io
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from unittest import mock

import pytest


@dataclass(frozen=True)
class Finished:
    code: int
    out: str
    err: str


def call(*arguments: object) -> Finished:
    """Run the program; texts with spaces are several arguments, paths are one."""
    from tlcli.cli.app import main

    words = [w for a in arguments for w in (shlex.split(a) if isinstance(a, str) else [str(a)])]
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["tlcli", *words]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as leave,
    ):
        main()
    code = leave.value.code
    assert isinstance(code, int)
    return Finished(code, out.getvalue(), err.getvalue())


@pytest.fixture
def tlcli(tmp_path, monkeypatch) -> Callable[..., Finished]:
    """Run `tlcli` in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    return call


@pytest.fixture(scope="session")
def anywhere() -> Callable[..., Finished]:
    """Run `tlcli` where the caller is: for runs that write nothing, as many as one likes."""
    return call


@pytest.fixture
def rendered() -> None:
    """Render the figures of a test that is about them."""


@pytest.fixture(autouse=True)
def _figures(request) -> None:
    if "rendered" not in request.fixturenames:
        request.getfixturevalue("sketched")
