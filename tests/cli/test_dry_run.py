"""The words of an estimate."""

import pytest

from tlcli.theories.amounts import shown_size, shown_time


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
    monkeypatch.setattr("tlcli.run.dry_run._one_trial", lambda task: 0.05)

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
