"""Every figure of the report. Each function returns a matplotlib Figure whose title states what it
shows, taken from the numbers drawn; colours are Okabe and Ito's, which colour-blind readers can
tell apart, and mean the same throughout."""

import math
import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator, PercentFormatter

from fer_lib.augment import crop, rotate
from fer_lib.data import EMOTIONS, SIDE, Dataset, Split
from fer_lib.evaluate import (
    Estimate,
    collect_results,
    compare_runs,
    estimate_accuracy,
    estimate_calibration,
    estimate_mean,
    measure_sensitivity,
)
from fer_lib.explore import calc_eigenfaces, calc_mean_faces, measure_images, tabulate_counts
from fer_lib.metrics import calc_confusion, calc_probabilities, calc_recall, calc_reliability
from fer_lib.statistics import choose_confidence, estimate_contrast, moderate_variances

SPLIT_COLOURS = {"train": "#56B4E9", "validation": "#E69F00", "test": "#009E73"}
BEFORE, AFTER = "#7F7F7F", "#0072B2"  # the step that is compared with, and the step in question
OTHERS = ("#CC79A7", "#000000")  # further steps beside these two
WON, LOST = "#009E73", "#D55E00"
WIDTH = 9  # inches, a page's


def set_style() -> None:
    """Set the look of all figures; every notebook calls it once."""
    sns.set_theme(context="notebook", style="whitegrid", font_scale=0.9)
    plt.rcParams.update(
        {
            "figure.dpi": 100,
            "figure.constrained_layout.use": True,
            "axes.titlelocation": "left",
            "axes.titlesize": "medium",
            "figure.titlesize": "medium",
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )


# --- the data -----------------------------------------------------------------------------


def plot_class_counts(dataset: Dataset) -> Figure:
    """Share of each class in each split; the counts stand above the bars."""
    counts = tabulate_counts(dataset)
    figure, axes = _make_figure(figsize=(WIDTH, 3.6))
    for place, (name, column) in enumerate(counts.items()):
        bars = axes.bar(
            np.arange(len(dataset.classes)) + 0.27 * (place - 1), column / column.sum(), 0.25, color=SPLIT_COLOURS[name]
        )
        axes.bar_label(bars, [f"{count:,}" for count in column], fontsize=6.5, rotation=90, padding=2)
        bars.set_label(f"{name} ({column.sum():,})")
    total = counts["train"].sort_values()
    _set_title(
        figure,
        f"{total.index[-1]} has {total.iloc[-1] / total.iloc[0]:.0f} times as many training images as "
        f"{total.index[0]}; the three splits are alike",
        dataset.name,
    )
    axes.set_xticks(range(len(dataset.classes)), dataset.classes)
    axes.set_ylabel("share of the split")
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.margins(y=0.18)
    axes.grid(axis="x", visible=False)
    axes.legend()
    return figure


def plot_pixel_statistics(dataset: Dataset) -> Figure:
    """Distribution of brightness and contrast over the images of each split."""
    figure, panels = _make_figure(1, 2, figsize=(WIDTH, 3.2), sharey=True)
    measured = {name: measure_images(split) for name, split in dataset.splits.items()}
    titles = ("mean of an image's pixels (grey level, 0–255)", "standard deviation of them (grey levels)")
    for place, (axes, title) in enumerate(zip(panels, titles)):
        for name, values in measured.items():
            bins = np.linspace(0, (255, 110)[place], 52)
            share = np.histogram(values[place], bins)[0] / len(values[place])
            axes.stairs(share, bins, color=SPLIT_COLOURS[name], label=name, linewidth=1.6)
        axes.set_xlabel(title)
    panels[0].set_ylabel("share of the split's images")
    panels[0].yaxis.set_major_formatter(PercentFormatter(1, 0))
    panels[1].legend()
    means = [values[0].mean() for values in measured.values()]
    _set_title(
        figure,
        f"Light and contrast vary widely, alike in all splits (mean grey {min(means):.1f} to {max(means):.1f})",
        dataset.name,
    )
    return figure


def plot_mean_faces(split: Split) -> Figure:
    """The mean image of each class, all in one scale of grey."""
    faces = calc_mean_faces(split)
    counts = np.bincount(split.labels, minlength=len(split.classes))
    titles = [f"{emotion}\n{count:,} images" for emotion, count in zip(split.classes, counts)]
    brightest, darkest = (split.classes[pick(faces.mean((1, 2)))] for pick in (np.nanargmax, np.nanargmin))
    return _draw_images(
        faces,
        titles,
        f"The mean faces differ at mouth, brows and eyes; {brightest} is the brightest, {darkest} the darkest",
        limits=(faces.min(), faces.max()),
        data=split.data,
    )


def plot_mean_face_differences(split: Split) -> Figure:
    """Each class's mean face less the mean of all images: what is its own."""
    faces = calc_mean_faces(split)
    own = faces - split.images.mean(0)
    reach = np.nanmax(np.abs(own))
    strongest = split.classes[np.nanargmax(np.nanstd(own, axis=(1, 2)))]
    return _draw_images(
        own,
        split.classes,
        f"{strongest} departs furthest from the mean of all faces",
        limits=(-reach, reach),
        colours="PuOr_r",
        label="grey levels\nabove the mean",
        data=split.data,
    )


def plot_eigenfaces(split: Split, count: int = 7) -> Figure:
    """The main directions in which the images vary."""
    faces, shares = calc_eigenfaces(split, count)
    reach = np.abs(faces).max()
    titles = [f"{place}: {share:.0%}" for place, share in enumerate(shares, start=1)]
    return _draw_images(
        faces,
        titles,
        f"The first {count} eigenfaces hold {shares.sum():.0%} of the variance, and most of them are light and pose",
        limits=(-reach, reach),
        colours="PuOr_r",
        label="weight",
        data=split.data,
    )


def plot_agreement(agreement: pd.DataFrame) -> Figure:
    """How far FER+'s ten taggers share FER2013's label, by class and by image."""
    figure, panels = _make_figure(1, 2, figsize=(WIDTH, 3.4), width_ratios=(1.25, 1))
    by_class = agreement.groupby("label")["agrees"].mean()
    bars = panels[0].bar(range(len(by_class)), by_class, color=AFTER)
    panels[0].bar_label(bars, [f"{share:.0%}" for share in by_class], padding=2)
    panels[0].axhline(agreement["agrees"].mean(), color=BEFORE, linestyle="--", linewidth=1.2)
    panels[0].annotate(
        f"all: {agreement['agrees'].mean():.0%}", (1.5, agreement["agrees"].mean() + 0.02), color="#555555"
    )
    panels[0].set_xticks(range(len(EMOTIONS)), EMOTIONS, rotation=25)
    panels[0].set(ylim=(0, 1.05), ylabel="images whose FER+ majority\nis FER2013's label")
    panels[0].yaxis.set_major_formatter(PercentFormatter(1, 0))
    panels[0].grid(axis="x", visible=False)
    edges = np.linspace(-0.05, 1.05, 12)
    shares = np.histogram(agreement["share"], edges)[0] / len(agreement)
    panels[1].bar(edges[:-1] + 0.05, shares, 0.085, color=AFTER)
    panels[1].set(xlabel="taggers who chose FER2013's label", ylabel="share of the images")
    panels[1].yaxis.set_major_locator(MultipleLocator(0.05))
    for axis in (panels[1].xaxis, panels[1].yaxis):
        axis.set_major_formatter(PercentFormatter(1, 0))
    worst, best = EMOTIONS[by_class.idxmin()], EMOTIONS[by_class.idxmax()]
    _set_title(
        figure,
        f"FER2013's label is the majority's for {agreement['agrees'].mean():.0%} of the images: "
        f"{by_class.max():.0%} of {best}, {by_class.min():.0%} of {worst}",
    )
    return figure


# --- the treatment of the images ------------------------------------------------------------


def plot_balancing(before: Split, after: Split) -> Figure:
    """Counts of each class, the copies set apart from the originals."""
    originals = np.bincount(before.labels, minlength=len(before.classes))
    copies = np.bincount(after.labels, minlength=len(before.classes)) - originals
    figure, axes = _make_figure(figsize=(WIDTH, 3.4))
    axes.bar(before.classes, originals, 0.6, color=BEFORE, label="originals")
    bars = axes.bar(before.classes, copies, 0.6, bottom=originals, color=AFTER, label="copies, ±10 in grey level")
    times = (originals + copies) / np.maximum(originals, 1)
    axes.bar_label(bars, [f"×{factor:.1f}" if factor > 1 else "" for factor in times], padding=2)
    most = int(np.argmax(times))
    _set_title(
        figure,
        f"Balancing takes the training split from {len(before):,} to {len(after):,} images; each "
        f"{before.classes[most]} face is seen {times[most]:.0f} times",
        before.data,
    )
    axes.set_ylabel("training images")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylim(0, 1.1 * (originals + copies).max())
    axes.grid(axis="x", visible=False)
    axes.legend(ncols=2, loc="lower right", framealpha=1)
    return figure


def plot_balanced_faces(before: Split, after: Split) -> Figure:
    """The class means of the copies less those of the originals."""
    change = calc_mean_faces(after) - calc_mean_faces(before)
    reach = np.nanmax(np.abs(change))
    means = np.nanmean(change, axis=(1, 2))
    return _draw_images(
        change,
        [f"{emotion}\n{mean:+.2f} on average" for emotion, mean in zip(before.classes, means)],
        f"Balancing moves no class's mean face by more than {reach:.1f} of 255 grey levels",
        limits=(-reach, reach),
        colours="PuOr_r",
        label="grey levels",
        data=before.data,
    )


def plot_augmentations(face: np.ndarray, rotation: float, crop_padding: int, name: str) -> Figure:
    """Flip, and the extremes of rotation and crop, of one float (48, 48) image, 0-255: a mean face."""
    image = torch.from_numpy(face).float()[None, None]
    padded = torch.nn.functional.pad(image, [crop_padding] * 4)
    far = 2 * crop_padding

    def cut(top: int, left: int) -> torch.Tensor:
        return crop(padded, torch.tensor([top]), torch.tensor([left]), *image.shape[-2:])

    pictures = {
        "as it is": image,
        "flipped": image.flip(-1),
        f"rotated +{rotation:g}°": rotate(image, torch.tensor([rotation])),
        f"rotated −{rotation:g}°": rotate(image, torch.tensor([-rotation])),
        f"cropped:\n{crop_padding} px down and right": cut(0, 0),
        f"cropped:\n{crop_padding} px up and left": cut(far, far),
        "all three": crop(
            torch.nn.functional.pad(rotate(image.flip(-1), torch.tensor([rotation])), [crop_padding] * 4),
            torch.tensor([0]), torch.tensor([far]), *image.shape[-2:],
        ),
    }  # fmt: skip
    return _draw_images(
        np.stack([picture[0, 0].numpy() for picture in pictures.values()]),
        list(pictures),
        f"Flip, rotation and crop move the face and keep its expression ({name}, the extremes)",
        limits=(0, 255),
    )


def plot_blurring(face: np.ndarray, means: dict[str, np.ndarray]) -> Figure:
    """An image, float (48, 48), 0-255, and means of many random transformations of it."""
    inner = slice(SIDE // 6, -SIDE // 6)  # away from the black that rotation and crop bring in
    lost = {name: 1 - mean[inner, inner].std() / face[inner, inner].std() for name, mean in means.items()}
    titles = ["as it is", *(f"{name}\n{share:.0%} of contrast lost" for name, share in lost.items())]
    strongest = max(list(lost)[:3], key=lost.get)
    return _draw_images(
        np.stack([face, *means.values()]),
        titles,
        f"Of the three, {strongest} smears the features most: {lost[strongest]:.0%} of their contrast is lost",
        limits=(0, 255),
    )


def plot_faces(split: Split, count: int = 10) -> Figure:
    """The first images of each class: for a reader who has the data, never in what is published of FER2013."""
    sheet = np.full((len(split.classes), count, SIDE, SIDE), 255, np.uint8)
    for label, row in enumerate(sheet):
        found = split.images[split.labels == label][:count]
        row[: len(found)] = found
    figure, axes = _make_figure(figsize=(WIDTH, WIDTH * len(split.classes) / count))
    axes.imshow(sheet.swapaxes(1, 2).reshape(len(split.classes) * SIDE, count * SIDE), cmap="gray", vmin=0, vmax=255)
    axes.set_yticks(SIDE * (np.arange(len(split.classes)) + 0.5), split.classes)
    axes.set_xticks([])
    axes.grid(visible=False)
    _set_title(
        figure, f"The first {count} {split.name} images labelled with each class; some labels are wrong", split.data
    )
    return figure


def _draw_images(
    images: np.ndarray,
    titles: list[str],
    title: str,
    limits: tuple[float, float],
    colours: str = "gray",
    label: str = "grey level",
    data: str = "fer2013",
) -> Figure:
    """A row of images (N, 48, 48) in one colour scale, with its bar."""
    figure, panels = _make_figure(1, len(images), figsize=(WIDTH, 2.05))
    for axes, image, text in zip(panels, images, titles):
        drawn = axes.imshow(image, cmap=colours, vmin=limits[0], vmax=limits[1])
        axes.set_title(text, fontsize=8, loc="center")
        axes.axis("off")
    bar = figure.colorbar(drawn, ax=panels, fraction=0.012, pad=0.01)
    bar.ax.tick_params(labelsize=7)
    bar.set_label(label, fontsize=7)
    _set_title(figure, title, data)
    return figure


# --- the runs -------------------------------------------------------------------------------


def plot_curves(before: list, after: list) -> Figure:
    """Accuracy and loss over the epochs, in training and on validation: each run thin, the best epoch of each marked.

    before, after: the runs of the step compared with and of the step in question."""
    figure, panels = _make_figure(1, 2, figsize=(WIDTH, 3.8))
    for runs, colour in ((before, BEFORE), (after, AFTER)):
        for number, run in enumerate(runs):
            table, best = run.history, run.results["best_epoch"]
            for axes, metric in zip(panels, ("accuracy", "loss")):
                name = _name(run) if number == 0 else None
                axes.plot(table["epoch"], table[f"train_{metric}"], color=colour, linestyle=":", linewidth=1.4)
                axes.plot(table["epoch"], table[f"validation_{metric}"], color=colour, linewidth=1.4, label=name)
                at_best = table[f"validation_{metric}"].iloc[best - 1]
                axes.plot(best, at_best, "o", color=colour, markersize=5, markeredgecolor="white", zorder=3)
    panels[0].set(xlabel="epoch", ylabel="accuracy")
    panels[0].yaxis.set_major_formatter(PercentFormatter(1, 0))
    panels[1].set(xlabel="epoch", ylabel="cross-entropy (nats)")
    panels[0].plot([], [], ":", color="black", label="in training")
    panels[0].plot([], [], "-", color="black", label="on validation (● best epoch)")
    panels[0].legend(fontsize=8)
    gaps = [estimate_mean(collect_results(runs)["last_gap"]) for runs in (before, after)]
    _set_title(
        figure,
        f"At the end of training the gap to validation is {gaps[0].format()} points for "
        f"{before[0].experiment.step}, {gaps[1].format()} for {after[0].experiment.step}",
        before[0].data,
    )
    return figure


def plot_accuracies(groups: list[list], metric: str = "validation_accuracy") -> Figure:
    """One metric of every run of several steps, with mean and 95% interval, and the report's figure where it gives one.

    metric: validation_accuracy or test_accuracy; the reports' figures are of validation."""
    figure, axes = _make_figure(figsize=(WIDTH, 1.6 + 0.4 * len(groups)))
    means = []
    for place, runs in enumerate(groups):
        values = collect_results(runs)[metric]
        mean = estimate_mean(values)
        means.append(mean)
        axes.hlines(place, mean.low, mean.high, color=AFTER, linewidth=2)
        axes.plot(values, [place] * len(values), "|", color=AFTER, markersize=9)
        axes.plot(mean.mean, place, "o", color=AFTER, label="measured: mean, 95% interval, runs" if not place else None)
    reported = [(runs[0].experiment.reported, place) for place, runs in enumerate(groups)]
    told = metric == "validation_accuracy" and not groups[0][0].data.startswith("custom-")  # the reports have FER2013's
    known = [(shares[1], place) for shares, place in reported if shares and told]
    if known:
        axes.plot(*zip(*known), "D", color="black", markerfacecolor="none", label="reported, one run")
    axes.set(yticks=range(len(groups)), yticklabels=[_name(runs[0]) for runs in groups])
    axes.set_xlabel(f"{metric.split('_')[0]} accuracy at the best epoch")
    low, high = axes.get_xlim()
    if narrow := high - low < 0.08:  # the other locator would halve the points, to which the labels are rounded
        axes.set_xlim(np.floor(100 * low) / 100, np.ceil(100 * high) / 100)
    axes.xaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.xaxis.set_major_locator(MultipleLocator(0.01) if narrow else MaxNLocator(8, steps=[1, 2, 5]))
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    figure.legend(fontsize=8, loc="outside lower center", ncols=2)
    best = int(np.argmax([mean.mean for mean in means]))
    _set_title(
        figure,
        f"{metric.split('_')[0].capitalize()}: {groups[best][0].experiment.step} is best in the mean, "
        f"{means[best].format()}%; the steps lie within {100 * np.ptp([mean.mean for mean in means]):.1f} points",
        groups[0][0].data,
    )
    return figure


def plot_gaps(groups: list[list]) -> Figure:
    """Accuracy in training, as met and clean, beside that on validation at the last epoch, and the gap between them."""
    figure, axes = _make_figure(figsize=(WIDTH, 1.6 + 0.7 * len(groups)))
    rows = [(runs, kind) for runs in groups for kind in ("as met", "clean")]
    gaps = []
    for place, (runs, kind) in enumerate(rows):
        table, suffix = collect_results(runs), "_clean" if kind == "clean" else ""
        shares = {"train": table[f"last_train_accuracy{suffix}"], "validation": table["last_validation_accuracy"]}
        axes.hlines(place, *(values.mean() for values in shares.values()), color="#BBBBBB", linewidth=3, zorder=1)
        for name, values in shares.items():
            axes.scatter(
                values, [place] * len(values), s=18, color=SPLIT_COLOURS[name], zorder=2, label=None if place else name
            )
        gaps.append(estimate_mean(table[f"last_gap{suffix}"]))
    names = [f"{_name(runs[0])}, {kind}\n{gap.format()} points" for (runs, kind), gap in zip(rows, gaps)]
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set_xlabel("accuracy at the last epoch, each run a point")
    axes.xaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))  # labels are of whole points
    axes.set_xlim(right=min(axes.get_xlim()[1], 1.005))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    figure.legend(fontsize=8, loc="outside lower center", ncols=2)
    steps = [f"{round(100 * gap.mean)} in {runs[0].experiment.step}" for gap, (runs, _) in zip(gaps, rows)]
    _set_title(
        figure,
        f"Gap from training to validation in points: as met {join_names(steps[::2])}; clean {join_names(steps[1::2])}",
        groups[0][0].data,
    )
    return figure


