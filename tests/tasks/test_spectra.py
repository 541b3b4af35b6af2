import numpy as np
import pytest

from tlcli.errors import DomainError, UsageError
from tlcli.tasks.spectra import load_spectrum, power_law


def test_power_law_is_normalised():
    s = power_law(100, 1.3, 0.5)
    assert s.eigenvalues.mean() == pytest.approx(1)
    assert s.eigenvalues[9] / s.eigenvalues[0] == pytest.approx(10**-1.3)
    assert s.teacher1[4] / s.teacher1[0] == pytest.approx(5**-0.5 * np.cos(5) / np.cos(1))
    for t in (s.teacher1, s.teacher_orthogonal, s.target(0.3)):
        assert s.eigenvalues @ t**2 == pytest.approx(1)
    assert s.eigenvalues @ (s.teacher1 * s.target(0.3)) == pytest.approx(0.3)


@pytest.mark.parametrize(("dim", "a"), [(1, 1.0), (5, np.inf)])
def test_power_law_domain(dim, a):
    with pytest.raises(DomainError, match="power law"):
        power_law(dim, a, 0.5)


def test_target_domain():
    with pytest.raises(DomainError, match=r"rho = 1\.2"):
        power_law(5, 1, 1).target(1.2)


def test_file_round_trip(tmp_path):
    s = power_law(20, 1.0, 0.5)
    np.savez(tmp_path / "s.npz", eigenvalues=s.eigenvalues, teacher1=s.teacher1, teacher2=2 * s.target(0.4))
    loaded = load_spectrum(tmp_path / "s.npz")
    np.testing.assert_array_equal(loaded.eigenvalues, s.eigenvalues)
    assert loaded.rho == pytest.approx(0.4)


@pytest.mark.parametrize("unit", [1e200, 1e-200, 1e-305])
def test_the_overlap_of_teachers_does_not_depend_on_units(tmp_path, unit):
    s = power_law(20, 1.0, 0.5)
    np.savez(tmp_path / "s.npz", eigenvalues=unit * s.eigenvalues, teacher1=s.teacher1 / unit, teacher2=s.target(0.4))
    assert load_spectrum(tmp_path / "s.npz").rho == pytest.approx(0.4, rel=1e-12)


GOOD = {"eigenvalues": np.ones(3), "teacher1": np.ones(3), "teacher2": np.ones(3)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher2": None}, "lacks the array 'teacher2'"),
        ({"teacher1": np.ones(4)}, r"teacher1 has shape \(4,\)"),
        ({"eigenvalues": np.ones((3, 1))}, "shape"),
        ({"eigenvalues": np.array([1, -1, 0.0])}, "down to -1"),
        ({"eigenvalues": np.zeros(3)}, "not all zero"),
        ({"teacher1": np.array([1, np.nan, 0])}, r"teacher1\[1\] is not finite"),
        ({"teacher2": np.array(["a", "b", "c"])}, "real numbers"),
        ({"teacher2": np.ones(3, complex)}, "real numbers"),
        ({"teacher1": np.zeros(3)}, "no weight"),
        ({"eigenvalues": np.array([1, 0, 0.0]), "teacher2": np.array([0, 1.0, 0])}, "teacher2 has no weight"),
        ({"eigenvalue": np.ones(3)}, "unknown array 'eigenvalue'; it must hold"),
        (
            {"teacher1": np.full(3, 1e200)},
            r"teacher1 have a mean square of 1e\+40.*1e±306.* teacher1 by 1e-200",
        ),
        (
            {"teacher2": np.full(3, 1e-200)},
            r"teacher2 have a mean square of 1e-40.*1e±306.* teacher2 by 1e\+200",
        ),
        ({"eigenvalues": np.array([5e-324, 0, 0])}, "labels of teacher1 have a mean square of 1e-32"),
    ],
)
def test_bad_files(tmp_path, change, message):
    arrays = {k: v for k, v in (GOOD | change).items() if v is not None}
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(UsageError, match=message):
        load_spectrum(tmp_path / "s.npz")


def test_unreadable_files(tmp_path):
    (tmp_path / "text.npz").write_text("not an archive")
    np.save(tmp_path / "one.npy", np.ones(3))
    for name, message in (
        ("text.npz", "Cannot read"),
        ("none.npz", "Cannot read"),
        ("one.npy", "ends in '.npy'; it must be .npz"),
    ):
        with pytest.raises(UsageError, match=message):
            load_spectrum(tmp_path / name)
