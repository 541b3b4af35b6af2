import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcli.errors import DomainError, UsageError
from tlcli.linear.ansatz import check_alignment, check_psd, diagonalise, parse_expression


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", 2.0),
        (0.25, 0.25),
        (1e-7, 1e-7),
        ("1e-3", 1e-3),
        ("-gamma0 ** 2", -4.0),
        ("sqrt(1 + gamma0**2) - 1", np.sqrt(5) - 1),
        ("gamma0*(1-alpha1)/2", 0.5),
        ("max(0, 1 - alpha1, 0.1) * min(gamma0, 1)", 0.5),
        ("exp(log(alpha1)) + tanh(0) + abs(-pi)", 0.5 + np.pi),
        ("+3", 3.0),
        (" 1/alpha1 ", 2.0),
    ],
)
def test_arithmetic(text, value):
    assert float(parse_expression(text).evaluate(gamma0=2.0, alpha1=0.5)) == pytest.approx(value, rel=1e-15)


def test_arrays_keep_their_axes():
    gamma0, alpha1 = np.ones((4, 1)), np.arange(1.0, 4.0)
    assert parse_expression("gamma0").evaluate(gamma0=gamma0, alpha1=alpha1).shape == (4, 1)
    assert parse_expression("gamma0*alpha1").evaluate(gamma0=gamma0, alpha1=alpha1).shape == (4, 3)
    assert parse_expression("2").evaluate(gamma0=gamma0, alpha1=alpha1).shape == ()
    assert parse_expression("gamma0*alpha1 + pi").names == {"gamma0", "alpha1"}


def test_limits_do_not_warn():
    assert parse_expression("gamma0**9**9").evaluate(gamma0=9.0) == np.inf
    assert parse_expression("1/gamma0").evaluate(gamma0=0.0) == np.inf
    assert parse_expression("sqrt(1+gamma0**2)-1").evaluate(gamma0=np.inf) == np.inf
    assert np.isnan(parse_expression("log(-gamma0)").evaluate(gamma0=1.0))


@pytest.mark.parametrize(
    ("text", "piece"),
    [
        ("1/0", "1/0"),
        ("9**9**9**9", "9**9**9**9"),
        ("gamma0*(1 + 2**1e9)", r"2\*\*1e9"),
        ("-log(0)", r"log\(0\)"),
        ("sqrt(-1) + gamma0", r"sqrt\(-1\)"),
        ("alpha1/(1 - 1)*0/0", None),
        ("tanh(1e308*10)", r"1e308\*10"),
    ],
)
def test_constants_are_finite(text, piece):
    if piece is None:  # a variable may make it what it likes
        assert np.isnan(parse_expression(text).evaluate(alpha1=1.0))
        return
    with pytest.raises(UsageError, match=f"expression '.*': '{piece.replace('9**9**9**9', '.*')}' is no finite number"):
        parse_expression(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gama0 + 1", "'gama0' is not known.*did you mean 'gamma0'"),
        ("sqr(2)", "'sqr' is not a known function.*did you mean 'sqrt'"),
        ("gamma0^2", r"'gamma0\^2' is not allowed, write a power as \*\*"),
        ("__import__('os').system('ls')", "not allowed|not a known"),
        ("gamma0.real", "'gamma0.real' is not allowed"),
        ("[1]", r"'\[1\]' is not allowed"),
        ("lambda: 1", "not allowed"),
        ("'a'", "is not a number"),
        ("True", "'True' is not a number"),
        ("1j", "'1j' is not a number"),
        ("1 < 2", "'1 < 2' is not allowed"),
        ("sqrt(1, 2)", "must have one argument"),
        ("max(1)", "must have two or more"),
        ("max(*[1, 2])", "not plain values"),
        ("sqrt(x=1)", "not plain values"),
        ("1 +", "is not arithmetic"),
        ("", "is not arithmetic"),
        ("inf", "is not a finite number"),
        ("1" * 400, "too large"),
        ("1+" * 300 + "1", "at most 500"),
        ("(" * 240 + "1" + ")" * 240, "is not arithmetic|nested too deeply"),
        ("a = 1", "is not arithmetic"),
    ],
)
def test_errors_show_the_piece(text, says):
    with pytest.raises(UsageError, match=says) as error:
        parse_expression(text)
    assert str(error.value).count("\n") == 0


