"""What a run has found: arrays of the grid's shape, kernels, figures; and its files, when it is asked to save them."""

import importlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlcli.arrays import Array
from tlcli.errors import MissingExtraError, UsageError, suggest
from tlcli.options import OPTIONS
from tlcli.report.drawing import HTML
from tlcli.report.provenance import recipe_hash
from tlcli.report.tables import Block, column_names
from tlcli.run.job import Job
from tlcli.run.solve import Measured
from tlcli.status import Phase, Status
from tlcli.theories.base import Case, Findings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tlcli.report.verdict import Beside

_WORDS = {"status": Status, "phase": Phase}
_UNSOLVED = (Status.NOT_CONVERGED, Status.FAILED)
_VARIANTS = {"experiment", "width", "nets", "trials", "dim"}  # what tells experiments apart
_SHOWN = 8  # rows of the table in a notebook


@dataclass(eq=False)
class CaseResult:
    """What theory and experiments have found on one case; `solved` is None while points belong to other shards."""

    case: Case
    found: Findings
    solved: Findings | None = None
    measured: Measured | None = None

    def points(self, lines: Sequence[Any]) -> Iterator[tuple[dict[str, float], Any]]:
        """Yield every point as the values of the grid's axes, with what `lines` has of it (empty: nothing)."""
        if lines:
            for point, line in zip(self.case.grid.points(), lines, strict=True):
                yield {name: point[name] for name in self.case.grid.axes}, line


