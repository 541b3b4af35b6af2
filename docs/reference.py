"""Reference pages made from the program itself: commands and options, columns, statuses, docstrings.

`conf.py` calls `write_all` at every build, so these pages cannot disagree with the code.
"""

import ast
import dataclasses
import inspect
import re
import textwrap
from pathlib import Path
from typing import get_args, get_type_hints

from tlcli.cli.app import check, run
from tlcli.cli.help import METAVARS, offered
from tlcli.cli.plot import HELP
from tlcli.options import DRAWN, OPTIONS
from tlcli.options.columns import COLUMNS
from tlcli.options.commands import COMMANDS
from tlcli.options.option import Option
from tlcli.theories.bayes.theory import bayes_theory
from tlcli.theories.linear.theory import Ansatz, Exact, JointTheory, Pretraining, Structured, TwoTimeTheory
from tlcli.theories.network.theory import network_theory


def write_all(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    pages = {"cli.md": cli_page(), "options.md": options_page(), "columns.md": columns_page(), "solvers.md": solvers()}
    for name, text in pages.items():
        path = folder / name
        # Unchanged pages keep their date, so that Sphinx need not read them again.
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows)]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Make plain text safe inside a Markdown table; dollars stay, they are mathematics."""
    return re.sub(r"([|*<>_\[\]])", r"\\\1", " ".join(text.split()))


def cli_page() -> str:
    parts = []
    for name, command in COMMANDS.items():
        examples = "\n".join(command.examples)
        parts.append(f"## tlcli {name}\n\n{escape(command.summary)}\n\n```sh\n{examples}\n```\n")
        taken = [offered(command, option) for option in dict.fromkeys(command.options)]
        parts.append("A recipe file may be given as the argument or as `--recipe FILE`.\n")
        for panel in dict.fromkeys(option.panel for option in taken):
            here = [option for option in taken if option.panel == panel]
            parts.append(f"**{panel}**\n\n" + table(["flag", "value", "default", "meaning"], [row(o) for o in here]))
    parts.append(plot_section())
    for function in (run, check):
        summary, _, examples = inspect.cleandoc(function.__doc__).partition("Examples:")
        code = "\n".join(line.strip() for line in examples.splitlines() if line.strip())
        parts.append(f"## tlcli {function.__name__}\n\n{escape_prose(summary)}\n\n```sh\n{code}\n```\n")
        parts.append(table(["argument or flag", "value", "default", "meaning"], typer_rows(function)))
    return "\n".join(parts)


def plot_section() -> str:
    summary, _, examples = HELP.partition("Examples:")
    code = "\n".join(line.strip() for line in examples.splitlines() if line.strip())
    taken = [OPTIONS[name] for name in ("x", "y", *DRAWN)]
    head = f"## tlcli plot\n\n{escape_prose(summary)}\n\n```sh\n{code}\n```\n"
    return (
        head
        + "\n"
        + table(["flag", "value", "default", "meaning"], [row(dataclasses.replace(o, default=None)) for o in taken])
    )


def typer_rows(function) -> list[list[str]]:
    """The parameters of a plain Typer command, from its annotations."""
    rows = []
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        kind, info = get_args(hints[name])
        names = [n for n in (info.default, *(info.param_decls or ())) if isinstance(n, str)]
        flag = ", ".join(f"`{n}`" for n in names) or f"`{info.metavar}`"
        word = {int: "INT", float: "NUMBER"}.get(next((k for k in (int, float) if k in (kind, *get_args(kind))), None))
        value = "" if kind is bool or not names else f"`{info.metavar or word or 'TEXT'}`"
        given = not any(parameter.default is nothing for nothing in (None, False, inspect.Parameter.empty))
        rows.append([flag, value, f"`{parameter.default}`" if given else "", escape(info.help)])
    return rows


def escape_prose(text: str) -> str:
    return re.sub(r"([*<>\[\]])", r"\\\1", text.strip())


def row(option: Option) -> list[str]:
    flag = f"`{option.flag}`" if option.name != "output" else "`-o`, `--output`"
    value = "" if option.kind == "flag" else f"`{option.metavar or METAVARS.get(option.kind, 'TEXT')}`"
    default = "" if option.default is None or option.default is False else f"`{option.default}`"
    text = escape(option.help)
    if option.choices:
        text += " One of " + ", ".join(f"`{choice}`" for choice in option.choices) + "."
    return [flag, value, default, text]


def options_page() -> str:
    """The options as recipe keys, with symbol and allowed range."""
    from tlcli.options import INVOCATION

    rows = []
    for option in OPTIONS.values():
        if option.name in INVOCATION:
            continue
        allowed = option.domain.describe() if option.domain else ", ".join(option.choices)
        rows.append([f"`{option.name}`", option.kind, escape(allowed), option.symbol, escape(option.help)])
    return table(["key", "kind", "allowed", "symbol", "meaning"], rows)


def columns_page() -> str:
    rows = [
        [f"`{c.name}`", c.label.replace("|", r"\|") if "$" in c.label else "", escape(c.help)] for c in COLUMNS.values()
    ]
    return table(["column", "symbol", "meaning"], rows)


def solvers() -> str:
    """Which parameters and experiments each solver has."""
    rows = []
    for solver in (Exact(), Ansatz(), JointTheory(), Structured(), TwoTimeTheory()):
        taken = [name if name != "time" else "t2 or times" for name in solver.parameters]
        words = ", ".join(f"`{name}`" for name in taken).replace("`t2 or times`", "`t2` or `times`")
        experiments = ", ".join(one.name for one in solver.experiments) or "none"
        rows.append([f"`{solver.name}`", words, experiments])
    for solver in (Pretraining(),):
        words = ", ".join(f"`{n}`" for n in solver.parameters).replace("`time`", "`t1` or `times`")
        rows.append([f"`{solver.name}` in `pretrain-kernel`", words, ", ".join(one.name for one in solver.experiments)])
    rows += [network_row(*which) for which in NETWORKS]
    rows += [bayes_row(*which) for which in BAYES]
    return table(["solver", "parameters", "experiments"], rows)


# Command and solver; what the row is called.
NETWORKS = (
    ("phase-diagram", "network-rich", "`network-rich`; `dmft-solve`"),
    ("phase-diagram", "network-frozen", "`network-frozen`; `finetune-loss --model network`"),
    ("pretrain-kernel", "network-pretrain", "`pretrain-kernel --model network`"),
)


def network_row(command: str, name: str, title: str) -> list[str]:
    """A network's parameters depend on its tasks; these are the ones of polynomials."""
    given = (
        {"source": "linear", "target": "hermite:2", "dim": 10} if name != "network-pretrain" else {"source": "linear"}
    )
    solver = network_theory(command, name, given.get)
    either = {"p1": "`p1` or `alpha1`", "p2": "`p2` or `alpha2`", "time": "`t1` or `times`"}
    if name != "network-pretrain":
        either["time"] = "`t2` or `times`"
    taken = [either.get(option, f"`{option}`") for option in solver.parameters]
    numerics = ", ".join(f"`{option}`" for option in solver.hidden if option != "times")
    return [
        title,
        f"{', '.join(taken)}; not in the table: {numerics}",
        ", ".join(one.name for one in solver.experiments),
    ]


