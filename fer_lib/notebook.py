"""What every notebook does around its experiment: check its parameters, say what it ran on, give its verdict."""

import ast
import math
import re
import sys

import pandas as pd
import yaml
from IPython import get_ipython
from IPython.display import Markdown, display
from matplotlib.figure import Figure
from pydantic import TypeAdapter, ValidationError

from fer_lib import __version__
from fer_lib.claims import describe_undecided, read_claims, read_verdicts, tabulate_statements
from fer_lib.costs import measure_cost, tabulate_costs
from fer_lib.dataset import PROJECT, Dataset
from fer_lib.evaluate import format_markdown
from fer_lib.experiments import EXPERIMENTS, find_experiment
from fer_lib.plots.style import describe_figure, join_names, set_style
from fer_lib.record import Run, group_runs, read_published_runs
from fer_lib.track import MODES
from fer_lib.train import check_seeds

ADVICE = {
    "int": "write a whole number, as in -p NAME 5",
    "float": "write a number with a point, as in -p NAME 0.001; for YAML 1e-3 is text",
    "bool": "write True or False",
    "str": "papermill's -r passes what it is given as text",
    "list": "give lists with papermill's -y, as in -y 'NAME: [0, 1]'",
}
"""What to write for a parameter, by the first word of its type."""
RANGES = {
    "eigenfaces": (1, 20),
    "explained": (1, math.inf),
    "min_runs": (1, math.inf),
    "shift": (1, 255),
    "rotation": (0, 180),
    "crop_padding": (0, 47),
}
"""From where to where a number can be used, of parameters that no experiment has; both ends can."""


class ParameterError(ValueError):
    """A parameter cannot be used; the message says which, and what to write."""

    def _render_traceback_(self) -> list[str]:  # what IPython shows: how it came to be refused tells a reader nothing
        return [f"{type(self).__name__}: {self}"]


def start_notebook(cells: list[str], data: Dataset | None = None) -> None:
    """Check the parameters, set the look of figures, and show versions and data.

    cells: IPython's `In`, the source of every cell run so far; data: None for a notebook that reads records
    alone. Raises ParameterError as `check_parameters` does: papermill itself only warns of a parameter that a notebook
    does not have, and then publishes a run with the default.
    """
    check_parameters(cells)
    set_style()
    _describe_figures()
    pd.set_option(
        "display.max_columns", None, "display.max_rows", None, "display.width", 160, "display.max_colwidth", None
    )
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
            "> **These are not FER2013's faces.** This page was made from drawn faces, which stand in for them, "
            "and shows only that everything runs. No figure on it says anything about the reports' claims."
        )
    elif data.name != "fer2013":
        say(
            f"> **These are not FER2013's faces, but data of your own**, {data.name}, of {len(data.classes)} classes: "
            f"{', '.join(data.classes)}. What is trained and measured here is of them. The text, what the reports say, "
            "the verdicts and whatever is read from records are of FER2013, and nothing here is comparable with them."
        )


def _describe_figures() -> None:
    """Have each figure that is shown carry its title, and the numbers of its points, in the notebook's metadata."""
    shell = get_ipython()
    if shell:  # a test calls from outside

        def describe(figure: Figure, include=None, exclude=None) -> tuple[dict, dict]:
            return {}, {"image/png": describe_figure(figure, tight=True)}

        shell.display_formatter.mimebundle_formatter.for_type(Figure, describe)


def check_parameters(cells: list[str]) -> None:
    """Refuse, before anything is trained, what would be refused later or mean something else.

    Raises ParameterError if papermill's cell assigns what the cell before it does not declare, or another type, and
    for an unknown experiment or way of tracking, and numbers that cannot be trained with. Only what belongs to a
    whole profile of params/ may be more than the notebook has."""
    injected = _find_injected(cells)
    declared = {
        node.target.id: node
        for cell in (cells[: injected[0]] if injected else cells)
        for node in _parse(cell).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    kinds = {name: ast.unparse(node.annotation) for name, node in declared.items()}
    defaults = {name: _evaluate(node.value) for name, node in declared.items()}
    nodes = _parse(cells[injected[0]]).body if injected else ()
    given = {node.targets[0].id: _evaluate(node.value) for node in nodes}
    if unknown := set(given) - set(kinds) - _list_profile(given):
        raise ParameterError(f"no parameter {sorted(unknown)[0]!r} here; there are {', '.join(kinds)}")
    for name, kind in kinds.items():
        value = given.get(name, defaults[name])
        try:
            TypeAdapter(kind).validate_python(value, strict=True)
        except ValidationError:
            raise ParameterError(f"parameter {name}: {value!r} is no {kind}; {_advise(name, kind)}") from None
        try:
            _check_value(name, value, defaults[name])
        except ValueError as error:
            raise ParameterError(f"parameter {name}: {str(error).removeprefix(f'{name}: ')}") from None
    _refuse_twins(
        {
            name: given.get(name, value)
            for name, value in defaults.items()
            if isinstance(value, str) and value in EXPERIMENTS
        }
    )


def _refuse_twins(named: dict[str, str]) -> None:
    """Raise ParameterError if two parameters name one experiment: its runs would be counted twice."""
    for name, value in named.items():
        if twin := next((other for other in named if other != name and named[other] == value), None):
            raise ParameterError(f"parameter {name}: {value} is {twin} too; name another experiment for one of them")


def _list_profile(given: dict) -> set[str]:
    """The names of a profile of params/ all of which are given, as papermill's -f does, whatever -p gives some of."""
    profiles = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in (PROJECT / "params").glob("*.yaml")]
    return {name for profile in profiles if set(profile) <= set(given) for name in profile}


