"""Recorded runs compared: means and differences with their intervals, and tables of runs."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from fer_lib.costs import count_image, measure_cost, tabulate_costs
from fer_lib.experiments import EXPERIMENTS
from fer_lib.record import group_runs, read_published_runs, runs_folder
from fer_lib.statistics import Effect, estimate_contrast, estimate_difference, moderate_variances


def collect_results(runs: list) -> pd.DataFrame:
    """One row a run: experiment, step, title, seed, data, all its results and environment, last_gap and
    last_gap_clean (accuracy in training, measured on the way or on the untouched images, less that on
    validation, at the last epoch), and the measures of `measure_course`, `measure_cost` and, where the history has
    them, `measure_gradients`."""
    rows = [
        {
            "experiment": run.experiment.name,
            "step": run.experiment.step,
            "title": run.experiment.title,
            "data": run.data,
            "seed": run.seed,
            **run.results,
            "last_gap": run.results["last_train_accuracy"] - run.results["last_validation_accuracy"],
            "last_gap_clean": run.results["last_train_accuracy_clean"] - run.results["last_validation_accuracy"],
            **measure_course(run),
            **measure_cost(run),
            **measure_gradients(run),
            **run.environment,
        }
        for run in runs
    ]
    return pd.DataFrame(rows)


def measure_course(run) -> dict[str, float]:
    """Of a run's history: wobble, how far validation accuracy moves from one epoch to the next in the mean, 0-1;
    log_epochs_to_best, the natural logarithm of the number of the best epoch."""
    history, best = run.history, run.results["best_epoch"]
    return {
        "wobble": float(history["validation_accuracy"].diff().abs().mean()),
        "log_epochs_to_best": float(np.log(best)),
    }


def name_metric(split: str, view: str) -> str:
    """What results call the accuracy on a split under a view: "test_accuracy", "test_accuracy_flip"."""
    return f"{split}_accuracy" + ("" if view == "plain" else f"_{view}")


def choose_view(runs: list) -> str:
    """The view of their images, "plain" or one of their experiment's, with the best mean validation accuracy."""
    views = ("plain", *runs[0].experiment.views)
    return max(views, key=lambda view: estimate_view(runs, "validation", view).mean)


def estimate_view(runs: list, split: str, view: str) -> Effect:
    """Accuracy on a split under a view, over the runs."""
    return estimate_metric(runs, name_metric(split, view))


