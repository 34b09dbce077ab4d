"""Figures of the runs of one step and the step that it is compared with."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator

from fer_lib.dataset import EMOTIONS
from fer_lib.evaluate import collect_results, compare_runs, estimate_metric
from fer_lib.metrics import calc_confusion, calc_recall
from fer_lib.plots.style import (
    AFTER,
    BEFORE,
    LOST,
    SPLIT_COLOURS,
    WIDTH,
    WON,
    add_legend,
    draw_shades,
    join_names,
    list_rows,
    make_figure,
    name_step,
    set_title,
    show_percent,
    show_points,
)
from fer_lib.statistics import choose_confidence, estimate_contrast, format_number, moderate_variances


def plot_curves(before: list, after: list) -> Figure:
    """Accuracy and loss over the epochs, in training and on validation: each run thin, the best epoch of each marked.

    before, after: the runs of the step compared with and of the step in question."""
    figure, panels = make_figure(1, 2, figsize=(WIDTH, 4.0))
    for runs, colour in ((before, BEFORE), (after, AFTER)):
        for number, run in enumerate(runs):
            table, best = run.history, run.results["best_epoch"]
            for axes, metric in zip(panels, ("accuracy", "loss")):
                name = name_step(run) if number == 0 else None
                axes.plot(table["epoch"], table[f"train_{metric}"], color=colour, linestyle=":", linewidth=1.4)
                axes.plot(table["epoch"], table[f"validation_{metric}"], color=colour, linewidth=1.4, label=name)
                at_best = table[f"validation_{metric}"].iloc[best - 1]
                axes.plot(best, at_best, "o", color=colour, markersize=5, markeredgecolor="white", zorder=3)
    panels[0].set(xlabel="epoch", ylabel="accuracy")
    show_percent(panels[0].yaxis)
    panels[1].set(xlabel="epoch", ylabel="cross-entropy (nats)")
    panels[0].plot([], [], ":", color="black", label="in training")
    panels[0].plot([], [], "-", color="black", label="on validation (● best epoch)")
    add_legend(figure, 4)
    told = ", ".join(_tell_best_epochs(runs) for runs in (before, after))
    return set_title(figure, f"Validation accuracy is highest {told}", before[0].data)


def _tell_best_epochs(runs: list) -> str:
    """After how many epochs runs of a step are best on validation, and how good: "after 5 to 9 in A1 (54.8 ± 0.9%)"."""
    best = sorted(run.results["best_epoch"] for run in runs)
    epochs = " to ".join(str(epoch) for epoch in dict.fromkeys((best[0], best[-1])))
    return (
        f"after {epochs} epochs in {runs[0].experiment.step} ({estimate_metric(runs, 'validation_accuracy').format()}%)"
    )


def plot_accuracies(groups: list[list], metric: str = "validation_accuracy") -> Figure:
    """One metric of every run of several steps, with mean and 95% interval, and the report's figure where it gives one.

    metric: validation_accuracy or test_accuracy; the reports' figures are of validation."""
    figure, axes = make_figure(figsize=(WIDTH, 1.6 + 0.4 * len(groups)))
    for place, runs in enumerate(groups):
        values = collect_results(runs)[metric]
        mean = estimate_metric(runs, metric)
        axes.hlines(place, mean.low, mean.high, color=AFTER, linewidth=2)
        axes.plot(values, [place] * len(values), "|", color=AFTER, markersize=9)
        axes.plot(mean.mean, place, "o", color=AFTER, label="measured: mean, 95% interval, runs" if not place else None)
    reported = [(runs[0].experiment.reported, place) for place, runs in enumerate(groups)]
    told = metric == "validation_accuracy" and not groups[0][0].data.startswith("custom-")  # the reports have FER2013's
    known = [(shares[1], place) for shares, place in reported if shares and told]
    if known:
        axes.plot(*zip(*known), "D", color="black", markerfacecolor="none", label="reported, one run")
    list_rows(axes, [name_step(runs[0]) for runs in groups])
    axes.set_xlabel(f"{metric.split('_')[0]} accuracy at the best epoch")
    low, high = axes.get_xlim()
    if narrow := high - low < 0.08:  # the other locator would halve the points, to which the labels are rounded
        axes.set_xlim(np.floor(100 * low) / 100, np.ceil(100 * high) / 100)
    show_percent(axes.xaxis)
    axes.xaxis.set_major_locator(MultipleLocator(0.01) if narrow else MaxNLocator(8, steps=[1, 2, 5]))
    add_legend(figure, 2)
    return set_title(figure, f"{metric.split('_')[0].capitalize()}: {_tell_best(groups, metric)}", groups[0][0].data)


