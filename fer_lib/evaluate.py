"""Recorded runs compared: means and differences with their intervals, and tables of runs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from fer_lib.experiments import EXPERIMENTS
from fer_lib.metrics import calc_accuracy, calc_calibration_error, calc_probabilities, fit_temperature
from fer_lib.models import count_multiply_adds
from fer_lib.record import read_published_runs, runs_folder
from fer_lib.statistics import CONFIDENCE, estimate_contrast, moderate_variances


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95% interval; the bounds are NaN where one run is all there is."""

    mean: float
    low: float
    high: float
    runs: int

    def format(self, scale: float = 100, digits: int = 1, sign: bool = False) -> str:
        """ "51.2 ± 0.8", in units of 1/scale; "51.2" for one run."""
        text = f"{self.mean * scale:{'+' if sign else ''}.{digits}f}"
        return text if np.isnan(self.low) else f"{text} ± {(self.high - self.mean) * scale:.{digits}f}"


def estimate_mean(values) -> Estimate:
    """Mean of one value a seed, with Student's t interval: what another seed set would be expected to give.

    It covers the chance in training, not that in which images the split holds."""
    from scipy import stats  # here, so that training needs no scipy

    values = np.asarray(values, float)
    if len(values) < 2:
        return Estimate(float(values.mean()), np.nan, np.nan, len(values))
    spread = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return Estimate(float(values.mean()), float(values.mean() - spread), float(values.mean() + spread), len(values))


def estimate_difference(before, after) -> Estimate:
    """Mean of after - before, where each pair has something in common: one network under two views of its images, one
    setting in two searches. Runs of two experiments have nothing in common but a seed; see `compare_runs`."""
    return estimate_mean(np.subtract(after, before))


def collect_results(runs: list) -> pd.DataFrame:
    """One row a run: experiment, step, title, seed, data, all its results and environment, last_gap and
    last_gap_clean (accuracy in training, as met or clean, less that on validation, at the last epoch),
    and the measures of `measure_course`, `measure_cost` and, where the history has them, `measure_gradients`."""
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


def measure_cost(run) -> dict[str, float]:
    """What a run takes where nothing else is in its way, from its median epoch, or median epochs if the first ones had
    smaller images, or asked teachers whose answers the later ones repeat: typical_minutes in all, epoch_seconds in the
    mean, and typical_speed in training images/s. Sums over the epochs, which environment has, hold every pause and all
    other work on the machine."""
    seconds, recipe = run.history["seconds"], run.experiment.recipe
    first = np.arange(len(seconds)) < max(recipe.small_share * run.experiment.epochs, recipe.draws)
    typical = sum(len(part) * part.median() for _, part in seconds.groupby(first))
    return {
        "epoch_seconds": typical / len(seconds),
        "typical_minutes": typical / 60,
        "typical_speed": run.environment["images_per_second"] * run.environment["seconds"] / typical,
    }


def shorten_hardware(name: str) -> str:
    """A CPU's name, as it gives it itself, without what tells no one anything."""
    return re.sub(r"\(R\)|CPU @.*| Processor", "", name)


def name_hardware(environment: dict) -> str:
    """What a run's times are of: its hardware, and how many threads where a CPU had more than the usual one."""
    name, threads = shorten_hardware(environment["hardware"]), environment["threads"]
    return name + (f", {threads} threads" if threads > 1 and not name.startswith("NVIDIA") else "")


COSTS = ["epoch_seconds", "typical_minutes", "typical_speed"]


