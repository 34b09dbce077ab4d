"""Figures that set many experiments side by side."""

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import nn

from fer_lib.claims import format_effect
from fer_lib.evaluate import collect_results, compare_runs, estimate_metric, lies_above
from fer_lib.plots.style import (
    AFTER,
    BEFORE,
    LOST,
    OTHERS,
    SPLIT_COLOURS,
    VERDICT_COLOURS,
    WIDTH,
    add_hint,
    add_legend,
    join_names,
    list_rows,
    make_figure,
    name_step,
    set_title,
    show_percent,
    show_points,
)
from fer_lib.statistics import format_number

EFFECTS = {
    "validation_accuracy": "validation accuracy",
    "test_accuracy": "test accuracy",
    "last_gap_clean": "gap to validation (untouched images)",
}


def plot_effects(groups: dict[str, tuple[list, list[list]]]) -> Figure:
    """What each treatment changes, for several architectures: validation and test accuracy and the gap, each against
    the architecture's own beginning, with 95% intervals.

    groups: {architecture: (runs to begin with, [runs of a treatment, ...])}, the same treatments for each."""
    figure, panels = make_figure(
        1, len(EFFECTS), figsize=(WIDTH, 1.8 + 0.45 * len(next(iter(groups.values()))[1])), sharey=True
    )
    panels[1].sharex(panels[0])  # both of accuracy, so that bars can be compared
    colours, changed = dict(zip(groups, (BEFORE, AFTER))), {}
    for axes, (metric, label) in zip(panels, EFFECTS.items()):
        axes.axvline(0, color="black", linewidth=0.8)
        for side, (step, (start, treated)) in enumerate(groups.items()):
            name = f"{step} ({'dropout' if _has_dropout(start) else 'no dropout'})"
            changes = [compare_runs(start, runs, metric) for runs in treated]
            places = np.arange(len(treated)) + 0.15 * (2 * side - 1)
            axes.hlines(places, [c.low for c in changes], [c.high for c in changes], color=colours[step], linewidth=2)
            axes.plot([c.mean for c in changes], places, "o", color=colours[step], markersize=5, label=name)
            for change, place, runs in zip(changes, places, treated):
                told = f"{_treatment(runs)} in {name}: {change.format(sign=True)} points of {label}"
                add_hint(axes, change.mean, place, told)
            if metric == "validation_accuracy":
                most = max(range(len(treated)), key=lambda place: _count_treatments(treated[place]))
                changed[name] = f"{format_number(100 * changes[most].mean, sign=True)} points in {name}"
        show_points(axes.xaxis)
        axes.set_xlabel(f"{label}\n(points, 95% interval)", fontsize=8)
        list_rows(axes, [_treatment(runs) for runs in treated])
    add_legend(figure, 2)
    told = join_names(list(changed.values()))
    return set_title(figure, f"On validation {_treatment(treated[most])} at once bring {told}")


def plot_interaction(families: dict[str, list[list]]) -> Figure:
    """Validation accuracy of several architectures without and with dropout, untreated and with all treatments: the
    steeper line is of what the treatments bring more to.

    families: {architecture: lists of runs: untreated, treated, untreated with dropout, treated with dropout}."""
    figure, panels = make_figure(1, len(families), figsize=(WIDTH, 3.4), sharey=True, squeeze=False)
    gains = {"without dropout": [], "with dropout": []}
    for axes, (name, (*plain, untreated, treated)) in zip(panels[0], families.items()):
        for colour, (words, pair) in zip((BEFORE, AFTER), zip(gains, (plain, [untreated, treated]))):
            values = [collect_results(runs)["validation_accuracy"] for runs in pair]
            means = [accuracies.mean() for accuracies in values]
            gains[words].append(means[1] - means[0])
            axes.plot([0, 1], means, "-o", color=colour, label=words)
            for place, (accuracies, mean) in enumerate(zip(values, means)):
                axes.plot([place] * len(accuracies), accuracies, "_", color=colour, markersize=9)
                told = f"{name} {words}, {('untreated', 'all three')[place]}: {100 * mean:.1f}% of validation"
                add_hint(axes, place, mean, f"{told}, {len(accuracies)} run{'s' * (len(accuracies) > 1)}")
        axes.set(title=name, xticks=[0, 1], xticklabels=["untreated", "flip, rotation, crop"], xlim=(-0.3, 1.3))
        show_percent(axes.yaxis)
        axes.grid(axis="x", visible=False)
    panels[0, 0].set_ylabel("validation accuracy\nat the best epoch")
    add_legend(figure, 2)
    plain, dropped = (format_number(100 * np.mean(found), sign=True) for found in gains.values())
    return set_title(
        figure, f"All three treatments bring {plain} points without dropout, {dropped} with it, in the mean"
    )


