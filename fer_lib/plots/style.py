"""The look of all figures, and what they have in common. Colours are Okabe and Ito's, which colour-blind readers can
tell apart, and mean the same throughout."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

SPLIT_COLOURS = {"train": "#56B4E9", "validation": "#E69F00", "test": "#009E73"}
BEFORE, AFTER = "#7F7F7F", "#0072B2"  # the step that is compared with, and the step in question
OTHERS = ("#CC79A7", "#000000")  # further steps beside these two
WON, LOST = "#009E73", "#D55E00"
HINT = "hint"  # marks the texts of points, which `describe_figure` finds
VERDICT_COLOURS = {"true": WON, "false": LOST, "too small to matter": OTHERS[0], "undecided": BEFORE}
WIDTH = 9  # inches, a page's


def set_style() -> None:
    """Set the look of all figures; every notebook calls it once."""
    sns.set_theme(context="notebook", style="whitegrid", font_scale=0.9)
    plt.rcParams.update(
        {
            "figure.dpi": 100,
            "figure.constrained_layout.use": True,
            "figure.constrained_layout.wspace": 0.04,  # else the last label of a panel touches the next one's first
            "axes.titlelocation": "left",
            "axes.titlesize": "medium",
            "figure.titlesize": "medium",
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )


def draw_shades(axes, values, numbers, low: float, high: float, form: str, **options) -> None:
    """A heat map with a number in each cell, white on the dark ones alone. values: (rows, columns), of which `low` is
    white and `high` darkest; numbers: the same in another unit, or True; form: their format; options: of seaborn's."""
    sns.heatmap(
        values, vmin=low, vmax=high, cmap="Blues", annot=numbers, fmt=form, annot_kws={"fontsize": 8}, cbar=False,
        ax=axes, **options,
    )  # fmt: skip
    for text, value in zip(axes.texts, np.ravel(values)):
        text.set_color("white" if value - low > 0.6 * (high - low) else "black")


def draw_images(
    images: np.ndarray,
    titles: list[str],
    title: str,
    limits: tuple[float, float] | None = None,
    label: str = "grey level",
    data: str = "fer2013",
) -> Figure:
    """A row of images (N, 48, 48) in one scale of grey between the limits, with its bar; without limits, of what may be
    below 0, in two colours."""
    reach, colours = np.nanmax(np.abs(images)), "gray" if limits else "PuOr_r"
    low, high = limits or (-reach, reach)
    figure, panels = make_figure(1, len(images), figsize=(WIDTH, 2.05))
    for axes, image, text in zip(panels, images, titles):
        drawn = axes.imshow(image, cmap=colours, vmin=low, vmax=high)
        axes.set_title(text, fontsize=8, loc="center")
        axes.axis("off")
    add_bar(drawn, label)
    return set_title(figure, title, data)


def add_bar(drawn, label: str) -> None:
    """The bar of the colours of what is drawn, beside its panel and as tall."""
    bar = drawn.figure.colorbar(drawn, cax=drawn.axes.inset_axes((1.06, 0, 0.06, 1)))
    bar.ax.tick_params(labelsize=7)
    bar.set_label(label, fontsize=7)


def make_figure(*args, **kwargs):
    """plt.subplots, but not kept open by pyplot: the figure is shown where a cell ends with it, and only there."""
    figure, axes = plt.subplots(*args, **kwargs)
    plt.close(figure)
    return figure, axes


def set_title(figure: Figure, text: str, data: str = "fer2013") -> Figure:
    """The figure with its title, and what it is of, where that is not FER2013."""
    other = "" if data == "fer2013" else f"\nOn {data}, which is not FER2013."
    whole = text.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")  # no line ends within "40.6 ± 2.3"
    figure.suptitle(textwrap.fill(whole, 100) + other, x=0.01, ha="left", weight="bold")
    return figure


def add_legend(figure: Figure, columns: int) -> None:
    """One legend for all panels, below them, where it hides nothing; each name once."""
    told = {name: line for axes in figure.axes for line, name in zip(*axes.get_legend_handles_labels())}
    figure.legend(told.values(), told.keys(), fontsize=8, loc="outside lower center", ncols=columns)


def list_rows(axes, names: list[str], **kwargs) -> None:
    """Name the rows of a panel, the first at the top, without lines along them."""
    axes.set_yticks(range(len(names)), names, **kwargs)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)


def show_percent(*kinds) -> None:
    """Have axes that show shares tell them in percent. kinds: such as `axes.xaxis`."""
    for axis in kinds:
        axis.set_major_formatter(PercentFormatter(1, 0))


def show_points(axis) -> None:
    """Have an axis that shows changes of shares tell them in points, such as +0.5 and −0.5."""
    axis.set_major_formatter(lambda share, _: f"{100 * share:+g}".replace("-", "−") if share else "0")


def name_step(run) -> str:
    return f"{run.experiment.step} {run.experiment.title}"


def join_names(names: list[str]) -> str:
    """In words: "Fear, Sad and Angry"."""
    if len(names) < 2:
        return "".join(names) or "no class"
    return ", ".join(names[:-1]) + " and " + names[-1]


def add_hint(axes, x: float, y: float, text: str) -> None:
    """Say what a point of the drawing stands for, for where it can be pointed at; on paper it is not seen."""
    axes.annotate(text, (x, y), gid=HINT, visible=False)


def describe_figure(figure: Figure, tight: bool = False) -> dict:
    """What a page needs to show a figure to those who cannot see it, and its numbers to those who point at them.

    tight: whether the picture is cut to what is drawn, as a notebook's is. Returns {"alt": its title, "hints": [[x, y,
    text], ...]}, x and y in shares of the picture's width and height, from the left and from the top."""
    found = figure.findobj(lambda artist: artist.get_gid() == HINT)
    hints = []
    if found:
        figure.draw_without_rendering()  # the layout is known only then
        box = figure.get_tightbbox().padded(plt.rcParams["savefig.pad_inches"]) if tight else figure.bbox_inches
        box = box.transformed(figure.dpi_scale_trans)
        for hint in found:
            x, y = hint.axes.transData.transform(hint.xy)
            hints.append([round((x - box.x0) / box.width, 4), round((box.y1 - y) / box.height, 4), hint.get_text()])
    return {"alt": figure.get_suptitle().replace("\n", " "), "hints": hints}
