"""Options are declared once; how they read text and refuse bad values."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcli.errors import EXIT_USAGE, DomainError, UsageError, digits
from tlcli.losses import known
from tlcli.options import BAYES_SOLVERS, INVOCATION, LINEAR_SOLVERS, NETWORK_SOLVERS, OPTIONS, SOLVERS
from tlcli.options.columns import COLUMNS, label_of, short_symbol
from tlcli.options.commands import COMMANDS
from tlcli.options.losses import network_losses, one_of
from tlcli.options.option import COUNT, COUNT_FINITE, FINITE, NOT_NEGATIVE, OVERLAP, POSITIVE, Domain, Option
from tlcli.run.job import prepare
from tlcli.run.recipe import parse_recipe
from tlcli.sweep.grids import Values
from tlcli.theories.registry import ENTRIES

INF = math.inf

# A good value of every option that a recipe can hold.
GOOD = {
    "label_smoothing": "0,0.1",
    "classes": True,
    "regression": True,
    "average": "auto",
    "pool": 400,
    "loss": "logistic",
    "source_labels": "real",
    "flips1": "0,0.1",
    "flips2": "0,0.1",
    "depth": "1,2",
    "batch": "4,8",
    "momentum": "0,0.5",
    "freeze": "0,1",
    "reinit_from": "0,1",
    "ablate": "memory",
    "basis_tolerance": 0.1,
    "solver": "linear-joint",
    "kernel": "ntk",
    "reduction": "sum",
    "style": "map",
    "format": "svg",
    "c_signal": "alpha1*gamma0",
    "c_cross": "sqrt(gamma0)",
    "c_noise": "0.5",
    "rho": "-1,0,1",
    "rho_xi": "0.25",
    "p1": "10,20",
    "p2": "10,inf",
    "width": "128,256",
    "trials": 3,
    "steps": 50,
    "model": "network",
    "activation": "relu",
    "readout": "reset",
    "ptest": 100,
    "draws": 2,
    "nets": 4,
    "raw_inputs": True,
    "colour": True,
    "population": "sobol",
    "neurons": 256,
    "repeats": 3,
    "accuracy": 0.005,
    "integrator": "euler",
    "tolerance": 1e-5,
    "dt": 0.1,
    "until": 1e-4,
    "device": "cuda",
    "predictions": True,
    "two_time": True,
    "responses": True,
    "test_kernels": True,
    "correlations": True,
    "dim": 30,
    "modes": 8,
    "seed": 12,
    "simulate": True,
    "optimal_gamma0": False,
    "optimal_delta": False,
    "whitened": "labels",
    "label_overlap": "-1,0.5",
    "moves": 200,
    "experiment": "network,population",
    "spectrum": "digits",
    "source": "digits:0v1",
    "target": "digits:2v3",
    "x": "alpha2=0.1:1:5",
    "y": "rho",
    "quantity": "gain,loss",
    "title": "A title, with a comma",
    "dpi": 100,
    "tidy": True,
    "log_x": True,
    "log_y": False,
}


@pytest.mark.parametrize(
    ("domain", "inside", "outside"),
    [
        (POSITIVE, [1e-300, 1, INF], [0, -1]),
        (NOT_NEGATIVE, [0, INF], [-1e-300]),
        (FINITE, [0, 1e12], [INF, 2e12, -1]),
        (OVERLAP, [-1, 0, 1], [1.0000001, -1.0000001, INF]),
        (COUNT, [1, 7, INF], [0, 1.5]),
        (COUNT_FINITE, [1, 7, 1e12], [0, 1.5, 1e13, INF]),
        (Domain(finite=True), [-5, 5], [INF, -INF]),
    ],
)
def test_domains(domain, inside, outside):
    for value in inside:
        domain.check("name", value)
    for value in outside:
        with pytest.raises(DomainError) as caught:
            domain.check("name", value)
        assert str(caught.value) == f"name = {digits(value)} is not allowed; it must be {domain.describe()}."


def test_a_bad_value_is_shown_with_all_its_digits():
    assert [digits(v) for v in (1.0, 0.1, 1e30, INF, -INF, 1.0000001, -2.25)] == [
        *("1", "0.1", "1e+30", "inf", "-inf", "1.0000001", "-2.25"),
    ]
    with pytest.raises(DomainError, match=r"rho = 1\.0000001 is not allowed; it must be >= -1 and <= 1\."):
        OPTIONS["rho"].parse("1.0000001")


@pytest.mark.parametrize("name", ["jobs", "draws", "trials", "nets", "repeats", "moves"])
def test_what_is_done_again_and_again_has_a_limit(name):
    for many in ("1e30", 10**400 if name == "jobs" else "1e12"):
        with pytest.raises(UsageError, match=f"^{name}"):
            OPTIONS[name].parse(many)
    with pytest.raises(UsageError, match=f"{name}: '1000.*' is not a number") as caught:
        OPTIONS[name].parse(10**400)
    assert len(str(caught.value)) < 120


def test_domains_describe_themselves():
    words = {d.describe() for d in (POSITIVE, NOT_NEGATIVE, FINITE, OVERLAP, COUNT, COUNT_FINITE)}
    assert words == {
        "> 0, or inf",
        ">= 0, or inf",
        ">= 0 and <= 1e+12 and finite",
        ">= -1 and <= 1",
        "a whole number >= 1, or inf",
        "a whole number >= 1 and <= 1e+12 and finite",
    }


@given(st.floats(allow_nan=False), st.floats(-1e6, 1e6), st.floats(0, 1e6), st.booleans())
def test_a_domain_is_the_interval_it_describes(value, low, width, open_low):
    domain = Domain(low, low + width, open_low=open_low)
    expected = (value > low if open_low else value >= low) and value <= low + width
    if expected:
        domain.check("name", value)
    else:
        with pytest.raises(DomainError):
            domain.check("name", value)


def test_every_option_is_a_flag_of_some_command_and_of_no_other_name():
    used = {name for command in COMMANDS.values() for name in command.options}
    assert used == set(OPTIONS)
    assert OPTIONS["weight_decay2"].flag == "--weight-decay2"
    flags = [option.flag for option in OPTIONS.values()]
    assert len(set(flags)) == len(flags)


@pytest.mark.parametrize("name", [name for name in OPTIONS if name not in INVOCATION])
def test_every_option_of_a_result_is_a_recipe_key(name):
    value = GOOD.get(name, "0.5,2")
    assert parse_recipe({name: value}, "r").settings == {name: value}


@pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)
def test_defaults_help_and_symbols_are_good(option):
    if option.default is not None:
        option.parse(option.default)
    assert option.help.endswith(".")
    assert option.kind != "choice" or option.choices
    if option.kind == "grid":
        assert "$" in option.symbol, "an axis needs a symbol"
        assert option.domain is not None


@pytest.mark.parametrize("option", [o for o in OPTIONS.values() if o.domain], ids=lambda o: o.name)
def test_every_domain_is_enforced_on_both_sides(option):
    domain, beyond = option.domain, []
    if domain.low > -INF:
        beyond.append(domain.low - 1)
        beyond += [domain.low] if domain.open_low else []
    if domain.high < INF:
        beyond.append(domain.high + 1)
    if domain.finite:
        beyond.append(INF)
    if domain.whole:
        beyond.append(domain.low + 0.5)
    assert beyond
    for value in beyond:
        with pytest.raises(DomainError, match=rf"^{option.name} = "):
            option.parse(repr(value))


def test_every_value_of_a_whole_grid_is_checked():
    with pytest.raises(DomainError, match=r"p1 = 2\.5 is not allowed"):
        OPTIONS["p1"].parse("1,2.5,4")
    with pytest.raises(DomainError, match=r"rho = 1\.5"):
        OPTIONS["rho"].parse([0.4, "0:1.5:7"])


def test_spaced_grids_of_what_is_whole_are_whole():
    """Values between whole ends are rounded, each is taken once; ends that are not whole are refused as ever."""
    values = OPTIONS["p2"].parse("log:5:50:4")
    assert (values.array.tolist(), values.scale) == ([5, 11, 23, 50], "log")
    assert OPTIONS["p2"].parse("10:1:4,log:20:26:9").array.tolist() == [10, 7, 4, 1, *range(20, 27)]
    assert OPTIONS["p2"].parse(["5:50:3", 60]).array.tolist() == [5, 28, 50, 60]
    assert OPTIONS["alpha2"].parse("log:5:50:4").array[1] == pytest.approx(10.772, rel=1e-4)
    with pytest.raises(UsageError, match=r"p2: the end 5\.5 in 'log:5\.5:50:4' is no whole number; give whole ends"):
        OPTIONS["p2"].parse("log:5.5:50:4")
    with pytest.raises(UsageError, match=r"p2: the end 10\.5 in '1:10\.5:4'"):  # not a value in between
        OPTIONS["p2"].parse("1:10.5:4")
    with pytest.raises(UsageError, match="holds 5 twice"):
        OPTIONS["p2"].parse("5,log:5:50:4")


def test_what_is_whole_within_rounding_is_that_number():
    """As spaced arrays of NumPy have them: geomspace(1, 1000, 4) holds 9.999999999999998."""
    assert OPTIONS["p2"].parse([3.9999999999, 40.00000000000001, 10]).array.tolist() == [4, 40, 10]
    assert OPTIONS["p2"].parse("3.9999999999:9:2").array.tolist() == [4, 9]
    assert OPTIONS["depth"].parse(2.0000000001).array.tolist() == [2]
    assert OPTIONS["dim"].parse(19.9999999999) == 20
    assert OPTIONS["p2"].parse(math.inf).array.tolist() == [INF]
    for name, value in (("p2", 3.99999), ("p2", 1e-12), ("dim", 19.99999), ("p2", [4, 3.9999999999])):
        with pytest.raises(UsageError, match=f"^{name}"):
            OPTIONS[name].parse(value)


@pytest.mark.parametrize("raw", [2**53 + 1, str(2**53 + 1), 2**128 - 1, f" {10**300 + 7}", 12.0, "1e3", "+7"])
def test_a_seed_keeps_all_its_digits(raw):
    expected = int(float(raw)) if raw in (12.0, "1e3", "+7") else int(raw)
    assert OPTIONS["seed"].parse(raw) == expected


BAD_GRIDS = ["1:2", "abc", "nan", "1e999", "0:inf:4", "0.1:inf:4", "-inf:1:4", "log:0:10:4", "0,log:0:10:4,5"]
BAD_GRIDS += [
    "log:10:0:4",
    "log:-2:-1:3",
    "log:0:0:3",
    "log:0.5:0:3",
    "-1e308:1e308:3",
    "3:3:4",
    "1.5:10:4",
    "1:10.5:3",
]


def _refusal(option, raw):
    try:
        option.parse(raw)
    except UsageError as error:
        return error
    return None


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option.kind == "grid"])
def test_every_grid_that_a_refusal_advises_is_accepted(name):
    option, advised = OPTIONS[name], []
    for bad in BAD_GRIDS:
        found = _refusal(option, bad)
        texts = re.findall(r"(?:, as in|a list|give|rounded, as) (\S+?)(?:\.$|, START| once)", str(found or ""))
        assert texts or found is None or isinstance(found, DomainError) or "needs" in str(found), str(found)
        assert bad not in texts
        advised += texts
    assert advised
    for text in advised:
        if text != "3":  # the value of the user's own
            option.parse(text)


@pytest.mark.parametrize("raw", ["0.1,best", ["best", 0.1], "best, 0.1"])
def test_a_word_among_numbers_is_refused_with_the_remedy(raw):
    assert OPTIONS["ridge"].parse("best") == "best"
    with pytest.raises(UsageError, match="holds best among others; use best alone, or numbers"):
        OPTIONS["ridge"].parse(raw)


@pytest.mark.parametrize("raw", ["abc", "", None, [1], True, "nan", math.nan])
def test_numbers_that_are_none(raw):
    with pytest.raises(UsageError, match=r"trials: .* is not a number"):
        OPTIONS["trials"].parse(raw)


def test_integers_come_out_as_integers():
    for raw in (5, 5.0, "5", "5e0"):
        value = OPTIONS["trials"].parse(raw)
        assert value == 5
        assert type(value) is int
    plain = Option("n", "integer", None, "Help.")
    with pytest.raises(UsageError, match=r"n: '2\.5' is not a whole number"):
        plain.parse("2.5")
    number = Option("w", "number", None, "Help.")
    assert number.parse("1e-3") == 1e-3


def test_choices_suggest_and_list():
    with pytest.raises(UsageError) as caught:
        OPTIONS["kernel"].parse("featrue")
    assert str(caught.value) == "kernel: 'featrue' is unknown; use one of feature, ntk (did you mean 'feature'?)."
    with pytest.raises(UsageError) as caught:
        OPTIONS["kernel"].parse(3)
    assert str(caught.value) == "kernel: '3' is unknown; use one of feature, ntk."
    assert caught.value.exit_code == EXIT_USAGE


@pytest.mark.parametrize("raw", ["true", 1, None, "no"])
def test_flags_are_booleans_only(raw):
    with pytest.raises(UsageError, match=f"simulate: '{raw}' is not true or false"):
        OPTIONS["simulate"].parse(raw)


def test_texts_and_expressions():
    assert OPTIONS["title"].parse(3) == "3"
    assert OPTIONS["c_signal"].parse([0, 0.5]) == "0,0.5"
    assert OPTIONS["c_signal"].parse(0.25) == "0.25"
    for raw in (None, True, {"a": 1}):
        with pytest.raises(UsageError, match=r"title: .* is not a text"):
            OPTIONS["title"].parse(raw)
    with pytest.raises(UsageError, match="c_signal"):
        OPTIONS["c_signal"].parse(["a+b"])


def test_numbers_are_texts_or_sequences():
    option = OPTIONS["overlaps"]
    assert option.parse("0.6,-0.4") == option.parse([0.6, -0.4]) == option.parse((0.6, -0.4)) == "0.6,-0.4"
    assert option.parse([5, 1 / 3]) == f"5,{1 / 3!r}"
    with pytest.raises(UsageError, match="overlaps: 'x' is not a number"):
        option.parse([0.6, "x"])


def test_grids_are_values():
    values = OPTIONS["gamma0"].parse("log:0.1:10:3")
    assert isinstance(values, Values)
    assert values.scale == "log"
    assert values.array[[0, -1]].tolist() == [0.1, 10]


def test_solvers_named_in_the_options_exist():
    named = {name for command, name in ENTRIES if command in ("finetune-loss", "phase-diagram")}
    assert set(SOLVERS) == named
    assert set(LINEAR_SOLVERS) | set(NETWORK_SOLVERS) | set(BAYES_SOLVERS) < set(SOLVERS)
    assert OPTIONS["solver"].choices == SOLVERS


@pytest.mark.parametrize("case", [*LINEAR_SOLVERS, "linear-two-time", "pretraining", "curriculum"])
def test_every_computed_column_is_described(case):
    settings = {
        "linear-ansatz": {"c_signal": "0.1", "c_cross": "gamma0*0", "c_noise": "0*gamma0"},
        "linear-joint": {"t1": "1", "t2": "1"},
        "linear-two-time": {"times": "1", "steps": 10},
    }.get(case, {})
    command, recipe = "finetune-loss", {"solver": case, **settings}
    if case == "pretraining":
        command, recipe = "pretrain-kernel", {}
    elif case == "curriculum":
        recipe = {"solver": "linear-joint", "stages": [{"alpha": 1, "gamma": 1, "duration": 1}]}
    (found,) = prepare(command, COMMANDS[command].options, parse_recipe(recipe, "r"), {}).cases
    assert set(found.theory.parameters) - {"time", *found.theory.own} <= set(OPTIONS)
    assert set(found.theory.parameters) - {"time", *found.theory.own} <= set(OPTIONS)
    assert set(found.theory.parameters) - {"time", *found.theory.own} <= set(OPTIONS)
    columns = found.theory.evaluate(found.parameters())
    assert {"status", "residual"} < set(columns)
    for name in columns:
        assert COLUMNS[name].help.endswith(".")


def test_labels():
    assert label_of("alpha2") == r"$\alpha_2=P_2/D$"
    assert short_symbol("alpha2") == r"$\alpha_2$"
    assert label_of("time") == r"time $t$"
    assert short_symbol("time") == "$t$"
    assert label_of("gamma_3") == r"$\gamma_{3}$"
    assert label_of("weight_decay_12") == r"$\lambda_{12}$"
    assert label_of("loss") == COLUMNS["loss"].label
    assert label_of("nothing") == short_symbol("nothing") == "nothing"
    assert short_symbol("task") == "task"
    assert all(column.help.endswith(".") for column in COLUMNS.values())


def test_help_names_every_registered_loss(tmp_path):
    """Its texts are read from the losses' files, without importing them."""
    kinds = known().values()
    assert set(network_losses()) == {kind.form for kind in kinds}
    assert set(network_losses(smooths=True)) == {kind.form for kind in kinds if kind.smooths}
    assert one_of(network_losses()) == "mse, logistic, softmax, hinge2 or huber:k"
    texts = [OPTIONS[name].help for name in ("loss", "loss1")]
    texts += [COMMANDS[name].texts["loss"] for name in ("dmft-solve", "bayes-saddle")]
    assert all(form in text for form in network_losses() for text in texts)
    assert "logistic and softmax" in OPTIONS["label_smoothing"].help
    other = ["class Other(Loss):", '    name = "other"', '    form = "other:q"', "    smooths = True"]
    (tmp_path / "other.py").write_text("\n".join(['class Helper:\n    name = "no"\n\n', *other]), encoding="utf-8")
    assert network_losses(folder=tmp_path) == network_losses(True, tmp_path) == ("other:q",)
    assert one_of(("other:q",)) == "other:q"
