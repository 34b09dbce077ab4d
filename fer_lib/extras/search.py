"""One trial of the search that a family of report B is given, as `wandb agent` and `make search` call it:

    python -m fer_lib.extras.search b1_two_layer --learning_rate 0.001 --drop_threshold 0.25 --kernels 32-64 --epochs 4

The grid is in sweeps/<family>.yaml, a sweep definition of W&B's. A trial trains the family's
experiment with other hyperparameters, for a few epochs and with one seed; it never touches the test
split. Its record is reports/sweeps/<family>/<data>/<trial>.json.
"""

import argparse
import itertools
import re
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from fer_lib.data import load_data
from fer_lib.dataset import PROJECT, Dataset
from fer_lib.experiment import Experiment
from fer_lib.experiments import find_experiment
from fer_lib.loop import find_best
from fer_lib.progress import show_warnings_plainly
from fer_lib.record import runs_folder
from fer_lib.storage import RecordError, claim, read_json, tell_failed_writes, write_json
from fer_lib.track import MODES, mirror_run
from fer_lib.train import fit, wait_for_others

REMEDY = "git restore brings a published trial back; once it is deleted, make search trains it anew"
SEED = 0  # the seeds of the published runs tell how far a trial's accuracy is chance


def list_families() -> list[str]:
    """The families with a search: the names of their experiments."""
    return [path.stem for path in sorted((PROJECT / "sweeps").glob("*.yaml"))]


def read_grid(family: str) -> list[dict]:
    """Every combination of the values in sweeps/<family>.yaml, the last parameter changing fastest."""
    parameters = yaml.safe_load((PROJECT / "sweeps" / f"{family}.yaml").read_text())["parameters"]
    values = [given["values"] if "values" in given else [given["value"]] for given in parameters.values()]
    return [dict(zip(parameters, combination)) for combination in itertools.product(*values)]


def describe_grids() -> str:
    """How large the families' searches are, which is the same for all: "18 trials of 4 epochs each"."""
    ((count, epochs),) = {(len(grid), trial["epochs"]) for grid in map(read_grid, list_families()) for trial in grid}
    return f"{count} trials of {epochs} epochs each"


def name_trial(trial: dict) -> str:
    """ "learning_rate=0.001,drop_threshold=0.25,kernels=32-64,epochs=6", the name of a trial's record."""
    return ",".join(f"{name}={value}" for name, value in trial.items())


def configure_trial(family: str, trial: dict) -> Experiment:
    """The family's experiment with the trial's hyperparameters; `kernels` is written 32-64.

    Raises ValueError for a hyperparameter that the family does not have, or a senseless value."""
    trial = dict(trial)
    fields = {name: trial.pop(name) for name in ("learning_rate", "epochs") if name in trial}
    if "kernels" in trial:
        if not re.fullmatch(r"\d+(-\d+)*", kernels := str(trial["kernels"])):
            raise ValueError(f"kernels: {kernels!r}, expected numbers as in 32-64")
        trial["kernels"] = tuple(map(int, kernels.split("-")))
    options = dict(find_experiment(family).options)
    if unknown := set(trial) - {"kernels", "drop_threshold"}:
        raise ValueError(f"no hyperparameter {', '.join(sorted(unknown))} here")
    return find_experiment(family, **fields, options=tuple((options | trial).items()))


def run_trial(family: str, trial: dict, dataset: Dataset, wandb_mode: str = "auto") -> dict:
    """Train one trial, or read back what is on record: its parameters, results and cost.

    Results: validation_accuracy at the best epoch, best_epoch, epochs."""
    path = trials_folder(family, dataset.name) / f"{name_trial(trial)}.json"
    experiment = configure_trial(family, trial)
    if result := _read_back(path, experiment, dataset):
        return result
    with claim(path) as work:
        if result := _read_back(path, experiment, dataset):  # another process has made it meanwhile
            return result
        with mirror_run(experiment, dataset, SEED, work, wandb_mode) as mirror:
            fitted = fit(experiment, dataset, SEED, work, mirror)
        best = fitted.history[find_best(fitted.history) - 1]
        result = {
            "trial": trial,
            "data": {"name": dataset.name, "fingerprint": dataset.fingerprint},
            "config": experiment.config,
            "validation_accuracy": round(best["validation_accuracy"], 6),
            "best_epoch": best["epoch"],
            "epochs": len(fitted.history),
            "environment": fitted.environment,
        }
        with tell_failed_writes(path.parent):
            write_json(work / "trial.json", result)
            (work / "trial.json").replace(path)  # whole or not at all
    return read_trial(path)