@given(
    entries=st.tuples(*[st.floats(-5, 5)] * 3),
    v=st.tuples(*[st.floats(-0.7, 0.7)] * 2),
)
def test_diagonalise_is_the_eigendecomposition(entries, v):
    c1, c3, c2 = entries
    spikes, overlaps2 = diagonalise(c1, c3, c2, *v)
    matrix, v = np.array([[c1, c3], [c3, c2]]), np.array(v)
    np.testing.assert_allclose(np.sort(spikes), np.linalg.eigvalsh(matrix), atol=1e-14)
    # Two functions of C in v: they fix eigenvalues and overlaps together.
    assert float(sum(overlaps2)) == pytest.approx(v @ v, abs=1e-14)
    first = sum(c * r2 for c, r2 in zip(spikes, overlaps2, strict=True))
    second = sum(c**2 * r2 for c, r2 in zip(spikes, overlaps2, strict=True))
    assert float(first) == pytest.approx(v @ matrix @ v, abs=1e-13)
    assert float(second) == pytest.approx(v @ matrix @ matrix @ v, abs=1e-12)


def test_diagonalise_keeps_small_eigenvalues():
    spikes, overlaps2 = diagonalise(1e8, 0.0, 1e-8, 0.0, 1.0)
    np.testing.assert_allclose(spikes, (1e8, 1e-8), rtol=1e-14)
    np.testing.assert_array_equal(overlaps2, (0.0, 1.0))
    spikes, overlaps2 = diagonalise(0.5, 0.0, 2.0, 1.0, 0.0)
    np.testing.assert_allclose(spikes, (2.0, 0.5))
    np.testing.assert_allclose(overlaps2, (0.0, 1.0), atol=1e-30)
    spikes, overlaps2 = diagonalise(0.0, 0.0, 0.0, 0.3, 0.4)
    np.testing.assert_array_equal(spikes, (0.0, 0.0))
    np.testing.assert_allclose(overlaps2, (0.09, 0.16))


def test_diagonalise_of_infinite_constants():
    spikes, overlaps2 = diagonalise(np.inf, 0.0, 0.0, 0.3, 0.4)
    assert float(spikes[0]) >= 1e99
    np.testing.assert_allclose(overlaps2, (0.09, 0.16))
    assert not np.isnan(diagonalise(np.inf, np.inf, np.inf, 0.3, 0.4)).any()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((1.0, -1.5, 0.0, 0.0), r"needs k \+ c_signal >= 0, but k = 1, c_signal = -1.5"),
        ((1.0, 0.0, 0.0, -2.0), r"needs k \+ c_noise >= 0"),
        ((1.0, 0.0, 1.5, 0.0), r"\(k \+ c_signal\)\(k \+ c_noise\) >= c_cross\^2.*c_cross = 1.5"),
        ((0.0, 1.0, 0.0, np.nan), "needs a defined c_noise"),
    ],
)
def test_positivity_is_named(args, says):
    with pytest.raises(DomainError, match=says):
        check_psd(*args)


def test_positivity_says_where():
    gamma0 = np.array([0.0, 1.0, 2.0])
    with pytest.raises(DomainError, match=r"at gamma0 = 2, alpha1 = 0.5\."):
        check_psd(1.0, 0.0, 0.7 * gamma0, 0.0, where={"gamma0": gamma0, "alpha1": 0.5})


def test_the_edge_of_positivity_is_allowed():
    c1, c2 = np.array([0.1, 0.37, 5.1]), 0.7
    check_psd(1.0, c1, np.sqrt((1 + c1) * (1 + c2)), c2)
    check_psd(0.0, c1, np.sqrt(c1 * c2), c2)
    check_psd(1.0, -1.0, 0.0, 3.0)
    check_psd(0.0, np.inf, 0.0, 0.0)


def test_alignment():
    check_alignment(0.6, 0.8)
    check_alignment([1.0, -1.0], 0.0)
    with pytest.raises(DomainError, match=r"rho = 0.9 and rho_xi = 0.8 give \|v\| = 1.2"):
        check_alignment([0.1, 0.9], 0.8)