def _has_dropout(runs: list) -> bool:
    return any(isinstance(module, nn.Dropout) and module.p for module in runs[0].experiment.build_model().modules())


def _count_treatments(runs: list) -> int:
    """How many treatments these runs' images get, balancing left out; none where they are balanced."""
    experiment = runs[0].experiment
    return 0 if experiment.balance else _treatment(runs).count(",")


def _treatment(runs: list) -> str:
    """What is done to the images of these runs."""
    augmentation, words = runs[0].experiment.augmentation, []
    for field, word in (("flip", "flip"), ("rotation", "rotation"), ("crop_padding", "crop"), ("shift", "shift")):
        words += [word] * bool(getattr(augmentation, field))
    return ", ".join(["balanced"] * runs[0].experiment.balance + words) or "untreated"


def plot_ladder(reports: dict[str, list[list]], people: tuple[float, float]) -> Figure:
    """Validation and test accuracy of every step, with intervals, beside what its report gives, a panel a report.

    reports: {name: the runs of each of its steps}; people: between what accuracies people lie, 0-1. A step with a
    letter behind its number varies one: the title leaves it out."""
    counts = [len(groups) for groups in reports.values()]
    figure, panels = make_figure(
        1, len(reports), figsize=(WIDTH, 4), sharey=True, squeeze=False, width_ratios=[count + 1 for count in counts]
    )
    told = []
    for axes, (name, groups) in zip(panels[0], reports.items()):
        axes.axhspan(*people, color="#EEEEEE", zorder=0, label="people (published)")
        for split, offset in (("validation", -0.13), ("test", 0.13)):
            found = [estimate_metric(runs, f"{split}_accuracy") for runs in groups]
            for place, effect in enumerate(found):
                axes.vlines(place + offset, effect.low, effect.high, color=SPLIT_COLOURS[split], linewidth=2)
                hint = f"{name_step(groups[place][0])}: {effect.format()}% on {split}"
                add_hint(axes, place + offset, effect.mean, hint)
            means = [effect.mean for effect in found]
            if split == "validation":
                varied = [runs[0].experiment.step[-1].isalpha() for runs in groups]
                best = max(range(len(groups)), key=lambda place: (not varied[place], means[place]))
            label = f"measured, {split}: mean, 95% interval"
            axes.plot(np.arange(len(found)) + offset, means, "o", color=SPLIT_COLOURS[split], markersize=5, label=label)
        reported = [(p, runs[0].experiment.reported) for p, runs in enumerate(groups)]
        known = [(place - 0.13, shares[1]) for place, shares in reported if shares]
        if known:
            axes.plot(*zip(*known), "D", color="black", markerfacecolor="none", label="reported, validation")
        for place, share in known:
            add_hint(axes, place, share, f"{name_step(groups[round(place)][0])}: {share:.0%} reported, on validation")
        told.append(f"{found[best].format()}% ({groups[best][0].experiment.step})")
        axes.set_title(name, fontsize=9)
        axes.set_xticks(range(len(groups)), [runs[0].experiment.step for runs in groups], fontsize=7)
        axes.set(xlabel="step", xlim=(-0.5, len(groups) - 0.5))
        axes.grid(axis="x", visible=False)
    panels[0, 0].set_ylabel("accuracy")
    show_percent(panels[0, 0].yaxis)
    add_legend(figure, 4)
    return set_title(figure, f"Test accuracy of the best step on validation: {join_names(told)}")


