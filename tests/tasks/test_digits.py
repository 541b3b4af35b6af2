import subprocess
import sys

import numpy as np
import pytest

from tlcli.errors import UsageError
from tlcli.tasks.digits import DigitsTask, digits_arrays, digits_spectrum, parse_digits_task

EVEN, LOW = "digits:02468v13579", "digits:01234v56789"


def test_grammar():
    assert parse_digits_task("digits:8v3") == DigitsTask((8,), (3,))
    assert parse_digits_task("digits:20v31").digits == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3v8", "not a digits task"),
        ("digits:38", "both sides"),
        ("digits:3v", "both sides"),
        ("digits:3v8v1", "both sides"),
        ("digits:3vx", "'x' is not a digit"),
        ("digits:31v13", "digit 1 stands on both sides"),
        ("digits:33v8", "digit 3 is written twice"),
    ],
)
def test_bad_tasks(text, message):
    with pytest.raises(UsageError, match=message):
        parse_digits_task(text)


def test_arrays():
    x, y = digits_arrays("digits:3v8")
    assert x.shape == (357, 64)
    assert np.sum(x**2, axis=1).mean() / 64 == pytest.approx(1)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-12)
    assert set(y) == {1.0, -1.0}


def test_spectrum():
    s = digits_spectrum(EVEN, LOW)
    assert (s.eigenvalues > 0).sum() == 61
    assert len(s.eigenvalues) == 64
    np.testing.assert_allclose(s.x.T @ s.x / len(s.x), np.diag(s.eigenvalues), atol=1e-10)
    for y, teacher, sigma in ((s.y1, s.teacher1, s.sigma1), (s.y2, s.teacher2, s.sigma2)):
        assert (y.mean(), y.std()) == pytest.approx((0, 1), abs=1e-12)
        assert s.eigenvalues @ teacher**2 + sigma**2 == pytest.approx(1)
        np.testing.assert_allclose(s.x.T @ (y - s.x @ teacher), 0, atol=1e-8)  # normal equations
    assert -1 < s.rho < 1
    fewer = digits_spectrum(EVEN, LOW, n_modes=30)
    np.testing.assert_allclose(fewer.teacher1, s.teacher1[:30])
    assert fewer.sigma1 > s.sigma1


def test_opposite_labels_are_rho_minus_one():
    s = digits_spectrum("digits:3v8", "digits:8v3")
    assert s.rho == pytest.approx(-1)
    np.testing.assert_allclose(s.teacher1, -s.teacher2)


def test_tasks_must_share_their_digits():
    with pytest.raises(UsageError, match=r"38 and target digits 17 differ.*02468v13579"):
        digits_spectrum("digits:3v8", "digits:1v7")
    with pytest.raises(UsageError, match="n_modes = 0"):
        digits_spectrum(EVEN, LOW, n_modes=0)


def test_import_is_lazy():
    code = "import sys, tlcli.tasks.digits; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
