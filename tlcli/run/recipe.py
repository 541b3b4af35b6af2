"""Recipes: YAML files that hold one figure each, validated against the declared options.

A recipe is a mapping of option keys to values, plus

    command   the subcommand that runs it
    name      the name of its output folder [default: the file's name]
    cases     a list of mappings, each a `label` and the keys that it overrides
    stages    a list of training stages (curricula; see `tlcli.linear.stages`)
    gram      the matrix of overlaps of the stages' teachers

How the file is read, and its limits, stand in `tlcli.recipe_text`.
"""

import functools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, create_model

from tlcli.errors import RecipeError, TlcliError, UsageError, suggest
from tlcli.options import INVOCATION, OPTIONS
from tlcli.options.commands import STAGE_OPTIONS
from tlcli.options.option import Option
from tlcli.recipe_text import read_recipe

COMMANDS = ("pretrain-kernel", "finetune-loss", "dmft-solve", "bayes-saddle", "phase-diagram")
_LONGEST_NAME = 200  # bytes; what file systems take, with room for endings
_KINDS = {
    "string_type": "a text",
    "list_type": "a list",
    "dict_type": "a mapping of keys to values",
    "float_parsing": "a number",
    "float_type": "a number",
}
_NEEDED = ("alpha", "gamma")  # of a stage; the other keys have the defaults of their options
_ABSENT = {key: OPTIONS[name].default for key, name in STAGE_OPTIONS.items() if name and key not in _NEEDED}


@dataclass(frozen=True)
class Recipe:
    """A validated recipe: raw values as written, by option key."""

    command: str | None
    name: str
    settings: dict[str, Any]
    cases: list[dict[str, Any]] = field(default_factory=list)
    stages: list[dict[str, Any]] = field(default_factory=list)
    gram: list[list[float]] | None = None


def load_recipe(path: Path) -> Recipe:
    """Read and validate the recipe at `path`.

    Raises:
        RecipeError: the file is missing, is not YAML, or holds an unknown key or a bad value.
    """
    raw = read_recipe(path)
    if not isinstance(raw, dict):
        raise RecipeError(f"recipe '{path}' must be a mapping of keys to values.")
    try:
        return parse_recipe(raw, default_name=path.stem)
    except TlcliError as error:
        raise RecipeError(f"recipe '{path}': {error}") from None


def parse_recipe(raw: dict[str, Any], default_name: str) -> Recipe:
    """Validate a mapping; unknown keys are refused with the nearest known one.

    Raises:
        RecipeError: unknown key or bad value.
    """
    for key in raw:
        if not isinstance(key, str):
            raise RecipeError(f"the key {_shown(key)} is no word; use names of options, such as alpha1.")
    content = _validate(_model(), raw, "")
    for key in ("cases", "stages", "gram"):
        if key in raw and not raw[key]:
            raise RecipeError(f"{key}: {_shown(raw[key])} holds nothing; fill the list or leave out the key.")
    settings = {k: v for k, v in raw.items() if k in OPTIONS}
    if content.gram is not None and not content.stages:
        raise RecipeError("'gram' holds the overlaps of the teachers of 'stages'; add these or leave it out.")
    stages = [_stage(i, stage) for i, stage in enumerate(content.stages or [], start=1)]
    cases = [_case(i, case) for i, case in enumerate(content.cases or [], start=1)]
    labels = [case["label"] for case in cases]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise RecipeError(f"the label '{twice[0]}' stands twice; give every case its own.")
    if content.command is not None and content.command not in COMMANDS:
        hint = suggest(content.command, COMMANDS)
        raise RecipeError(f"command '{content.command!s:.60}' is unknown; use one of {', '.join(COMMANDS)}{hint}.")
    name = default_name if content.name is None else content.name
    _check_name(name)
    return Recipe(content.command, name, settings, cases, stages, content.gram)


