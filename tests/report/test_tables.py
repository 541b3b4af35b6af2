"""CSV tables: what the csv module reads back is what went in, to the last bit."""

import csv
import io
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tlcli.report import tables
from tlcli.report.tables import Block, column_names, write_csv, write_table
from tlcli.status import Phase, Status


def csv_of(*blocks):
    stream = io.StringIO()
    write_csv(blocks, stream)
    return stream.getvalue()


def rows_of(*blocks):
    return list(csv.DictReader(io.StringIO(csv_of(*blocks))))


@st.composite
def blocks(draw):
    """A block with float, word and whole columns, each as broadcastable as it likes."""
    shape = draw(array_shapes(min_dims=1, max_dims=3, max_side=4))
    axes = {f"x{i}": np.arange(float(n)) for i, n in enumerate(shape)}
    columns = {"c": draw(st.floats(width=64))}
    for index in range(draw(st.integers(1, 5))):
        own = tuple(draw(st.sampled_from((1, n))) for n in shape)
        kind = draw(st.sampled_from(["float", "word", "number", "text"]))
        if kind == "float":
            columns[f"c{index}"] = draw(arrays(float, own, elements=st.floats(width=64)))
        elif kind == "word":
            texts = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=6)
            columns[f"c{index}"] = np.array(draw(arrays(object, own, elements=texts)), dtype=object)
        else:
            columns[f"c{index}"] = draw(st.floats(width=64)) if kind == "number" else draw(st.sampled_from(["a", ""]))
    return Block(axes, columns, {}, draw(st.sampled_from([None, "label", 'with, comma and "quotes"'])))


def same(cell, value):
    if isinstance(value, str):
        return cell == value
    return (math.isnan(value) and math.isnan(float(cell))) or (
        float(cell) == value and math.copysign(1, float(cell)) == math.copysign(1, value)
    )


@settings(deadline=None)
@given(st.lists(blocks(), min_size=1, max_size=3))
def test_the_csv_module_reads_what_was_written(found):
    rows = rows_of(*found)
    assert len(rows) == sum(block.size for block in found)
    index = 0
    for block in found:
        full = {name: block.full(name).ravel().tolist() for name in block.columns}
        for row in range(block.size):
            for name in column_names(found):
                if name == "case":
                    assert rows[index]["case"] == (block.label or "")
                elif name in full:
                    assert same(rows[index][name], full[name][row])
                else:
                    assert rows[index][name] == ""
            index += 1


@settings(deadline=None)
@given(st.lists(blocks(), min_size=1, max_size=3), st.integers(1, 7))
def test_large_blocks_are_cut_without_a_trace(found, at_once):
    whole = csv_of(*found)
    limit = tables._ROWS_AT_ONCE
    tables._ROWS_AT_ONCE = at_once
    try:
        assert csv_of(*found) == whole
    finally:
        tables._ROWS_AT_ONCE = limit


@given(st.floats(allow_nan=False))
def test_floats_round_trip_and_are_short(value):
    (row,) = rows_of(Block({}, {"v": np.array(value)}, {}))
    assert float(row["v"]) == value
    assert not row["v"].endswith(".0")
    assert len(row["v"]) <= len(repr(value))


def test_a_table_in_full():
    block = Block(
        {"a": np.array([0.1, 2.0]), "b": np.array([1.0, np.inf])},
        {
            "a": np.array([[0.1], [2.0]]),
            "b": np.array([[1.0, np.inf]]),
            "kernel": "ntk",
            "status": np.array([[0, 1], [2, 4]], dtype=np.int8),
            "phase": np.array([[-1, 0]], dtype=np.int8),
            "residual": 1e-16,
            "loss": np.array([[1.0, math.nan], [1 / 3, -0.0]]),
        },
        {},
    )
    assert csv_of(block) == (
        "a,b,kernel,phase,loss,residual,status\n"
        "0.1,1,ntk,negative,1,1e-16,converged\n"
        "0.1,inf,ntk,neutral,nan,1e-16,collapsed\n"
        "2,1,ntk,negative,0.3333333333333333,1e-16,diverged\n"
        "2,inf,ntk,neutral,-0,1e-16,not_converged\n"
    )


def test_words_of_status_and_phase():
    codes = {"status": np.array([int(s) for s in Status]), "phase": 2}
    rows = rows_of(Block({"x": np.arange(len(Status))}, codes, {}))
    assert [row["status"] for row in rows] == [s.name.lower() for s in Status]
    assert {row["phase"] for row in rows} == {Phase.COLLAPSED.name.lower()}


def test_cases_with_different_columns_have_empty_cells():
    first = Block({"x": np.array([1.0, 2.0])}, {"x": np.array([1.0, 2.0]), "spike": 3.0, "status": 0}, {}, "one")
    second = Block({}, {"x": np.array(5.0), "c_signal": "a*b", "status": 0}, {}, "two, with comma")
    text = csv_of(first, second)
    assert text == (
        'case,x,spike,c_signal,status\none,1,3,,converged\none,2,3,,converged\n"two, with comma",5,,a*b,converged\n'
    )
    assert "case" not in column_names([Block({}, {"x": 1.0}, {})])


def test_inner_axes_and_scalars_broadcast():
    columns = {"a": np.array([[1.0], [2.0]]), "b": np.array([[5.0, 6.0, 7.0]]), "c": np.arange(6.0).reshape(2, 3)}
    rows = rows_of(Block({"a": np.arange(2.0), "b": np.arange(3.0)}, columns, {}))
    assert [(row["a"], row["b"], row["c"]) for row in rows][3:5] == [("2", "5", "3"), ("2", "6", "4")]


def test_written_and_read(tmp_path):
    path = tmp_path / "table.csv"
    write_table([Block({}, {"x": 1.5, "t": "a,b"}, {})], path)
    assert path.read_bytes() == b'x,t\n1.5,"a,b"\n'
    assert list(csv.DictReader(path.read_text().splitlines())) == [{"x": "1.5", "t": "a,b"}]
