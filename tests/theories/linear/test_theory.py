"""The adapters hand every option to its parameter of the theory, and every result to its column."""

import math

import numpy as np
import pytest

from tlcli.errors import DomainError, UsageError
from tlcli.linear.linear_transfer import transfer_ansatz, transfer_exact
from tlcli.linear.pretraining import pretrain
from tlcli.linear.stages import joint
from tlcli.linear.structured import structured_transfer
from tlcli.linear.two_time import spectral_two_time
from tlcli.status import Status
from tlcli.tasks.spectra import power_law
from tlcli.theories.linear.structured import spectrum_of

# Every parameter has another value, so that no two can be exchanged unseen.
SOURCE = {"alpha1": 0.6, "gamma0": 1.7, "sigma1": 0.21, "weight_decay": 0.013, "init_scale": 1.1}
TARGET = {"alpha2": 0.45, "rho": 0.62, "rho_xi": 0.33, "sigma2": 0.17, "ridge": 0.08}


def evaluate(case):
    return {name: np.asarray(column) for name, column in case.theory.evaluate(case.parameters()).items()}


def flags(values):
    return {name: str(value) for name, value in values.items()}


@pytest.mark.parametrize("kernel", ["feature", "ntk"])
@pytest.mark.parametrize("times", [{"t1": 2.3, "t2": 3.1}, {"t1": math.inf, "t2": math.inf}])
def test_exact(case, kernel, times):
    found = evaluate(case(kernel=kernel, **flags({**SOURCE, **TARGET, **times})))
    direct = transfer_exact(**SOURCE, **TARGET, kernel=kernel, t1=times["t1"], time=times["t2"])
    for name in ("loss", "baseline", "gain", "train_loss", "phase", "status"):
        assert found[name].item() == pytest.approx(np.asarray(getattr(direct, name)).item(), rel=1e-14)
    for name in ("overlap", "norm2", "spike", "bulk", "c_signal", "c_cross", "c_noise"):
        assert found[name].item() == pytest.approx(np.asarray(getattr(direct.pretrained, name)).item(), rel=1e-14)
    assert found["gain"] == pytest.approx(found["baseline"] - found["loss"], abs=1e-14)


def test_pretraining(case):
    found = evaluate(case("pretrain-kernel", kernel="ntk", t1="2.3", **flags(SOURCE)))
    direct = pretrain(**SOURCE, t1=2.3, kernel="ntk")
    for name in ("overlap", "norm2", "bulk", "spike", "n_signal", "n_noise", "c_signal", "c_cross", "c_noise"):
        assert found[name].item() == pytest.approx(np.asarray(getattr(direct, name)).item(), rel=1e-14)
    assert found["source_loss"] == pytest.approx(1 - 2 * found["overlap"] + found["norm2"])


def test_joint(case):
    given = {**SOURCE, "alpha2": 0.45, "rho": 0.62, "sigma2": 0.17, "gamma2": 0.9, "weight_decay2": 0.05}
    found = evaluate(case(solver="linear-joint", **flags({**given, "t1": 1.2, "t2": 2.1})))
    direct = joint(
        0.6,
        0.45,
        rho=0.62,
        gamma1=1.7,
        gamma2=0.9,
        sigma1=0.21,
        sigma2=0.17,
        weight_decay1=0.013,
        weight_decay2=0.05,
        t1=1.2,
        t2=2.1,
        init_scale=1.1,
    )
    for name in ("loss", "baseline", "gain", "forgetting", "source_loss", "source_loss_before", "norm2_end", "overlap"):
        assert found[name].item() == pytest.approx(np.asarray(getattr(direct, name)).item(), rel=1e-12)


def test_ansatz_with_numbers_and_expressions(case):
    given = {"alpha1": 0.6, "gamma0": 1.7, **TARGET, "bulk": 1.2}
    numbers = {"c_signal": 0.6 * 1.7, "c_cross": 0.1 * 1.7, "c_noise": 0.6**2}
    words = {"c_signal": "alpha1*gamma0", "c_cross": "0.1*gamma0", "c_noise": "alpha1**2"}
    direct = transfer_ansatz(**given, **numbers, time=3.0)
    for constants in (flags(numbers), words):
        found = evaluate(case(solver="linear-ansatz", t2="3", **flags(given), **constants))
        assert found["loss"].item() == pytest.approx(float(direct.loss), rel=1e-13)
        assert ("c_signal_value" in found) == (constants is words)
    assert found["c_signal_value"] == pytest.approx(1.02)
    assert found["c_noise_value"] == pytest.approx(0.36)


def test_the_ansatz_of_a_search_is_nan_where_it_is_no_kernel(case):
    found = case(solver="linear-ansatz", c_signal="0", c_cross="gamma0", gamma0="0.5")
    assert found.theory.partial
    gamma0 = np.array([0.5, 0.99, 1.01, 5.0, math.inf])
    columns = found.theory.search({**found.parameters(), "gamma0": gamma0})
    assert np.isnan(columns["loss"]).tolist() == [False, False, True, True, True]
    right = found.theory.evaluate({**found.parameters(), "gamma0": gamma0[:2]})
    np.testing.assert_array_equal(columns["loss"][:2], right["loss"])
    with pytest.raises(DomainError, match="c_cross"):
        found.theory.evaluate({**found.parameters(), "gamma0": gamma0})


def test_other_solvers_search_with_what_they_evaluate(case):
    found = case()
    assert not found.theory.partial
    searched, known = found.theory.search(found.parameters()), found.theory.evaluate(found.parameters())
    np.testing.assert_array_equal(searched["loss"], known["loss"])


