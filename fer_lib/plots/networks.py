"""Figures of trained networks: how sure they are, where they look, what they reach together."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from fer_lib.dataset import EMOTIONS, SIDE
from fer_lib.extras.reliability import estimate_accuracy, estimate_calibration
from fer_lib.metrics import calc_probabilities, calc_reliability
from fer_lib.plots.style import (
    AFTER,
    BEFORE,
    LOST,
    OTHERS,
    SPLIT_COLOURS,
    WIDTH,
    WON,
    add_bar,
    add_hint,
    add_legend,
    join_names,
    make_figure,
    name_step,
    set_title,
    show_percent,
)


def plot_reliability(groups: list[list], labels: np.ndarray, temperatures: list[float]) -> Figure:
    """How often each network is right when it is so sure, on the test split, as trained and after its temperature.

    groups: the runs of each step, whose images are pooled; labels: int (N,); temperatures: one a step, 1 where none
    is to be used."""
    figure, panels = make_figure(1, len(groups), figsize=(WIDTH, 3.6), sharey=True, squeeze=False)
    told, untouched = [], []
    for axes, runs, temperature in zip(panels[0], groups, temperatures, strict=True):
        axes.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=1)
        shown = [(1.0, BEFORE, "as trained"), (temperature, AFTER, "with its temperature")]
        for value, colour, label in shown[: 1 + (temperature != 1)]:
            shares = np.concatenate([calc_probabilities(run.logits["test"], value) for run in runs])
            table = calc_reliability(shares, np.tile(labels, len(runs)))
            axes.plot(table["confidence"], table["accuracy"], "o-", color=colour, markersize=4, label=label)
        own = "" if temperature == 1 else f"\ntemperature {temperature:.2f}"
        axes.set_title(f"{name_step(runs[0])}{own}", fontsize=9)
        axes.set(xlabel="confidence", xlim=(0, 1), ylim=(0, 1), xticks=(0.25, 0.5, 0.75))
        show_percent(axes.xaxis)
        logits = [run.logits["test"] for run in runs]
        before, after = (100 * estimate_calibration(logits, labels, value).mean for value in (1.0, temperature))
        step = runs[0].experiment.step
        if temperature == 1:
            untouched.append(f"{step} ({before:.1f})")
        else:
            told.append(f"{before:.1f} to {after:.1f} in {step}")
    panels[0, 0].set_ylabel("accuracy on the test split")
    add_legend(figure, 2)
    show_percent(panels[0, 0].yaxis)
    parts = [f"a temperature brings it from {join_names(told)}"] * bool(told)
    parts += [f"none is used for {join_names(untouched)}"] * bool(untouched)
    return set_title(figure, f"Calibration error on test, in points: {'; '.join(parts)}")


def plot_accuracy_by_agreement(groups: list[list], labels: np.ndarray, share: np.ndarray) -> Figure:
    """Test accuracy of each step against how many of FER+'s taggers chose FER2013's label, and how many images that is.

    groups: the runs of at most four steps; labels: int (N,); share: of the votes for the label, float (N,), 0-1."""
    tenths = np.round(10 * share).astype(int)
    counts = np.bincount(tenths, minlength=11)
    places = np.flatnonzero(counts)
    figure, (axes, below) = make_figure(2, 1, figsize=(WIDTH, 4.4), sharex=True, height_ratios=(3, 1))
    for runs, colour in zip(groups, (BEFORE, *OTHERS[: len(groups) - 2], AFTER)):
        found = [estimate_accuracy(runs, labels, tenths == place) for place in places]
        axes.fill_between(places / 10, [e.low for e in found], [e.high for e in found], color=colour, alpha=0.2)
        axes.plot(places / 10, [e.mean for e in found], "o-", color=colour, markersize=4, label=name_step(runs[0]))
    axes.set(ylabel="test accuracy", ylim=(0, 1))
    axes.legend(fontsize=8)
    below.bar(places / 10, counts[places], 0.085, color=BEFORE)
    below.set(xlabel="taggers who chose FER2013's label", ylabel="test images")
    show_percent(axes.yaxis, below.xaxis)
    step, ends = groups[-1][0].experiment.step, [found[0].mean, found[-1].mean]
    return set_title(
        figure, f"Where no tagger shares the label, {step} is right on {ends[0]:.0%}; where all do, on {ends[1]:.0%}"
    )


def plot_maps(maps: np.ndarray, faces: np.ndarray, what: str = "attention", classes=EMOTIONS) -> Figure:
    """Where a network looks, over each class's mean face.

    maps: float (classes, side, side), each of sum 1, side a multiple of three; faces: float (classes, 48, 48), 0-255;
    what: the maps show; classes: their names."""
    side = maps.shape[-1]
    relative = maps * side**2  # 1 is what it would be if all places were looked at alike
    strength = (relative - relative.min()) / max(np.ptp(relative), 1e-9)  # where it is low the face shows through
    figure, panels = make_figure(1, len(classes), figsize=(WIDTH, 2.05))
    for axes, face, seen, strong, emotion in zip(panels, faces, relative, strength, classes):
        axes.imshow(face, cmap="gray")
        drawn = axes.imshow(
            seen, cmap="YlOrRd", alpha=0.9 * strong**0.5, extent=(-0.5, SIDE - 0.5, SIDE - 0.5, -0.5),
            interpolation="bicubic", vmin=relative.min(), vmax=relative.max(),
        )  # fmt: skip
        axes.set_title(emotion, fontsize=8, loc="center")
        axes.axis("off")
    add_bar(drawn, f"{what}, 1 = even")
    parts = maps.mean(0).reshape(3, side // 3, 3, side // 3).sum((1, 3))
    row, column = np.unravel_index(parts.argmax(), parts.shape)
    place = f"{('upper', 'middle', 'lower')[row]} {('left', 'central', 'right')[column]}".replace(
        "middle central", "middle"
    )
    return set_title(figure, f"The {place} ninth of the picture has {parts.max():.0%} of the {what}")


def plot_members(table: pd.DataFrame, size: int) -> Figure:
    """Accuracy of an ensemble against its number of members, and of each member alone.

    table: of `ensemble.tabulate_members`; size: the number of members that validation chose."""
    figure, axes = make_figure(figsize=(WIDTH, 4.2))
    for split in ("validation", "test"):
        colour = SPLIT_COLOURS[split]
        axes.plot(table.index, table[f"{split}_together"], "o-", color=colour, label=f"{split}, together")
        axes.plot(table.index, table[f"{split}_alone"], "x", color=colour, label=f"{split}, the new member alone")
        for place, row in table.iterrows():
            together, alone = row[f"{split}_together"], row[f"{split}_alone"]
            add_hint(axes, place, together, f"{place} together: {together:.1%} on {split}")
            add_hint(axes, place, alone, f"{row['member']} alone: {alone:.1%} on {split}")
    axes.axvline(size, color=BEFORE, linestyle="--", linewidth=1.2, label="chosen on validation")
    axes.set_xticks(table.index, table["member"], fontsize=7.5, rotation=90)
    axes.set(xlabel="the member that comes in", ylabel="accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1, 1))
    add_legend(figure, 3)
    best = table["validation_alone"].idxmax()
    alone, together = 100 * table.loc[best, "test_alone"], 100 * table.loc[size, "test_together"]
    return set_title(
        figure,
        f"The best on validation alone is right on {alone:.1f}% of the test split, {size} together on {together:.1f}%",
    )


def plot_masking(table: pd.DataFrame) -> Figure:
    """Accuracy against how much of each face is hidden, in three orders. table: of `explain.measure_masking`."""
    figure, axes = make_figure(figsize=(WIDTH, 3.4))
    for (name, accuracy), colour in zip(table.items(), (LOST, BEFORE, WON)):
        axes.plot(table.index, accuracy, "o-", color=colour, markersize=4, label=name)
    axes.set(xlabel="share of the face hidden", ylabel="accuracy", ylim=(0, None))
    show_percent(axes.xaxis, axes.yaxis)
    axes.legend(fontsize=8)
    quarter = table.iloc[abs(table.index - 0.25).argmin()]
    most, chance, _ = quarter
    return set_title(
        figure,
        f"With a quarter of the face hidden accuracy is {most:.0%} where the map marks most, {chance:.0%} at random",
    )


def plot_answers(
    picture: np.ndarray, boxes: np.ndarray, faces: np.ndarray, answers: np.ndarray, saliency: np.ndarray
) -> Figure:
    """A picture with its faces framed, and for each face what was cut out, what its answer rests on, and the
    probability of each class. Arguments as `photo` makes them, for N faces.

    picture: uint8 (H, W); boxes: int (N, 4); faces: uint8 (N, 48, 48); answers: (N, 7); saliency: (N, 48, 48)."""
    count = len(boxes)
    figure, axes = make_figure(figsize=(WIDTH, 3.2 + 1.7 * count))
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
        for axes, title in ((cut, f"{number}: as the network sees it"), (seen, "where it looks, bright: most")):
            axes.imshow(face, cmap="gray", vmin=0, vmax=255)
            axes.set_title(title, fontsize=8)
            axes.axis("off")
        most = np.percentile(marked, 99)  # one pixel that stands out would leave all others dark
        seen.imshow(marked, cmap="inferno", alpha=0.6, vmin=0, vmax=most or 1)
        drawn = bars.barh(EMOTIONS, shares, color=[AFTER if share == shares.max() else BEFORE for share in shares])
        bars.bar_label(drawn, [f"{share:.0%}" for share in shares], fontsize=7, padding=2)
        bars.set(xlim=(0, 1.08), xticks=[])
        bars.tick_params(axis="y", labelsize=7)
        bars.invert_yaxis()
        bars.grid(visible=False)
    return set_title(figure, _tell_answers(answers))


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
