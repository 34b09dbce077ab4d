"""The final comparison: every experiment on record side by side, paired tests, and the claims ledger.

It reads reports/ alone. What needs the labels of the test split, and thus FER2013, `make results`
counts beforehand: reports/pairs.csv and reports/confusions.json.
"""

import json
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pandas as pd

from fer_lib.data import EMOTIONS, PROJECT
from fer_lib.evaluate import (
    Estimate,
    Verdict,
    calc_confusion,
    calc_p_value,
    choose_temperature,
    choose_view,
    collect_results,
    count_wins,
    estimate_accuracy,
    estimate_calibration,
    estimate_matched_accuracy,
    estimate_mean,
    estimate_view,
    tabulate_costs,
)
from fer_lib.experiments import EXPERIMENTS
from fer_lib.models import count_multiply_adds
from fer_lib.record import Run, read_published_runs, runs_folder

CLAIMS = {
    "A-C1": "Scaling the pixels to 0–1 guards against exploding gradients.",
    "A-C2": "Balancing by copies with shifted intensity helps.",
    "A-C3": "Rotation and mirroring cannot help.",
    "A-C4": "Batch norm gives the gradient a better magnitude through the network, hence its gain.",
    "A-C5": "Dropout closes the gap between training and validation.",
    "A-C6": "After dropout the model no longer overfits; more filters bring nothing; a deeper head does.",
    "A-C7": "Residual connections and still more depth bring nothing.",
    "A-C8": "Upsampling aimed at the weak classes does not help.",
    "B-C1": "Flip, rotation and crop keep the network from overfitting.",
    "B-C2": "A third convolution adds features that two lack.",
    "B-C3": "Batch norm generalises better, and cures vanishing gradients and overfitting.",
    "B-C4": "The residual block makes training more stable, and the network with it is the best of all.",
    "B-C5": "An LSTM over the feature map brings nothing, perhaps because of the two layers added with it.",
}
"""What the two reports claim, in short."""

PAIRS = (
    ("a1_baseline", "a1b_baseline_balanced"),
    ("a1b_baseline_balanced", "a2_batchnorm"),
    ("a2_batchnorm", "a3_dropout"),
    ("a3_dropout", "a4_wider"),
    ("a4_wider", "a5_deeper_head"),
    ("a3_dropout", "a5b_head_alone"),
    ("a5_deeper_head", "a6_residual"),
    ("a6b_no_skip", "a6_residual"),
    ("a6_residual", "a7_deeper_residual"),
    ("a5_deeper_head", "a8_targeted_upsampling"),
    ("a5_deeper_head", "a8b_harder_upsampling"),
    ("b1_two_layer", "b2b_no_batchnorm"),
    ("b1_two_layer", "b2c_two_layer_batchnorm"),
    ("b2b_no_batchnorm", "b2_three_layer_batchnorm"),
    ("b2_three_layer_batchnorm", "b3_three_layer_resnet"),
    ("b3_three_layer_resnet", "b4c_lstm_on_three"),
    ("b3_three_layer_resnet", "b4b_no_lstm"),
    ("b4b_no_lstm", "b4_cnn_lstm"),
    ("b4_cnn_lstm", "b5_attention"),
    ("b4b_no_lstm", "b5_attention"),
    ("a5_deeper_head", "b3_three_layer_resnet"),
    ("da1_plain", "da6_all"),
    ("db1_plain", "b3_three_layer_resnet"),
    ("b3_three_layer_resnet", "s1_deeper"),
    ("s1_deeper", "s2_one_cycle"),
    ("s2_one_cycle", "s3_weight_decay"),
    ("s3_weight_decay", "s4_label_smoothing"),
    ("s4_label_smoothing", "s5_averaging"),
    ("b3_three_layer_resnet", "s5_averaging"),
    ("s5_averaging", "s14_wider"),
    ("s14_wider", "s15_more_varied"),
    ("s5_averaging", "s16_distilled"),
)
"""The steps that are tested against one another: each against what it changes, the reports' best, what they disagree
on, and the way beyond."""


VERDICTS = ("confirmed", "in part", "not confirmed", "refuted", "untested")
"""What `judge_claim` can say."""

TEST_IMAGES = 3589  # of FER2013

# --- counted where FER2013 is at hand ---------------------------------------------------------