def _tell_best(groups: list[list], metric: str) -> str:
    """Which step is best, if the best is told from the worst."""
    means = [estimate_metric(runs, metric) for runs in groups]
    order = np.argsort([mean.mean for mean in means])
    worst, best = groups[order[0]], groups[order[-1]]
    apart = f"{100 * (means[order[-1]].mean - means[order[0]].mean):.1f} points"
    if compare_runs(worst, best, metric).low > 0:
        return (
            f"{best[0].experiment.step} is best in the mean, {means[order[-1]].format()}%; the steps lie within {apart}"
        )
    return f"no step is told from another, their means lie within {apart}"


def plot_gaps(groups: list[list]) -> Figure:
    """Accuracy in training, measured on the way (treated images, dropout on) and on the untouched training images,
    beside that on validation at the last epoch, and the gap between them."""
    figure, axes = make_figure(figsize=(WIDTH, 1.6 + 0.7 * len(groups)))
    rows = [(runs, kind) for runs in groups for kind in ("on the way", "untouched")]
    gaps = []
    for place, (runs, kind) in enumerate(rows):
        table, suffix = collect_results(runs), "_clean" if kind == "untouched" else ""
        shares = {"train": table[f"last_train_accuracy{suffix}"], "validation": table["last_validation_accuracy"]}
        axes.hlines(place, *(values.mean() for values in shares.values()), color="#BBBBBB", linewidth=3, zorder=1)
        for (name, values), apart in zip(shares.items(), (-0.12, 0.12)):  # else the one hides the other
            places = [place + apart] * len(values)
            axes.scatter(values, places, s=18, color=SPLIT_COLOURS[name], zorder=2, label=None if place else name)
        gaps.append(estimate_metric(runs, f"last_gap{suffix}"))
    names = [f"{name_step(runs[0])}, {kind}\n{gap.format()} points" for (runs, kind), gap in zip(rows, gaps)]
    list_rows(axes, names, fontsize=8)
    axes.set_xlabel("accuracy at the last epoch, each run a point")
    show_percent(axes.xaxis)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))  # labels are of whole points
    axes.set_xlim(right=min(axes.get_xlim()[1], 1.005))
    add_legend(figure, 2)
    untouched = sorted(zip(gaps[1::2], groups), key=lambda pair: pair[0].mean)
    ends = [f"{format_number(100 * gap.mean)} points in {runs[0].experiment.step}" for gap, runs in untouched]
    told = " to ".join(dict.fromkeys((ends[0], ends[-1])))
    return set_title(figure, f"Gap to validation on the untouched training images: {told}", groups[0][0].data)


