"""Figures of the images and their labels."""

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from fer_lib.augment import crop, rotate
from fer_lib.dataset import EMOTIONS, SIDE, Dataset, Split
from fer_lib.extras.explore import calc_eigenfaces, calc_mean_faces, measure_images, tabulate_counts
from fer_lib.plots.style import (
    AFTER,
    BEFORE,
    SPLIT_COLOURS,
    WIDTH,
    add_legend,
    draw_images,
    make_figure,
    set_title,
    show_percent,
)
from fer_lib.statistics import format_number


def plot_class_counts(dataset: Dataset) -> Figure:
    """Share of each class in each split; the counts stand above the bars."""
    counts = tabulate_counts(dataset)
    figure, axes = make_figure(figsize=(WIDTH, 3.6))
    for place, (name, column) in enumerate(counts.items()):
        bars = axes.bar(
            np.arange(len(dataset.classes)) + 0.27 * (place - 1), column / column.sum(), 0.25, color=SPLIT_COLOURS[name]
        )
        axes.bar_label(bars, [f"{count:,}" for count in column], fontsize=6.5, rotation=90, padding=2)
        bars.set_label(f"{name} ({column.sum():,})")
    total = counts["train"].sort_values()
    axes.set_xticks(range(len(dataset.classes)), dataset.classes)
    axes.set_ylabel("share of the split")
    show_percent(axes.yaxis)
    axes.margins(y=0.18)
    axes.grid(axis="x", visible=False)
    axes.legend()
    return set_title(
        figure,
        f"{total.index[-1]} has {total.iloc[-1] / total.iloc[0]:.0f} times as many training images as "
        f"{total.index[0]}; the three splits are alike",
        dataset.name,
    )


def plot_pixel_statistics(dataset: Dataset) -> Figure:
    """Distribution of brightness and contrast over the images of each split."""
    figure, panels = make_figure(1, 2, figsize=(WIDTH, 3.2), sharey=True)
    measured = {name: measure_images(split) for name, split in dataset.splits.items()}
    titles = ("mean of an image's pixels (grey level, 0–255)", "standard deviation of them (grey levels)")
    for place, (axes, title) in enumerate(zip(panels, titles)):
        for name, values in measured.items():
            bins = np.linspace(0, (255, 110)[place], 52)
            share = np.histogram(values[place], bins)[0] / len(values[place])
            axes.stairs(share, bins, color=SPLIT_COLOURS[name], label=name, linewidth=1.6)
        axes.set_xlabel(title)
    panels[0].set_ylabel("share of the split's images")
    show_percent(panels[0].yaxis)
    panels[1].legend()
    means = [values[0].mean() for values in measured.values()]
    return set_title(
        figure,
        f"Light and contrast vary widely, alike in all splits (mean grey {min(means):.1f} to {max(means):.1f})",
        dataset.name,
    )


