import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import eval_hermitenorm, gammaln

from tlcli.errors import DomainError, UsageError
from tlcli.tasks.polynomial import MAX_DEGREE, directions, gaussian_data, hermite_values, parse_polynomial


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("linear", ((1, 1.0),)),
        ("he1", ((1, 1.0),)),
        ("hermite:3", ((3, 1.0),)),
        ("he1+0.5*he3", ((1, 1.0), (3, 0.5))),
        ("he2-he3", ((2, 1.0), (3, -1.0))),
        ("2*linear+he2", ((1, 2.0), (2, 1.0))),
        (" - 1e-1 * he12 + .5*hermite:2 ", ((2, 0.5), (12, -0.1))),
        ("he2+he1-0.25*he2", ((1, 1.0), (2, 0.75))),
        ("0*he1+he2", ((2, 1.0),)),
    ],
)
def test_grammar(text, terms):
    assert parse_polynomial(text).terms == terms


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot read a missing term"),
        ("he1+", "cannot read '\\+'"),
        ("he1 he2", "cannot read 'he2'"),
        ("he2x", "cannot read 'x'"),
        ("he1+0.5*hr3", r"cannot read '\+0.5\*hr3' \(did you mean 'he3'\?\)"),
        ("he1+linaer", "did you mean 'linear'"),
        ("2*-he2", "cannot read"),
        ("0.5he3", "cannot read"),
        ("he1*he2", r"cannot read '\*he2'"),
        ("he1+__import__('os')", "cannot read"),
        ("hermite:", "cannot read"),
        ("he0", "degree 0 is outside 1 to 12"),
        ("he13", "degree 13 is outside 1 to 12"),
        ("1e999*he1", "coefficient 1e999 of he1 is not finite"),
        ("he2-he2", "terms cancel"),
        ("0*he1", "terms cancel"),
    ],
)
def test_bad_tasks(text, message):
    with pytest.raises(UsageError, match=message):
        parse_polynomial(text)


@given(
    st.dictionaries(
        st.integers(1, MAX_DEGREE), st.floats(-1e6, 1e6).filter(lambda c: abs(c) > 1e-6), min_size=1, max_size=5
    ),
    st.sampled_from(["", " ", "  "]),
)
def test_written_mixtures_are_read_back(coefficients, space):
    text = "".join(
        f"{space}{'-' if c < 0 else '+'}{space}{abs(c)!r}{space}*{space}he{k}" for k, c in coefficients.items()
    )
    assert parse_polynomial(text).terms == tuple(sorted(coefficients.items()))


@given(st.text(alphabet="he123.*+-: linarmt", max_size=14))
def test_any_text_is_a_task_or_a_usage_error(text):
    try:
        task = parse_polynomial(text)
    except UsageError:
        return
    assert all(1 <= k <= MAX_DEGREE and np.isfinite(c) and c != 0 for k, c in task.terms)


def test_values_match_scipy():
    z = np.linspace(-3, 3, 25)
    for k, value in enumerate(hermite_values(z, MAX_DEGREE)):
        np.testing.assert_allclose(value, eval_hermitenorm(k, z) / np.exp(gammaln(k + 1) / 2), rtol=1e-10, atol=1e-12)
    task = parse_polynomial("2*linear-0.5*he3")
    np.testing.assert_allclose(task(z), 2 * z - 0.5 * (z**3 - 3 * z) / np.sqrt(6), rtol=1e-12, atol=1e-12)


def test_orthonormal_by_quadrature():
    # 20 nodes are exact to degree 39; the weight exp(-z^2/2) has mass sqrt(2 pi).
    z, weight = np.polynomial.hermite_e.hermegauss(20)
    h = hermite_values(z, MAX_DEGREE)
    np.testing.assert_allclose((h * weight) @ h.T / np.sqrt(2 * np.pi), np.eye(MAX_DEGREE + 1), atol=1e-10)


def label_overlap(source, target, rho, points=200_000):
    """Mean of y1 y2 over test points and its standard error."""
    data = gaussian_data(source, target, dim=5, rho=rho, p1=1, p2=1, ptest=points, seed=3, draw=0)
    product = data.y_test_source * data.y_test_target
    return product.mean(), product.std() / np.sqrt(points)


@pytest.mark.parametrize("rho", [-0.5, 0.8])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_label_overlap_is_rho_to_the_degree(k, rho):
    mean, se = label_overlap(f"hermite:{k}", f"he{k}", rho)
    assert abs(mean - rho**k) < 4 * se  # 4 standard errors, fixed seed
    assert abs(mean - rho ** (k + 1)) > 4 * se  # the twin: a wrong power is found out
    assert abs(mean) > 4 * se


def test_mixtures_overlap_degree_by_degree():
    mean, se = label_overlap("he1+0.5*he3", "2*he1-he2+he3", 0.6)
    assert abs(mean - (2 * 0.6 + 0.5 * 0.6**3)) < 4 * se
    assert abs(mean - (2 * 0.6 + 0.5 * 0.6)) > 4 * se
    mean, se = label_overlap("he1", "he2", 0.6)
    assert abs(mean) < 4 * se


def test_variance_of_a_mixture_is_the_sum_of_squares():
    data = gaussian_data("he1+0.5*he2", "linear", dim=4, rho=0, p1=1, p2=1, ptest=200_000, seed=0, draw=0)
    square = data.y_test_source**2
    assert abs(square.mean() - 1.25) < 4 * square.std() / np.sqrt(len(square))


@pytest.mark.parametrize("rho", [-1.0, -0.3, 0.0, 0.7, 1.0])
def test_directions(rho):
    first, second = directions(7, rho, seed=1, draw=2)
    assert (first @ first, second @ second, first @ second) == pytest.approx((1, 1, rho), abs=1e-12)
    np.testing.assert_array_equal(first, directions(7, 0.1, seed=1, draw=2)[0])  # beta1 does not depend on rho
    assert abs(first @ directions(7, rho, seed=1, draw=3)[0]) < 0.99


def test_directions_domain():
    with pytest.raises(DomainError, match=r"rho = 1\.2"):
        directions(7, 1.2, 0, 0)
    with pytest.raises(DomainError, match="rho = nan"):
        directions(7, np.nan, 0, 0)
    with pytest.raises(DomainError, match="dim = 1"):
        directions(1, 0.5, 0, 0)
    first, second = directions(1, -1, 0, 0)
    np.testing.assert_array_equal(first, -second)