def _read_back(path: Path, experiment: Experiment, dataset: Dataset) -> dict | None:
    """The trial of just this config and data that is on record, or None."""
    if not path.exists():
        return None
    result = read_trial(path)
    if result["data"]["fingerprint"] == dataset.fingerprint and experiment.matches(result["config"]):
        return result
    if dataset.name == "fer2013":
        raise RecordError(path, "the record is of another config or of other data than is asked for", REMEDY)
    return None


def read_trial(path: Path) -> dict:
    """The record of one trial. Raises RecordError if it is damaged."""
    result = read_json(path, REMEDY)
    try:
        accuracy, epochs = result["validation_accuracy"], result["epochs"]
        named = name_trial(result["trial"]) == path.stem and 0 <= accuracy <= 1 and 1 <= result["best_epoch"] <= epochs
        whole = named and result["environment"]["seconds"] >= 0 and {"data", "config"} <= set(result)
    except (AttributeError, KeyError, TypeError) as error:
        raise RecordError(path, f"damaged ({type(error).__name__}: {error})", REMEDY) from error
    if not whole:
        raise RecordError(path, "its content does not fit together or its name", REMEDY)
    return result


def read_trials(family: str, data: str = "fer2013") -> pd.DataFrame:
    """A row a recorded trial: its hyperparameters, validation_accuracy (0-1), best_epoch, epochs, seconds; on FER2013,
    of which the report speaks, those of the grid alone, whatever else was tried.

    Where runs are recorded elsewhere (FER_RUNS) and no trial is, the project's own are read. Raises
    FileNotFoundError where there are none either."""
    rows, grid = [], {name_trial(trial) for trial in read_grid(family)}
    own, published = (
        [path for path in sorted(folder.glob("*.json")) if data != "fer2013" or path.stem in grid]
        for folder in (trials_folder(family, data), PROJECT / "reports" / "sweeps" / family / data)
    )
    for path in own or published:
        result = read_trial(path)
        columns = ("validation_accuracy", "best_epoch", "epochs")
        seconds = result["environment"]["seconds"]
        rows.append({**result["trial"], **{name: result[name] for name in columns}, "seconds": seconds})
    if not rows:
        raise FileNotFoundError(f"no trial of {family} on {data} is on record; `make search` trains them")
    return pd.DataFrame(rows)


def describe_search(family: str, trials: pd.DataFrame) -> str:
    """A sentence, in Markdown: how much was tried, what was best, and whether the family is trained with it."""
    best = trials.loc[trials["validation_accuracy"].idxmax()]
    trial = {name: best[name] for name in ("learning_rate", "drop_threshold", "kernels")}
    chosen = configure_trial(family, trial) == find_experiment(family)
    return (
        f"{len(trials)} trials of {trials['epochs'].max()} epochs on FER2013, {trials['seconds'].sum() / 60:.0f} "
        f"minutes of training in all. The best has a learning rate of **{best['learning_rate']:g}**, dropout of "
        f"**{best['drop_threshold']:g}** and **{best['kernels']}** filters, with {best['validation_accuracy']:.1%} on "
        f"validation; {'with these' if chosen else 'not with these, but with others,'} the family is trained in full."
    )


def trials_folder(family: str, data: str) -> Path:
    """Where the trials of a family lie: beside the runs."""
    return runs_folder().parent / "sweeps" / family / data


def main(arguments: list[str] | None = None) -> None:
    prog = "python -m fer_lib.extras.search"
    parser = argparse.ArgumentParser(prog=prog, description="Train one trial and record it.")
    parser.add_argument("family", choices=list_families())
    parser.add_argument("--learning_rate", type=float, required=True, help="of Adam")
    parser.add_argument("--drop_threshold", type=float, required=True, help="probability of dropout, 0-1")
    parser.add_argument("--kernels", required=True, help="filters of each convolution, as in 32-64")
    parser.add_argument("--epochs", type=int, required=True, help="at most")
    parser.add_argument("--data", default="auto", help="a FER2013 file, drawn, or auto (default)")
    parser.add_argument("--wandb", default="auto", choices=MODES)
    options = vars(parser.parse_args(arguments))
    family, data, mode = (options.pop(name) for name in ("family", "data", "wandb"))
    try:
        dataset = load_data(data)
        result = wait_for_others(lambda: run_trial(family, options, dataset, mode))
    except (ValueError, RuntimeError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(f"{family} {name_trial(options)}: validation {result['validation_accuracy']:.1%}")


def measure_sensitivity(trials: pd.DataFrame) -> pd.Series:
    """How far validation accuracy lies apart over the learning rates of a search, 0-1: one number for each
    dropout and width, by (drop_threshold, filters of the first convolution). trials: of `search.read_trials`."""
    width = trials["kernels"].str.split("-").str[0].astype(int).rename("width")
    return trials.groupby(["drop_threshold", width])["validation_accuracy"].agg(np.ptp)


if __name__ == "__main__":
    show_warnings_plainly()
    main()
