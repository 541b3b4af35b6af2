"""Values of Python at the edges: read as what they mean, or refused in one sentence; never an error of another kind."""

import datetime
import decimal
import fractions
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import tlcli
from tlcli.errors import TlcliError, UsageError
from tlcli.options import OPTIONS
from tlcli.report.provenance import write_provenance
from tlcli.run.values import plain
from tlcli.sweep.grids import Values


class Series:
    """What a column of a data frame offers."""

    def __init__(self, values):
        self._values = values

    def __iter__(self):
        return iter(self._values)

    def __array__(self, dtype=None, copy=None):
        return np.array(self._values, dtype=dtype)


class Ambiguous:
    """A missing value, as of pandas: it has no truth, and equals nothing."""

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")

    def __eq__(self, other):
        return self

    __hash__ = None


_CYCLE: list = []
_CYCLE.append(_CYCLE)

STRANGE = [
    *(None, True, np.bool_(True), 1j, np.nan, np.inf, -np.inf, -0.0, 10**400, -(10**400), b"0.4", bytearray(b"1")),
    *({}, {0.2: 1}, {0.2, 0.4}, [], [[]], [[0.1]], (), _CYCLE, [None], [_CYCLE], len, int, object(), Ambiguous()),
    *(
        np.ones((2, 2)),
        np.array([]),
        np.array(None),
        np.array([1j]),
        np.array([(1, 2.0)], dtype=[("a", int), ("b", float)]),
    ),
    *(np.ma.masked, np.ma.array([0.1, 0.2], mask=[0, 1]), np.array(["2020-01-01"], dtype="datetime64[D]")),
    *(datetime.date(2020, 1, 1), decimal.Decimal("NaN"), decimal.Decimal("1e999"), "", "\0", "0.1\n", "x" * 10**5),
    *(
        np.array([0.1, np.nan]),
        np.array([True]),
        np.array(["a"]),
        Series([0.1, None]),
        np.longdouble("1e4000"),
        "1:2:3:4",
    ),
]


def _refusal(function, *given):
    """Return the refusal of a call, None where there is none; errors of another kind are raised."""
    try:
        function(*given)
    except TlcliError as error:
        return error
    return None


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_reads_or_refuses_whatever_python_has(name):
    option = OPTIONS[name]
    for value in STRANGE:
        error = _refusal(lambda value=value: option.parse(plain(option, value)))
        if error is None:
            found = option.parse(plain(option, value))
            assert isinstance(found, (Values, str, bool, int, float)), f"{name}: {found!r}"
        else:
            assert str(error).startswith((name, option.flag)), str(error)
            assert len(str(error)) < 700, name


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(0.4), [0.4]),
        (np.float32(0.4), [0.4]),  # the decimal that it is printed as
        (np.float16(0.1), [0.1]),
        (np.array([0.1, 0.4], dtype=np.float32), [0.1, 0.4]),
        (np.int8(3), [3]),
        (np.array(0.4), [0.4]),
        (np.array(0.4, dtype=np.float32), [0.4]),
        (np.longdouble("0.5"), [0.5]),
        (decimal.Decimal("0.4"), [0.4]),
        (fractions.Fraction(2, 5), [0.4]),
        ([decimal.Decimal("0.4"), np.float32(0.7), 1], [0.4, 0.7, 1]),
        (range(1, 4), [1, 2, 3]),
        (Series([0.2, 0.4]), [0.2, 0.4]),
        (np.arange(8.0)[::3] + 0.1, [0.1, 3.1, 6.1]),
        (np.array([1, 3], dtype=np.uint64), [1, 3]),
        (np.ma.array([0.1, 0.2], mask=[0, 0]), [0.1, 0.2]),
        (np.array(["0.1", "0.4"]), [0.1, 0.4]),
        (np.array([0.1, 1 / 3]), [0.1, 1 / 3]),  # every bit
    ],
)
def test_numbers_of_every_make_are_the_numbers_that_they_mean(value, expected):
    assert OPTIONS["alpha2"].parse(plain(OPTIONS["alpha2"], value)).array.tolist() == expected


def test_spaced_arrays_of_whole_numbers_are_whole():
    for array in (
        np.geomspace(4, 4000, 4),
        np.logspace(1, 3, 3),
        np.linspace(0.1, 0.3, 3) * 30,
        np.geomspace(10, 640, 4),
    ):
        found = OPTIONS["p2"].parse(plain(OPTIONS["p2"], array)).array
        np.testing.assert_array_equal(found, np.rint(array))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({0.2: 1}, "alpha2: a mapping is no list of values; give a list"),
        ({0.2, 0.4}, "alpha2: a set, which has no order, is no list of values"),
        (b"0.4", r"alpha2: 'b'0.4'' \(bytes\) is no number"),
        (np.ma.masked, r"alpha2: '--' \(MaskedConstant\) is no number"),
        (np.ma.array([0.1, 0.2], mask=[0, 1]), "the array has masked values"),
        ([[0.1]], "a list within a list"),
        (_CYCLE, "a list within a list"),
        (decimal.Decimal("1e999"), "is too large for a number"),
        (np.longdouble("1e4000"), "is too large for a number"),
        (Ambiguous(), r"\(Ambiguous\) is no number, text or list"),
    ],
)
def test_what_is_no_value_is_named(value, words):
    with pytest.raises(UsageError, match=words):
        tlcli.finetune_loss(alpha2=value)


