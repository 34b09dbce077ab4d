"""What training takes: minutes and speed, on what hardware; and operations, which are the same on any."""

import re
from collections import Counter
from functools import cache

import numpy as np
import pandas as pd

from fer_lib.experiment import Experiment
from fer_lib.experiments import EXPERIMENTS
from fer_lib.models import count_multiply_adds
from fer_lib.recipe import SMALL
from fer_lib.record import group_runs


def measure_cost(run) -> dict[str, float]:
    """What a run takes where nothing else is in its way, from its median epoch, or median epochs if the first ones had
    smaller images, or asked teachers whose answers the later ones repeat: typical_minutes in all, and typical_speed in
    training images/s. Sums over the epochs, which environment has, hold every pause and all other work on the
    machine."""
    seconds, recipe = run.history["seconds"], run.experiment.recipe
    first = np.arange(len(seconds)) < max(recipe.small_share * run.experiment.epochs, recipe.draws)
    typical = sum(len(part) * part.median() for _, part in seconds.groupby(first))
    return {
        "typical_minutes": typical / 60,
        "typical_speed": run.environment["images_per_second"] * run.environment["seconds"] / typical,
    }


def count_operations(run) -> float:
    """Floating-point operations of a training: an image's multiply-adds count two each, and three times, once for the
    way forward and, as is customary, twice for the way back. Sharpness goes both ways twice; teachers are asked
    once about an image of each draw. Judging the validation split is left out, and so is what each teacher took."""
    experiment, recipe, epochs = run.experiment, run.experiment.recipe, len(run.history)
    images = run.environment["images_per_second"] * run.environment["seconds"] / epochs  # in an epoch
    small = min(round(recipe.small_share * experiment.epochs), epochs)
    asked = min(recipe.draws or epochs, epochs)
    passes = 2 * 3 * (2 if recipe.sharpness else 1) * _count_epochs(experiment, epochs, small)
    for teacher in run.environment.get("teachers", []):
        passes += 2 * _count_epochs(EXPERIMENTS[teacher.split()[0]], asked, min(small, asked))
    return images * passes


def _count_epochs(experiment: Experiment, epochs: int, small: int) -> int:
    """Multiply-adds of showing one image to an experiment's network once an epoch, shrunk in some of them."""
    return (epochs - small) * count_image(experiment) + (small and small * count_image(experiment, SMALL))


@cache
def count_image(experiment: Experiment, side: int = 0) -> int:
    """Multiply-adds of the way of one image through an experiment's network, of the side that it is trained on, or of
    another."""
    return count_multiply_adds(experiment.build_model(), side or experiment.side)


def format_operations(runs: list) -> str:
    """The median over runs of what a training takes, in PFLOP, 10**15 operations: "0.081", two digits that count."""
    work = np.median([count_operations(run) for run in runs]) / 1e15
    return np.format_float_positional(work, precision=2, fractional=False, trim="k").rstrip(".")


def list_work(runs: list) -> pd.Series:
    """What `format_operations` gives for each experiment, by its step and title."""
    rows = {f"{own[0].experiment.step} {own[0].experiment.title}": own for own in group_runs(runs).values()}
    return pd.Series({name: format_operations(own) for name, own in rows.items()}, name="PFLOP a run")


def shorten_hardware(name: str) -> str:
    """A CPU's name, as it gives it itself, without what tells no one anything."""
    return re.sub(r"\(R\)|CPU @.*| Processor", "", name)


def name_hardware(environment: dict) -> str:
    """What a run's times are of: its hardware, and how many threads where a CPU had more than the usual one."""
    name, threads = shorten_hardware(environment["hardware"]), environment["threads"]
    return name + (f", {threads} threads" if threads > 1 and not name.startswith("NVIDIA") else "")


COSTS = ["typical_minutes", "typical_speed"]


def tabulate_costs(runs: list) -> pd.DataFrame:
    """What a run of each experiment takes, a row an experiment, by name: medians of what `measure_cost` gives, the
    `hardware` they are of, and, if it is not the others', a `note`, " (AMD EPYC with AVX-512)".

    What different machines or numbers of threads take cannot be compared: runs count if they were on the hardware
    that most of these experiments have a run on; an experiment with none there is measured where most of its own
    were.

    Raises ValueError if there are no runs."""
    if not runs:
        raise ValueError("no experiment has so many runs on record; ask for fewer")
    table, rows = pd.DataFrame([_describe_cost(run) for run in runs]), {}
    common = table.groupby("hardware", sort=False)["experiment"].nunique().idxmax()
    for name, group in table.groupby("experiment", sort=False):
        hardware = common if common in group["hardware"].to_numpy() else group["hardware"].mode()[0]
        costs = group.loc[group["hardware"] == hardware, COSTS].median()
        rows[name] = {**costs, "hardware": hardware, "note": "" if hardware == common else f" ({hardware})"}
    return pd.DataFrame.from_dict(rows, orient="index")


def _describe_cost(run) -> dict:
    return measure_cost(run) | {"experiment": run.experiment.name, "hardware": name_hardware(run.environment)}


def describe_precisions(runs: list) -> str:
    """What runs computed in, in a sentence: how many not in what most did, and which experiments have none there."""
    precisions = [run.environment["precision"] for run in runs]
    (usual, _), *others = Counter(precisions).most_common()
    apart = dict.fromkeys(run.experiment.step for run in runs)
    for run, precision in zip(runs, precisions):
        if precision == usual:
            apart.pop(run.experiment.step, None)
    if not others:
        return f"All runs computed in {usual}."
    told = ", ".join(f"{count} in {precision}" for precision, count in others)
    whole = f", among these all of {', '.join(apart)}" if apart else ""
    return f"Most runs computed in {usual}, {told}{whole}."


def tabulate_milestones(groups: list[list], shares: tuple[float, ...] = (0.61, 0.65, 0.70)) -> pd.DataFrame:
    """Minutes of training until validation accuracy first reaches each share (0-1): a row a step, the median over
    its runs, how many of them get there if not all do, and the hardware, since minutes on one say nothing of another.
    An epoch counts as at most twice the run's median one: what is longer was a pause."""
    rows = {}
    for runs in groups:
        row = {}
        for share in shares:
            minutes = []
            for run in runs:
                reached = run.history["validation_accuracy"] >= share
                if reached.any():
                    seconds = run.history["seconds"].clip(upper=2 * run.history["seconds"].median())
                    minutes.append(seconds.iloc[: reached.argmax() + 1].sum() / 60)
            told = f"{np.median(minutes):.1f}" if minutes else "—"
            few = f" ({len(minutes)} of {len(runs)} runs)" if 0 < len(minutes) < len(runs) else ""
            row[f"minutes to {share:.0%}"] = told + few
        row["hardware"] = ", ".join(sorted({name_hardware(run.environment) for run in runs}))
        rows[f"{runs[0].experiment.step} {runs[0].experiment.title}"] = row
    return pd.DataFrame.from_dict(rows, orient="index")
