"""The final comparison: every experiment on record side by side.

It reads reports/ alone. What needs the labels of the test split, and thus FER2013, `make results`
counts beforehand: reports/confusions.json and reports/facts.json.
"""

import json
from collections.abc import Iterable

import numpy as np
import pandas as pd

from fer_lib.costs import count_image, format_operations
from fer_lib.dataset import EMOTIONS, PROJECT
from fer_lib.evaluate import (
    collect_results,
    compare_runs,
    estimate_metric,
    estimate_view,
    interpolate_validation,
    lies_above,
)
from fer_lib.experiments import EXPERIMENTS
from fer_lib.extras import reliability
from fer_lib.metrics import calc_confusion
from fer_lib.models import count_parameters
from fer_lib.record import Run, find_result, group_runs, read_published_runs, runs_folder
from fer_lib.statistics import estimate_mean

TEST_IMAGES = 3589  # of FER2013
PEOPLE = (0.60, 0.70)
"""Accuracy of people on FER2013: 65 ± 5% (Goodfellow et al. 2013, doi:10.1007/978-3-642-42051-1_16)."""

NETWORKS = {
    "a1_baseline": "convolutions of 32, 64, 128; head of 128",
    "a2_batchnorm": "the same, batch norm after each pooling and in the head",
    "a3_dropout": "the same, dropout of 0.25 after convolutions and 0.5 in the head",
    "a4_wider": "the same, a fourth convolution of 256",
    "a5_deeper_head": "the same, a head of 512, 256, 128, with ReLU",
    "a6_residual": "the same, a residual block after each convolution",
    "a7_deeper_residual": "the same, one more block, a head of 1024, 512, 256, 128",
    "b1_two_layer": "convolutions of 32, 64; head of 128",
    "b2_three_layer_batchnorm": "convolutions of 32, 64, 128 with batch norm; head of 128",
    "b3_three_layer_resnet": "the same, a residual block before the head",
    "b4_cnn_lstm": "convolutions of 32, 64 and three of 128, a block, an LSTM of 128 over the 6×6 places",
    "b5_attention": "the same, self-attention of four heads in place of the LSTM",
}
"""The networks of the reports in words, for a table."""

# --- counted where FER2013 is at hand ---------------------------------------------------------


def count_confusions(runs: list[Run], labels: np.ndarray) -> dict[str, list[list[int]]]:
    """For each experiment its confusion matrix on the test split, (7, 7), summed over its runs; labels: int (N,)."""
    return {
        name: sum(calc_confusion(run.logits["test"].astype(np.float32), labels) for run in group).tolist()
        for name, group in group_runs(runs).items()
    }


def judge_subsets(runs: list[Run], labels: np.ndarray, subsets: dict[str, np.ndarray]) -> dict[str, dict[str, str]]:
    """For each experiment its test accuracy on parts of the split, in percent with its interval, as text.

    labels: int (N,); subsets: of `explore.list_subsets`; to which come, as "alike", images without a copy, weighted
    to have the labels of those with one in training, and the taggers' choice behind them, as often."""
    copied, others = subsets["with a copy in training"], subsets["without a copy in either"]
    kinds = 2 * labels + subsets["label is the taggers' choice"]
    told = {}
    for name, group in group_runs(runs).items():
        told[name] = {
            words: reliability.estimate_accuracy(group, labels, chosen).format() for words, chosen in subsets.items()
        }
        told[name]["alike"] = reliability.estimate_matched_accuracy(group, labels, copied, others, kinds).format()
    return told


def judge_voted(labels: np.ndarray, choices: np.ndarray) -> dict[str, dict[str, str]]:
    """S5, and V1, which is S5 but for having learnt FER+'s votes, by FER2013's label and by the taggers' choice:
    by judge the rows of `reliability.tabulate_judges`, which has the arguments too."""
    groups = choose_groups(["s5_averaging", "v1_votes"])
    return reliability.tabulate_judges(list(groups.values()), labels, choices).to_dict("index")


def judge_mirrored(runs: list[Run], labels: dict[str, np.ndarray]) -> dict[str, dict]:
    """For each experiment that was judged by mirrored images too, what these answers are worth, as text save for the
    temperatures: `fitted`, on validation over its runs, and `temperature`, that one or 1, as
    `reliability.choose_temperature` says; the expected calibration error on validation and test, in percent, as it is
    and with the fitted one; and, on the test split, of each class recall, precision and F1, in percent.

    labels: {split: int (N,)} of validation and test."""
    told = {}
    for name, group in group_runs(run for run in runs if "test_flip" in run.logits).items():
        seen = {split: [run.logits[f"{split}_flip"] for run in group] for split in ("validation", "test")}
        fitted, chosen = reliability.choose_temperature(seen["validation"], labels["validation"])
        told[name] = {"fitted": fitted, "temperature": chosen}
        for split, logits in seen.items():
            for words, value in {"as it is": 1.0, "with the fitted temperature": fitted}.items():
                error = reliability.estimate_calibration(logits, labels[split], value)
                told[name][f"calibration error, {split}, {words}"] = error.format()
        told[name]["classes"] = _judge_classes(seen["test"], labels["test"])
    return told