def count_pairs(runs: list[Run], labels: np.ndarray, pairs: Iterable[tuple[str, str]] = PAIRS) -> pd.DataFrame:
    """A row for each of the pairs on record and each seed that both have: before, after, seed, and on the test
    split how many images were `lost` (right before, wrong after) and `won`. labels: int (N,)."""
    found = {(run.experiment.name, run.seed): run for run in runs}
    rows = []
    for before, after in pairs:
        for seed in sorted(seed for name, seed in found if name == before and (after, seed) in found):
            lost, won = count_wins(*(found[name, seed].logits["test"] for name in (before, after)), labels)
            rows.append({"before": before, "after": after, "seed": seed, "lost": lost, "won": won})
    return pd.DataFrame(rows, columns=["before", "after", "seed", "lost", "won"])


def count_confusions(runs: list[Run], labels: np.ndarray) -> dict[str, list[list[int]]]:
    """For each experiment its confusion matrix on the test split, (7, 7), summed over its runs; labels: int (N,)."""
    totals = {}
    for run in runs:
        matrix = calc_confusion(run.logits["test"].astype(np.float32), labels)
        totals[run.experiment.name] = totals.get(run.experiment.name, 0) + matrix
    return {name: matrix.tolist() for name, matrix in totals.items()}


def judge_subsets(runs: list[Run], labels: np.ndarray, subsets: dict[str, np.ndarray]) -> dict[str, dict[str, str]]:
    """For each experiment its test accuracy on parts of the split, in percent with its interval, as text.

    labels: int (N,); subsets: of `explore.list_subsets`; to which come, as "alike", images without a copy, weighted
    to have the labels of those with one in training, and FER+'s majority behind them, as often."""
    names = dict.fromkeys(run.experiment.name for run in runs)
    groups = {name: [run for run in runs if run.experiment.name == name] for name in names}
    copied, others = subsets["with a copy in training"], subsets["without a copy in either"]
    kinds = 2 * labels + subsets["label is FER+'s majority"]
    told = {}
    for name, group in groups.items():
        told[name] = {words: estimate_accuracy(group, labels, chosen).format() for words, chosen in subsets.items()}
        told[name]["alike"] = estimate_matched_accuracy(group, labels, copied, others, kinds).format()
    return told


def judge_mirrored(runs: list[Run], labels: dict[str, np.ndarray]) -> dict[str, dict]:
    """For each experiment that was judged by mirrored images too, what these answers are worth, as text save for the
    temperatures: `fitted`, on validation over its runs, and `temperature`, that one or 1, as
    `evaluate.choose_temperature` says; the expected calibration error on validation and test, in percent, as it is
    and with the fitted one; and, on the test split, of each class recall, precision and F1, in percent.

    labels: {split: int (N,)} of validation and test."""
    groups = {}
    for run in runs:
        if "test_flip" in run.logits:
            groups.setdefault(run.experiment.name, []).append(run)
    told = {}
    for name, group in groups.items():
        seen = {split: [run.logits[f"{split}_flip"] for run in group] for split in ("validation", "test")}
        fitted, chosen = choose_temperature(seen["validation"], labels["validation"])
        told[name] = {"fitted": fitted, "temperature": chosen}
        for split, logits in seen.items():
            for words, value in {"as it is": 1.0, "with the fitted temperature": fitted}.items():
                error = estimate_calibration(logits, labels[split], value)
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


def read_pairs() -> pd.DataFrame:
    return pd.read_csv(runs_folder().parent / "pairs.csv")


def read_facts() -> dict:
    """What `make results` found of the data, for the write-up: `explore.collect_facts`, and more that needs labels."""
    return json.loads((runs_folder().parent / "facts.json").read_text(encoding="utf-8"))


def read_bench() -> dict:
    """What `make bench` measured."""
    return json.loads((PROJECT / "reports" / "bench.json").read_text())


def describe_speed() -> str:
    """Sentences, in Markdown, on how fast the strong network trains and judges."""
    bench = read_bench()
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
    """{experiment: counts (7, 7)} on the test split, summed over its runs."""
    counts = json.loads((runs_folder().parent / "confusions.json").read_text())
    return {name: np.array(matrix) for name, matrix in counts.items()}


def read_verdicts() -> list[Verdict]:
    """All that the notebooks found, in the claims' order, each claim's in that of its notebooks."""
    folder, verdicts = runs_folder().parent / "verdicts", []
    for name in EXPERIMENTS:
        if (path := folder / f"{name}.json").exists():
            rows = json.loads(path.read_text(encoding="utf-8"))
            verdicts += [Verdict(**row | {"measured": Estimate(**row["measured"])}) for row in rows]
    return sorted(verdicts, key=lambda verdict: list(CLAIMS).index(verdict.claim))