def plot_gains(pairs: list[tuple[list, list]]) -> Figure:
    """What each step brings over the one that it changes, on validation and test, with 95% interval.

    pairs: the runs of the step before and of the step in question."""
    figure, axes = make_figure(figsize=(WIDTH, 1.6 + 0.4 * len(pairs)))
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
    names = [f"{before[0].experiment.step} to {name_step(after[0])}" for before, after in pairs]
    list_rows(axes, names)
    axes.set_xlabel("gain, in points of accuracy")
    show_points(axes.xaxis)
    add_legend(figure, 2)
    many = f"{len(helping)} gain{'s' * (len(helping) == 1)}" if helping else "none gains"
    told = f": {join_names(helping)}" if helping else ""
    return set_title(figure, f"Of {len(gains)} steps, {many} beyond chance on validation{told}")


def plot_statements(statements: list, verdicts: pd.DataFrame) -> Figure:
    """The effect that each statement was judged by, with its interval, and what its report gives, in points: what is of
    validation accuracy, and what is of the training images, which is larger, each on an axis of its own. Arguments of
    `claims.read_claims` and `claims.read_verdicts`."""
    measured = [s for s in statements if s.quantity.unit == "points" and s.number in verdicts.index]
    measured = [s for s in measured if not pd.isna(verdicts.loc[s.number, "effect"])]
    trained = [s for s in measured if s.quantity.column in ("last_gap_clean", "train_accuracy_clean")]
    parts = [part for part in ([s for s in measured if s not in trained], trained) if part]
    figure, panels = make_figure(
        len(parts), 1, figsize=(WIDTH, 1.8 + 0.4 * len(measured)), height_ratios=[len(part) + 1 for part in parts],
        squeeze=False,
    )  # fmt: skip
    for axes, part in zip(panels[:, 0], parts):
        _draw_statements(axes, part, verdicts)
        what = "the gap, or on accuracy in training" if part is trained else "validation accuracy"
        others = [s for s in part if part is not trained and s.quantity.column != "validation_accuracy"]
        what += "".join(f"; {s.number}: on the {s.quantity.words}" for s in others)
        told = "bars: the interval that decides; grey: less than what matters"
        axes.set_xlabel(textwrap.fill(f"effect, in points, on {what}", 75) + f"\n({told})", fontsize=8)
    counts = verdicts.loc[[statement.number for statement in measured], "verdict"].value_counts()
    for name in (name for name in VERDICT_COLOURS if name in counts):
        panels[0, 0].plot([], [], "o-", color=VERDICT_COLOURS[name], label=name)
    panels[0, 0].plot([], [], "D", color="black", markerfacecolor="none", label="reported")
    add_legend(figure, 5)
    told = [f"{counts[name]} {name}" for name in VERDICT_COLOURS if name in counts]
    return set_title(
        figure, f"Of the {len(measured)} statements measured in points, not as factors, {join_names(told)}"
    )


def _draw_statements(axes, statements: list, verdicts: pd.DataFrame) -> None:
    axes.axvline(0, color="black", linewidth=0.8)
    for place, statement in enumerate(statements):
        row, matters = verdicts.loc[statement.number], statement.quantity.matters
        axes.fill_between([-matters, matters], place - 0.5, place + 0.5, color="#EEEEEE", linewidth=0, zorder=0)
        colour = VERDICT_COLOURS[row["verdict"]]
        axes.hlines(place, row["low"], row["high"], color=colour, linewidth=2)
        axes.plot(row["effect"], place, "o", color=colour, markersize=4)
        effect = format_effect(statement.quantity, row["effect"], row["low"], row["high"], unit=" points")
        told = f"{statement.number} {statement.says} {row['verdict'].capitalize()}: {effect}"
        add_hint(axes, row["effect"], place, told)
        if not np.isnan(statement.reported):
            axes.plot(statement.reported, place, "D", color="black", markerfacecolor="none", markersize=6)
    labels = [textwrap.fill(f"{statement.number}  {statement.says}", 50) for statement in statements]
    list_rows(axes, labels, fontsize=9)
    show_points(axes.xaxis)