def _check_name(name: str) -> None:
    """Refuse what is not the plain name of one folder: results must not leave the folder that -o names."""
    if not re.fullmatch(r"[\w+-][\w.+-]*", name) or len(name.encode()) > _LONGEST_NAME:
        shown = name if len(name) <= 60 else f"{name[:60]}…"
        raise RecipeError(
            f"name {shown!r} is no plain folder name; give the key 'name' letters, digits and . _ + -, at most "
            f"{_LONGEST_NAME} bytes and no . first."
        )


def refuse_code(name: str, key: str, value: object) -> None:
    """Refuse a recipe's option that would import and run Python code: an activation, the only thing that may.

    Raises:
        RecipeError: `value` is written as module:function.
    """
    if ":" in str(value):
        raise RecipeError(
            f"recipe '{name}' would run Python code by its {key} '{value}'; if you trust it, add --allow-code."
        )


def _stage(index: int, stage: dict[str, Any]) -> dict[str, Any]:
    for key in stage:
        if key not in STAGE_OPTIONS:
            hint = suggest(key, STAGE_OPTIONS)
            raise RecipeError(f"stage {index} has the unknown key '{key}'{hint}; allowed: {', '.join(STAGE_OPTIONS)}.")
    teacher = stage.get("teacher", index)
    if not isinstance(teacher, int) or isinstance(teacher, bool) or teacher < 1:
        raise RecipeError(f"stage {index}: teacher = {teacher!r} must be a whole number from 1.")
    for needed in _NEEDED:
        if needed not in stage:
            raise RecipeError(f"stage {index} lacks '{needed}'.")
    return {**_ABSENT, **stage, "teacher": teacher}


def _case(index: int, case: dict[str, Any]) -> dict[str, Any]:
    if "label" not in case:
        raise RecipeError(f"case {index} lacks a 'label'.")
    label = case["label"]
    if not isinstance(label, (str, int, float)) or isinstance(label, bool) or label == "":
        raise RecipeError(f"case {index}: label = {_shown(label)} must be a text or a number.")
    overrides = {k: v for k, v in case.items() if k != "label"}
    content = _validate(_model(), overrides, f"case {index}: ")
    if content.cases or content.stages or content.command or content.name:
        raise RecipeError(f"case {index} may only hold a label and options.")
    return {"label": str(label), **overrides}


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


@functools.cache
def _model() -> type[BaseModel]:
    def validator(option: Option) -> BeforeValidator:
        def check(raw: Any) -> Any:
            try:
                option.parse(raw)
            except UsageError as error:
                raise ValueError(str(error)) from None
            return raw

        return BeforeValidator(check)

    fields: dict[str, Any] = {
        name: (Annotated[Any, validator(option)], None) for name, option in OPTIONS.items() if name not in INVOCATION
    }
    fields |= {
        "command": (str | None, None),
        "name": (str | None, None),
        "cases": (list[dict[str, Any]] | None, None),
        "stages": (list[dict[str, Any]] | None, None),
        "gram": (list[list[float]] | None, None),
    }
    return create_model("RecipeModel", __config__=ConfigDict(extra="forbid", strict=False), **fields)


def _validate(model: type[BaseModel], raw: dict[str, Any], where: str) -> Any:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            if key in INVOCATION:
                flag = OPTIONS[key].flag
                raise RecipeError(f"{where}'{key}' is no part of a recipe; give it as the flag {flag}.") from None
            hint = suggest(key, model.model_fields) or f"; known keys are {', '.join(model.model_fields)}"
            raise RecipeError(f"{where}unknown key '{key}'{hint}.") from None
        message = str(first["msg"]).removeprefix("Value error, ")
        if first["type"] != "value_error":
            place = "".join(f"[{at + 1}]" if isinstance(at, int) else f".{at}" for at in first["loc"][1:])
            message = f"{key}{place} = {_shown(first['input'])} must be {_KINDS.get(first['type'], message)}."
        raise RecipeError(f"{where}{message}") from None
