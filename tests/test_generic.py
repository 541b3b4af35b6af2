"""What is special about a parameter belongs to its option or its theory: generic code names none.

Generic is what serves every theory: how a question becomes a result (`run`), how it is written and drawn (`report`, but
for the figures of one family), and what an option is.
"""

import ast
from pathlib import Path

from tlcli.options import OPTIONS
from tlcli.options.columns import COLUMNS

PACKAGE = Path(__file__).resolve().parent.parent / "tlcli"
OF_A_FAMILY = {f"report/{name}.py" for name in ("bayes", "classes", "kernels", "layers", "network", "predictions")}
# Settings of a figure, of a run and of its files are what generic code is about, and so are those of experiments.
ITS_OWN = {"Figure", "Run", "Outputs", "Experiment"}

# What is no parameter although it is written like one, or stands for the theory itself.
ALLOWED = {
    "which theory answers": {
        ("run/job.py", "solver"),
        ("run/job.py", "model"),
        ("run/occupied.py", "solver"),
        ("report/facets.py", "solver"),
    },
    "the axis `time` of every theory, as it is asked for": {("run/job.py", "times")},
    "how finite an experiment is, beside trials, nets and width": {
        ("report/agreement.py", "dim"),
        ("report/agreement.py", "draws"),
        ("report/told.py", "draws"),
        ("run/dry_run.py", "dim"),
        ("run/job.py", "dim"),
        ("run/outputs.py", "dim"),
        ("run/result.py", "dim"),
        ("run/unused.py", "dim"),
    },
    "what errors are by, in words": {("report/told.py", "neurons")},
    "names of experiments": {
        ("report/curves.py", "regression"),
        ("report/interactive.py", "regression"),
        ("report/style.py", "regression"),
        ("report/style.py", "population"),
    },
    "the two stages and their tasks, without which there is no transfer": {
        ("report/facets.py", "source"),
        ("report/facets.py", "target"),
        ("report/interactive.py", "source"),
        ("report/interactive.py", "target"),
        ("run/job.py", "source"),
        ("run/job.py", "target"),
    },
    "letters and signs of formulas": {("report/markup.py", name) for name in ("beta", "delta", "rho", "times")},
    "a key of the plotting library": {("report/interactive.py", "steps")},
}


def named(text):
    """The parameters that a source names; a computed column of the same name is none."""
    texts = {node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)}
    return {name for name in texts & OPTIONS.keys() - COLUMNS.keys() if OPTIONS[name].panel not in ITS_OWN}


def test_generic_code_names_no_parameter():
    generic = [PACKAGE / "options" / "option.py", *(PACKAGE / "run").rglob("*.py"), *(PACKAGE / "report").rglob("*.py")]
    paths = {path.relative_to(PACKAGE).as_posix(): path for path in generic}
    assert paths.keys() >= OF_A_FAMILY
    found = {
        (name, key) for name in paths.keys() - OF_A_FAMILY for key in named(paths[name].read_text(encoding="utf-8"))
    }
    assert found == set().union(*ALLOWED.values())


def test_a_parameter_that_generic_code_names_is_seen():
    assert named('def silent(name): return name == "gamma2" or name in ("t1", "loss", "title")') == {"gamma2", "t1"}
    assert named('def silent(option): return bool(option.follows)  # "gamma2"') == set()