@pytest.mark.parametrize("value", [None, 1, b"lg", [], {}, np.nan, "", "\0", "x" * 5000, Path("nowhere")])
def test_no_result_is_refused_by_every_function_that_reads_one(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for function in (tlcli.load, tlcli.check, tlcli.run):
        with pytest.raises(TlcliError):
            function(value)


@pytest.mark.parametrize("key", ["command", "name", "cases", "stages", "gram", "seed", "alpha2", "nothing"])
def test_a_mapping_with_anything_is_a_recipe_or_refused(key):
    for value in STRANGE:
        error = _refusal(tlcli.run, {"command": "finetune-loss", "alpha2": 0.4, key: value})
        assert len(str(error)) < 1500
        _refusal(tlcli.run, {"command": "finetune-loss", "cases": [{"label": "a", "gamma0": value}, {"label": "b"}]})


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    tlcli.finetune_loss(alpha2="0.2,0.4", gamma0="0,1").save(folder / "linear")
    task = {"source": "he1", "target": "he1", "p1": 4, "p2": 3, "dim": 3, "ptest": 5, "gamma0": 0, "gamma2": 0}
    tlcli.dmft_solve(**task, depth=1, times="0,1", kernels=0).save(folder / "network")
    return folder


def _signed(folder, about):
    """Write the provenance anew, so that it names the files as they are."""
    names = [name for name in about.pop("files") if (folder / name).is_file() and name != "provenance.json"]
    write_provenance(folder / "provenance.json", about, [folder / name for name in names])


@pytest.mark.parametrize("which", ["linear", "network"])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(bytes(range(256)) * 4),
        lambda path: path.write_bytes(path.read_bytes()[:-20]),
        lambda path: (path.unlink(), path.mkdir()),
    ],
)
def test_damaged_results_are_refused(stored, tmp_path, which, signed, damage):
    for name in sorted(path.name for path in (stored / which).iterdir()):
        if name.startswith("figure") or (signed and name == "provenance.json"):
            continue
        folder = tmp_path / name
        shutil.copytree(stored / which, folder)
        about = json.loads((folder / "provenance.json").read_text())
        damage(folder / name)
        if signed:
            _signed(folder, about)
        for function in (tlcli.load, tlcli.check):
            assert len(str(_refusal(function, folder))) < 700


@pytest.mark.parametrize("cell", ["", "x", "nan", "inf", "1e999", "١"])
@pytest.mark.parametrize("which", ["linear", "network"])
def test_forged_cells_are_read_or_refused(stored, tmp_path, which, cell):
    lines = (stored / which / "table.csv").read_text().splitlines()
    shutil.copytree(stored / which, tmp_path / "one")
    about = json.loads((tmp_path / "one" / "provenance.json").read_text())
    for column in range(len(lines[0].split(","))):
        cells = lines[1].split(",")
        cells[column] = cell
        (tmp_path / "one" / "table.csv").write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n")
        _signed(tmp_path / "one", dict(about))
        for function in (tlcli.load, tlcli.check):
            assert len(str(_refusal(function, tmp_path / "one"))) < 700


@pytest.mark.parametrize("rows", ["x", [], {}, 1.5, True])
def test_a_count_of_rows_that_is_none_is_refused(stored, tmp_path, rows):
    shutil.copytree(stored / "linear", tmp_path / "one")
    about = json.loads((tmp_path / "one" / "provenance.json").read_text()) | {"rows": rows}
    _signed(tmp_path / "one", about)
    with pytest.raises(UsageError, match="is not the JSON file"):
        tlcli.check(tmp_path / "one")


@pytest.mark.parametrize("value", [None, "x", [1], np.array([1.0, 2.0]), {}, Ambiguous()])
def test_arguments_that_are_no_options_are_read_like_them(stored, value):
    for name in ("sigmas", "finite_size", "strict"):
        with pytest.raises(UsageError, match=f"^{name}:"):
            tlcli.check(stored / "linear", **{name: value})
    with pytest.raises(UsageError, match=r"^allow_code:"):
        tlcli.load(stored / "linear", allow_code=value)
    with pytest.raises(UsageError, match="there is no case"):
        tlcli.load(stored / "linear").case(value)