def plot_gradient_norms(groups: list[list], first: list[pd.DataFrame]) -> Figure:
    """Norm of the gradient of each layer of weights over the epochs, a panel for each step.

    groups: the runs of each step, whose geometric means are drawn; first: for each step the norms
    before any training, of `train.measure_first_gradients`, drawn at epoch 0."""
    figure, panels = _make_figure(1, len(groups), figsize=(WIDTH, 3.8), sharey=True, squeeze=False)
    totals = []
    for axes, runs, start in zip(panels[0], groups, first, strict=True):
        norms = _mean_norms(runs, start)
        for (layer, values), colour in zip(norms.items(), sns.color_palette("viridis", norms.shape[1])):
            axes.plot(values.iloc[1:], color=colour, label=layer, linewidth=1.6)
            axes.plot(values.iloc[:2], ":o", color=colour, markersize=4, markevery=[0])
        whole = np.sqrt((norms**2).sum(axis=1))
        norm = np.format_float_positional(whole[0], 2, fractional=False, trim="-")
        totals.append(f"{norm} in {runs[0].experiment.step}")
        axes.set_yscale("log")
        axes.set_title(_name(runs[0]).replace(", ", ",\n"), fontsize=8)
        axes.set_xlabel("epoch (● first batch)", fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    panels[0, 0].set_ylabel("gradient norm, mean over batches")
    panels[0, -1].legend(fontsize=7)
    _set_title(
        figure, f"The first batch's gradient has a norm, over all layers, of {join_names(totals)}", groups[0][0].data
    )
    return figure


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
    figure, panels = _make_figure(1, 2, figsize=(WIDTH, 4.3), sharey=True)
    for axes, runs in zip(panels, (before, after)):
        name = f"{_name(runs[0])}, {len(runs)} run{'s' * (len(runs) > 1)}"
        _draw_confusion(axes, _mean_confusion(runs, labels, split), name, axes is panels[0], runs[0].classes)
    panels[0].set_ylabel("label")
    shares = _mean_confusion(after, labels, split)
    np.fill_diagonal(shares, 0)
    label, taken = np.unravel_index(np.nanargmax(shares), shares.shape)
    _set_title(
        figure,
        f"{split.capitalize()}, percent of each class: {after[0].experiment.step} takes "
        f"{shares[label, taken]:.0%} of {after[0].classes[label]} for {after[0].classes[taken]}, its commonest error",
        before[0].data,
    )
    return figure


def _draw_confusion(axes, shares: np.ndarray, name: str, labelled: bool, classes=EMOTIONS) -> None:
    """One matrix of shares (classes, classes), 0-1, in percent; labelled: whether the classes stand at its left."""
    sns.heatmap(
        shares, vmin=0, vmax=1, cmap="Blues", annot=100 * shares, fmt=".0f", annot_kws={"fontsize": 8},
        square=True, cbar=False, xticklabels=classes, yticklabels=classes, ax=axes,
    )  # fmt: skip
    axes.set_title(name, fontsize=9)
    axes.set_xlabel("predicted")
    axes.tick_params(axis="x", rotation=90, labelsize=8)
    axes.tick_params(axis="y", rotation=0, labelsize=8, labelleft=labelled)


def plot_recall_change(before: list, after: list, labels: np.ndarray, split: str) -> Figure:
    """Recall of each class before and after, and the change with its interval over the seeds.

    The intervals are wide enough that of the classes told to change one in twenty is expected not to."""
    recalls = [
        np.stack([calc_recall(calc_confusion(run.logits[split].astype(np.float32), labels)) for run in runs])
        for runs in (before, after)
    ]
    figure, panels = _make_figure(1, 2, figsize=(WIDTH, 3.4), sharey=True)
    places = np.arange(len(after[0].classes))
    panels[0].hlines(places, recalls[0].mean(0), recalls[1].mean(0), color="#BBBBBB", zorder=1)
    for runs, recall, colour in zip((before, after), recalls, (BEFORE, AFTER)):
        panels[0].scatter(recall.mean(0), places, color=colour, label=_name(runs[0]), s=36, zorder=2)
    changes = _estimate_recall_changes(*recalls)
    for place, change in zip(places, changes):
        colour = WON if change.low > 0 else LOST if change.high < 0 else BEFORE
        panels[1].plot(change.mean, place, "o", color=colour)
        panels[1].hlines(place, change.low, change.high, color=colour, linewidth=2)
    panels[1].axvline(0, color="black", linewidth=0.8)
    panels[0].set(xlabel="recall", yticks=places, yticklabels=after[0].classes)
    panels[1].set_xlabel("change of recall in points, with interval over seeds")
    panels[0].xaxis.set_major_formatter(PercentFormatter(1, 0))
    panels[1].xaxis.set_major_formatter(lambda share, _: f"{100 * share:+g}" if share else "0")
    panels[0].invert_yaxis()
    panels[0].legend(fontsize=8)
    won, lost = (
        [after[0].classes[i] for i in places if test(changes[i])]
        for test in (lambda c: c.low > 0, lambda c: c.high < 0)
    )
    _set_title(
        figure,
        f"{split.capitalize()} recall of {after[0].experiment.step}: better for {join_names(won)}, "
        f"worse for {join_names(lost)} (interval clear of zero)",
        before[0].data,
    )
    return figure


def _estimate_recall_changes(before: np.ndarray, after: np.ndarray) -> list[Estimate]:
    """The change of each class's recall, of (runs, classes) each; classes scatter alike, as far as can be seen."""
    places = range(before.shape[1])
    groups = {(side, place): recall[:, place] for side, recall in enumerate((before, after)) for place in places}
    scatters, weights = moderate_variances(groups), [{(1, place): 1.0, (0, place): -1.0} for place in places]
    effects = [estimate_contrast(weight, groups, scatters) for weight in weights]
    confidence = choose_confidence(effects, lambda e, level: e.find_half_width(level) < abs(e.mean))
    return [Estimate(effect.mean, *effect.find_interval(confidence), len(after)) for effect in effects]


EFFECTS = {
    "validation_accuracy": "validation accuracy",
    "test_accuracy": "test accuracy",
    "last_gap_clean": "gap from training to validation, clean",
}


def plot_effects(groups: dict[str, tuple[list, list[list]]]) -> Figure:
    """What each treatment changes, for several architectures: validation and test accuracy and the gap, each against
    the architecture's own beginning, with 95% intervals.

    groups: {architecture: (runs to begin with, [runs of a treatment, ...])}, the same treatments for each."""
    figure, panels = _make_figure(
        1, len(EFFECTS), figsize=(WIDTH, 1.8 + 0.45 * len(next(iter(groups.values()))[1])), sharey=True
    )
    colours, best = dict(zip(groups, (BEFORE, AFTER))), {}
    for axes, (metric, label) in zip(panels, EFFECTS.items()):
        axes.axvline(0, color="black", linewidth=0.8)
        for side, (name, (start, treated)) in enumerate(groups.items()):
            changes = [compare_runs(start, runs, metric) for runs in treated]
            places = np.arange(len(treated)) + 0.15 * (2 * side - 1)
            axes.hlines(places, [c.low for c in changes], [c.high for c in changes], color=colours[name], linewidth=2)
            axes.plot([c.mean for c in changes], places, "o", color=colours[name], markersize=5, label=name)
            if metric == "validation_accuracy":
                top = int(np.argmax([c.mean for c in changes]))
                best[name] = f"{_treatment(treated[top])} in {name} ({100 * changes[top].mean:+.1f})"
        axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:+g}")
        axes.set_xlabel(f"{label}\n(points)", fontsize=8)
        axes.grid(axis="y", visible=False)
    panels[0].set_yticks(range(len(treated)), [_treatment(runs) for runs in treated])
    panels[0].set_ylim(len(treated) - 0.5, -0.5)
    figure.legend(*panels[0].get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=2)
    _set_title(figure, f"Most points gained on validation: {join_names(list(best.values()))}")
    return figure


