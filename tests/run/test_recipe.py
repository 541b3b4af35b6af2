"""The recipe files: YAML 1.2, validated keys and values, one sentence for everything that is wrong."""

import math
import time

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tlcli.errors import EXIT_USAGE, RecipeError, TlcliError
from tlcli.options import INVOCATION, OPTIONS
from tlcli.run.job import prepare
from tlcli.run.recipe import load_recipe, parse_recipe


@pytest.fixture
def load(tmp_path):
    def load_text(text, name="some-recipe.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return load_recipe(path)

    return load_text


@pytest.fixture
def refused(load):
    """Return the message with which a recipe is refused; it is one sentence with the file's path."""

    def message(text):
        with pytest.raises(RecipeError) as caught:
            load(text)
        assert caught.value.exit_code == EXIT_USAGE
        said = str(caught.value)
        assert said.startswith("recipe '")
        assert "some-recipe.yaml'" in said
        assert said.endswith(".")
        assert "\n" not in said
        return said.split("some-recipe.yaml'", 1)[1].removeprefix(": ")

    return message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # YAML 1.1 reads these as text, as a boolean, as base 60, as octal, as a date.
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("-1e+2", -100.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("no", "no"),
        ("Off", "Off"),
        ("y", "y"),
        ("1:2:40", "1:2:40"),
        ("0.1:2:40", "0.1:2:40"),
        ("0", 0),
        ("2020-01-01", "2020-01-01"),
        ("1_000", "1_000"),
        ("0.1,0.5,inf", "0.1,0.5,inf"),
        ("inf", "inf"),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("true", True),
        ("False", False),
        ("'1e-3'", "1e-3"),
        ("+7", 7),
        ("1e", "1e"),
        ("~", None),
        ("null", None),
        ("0x1F", "0x1F"),
        ("[1e-3, no]", [1e-3, "no"]),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    from tlcli.recipe_text import Loader

    found = yaml.load(f"key: {text}", Loader=Loader)["key"]
    assert found == value
    assert type(found) is type(value)


@given(st.floats(allow_nan=False))
def test_every_float_is_a_number(value):
    from tlcli.recipe_text import Loader

    text = repr(value).replace("inf", ".inf")
    assert yaml.load(f"key: {text}", Loader=Loader) == {"key": value}


def test_a_recipe_and_its_name(load):
    recipe = load(
        "command: phase-diagram\n"
        "# a comment\n"
        "alpha1: [0.5, inf]\n"
        "gamma0: log:0.1:10:20\n"
        "ridge: 1e-3\n"
        "simulate: false\n"
        "title: no\n",
    )
    assert recipe.command == "phase-diagram"
    assert recipe.name == "some-recipe"
    assert recipe.settings == {
        "alpha1": [0.5, "inf"],
        "gamma0": "log:0.1:10:20",
        "ridge": 1e-3,
        "simulate": False,
        "title": "no",
    }
    assert recipe.cases == []
    assert recipe.stages == []
    assert recipe.gram is None
    assert load("name: other.name-1\nrho: 0.5\n").name == "other.name-1"
    assert load("rho: 0.5\n").command is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alpha_1: 3", "unknown key 'alpha_1' (did you mean 'alpha1'?)."),
        ("gama0: 3", "unknown key 'gama0' (did you mean 'gamma0'?)."),
        ("weight-decay: 3", "unknown key 'weight-decay' (did you mean 'weight_decay'?)."),
        ("rho: 1.5", "rho = 1.5 is not allowed; it must be >= -1 and <= 1."),
        ("alpha1: 0", "alpha1 = 0 is not allowed; it must be > 0, or inf."),
        ("kernel: ntkk", "kernel: 'ntkk' is unknown; use one of feature, ntk (did you mean 'ntk'?)."),
        ("simulate: yes", "simulate: 'yes' is not true or false."),
        ("trials: 2.5", "trials = 2.5 is not allowed; it must be a whole number >= 2"),
        ("command: finetune", "command 'finetune' is unknown; use one of"),
        ("command: phase_diagram", "(did you mean 'phase-diagram'?)."),
        ("name: a/b", "name 'a/b' is no plain folder name; give the key 'name' letters, digits and . _ + -"),
        ("name: ''\nrho: 2", "rho = 2 is not allowed"),
        ("rho: 0.1\nrho: 0.2", "the key 'rho' stands twice; give it once."),
        ("cases: [{label: a, rho: 0.1, rho: 0.3}]", "the key 'rho' stands twice"),
        ("alpha1:", "alpha1: 'None' is not a grid"),
        ("alpha1: {a: 1}", "is not a grid"),
        ("alpha1: 1:2", "alpha1: '1:2' is not a grid"),
        ("alpha1: nan", "alpha1: 'nan' is not a number"),
        ("alpha1: [1, 1.0]", "holds 1 twice"),
        ("title: true", "title: True is not a text"),
        ("- a\n- b", " must be a mapping of keys to values."),
        ("", " must be a mapping of keys to values."),
        ("just words", " must be a mapping of keys to values."),
        ("a: [1, 2", " is not YAML at line 1, column 9"),
        ("rho: 0.1\n  alpha1: 3", " is not YAML at line 2, column 9 ('alpha1: 3'): mapping values"),
        ("rho: 1\na: [1, 2", " is not YAML at line 2, column 9 ('a: [1, 2'): expected"),
        ("rho: \x01", "the character U+0001 is not allowed"),
        ("rho: !!python/object:os.system x", "line 1: 'x' has the tag '!!python/object:os.system'"),
        ("rho: !!float abc", "line 1: 'abc' is not a number, which its tag !!float asks for."),
        ("rho: !!float ''", "line 1: '' is not a number, which its tag !!float asks for."),
        ("rho: !!int abc", "line 1: 'abc' is not a whole number, which its tag !!int asks for."),
        ("simulate: !!bool x", "line 1: 'x' is not true or false, which its tag !!bool asks for."),
        ("rho: !!map x", "line 1: 'x' has the tag '!!map', which recipes do not know; leave the tag out."),
        ("rho: !!set {1, 2}", "line 1: a mapping has the tag '!!set', which recipes do not know"),
        ("rho: !!omap [a: 1]", "a list has the tag '!!omap'"),
        ("rho: !!timestamp x", "line 1: 'x' has the tag '!!timestamp'"),
        ("rho: !!binary x", "'x' has the tag '!!binary'"),
        ("rho: !mine x", "'x' has the tag '!mine'"),
        ("rho: !!str [1]", "a list has the tag '!!str'"),
        ("a: &a {rho: 1}\n<<: *a", "merges in YAML 1.1 only"),
        ("rho: &a [1, *a]", "line 1 contains itself by an alias; write it out."),
        ("rho: " + "[" * 50, "line 1 is nested more than 20 deep; a recipe needs no more than 4."),
        ("rho: " + "{a: " * 10_000, "line 1 is nested more than 20 deep"),
        ("rho: 0.5 # " + "x" * 200_000, "is larger than 200000 bytes"),
        ("rho: 1e400", "'1e400' is beyond the largest number 1.8e308; write inf if that is meant."),
        ("rho: " + "9" * 5000, "is beyond the largest number"),
        ("alpha1: 010", "'010' starts with 0, which some read as octal; leave out the 0."),
        ("alpha1: [1, -007]", "'-007' starts with 0"),
        ("alpha1: []", "alpha1: '' holds no value"),
        ("cases: []", "cases: [] holds nothing; fill the list or leave out the key."),
        ("stages: []", "stages: [] holds nothing"),
        ("cases:", "cases: None holds nothing"),
        ("cases: [{label: [a, b]}]", "case 1: label = ['a', 'b'] must be a text or a number."),
        ("cases: [{label: {a: b}}]", "case 1: label = {'a': 'b'} must be a text or a number."),
        ("cases: [{label: true}]", "case 1: label = True must be a text or a number."),
        ("? [a, b]\n: 1", "the key '['a', 'b']' is no word."),
        ("1: 2", "the key 1 is no word; use names of options, such as alpha1."),
        ("cases: 3", "cases = 3 must be a list."),
        ("cases: [3]", "cases[1] = 3 must be a mapping of keys to values."),
        ("name: [a]", "name = ['a'] must be a text."),
        ("cases: [{rho: 0.1}]", "case 1 lacks a 'label'."),
        ("cases: [{label: a}, {label: b, rhoo: 1}]", "case 2: unknown key 'rhoo' (did you mean 'rho'?)."),
        ("cases: [{label: a, rho: 7}]", "case 1: rho = 7 is not allowed"),
        ("cases: [{label: a}, {label: b}, {label: a, rho: 1}]", "the label 'a' stands twice; give every case its own."),
        ("cases: [{label: a, name: b}]", "case 1 may only hold a label and options."),
        ("cases: [{label: a, cases: [{label: c}]}]", "case 1 may only hold a label and options."),
        ("cases: [{label: a, output: b}]", "case 1: 'output' is no part of a recipe; give it as the flag --output."),
        ("stages: [{alpha: 1, gama: 2}]", "stage 1 has the unknown key 'gama' (did you mean 'gamma'?); allowed:"),
        ("stages: [{alpha: 1}]", "stage 1 lacks 'gamma'."),
        ("stages: [{alpha: 1, gamma: 1}, {gamma: 1}]", "stage 2 lacks 'alpha'."),
        ("stages: [{alpha: 1, gamma: 1, teacher: 0}]", "stage 1: teacher = 0 must be a whole number from 1."),
        ("stages: [{alpha: 1, gamma: 1, teacher: true}]", "stage 1: teacher = True must be"),
        ("stages: [{alpha: 1, gamma: 1, teacher: a}]", "stage 1: teacher = 'a' must be"),
        ("stages: {alpha: 1}", "stages = {'alpha': 1} must be a list."),
        ("stages: [{alpha: 1, gamma: 1}]\ngram: [[1, a]]", "gram[1][2] = 'a' must be a number."),
        ("stages: [{alpha: 1, gamma: 1}]\ngram: 3", "gram = 3 must be a list."),
        ("gram: [[1]]", "'gram' holds the overlaps of the teachers of 'stages'; add these or leave it out."),
    ],
)
def test_what_is_refused(refused, text, message):
    assert message in refused(text)


