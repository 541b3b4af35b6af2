"""The words of an estimate."""

import pytest

from tlcli.theories.amounts import shown_size, shown_time
from tlcli.theories.linear.theory import Exact


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "less than 1 s"),
        (1.4, "about 1 s"),
        (119, "about 119 s"),
        (150, "about 2 min"),
        (7100, "about 118 min"),
        (9000, "about 2.5 h"),
    ],
)
def test_durations(seconds, words):
    assert shown_time(seconds) == words


@pytest.mark.parametrize(("size", "words"), [(10, "1 MB"), (2.6e6, "3 MB"), (2.55e9, "2.5 GB")])
def test_sizes(size, words):
    assert shown_size(size) == words


def test_the_estimate_of_an_experiment_grows_with_its_points_and_trials(tlcli, monkeypatch):
    # A trial takes what it takes on a busy machine: here always as long.
    monkeypatch.setattr("tlcli.run.dry_run.one_trial", lambda task: 0.05)

    def seconds(*more):
        done = tlcli("finetune-loss --alpha1 0.5 --simulate --dim 400 --dry-run", *more)
        assert done.code == 0
        line = (done.out + done.err).splitlines()[-1]
        assert "(D = 400)" in line
        number, unit = line.split("on")[0].split()[-2:]
        return 0.5 if "less than" in line else float(number) * {"s": 1, "min": 60, "h": 3600}[unit]

    one = seconds("--rho 0.1:0.9:50 --trials 50")
    many = seconds("--rho 0.1:0.9:50 --gamma0 1:20:20 --trials 1000")
    assert many > 50 * one
    assert seconds("--rho 0.1:0.9:50 --gamma0 1:20:20 --trials 1000 --jobs 2") < 0.8 * many


TWO = "finetune-loss --alpha2 0.2,0.4"
MEASURED = f"{TWO} --simulate --trials 2 --dim 20"


@pytest.mark.parametrize("words", [TWO, MEASURED])
@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("note.txt", "output 'note.txt' is a file or lies below one; give a folder."),
        ("note.txt/sub/more", "output 'note.txt/sub/more' is a file or lies below one; give a folder."),
        ("x" * 300, "File name too long; give another -o."),
        ("mine", "'mine/figure.png' was not written by an earlier run, or was changed since"),
        ("held/table.csv", "is a file or lies below one; give a folder."),
        ("taken", "'taken/table.csv' is a folder where a result must be written"),
    ],
)
def test_a_dry_run_ends_with_the_refusal_of_the_run(words, place, sentence, tlcli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "note.txt").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "figure.png").write_text("a picture of my own")
    (tmp_path / "taken" / "table.csv").mkdir(parents=True)
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "table.csv").write_text("1")
    before = sorted(tmp_path.rglob("*"))
    done, dry = tlcli(words, "-o", place), tlcli(words, "-o", place, "--dry-run")
    assert done.code == dry.code != 0
    assert sentence in done.err
    assert dry.err.splitlines()[-1] == done.err.splitlines()[-1]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("more", ["--quantity los", "--columns los", "--title '$\\alhpa$'"])
def test_a_dry_run_refuses_what_cannot_be_drawn_or_written(more, tlcli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done, dry = tlcli(TWO, more), tlcli(TWO, more, "--dry-run")
    assert done.code == dry.code == 2
    assert dry.err.splitlines()[-1] == done.err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_a_dry_run_that_could_run_leaves_nothing(tlcli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = tlcli(MEASURED, "-o deep/er/out", "--dry-run")
    assert done.code == 0, done.err
    assert not list(tmp_path.iterdir())


def test_a_store_below_a_file_is_named_as_such(tlcli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "note.txt").write_text("mine")
    done = tlcli(MEASURED, "-o out --store note.txt/points")
    assert done.code == 2
    assert "the store 'note.txt/points' lies below the file 'note.txt'" in done.err
    assert not (tmp_path / "out").exists()


def test_a_dry_run_evaluates_a_small_part_of_a_closed_form_once(tlcli, tmp_path, monkeypatch):
    asked = []
    evaluate = Exact.evaluate
    monkeypatch.setattr(Exact, "evaluate", lambda self, p: asked.append(p) or evaluate(self, p))
    assert tlcli("finetune-loss --alpha2 0.1:0.9:200 -o", str(tmp_path / "out"), "--dry-run").code == 0
    assert len(asked) == 1
    assert asked[0]["alpha2"].size < 10
