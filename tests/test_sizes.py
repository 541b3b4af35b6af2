"""No function over 60 lines and no file over 500: what is longer holds more than one idea."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "tlcli"
LINES, FILE = 60, 500

# What was not divided yet. None may grow; who divides one takes it out.
LONG: dict[str, int] = {}


def long_functions(text):
    """Name → lines of every function that is too long."""
    functions = [
        node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    return {name: length for name, length in lengths.items() if length > LINES}


def test_functions_and_files_are_short():
    files = {path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    found = {f"{path} {name}": n for path, text in files.items() for name, n in long_functions(text).items()}
    assert {name: n for name, n in found.items() if n > LONG.get(name, 0)} == {}
    assert LONG.keys() <= found.keys(), "the list holds only what is still too long"
    assert [path for path, text in files.items() if text.count("\n") > FILE] == []


def test_a_long_function_is_seen():
    body = "\n".join("    x = 1" for _ in range(LINES))
    assert long_functions(f"def long():\n{body}\n\n\ndef short():\n    x = 1\n") == {"long": LINES + 1}