def choose_runs(at_least: int = 3, data: str = "fer2013") -> list[Run]:
    """The published runs on this data of every experiment that has so many on record."""
    runs = read_published_runs(data)
    counts = Counter(run.experiment.name for run in runs)
    return [run for run in runs if counts[run.experiment.name] >= at_least]


def choose_groups(names: Iterable[str], data: str = "fer2013") -> dict[str, list[Run]]:
    """The published runs on this data of each of these experiments, in this order; one that has none is left out."""
    runs = read_published_runs(data)
    groups = {name: [run for run in runs if run.experiment.name == name] for name in names}
    return {name: group for name, group in groups.items() if group}


def group_by_report(runs: list[Run]) -> dict[str, list[list[Run]]]:
    """The runs of each step of the two reports, and of the way to the strong model: {name: a list for each step}."""
    reports = {"A": "Report A", "B": "Report B", "S": "Beyond"}
    groups = {name: {} for name in reports.values()}
    for run in runs:
        if run.experiment.report in reports:
            groups[reports[run.experiment.report]].setdefault(run.experiment.name, []).append(run)
    return {name: list(steps.values()) for name, steps in groups.items() if steps}


def tabulate_experiments(runs: list[Run]) -> pd.DataFrame:
    """A row an experiment: size, work, accuracies and macro F1 in percent with intervals, and cost, marked as
    `describe_times` says."""
    rows, costs = {}, tabulate_costs(runs)
    for experiment in dict.fromkeys(run.experiment for run in runs):
        table = collect_results([run for run in runs if run.experiment == experiment])
        row = {
            "runs": len(table),
            "parameters": f"{table['parameters'].iloc[0]:,}",
            "multiply-adds (M)": f"{count_multiply_adds(experiment.build_model(), experiment.side) / 1e6:.1f}",
        }
        columns = ("train_accuracy_clean", "validation_accuracy", "test_accuracy", "test_macro_f1")
        for column, label in zip(columns, ("train", "validation", "test", "test macro F1")):
            row[label] = estimate_mean(table[column]).format()
        row["s an epoch"] = f"{costs.loc[experiment.name, 'epoch_seconds']:.0f}{costs.loc[experiment.name, 'mark']}"
        rows[f"{experiment.step} {experiment.title}"] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def test_pairs(pairs: pd.DataFrame) -> pd.DataFrame:
    """McNemar's test of each pair of steps, corrected for how many are tested.

    The seeds' exact p-values are joined into one by twice their median, which holds however they depend on
    one another (Rüger 1978; Vovk and Wang 2020, doi:10.1093/biomet/asaa027); then Holm's correction (1979,
    doi:10.2307/4615733) over the pairs. A row a pair: mean images won and lost, p, and p corrected."""
    rows = []
    for (before, after), group in pairs.groupby(["before", "after"], sort=False):
        p_values = [calc_p_value(lost, won) for lost, won in zip(group["lost"], group["won"])]
        rows.append(
            {
                "before": EXPERIMENTS[before].label,
                "after": EXPERIMENTS[after].label,
                "seeds": len(group),
                "won": group["won"].mean(),
                "lost": group["lost"].mean(),
                "p": min(1.0, 2 * float(np.median(p_values))),
            }
        )
    table = pd.DataFrame(rows)
    return table.assign(corrected=correct_p_values(table["p"]))


test_pairs.__test__ = False  # a statistical test, not one of pytest's


def format_pairs(tests: pd.DataFrame) -> pd.DataFrame:
    """The rows of `test_pairs` as text, for a page."""
    columns = {"before": tests["before"], "after": tests["after"], "seeds": tests["seeds"]}
    columns |= {f"images {name}": tests[name].map("{:.0f}".format) for name in ("won", "lost")}
    columns["test accuracy (points)"] = (100 * (tests["won"] - tests["lost"]) / TEST_IMAGES).map("{:+.1f}".format)
    names = {"p": "p", "corrected": "p, corrected"}
    columns |= {label: [_format_p(value) for value in tests[name]] for name, label in names.items()}
    return pd.DataFrame(columns)


def _format_p(value: float) -> str:
    return "below 0.001" if value < 0.001 else f"{value:.3f}"


def describe_pairs(tests: pd.DataFrame) -> str:
    """A sentence, in Markdown, on the rows of `test_pairs`."""
    clear = tests[tests["corrected"] < 0.05]
    better = clear[clear["won"] > clear["lost"]]
    steps = "; ".join(f"{before} to {after}" for before, after in zip(better["before"], better["after"]))
    return (
        f"Of {len(tests)} steps **{len(clear)}** change test accuracy by more than chance (p below 0.05, corrected), "
        f"{len(better)} of them for the better: {steps or 'none'}."
    )