def tabulate_costs(runs: list) -> pd.DataFrame:
    """What a run of each experiment takes, a row an experiment, by name: medians of what `measure_cost` gives, the
    `hardware` they are of, and, if it is not the others', a `note`, " (AMD EPYC with AVX-512)", and a `mark`, "*".

    What different machines or numbers of threads take cannot be compared: runs count if they were on the hardware
    that most of these experiments have a run on; an experiment with none there is measured where most of its own
    were.

    Raises ValueError if there are no runs."""
    if not runs:
        raise ValueError("no experiment has so many runs on record; ask for fewer")
    table, rows = collect_results(runs), {}
    table["hardware"] = [name_hardware(run.environment) for run in runs]
    common = table.groupby("hardware", sort=False)["experiment"].nunique().idxmax()
    for name, group in table.groupby("experiment", sort=False):
        hardware = common if common in group["hardware"].to_numpy() else group["hardware"].mode()[0]
        costs = group.loc[group["hardware"] == hardware, COSTS].median()
        note, mark = ("", "") if hardware == common else (f" ({hardware})", "*")
        rows[name] = {**costs, "hardware": hardware, "note": note, "mark": mark}
    return pd.DataFrame.from_dict(rows, orient="index")


def describe_times(runs: list) -> str:
    """What the times are of that a table of these runs has with the marks of `tabulate_costs`, in a sentence."""
    costs = tabulate_costs(runs)
    common, marked = (costs.loc[costs["mark"] == mark, "hardware"].unique() for mark in ("", "*"))
    others = (
        f", those with * on {' or '.join(marked)}; times of different hardware cannot be compared"
        if len(marked)
        else ""
    )
    return f"Times are measured on {common[0]}{others}."


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


def name_metric(split: str, view: str) -> str:
    """What results call the accuracy on a split under a view: "test_accuracy", "test_accuracy_flip"."""
    return f"{split}_accuracy" + ("" if view == "plain" else f"_{view}")


def choose_view(runs: list) -> str:
    """The view of their images, "plain" or one of their experiment's, with the best mean validation accuracy."""
    views = ("plain", *runs[0].experiment.views)
    return max(views, key=lambda view: estimate_view(runs, "validation", view).mean)


def estimate_view(runs: list, split: str, view: str) -> Estimate:
    """Accuracy on a split under a view, over the runs."""
    return estimate_mean([run.results[name_metric(split, view)] for run in runs])


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
                row[f"{split} (%)"] = estimate_mean(seen).format()
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


def describe_aim(runs: list, aim: float) -> str:
    """A sentence, in Markdown: whether a step's mean test accuracy reaches an aim set beforehand (0-1), under the
    view of its images that is best on validation."""
    experiment, view = runs[0].experiment, choose_view(runs)
    validation, test = (estimate_view(runs, split, view) for split in ("validation", "test"))
    shown = "" if view == "plain" else f", shown {view.replace('_', ' ')} of each image,"
    return (
        f"**{experiment.step}**{shown} is right on **{test.format()}%** of the test images in the mean over "
        f"{test.runs} seed{'s' * (test.runs > 1)} ({validation.format()}% on validation): "
        f"{judge_aim(test.mean, aim)}."
    )


def judge_aim(share: float, aim: float) -> str:
    """What became of an accuracy that was aimed at, in words; both 0-1."""
    fate = "reached" if share >= aim else f"missed by {100 * (aim - share):.1f} points"
    return f"the aim of {aim:.1%} is {fate}"


def measure_sensitivity(trials: pd.DataFrame) -> pd.Series:
    """How far validation accuracy lies apart over the learning rates of a search, 0-1: one number for each
    dropout and width, by (drop_threshold, filters of the first convolution). trials: of `search.read_trials`."""
    width = trials["kernels"].str.split("-").str[0].astype(int).rename("width")
    return trials.groupby(["drop_threshold", width])["validation_accuracy"].agg(np.ptp)


def measure_gradients(run) -> dict[str, float]:
    """Of the gradient norms in a run's history, natural logarithms, so that differences are ratios:
    log_gradient_peak, of the norm over all layers, in the epoch where it is largest;
    log_gradient_spread, of the largest layer's norm over the smallest's, in the median epoch."""
    norms = run.history.filter(like="gradient_norm/").to_numpy()
    if not norms.size:
        return {}
    return {
        "log_gradient_peak": float(np.log(np.sqrt((norms**2).sum(1)).max())),
        "log_gradient_spread": float(np.median(np.log(norms.max(1) / norms.min(1)))),
    }