def tabulate_views(groups: list[list]) -> pd.DataFrame:
    """What it brings to show a trained network several views of each image: validation and test accuracy, mean ± half
    the 95% interval, and the gain on the plain image in points. A row a step and view; a step whose networks were
    judged by the plain image alone has none."""
    rows = {}
    for runs in groups:
        for view in ("plain", *runs[0].experiment.views) if runs[0].experiment.views else ():
            row = {}
            for split in ("validation", "test"):
                plain, seen = ([run.results[name_metric(split, one)] for run in runs] for one in ("plain", view))
                row[f"{split} (%)"] = estimate_view(runs, split, view).format()
                row[f"gain, {split}"] = "" if view == "plain" else estimate_difference(plain, seen).format(sign=True)
            rows[f"{runs[0].experiment.step}, {view.replace('_', ' ')}"] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def tabulate_view_gains(pairs: list[tuple[list, list]]) -> pd.DataFrame:
    """What each step brings over the one that it changes, in points ± half the 95% interval: a row a
    step and view that both were judged by, a column a split. pairs: the runs of the step before and of the step."""
    rows = {}
    for before, after in pairs:
        for view in ("plain", *(view for view in after[0].experiment.views if view in before[0].experiment.views)):
            rows[f"{before[0].experiment.step} to {after[0].experiment.step}, {view.replace('_', ' ')}"] = {
                split: compare_runs(before, after, name_metric(split, view)).format(sign=True)
                for split in ("validation", "test")
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def describe_aim(runs: list, *aims: float) -> str:
    """A sentence, in Markdown: whether a step's mean test accuracy reaches aims set beforehand (0-1), under the
    view of its images that is best on validation. The aims are for FER2013: of a user's own data there is none."""
    experiment, view = runs[0].experiment, choose_view(runs)
    validation, test = (estimate_view(runs, split, view) for split in ("validation", "test"))
    shown = "" if view == "plain" else f", shown {view.replace('_', ' ')} of each image,"
    fate = "" if runs[0].data.startswith("custom-") else ": " + " and ".join(judge_aim(test.mean, aim) for aim in aims)
    return (
        f"**{experiment.step}**{shown} is right on **{test.format()}%** of the test images in the mean over "
        f"{len(runs)} seed{'s' * (len(runs) > 1)} ({validation.format()}% on validation){fate}."
    )


def judge_aim(share: float, aim: float) -> str:
    """What became of an accuracy that was aimed at, in words; both 0-1."""
    fate = "reached" if share >= aim else f"missed by {100 * (aim - share):.1f} points"
    return f"the aim of {aim:.1%} is {fate}"


def measure_gradients(run) -> dict[str, float]:
    """Of the gradient norms in a run's history, natural logarithms, so that differences are ratios:
    log_gradient_peak, of the norm over all layers, in the epoch where it is largest;
    log_gradient_spread, of the largest layer's norm over the smallest's, in the median epoch;
    log_gradient_of_layer_1, of the first layer's norm in the median epoch."""
    norms = run.history.filter(regex="^gradient_norm/.*weight").to_numpy()  # not an attention's positions
    if not norms.size:
        return {}
    return {
        "log_gradient_peak": float(np.log(np.sqrt((norms**2).sum(1)).max())),
        "log_gradient_spread": float(np.median(np.log(norms.max(1) / norms.min(1)))),
        "log_gradient_of_layer_1": float(np.median(np.log(norms[:, 0]))),
    }


SUMMARY = {
    "train_accuracy": "train, on the way (%)",
    "train_accuracy_clean": "train, untouched (%)",
    "validation_accuracy": "validation (%)",
    "test_accuracy": "test (%)",
    "test_macro_f1": "test macro F1 (%)",
    "last_train_accuracy": "train, on the way, last epoch (%)",
    "last_train_accuracy_clean": "train, untouched, last epoch (%)",
    "last_validation_accuracy": "validation, last epoch (%)",
}

"""The columns of a results table, in order; unless it says otherwise, at the best epoch."""


def summarise_experiments(runs: list) -> pd.DataFrame:
    """One row an experiment, in the order met: parameters, mean ± half the 95% interval, from how few to how many
    epochs, and the median run's minutes."""
    costs, rows = tabulate_costs(runs), {}
    for name, own in group_runs(runs).items():
        row = {"seeds": len(own), "parameters": f"{own[0].results['parameters']:,}"}
        row |= {label: estimate_metric(own, column).format() for column, label in SUMMARY.items()}
        epochs = [run.results["epochs"] for run in own]
        row["epochs"] = "–".join(str(number) for number in sorted({min(epochs), max(epochs)}))
        row["minutes, median run"] = f"{costs.loc[name, 'typical_minutes']:.1f}{costs.loc[name, 'note']}"
        rows[f"{own[0].experiment.step} {own[0].experiment.title}"] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def compare_runs(before: list, after: list, metric: str | Callable) -> Effect:
    """How much higher a metric is after than before, in the mean; the runs are not paired. Metric and interval are as
    `estimate_metric`'s, the latter, of two experiments that are not published, from how far both lie apart."""
    return _estimate({-1.0: before, 1.0: after}, metric)


def estimate_metric(runs: list, metric: str | Callable) -> Effect:
    """The mean of a metric over the runs of one experiment: of a column of `collect_results`, or of what is called with
    a run.

    Its 95% interval is for the chance in training, not that in which images the split holds: from how far runs of one
    experiment lie apart in the whole family of this one, as far as they are published runs, else among these runs
    alone (see `statistics.moderate_variances`). So a single run that is published has one too."""
    return _estimate({1.0: runs}, metric)


def _estimate(sides: Mapping[float, list], metric: str | Callable) -> Effect:
    """The sum of the means of a metric over the runs of some experiments, by its weight each."""
    weights, values, families = {}, {}, {}
    for weight, runs in sides.items():
        experiment, published = runs[0].experiment, _is_published(runs[0])
        label = experiment.name if published and experiment.name not in values else weight
        weights[label], values[label] = weight, _measure(runs, metric)
        family = families.setdefault(experiment.family, {})
        family |= (_read_family(runs_folder(), experiment.family, metric) if published else {}) | {label: values[label]}
    scatters = {name: s for family in families.values() for name, s in moderate_variances(family).items()}
    return estimate_contrast(weights, values, scatters)


def _measure(runs: list, metric: str | Callable) -> Sequence[float]:
    """One value a run."""
    if callable(metric):
        return [metric(run) for run in runs]
    if metric in runs[0].results:  # nothing to be measured
        return [run.results[metric] for run in runs]
    return collect_results(runs)[metric]


def describe_changes(*pairs: tuple[list, list]) -> str:
    """In Markdown: what steps change in accuracy over others, with 95% intervals, a line each, and what these are of.

    pairs: the runs of the step before and of the step."""
    lines = []
    for before, after in pairs:
        changes = [compare_runs(before, after, f"{name}_accuracy").format(sign=True) for name in ("validation", "test")]
        lines.append(
            f"- From {before[0].experiment.label} to {after[0].experiment.label} validation accuracy changes by "
            f"**{changes[0]} points**, test accuracy by **{changes[1]}**."
        )
    known = any(_is_published(runs[0]) for pair in pairs for runs in pair)
    family = "in the whole family of experiments" if known else "of each of these steps"
    if not any("±" in line for line in lines):  # single runs of the reader's own
        return "\n".join(lines)
    return "\n".join([*lines, "", f"(± is half a 95% interval, by how far runs lie apart {family}.)"])


def _is_published(run) -> bool:
    return run.data == "fer2013" and run.experiment == EXPERIMENTS.get(run.experiment.name)


def _read_family(folder: Path, family: str, metric: str | Callable) -> dict[str, Sequence[float]]:
    """The metric of all published runs of a family: {experiment: one value a run}."""
    if callable(metric):
        return {name: _measure(runs, metric) for name, runs in _group_family(folder, family).items()}
    groups = _tabulate_family(folder, family).groupby("experiment")[metric]
    return {name: values.dropna() for name, values in groups if values.notna().any()}


@cache
def _tabulate_family(folder: Path, family: str) -> pd.DataFrame:
    return collect_results(sum(_group_family(folder, family).values(), []))


@cache
def _group_family(folder: Path, family: str) -> dict[str, list]:
    return group_runs(read_published_runs(names=[e.name for e in EXPERIMENTS.values() if e.family == family]))


def summarise_costs(groups: list[list]) -> pd.DataFrame:
    """What an image costs in each experiment, and what it gains on validation over the first, a row each.

    "extra multiply-adds (M) per point" is empty where the gain is not clear of zero, and left out if none is."""
    first, rows, costs = groups[0], {}, tabulate_costs(sum(groups, []))
    start = count_image(first[0].experiment)
    for runs in groups:
        work = count_image(runs[0].experiment)
        gain = compare_runs(first, runs, "validation_accuracy")
        per_point = (work - start) / 1e6 / (100 * gain.mean) if runs is not first and gain.low > 0 else None
        cost = costs.loc[runs[0].experiment.name]
        rows[f"{runs[0].experiment.step} {runs[0].experiment.title}"] = {
            "multiply-adds an image (M)": f"{work / 1e6:.1f}",
            "training images/s": f"{cost['typical_speed']:,.0f}{cost['note']}",
            f"validation, over {first[0].experiment.step} (points)": "" if runs is first else gain.format(sign=True),
            "extra multiply-adds (M) per point": "" if per_point is None else f"{per_point:.1f}",
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.loc[:, (table != "").any()]


def compare_with_report(runs: list) -> pd.DataFrame:
    """Accuracy in training and on validation, in percent: what the report gives, and what was measured."""
    rows = {}
    for own in group_runs(runs).values():
        experiment = own[0].experiment
        given = None if own[0].data.startswith("custom-") else experiment.reported  # the reports' are of FER2013
        reported = ["—"] * 2 if given is None else [f"{100 * share:.0f}" for share in given]
        row = {"reported: train": reported[0], "reported: validation": reported[1]}
        for prefix, place in (("last_", "last epoch"), ("", "best epoch")):
            for split in ("train", "validation"):
                row[f"{place}: {split}"] = estimate_metric(own, f"{prefix}{split}_accuracy").format()
        rows[f"{experiment.step} {experiment.title}"] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def format_markdown(table: pd.DataFrame) -> str:
    """The table in Markdown, without its index."""
    lines = [table.columns, ["---"] * len(table.columns), *table.astype(str).to_numpy()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


ROUNDED = 0.005
"""By how much an accuracy may be off that a report gives in whole percent."""


def lies_above(runs: list) -> bool:
    """Whether a report's validation accuracy is above what every run of that step has at its training accuracy, however
    the two were rounded."""
    train, validation = runs[0].experiment.reported
    return all(validation - ROUNDED > interpolate_validation(run, train + ROUNDED) for run in runs)


def interpolate_validation(run, train_accuracy: float) -> float:
    """A run's validation accuracy where its accuracy in training, measured on the way, was so much; both 0-1."""
    course = run.history.sort_values("train_accuracy")
    return float(np.interp(train_accuracy, course["train_accuracy"], course["validation_accuracy"]))
