"""From a command, a recipe and flags to what is to be computed: one grid per case, nothing evaluated yet.

Precedence: flag > case of the recipe > recipe > default. But what sets the cases of a recipe apart stays: a label may
name it, and a flag would leave the label wrong. A case keeps such a value, which a note tells.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tlcli.errors import DomainError, UsageError, suggest
from tlcli.options import DRAWN, INVOCATION, OPTIONS, WRITTEN
from tlcli.options.commands import COMMANDS
from tlcli.run.recipe import Recipe, refuse_code
from tlcli.run.synonyms import any_of, in_words, told, words_of
from tlcli.sweep.grids import Grid, Values, format_values, parse_values
from tlcli.theories.base import Case, Experiment, Theory
from tlcli.theories.registry import Asked, find

# Options that say how a result is drawn or run, not what is computed.
_NOT_PHYSICAL = {"x", "y", *DRAWN, *WRITTEN, "solver", "simulate"}
_NOT_PHYSICAL |= {f"optimal_{name}" for name, option in OPTIONS.items() if option.best}
_NOT_PHYSICAL |= {"experiment", "trials", "width", "seed", "dim", "model", *INVOCATION}
_CODE = {name for name, option in OPTIONS.items() if option.code}
_PER_CASE = {"solver", "model", "simulate", "experiment"}
# Two ways to say one thing: in a stronger layer of settings one replaces the other.
_EITHER = tuple((name, option.instead) for name, option in OPTIONS.items() if option.instead)


@dataclass(frozen=True, eq=False)
class Job:
    """Everything that one invocation computes and draws."""

    command: str
    name: str
    cases: tuple[Case, ...]
    settings: Mapping[str, Any]
    resolved: Mapping[str, Any]
    roles: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what the user should be told before the work


def prepare(command: str, allowed: tuple[str, ...], recipe: Recipe | None, flags: Mapping[str, Any]) -> Job:
    """Merge flags, recipe and defaults into a job.

    Raises:
        UsageError: an option that the solver does not take, a bad value, a recipe of another command.
    """
    if recipe is not None and recipe.command not in (None, command):
        raise UsageError(
            f"recipe '{recipe.name}' is for {recipe.command}, not {command}; use `tlcli {recipe.command}` or "
            "`tlcli run` with it."
        )
    written = recipe.settings if recipe else {}
    for key in (*written, *flags):
        if key not in allowed:
            hint = suggest(key, allowed)
            raise UsageError(f"{command} does not take '{key}'{hint}.")
    duration = COMMANDS[command].duration
    if recipe is not None and not flags.get("allow_code"):
        _refuse_code(recipe, flags)
    given, strong, roles = _axes_roles(written, flags, duration)
    cases, overrides, notes = [], [], []
    written_cases = (recipe.cases if recipe else []) or [{"label": None}]
    words, renamed = _synonyms(command, recipe, given, written_cases, roles)
    if words:
        given, strong = in_words(given, words, strong), in_words(strong, words)
        roles = {role: words.get(name, name) for role, name in roles.items()}
        written_cases = [in_words(case, words) for case in written_cases]
    apart = _apart(written_cases)
    for override in written_cases:
        label, rest = override["label"], {k: v for k, v in override.items() if k != "label"}
        own = {k: v for k, v in rest.items() if k in apart}
        # Flags are stronger than a case, so that one run can change a recipe everywhere, but for what sets it apart.
        settings = _over(_over(_over(given, rest, duration), strong, duration), own, duration)
        notes += [(label, name) for name in strong if settings.get(name) != strong[name]]
        cases.append(_case(command, label, settings, recipe))
        whole = [k for k in rest if k in _NOT_PHYSICAL - _PER_CASE and k not in cases[-1].theory.parameters]
        if whole:
            raise UsageError(f"case '{label}': '{whole[0]}' belongs to the whole recipe, not to one case.")
        overrides.append({k: settings[k] for k in rest if k in settings})
    run = {name: _value(name, given) for name in OPTIONS if name in _NOT_PHYSICAL}
    resolved = _resolved(command, allowed, recipe, given, overrides, cases)
    name = recipe.name if recipe else command
    return Job(command, name, tuple(cases), run, resolved, roles, (*renamed, *_kept(notes, strong, written_cases)))


def _refuse_code(recipe: Recipe, flags: Mapping[str, Any]) -> None:
    """Refuse code in a recipe before anything looks at it, but where a flag stands in for it.

    Raises:
        RecipeError: an option of the recipe, or of a case, would run Python code.
    """
    for part, spared in ((recipe.settings, flags.keys()), *((case, ()) for case in recipe.cases)):
        for key in part.keys() & _CODE - set(spared):
            refuse_code(recipe.name, key, part[key])


def _synonyms(
    command: str,
    recipe: Recipe | None,
    given: Mapping[str, Any],
    cases: Sequence[Mapping[str, Any]],
    roles: Mapping[str, str],
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the words that the theory calls otherwise, and what to tell; cases of several theories keep theirs."""
    written = any_of((given, *cases), roles.values())
    if not written or any(key in case for case in cases for key in ("solver", "model")):
        return {}, ()
    theory = _theory(command, {**given, **cases[0]}, recipe)
    words = words_of(_taken(command, theory), written)
    return words, told(theory.name, words)


