"""A default folder that holds another job's result is refused, with the setting that differs."""

from pathlib import Path

import pytest

COMMAND = "finetune-loss --alpha2 0.3,0.6"


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("finetune-loss --alpha2 0.3,0.7", "its alpha2 is 0.3,0.6, not 0.3,0.7"),
        ("finetune-loss --alpha2 0.3,0.6 --rho 0.1", "its rho is 0.8, not 0.1"),
        ("finetune-loss --alpha2 0.3,0.6 --seed 1", "its seed is 0, not 1"),
        ("finetune-loss --alpha2 0.3,0.6 --simulate", "its simulate is False, not True"),
        ("finetune-loss --alpha2 0.3,0.6 --solver linear-two-time", "its solver is linear-exact, not linear-two-time"),
    ],
)
def test_another_result_is_kept_unless_forced(tlcli, other, said):
    assert tlcli(COMMAND).code == 0
    before = Path("results/finetune-loss/table.csv").read_bytes()
    done = tlcli(other)
    assert done.code == 2
    assert f"'results/finetune-loss' holds another result: {said}; give another folder with -o, or --force" in done.err
    assert Path("results/finetune-loss/table.csv").read_bytes() == before


def test_the_same_job_drawn_otherwise_forced_or_elsewhere_goes_on(tlcli):
    for words in (COMMAND, COMMAND, f"{COMMAND} --title new --format pdf", "finetune-loss --rho 0,1 --force"):
        assert tlcli(words).code == 0, words
    assert tlcli(f"{COMMAND} --dry-run").code == 0
    assert tlcli(f"{COMMAND} -o results/finetune-loss").code == 0, "a folder that is named is meant"


def test_recipes_that_were_changed(tlcli):
    Path("mine.yaml").write_text("command: finetune-loss\nalpha2: 0.3,0.6\ncases: [{label: a, rho: 0.2}]\n")
    assert tlcli("run mine.yaml").code == 0
    assert tlcli("run mine.yaml").code == 0
    Path("mine.yaml").write_text("command: finetune-loss\nalpha2: 0.3,0.6\ncases: [{label: a, rho: 0.3}]\n")
    done = tlcli("run mine.yaml")
    assert (done.code, "its cases is [{'label': 'a', 'rho': '0.2'}]" in done.err) == (2, True), done.err
