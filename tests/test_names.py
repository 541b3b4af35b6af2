"""One name for one thing: types of arrays are named in one module, and no two classes share a name."""

import ast
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "tlcli"
NAMED = {"float64", "float32", "complex128", "intp", "int_", "bool_", "Any"}


@cache
def trees():
    """Module → its syntax tree."""
    return {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}


def array_types(tree):
    """The element types for which a tree writes NDArray[…] although `tlcli.arrays` names it."""
    found = [node.slice for node in ast.walk(tree) if isinstance(node, ast.Subscript) and _is_array(node.value)]
    return {name for one in found if (name := getattr(one, "attr", getattr(one, "id", ""))) in NAMED}


def _is_array(node):
    return "NDArray" in (getattr(node, "id", ""), getattr(node, "attr", ""))


def test_types_of_arrays_are_named_in_one_module():
    found = {path: names for path, tree in trees().items() if (names := array_types(tree))}
    assert set(found) == {"arrays.py"}


def test_an_array_type_elsewhere_is_seen():
    assert array_types(ast.parse("_Array = NDArray[np.float64]\ndef f(x: npt.NDArray[Any]): ...")) == {"float64", "Any"}
    assert array_types(ast.parse("status: NDArray[np.int8]")) == set()  # rare types are written out


def homonyms(trees):
    """Names of public classes that several modules define."""
    names = [node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]
    return {name for name in names if names.count(name) > 1 and not name.startswith("_")}


def test_no_two_classes_share_a_name():
    assert homonyms(trees().values()) == set()


def test_classes_of_one_name_are_seen():
    sources = ["class Stage: ...", "class Stage: ...\nclass _Own: ...", "class _Own: ..."]
    assert homonyms(map(ast.parse, sources)) == {"Stage"}