def _treatment(runs: list) -> str:
    """What is done to the images of these runs."""
    augmentation, words = runs[0].experiment.augmentation, []
    for field, word in (("flip", "flip"), ("rotation", "rotation"), ("crop_padding", "crop"), ("shift", "shift")):
        words += [word] * bool(getattr(augmentation, field))
    return ", ".join(["balanced"] * runs[0].experiment.balance + words) or "untreated"


def plot_rotations(degrees: dict[str, np.ndarray]) -> Figure:
    """How far the faces of each split are turned. degrees: {split: float (N,)} of `explore.estimate_rotations`."""
    figure, axes = _make_figure(figsize=(WIDTH, 3.2))
    bins, told = np.arange(-40, 41, 2), {}
    for name, values in degrees.items():
        found = values[np.isfinite(values)]
        shares = np.histogram(found, bins)[0] / len(found)
        label = f"{name}, for {len(found) / len(values):.0%} of the images"
        axes.stairs(shares, bins, color=SPLIT_COLOURS[name], label=label, linewidth=1.6)
        told[name] = np.median(np.abs(found))
    axes.set_xlabel("estimated rotation in the picture's plane (degrees, counter-clockwise)")
    axes.set_ylabel("share of these")
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.legend(fontsize=8)
    _set_title(
        figure,
        f"Test faces are turned by {told['test']:.1f}° in the median, training faces by {told['train']:.1f}°",
    )
    return figure