@pytest.mark.parametrize("key", INVOCATION)
def test_settings_of_an_invocation_are_no_recipe_keys(refused, key):
    flag = "--" + key.replace("_", "-")
    assert refused(f"{key}: 1") == f"'{key}' is no part of a recipe; give it as the flag {flag}."


def test_an_unknown_key_far_from_all_lists_them(refused):
    said = refused("zzzzzzzz: 1")
    assert said.startswith("unknown key 'zzzzzzzz'; known keys are solver, alpha1,")
    assert "stages" in said
    assert "output" not in said


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(RecipeError, match=r"recipe '.*none\.yaml' cannot be read: No such file or directory\."):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="cannot be read: Is a directory"):
        load_recipe(tmp_path)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("title: Größe".encode("latin-1"))
    with pytest.raises(RecipeError, match="is not a UTF-8 text file"):
        load_recipe(latin)
    strange = tmp_path / "a b.yaml"
    strange.write_text("rho: 0.5")
    with pytest.raises(RecipeError, match="name 'a b' is no plain folder name"):
        load_recipe(strange)


def test_cases_and_stages(load):
    recipe = load(
        "rho: 0.5\ncases:\n  - label: 1\n  - {label: 'two, with comma', solver: linear-ansatz, c_signal: 0.5}\n"
    )
    assert recipe.cases == [
        {"label": "1"},
        {"label": "two, with comma", "solver": "linear-ansatz", "c_signal": 0.5},
    ]
    recipe = load(
        "solver: linear-joint\n"
        "stages:\n"
        "  - {alpha: 2, gamma: [0.5, 1]}\n"
        "  - {alpha: .inf, gamma: 1, teacher: 1, duration: 3, sigma: 0.1, weight_decay: 1e-2}\n"
        "gram: [[1, 0.5], [0.5, 1]]\n"
    )
    assert recipe.stages == [
        {"duration": "inf", "sigma": "0", "weight_decay": "0", "alpha": 2, "gamma": [0.5, 1], "teacher": 1},
        {"duration": 3, "sigma": 0.1, "weight_decay": 0.01, "alpha": math.inf, "gamma": 1, "teacher": 1},
    ]
    assert recipe.gram == [[1, 0.5], [0.5, 1]]