def plot_method(method: dict) -> Figure:
    """The method of judging tried on itself: halves of one experiment's runs against each other, and how often an
    effect of each size would be found. method: of `judge.try_method`."""
    figure, (left, right) = make_figure(1, 2, figsize=(WIDTH, 3.6))
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
    right.axhline(0.05, color=LOST, linestyle="--", linewidth=1.2, label="5%, by chance alone")
    right.axvspan(0, 1, color="#EEEEEE", zorder=0, label="too small to matter")
    right.set(xlabel="true effect on validation accuracy (points)", ylabel="share of trials in which it is found")
    show_percent(right.yaxis)
    right.legend(fontsize=7.5, loc="lower right")
    two = method["effects"].index(0.02)
    few, many = ([shares[seeds][two] for shares in method["power"].values()] for seeds in ("3", "10"))
    return set_title(
        figure,
        f"Where there is no difference, {method['different']:.1%} of {method['divisions']} comparisons find one; "
        f"a true effect of two points is found by three runs in {min(few):.0%} of trials or more, by ten in "
        f"{min(many):.0%}",
    )


def plot_regime(groups: list[list], tries: Sequence = ()) -> Figure:
    """Validation accuracy against accuracy in training, measured on the way, epoch by epoch: a panel a step, a line a
    run, the other steps' in grey, and the report's point.

    groups: the runs of each step, all of which the report gives accuracies of; tries: runs of variants of these
    steps, each drawn in its step's panel under what its title, such as "A3, more dropout", says of it."""
    columns, colours = -(-len(groups) // 2), dict(zip(dict.fromkeys(map(_name_change, tries)), OTHERS))
    figure, panels = make_figure(
        2, columns, figsize=(WIDTH, 5), sharex=True, sharey=True, squeeze=False, subplot_kw=dict(xlim=(0.3, 1))
    )
    for axes, own in zip(panels.flat, groups):
        for run in (run for runs in groups for run in runs):
            mine, history = run in own, run.history
            axes.plot(
                history["train_accuracy"], history["validation_accuracy"], color=AFTER if mine else "#D5D5D5",
                linewidth=1.3 if mine else 0.8, zorder=2 + mine, label="measured, a run" if run is own[0] else None,
            )  # fmt: skip
        for run in (run for run in tries if run.experiment.against == own[0].experiment.name):
            change, history = _name_change(run), run.history
            course = history["train_accuracy"], history["validation_accuracy"]
            axes.plot(*course, color=colours[change], label=change, zorder=3)
        axes.set_title(name_step(own[0]), fontsize=9)
        axes.plot(*own[0].experiment.reported, "D", color="black", markerfacecolor="none", zorder=4, label="reported")
        axes.set_ylim(0.4, None)
        show_percent(axes.xaxis, axes.yaxis)
    panels[-1, columns // 2].set_xlabel("accuracy in training, measured on the way", fontsize=10)
    figure.supylabel("validation accuracy", fontsize=10)
    add_legend(figure, 4)
    above = [runs[0].experiment.step for runs in groups if lies_above(runs)]
    return set_title(
        figure,
        f"At the training accuracy that report A gives, every run here is lower on validation, by more than rounding, "
        f"in {len(above)} of {len(groups)} steps ({join_names(above)})"
        if above
        else "At report A's training accuracies some run of each step is as high on validation here",
    )


def _name_change(run) -> str:
    """What a run changes in its step, as its title says behind the step."""
    return run.experiment.title.partition(", ")[2]
