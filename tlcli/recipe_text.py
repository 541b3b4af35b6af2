"""The text of a recipe: YAML 1.2 where it matters, in bounds of size, depth and repetition, plain data only.

`1e-3` is a number, `no` is a word, a key given twice is an error, and so is `010`, which is 8 to some readers and 10 to
others. Tags beyond those of JSON's types are refused, and aliases that would expand without bound.
"""

import math
import re
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tlcli.errors import RecipeError

MAX_BYTES = 200_000
MAX_DEPTH = 20
MAX_NODES = 50_000  # after aliases are written out

_CORE = "tag:yaml.org,2002:"
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^[-+]?[0-9]+$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF))$"
)  # fmt: skip
_SCALARS = {"bool": _BOOL, "int": _INT, "float": _FLOAT, "null": re.compile(""), "str": re.compile("")}
_WORDS = {"bool": "true or false", "int": "a whole number", "float": "a number"}
_SHOWN = 60


class Loader(yaml.SafeLoader):
    """SafeLoader with the numbers and booleans of YAML 1.2, and no duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping whose keys are different words."""
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise RecipeError(f"the key '{_cut(str(key))}' is no word.")
            if key in seen:
                raise RecipeError(f"the key '{_cut(str(key))}' stands twice; give it once.")
            seen.add(key)
        return super().construct_mapping(node, deep)


def _integer(_: Loader, node: yaml.ScalarNode) -> int | float:
    digits = node.value.lstrip("+-")
    if len(digits) > 1 and digits[0] == "0":
        raise RecipeError(f"'{_cut(node.value)}' starts with 0, which some read as octal; leave out the 0.")
    return int(node.value) if len(digits) <= 18 else _real(_, node)


def _real(_: Loader, node: yaml.ScalarNode) -> float:
    number = float(node.value.lower().replace(".inf", "inf"))
    if math.isinf(number) and "inf" not in node.value.lower():
        raise RecipeError(f"'{_cut(node.value)}' is beyond the largest number 1.8e308; write inf if that is meant.")
    return number


_REPLACED = {_CORE + kind for kind in ("bool", "float", "int", "timestamp")}
Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag not in _REPLACED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(_CORE + "bool", _BOOL, list("tTfF"))
Loader.add_implicit_resolver(_CORE + "int", _INT, list("-+0123456789"))
Loader.add_implicit_resolver(_CORE + "float", _FLOAT, list("-+0123456789."))
Loader.add_constructor(_CORE + "int", _integer)
Loader.add_constructor(_CORE + "float", _real)


def read_recipe(path: Path) -> Any:
    """Return what the YAML file `path` holds.

    Raises:
        RecipeError: it cannot be read, is no YAML, is too large or too deep, or holds more than plain data.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise RecipeError(f"recipe '{path}' cannot be read: {error.strerror}.") from None
    if len(raw) > MAX_BYTES:
        raise RecipeError(f"recipe '{path}' is larger than {MAX_BYTES} bytes; give long lists as grids, 0.1:2:40.")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise RecipeError(f"recipe '{path}' is not a UTF-8 text file.") from None
    try:
        return parse(text)
    except RecipeError as error:
        raise RecipeError(f"recipe '{path}': {error}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(f"recipe '{path}' is not YAML{_where(error, text)}.") from None


def parse(text: str) -> Any:
    """Return what a YAML text holds.

    Raises:
        RecipeError: too deep, too large, or more than plain data.
        yaml.YAMLError: no YAML.
    """
    depth = 0
    for event in yaml.parse(text, Loader=Loader):  # composing is recursive, this is not
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            line = getattr(event.start_mark, "line", 0) + 1
            raise RecipeError(f"line {line} is nested more than {MAX_DEPTH} deep; a recipe needs no more than 4.")
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _count(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Return the number of nodes with every alias written out; refuse what is no plain data."""
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise RecipeError(f"line {node.start_mark.line + 1} contains itself by an alias; write it out.")
        return sizes[id(node)]
    sizes[id(node)] = 0  # not finished
    _check_tag(node)
    total = 1 + sum(_count(child, sizes) for child in _children(node))
    if total > MAX_NODES:
        line = node.start_mark.line + 1
        raise RecipeError(f"line {line} holds more than {MAX_NODES} values, aliases written out; use grids, 0.1:2:40.")
    sizes[id(node)] = total
    return total


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _check_tag(node: yaml.Node) -> None:
    kind = node.tag.removeprefix(_CORE)
    line = node.start_mark.line + 1
    if isinstance(node, yaml.ScalarNode):
        rule = _SCALARS.get(kind) if node.tag.startswith(_CORE) else None
        if rule is not None and rule.match(node.value):
            return
        if rule is not None:
            raise RecipeError(
                f"line {line}: '{_cut(node.value)}' is not {_WORDS[kind]}, which its tag !!{kind} asks for."
            )
        shown = f"'{_cut(node.value)}'"
    elif node.tag == _CORE + ("map" if isinstance(node, yaml.MappingNode) else "seq"):
        return
    else:
        shown = "a mapping" if isinstance(node, yaml.MappingNode) else "a list"
    if kind == "merge":
        raise RecipeError(f"line {line}: the key '<<' merges in YAML 1.1 only; write the keys out.")
    name = f"!!{kind}" if node.tag.startswith(_CORE) else node.tag
    raise RecipeError(f"line {line}: {shown} has the tag '{_cut(name)}', which recipes do not know; leave the tag out.")


def _where(error: Exception, text: str) -> str:
    """Say where and what a YAML error is, with the line that shows it."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it is malformed"
    if mark is None:
        position = getattr(error, "position", None)
        if not isinstance(position, int):
            return f": {problem}"
        character = getattr(error, "character", 0)
        line = text[:position].count("\n") + 1
        return f" at line {line}: the character U+{int(character):04X} is not allowed"
    lines = text.splitlines()
    shown = _cut(lines[mark.line].strip()) if mark.line < len(lines) else ""
    return f" at line {mark.line + 1}, column {mark.column + 1} ('{shown}'): {problem}"


def _cut(text: str) -> str:
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