# Solver, its options, and what the row is called.
POLYNOMIALS = {"source": "linear", "target": "hermite:2", "dim": 10}
BAYES = (
    ("bayes-linear", {**POLYNOMIALS, "activation": "linear"}, "`bayes-linear`; `bayes-saddle`"),
    ("bayes-network", {**POLYNOMIALS, "activation": "tanh"}, "`bayes-network`; `bayes-saddle --activation`"),
    ("bayes-whitened", {"whitened": "labels"}, "`bayes-whitened`; `bayes-saddle --whitened`"),
)


def bayes_row(name: str, given: dict, title: str) -> list[str]:
    solver = bayes_theory("bayes-saddle", name, given.get)
    either = {"p1": "`p1` or `alpha1`", "p2": "`p2` or `alpha2`"}
    words = ", ".join(either.get(option, f"`{option}`") for option in solver.parameters)
    if solver.hidden:
        words += "; not in the table: " + ", ".join(f"`{option}`" for option in solver.hidden)
    return [title, words, ", ".join(one.name for one in solver.experiments) or "none"]


def process_docstring(app, what, name, obj, options, lines) -> None:
    """Turn the plain text of our docstrings into reStructuredText that means the same."""
    text = re.sub(r"\b(docs/)?theory(/linear)?\.md", "Theory", "\n".join(lines))
    # Our docstrings mark code by single backticks and use *, | and _ as mathematics.
    text = re.sub(r"(?<!`)`([^`\n]+)`(?!`)", r"``\1``", text)
    pieces = re.split(r"(``[^`]+``)", text)
    pieces = [p if p.startswith("``") else re.sub(r"([*|\\])|(?<=\w)(_)(?!\w)", r"\\\g<0>", p) for p in pieces]
    lines[:] = "".join(pieces).splitlines()
    if what == "class" and dataclasses.is_dataclass(obj):
        lines += ["", *fields_of(obj)]


def fields_of(cls: type) -> list[str]:
    """List the fields of a result with the comments that stand behind them in the source."""
    source = textwrap.dedent(inspect.getsource(cls))
    body = ast.parse(source).body[0].body
    out = []
    for node in body:
        if isinstance(node, ast.AnnAssign):
            line = source.splitlines()[node.lineno - 1]
            comment = line.partition("  # ")[2]
            safe = re.sub(r"([*|\\`])|(?<=\w)(_)(?!\w)", r"\\\g<0>", comment)
            out.append(f"* ``{node.target.id}``" + (f": {safe}" if safe else ""))
    return out