def plot_reliability(groups: list[list], labels: np.ndarray, temperatures: list[float]) -> Figure:
    """How often each network is right when it is so sure, on the test split, as trained and after its temperature.

    groups: the runs of each step, whose images are pooled; labels: int (N,); temperatures: one a step, 1 where none
    is to be used."""
    figure, panels = _make_figure(1, len(groups), figsize=(WIDTH, 3.6), sharey=True, squeeze=False)
    told, untouched = [], []
    for axes, runs, temperature in zip(panels[0], groups, temperatures, strict=True):
        axes.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=1)
        shown = [(1.0, BEFORE, "as trained"), (temperature, AFTER, f"temperature {temperature:.2f}")]
        for value, colour, label in shown[: 1 + (temperature != 1)]:
            shares = np.concatenate([calc_probabilities(run.logits["test"], value) for run in runs])
            table = calc_reliability(shares, np.tile(labels, len(runs)))
            axes.plot(table["confidence"], table["accuracy"], "o-", color=colour, markersize=4, label=label)
        axes.set_title(f"{_name(runs[0])}", fontsize=9)
        axes.set(xlabel="confidence", xlim=(0, 1), ylim=(0, 1))
        axes.xaxis.set_major_formatter(PercentFormatter(1, 0))
        axes.legend(fontsize=8, loc="lower right")
        logits = [run.logits["test"] for run in runs]
        before, after = (100 * estimate_calibration(logits, labels, value).mean for value in (1.0, temperature))
        step = runs[0].experiment.step
        if temperature == 1:
            untouched.append(f"{step} ({before:.1f})")
        else:
            told.append(f"{before:.1f} to {after:.1f} in {step}")
    panels[0, 0].set_ylabel("accuracy on the test split")
    panels[0, 0].yaxis.set_major_formatter(PercentFormatter(1, 0))
    parts = [f"a temperature brings it from {join_names(told)}"] * bool(told)
    parts += [f"none is used for {join_names(untouched)}"] * bool(untouched)
    _set_title(figure, f"Calibration error on test, in points: {'; '.join(parts)}")
    return figure