def describe_temperature(judged: dict) -> str:
    """Sentences on the temperature of an experiment; judged: what `judge_mirrored` tells of it."""
    validation, test = (
        f"from {judged[f'calibration error, {split}, as it is']} to "
        f"{judged[f'calibration error, {split}, with the fitted temperature']} points on {split}"
        for split in ("validation", "test")
    )
    used = judged["temperature"] != 1
    return (
        f"The temperature fitted on validation, {judged['fitted']:.3f}, changes the expected calibration error "
        f"{validation}, so it is {'used' if used else 'not used'}; it changes it {test}, which had no say."
    )


def _judge_classes(logits: list[np.ndarray], labels: np.ndarray) -> dict[str, dict[str, str]]:
    """Recall, precision and F1 of each class in percent, with their intervals over the runs, as text."""
    counts = np.stack([calc_confusion(one, labels) for one in logits])
    right, answered, there = np.diagonal(counts, axis1=1, axis2=2), counts.sum(1), counts.sum(2)
    with np.errstate(invalid="ignore"):  # a class that is never answered has no precision
        shares = {"recall": right / there, "precision": right / answered, "F1": 2 * right / (answered + there)}
    return {
        emotion: {name: estimate_mean(share[:, place]).format() for name, share in shares.items()}
        for place, emotion in enumerate(EMOTIONS)
    }


# --- read from the records --------------------------------------------------------------------


def read_facts() -> dict:
    """What `make results` found of the data, for the write-up: `explore.collect_facts`, and more that needs labels."""
    return json.loads(find_result("facts.json").read_text(encoding="utf-8"))


def read_bench() -> list[dict]:
    """What `make bench` measured, once for each hardware."""
    return json.loads((PROJECT / "reports" / "bench.json").read_text())


def describe_speed() -> str:
    """Sentences, in Markdown, on how fast the strong network trains and judges."""
    bench = max(read_bench(), key=lambda bench: bench["strong"]["peak_tflops"])
    step, share, peak = (bench["strong"][name] for name in ("step", "share_of_peak", "peak_tflops"))
    (train,), (judge,) = (
        [row for row in bench["rows"] if row["what"].startswith(f"{w} {step}")] for w in ("train", "judge")
    )
    return (
        f"{step} trains at **{train['ours']:,.0f} images/s**, {train['ratio']:g} times as fast as a plain loop in "
        f"float32, and judges {judge['ours']:,.0f} a second ({bench['hardware']}, {bench['threads']} threads). "
        f"In training its products alone come to {share:.0%} of the {peak:.2f} TFLOP/s that a product of large "
        "matrices reaches there."
    )


def read_confusions() -> dict[str, np.ndarray]:
    """{experiment: counts (7, 7)} on the test split, summed over its runs, which are those that are published."""
    path = runs_folder().parent / "confusions.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: what is compared are the project's own runs; leave FER_RUNS out")
    counts = json.loads(path.read_text())
    return {name: np.array(matrix) for name, matrix in counts.items()}


def choose_confusions(names: Iterable[str]) -> dict[str, np.ndarray]:
    """{step: counts (7, 7)} of `read_confusions`. Raises ValueError for an experiment of which nothing is counted."""
    counts = read_confusions()
    if missing := [name for name in names if name not in counts]:
        raise ValueError(
            f"nothing is counted of {', '.join(missing)}: too few runs, or `make results` is yet to count them"
        )
    return {EXPERIMENTS[name].step: counts[name] for name in names}


def choose_runs(at_least: int = 3, data: str = "fer2013") -> list[Run]:
    """The published runs on this data of every experiment that has so many on record."""
    return keep_repeated(read_published_runs(data), at_least)


def keep_repeated(runs: list[Run], at_least: int = 3) -> list[Run]:
    """Those of the runs whose experiment has so many among them."""
    groups = group_runs(runs)
    return [run for run in runs if len(groups[run.experiment.name]) >= at_least]


def choose_groups(names: Iterable[str], data: str = "fer2013") -> dict[str, list[Run]]:
    """The published runs on this data of each of these experiments, in this order; one that has none is left out."""
    groups = group_runs(read_published_runs(data, names := list(names)))
    return {name: groups[name] for name in names if name in groups}


def group_by_report(runs: list[Run]) -> dict[str, list[list[Run]]]:
    """The runs of each step of the two reports, and of the way to the strong model: {name: a list for each step}."""
    reports = {"Report A": "A", "Report B": "B", "Beyond": "S"}
    groups = {
        name: list(group_runs(run for run in runs if run.experiment.report == report).values())
        for name, report in reports.items()
    }
    if not any(groups.values()):
        raise ValueError(
            f"no step of a report has so many published runs in {runs_folder()}; ask for fewer, or leave FER_RUNS out"
        )
    return {name: steps for name, steps in groups.items() if steps}


