"""Figures of report B's searches of hyperparameters."""

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fer_lib.extras.search import measure_sensitivity
from fer_lib.plots.style import AFTER, BEFORE, WIDTH, draw_shades, join_names, make_figure, set_title, show_percent

HYPERPARAMETERS = {"learning_rate": "learning rate", "drop_threshold": "dropout", "kernels": "filters"}


def plot_search(trials: pd.DataFrame) -> Figure:
    """Validation accuracy of every trial against each hyperparameter, with the mean for each value.

    trials: of `search.read_trials`."""
    figure, panels = make_figure(1, len(HYPERPARAMETERS), figsize=(WIDTH, 3.4), sharey=True)
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
    show_percent(panels[0].yaxis)
    panels[-1].legend(fontsize=8)
    most = max(worth, key=worth.get)
    return set_title(figure, f"Most hangs on {most}: {worth[most]:.1f} points between the best value and the worst")


def plot_search_interactions(trials: pd.DataFrame) -> Figure:
    """Mean validation accuracy for each learning rate and dropout, and for each learning rate and choice of filters."""
    figure, panels = make_figure(1, 2, figsize=(WIDTH, 3.2))
    accuracy, best = 100 * trials["validation_accuracy"], []
    for axes, name in zip(panels, ("drop_threshold", "kernels")):
        table = accuracy.groupby([trials["learning_rate"], trials[name]]).mean().unstack()[_sort_values(trials, name)]
        draw_shades(axes, table, True, accuracy.min(), accuracy.max(), ".1f")
        axes.set_title("validation accuracy in percent, mean over the rest", fontsize=8)
        axes.set(xlabel=HYPERPARAMETERS[name], ylabel="learning rate")
        axes.tick_params(axis="y", rotation=0)
        rate, value = table.stack().idxmax()
        best.append(f"{HYPERPARAMETERS[name]} {value} at a learning rate of {rate:g} ({table.max(axis=None):.1f}%)")
    return set_title(figure, f"Best in the mean over the rest: {join_names(best)}")


def plot_search_budget(trials: pd.DataFrame) -> Figure:
    """The best validation accuracy to be expected of so many trials, drawn at random from those on record."""
    accuracy = np.sort(trials["validation_accuracy"].to_numpy())
    counts = np.arange(1, len(accuracy) + 1)
    chances = np.stack([_chance_of_best(len(accuracy), count) for count in counts])
    expected = chances @ accuracy
    low, high = (accuracy[(chances.cumsum(1) >= share - 1e-9).argmax(1)] for share in (0.1, 0.9))
    figure, axes = make_figure(figsize=(WIDTH, 3.4))
    axes.fill_between(counts, low, high, color=AFTER, alpha=0.2, label="eight such draws in ten")
    axes.plot(counts, expected, color=AFTER, label="expected")
    axes.set(xlabel="trials", ylabel="best validation accuracy")
    show_percent(axes.yaxis)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    minutes = trials["seconds"].mean() / 60
    upper = axes.secondary_xaxis("top", functions=(lambda count: count * minutes, lambda time: time / minutes))
    upper.set_xlabel("minutes of training")
    axes.legend(fontsize=8, loc="lower right")
    enough = int(counts[expected >= accuracy[-1] - 0.01][0])
    return set_title(
        figure, f"The best of {enough} trials is in the mean within a point of the best of all {len(accuracy)}"
    )


def plot_learning_rates(searches: dict[str, pd.DataFrame]) -> Figure:
    """Validation accuracy of the trials of several searches against the learning rate: lines join trials that are
    alike in all else. searches: {name: trials of `search.read_trials`}."""
    figure, panels = make_figure(1, len(searches), figsize=(WIDTH, 3.4), sharey=True, squeeze=False)
    ranges = []
    for axes, (name, trials) in zip(panels[0], searches.items()):
        for _, alike in trials.sort_values("learning_rate").groupby(["drop_threshold", "kernels"]):
            axes.plot(alike["learning_rate"], alike["validation_accuracy"], "o-", color=BEFORE, markersize=3, alpha=0.6)
        mean = trials.groupby("learning_rate")["validation_accuracy"].mean()
        axes.plot(mean.index, mean, "o-", color=AFTER, linewidth=2.5, label="mean")
        axes.set_xscale("log")
        axes.set_xticks(mean.index, [f"{rate:g}" for rate in mean.index], fontsize=7)
        axes.margins(x=0.12)  # else the last rate meets the next panel's first
        axes.minorticks_off()
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("learning rate")
        ranges.append(f"{100 * measure_sensitivity(trials).mean():.1f} points in {name.split()[0]}")
    panels[0, 0].set_ylabel("validation accuracy")
    show_percent(panels[0, 0].yaxis)
    panels[0, 0].yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))  # labels are of whole points
    panels[0, -1].legend(fontsize=8)
    return set_title(
        figure,
        f"From one learning rate to another accuracy ranges over {join_names(ranges)}, in the mean of thin lines",
    )


def _chance_of_best(size: int, count: int) -> np.ndarray:
    """The chance of each of `size` ranks, the lowest first, to be the highest of `count` drawn without replacement."""
    ways = [math.comb(rank, count - 1) for rank in range(size)]
    return np.array(ways) / math.comb(size, count)


def _sort_values(trials: pd.DataFrame, name: str) -> list:
    """The values of a hyperparameter in rising order; filters, written 32-64, as numbers."""
    return sorted(trials[name].unique(), key=lambda value: [float(part) for part in str(value).split("-")])