def plot_accuracy_by_agreement(groups: list[list], labels: np.ndarray, share: np.ndarray) -> Figure:
    """Test accuracy of each step against how many of FER+'s taggers chose FER2013's label, and how many images that is.

    groups: the runs of at most four steps; labels: int (N,); share: of the votes for the label, float (N,), 0-1."""
    tenths = np.round(10 * share).astype(int)
    counts = np.bincount(tenths, minlength=11)
    places = np.flatnonzero(counts)
    figure, (axes, below) = _make_figure(2, 1, figsize=(WIDTH, 4.4), sharex=True, height_ratios=(3, 1))
    for runs, colour in zip(groups, (BEFORE, *OTHERS[: len(groups) - 2], AFTER)):
        found = [estimate_accuracy(runs, labels, tenths == place) for place in places]
        axes.fill_between(places / 10, [e.low for e in found], [e.high for e in found], color=colour, alpha=0.2)
        axes.plot(places / 10, [e.mean for e in found], "o-", color=colour, markersize=4, label=_name(runs[0]))
    axes.set(ylabel="test accuracy", ylim=(0, 1))
    axes.legend(fontsize=8)
    below.bar(places / 10, counts[places], 0.085, color=BEFORE)
    below.set(xlabel="taggers who chose FER2013's label", ylabel="test images")
    for axis in (axes.yaxis, below.xaxis):
        axis.set_major_formatter(PercentFormatter(1, 0))
    step, ends = groups[-1][0].experiment.step, [found[0].mean, found[-1].mean]
    _set_title(
        figure, f"Where no tagger shares the label, {step} is right on {ends[0]:.0%}; where all do, on {ends[1]:.0%}"
    )
    return figure


HUMAN = (
    0.60,
    0.70,
)  # accuracy of people on FER2013: 65 ± 5% (Goodfellow et al. 2013, doi:10.1007/978-3-642-42051-1_16)


def plot_ladder(reports: dict[str, list[list]]) -> Figure:
    """Validation and test accuracy of every step, with intervals, beside what its report gives, a panel a report.

    reports: {name: the runs of each of its steps}."""
    counts = [len(groups) for groups in reports.values()]
    figure, panels = _make_figure(
        1, len(reports), figsize=(WIDTH, 4), sharey=True, squeeze=False, width_ratios=[count + 1 for count in counts]
    )
    told = []
    for axes, (name, groups) in zip(panels[0], reports.items()):
        axes.axhspan(*HUMAN, color="#EEEEEE", zorder=0, label="people (published)")
        for split, offset in (("validation", -0.13), ("test", 0.13)):
            found = [estimate_mean(collect_results(runs)[f"{split}_accuracy"]) for runs in groups]
            for place, effect in enumerate(found):
                axes.vlines(place + offset, effect.low, effect.high, color=SPLIT_COLOURS[split], linewidth=2)
            means = [effect.mean for effect in found]
            if split == "validation":
                best = int(np.argmax(means))
            label = f"measured, {split}: mean, 95% interval"
            axes.plot(np.arange(len(found)) + offset, means, "o", color=SPLIT_COLOURS[split], markersize=5, label=label)
        reported = [(p, runs[0].experiment.reported) for p, runs in enumerate(groups)]
        known = [(place - 0.13, shares[1]) for place, shares in reported if shares]
        if known:
            axes.plot(*zip(*known), "D", color="black", markerfacecolor="none", label="reported, validation")
        told.append(f"{found[best].format()}% ({groups[best][0].experiment.step})")
        axes.set_title(name, fontsize=9)
        axes.set_xticks(range(len(groups)), [runs[0].experiment.step for runs in groups], fontsize=8)
        axes.set(xlabel="step", xlim=(-0.5, len(groups) - 0.5))
        axes.grid(axis="x", visible=False)
    panels[0, 0].set_ylabel("accuracy")
    panels[0, 0].yaxis.set_major_formatter(PercentFormatter(1, 0))
    handles = {label: h for axes in panels[0] for h, label in zip(*axes.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), fontsize=8, loc="outside lower center", ncols=4)
    _set_title(figure, f"Test accuracy of the best step on validation: {join_names(told)}")
    return figure