def group_regime(runs: list[Run]) -> tuple[list[list[Run]], list[Run]]:
    """What `plots.plot_regime` takes, of runs of all experiments: those of each step that a report gives accuracies
    of, and those that try these steps under other settings."""
    groups = group_runs(run for run in runs if run.experiment.reported)
    tries = [run for run in runs if run.experiment.report == "R" and run.experiment.against in groups]
    return list(groups.values()), tries


def count_above(runs: list[Run]) -> str:
    """In how many of the steps that a report gives accuracies of it is above every run: "3 of 6"; runs: of all."""
    groups, _ = group_regime(runs)
    return f"{sum(map(lies_above, groups))} of {len(groups)}"


def describe_tries(groups: list[list[Run]], tries: list[Run]) -> str:
    """In Markdown, a line a try: its validation accuracy at the report's accuracy in training, beside the step's runs'
    and the report's. Arguments of `group_regime`."""
    steps, lines = {runs[0].experiment.name: runs for runs in groups}, []
    for run in tries:
        own = steps[run.experiment.against]
        train, validation = own[0].experiment.reported
        met, usual = (np.mean([interpolate_validation(r, train) for r in runs]) for runs in ([run], own))
        told = f"{met:.1%} on validation at the report's {train:.0%} in training, where {own[0].experiment.step} has"
        lines.append(
            f"- {run.experiment.title}, one run: {told} {usual:.1%} in the mean and the report {validation:.0%}."
        )
    return "\n".join(lines)


def tabulate_networks() -> pd.DataFrame:
    """The reports' networks: what each is made of, parameters, work of an image."""
    rows = []
    for experiment in (EXPERIMENTS[name] for name in NETWORKS):
        model = experiment.build_model()
        row = {"step": experiment.step, "network": NETWORKS[experiment.name]}
        row["parameters"] = f"{count_parameters(model):,}"
        rows.append(row | {"multiply-adds (M)": f"{count_image(experiment) / 1e6:.0f}"})
    return pd.DataFrame(rows)


def tabulate_experiments(runs: list[Run]) -> pd.DataFrame:
    """A row an experiment: accuracies and macro F1 in percent with intervals, size, and the work of an image and of a
    training."""
    rows = {}
    for group in group_runs(runs).values():
        experiment, table = group[0].experiment, collect_results(group)
        row, columns = {}, ("validation_accuracy", "test_accuracy", "test_macro_f1", "train_accuracy_clean")
        for column, label in zip(columns, ("validation", "test", "test macro F1", "train")):
            row[label] = estimate_metric(group, column).format()
        row |= {"runs": len(table), "parameters": f"{table['parameters'].iloc[0]:,}"}
        row["multiply-adds (M)"] = f"{count_image(experiment) / 1e6:.1f}"
        row["PFLOP a run"] = format_operations(group)
        rows[f"{experiment.step} {experiment.title}"] = row
    return pd.DataFrame.from_dict(rows, orient="index")


CROSSED = {
    "A5, with dropout": ("da1_plain", "da6_all"),
    "A5, without": ("da10_plain_no_dropout", "da11_all_no_dropout"),
    "B3, with dropout": ("db8_plain_dropout", "db9_all_dropout"),
    "B3, without": ("db1_plain", "b3_three_layer_resnet"),
}
"""Of each network, the experiment without treatment of the images and the one with flip, rotation and crop."""


def tabulate_crossing(runs: list[Run]) -> pd.DataFrame:
    """Validation accuracy in percent ± half its 95% interval of both reports' networks with and without dropout,
    untreated and treated, and the number of runs of each. runs: of all experiments."""
    groups, rows = group_runs(runs), []
    for network, names in CROSSED.items():
        own = [groups[name] for name in names]
        shares = [estimate_metric(runs, "validation_accuracy").format() for runs in own]
        row = {"network": network} | dict(zip(("untreated", "flip, rotation, crop"), shares))
        rows.append(row | {"runs": " and ".join(str(len(runs)) for runs in own)})
    return pd.DataFrame(rows)


def tabulate_climb(runs: list[Run]) -> pd.DataFrame:
    """The way beyond both reports, a row a step: what it changes over which one, its gain on validation in points,
    ± half the 95% interval, and its accuracies in percent, of the plain image; last what has one run. runs: of all."""
    groups, rows = group_runs(runs), []
    for own in groups.values():
        if (experiment := own[0].experiment).report == "S":
            basis = groups[experiment.against]
            row = {"step": experiment.step, "change": experiment.title, "over": basis[0].experiment.step}
            row["gain"] = compare_runs(basis, own, "validation_accuracy").format(sign=True)
            for split in ("validation", "test"):
                row[f"{split} (%)"] = estimate_view(own, split, "plain").format()
            rows.append(row | {"runs": len(own)})
    return pd.DataFrame(sorted(rows, key=lambda row: row["runs"] == 1))


def tabulate_recall(confusions: dict[str, np.ndarray]) -> pd.DataFrame:
    """Recall on the test split in percent: a row an experiment, a column a class."""
    rows = {
        f"{EXPERIMENTS[name].step} {EXPERIMENTS[name].title}": 100 * counts.diagonal() / counts.sum(1)
        for name, counts in confusions.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=EMOTIONS).round(1)