def test_mappings_need_no_file():
    recipe = parse_recipe({"rho": [0.1, "0.2:0.4:3"]}, "made-up")
    assert recipe.name == "made-up"
    assert recipe.settings == {"rho": [0.1, "0.2:0.4:3"]}


@pytest.mark.parametrize(
    "name",
    ["..", ".", "...", "", " ", "a/b", "../out", "/x", "a\\b", "a\n", "a\x00b", "\x1b[2J", ".hidden", "x" * 201],
)
def test_a_name_that_is_no_plain_folder_name_is_refused(name):
    with pytest.raises(RecipeError, match="is no plain folder name; give the key 'name' letters") as caught:
        parse_recipe({"name": name}, "file")
    assert str(caught.value).isprintable()
    with pytest.raises(RecipeError, match="is no plain folder name"):  # the file's name may be no better
        parse_recipe({}, name)


@pytest.mark.parametrize("name", ["fig1b", "größe", "a.b+c-d_e", "-", "x" * 200])
def test_plain_names_stand(name):
    assert parse_recipe({"name": name}, "file").name == name


@pytest.mark.parametrize("key", ["alpha1", "title", "rho", "label", "cases", "stages"])
def test_aliases_that_expand_without_bound_are_refused_at_once(refused, key):
    lines = [f"a0: &a0 [{', '.join('1' * 9)}]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    use = "cases: [{label: *a11}]" if key == "label" else f"{key}: *a11"
    start = time.perf_counter()
    assert "holds more than 50000 values, aliases written out" in refused("\n".join([*lines, use]))
    assert time.perf_counter() - start < 2
    assert "unknown key 'a0'" in refused("a0: &a0 [1]\nrho: *a0"), "an alias by itself is no fault"


_WORDS = """alpha1 rho gamma0 title cases stages gram label kernel dim name x simulate trials c_signal source alpha
gamma teacher solver command"""
_PLAIN = """1 0.5 inf -.inf .nan 010 1e400 true ~ '' 'a 0.1:2:4 log:1:2:3 *a << 2020-01-01 0x10 ? | @ % \ud7ff \x07
!!map linear-joint"""
_TAGGED = ["!!bool x", "!!set {a}", "&a 1", "9" * 400, "!!float ''", "!!timestamp 1", "!<tag:x> 1", "- "]
_KEYS = st.sampled_from(_WORDS.split())
_SCALAR = st.sampled_from([*_PLAIN.split(), *_TAGGED])
_VALUE = st.recursive(
    _SCALAR,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(st.tuples(_KEYS, inner), max_size=3).map(lambda p: "{" + ", ".join(f"{k}: {v}" for k, v in p) + "}")
    ),
    max_leaves=8,
)


@settings(max_examples=250, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(_KEYS, _VALUE), max_size=4), st.text(max_size=3))
def test_random_documents_are_recipes_or_one_sentence(load, pairs, end):
    """A document is a recipe that merges into grids, or is refused; nothing else, and no warning."""
    text = "\n".join(f"{key}: {value}" for key, value in pairs) + end
    said, code = "", EXIT_USAGE
    try:
        recipe = load(text.encode("utf-8", "replace").decode())
        prepare(recipe.command or "finetune-loss", tuple(OPTIONS), recipe, {})
    except TlcliError as error:
        said, code = str(error), error.exit_code
    assert code == EXIT_USAGE
    assert "\n" not in said