@dataclass(eq=False)
class Result:
    """The table, arrays and figures of one run; nothing is written before `save`.

    A result of a recipe with cases has an axis `case` where all of them have the same grid; `case(label)` is one.
    """

    job: Job
    outcomes: list[CaseResult]
    blocks: list[Block]
    seconds: float = 0.0  # that computing took
    notes: tuple[str, ...] = ()  # what was told on the way
    warnings: tuple[str, ...] = ()
    folder: Path | None = None  # that it was read from
    stored: Mapping[str, Any] | None = None  # provenance, boundaries and matrices that were read
    part_of: "Result | None" = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the table's columns, in its order."""
        return tuple(column_names(self.blocks))

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the cases of a recipe, else none."""
        return tuple(block.label for block in self.blocks if block.label is not None)

    @property
    def axes(self) -> dict[str, Array]:
        """The several-valued axes, slowest first, with their values; `case` and `experiment` among them."""
        first = self._same_grid()
        axes: dict[str, Array] = {"case": np.array(self.labels)} if len(self.blocks) > 1 else {}
        axes |= {name: np.asarray(values) for name, values in first.axes.items()}
        if "experiment" in axes and "experiment" in first.columns:
            told = [_experiments(first, name) for name in ("experiment", "width") if name in first.columns]
            labels = [" ".join(str(word) for word in one if word) for one in zip(*told, strict=True)]
            axes["experiment"] = np.array(labels) if len(set(labels)) == len(labels) else axes["experiment"]
        return axes

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return tuple(len(values) for values in self.axes.values())

    def __getitem__(self, name: str) -> Array:
        """Return a column as an array of the shape of `axes`; `status` and `phase` are words.

        Raises:
            UsageError: no such column, or cases on different grids.
        """
        self._same_grid()
        if name == "case" and len(self.labels):
            return np.broadcast_to(np.reshape(self.labels, (-1, *(1,) * (len(self.shape) - 1))), self.shape)
        if name not in self.columns:
            near = suggest(name, self.columns)
            raise UsageError(f"'{name}' is no column{near}; columns are {', '.join(self.columns)}.")
        parts = [_column(block, name) for block in self.blocks]
        return np.stack(parts) if len(parts) > 1 else parts[0]

    def __contains__(self, name: object) -> bool:
        """Whether there is such a column."""
        return name in self.columns

    def case(self, label: str) -> "Result":
        """Return one case of a recipe as a result of its own.

        Raises:
            UsageError: no such case.
        """
        if not isinstance(label, str) or label not in self.labels:
            known = f"cases are {', '.join(self.labels)}" if self.labels else "the result has no cases"
            raise UsageError(f"there is no case '{label!s:.60}'{suggest(str(label), self.labels)}; {known}.")
        at = self.labels.index(label)
        job = replace(self.job, cases=(self.job.cases[at],))
        stored = self.stored and {
            **self.stored,
            **{name: [self.stored[name][at]] for name in ("boundaries", "matrices")},
        }
        one = replace(self, job=job, outcomes=[self.outcomes[at]], blocks=[self.blocks[at]], stored=stored)
        return replace(one, part_of=self)

    @property
    def status(self) -> dict[str, int]:
        """Rows of the table by status, those that occur: {"converged": 28, "not_converged": 2}."""
        found: dict[str, int] = {}
        for block in self.blocks:
            words, counts = np.unique(_column(block, "status"), return_counts=True)
            for word, count in zip(words.tolist(), counts.tolist(), strict=True):
                found[word] = found.get(word, 0) + count
        return {word: found[word] for word in (s.name.lower() for s in Status) if word in found}

    @property
    def unsolved(self) -> list[dict[str, Any]]:
        """What is not converged, row by row: the values of the axes, status and residual."""
        out = []
        for block in self.blocks:
            codes = block.full("status")
            for index in zip(*np.nonzero(np.isin(codes, _UNSOLVED)), strict=True) if codes.ndim else _scalar(codes):
                at = {name: values[i] for (name, values), i in zip(block.axes.items(), index, strict=True)}
                row = {"case": block.label} if block.label is not None else {}
                row |= {name: _plain(value) for name, value in at.items()}
                row |= {"status": Status(int(codes[index])).name.lower()}
                out.append(row | {"residual": _plain(block.full("residual")[index])})
        return out

    @cached_property
    def arrays(self) -> dict[str, Array]:
        """Kernels, predictions and other matrices that fit no table; empty where there are none.

        Keys and shapes stand in docs/python.md. They are those of the NPZ file, but that training points of Bayesian
        networks, which the file sorts by label, are in the order of the data. Where all points of the grid have arrays
        of one shape, the grid's axes come first, else NAME_pointI is that of the I-th point.

        Raises:
            UsageError: there are several cases; take one.
        """
        if len(self.outcomes) > 1:
            raise UsageError(f"arrays belong to one case; take result.case(LABEL), one of {', '.join(self.labels)}.")
        found = self.matrices[0] or {}
        if any(name.startswith("points_source") for name in found):
            from tlcli.theories.bayes.points import in_data_order

            return in_data_order(found)
        return found

    @cached_property
    def matrices(self) -> list[dict[str, Array] | None]:
        """The arrays of every case with the values of the grid's axes; None where it has none."""
        if self.stored is not None:
            return list(self.stored["matrices"])
        out: list[dict[str, Array] | None] = []
        for one in self.outcomes:
            found = one.case.theory.arrays(one.case, one.found)
            axes: dict[str, Any] = {name: one.case.grid.values[name].array for name in one.case.grid.axes}
            out.append(None if found is None else axes | found)
        return out

    @cached_property
    def boundaries(self) -> list[list[dict[str, Any]]]:
        """Per case where the gain is zero along the axes of the figure: arrays of points, their `kind`, `refined`."""
        from tlcli.run.outputs import edges_of

        if self.stored is not None:
            return list(self.stored["boundaries"])
        return [edges_of(self.job, one.case, one.found, self.blocks) for one in self.outcomes]

    @cached_property
    def verdict(self) -> str:
        """The answer in words, a line per case: what pre-training does, by how much, and where."""
        from tlcli.report.markup import plain_text
        from tlcli.report.verdict import verdict

        if self.stored is not None and "verdict" in self.stored:
            lines = str(self.stored["verdict"]).splitlines()
            own = [line for line in lines if line.startswith(tuple(f"{plain_text(n)}: " for n in self.labels))]
            return "\n".join(own or lines)
        return verdict(
            self.blocks, [self._beside(i) for i in range(len(self.blocks))], self.job.cases[0].theory.quantity
        )

    def _beside(self, index: int) -> "Beside":
        """Return what the answer of a case takes that its table does not hold."""
        from tlcli.report.verdict import Beside
        from tlcli.theories.search import effect_ends

        case, block = self.job.cases[index], self.blocks[index]
        asked = self.outcomes[index].found.asked if index < len(self.outcomes) else math.nan
        axes = [name for name in block.axes if name != "experiment"]
        ends = partial(effect_ends, case) if axes == list(case.grid.axes) else None
        return Beside(self.boundaries[index], ends, asked, case.theory.searchable or bool(case.theory.chosen))

    @cached_property
    def about(self) -> dict[str, Any]:
        """What made the result: command, resolved recipe and its hash, seed, versions, linear algebra."""
        from tlcli.report.provenance import facts

        if self.stored is not None:
            return dict(self.stored["about"])
        return facts(self.job.command, self.job.resolved, self.job.settings["seed"])

    def figures(self, **settings: Any) -> "dict[str, Figure]":
        """Return the figures by the names of their files, without ending; `settings` as for `plot`."""
        import matplotlib  # noqa: F401 (as the user has configured it, not as a run of the command would)

        from tlcli.run.outputs import figures_of, pages_of

        shown = self.redrawn(settings)
        found: Iterator[tuple[str, Any]] = figures_of(shown)
        if shown.job.settings["format"] == HTML:
            found = pages_of(shown)
        return dict(found)

    def plot(self, **settings: Any) -> "Figure":
        """Return the first figure, drawn with other `settings`: x, y, quantity, style, title as on the command line.

        It is one of matplotlib; with `format="html"` one of plotly, to zoom, point and slide.

        Raises:
            MissingExtraError: `format="html"` without plotly.
            UsageError: a setting that the table cannot follow, or nothing to draw.
        """
        for figure in self.figures(**settings).values():
            return figure
        raise UsageError("there is nothing to draw: no parameter has several values, or no number is known.")

    def redrawn(self, settings: Mapping[str, Any]) -> "Result":
        """Return the same result with other settings of its figures."""
        from tlcli.run.outputs import redraw

        if not settings:
            return self
        job = redraw(self.job, settings, self.blocks)
        facts = {"recipe": dict(job.resolved), "recipe_sha256": recipe_hash(job.resolved)}
        stored = self.stored and {**self.stored, "about": {**self.stored["about"], **facts}}
        return replace(self, job=job, stored=stored, folder=None)

    def to_pandas(self) -> Any:
        """Return the table as a pandas DataFrame, one row per point and column names as in table.csv.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        pandas = _optional("pandas", "to_pandas")
        parts = []
        for block in self.blocks:
            columns = {"case": block.label} if block.label is not None else {}
            columns |= {name: np.ravel(_column(block, name)) for name in self.columns if name in block.columns}
            parts.append(pandas.DataFrame(columns, index=range(block.size)))
        return pandas.concat(parts, ignore_index=True)[list(self.columns)] if len(parts) > 1 else parts[0]

    def to_xarray(self) -> Any:
        """Return an xarray Dataset: dims are the axes, variables the columns, with `symbol` and `units` as attrs.

        Raises:
            MissingExtraError: xarray is not installed.
            UsageError: cases on different grids.
        """
        xarray = _optional("xarray", "to_xarray")
        from tlcli.options.axes import time_unit
        from tlcli.options.columns import label_of

        axes = self.axes
        unit = time_unit(self.job.resolved)
        data: dict[str, Any] = {}
        coords: dict[str, Any] = {name: ((name,), values) for name, values in axes.items()}
        for name in self.columns:
            if name in axes:
                continue
            values = self[name]
            where = coords if self._is_parameter(name) else data
            where[name] = _narrow(tuple(axes), values) if where is coords else (tuple(axes), values)
        out = xarray.Dataset(data, coords)
        for name, variable in out.variables.items():
            time_like = name == "time" or (name in OPTIONS and OPTIONS[str(name)].lasts > 0)
            variable.attrs = {"symbol": label_of(str(name)), "units": f"{unit} time" if time_like else "1"}
        out.attrs = {"command": self.job.command, "recipe_sha256": self.about["recipe_sha256"]}
        return out

    def save(self, folder: "str | PathLike[str]", *, force: bool = False) -> Path:
        """Write the files that the command writes, byte for byte but for the wall time, and return the folder.

        Raises:
            UsageError: `folder` holds what no earlier run wrote, or, without `force`, the result of another job.
            WriteError: it cannot be written.
        """
        from tlcli.run.outputs import save
        from tlcli.run.values import as_path

        return save(self, as_path(folder, "a folder"), force=force)

    def __repr__(self) -> str:
        sizes = " x ".join(f"{name} ({len(values)})" for name, values in self.blocks[0].axes.items()) or "one point"
        cases = f"{len(self.blocks)} cases on " if len(self.blocks) > 1 else ""
        counts = ", ".join(f"{count} {word}" for word, count in self.status.items())
        return f"<tlcli {self.job.command}: {cases}{sizes}; {counts}>"

    def _repr_html_(self) -> str:
        """Return the figure over the first rows of the table, for notebooks."""
        import base64
        import html

        png = self._repr_png_()
        shown = f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}" width="640"/>' if png else ""
        rows = [("".join(f"<th>{html.escape(name)}</th>" for name in self.columns))]
        for block in self.blocks:
            cells = [[block.label] * block.size if n == "case" else _texts(block, n) for n in self.columns]
            rows += ["".join(f"<td>{html.escape(str(c))}</td>" for c in row) for row in zip(*cells, strict=True)]
        count = len(rows) - 1
        table = "".join(f"<tr>{row}</tr>" for row in rows[: _SHOWN + 1])
        more = f"<p>{count - _SHOWN} more rows</p>" if count > _SHOWN else ""
        words = "<br/>".join(html.escape(line) for line in (repr(self)[1:-1], *self.verdict.splitlines()))
        return f"<p>{words}</p>{shown}<table>{table}</table>{more}"

    def _repr_png_(self) -> bytes | None:
        """Return the first figure as PNG, None where there is none."""
        import io

        import matplotlib

        figure = next(iter(self.figures().values()), None)
        if figure is None:
            return None
        from tlcli.report.style import RC

        stream = io.BytesIO()
        with matplotlib.rc_context(RC):
            figure.savefig(stream, format="png")
        return stream.getvalue()

    def _is_parameter(self, name: str) -> bool:
        names = {name for case in self.job.cases for name in case.theory.parameters}
        return name in names | {OPTIONS[n].column for n in names & OPTIONS.keys()} | _VARIANTS

    def _same_grid(self) -> Block:
        first = self.blocks[0]
        for block in self.blocks[1:]:
            same = list(block.axes) == list(first.axes)
            if not same or not all(np.array_equal(block.axes[n], v) for n, v in first.axes.items()):
                raise UsageError(
                    f"the cases {', '.join(self.labels)} have different grids; take result.case(LABEL), or to_pandas()."
                )
        return first


def _column(block: Block, name: str) -> Array:
    """Return a column at its full shape, codes as words; NaN where the case lacks it."""
    if name not in block.columns:
        return np.full(block.shape, np.nan)
    values = block.full(name)
    if name in _WORDS and values.dtype.kind in "iu":
        words = {int(code): code.name.lower() for code in _WORDS[name]}
        return np.vectorize(words.__getitem__, otypes=[object])(values).astype(str)
    return values


def _experiments(block: Block, name: str) -> Array:
    """Return a column once per experiment, which is the slowest axis."""
    return block.full(name).reshape(len(block.axes["experiment"]), -1)[:, 0]


def _narrow(axes: tuple[str, ...], values: Array) -> tuple[tuple[str, ...], Array]:
    """Return the axes along which values differ, and the values on these."""
    for at in reversed(range(len(axes))):
        first = np.take(values, [0], axis=at)
        if np.all(values == first):
            axes, values = axes[:at] + axes[at + 1 :], np.take(values, 0, axis=at)
    return axes, values


def _texts(block: Block, name: str) -> list[str]:
    values = np.ravel(_column(block, name)).tolist()
    return [f"{value:.6g}" if isinstance(value, float) else str(value) for value in values]


def _scalar(codes: Array) -> list[tuple[()]]:
    return [()] if int(codes) in _UNSOLVED else []


def _plain(value: Any) -> Any:
    return np.asarray(value).item()


def _optional(package: str, method: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise MissingExtraError(f"{method} needs the package {package}; install it: pip install {package}.") from None
