"""Whole numbers at the edges: every integer option of every command refuses, in one sentence, what no memory holds."""

import pytest

from tlcli.errors import EXIT_USAGE, UsageError
from tlcli.options import OPTIONS
from tlcli.options.commands import COMMANDS
from tlcli.run.execute import execute

EDGES = ["1e30", "1e300", "1" + "0" * 400, 10**400, 10**30, "-1", "2.5", "nan", "inf"]
TASKS = {"source": "he1", "target": "he2", "p1": "10", "p2": "5", "dim": "4"}
# Settings of every command with which its options have an effect, as far as one command has them together.
BASES = {
    "pretrain-kernel": [{}, {**TASKS, "model": "network"}],
    "finetune-loss": [
        {"simulate": True, "dim": "20"},
        {**TASKS, "model": "network", "integrator": "euler", "dt": "0.1"},
        {**TASKS, "model": "network", "average": "auto"},
        {"solver": "linear-structured"},
        {"solver": "linear-structured", "spectrum": "digits", "source": "digits:3v8", "target": "digits:4v9"},
        {"solver": "linear-two-time", "times": "1,2"},
    ],
    "dmft-solve": [{**TASKS, "simulate": True}, {**TASKS, "depth": "2"}, {**TASKS, "integrator": "euler", "dt": "0.1"}],
    "bayes-saddle": [{**TASKS, "target": "he1"}, {**TASKS, "activation": "erf", "simulate": True}],
    "phase-diagram": [
        {"x": "alpha2=0.1,0.5", "y": "rho=0.1,0.5"},
        {**TASKS, "model": "network", "p2": None, "x": "p2=2,5", "y": "gamma0=1,2"},
    ],
}
WHOLE = [name for name, o in OPTIONS.items() if o.kind == "integer" or (o.domain is not None and o.domain.whole)]


def _asked(command, settings):
    """Return the refusal of a dry run, None where it is none; the estimates, which take time, are left out."""
    given = {name: value for name, value in settings.items() if value is not None}
    try:
        execute(command, COMMANDS[command].options, None, {**given, "dry_run": True})
    except UsageError as error:
        return error
    return None


@pytest.mark.parametrize("command", COMMANDS)
def test_every_whole_number_at_the_edges_is_refused_in_one_sentence_or_taken(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tlcli.run.dry_run.report", lambda *_: None)
    names = [name for name in WHOLE if name in COMMANDS[command].options]
    assert names
    for name in names:
        for base in BASES[command]:
            for value in EDGES:
                found = _asked(command, {**base, name: value})
                assert found is None or found.exit_code == EXIT_USAGE
                text = str(found or "")
                assert "\n" not in text
                assert len(text) < 600, f"{command} {name} {value}: {text}"
                # No whole number is as large as these, but for seeds and where infinity is a limit.
                if value in ("1e300", 10**400) and name not in ("seed", "p1", "p2"):
                    assert found is not None, f"{command} {base} --{name} {value}"


NETWORK = "finetune-loss --model network --source he1 --target he2"
LARGE = [
    (f"{NETWORK} --p1 1e9", "p1 = 1e+09"),
    (f"{NETWORK} --p1 1e30", "p1 = 1e+30"),
    (f"{NETWORK} --p1 10 --dim 4 --x p2=1e9", "p2 = 1e+09"),
    (f"{NETWORK} --p1 10 --dim 4 --x p2=5,1e7", "p2 = 1e+07"),
    (f"{NETWORK} --ptest 1e11", "ptest = 1e+11"),
    (f"{NETWORK} --dim 1e11", "D = 1e+11"),
    (f"{NETWORK} --neurons 1e9", "neurons = 1e+09"),
    (f"{NETWORK} --alpha1 1e9", "p1 = 2e+10"),
    (f"{NETWORK} --average auto --pool 1e9", "pool = 1e+09"),
    (f"{NETWORK} --average auto --p2 1e9", "pool = 2e+09"),
    (f"{NETWORK} --average auto --p1 1e9", "p1 = 1e+09"),
    ("dmft-solve --source he1 --target he2 --simulate --width 1e11", "width = 1e+11"),
    ("bayes-saddle --source he1 --target he1 --p2 1e9", "p2 = 1e+09"),
    ("finetune-loss --solver linear-structured --dim 1e11", "D = 1e+11"),
    ("finetune-loss --simulate --dim 1e9", "D = 1e+09"),
    ("finetune-loss --solver linear-structured --p1 1e300 --p2 10 --simulate", "p1 = 1e+300"),
    ("dmft-solve --source he1 --target he2 --alpha1 1e308 --dim 1e11", "alpha1 = 1e+308 is too much"),
    ("dmft-solve --source he1 --target he2 --accuracy 1e-300", "accuracy = 1e-300 is not allowed"),
    ("dmft-solve --source he1 --target he2 --integrator euler --dt 1e-300 --t1 1", "dt = 1e-300 is not allowed"),
    ("dmft-solve --source he1 --target he2 --integrator euler --dt 1e-12 --t1 1", "dt = 1e-12 takes"),
]


@pytest.mark.parametrize(("words", "value"), LARGE)
@pytest.mark.parametrize("more", ["", "--dry-run"])
def test_what_no_memory_holds_is_refused_before_it_is_drawn_or_timed(words, value, more, tlcli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if more == "":  # whatever this machine has
        monkeypatch.setattr("tlcli.run.cost.available_memory", lambda: 64e9)
        monkeypatch.setattr("tlcli.theories.memory.available_memory", lambda: 64e9)
    done = tlcli(words, more)
    assert done.code == EXIT_USAGE
    assert value in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
