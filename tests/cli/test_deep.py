"""Deep networks from the command line: tables, layers, pictures, and what is refused."""

import csv
import re

import numpy as np
import pytest

TINY = ["--source", "linear", "--target", "hermite:3", "--dim", "5", "--p1", "6", "--p2", "4", "--ptest", "20"]
TINY += ["--t1", "2", "--t2", "2", "--neurons", "128", "--repeats", "2"]
EXACT = [*TINY[:-4], "--activation", "linear"]
SHORT = ["--t1", "1", "--t2", "1"]  # the last word counts


def rows_of(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_every_layer_has_its_rows_and_pictures(rendered, tlcli, tmp_path):
    done = tlcli("dmft-solve", *TINY, "--depth", "1,3", "--times", "0,1,2", "-o", str(tmp_path))
    assert done.code == 0, done.err
    rows = rows_of(tmp_path / "layers.csv")
    assert [row["layer"] for row in rows if row["depth"] == "3"] == ["1", "2", "3"] * 6
    assert [row["layer"] for row in rows if row["depth"] == "1"] == ["1"] * 6
    first = [
        float(row["movement"]) for row in rows if row["depth"] == "3" and (row["stage"], row["time"]) == ("1", "0")
    ]
    np.testing.assert_allclose(first, 0.0, atol=1e-5)
    last = [row for row in rows if row["depth"] == "3" and (row["stage"], row["time"]) == ("2", "2")]
    assert all(0 < float(row["movement"]) < 1 and float(row["movement_se"]) > 0 for row in last)
    table = rows_of(tmp_path / "table.csv")
    assert {row["depth"] for row in table} == {"1", "3"}
    top = [row for row in table if row["depth"] == "3"]
    assert float(top[-1]["target_alignment"]) == pytest.approx(float(last[-1]["target_alignment"]))
    with np.load(tmp_path / "kernels.npz") as arrays:
        names = set(arrays.files)
        assert {"phi_layer3_stage2_point1", "g_layer1_stage1", "ntk_stage2"} <= names
        assert arrays["phi_layer2_stage2_point1"].shape == (30, 10)
        assert arrays["density_layer2_stage1_point1"].shape == (241,)
    for name in ("figure", "figure-layers", "figure-layer-kernels", "figure-layer-densities"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    done = tlcli("finetune-loss", "-o", str(tmp_path), "--force")
    assert done.code == 0, done.err
    assert not list(tmp_path.glob("*layer*"))  # they belong to the other table


def test_layers_can_be_frozen_along_an_axis(tlcli, tmp_path):
    command = ["phase-diagram", "--solver", "network-rich", *EXACT, "--depth", "2", "--x", "freeze=0,1,2"]
    done = tlcli(*command, "--readout", "reset", "--draws", "2", "-o", str(tmp_path))
    assert done.code == 0, done.err
    rows = rows_of(tmp_path / "table.csv")
    assert [row["freeze"] for row in rows] == ["0", "1", "2"]
    assert len({row["loss"] for row in rows}) == 3
    assert len({row["baseline"] for row in rows}) == 1
    layers = rows_of(tmp_path / "layers.csv")
    assert len(layers) == 6


def test_richnesses_and_depth_make_a_map(tlcli, tmp_path):
    command = ["phase-diagram", "--solver", "network-rich", *EXACT]
    done = tlcli(*command, "--x", "gamma0=0.5,2", "--y", "gamma2=0.5,2", "--depth", "2,3", *SHORT, "-o", str(tmp_path))
    assert done.code == 0, done.err
    rows = rows_of(tmp_path / "table.csv")
    assert len(rows) == 8
    assert {row["status"] for row in rows} == {"converged"}
    assert (tmp_path / "figure.png").exists()


def test_networks_of_finite_width_stand_beside_the_theory(tlcli, tmp_path):
    command = ["dmft-solve", *EXACT, "--depth", "2", "--freeze", "1"]
    done = tlcli(*command, "--simulate", "--width", "64,128", "--nets", "6", *SHORT, "-o", str(tmp_path))
    assert done.code == 0, done.err
    assert tlcli("check", str(tmp_path / "table.csv")).code == 0
    rows = rows_of(tmp_path / "table.csv")
    assert all(row["sim_loss"] for row in rows)


def test_a_dry_run_tells_the_memory(tlcli, tmp_path):
    done = tlcli("dmft-solve", *TINY, "--depth", "3", "--dry-run", "-o", str(tmp_path))
    assert done.code == 0
    found = re.search(r"workers?, 1\d\d MB: 128 neurons or axes and (\d+) directions per hidden matrix", done.out)
    assert found, done.out
    assert 30 < int(found[1]) < 150
    assert "seen in a look" in done.out


def test_an_unstable_step_exits_3_and_keeps_what_is_known(tlcli, tmp_path):
    command = [*TINY, "--depth", "2", "--integrator", "euler", "--dt", "40", "--t1", "120", "--t2", "80"]
    done = tlcli("dmft-solve", *command, "-o", str(tmp_path))
    assert done.code == 3
    assert "the step 40 of gradient descent is unstable" in done.err
    assert "use --dt" in done.err
    assert {row["status"] for row in rows_of(tmp_path / "table.csv")} == {"converged", "not_converged"}


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--depth", "0"], "depth = 0 is not allowed; it must be a whole number >= 1"),
        (["--depth", "2.5"], "depth = 2.5 is not allowed"),
        (["--depth", "2", "--freeze", "3"], "freeze = 3: the network has 2 hidden layers; use 0 to 2."),
        (["--depth", "1,3", "--reinit-from", "2"], "reinit_from = 2: the network has 1 hidden layer; use 0 to 1."),
        (["--depth", "2", "--population", "sobol"], "population: sobol is for one hidden layer"),
        (["--depth", "2", "--integrator", "richardson"], "give the step as --dt"),
        (["--depth", "2", "--integrator", "dop853"], "use rkc or richardson"),
        (["--integrator", "richardson", "--dt", "0.1"], "richardson is for deep networks; give --depth 2 or more"),
        (["--basis-tolerance", "0.1"], "basis_tolerance is for deep networks"),
        (["--depth", "2", "--ablate", "memry"], "did you mean 'memory'"),
        (["--depth", "2", "--freeze", "1", "--gamma2", "0"], "between two stages that both train it"),
    ],
)
def test_what_no_deep_network_has_is_one_sentence(tlcli, tmp_path, flags, text):
    done = tlcli("dmft-solve", *TINY, *flags, "-o", str(tmp_path))
    assert done.code == 2
    assert text in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_a_frozen_target_has_no_layers_to_freeze(tlcli, tmp_path):
    command = ["finetune-loss", "--model", "network", *TINY[:-6], "--depth", "2", "--freeze", "1"]
    done = tlcli(*command, "-o", str(tmp_path))
    assert done.code == 2
    assert "network-frozen does not use 'freeze'" in done.err