def _evaluate(node: ast.expr):
    """The literal in a cell; papermill writes what is no literal of Python's as float('inf')."""
    if isinstance(node, ast.Call):
        return float(ast.literal_eval(node.args[0]))
    return ast.literal_eval(node)


def _advise(name: str, kind: str) -> str:
    advice = ADVICE[re.split(r"\W", kind)[0]].replace("NAME", name)
    return advice + (", or None" if "None" in kind else "")


def _check_value(name: str, value, default) -> None:
    """Raise ValueError for a value of the right type that cannot be used under this name; the default can."""
    if value == default:
        return
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value}, expected a finite number")
    if name == "wandb_mode" and value not in MODES:
        raise ValueError(f"no {value!r}; there are {', '.join(MODES)}")
    if isinstance(default, str) and default in EXPERIMENTS:  # it names one
        find_experiment(value)
    if isinstance(default, list) and default and set(default) <= set(EXPERIMENTS):
        [find_experiment(one) for one in value]
    if name in ("epochs", "patience", "batch_size", "learning_rate"):
        find_experiment("a1_baseline", **{name: value})
    if isinstance(default, list) and default and not value:
        raise ValueError("empty, expected one at least")
    low, high = RANGES.get(name, (-math.inf, math.inf))
    if isinstance(value, (int, float)) and not low <= value <= high:
        raise ValueError(f"{value}, expected {low} {f'to {high}' if high < math.inf else 'or more'}")
    if name in ("seed", "seeds", "addition_seeds"):
        check_seeds(value if isinstance(value, list) else [value])


def _find_injected(cells: list[str]) -> list[int]:
    """The places of the cells that papermill put in."""
    return [place for place, cell in enumerate(cells) if cell.startswith("# Parameters\n")]


def _parse(cell: str):
    try:
        return ast.parse(cell)
    except SyntaxError:  # a cell with IPython's own syntax declares nothing
        return ast.Module([], [])


def say(text: str) -> None:
    """Show Markdown: a sentence with a number in it is written by code, from a record."""
    display(Markdown(text))


def describe_cost(runs: list[Run]) -> None:
    """Say how long the runs shown take to train, by their median epochs, and on what."""
    hardware = dict.fromkeys(f"{run.environment['hardware']}, {run.environment['precision']}" for run in runs)
    threads = " or ".join(dict.fromkeys(str(run.environment["threads"]) for run in runs))
    costs = [measure_cost(run) for run in runs]
    minutes, speeds = (sorted(cost[name] for cost in costs) for name in ("typical_minutes", "typical_speed"))
    speed = " to ".join(dict.fromkeys(f"{value:,.0f}" for value in (speeds[0], speeds[-1])))
    table = tabulate_costs(runs)
    usual = table.loc[table["note"] == "", "hardware"].iloc[0]
    apart = f" Minutes in a table are of runs on {usual}, unless another stands beside them."
    say(
        f"{len(runs)} run{'s' * (len(runs) > 1)} on {runs[0].data}, {sum(minutes):,.0f} minutes of training in all, "
        f"{speed} images/s ({', '.join(hardware)}, CPU threads a run: {threads}).{apart * (len(hardware) > 1)}"
        f"{_tell_others(runs)}"
    )


def _tell_others(runs: list[Run]) -> str:
    """That there are more published runs of some of these experiments than are shown, in a sentence, if there are."""
    shown = group_runs(run for run in runs if run.data == "fer2013" and run.experiment in EXPERIMENTS.values())
    known = group_runs(read_published_runs(names=shown))
    more = [f"{own[0].experiment.step} ({len(own)})" for name, own in known.items() if len(own) > len(shown[name])]
    return f" More runs than shown are on record of {join_names(more)}: verdicts rest on all." if more else ""


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
        if any("gap" in s.quantity.column and not math.isnan(s.reported) for s in own):
            say("The report's gap is by its own measure, probably with accuracy in training taken on the way.")
        undecided = [s for s in own if verdicts.loc[s.number, "verdict"] == "undecided"]
        if undecided:
            say("\n".join(f"- {describe_undecided(s, verdicts.loc[s.number])}" for s in undecided))
    say(
        "[What the four words mean, and how this was decided](21_final_comparison.ipynb#The-rules). Verdicts rest on "
        "every run on record, and their intervals hold the chance in images beside that in seeds, at "
        f"{verdicts['confidence'].iloc[0]:.1%} in place of 95%; so they differ from what is shown of `seeds`."
    )