def plot_gains(pairs: list[tuple[list, list]]) -> Figure:
    """What each step brings over the one that it changes, on validation and test, with 95% interval.

    pairs: the runs of the step before and of the step in question."""
    figure, axes = _make_figure(figsize=(WIDTH, 1.6 + 0.4 * len(pairs)))
    axes.axvline(0, color="black", linewidth=0.8)
    for split, offset in (("validation", -0.13), ("test", 0.13)):
        metric = f"{split}_accuracy"
        gains = [compare_runs(*pair, metric) for pair in pairs]
        places, colour = np.arange(len(gains)) + offset, SPLIT_COLOURS[split]
        axes.hlines(places, [gain.low for gain in gains], [gain.high for gain in gains], color=colour, linewidth=2)
        axes.plot([gain.mean for gain in gains], places, "o", color=colour, label=f"{split}: mean, 95% interval")
        if split == "validation":
            steps = [after[0].experiment.step for _, after in pairs]
            helping = [f"{step} ({gain.format(sign=True)})" for step, gain in zip(steps, gains) if gain.low > 0]
    names = [f"{before[0].experiment.step} to {_name(after[0])}" for before, after in pairs]
    axes.set(yticks=range(len(gains)), yticklabels=names)
    axes.set_xlabel("gain, in points of accuracy")
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:+g}" if share else "0")
    axes.set_ylim(len(gains) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    figure.legend(fontsize=8, loc="outside lower center", ncols=2)
    many = f"{len(helping)} gain{'s' * (len(helping) == 1)}" if helping else "none gains"
    told = f": {join_names(helping)}" if helping else ""
    _set_title(figure, f"Of {len(gains)} steps, {many} beyond chance on validation{told}")
    return figure


VERDICT_COLOURS = {"true": WON, "false": LOST, "too small to matter": OTHERS[0], "undecided": BEFORE}


def plot_statements(statements: list, verdicts: pd.DataFrame) -> Figure:
    """The effect that each statement was judged by, with its interval, and what its report gives: accuracies and gaps
    each on an axis of their own, in points. Arguments of `claims.read_claims` and `claims.read_verdicts`."""
    measured = [s for s in statements if s.quantity and s.quantity.unit == "points" and s.number in verdicts.index]
    measured = [s for s in measured if not pd.isna(verdicts.loc[s.number, "effect"])]
    accuracies = [s for s in measured if s.quantity.column == "validation_accuracy"]
    parts = [part for part in (accuracies, [s for s in measured if s not in accuracies]) if part]
    figure, panels = _make_figure(
        len(parts), 1, figsize=(WIDTH, 1.8 + 0.3 * len(measured)), height_ratios=[len(part) + 1 for part in parts],
        squeeze=False,
    )  # fmt: skip
    for axes, part in zip(panels[:, 0], parts):
        _draw_statements(axes, part, verdicts)
        matters = {100 * statement.quantity.matters for statement in part}
        band = f"grey: within {matters.pop():g} point" if len(matters) == 1 else "no grey band"
        what = "validation accuracy" if part is accuracies else "gaps, and other shares"
        axes.set_xlabel(f"effect on {what}, in points ({band})", fontsize=8)
    found = set(verdicts.loc[[statement.number for statement in measured], "verdict"])
    for name in (name for name in VERDICT_COLOURS if name in found):
        panels[0, 0].plot([], [], "o-", color=VERDICT_COLOURS[name], label=name)
    panels[0, 0].plot([], [], "D", color="black", markerfacecolor="none", label="reported")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=5)
    counts = verdicts.loc[[statement.number for statement in measured], "verdict"].value_counts()
    told = [f"{counts[name]} {name}" for name in VERDICT_COLOURS if name in counts]
    _set_title(figure, f"Of {len(measured)} statements measured in points {join_names(told)}")
    return figure


def _draw_statements(axes, statements: list, verdicts: pd.DataFrame) -> None:
    axes.axvline(0, color="black", linewidth=0.8)
    matters = {statement.quantity.matters for statement in statements}
    if len(matters) == 1:
        axes.axvspan(-min(matters), min(matters), color="#EEEEEE", zorder=0)
    for place, statement in enumerate(statements):
        row = verdicts.loc[statement.number]
        colour = VERDICT_COLOURS[row["verdict"]]
        axes.hlines(place, row["low"], row["high"], color=colour, linewidth=2)
        axes.plot(row["effect"], place, "o", color=colour, markersize=4)
        if not np.isnan(statement.reported):
            axes.plot(statement.reported, place, "D", color="black", markerfacecolor="none", markersize=6)
    labels = [textwrap.fill(f"{statement.number}  {statement.says}", 56) for statement in statements]
    axes.set_yticks(range(len(statements)), labels, fontsize=7)
    axes.set_ylim(len(statements) - 0.5, -0.5)
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:+g}" if share else "0")
    axes.grid(axis="y", visible=False)


def plot_method(method: dict) -> Figure:
    """The method of judging tried on itself: halves of one experiment's runs against each other, and how often an
    effect of each size would be found. method: of `claims.try_method`."""
    figure, (left, right) = _make_figure(1, 2, figsize=(WIDTH, 3.6))
    values = np.array(method["reach"])
    left.hist(values, np.arange(0, max(2, values.max()) + 0.125, 0.125), color=BEFORE)
    left.axvline(1, color=LOST, linestyle="--", linewidth=1.4, label="beyond: told apart")
    left.set(
        xlabel="difference of two halves, in half-widths of its interval", ylabel="divisions of one experiment's runs"
    )
    left.legend(fontsize=8)
    points = 100 * np.array(method["effects"])
    for (words, by_seeds), colour in zip(method["power"].items(), (BEFORE, AFTER)):
        for (seeds, shares), style in zip(by_seeds.items(), (":", "-")):
            right.plot(points, shares, f"o{style}", color=colour, markersize=4, label=f"{words}, {seeds} runs each")
    right.axhline(0.05, color=LOST, linestyle="--", linewidth=1.2)
    right.axvspan(0, 1, color="#EEEEEE", zorder=0)
    right.set(xlabel="true effect on validation accuracy (points)", ylabel="share of trials in which it is found")
    right.yaxis.set_major_formatter(PercentFormatter(1, 0))
    right.legend(fontsize=7.5, loc="lower right")
    two = method["effects"].index(0.02)
    few, many = ([shares[seeds][two] for shares in method["power"].values()] for seeds in ("3", "10"))
    _set_title(
        figure,
        f"Where there is no difference, {method['different']:.1%} of {method['divisions']} comparisons find one; "
        f"a true effect of two points is found by three runs in {min(few):.0%} of trials or more, by ten in "
        f"{min(many):.0%}",
    )
    return figure


def plot_regime(groups: list[list], reported: list) -> Figure:
    """Validation accuracy against accuracy in training, as met, epoch by epoch: a line a run, the report's points.

    groups: the runs of each step; reported: experiments with a report's accuracies."""
    figure, axes = _make_figure(figsize=(WIDTH, 5))
    colours = dict(zip([runs[0].experiment.step for runs in groups], sns.color_palette("viridis", len(groups))))
    for runs in groups:
        step = runs[0].experiment.step
        for number, run in enumerate(runs):
            label = _name(run) if number == 0 else None
            axes.plot(
                run.history["train_accuracy"], run.history["validation_accuracy"], color=colours[step], label=label,
                linewidth=1.2, alpha=0.8,
            )  # fmt: skip
    for experiment in reported:
        train, validation = experiment.reported
        colour = colours.get(experiment.step, "black")
        axes.plot(train, validation, "D", color=colour, markeredgecolor="black", markersize=8, zorder=4)
        axes.annotate(experiment.step, (train, validation), xytext=(7, -3), textcoords="offset points", fontsize=8)
    axes.plot([], [], "D", color="white", markeredgecolor="black", label="reported")
    axes.set(xlabel="accuracy in training, as met", ylabel="validation accuracy", xlim=(0.28, 1), ylim=(0.4, None))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, 0))
    axes.legend(fontsize=8, loc="lower right")
    above = [experiment.step for experiment in reported if _lies_above(experiment, groups)]
    _set_title(
        figure,
        f"At the training accuracy that report A gives, validation is lower here in {len(above)} of {len(reported)} "
        f"steps ({join_names(above)})"
        if above
        else "At report A's training accuracies validation is as high here",
    )
    return figure


def _lies_above(experiment, groups: list[list]) -> bool:
    """Whether a report's validation accuracy is above what the runs of that step have at its training accuracy."""
    train, validation = experiment.reported
    (runs,) = [runs for runs in groups if runs[0].experiment.name == experiment.name]
    met = [np.interp(train, *np.sort(run.history[["train_accuracy", "validation_accuracy"]], axis=0).T) for run in runs]
    return validation > np.mean(met)