def plot_mean_faces(split: Split) -> Figure:
    """The mean image of each class, all in one scale of grey."""
    faces = calc_mean_faces(split)
    counts = np.bincount(split.labels, minlength=len(split.classes))
    titles = [f"{emotion}\n{count:,} images" for emotion, count in zip(split.classes, counts)]
    brightest, darkest = (split.classes[pick(faces.mean((1, 2)))] for pick in (np.nanargmax, np.nanargmin))
    return draw_images(
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
    strongest = split.classes[np.nanargmax(np.nanstd(own, axis=(1, 2)))]
    return draw_images(
        own,
        split.classes,
        f"{strongest} departs furthest from the mean of all faces",
        label="grey levels\nabove the mean",
        data=split.data,
    )


def plot_eigenfaces(split: Split, count: int = 7) -> Figure:
    """The main directions in which the images vary."""
    faces, shares = calc_eigenfaces(split, count)
    titles = [f"{place}: {share:.0%}" for place, share in enumerate(shares, start=1)]
    return draw_images(
        faces,
        titles,
        f"The first {count} eigenfaces hold {shares.sum():.0%} of the variance, and most of them are light and pose",
        label="weight",
        data=split.data,
    )


def plot_agreement(agreement: pd.DataFrame) -> Figure:
    """How far FER+'s ten taggers share FER2013's label, by class and by image."""
    figure, panels = make_figure(1, 2, figsize=(WIDTH, 3.4), width_ratios=(1.25, 1))
    by_class = agreement.groupby("label")["agrees"].mean()
    bars = panels[0].bar(range(len(by_class)), by_class, color=AFTER)
    panels[0].bar_label(bars, [f"{share:.0%}" for share in by_class], padding=2)
    panels[0].axhline(agreement["agrees"].mean(), color=BEFORE, linestyle="--", linewidth=1.2)
    panels[0].annotate(
        f"all: {agreement['agrees'].mean():.0%}", (1.5, agreement["agrees"].mean() + 0.02), color="#555555"
    )
    panels[0].set_xticks(range(len(EMOTIONS)), EMOTIONS, rotation=25)
    panels[0].set(ylim=(0, 1.05), ylabel="images whose label is\nthe taggers' choice")
    show_percent(panels[0].yaxis)
    panels[0].grid(axis="x", visible=False)
    edges = np.linspace(-0.05, 1.05, 12)
    shares = np.histogram(agreement["share"], edges)[0] / len(agreement)
    panels[1].bar(edges[:-1] + 0.05, shares, 0.085, color=AFTER)
    panels[1].set(xlabel="taggers who chose FER2013's label", ylabel="share of the images")
    panels[1].yaxis.set_major_locator(MultipleLocator(0.05))
    show_percent(panels[1].xaxis, panels[1].yaxis)
    worst, best = EMOTIONS[by_class.idxmin()], EMOTIONS[by_class.idxmax()]
    return set_title(
        figure,
        f"FER2013's label is the taggers' choice for {agreement['agrees'].mean():.0%} of the images: "
        f"{by_class.max():.0%} of {best}, {by_class.min():.0%} of {worst}",
    )


def plot_balancing(before: Split, after: Split) -> Figure:
    """Counts of each class, the copies set apart from the originals."""
    originals = np.bincount(before.labels, minlength=len(before.classes))
    copies = np.bincount(after.labels, minlength=len(before.classes)) - originals
    figure, axes = make_figure(figsize=(WIDTH, 3.4))
    axes.bar(before.classes, originals, 0.6, color=BEFORE, label="originals")
    bars = axes.bar(before.classes, copies, 0.6, bottom=originals, color=AFTER, label="copies, ±10 in grey level")
    times = (originals + copies) / np.maximum(originals, 1)
    axes.bar_label(bars, [f"×{factor:.1f}" if factor > 1 else "" for factor in times], padding=2)
    most = int(np.argmax(times))
    axes.set_ylabel("training images")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylim(0, 1.1 * (originals + copies).max())
    axes.grid(axis="x", visible=False)
    add_legend(figure, 2)
    told = f"{len(before):,} training images become {len(after):,}, those of {before.classes[most]} ×{times[most]:.1f}"
    return set_title(figure, told, before.data)


def plot_balanced_faces(before: Split, after: Split) -> Figure:
    """The class means of the copies less those of the originals."""
    change = calc_mean_faces(after) - calc_mean_faces(before)
    reach = np.nanmax(np.abs(change))
    means = np.nanmean(change, axis=(1, 2))
    return draw_images(
        change,
        [f"{emotion}\n{format_number(mean, 2, sign=True)} on average" for emotion, mean in zip(before.classes, means)],
        f"Balancing moves no class's mean face by more than {reach:.1f} of 255 grey levels",
        label="grey levels",
        data=before.data,
    )


def plot_augmentations(face: np.ndarray, rotation: float, crop_padding: int, name: str) -> Figure:
    """Flip, and the extremes of rotation and crop, of one float (48, 48) image, 0-255: a mean face."""
    image = torch.from_numpy(face).float()[None, None]
    far = 2 * crop_padding

    def cut(picture: torch.Tensor, top: int, left: int) -> torch.Tensor:
        padded = torch.nn.functional.pad(picture, [crop_padding] * 4)
        return crop(padded, torch.tensor([top]), torch.tensor([left]), *image.shape[-2:])

    pictures = {
        "as it is": image,
        "flipped": image.flip(-1),
        f"rotated +{rotation:g}°": rotate(image, torch.tensor([rotation])),
        f"rotated −{rotation:g}°": rotate(image, torch.tensor([-rotation])),
        f"cropped:\n{crop_padding} px down and right": cut(image, 0, 0),
        f"cropped:\n{crop_padding} px up and left": cut(image, far, far),
        "all three": cut(rotate(image.flip(-1), torch.tensor([rotation])), 0, far),
    }
    return draw_images(
        np.stack([picture[0, 0].numpy() for picture in pictures.values()]),
        list(pictures),
        f"Flip, rotation and crop move the face and keep its expression ({name}, the extremes)",
        limits=(face.min(), face.max()),
    )


def plot_blurring(face: np.ndarray, means: dict[str, np.ndarray]) -> Figure:
    """An image, float (48, 48), 0-255, and means of many random transformations of it."""
    inner = slice(SIDE // 6, -SIDE // 6)  # away from the black that rotation and crop bring in
    lost = {name: 1 - mean[inner, inner].std() / face[inner, inner].std() for name, mean in means.items()}
    titles = ["as it is", *(f"{name}\n{share:.0%} of contrast lost" for name, share in lost.items())]
    strongest = max(list(lost)[:3], key=lost.get)
    return draw_images(
        np.stack([face, *means.values()]),
        titles,
        f"Of the three, {strongest} smears most: {lost[strongest]:.0%} of the contrast mid-picture is lost",
        limits=(face.min(), face.max()),
    )


def plot_faces(split: Split, count: int = 10) -> Figure:
    """The first images of each class: for a reader who has the data, never in what is published of FER2013."""
    sheet = np.full((len(split.classes), count, SIDE, SIDE), 255, np.uint8)
    for label, row in enumerate(sheet):
        found = split.images[split.labels == label][:count]
        row[: len(found)] = found
    figure, axes = make_figure(figsize=(WIDTH, WIDTH * len(split.classes) / count))
    axes.imshow(sheet.swapaxes(1, 2).reshape(len(split.classes) * SIDE, count * SIDE), cmap="gray", vmin=0, vmax=255)
    axes.set_yticks(SIDE * (np.arange(len(split.classes)) + 0.5), split.classes)
    axes.set_xticks([])
    axes.grid(visible=False)
    return set_title(
        figure, f"The first {count} {split.name} images labelled with each class; some labels are wrong", split.data
    )


def plot_rotations(degrees: dict[str, np.ndarray]) -> Figure:
    """How far the faces of each split are turned. degrees: {split: float (N,)} of `explore.estimate_rotations`."""
    figure, axes = make_figure(figsize=(WIDTH, 3.2))
    bins, told = np.arange(-40, 41, 2), {}
    for name, values in degrees.items():
        found = values[np.isfinite(values)]
        shares = np.histogram(found, bins)[0] / len(found)
        label = f"{name}, for {len(found) / len(values):.0%} of the images"
        axes.stairs(shares, bins, color=SPLIT_COLOURS[name], label=label, linewidth=1.6)
        told[name] = np.median(np.abs(found))
    axes.set_xlabel("estimated rotation in the picture's plane (degrees, counter-clockwise)")
    axes.set_ylabel("share of these")
    show_percent(axes.yaxis)
    axes.legend(fontsize=8)
    return set_title(
        figure,
        f"Test faces are turned by {told['test']:.1f}° in the median, training faces by {told['train']:.1f}°",
    )
