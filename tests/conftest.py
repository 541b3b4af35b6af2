"""What all tests share."""

import os
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings

# Tests side by side share the cores: further threads of BLAS only wait for each other, and cost a third more CPU time.
# NumPy reads this when it is loaded, which is later; programs that tests start inherit it.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

# Examples are the same everywhere, and none fails because the machine is busy: speed has benchmarks of its own.
settings.register_profile(
    "tlcli", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)
settings.load_profile("tlcli")


@pytest.fixture(scope="session")
def recipe_runs(tmp_path_factory):
    """The folder of `tests.recipe_regression.shared_run`, one for all workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "recipes"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def sketched(monkeypatch):
    """Build every figure but write an empty one, with its provenance, in its place: rendering costs more than a run.

    For tests that are about something else.
    """
    from matplotlib.figure import Figure

    from tlcli.report import writer

    save = writer.save

    def sketch(figure, path, content, drawing):
        save(Figure((1, 1)), path, content, replace(drawing, size=None))

    monkeypatch.setattr(writer, "save", sketch)


@pytest.fixture
def registering():
    """Forget at the end of the test which theories, and options with them, it has registered."""
    from tlcli.options import OPTIONS
    from tlcli.options.commands import COMMANDS
    from tlcli.theories.registry import ENTRIES

    kept = [(table, dict(table)) for table in (ENTRIES, OPTIONS, COMMANDS)]
    yield
    for table, before in kept:
        table.clear()
        table.update(before)
