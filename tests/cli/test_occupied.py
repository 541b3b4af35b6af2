"""A folder that holds another job's result is refused, with the setting that differs."""

from pathlib import Path

import pytest

import tlcli as lib
from tlcli.errors import UsageError

COMMAND = "finetune-loss --alpha2 0.3,0.6"


@pytest.mark.parametrize("folder", ["results/finetune-loss", "mine"])
@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("finetune-loss --alpha2 0.3,0.7", "its alpha2 is 0.3,0.6, here 0.3,0.7"),
        ("finetune-loss --alpha2 0.3,0.6 --rho 0.1", "its rho is 0.8, here 0.1"),
        ("finetune-loss --alpha2 0.3,0.6 --seed 1", "its seed is 0, here 1"),
        (f"{COMMAND} --simulate --trials 2 --dim 6", "its simulate is False, here True"),
        (
            f"{COMMAND} --solver linear-two-time --times 0.5 --steps 50",
            "its solver is linear-exact, here linear-two-time",
        ),
    ],
)
def test_another_result_is_kept_unless_forced(tlcli, folder, other, said):
    where = "" if folder.startswith("results/") else f"-o {folder}"
    assert tlcli(COMMAND, where).code == 0
    before = Path(folder, "table.csv").read_bytes()
    done = tlcli(other, where)
    assert done.code == 2
    assert f"'{folder}' holds another result: {said}; give another folder with -o, or --force to replace it" in done.err
    assert Path(folder, "table.csv").read_bytes() == before
    planned = tlcli(other, where, "--dry-run")
    assert (planned.code, planned.err) == (2, done.err), "the plan, and then what the run itself says"
    assert "on alpha2 (2): 2 points" in planned.out
    assert tlcli(other, where, "--force --dry-run").code == tlcli(COMMAND, where, "--dry-run").code == 0
    assert tlcli(other, where, "--force").code == 0
    assert tlcli(other, where).code == 0, "it holds this one now"


@pytest.mark.parametrize("where", ["", "-o mine"])
def test_the_same_job_drawn_otherwise_or_with_more_points_goes_on(tlcli, where):
    more = "finetune-loss --alpha2 0.1,0.3,0.6 --rho 0.8,0.9"
    for words in (COMMAND, COMMAND, f"{COMMAND} --title new --format pdf", more):
        assert tlcli(words, where).code == 0, words
    done = tlcli(COMMAND, where)
    assert (done.code, "its alpha2 is 0.1,0.3,0.6, here 0.3,0.6" in done.err) == (2, True), done.err


def test_points_that_are_stored_can_be_used_in_another_folder(tlcli):
    short = "finetune-loss --alpha2 0.5 --simulate --dim 6 --trials 2 --quiet"
    assert tlcli(short, "--gamma0 1,2 -o a").code == 0
    done = tlcli(short, "--gamma0 2,3 -o a")
    assert (done.code, "-o (and --store a, whose points are then used), or --force" in done.err) == (2, True), done.err
    assert tlcli(short, "--gamma0 2,3 -o b --store a").code == 0
    assert len(list(Path("a/points").glob("*/*.json"))) == 3, "two points and one more"


def test_a_result_of_python_replaces_no_other_unless_forced(tlcli):
    first, second = (lib.finetune_loss(alpha2=0.5, rho=rho) for rho in (0.1, 0.2))
    first.save("mine")
    with pytest.raises(UsageError, match=r"'mine' holds another result: its rho is 0\.1, here 0\.2"):
        second.save("mine")
    second.save("mine", force=True)
    assert lib.load("mine")["rho"] == 0.2


def test_recipes_that_were_changed(tlcli):
    Path("mine.yaml").write_text("command: finetune-loss\nalpha2: 0.3,0.6\ncases: [{label: a, rho: 0.2}]\n")
    assert tlcli("run mine.yaml").code == 0
    assert tlcli("run mine.yaml").code == 0
    Path("mine.yaml").write_text("command: finetune-loss\nalpha2: 0.3,0.6\ncases: [{label: a, rho: 0.3}]\n")
    done = tlcli("run mine.yaml")
    assert (done.code, "its cases is [{'label': 'a', 'rho': '0.2'}]" in done.err) == (2, True), done.err
