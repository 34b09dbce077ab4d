"""Accuracy on parts of the test split, and how far a network's confidence can be believed."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from fer_lib.evaluate import compare_runs, estimate_metric
from fer_lib.metrics import calc_accuracy, calc_calibration_error, calc_probabilities, fit_temperature
from fer_lib.statistics import Effect, estimate_mean


def estimate_accuracy(runs: list, labels: np.ndarray, chosen: np.ndarray) -> Effect:
    """Test accuracy over the runs on some of the images. labels: int (N,); chosen: bool (N,)."""
    return estimate_metric(runs, _judge(labels, chosen))


def _judge(labels: np.ndarray, chosen: np.ndarray) -> Callable:
    """What gives a run's test accuracy, plain, on some of the images."""
    return lambda run: calc_accuracy(run.logits["test"][chosen], labels[chosen])


def estimate_matched_accuracy(
    runs: list, labels: np.ndarray, chosen: np.ndarray, others: np.ndarray, kinds: np.ndarray
) -> Effect:
    """Test accuracy over the runs on other images, weighted so that each kind is as frequent as among the chosen.

    labels: int (N,); chosen, others: bool (N,); kinds: int (N,) from 0, each of which some of the others has."""
    frequency = np.bincount(kinds[chosen], minlength=kinds.max() + 1) / chosen.sum()
    weights = frequency[kinds[others]] / np.bincount(kinds[others], minlength=kinds.max() + 1)[kinds[others]]
    return estimate_metric(runs, lambda run: float(weights @ (run.logits["test"].argmax(1) == labels)[others]))


def tabulate_subsets(groups: list[list], labels: np.ndarray, subsets: dict[str, np.ndarray]) -> pd.DataFrame:
    """Test accuracy in percent, with 95% intervals over the seeds, on parts of the test split: a row a part, with
    its number of images, a column a step. labels: int (N,); subsets: {name: bool (N,)}, empty ones left out."""
    rows = {}
    for name, chosen in _drop_empty(subsets).items():
        rows[name] = {"images": f"{chosen.sum():,}"}
        rows[name] |= {
            f"{runs[0].experiment.label} (%)": estimate_accuracy(runs, labels, chosen).format() for runs in groups
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _drop_empty(subsets: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: chosen for name, chosen in subsets.items() if chosen.any()}


def tabulate_subset_changes(
    pairs: list[tuple[list, list]], labels: np.ndarray, subsets: dict[str, np.ndarray]
) -> pd.DataFrame:
    """What each step changes on parts of the test split, in points ± half the 95% interval: a row a
    part, a column a step. pairs: the runs of the step before and of the step; else as `tabulate_subsets`."""
    subsets = _drop_empty(subsets)
    table = pd.DataFrame(index=list(subsets))
    for before, after in pairs:
        column = f"{before[0].experiment.label} to {after[0].experiment.label} (points)"
        for name, chosen in subsets.items():
            table.loc[name, column] = compare_runs(before, after, _judge(labels, chosen)).format(sign=True)
    return table


def tabulate_sides(groups: list[list], labels: np.ndarray, choices: np.ndarray) -> pd.DataFrame:
    """Whose side each step takes, plain, on the test images where the taggers' choice is another of the seven classes
    than the label: the shares answered as the label says and as they do, in percent with 95% intervals over the seeds.

    labels: int (N,); choices: the taggers' choice, int (N,), -1 where it is none of the seven."""
    apart = (choices >= 0) & (choices != labels)
    rows = {}
    for runs in groups:
        row = {"images": f"{apart.sum():,}"}
        for words, truth in {"as FER2013's label (%)": labels, "as the taggers' choice (%)": choices}.items():
            row[words] = estimate_accuracy(runs, truth, apart).format()
        rows[f"{runs[0].experiment.step} {runs[0].experiment.title}"] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def tabulate_judges(groups: list[list], labels: np.ndarray, choices: np.ndarray) -> pd.DataFrame:
    """Test accuracy of two steps, plain, by FER2013's label and by the taggers' choice, in percent with 95% intervals
    over the seeds, and what lies between the two, in points: a row a judge.

    groups: the runs of the one and of the other; labels, choices as of `tabulate_sides`."""
    chosen = choices >= 0
    judges = {
        "FER2013's label": (labels, labels >= 0),
        "FER2013's label, where there is a taggers' choice": (labels, chosen),
        "the taggers' choice, on the same images": (choices, chosen),
    }
    before, after = (runs[0].experiment.label for runs in groups)
    rows = {}
    for name, (truth, images) in judges.items():
        rows[name] = {"images": f"{images.sum():,}"}
        for step, runs in zip((before, after), groups):
            rows[name][f"{step} (%)"] = estimate_accuracy(runs, truth, images).format()
        rows[name][f"{before} to {after} (points)"] = compare_runs(*groups, _judge(truth, images)).format(sign=True)
    return pd.DataFrame.from_dict(rows, orient="index")


def describe_errors(groups: list[list], labels: np.ndarray, doubtful: np.ndarray) -> str:
    """A sentence, in Markdown: how much of each step's errors, in the mean over its runs, lies on the test images whose
    label is doubtful. labels: int (N,); doubtful: bool (N,)."""
    wrong = {runs[0].experiment.step: [run.logits["test"].argmax(1) != labels for run in runs] for runs in groups}
    shares = {step: np.mean([errors[doubtful].sum() / errors.sum() for errors in runs]) for step, runs in wrong.items()}
    told = ", ".join(f"{step} **{share:.0%}**" for step, share in shares.items())
    return (
        f"Share of a network's errors that lies on the {doubtful.mean():.0%} of the test images whose label is not the "
        f"taggers' choice: {told}."
    )


def estimate_calibration(logits: list[np.ndarray], labels: np.ndarray, temperature: float = 1.0) -> Effect:
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
            row[f"error as trained, {split}"] = estimate_calibration(logits[split], truth).format()
            row[f"error with it, {split}"] = estimate_calibration(logits[split], truth, fitted).format()
        rows[f"{runs[0].experiment.step}"] = row | {"temperature used": "yes" if chosen == fitted else "no"}
    return pd.DataFrame.from_dict(rows, orient="index")