def estimate_accuracy(runs: list, labels: np.ndarray, chosen: np.ndarray) -> Estimate:
    """Test accuracy over the runs on some of the images. labels: int (N,); chosen: bool (N,)."""
    return estimate_mean([calc_accuracy(run.logits["test"][chosen], labels[chosen]) for run in runs])


def estimate_matched_accuracy(
    runs: list, labels: np.ndarray, chosen: np.ndarray, others: np.ndarray, kinds: np.ndarray
) -> Estimate:
    """Test accuracy over the runs on other images, weighted so that each kind is as frequent as among the chosen.

    labels: int (N,); chosen, others: bool (N,); kinds: int (N,) from 0, each of which some of the others has."""
    frequency = np.bincount(kinds[chosen], minlength=kinds.max() + 1) / chosen.sum()
    weights = frequency[kinds[others]] / np.bincount(kinds[others], minlength=kinds.max() + 1)[kinds[others]]
    right = [(run.logits["test"].argmax(1) == labels)[others] for run in runs]
    return estimate_mean([float(weights @ answers) for answers in right])


def tabulate_subsets(groups: list[list], labels: np.ndarray, subsets: dict[str, np.ndarray]) -> pd.DataFrame:
    """Test accuracy in percent, with 95% intervals over the seeds, on parts of the test split: a row a part, with
    its number of images, a column a step. labels: int (N,); subsets: {name: bool (N,)}."""
    rows = {}
    for name, chosen in subsets.items():
        rows[name] = {"images": f"{chosen.sum():,}"}
        rows[name] |= {
            f"{runs[0].experiment.label} (%)": estimate_accuracy(runs, labels, chosen).format() for runs in groups
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def tabulate_subset_changes(
    pairs: list[tuple[list, list]], labels: np.ndarray, subsets: dict[str, np.ndarray]
) -> pd.DataFrame:
    """What each step changes on parts of the test split, in points ± half the 95% interval: a row a
    part, a column a step. pairs: the runs of the step before and of the step; else as `tabulate_subsets`."""
    table = pd.DataFrame(index=list(subsets))
    for before, after in pairs:
        column = f"{before[0].experiment.label} to {after[0].experiment.label} (points)"
        for name, chosen in subsets.items():
            right = (
                [calc_accuracy(run.logits["test"][chosen], labels[chosen]) for run in runs] for runs in (before, after)
            )
            table.loc[name, column] = compare_values(*right).format(sign=True)
    return table


def tabulate_sides(groups: list[list], labels: np.ndarray, choices: np.ndarray) -> pd.DataFrame:
    """Whose side each step takes, plain, on the test images where most taggers chose another of the seven classes than
    the label: the shares answered as the label says and as they do, in percent with 95% intervals over the seeds.

    labels: int (N,); choices: what most taggers chose, int (N,), -1 where there is no such class."""
    apart = (choices >= 0) & (choices != labels)
    rows = {}
    for runs in groups:
        row = {"images": f"{apart.sum():,}"}
        for words, truth in {"as FER2013's label (%)": labels, "as most taggers (%)": choices}.items():
            row[words] = estimate_accuracy(runs, truth, apart).format()
        rows[f"{runs[0].experiment.step} {runs[0].experiment.title}"] = row
    return pd.DataFrame.from_dict(rows, orient="index")


# --- calibration --------------------------------------------------------------------------------


def estimate_calibration(logits: list[np.ndarray], labels: np.ndarray, temperature: float = 1.0) -> Estimate:
    """The calibration error over several networks' logits (N, 7) of the same images, at one temperature."""
    return estimate_mean([calc_calibration_error(calc_probabilities(one, temperature), labels) for one in logits])


def choose_temperature(logits: list[np.ndarray], labels: np.ndarray) -> tuple[float, float]:
    """The temperature fitted to several networks' logits (N, 7) of the validation split, to three decimals, and the
    one to be used: the fitted one if it makes their calibration error there smaller, else 1, which changes nothing.

    A fitted one need not: what it makes smallest is another measure, the mean negative log-likelihood."""
    fitted = round(fit_temperature(np.concatenate(logits), np.tile(labels, len(logits))), 3)
    helps = estimate_calibration(logits, labels, fitted).mean < estimate_calibration(logits, labels).mean
    return fitted, fitted if helps else 1.0


def tabulate_calibration(groups: list[list], labels: dict[str, np.ndarray]) -> pd.DataFrame:
    """Of each step the temperature fitted on validation, the calibration error of each split as trained and with it,
    in points, and whether it is to be used, as `choose_temperature` says.

    labels: {split: int (N,)} of validation and test."""
    rows = {}
    for runs in groups:
        logits = {split: [run.logits[split] for run in runs] for split in labels}
        fitted, chosen = choose_temperature(logits["validation"], labels["validation"])
        row = {"fitted temperature": f"{fitted:.2f}"}
        for split, truth in labels.items():
            row[f"error, {split}"] = estimate_calibration(logits[split], truth).format()
            row[f"with it, {split}"] = estimate_calibration(logits[split], truth, fitted).format()
        rows[f"{runs[0].experiment.step}"] = row | {"used": "yes" if chosen == fitted else "no"}
    return pd.DataFrame.from_dict(rows, orient="index")


# --- tables of runs -----------------------------------------------------------------------------

SUMMARY = {
    "train_accuracy": "train, as met (%)",
    "train_accuracy_clean": "train, clean (%)",
    "validation_accuracy": "validation (%)",
    "test_accuracy": "test (%)",
    "test_macro_f1": "test macro F1 (%)",
    "last_train_accuracy": "train, last epoch (%)",
    "last_validation_accuracy": "validation, last epoch (%)",
}
"""The columns of a results table, in order; unless it says otherwise, at the best epoch."""


def summarise_experiments(runs: list) -> pd.DataFrame:
    """One row an experiment, in the order met: parameters, mean ± half the 95% interval over its seeds, median
    minutes a run."""
    table, costs = collect_results(runs), tabulate_costs(runs)
    rows = {}
    for (name, step, title), group in table.groupby(["experiment", "step", "title"], sort=False):
        row = {"seeds": len(group), "parameters": f"{group['parameters'].iloc[0]:,}"}
        row |= {label: estimate_mean(group[column]).format() for column, label in SUMMARY.items()}
        row["epochs"] = estimate_mean(group["epochs"]).format(1, 0)
        row["minutes a run"] = f"{costs.loc[name, 'typical_minutes']:.1f}{costs.loc[name, 'note']}"
        rows[f"{step} {title}"] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def compare_runs(before: list, after: list, metric: str) -> Estimate:
    """How much higher a metric of `collect_results` is after than before, in the mean; the runs are not paired.

    Its 95% interval is from how far runs of one experiment lie apart in the whole family of these experiments, as far
    as they are published runs, else among these runs alone (see `statistics.moderate_variances`), so a single run has
    one too."""
    kin, names = {}, []
    for side, runs in (("before", before), ("after", after)):
        kin |= _read_family(runs[0], metric) if _is_published(runs[0]) else {}
        names.append(runs[0].experiment.name if _is_published(runs[0]) else side)
    return compare_values(*(collect_results(runs)[metric] for runs in (before, after)), kin, names)


def compare_values(before, after, kin: Mapping | None = None, names=("before", "after")) -> Estimate:
    """The difference of two means, of one value a run each, not paired, with its 95% interval.

    kin: {experiment: one value a run} of experiments that scatter alike; names: what the two are called there."""
    values = dict(zip(names, (before, after)))
    effect = estimate_contrast({names[0]: -1.0, names[1]: 1.0}, values, moderate_variances(values | dict(kin or {})))
    return Estimate(effect.mean, *effect.find_interval(), len(after))


def describe_change(before: list, after: list) -> str:
    """A sentence, in Markdown: what one step changes over another in accuracy, with 95% intervals."""
    changes = [compare_runs(before, after, f"{split}_accuracy").format(sign=True) for split in ("validation", "test")]
    return (
        f"From {before[0].experiment.label} to {after[0].experiment.label} validation accuracy changes by "
        f"**{changes[0]} points**, test accuracy by **{changes[1]}**."
    )


def _is_published(run) -> bool:
    return run.data == "fer2013" and run.experiment == EXPERIMENTS.get(run.experiment.name)


def _read_family(run, metric: str) -> dict[str, pd.Series]:
    """The metric of all published runs of the family that a run's experiment is of: {experiment: one value a run}."""
    table = _tabulate_family(runs_folder(), run.experiment.family)
    return {name: group[metric].dropna() for name, group in table.groupby("experiment") if group[metric].notna().any()}


@cache
def _tabulate_family(folder: Path, family: str) -> pd.DataFrame:
    return collect_results([run for run in read_published_runs() if run.experiment.family == family])


def summarise_costs(groups: list[list]) -> pd.DataFrame:
    """What each experiment costs and gains on validation over the first, a row each.

    "multiply-adds (M) per point" is empty where the gain is not clear of zero."""
    first, rows, costs = groups[0], {}, tabulate_costs(sum(groups, []))
    start = count_multiply_adds(first[0].experiment.build_model(), first[0].experiment.side)
    for runs in groups:
        work = count_multiply_adds(runs[0].experiment.build_model(), runs[0].experiment.side)
        gain = compare_runs(first, runs, "validation_accuracy")
        per_point = (work - start) / 1e6 / (100 * gain.mean) if runs is not first and gain.low > 0 else None
        cost = costs.loc[runs[0].experiment.name]
        rows[f"{runs[0].experiment.step} {runs[0].experiment.title}"] = {
            "parameters": f"{runs[0].results['parameters']:,}",
            "multiply-adds an image (M)": f"{work / 1e6:.1f}",
            "training images/s": f"{cost['typical_speed']:,.0f}{cost['note']}",
            "minutes a run": f"{cost['typical_minutes']:.1f}{cost['note']}",
            "validation (%)": estimate_mean([run.results["validation_accuracy"] for run in runs]).format(),
            "gain (points)": "" if runs is first else gain.format(sign=True),
            "multiply-adds (M) per point": "" if per_point is None else f"{per_point:.1f}",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def compare_with_report(runs: list) -> pd.DataFrame:
    """Accuracy in training and on validation, in percent: what the report gives, and what was measured."""
    rows = {}
    for experiment in dict.fromkeys(run.experiment for run in runs):
        results = [run.results for run in runs if run.experiment == experiment]
        unknown = experiment.reported is None or runs[0].data.startswith("custom-")  # the reports' are of FER2013
        reported = ["—"] * 2 if unknown else [f"{100 * share:.0f}" for share in experiment.reported]
        row = {"reported: train": reported[0], "reported: validation": reported[1]}
        for prefix, place in (("last_", "last epoch"), ("", "best epoch")):
            for split in ("train", "validation"):
                values = [result[f"{prefix}{split}_accuracy"] for result in results]
                row[f"{place}: {split}"] = estimate_mean(values).format()
        rows[f"{experiment.step} {experiment.title}"] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def format_markdown(table: pd.DataFrame) -> str:
    """The table in Markdown, without its index."""
    lines = [table.columns, ["---"] * len(table.columns), *table.astype(str).to_numpy()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
