"""What every notebook does around its experiment: check its parameters, say what it ran on, give its verdict."""

import ast
import builtins
import sys
import types
import typing

import pandas as pd
from IPython.display import Markdown, display

from fer_lib import __version__
from fer_lib.claims import describe_undecided, read_claims, read_verdicts, tabulate_statements
from fer_lib.data import Dataset
from fer_lib.evaluate import format_markdown, measure_cost
from fer_lib.plots import set_style
from fer_lib.record import Run


def start_notebook(cells: list[str], data: Dataset | None = None) -> None:
    """Check the parameters, set the look of figures, and show versions and data.

    cells: IPython's `In`, the source of every cell run so far; data: None for a notebook that reads records
    alone. Raises ValueError for a parameter that papermill passed in and this notebook does not have, or of
    another type than it has: papermill itself only warns, and then publishes a run with the default.
    """
    check_parameters(cells)
    set_style()
    pd.set_option("display.max_columns", None, "display.width", 160, "display.max_colwidth", None)
    torch = sys.modules["torch"].__version__.split("+")[0] if "torch" in sys.modules else "not loaded"
    print(f"fer_lib {__version__}, Python {sys.version_info.major}.{sys.version_info.minor}, torch {torch}")
    if data is None:
        print("records: of fer2013; no image is read")
    else:
        _describe_data(data)
    if _find_injected(cells):
        say(
            "> **Run with other parameters.** Figures and tables are of this run; the text speaks of the published one."
        )


def _describe_data(data: Dataset) -> None:
    sizes = ", ".join(f"{len(split):,} {name}" for name, split in data.splits.items())
    print(f"data: {data.name} ({sizes}; fingerprint {data.fingerprint})")
    if data.name.startswith("drawn"):
        say(
            "> **These are not FER2013's faces.** No FER2013 file was found, so this page was made from drawn faces "
            "and shows only that everything runs. No figure on it says anything about the reports' claims."
        )


def check_parameters(cells: list[str]) -> None:
    """Raise ValueError if papermill's cell assigns what the cell before it does not declare, or another type."""
    injected = _find_injected(cells)
    if not injected:
        return
    declared = {
        node.target.id: ast.unparse(node.annotation)
        for cell in cells[: injected[0]]
        for node in ast.walk(_parse(cell))
        if isinstance(node, ast.AnnAssign)
    }
    for node in _parse(cells[injected[0]]).body:
        name, value = node.targets[0].id, ast.literal_eval(node.value)
        if name not in declared:
            raise ValueError(f"no parameter {name!r} here; there are {', '.join(declared)}")
        if not _fits(value, eval(declared[name], vars(builtins))):
            raise ValueError(f"parameter {name}: {value!r} is no {declared[name]}; give lists with papermill's -y")


def _find_injected(cells: list[str]) -> list[int]:
    """The places of the cells that papermill put in."""
    return [place for place, cell in enumerate(cells) if cell.startswith("# Parameters\n")]


def _parse(cell: str) -> ast.Module:
    try:
        return ast.parse(cell)
    except SyntaxError:  # a cell with IPython's own syntax declares nothing
        return ast.Module([], [])


def _fits(value: object, kind: type | types.GenericAlias | types.UnionType) -> bool:
    if isinstance(kind, types.UnionType):
        return any(_fits(value, one) for one in typing.get_args(kind))
    if kind is None or kind is types.NoneType:
        return value is None
    if typing.get_origin(kind) is list:
        return isinstance(value, list) and all(_fits(item, typing.get_args(kind)[0]) for item in value)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is kind


def say(text: str) -> None:
    """Show Markdown: a sentence with a number in it is written by code, from a record."""
    display(Markdown(text))


def describe_cost(runs: list[Run]) -> None:
    """Say how long the runs shown take to train, by their median epochs, and on what."""
    hardware = ", ".join(
        dict.fromkeys(f"{run.environment['hardware']}, {run.environment['precision']}" for run in runs)
    )
    threads = " or ".join(dict.fromkeys(str(run.environment["threads"]) for run in runs))
    costs = [measure_cost(run) for run in runs]
    minutes, speeds = (sorted(cost[name] for cost in costs) for name in ("typical_minutes", "typical_speed"))
    speed = " to ".join(dict.fromkeys(f"{value:,.0f}" for value in (speeds[0], speeds[-1])))
    say(
        f"{len(runs)} run{'s' * (len(runs) > 1)} on {runs[0].data}, {sum(minutes):.0f} minutes of training in all, "
        f"{speed} images/s ({hardware}, CPU threads a run: {threads})."
    )


def show_claims(cells: list[str], *numbers: str) -> None:
    """Show what became of some claims or single statements, "A-C6" or "B-C4.6", of the published runs, whatever the
    parameters of this notebook are (`cells` as in `start_notebook`)."""
    claims, statements = read_claims()
    verdicts = read_verdicts()
    chosen = [s for s in statements if s.claim in numbers or s.number in numbers]
    if _find_injected(cells):
        say("The verdicts are those of the published runs, not of this one.")
    for number in dict.fromkeys(s.claim for s in chosen):
        say(
            f"> **{number}** {claims[number]}"
            if number in claims
            else "> **Asked by the dispute**, said by neither report"
        )
        own = [s for s in chosen if s.claim == number]
        say(format_markdown(tabulate_statements(own, verdicts)))
        undecided = [s for s in own if verdicts.loc[s.number, "verdict"] == "undecided"]
        if undecided:
            say("\n".join(f"- {describe_undecided(s, verdicts.loc[s.number])}" for s in undecided))
    say("[What the four words mean, and how this was decided](21_final_comparison.ipynb).")