def _apart(cases: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the options that set the cases of a recipe apart: all do not give them one and the same value."""

    def read(name: str, raw: Any) -> Any:
        value = OPTIONS[name].parse(raw)
        return format_values(value) if isinstance(value, Values) else value

    names = {name for case in cases for name in case} - {"label", "simulate"}  # experiments change no row
    if len(cases) == 1:  # set apart from the recipe without it
        return names
    return {n for n in names if any(n not in case for case in cases) or len({read(n, case[n]) for case in cases}) > 1}


def _kept(
    pairs: Sequence[tuple[str, str]], flags: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]
) -> tuple[str, ...]:
    """Return a note for every flag that some cases do not follow, given as pairs of a case and an option.

    Raises:
        UsageError: a flag that no case follows.
    """
    notes = []
    for name in dict.fromkeys(name for _, name in pairs):
        labels = [label for label, other in pairs if other == name]
        flag = f"{OPTIONS[name].flag} {flags[name]}" if OPTIONS[name].kind != "flag" else OPTIONS[name].flag
        shown = ", ".join(f"'{label}'" for label in labels)
        if len(labels) == len(cases):
            raise UsageError(
                f"{flag} has no effect: it is what sets the cases {shown} of the recipe apart, and each keeps its own; "
                "leave it out, or change the cases in a copy of the recipe."
            )
        one = "case" if len(labels) == 1 else "cases"
        notes.append(
            f"{flag} is not for the {one} {shown} of the recipe, whose own value sets it apart from the others."
        )
    return tuple(notes)


def _over(weak: Mapping[str, Any], strong: Mapping[str, Any], duration: str | None) -> dict[str, Any]:
    """Merge two layers of settings; recorded times and the duration of the last stage replace each other."""
    merged = {**weak, **strong}
    for pair in (*_EITHER, *([("times", duration)] if duration else [])):
        for one, other in (pair, pair[::-1]):
            if one in strong and other not in strong:
                merged.pop(other, None)
    return merged


def _axes_roles(
    written: Mapping[str, Any], flags: Mapping[str, Any], duration: str | None
) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """Read x and y, each a parameter or parameter=GRID.

    Return all settings of recipe and flags, those that come from flags, and role → axis. The grids are settings
    like any other in these; a flag is stronger than the grid in a recipe's x.
    """
    given, strong = _over(written, flags, duration), {k: v for k, v in flags.items() if k not in ("x", "y")}
    names: dict[str, str] = {}
    for role in ("x", "y"):
        if given.get(role) is None:
            continue
        name, equals, text = str(given[role]).partition("=")
        name = name.strip().replace("-", "_")
        known = [n for n, o in OPTIONS.items() if o.kind in ("grid", "expression")]
        if name not in (*known, "time", "stage", "task"):
            raise UsageError(
                f"--{role}: '{name}' is no parameter{suggest(name, known)}; use PARAMETER or PARAMETER=GRID."
            )
        if equals and role in flags:
            strong[name] = text.strip()
        elif equals:
            given[name] = text.strip()
        given[role] = name
        names[role] = "time" if name in ("times", duration) else name
    if names.get("x") is not None and names.get("x") == names.get("y"):
        raise UsageError(f"--x and --y are both '{names['x']}'; name two different parameters.")
    return _over(given, strong, duration), strong, names


def _value(name: str, settings: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> Any:
    option = OPTIONS[name]
    raw = settings.get(name)
    if raw is None:
        raw = {name: option.default, **(defaults or {})}[name]
    return None if raw is None else option.parse(raw)


def _case(command: str, label: str | None, settings: Mapping[str, Any], recipe: Recipe | None) -> Case:
    theory = _theory(command, settings, recipe)
    taken = _taken(command, theory)
    stray = [k for k in settings if k not in _NOT_PHYSICAL and k not in taken and settings[k] is not None]
    if stray:
        raise UsageError(
            f"{theory.name} does not use '{stray[0]}'; {command} with it takes {', '.join(sorted(taken))}."
        )
    theory.refuse(settings)
    if settings.get("trials") is not None and theory.repeated != "trials":
        raise UsageError(f"{theory.name} has no trials; give the number of networks per width as --{theory.repeated}.")
    duration = COMMANDS[command].duration
    timed = duration in taken and settings.get("times") is not None
    if timed and duration is not None and settings.get(duration) is not None:
        raise UsageError(f"times and {duration} are both given; times are the recorded ones and end the last stage.")
    values: dict[str, Values] = {}
    words: dict[str, Any] = dict(theory.words)
    for name in theory.parameters:
        if name == "time":
            if settings.get("times") is not None:
                values["time"] = _value("times", settings)
            else:
                assert duration is not None
                values["time"] = _value(duration, {duration: theory.defaults.get("time"), **_given(settings)})
        elif name in theory.own:
            values[name] = theory.own[name]
        elif OPTIONS[name].kind == "grid":
            value = _offered(theory, name, _value(name, settings, theory.defaults))
            if isinstance(value, Values):
                values[name] = value
            else:
                words[name] = value
        elif OPTIONS[name].kind == "expression" and (numbers := _numbers(name, settings)):
            values[name] = numbers
        else:
            value = _offered(theory, name, _value(name, settings, theory.defaults))
            words[name] = theory.missing(name) if value is None else value
    for name in theory.hidden:
        value = _value(name, settings)
        words[name] = value.array.tolist() if isinstance(value, Values) else value
    grid = Grid.from_mapping(values)
    return Case(label, theory, grid, words, _experiments(theory, settings))


def _offered(theory: Theory, name: str, value: Any) -> Any:
    """Return the value, unless it is a word that this theory does not have."""
    offered = theory.choices.get(name, () if OPTIONS[name].words else None)
    if isinstance(value, str) and offered is not None and value not in offered:
        allowed = f"one of {', '.join(offered)}{suggest(value, offered)}" if offered else "numbers"
        raise UsageError(f"{theory.name} has no {name} '{value}'; use {allowed}.")
    return value


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def _numbers(name: str, settings: Mapping[str, Any]) -> Values | None:
    """Return the values of an expression that is a plain grid of numbers, so that it can be an axis."""
    raw = _value(name, settings)
    if raw is None:
        return None
    try:
        return parse_values(raw, name)
    except UsageError:
        return None


def _taken(command: str, theory: Theory) -> set[str]:
    taken = (set(theory.parameters) - set(theory.own)) | set(theory.hidden)
    duration = COMMANDS[command].duration
    if ("time" in taken or "time" in theory.inner) and duration is not None:
        taken |= {"times", duration}
        taken -= {"time"}
    return taken


def taken_with(command: str, flags: Mapping[str, Any]) -> set[str]:
    """Return the options that have a use beside the given ones: those of the theory they lead to, and of every run.

    An option that makes the theory another one of the same name (depth, loss) is among them.

    Raises:
        UsageError: flags that lead to no theory.
    """
    theory, flags = _led_to(command, flags)
    taken = _taken(command, theory)
    for name in OPTIONS.keys() - taken - _NOT_PHYSICAL - flags.keys():
        option = OPTIONS[name]
        for value in (True,) if option.kind == "flag" else (*option.choices[-1:], "2", "0.5", "mse"):
            with suppress(UsageError, DomainError):
                other = _theory(command, {**flags, name: value}, None)
                taken |= {name} & _taken(command, other) if other.name == theory.name else set()
    unused = set() if theory.experiments else {"simulate", "experiment", "trials", "width", "nets"}
    unused |= {"model"} if flags.get("solver") else set()  # which says it already
    unused |= {f"optimal_{name}" for name, option in OPTIONS.items() if option.best and name not in taken}
    return taken | (_NOT_PHYSICAL - unused)


def defaults_with(command: str, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults, by option, that the theory to which flags lead has in place of those of the options.

    Those of options that have no default of their own are left out: they depend on the tasks.

    Raises:
        UsageError: flags that lead to no theory.
    """
    theory, _ = _led_to(command, flags)
    return {k: v for k, v in _defaults(command, theory).items() if k in OPTIONS and OPTIONS[k].default is not None}


def _led_to(command: str, flags: Mapping[str, Any]) -> tuple[Theory, Mapping[str, Any]]:
    """Return the theory to which flags lead, and the flags with what it needed: networks need tasks to be a theory."""
    try:
        return _theory(command, flags, None), flags
    except UsageError as error:
        flags = {"source": "linear", "target": "linear", **flags}
        try:
            return _theory(command, flags, None), flags
        except UsageError:
            raise error from None


def _theory(command: str, settings: Mapping[str, Any], recipe: Recipe | None) -> Theory:
    given = _given(settings)
    asked = Asked(
        command,
        lambda key: _value(key, given, {key: None}),
        lambda key: _value(key, settings),
        recipe.stages if recipe else (),
        recipe.gram if recipe else None,
    )
    return find(asked)


def _experiments(theory: Theory, settings: Mapping[str, Any]) -> tuple[Experiment, ...]:
    if not _value("simulate", settings):
        if settings.get("experiment") is not None and settings.get("simulate") is None:
            raise UsageError("--experiment has an effect with --simulate only; add it.")
        return ()
    if not theory.experiments:
        raise UsageError(f"{theory.name} has no experiment; leave out --simulate.")
    known = {experiment.name: experiment for experiment in theory.experiments}
    text = settings.get("experiment") or theory.experiments[0].name
    names = tuple(dict.fromkeys(part.strip() for part in str(text).split(",")))
    for name in names:
        if name not in known:
            near = suggest(name, known)
            raise UsageError(f"experiment: '{name}' is not available for {theory.name}; use {', '.join(known)}{near}.")
    return tuple(known[name] for name in names)


def _defaults(command: str, theory: Theory) -> dict[str, Any]:
    """Return the solver's own defaults by option: that of the last stage's end is its duration's."""
    duration = COMMANDS[command].duration
    return {duration if name == "time" and duration else name: value for name, value in theory.defaults.items()}


def _resolved(
    command: str,
    allowed: Sequence[str],
    recipe: Recipe | None,
    given: Mapping[str, Any],
    overrides: Sequence[Mapping[str, Any]],
    cases: Sequence[Case],
) -> dict[str, Any]:
    """Return the whole recipe as JSON data: what provenance keeps and hashes, and itself a recipe.

    Defaults are written out where they are used: in a case if the other cases' solvers do not take them.
    """

    def plain(settings: Mapping[str, Any], used: set[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        if "times" in settings:
            used = used - {COMMANDS[command].duration}
        for name, option in OPTIONS.items():
            raw = settings.get(name)
            if raw is None and name in used:
                raw = {name: option.default, **defaults}[name]
            if raw is not None and name not in INVOCATION and name != "seed":
                value = option.parse(raw)
                out[name] = format_values(value) if isinstance(value, Values) else value
        return out

    taken = [_taken(command, case.theory) for case in cases]
    common = set.intersection(*taken)
    # What every table holds, but for options that another command or the networks do without.
    always = (_NOT_PHYSICAL - {"model"}) & set(allowed)
    always -= Theory.always_told - frozenset().union(*(case.theory.always_told for case in cases))
    defaults = _defaults(command, cases[0].theory)
    if any(_defaults(command, case.theory) != defaults for case in cases):
        common = {name for name in common if name not in defaults}
    out = plain(given, common | always, defaults)
    if recipe and recipe.cases:
        out["cases"] = [
            {"label": case.label, **plain(override, used - common - set(given), _defaults(command, case.theory))}
            for case, override, used in zip(cases, overrides, taken, strict=True)
        ]
    if recipe and recipe.stages:
        out["stages"] = [
            {k: v if k == "teacher" else format_values(parse_values(v, k)) for k, v in stage.items()}
            for stage in recipe.stages
        ]
    if recipe and recipe.gram:
        out["gram"] = recipe.gram
    return out