def plot_confusion_counts(confusions: dict[str, np.ndarray]) -> Figure:
    """Confusion matrices on the test split side by side, each row in shares of its class.

    confusions: {name: counts (7, 7)}."""
    figure, panels = _make_figure(
        1, len(confusions), figsize=(WIDTH, 1.6 + 7.6 / len(confusions)), sharey=True, squeeze=False
    )
    for axes, (name, counts) in zip(panels[0], confusions.items()):
        shares = counts / counts.sum(1, keepdims=True).clip(1)
        _draw_confusion(axes, shares, name, axes is panels[0, 0])
        np.fill_diagonal(shares, 0)
        label, taken = np.unravel_index(shares.argmax(), shares.shape)
        error = f"{name} takes {shares[label, taken]:.0%} of {EMOTIONS[label]} for {EMOTIONS[taken]}"
    panels[0, 0].set_ylabel("label")
    _set_title(figure, f"Test, percent of each class: {error}, its commonest error")
    return figure


# --- the searches -----------------------------------------------------------------------------

HYPERPARAMETERS = {"learning_rate": "learning rate", "drop_threshold": "dropout", "kernels": "filters"}


def plot_search(trials: pd.DataFrame) -> Figure:
    """Validation accuracy of every trial against each hyperparameter, with the mean for each value.

    trials: of `search.read_trials`."""
    figure, panels = _make_figure(1, len(HYPERPARAMETERS), figsize=(WIDTH, 3.4), sharey=True)
    worth = {}
    for axes, (name, label) in zip(panels, HYPERPARAMETERS.items()):
        values = _sort_values(trials, name)
        places = trials[name].map(values.index)
        means = trials.groupby(places)["validation_accuracy"].mean()
        axes.scatter(places, trials["validation_accuracy"], s=18, color=BEFORE, alpha=0.7, label="a trial")
        axes.plot(means.index, means, "o-", color=AFTER, label="mean")
        long = max(len(str(value)) for value in values) > 12
        axes.set_xticks(range(len(values)), values, fontsize=7 if long else 9, rotation=20 if long else 0)
        axes.set(xlabel=label, xlim=(-0.5, len(values) - 0.5))
        worth[label] = 100 * (means.max() - means.min())
    panels[0].set_ylabel("validation accuracy")
    panels[0].yaxis.set_major_formatter(PercentFormatter(1, 0))
    panels[-1].legend(fontsize=8)
    most = max(worth, key=worth.get)
    _set_title(figure, f"Of the three, {most} matters most: {worth[most]:.1f} points between its best and worst value")
    return figure


def plot_search_interactions(trials: pd.DataFrame) -> Figure:
    """Mean validation accuracy for each learning rate and dropout, and for each learning rate and choice of filters."""
    figure, panels = _make_figure(1, 2, figsize=(WIDTH, 3.2))
    accuracy = 100 * trials["validation_accuracy"]
    for axes, name in zip(panels, ("drop_threshold", "kernels")):
        table = accuracy.groupby([trials["learning_rate"], trials[name]]).mean().unstack()[_sort_values(trials, name)]
        sns.heatmap(
            table, vmin=accuracy.min(), vmax=accuracy.max(), cmap="Blues", annot=True, fmt=".1f",
            annot_kws={"fontsize": 8}, cbar=False, ax=axes,
        )  # fmt: skip
        axes.set_title("validation accuracy in percent, mean over the third", fontsize=8)
        axes.set(xlabel=HYPERPARAMETERS[name], ylabel="learning rate")
        axes.tick_params(axis="y", rotation=0)
    best = trials.loc[trials["validation_accuracy"].idxmax()]
    chosen = ", ".join(f"{label} {best[name]}" for name, label in HYPERPARAMETERS.items())
    _set_title(figure, f"Best of all: {chosen}, with {accuracy.max():.1f}%")
    return figure


def plot_search_budget(trials: pd.DataFrame) -> Figure:
    """The best validation accuracy to be expected of so many trials, drawn at random from those on record."""
    accuracy = np.sort(trials["validation_accuracy"].to_numpy())
    counts = np.arange(1, len(accuracy) + 1)
    cumulative = np.stack([_chance_of_best(len(accuracy), count).cumsum() for count in counts])
    expected = np.stack([_chance_of_best(len(accuracy), count) for count in counts]) @ accuracy
    low, high = (accuracy[(cumulative >= share - 1e-9).argmax(1)] for share in (0.1, 0.9))
    figure, axes = _make_figure(figsize=(WIDTH, 3.4))
    axes.fill_between(counts, low, high, color=AFTER, alpha=0.2, label="eight draws of ten lie here")
    axes.plot(counts, expected, color=AFTER, label="expected")
    axes.set(xlabel="trials", ylabel="best validation accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    minutes = trials["seconds"].mean() / 60
    upper = axes.secondary_xaxis("top", functions=(lambda count: count * minutes, lambda time: time / minutes))
    upper.set_xlabel("minutes of training")
    axes.legend(fontsize=8, loc="lower right")
    enough = int(counts[expected >= accuracy[-1] - 0.01][0])
    _set_title(figure, f"{enough} of the {len(accuracy)} trials would do to come within a point of the best")
    return figure


def plot_learning_rates(searches: dict[str, pd.DataFrame]) -> Figure:
    """Validation accuracy of the trials of several searches against the learning rate: lines join trials that are
    alike in all else. searches: {name: trials of `search.read_trials`}."""
    figure, panels = _make_figure(1, len(searches), figsize=(WIDTH, 3.4), sharey=True, squeeze=False)
    ranges = []
    for axes, (name, trials) in zip(panels[0], searches.items()):
        for _, alike in trials.sort_values("learning_rate").groupby(["drop_threshold", "kernels"]):
            axes.plot(alike["learning_rate"], alike["validation_accuracy"], "o-", color=BEFORE, markersize=3, alpha=0.6)
        mean = trials.groupby("learning_rate")["validation_accuracy"].mean()
        axes.plot(mean.index, mean, "o-", color=AFTER, linewidth=2.5, label="mean")
        axes.set_xscale("log")
        axes.set_xticks(mean.index, [f"{rate:g}" for rate in mean.index], fontsize=8)
        axes.minorticks_off()
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("learning rate")
        ranges.append(f"{100 * measure_sensitivity(trials).mean():.1f} in {name.split()[0]}")
    panels[0, 0].set_ylabel("validation accuracy")
    panels[0, 0].yaxis.set_major_formatter(PercentFormatter(1, 0))
    panels[0, 0].yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))  # labels are of whole points
    panels[0, -1].legend(fontsize=8)
    _set_title(
        figure, f"Over the learning rates accuracy lies this many points apart, in the mean: {join_names(ranges)}"
    )
    return figure