def test_two_time(case):
    settings = {"solver": "linear-two-time", "alpha2": "0.5,2", "sigma2": "0,0.4", "steps": 200}
    found = evaluate(case(times="0,1,3", **settings))
    assert found["loss"].shape == (2, 2, 3)
    for i, alpha in enumerate((0.5, 2)):
        for j, sigma in enumerate((0, 0.4)):
            exact = spectral_two_time(alpha, np.array([0.0, 1, 3]), sigma=sigma)
            np.testing.assert_allclose(found["loss"][i, j], np.diagonal(exact.corr_v), atol=2e-5)
            np.testing.assert_allclose(found["train_loss"][i, j], np.diagonal(exact.corr_delta), atol=2e-4)
    assert np.all(found["residual"] < 1e-4)
    assert np.all(found["status"] == Status.CONVERGED)
    fine = evaluate(case(times="0,1,3", **{**settings, "steps": 400}))
    assert fine["residual"].max() < found["residual"].max(), "the residual is the error of the time grid"


@pytest.mark.parametrize("times", ["0", "1,inf", "inf"])
def test_two_time_needs_finite_times(case, times):
    found = case(solver="linear-two-time", times=times)
    with pytest.raises(UsageError, match="linear-two-time needs finite times, for example --times 0:10:21"):
        evaluate(found)


STRUCTURED = {"p1": 30, "p2": 25, "gamma0": 1.7, "sigma1": 0.21, "sigma2": 0.17, "init_scale": 1.1, "ridge": 0.08}


def structured_direct(spectrum, **changes):
    given = {**STRUCTURED, **changes}
    p1, p2, gamma0 = (given.pop(name) for name in ("p1", "p2", "gamma0"))
    teachers = (spectrum.teacher1, spectrum.teacher_orthogonal)
    return structured_transfer(spectrum.eigenvalues, *teachers, p1, p2, gamma0, rho=0.62, **given)


def test_structured(case):
    settings = {"solver": "linear-structured", "dim": 60, "rho": "0.62", **flags(STRUCTURED)}
    found = evaluate(case(spectrum_exponent="1.3", teacher_exponent="0.7", **settings))
    direct = structured_direct(power_law(60, 1.3, 0.7))
    for name in ("loss", "baseline", "gain", "spike", "norm2", "kappa1", "kappa2", "source_loss"):
        assert found[name].item() == pytest.approx(np.asarray(getattr(direct, name)).item(), rel=1e-13)
    assert found["relative_gain"] == pytest.approx(found["gain"] / found["baseline"])
    summed = evaluate(case(spectrum_exponent="1.3", teacher_exponent="0.7", **settings, reduction="sum"))
    direct = structured_direct(power_law(60, 1.3, 0.7), ridge=0.08 / 25)
    assert summed["loss"].item() == pytest.approx(np.asarray(direct.loss).item(), rel=1e-13)


def test_structured_exponents_are_axes(case):
    settings = {"solver": "linear-structured", "dim": 60, "rho": "0.62", **flags(STRUCTURED)}
    found = evaluate(case(spectrum_exponent="0.5,1.3", teacher_exponent="0,0.7,1", **settings))
    assert found["loss"].shape == (2, 3)
    for i, a in enumerate((0.5, 1.3)):
        for j, c in enumerate((0, 0.7, 1)):
            direct = structured_direct(power_law(60, a, c))
            assert found["loss"][i, j] == pytest.approx(np.asarray(direct.loss).item(), rel=1e-13)
            assert found["spike"][i, j] == pytest.approx(np.asarray(direct.spike).item(), rel=1e-13)


def test_a_spectrum_from_a_file_is_that_of_the_power_law(case, tmp_path):
    law = power_law(40, 1.3, 0.7)
    path = tmp_path / "mine.npz"
    np.savez(path, eigenvalues=law.eigenvalues, teacher1=law.teacher1, teacher2=law.target(0.62))
    from_file = evaluate(case(solver="linear-structured", spectrum=f"file:{path}", **flags(STRUCTURED)))
    settings = {"dim": 40, "rho": "0.62", "spectrum_exponent": "1.3", "teacher_exponent": "0.7"}
    from_law = evaluate(case(solver="linear-structured", **settings, **flags(STRUCTURED)))
    for name in ("loss", "baseline", "gain", "spike"):
        assert from_file[name] == pytest.approx(from_law[name], rel=1e-10)


def test_the_digits_bring_their_own_noise(case):
    tasks = {"source": "digits:01234v56789", "target": "digits:0123v456789"}
    found = evaluate(case(solver="linear-structured", spectrum="digits", modes=16, p1="50", p2="30", **tasks))
    spectrum = spectrum_of("digits", 0, 0.0, 0.0, tasks["source"], tasks["target"], 16)
    assert len(spectrum.eigenvalues) == 16
    assert spectrum.sigma1 > 0.1
    direct = structured_transfer(
        spectrum.eigenvalues,
        spectrum.teacher1,
        spectrum.teacher2,
        50,
        30,
        1.0,
        sigma1=spectrum.sigma1,
        sigma2=spectrum.sigma2,
    )
    assert found["loss"].item() == pytest.approx(np.asarray(direct.loss).item(), rel=1e-13)
    without = evaluate(case(solver="linear-structured", spectrum="digits", p1="50", p2="30", **tasks))
    assert without["loss"] != found["loss"], "all 64 modes"


def test_spectra_that_are_none(case):
    for settings, message in [
        ({"spectrum": "foo"}, "spectrum: 'foo' is unknown; use power, digits or file:PATH"),
        ({"spectrum": "digits", "source": "digits:0v1"}, "spectrum digits needs --source and --target"),
        ({"spectrum": "file:none.npz"}, r"none\.npz"),
    ]:
        found = case(solver="linear-structured", **settings)
        with pytest.raises(UsageError, match=message):
            evaluate(found)