def plot_gradient_norms(groups: list[list], first: list[pd.DataFrame]) -> Figure:
    """Norm of the gradient of each layer of weights over the epochs, a panel for each step.

    groups: the runs of each step, whose geometric means are drawn; first: for each step the norms
    before any training, of `loop.measure_first_gradients`, drawn at epoch 0."""
    figure, panels = make_figure(1, len(groups), figsize=(WIDTH, 3.8), sharex=True, sharey=True, squeeze=False)
    grown = []
    for axes, runs, start in zip(panels[0], groups, first, strict=True):
        norms = _mean_norms(runs, start)
        for (layer, values), colour in zip(norms.items(), sns.color_palette("viridis", norms.shape[1])):
            line = "-" if layer.startswith("conv") else "--"
            axes.plot(values.iloc[1:], line, color=colour, label=layer, linewidth=1.6)
            axes.plot(values.iloc[:2], ":o", color=colour, markersize=4, markevery=[0])
        ends = [np.format_float_positional(norm, 2, fractional=False, trim="-") for norm in norms.iloc[[0, -1], 0]]
        grown.append(f"{ends[0]} to {ends[1]} in {runs[0].experiment.step}")
        axes.set_yscale("log")
        axes.set_title(name_step(runs[0]).replace(", ", ",\n"), fontsize=8)
        axes.set_xlabel("epoch (● first batch)", fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    panels[0, 0].set_ylabel("gradient norm, geometric mean of runs")
    panels[0, -1].legend(fontsize=7)
    told = f"The first layer's gradient, from the first batch to the last epoch drawn: {join_names(grown)}"
    return set_title(figure, told, groups[0][0].data)


def _mean_norms(runs: list, start: pd.DataFrame) -> pd.DataFrame:
    """Geometric mean over the runs: a row an epoch that all have, epoch 0 from `start`; a column a layer."""
    tables = [run.history.set_index("epoch").filter(like="gradient_norm/").map(np.log) for run in runs]
    mean = pd.concat(tables).groupby(level=0).mean().loc[: min(map(len, tables))]
    mean.loc[0] = start.map(np.log).mean()
    model = runs[0].experiment.build_model()
    convolutions = sum(model.get_parameter(name.removeprefix("gradient_norm/")).dim() == 4 for name in mean)
    names = [f"conv {i + 1}" if i < convolutions else f"linear {i + 1 - convolutions}" for i in range(mean.shape[1])]
    return np.exp(mean.sort_index()).set_axis(names, axis=1)


def plot_confusions(before: list, after: list, labels: np.ndarray, split: str) -> Figure:
    """Confusion matrices, each row in shares of its class and averaged over the runs."""
    names, counts = [], []
    for runs in (before, after):
        names.append(f"{name_step(runs[0])}, {len(runs)} run{'s' * (len(runs) > 1)}")
        counts.append(sum(calc_confusion(run.logits[split].astype(np.float32), labels) for run in runs))
    figure, told = _draw_confusions(names, counts, 4.55, after[0].classes)
    return set_title(figure, f"{split.capitalize()}, percent of each class: {told}", before[0].data)


def plot_confusion_counts(confusions: dict[str, np.ndarray]) -> Figure:
    """Confusion matrices on the test split side by side, each row in shares of its class.

    confusions: {name: counts (7, 7)}."""
    figure, told = _draw_confusions(list(confusions), list(confusions.values()), 1.85 + 7.6 / len(confusions))
    return set_title(figure, f"Test, percent of each class: {told}")


def _draw_confusions(names: list[str], counts: list[np.ndarray], height: float, classes=EMOTIONS) -> tuple[Figure, str]:
    """Matrices of counts (classes, classes) in percent of each class, and in words where the last is right more often
    than the one before it, and its likeliest error. names: they begin with the step."""
    figure, panels = make_figure(1, len(counts), figsize=(WIDTH, height), sharey=True, squeeze=False)
    for axes, name, matrix in zip(panels[0], names, counts):
        shares = matrix / matrix.sum(1, keepdims=True).clip(1)
        draw_shades(axes, shares, 100 * shares, 0, 1, ".0f", square=True, xticklabels=classes, yticklabels=classes)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("predicted")
        axes.tick_params(axis="x", rotation=90, labelsize=8)
        axes.tick_params(axis="y", rotation=0, labelsize=8, labelleft=axes is panels[0, 0])
    panels[0, 0].set_ylabel("label")
    earlier, later = (matrix.diagonal() / matrix.sum(1).clip(1) for matrix in counts[-2:])
    risen = [name for name, gain in zip(classes, later - earlier) if gain >= 0.01]
    where = f"all {len(classes)} classes" if len(risen) == len(classes) else join_names(risen) or "no class"
    errors = shares * (1 - np.eye(len(shares)))
    label, taken = np.unravel_index(errors.argmax(), errors.shape)
    before, after = (name.split()[0].rstrip(",") for name in names[-2:])
    return figure, (
        f"{after} is right a point or more oftener than {before} in {where}; its likeliest error takes "
        f"{errors[label, taken]:.0%} of {classes[label]} for {classes[taken]}"
    )


def plot_recall_change(before: list, after: list, labels: np.ndarray, split: str) -> Figure:
    """Recall of each class before and after, and the change with its interval over the seeds.

    The intervals are wide enough that of the classes told to change one in twenty is expected not to."""
    recalls = [
        np.stack([calc_recall(calc_confusion(run.logits[split].astype(np.float32), labels)) for run in runs])
        for runs in (before, after)
    ]
    figure, panels = make_figure(1, 2, figsize=(WIDTH, 3.4), sharey=True)
    places = np.arange(len(after[0].classes))
    panels[0].hlines(places, recalls[0].mean(0), recalls[1].mean(0), color="#BBBBBB", zorder=1)
    rings = {"s": 60, "facecolors": "none", "edgecolors": BEFORE, "linewidths": 1.5}  # seen where the two are alike
    for runs, recall, look in zip((before, after), recalls, (rings, {"s": 25, "color": AFTER})):
        panels[0].scatter(recall.mean(0), places, label=name_step(runs[0]), zorder=2, **look)
    changes = _estimate_recall_changes(*recalls)
    kinds = {"better": WON, "worse": LOST, "within chance": "black"}
    for place, (mean, low, high) in zip(places, changes):
        kind = "better" if low > 0 else "worse" if high < 0 else "within chance"
        fill = "white" if kind == "within chance" else kinds[kind]
        panels[1].hlines(place, low, high, color=kinds[kind], linewidth=2)
        panels[1].plot(mean, place, "o", color=kinds[kind], markerfacecolor=fill, label=kind)
    panels[1].axvline(0, color="black", linewidth=0.8)
    add_legend(figure, 5)
    panels[0].set(xlabel="recall", yticks=places, yticklabels=after[0].classes)
    panels[1].set_xlabel("change of recall in points\n(intervals allow for all classes)")
    show_percent(panels[0].xaxis)
    show_points(panels[1].xaxis)
    panels[0].invert_yaxis()
    won, lost = (
        [name for name, change in zip(after[0].classes, changes) if test(*change)]
        for test in (lambda _, low, high: low > 0, lambda _, low, high: high < 0)
    )
    told = f"better for {join_names(won)}, worse for {join_names(lost)}, beyond chance"
    if not won and not lost:
        told = "changed for no class by more than chance"
    return set_title(figure, f"{split.capitalize()} recall of {after[0].experiment.step}: {told}", before[0].data)


def _estimate_recall_changes(before: np.ndarray, after: np.ndarray) -> list[tuple[float, float, float]]:
    """The change of each class's recall, of (runs, classes) each, with the ends of its interval; classes scatter about
    alike, as far as can be seen."""
    places = range(before.shape[1])
    groups = {(side, place): recall[:, place] for side, recall in enumerate((before, after)) for place in places}
    scatters, weights = moderate_variances(groups), [{(1, place): 1.0, (0, place): -1.0} for place in places]
    effects = [estimate_contrast(weight, groups, scatters) for weight in weights]
    confidence = choose_confidence(effects, lambda e, level: e.find_half_width(level) < abs(e.mean))
    return [(effect.mean, *effect.find_interval(confidence)) for effect in effects]