def plot_maps(maps: np.ndarray, faces: np.ndarray, what: str = "attention", classes=EMOTIONS) -> Figure:
    """Where a network looks, over each class's mean face.

    maps: float (classes, side, side), each of sum 1, side a multiple of three; faces: float (classes, 48, 48), 0-255;
    what: the maps show; classes: their names."""
    side = maps.shape[-1]
    relative = maps * side**2  # 1 is what it would be if all places were looked at alike
    figure, panels = _make_figure(1, len(classes), figsize=(WIDTH, 2.05))
    for axes, face, seen, emotion in zip(panels, faces, relative, classes):
        axes.imshow(face, cmap="gray")
        drawn = axes.imshow(
            seen, cmap="inferno", alpha=0.55, extent=(-0.5, SIDE - 0.5, SIDE - 0.5, -0.5),
            interpolation="bicubic", vmin=relative.min(), vmax=relative.max(),
        )  # fmt: skip
        axes.set_title(emotion, fontsize=8, loc="center")
        axes.axis("off")
    bar = figure.colorbar(drawn, ax=panels, fraction=0.012, pad=0.01)
    bar.ax.tick_params(labelsize=7)
    bar.set_label(f"{what}, 1 = even", fontsize=7)
    parts = maps.mean(0).reshape(3, side // 3, 3, side // 3).sum((1, 3))
    row, column = np.unravel_index(parts.argmax(), parts.shape)
    place = f"{('upper', 'middle', 'lower')[row]} {('left', 'central', 'right')[column]}"
    _set_title(figure, f"The {place} ninth of the picture has {parts.max():.0%} of the {what}")
    return figure


def plot_members(table: pd.DataFrame, size: int) -> Figure:
    """Accuracy of an ensemble against its number of members, and of each member alone.

    table: of `ensemble.tabulate_members`; size: the number of members that validation chose."""
    figure, axes = _make_figure(figsize=(WIDTH, 4.2))
    for split in ("validation", "test"):
        colour = SPLIT_COLOURS[split]
        axes.plot(table.index, table[f"{split}_together"], "o-", color=colour, label=f"{split}, together")
        axes.plot(table.index, table[f"{split}_alone"], "x", color=colour, label=f"{split}, the new member alone")
    axes.axvline(size, color=BEFORE, linestyle="--", linewidth=1.2, label="chosen on validation")
    axes.set_xticks(table.index, table["member"], fontsize=7.5, rotation=90)
    axes.set(xlabel="the member that comes in", ylabel="accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1, 1))
    figure.legend(fontsize=8, loc="outside lower center", ncols=3)
    best = table["validation_alone"].idxmax()
    alone, together = 100 * table.loc[best, "test_alone"], 100 * table.loc[size, "test_together"]
    _set_title(
        figure,
        f"The best on validation alone is right on {alone:.1f}% of the test split, {size} together on {together:.1f}%",
    )
    return figure


def plot_masking(table: pd.DataFrame) -> Figure:
    """Accuracy against how much of each face is hidden, in three orders. table: of `explain.measure_masking`."""
    figure, axes = _make_figure(figsize=(WIDTH, 3.4))
    for (name, accuracy), colour in zip(table.items(), (LOST, BEFORE, WON)):
        axes.plot(table.index, accuracy, "o-", color=colour, markersize=4, label=name)
    axes.set(xlabel="share of the face hidden", ylabel="accuracy", ylim=(0, None))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, 0))
    axes.legend(fontsize=8)
    quarter = table.iloc[abs(table.index - 0.25).argmin()]
    most, chance, _ = quarter
    _set_title(
        figure,
        f"With a quarter of the face hidden accuracy is {most:.0%} where the map marks most, {chance:.0%} at random",
    )
    return figure


def plot_answers(
    picture: np.ndarray, boxes: np.ndarray, faces: np.ndarray, answers: np.ndarray, saliency: np.ndarray
) -> Figure:
    """A picture with its faces framed, and for each face what was cut out, what its answer rests on, and the
    probability of each class. Arguments as `photo` makes them, for N faces.

    picture: uint8 (H, W); boxes: int (N, 4); faces: uint8 (N, 48, 48); answers: (N, 7); saliency: (N, 48, 48)."""
    count = len(boxes)
    figure, axes = _make_figure(figsize=(WIDTH, 3.2 + 1.7 * count))
    axes.remove()
    grid = figure.add_gridspec(1 + count, 3, height_ratios=[3] + [1.7] * count, width_ratios=(1, 1, 3))
    whole = figure.add_subplot(grid[0, :])
    whole.imshow(picture, cmap="gray", vmin=0, vmax=255)
    whole.axis("off")
    for number, (left, top, width, height) in enumerate(boxes, start=1):
        whole.add_patch(plt.Rectangle((left, top), width, height, fill=False, color=SPLIT_COLOURS["validation"], lw=2))
        whole.annotate(str(number), (left, top), color="white", backgroundcolor="black", fontsize=9, va="bottom")
    for number, (face, shares, marked) in enumerate(zip(faces, answers, saliency), start=1):
        cut, seen, bars = (figure.add_subplot(grid[number, place]) for place in range(3))
        cut.imshow(face, cmap="gray", vmin=0, vmax=255)
        seen.imshow(face, cmap="gray", vmin=0, vmax=255)
        seen.imshow(marked, cmap="inferno", alpha=0.6)
        cut.set_title(f"{number}: as the network sees it", fontsize=8)
        seen.set_title("where it looks", fontsize=8)
        for axes in (cut, seen):
            axes.axis("off")
        drawn = bars.barh(EMOTIONS, shares, color=[AFTER if share == shares.max() else BEFORE for share in shares])
        bars.bar_label(drawn, [f"{share:.0%}" for share in shares], fontsize=7, padding=2)
        bars.set(xlim=(0, 1.08), xticks=[])
        bars.tick_params(axis="y", labelsize=7)
        bars.invert_yaxis()
        bars.grid(visible=False)
    _set_title(figure, _tell_answers(answers))
    return figure


def _tell_answers(answers: np.ndarray) -> str:
    """What the network would call some faces; probabilities (N, 7). Each of a few, or how many it would call what."""
    if len(answers) == 0:
        return "No face was found in this picture"
    if len(answers) > 4:
        counts = np.bincount(answers.argmax(1), minlength=len(EMOTIONS))
        told = [f"{counts[place]} {EMOTIONS[place]}" for place in np.argsort(-counts, kind="stable") if counts[place]]
        return f"Of {len(answers)} faces it would call {join_names(told)}"
    told = [f"{EMOTIONS[shares.argmax()]} ({shares.max():.0%})" for shares in answers]
    return f"It would call {'this face' if len(told) == 1 else 'these faces'} {join_names(told)}"


def _chance_of_best(size: int, count: int) -> np.ndarray:
    """The chance of each of `size` ranks, the lowest first, to be the highest of `count` drawn without replacement."""
    ways = [math.comb(rank, count - 1) for rank in range(size)]
    return np.array(ways) / math.comb(size, count)


def _sort_values(trials: pd.DataFrame, name: str) -> list:
    """The values of a hyperparameter in rising order; filters, written 32-64, as numbers."""
    return sorted(trials[name].unique(), key=lambda value: [float(part) for part in str(value).split("-")])


def _make_figure(*args, **kwargs):
    """plt.subplots, but not kept open by pyplot: the figure is shown where a cell ends with it, and only there."""
    figure, axes = plt.subplots(*args, **kwargs)
    plt.close(figure)
    return figure, axes


def _set_title(figure: Figure, text: str, data: str = "fer2013") -> None:
    """The title of a figure, and what it is of, where that is not FER2013."""
    other = "" if data == "fer2013" else f"\nOn {data}, which is not FER2013."
    figure.suptitle(textwrap.fill(text, 100) + other, x=0.01, ha="left", weight="bold")


def _mean_confusion(runs: list, labels: np.ndarray, split: str) -> np.ndarray:
    counts = sum(calc_confusion(run.logits[split].astype(np.float32), labels) for run in runs)
    return counts / counts.sum(1, keepdims=True).clip(1)


def _name(run) -> str:
    return f"{run.experiment.step} {run.experiment.title}"


def join_names(names: list[str]) -> str:
    """In words: "Fear, Sad and Angry"."""
    if len(names) < 2:
        return "".join(names) or "no class"
    return ", ".join(names[:-1]) + " and " + names[-1]