def correct_p_values(p_values) -> np.ndarray:
    """Holm's step-down correction, in the given order: float (N,), 0-1."""
    p_values = np.asarray(p_values, float)
    order = p_values.argsort()
    steps = np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1))
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(steps, 1)
    return corrected


def judge_claim(verdicts: list[str]) -> str:
    """The verdict on a claim of several parts.

    confirmed: every part; refuted: a part, and none confirmed; in part: parts confirmed, and parts not;
    not confirmed: no part confirmed, none refuted; untested: no part."""
    found = set(verdicts)
    if not found:
        return "untested"
    if "confirmed" in found:
        return "confirmed" if len(found) == 1 else "in part"
    return "refuted" if "refuted" in found else "not confirmed"


def tabulate_claims(verdicts: list[Verdict]) -> pd.DataFrame:
    """The ledger, a row a claim: the effect of its first part as reported and as measured, its interval, the
    verdict on all parts, and how many of these are confirmed, not confirmed and refuted."""
    rows = []
    for claim, text in CLAIMS.items():
        parts = [verdict for verdict in verdicts if verdict.claim == claim]
        row = {"claim": claim, "it says": text, "effect": "—", "reported": "—", "measured": "—", "95% interval": "—"}
        if parts:
            first = parts[0]
            row["effect"] = first.quantity
            row["reported"], row["measured"] = first.format(first.reported), first.format(first.measured.mean)
            row["95% interval"] = " to ".join(map(first.format, (first.measured.low, first.measured.high)))
        row["verdict"] = judge_claim([part.verdict for part in parts])
        kinds = ("confirmed", "not confirmed", "refuted")
        row["parts"] = " / ".join(str(sum(part.verdict == kind for part in parts)) for kind in kinds)
        rows.append(row)
    return pd.DataFrame(rows)


def describe_claims(ledger: pd.DataFrame) -> str:
    """A sentence, in Markdown, on the rows of `tabulate_claims`."""
    counts = ledger["verdict"].value_counts()
    found = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if verdict in counts)
    return f"Of the **{len(ledger)}** claims: {found}."


def tabulate_recall(confusions: dict[str, np.ndarray]) -> pd.DataFrame:
    """Recall on the test split in percent: a row an experiment, a column a class."""
    rows = {
        f"{EXPERIMENTS[name].step} {EXPERIMENTS[name].title}": 100 * counts.diagonal() / counts.sum(1)
        for name, counts in confusions.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=EMOTIONS).round(1)


# --- beside other work ------------------------------------------------------------------------

PRIVATE = "PrivateTest"  # the challenge's own test split


def read_tries() -> pd.DataFrame:
    """What was tried before S18 was settled on, reports/tries.csv: a row a try, one run each on validation alone."""
    table = pd.read_csv(PROJECT / "reports" / "tries.csv", dtype=str)
    return table.set_index("tried")


def tabulate_published() -> pd.DataFrame:
    """Results that others published on FER2013, each with its protocol, reports/published.csv, all as text, a dash for
    what is not known: system; networks that answer together; reported (%); split, the one that it is of in truth;
    chosen on, the split that chose epoch or learning rate; pretrained; note; source."""
    return pd.read_csv(PROJECT / "reports" / "published.csv", dtype=str).fillna("—")


def describe_published(runs: list[Run]) -> str:
    """A sentence, in Markdown, that sets a step's accuracy beside the highest published one of a single network that
    was trained from scratch and chosen without the test split. runs: of the step."""
    table = tabulate_published()
    clean = table.query("networks == '1' and pretrained == 'no' and split == @PRIVATE and `chosen on` != @PRIVATE")
    clean = clean[clean["chosen on"] != "—"]
    best = clean.loc[clean["reported (%)"].astype(float).idxmax()]
    view, theirs = choose_view(runs), float(best["reported (%)"]) / 100
    validation, test = (estimate_view(runs, split, view) for split in ("validation", "test"))
    return (
        f"**{runs[0].experiment.step}**, trained from scratch and chosen on PublicTest, is right on "
        f"**{test.format()}%** of {PRIVATE} under {view.replace('_', ' ')} of each image, and on "
        f"{validation.format()}% of PublicTest. Of the figures for one network from scratch that chose nothing "
        f"on {PRIVATE}, the highest is {best['reported (%)']}% ({best['system']}): "
        f"{100 * abs(test.mean - theirs):.1f} points {'below' if test.mean > theirs else 'above'} ours, and "
        f"{'inside' if test.low <= theirs <= test.high else 'outside'} the interval that seeds alone give ours."
    )
