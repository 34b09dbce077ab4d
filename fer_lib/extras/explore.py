"""What is in the data: duplicates, main directions, what other people call the faces; and where a network looks."""

import hashlib
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from fer_lib.augment import rotate
from fer_lib.dataset import PIXELS, SIDE, SPLITS, Dataset, Split
from fer_lib.models import AttentionCNN
from fer_lib.preprocess import scale_pixels
from fer_lib.reading.votes import VOTE_CLASSES, VOTES


def tabulate_counts(dataset: Dataset) -> pd.DataFrame:
    """How many images of each class (row) each split (column) holds."""
    counts = {name: np.bincount(split.labels, minlength=len(dataset.classes)) for name, split in dataset.splits.items()}
    return pd.DataFrame(counts, index=dataset.classes)


def tabulate_pixels(dataset: Dataset) -> pd.DataFrame:
    """Mean, contrast and extremes of each split's pixels, in grey levels of 0-255."""
    rows = {}
    for name, split in dataset.splits.items():
        means, deviations = measure_images(split)
        rows[name] = {
            "images": len(split),
            "mean grey": means.mean(),
            "contrast (mean standard deviation)": deviations.mean(),
            "lowest": split.images.min(),
            "highest": split.images.max(),
            "images of a single grey": int((deviations == 0).sum()),
        }
    return pd.DataFrame.from_dict(rows, orient="index").round(1)


def measure_images(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the pixels of each image, float (N,), in grey levels."""
    flat = split.images.reshape(len(split), PIXELS)
    return flat.mean(1), flat.std(1)


def calc_mean_faces(split: Split) -> np.ndarray:
    """The mean image of each class, float (classes, 48, 48), 0-255; NaN for a class without images."""
    return average_by_class(split.images, split)


def average_by_class(maps: np.ndarray, split: Split) -> np.ndarray:
    """The mean over each class's images of what there is of each, (N, H, W): float (classes, H, W), NaN without any."""
    counts = np.bincount(split.labels, minlength=len(split.classes))
    total = np.stack([maps[split.labels == label].sum(0) for label in range(len(counts))])
    with np.errstate(invalid="ignore"):
        return total / counts[:, None, None]


def pick_images(split: Split, count: int) -> Split:
    """The first so many images of each class of a split, or all that there are, in the split's order.

    Raises ValueError for less than one."""
    if count < 1:
        raise ValueError(f"{count} images of each class are too few; pick at least 1")
    labels = range(len(split.classes))
    chosen = np.sort(np.concatenate([np.flatnonzero(split.labels == label)[:count] for label in labels]))
    return replace(split, images=split.images[chosen], labels=split.labels[chosen], rows=split.rows[chosen])


def calc_eigenfaces(split: Split, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Principal components of the images (Turk and Pentland 1991, doi:10.1162/jocn.1991.3.1.71).

    Returns the first `count`, float (count, 48, 48) of length 1, each with its largest pixel
    positive, and the share of the variance that each explains, float (count,), 0-1."""
    flat = torch.from_numpy(split.images.reshape(len(split), PIXELS)).float()
    flat -= flat.mean(0)
    with torch.random.fork_rng():  # the first few of 2304 directions, by random ones that are bent towards them
        torch.manual_seed(0)
        _, deviations, vectors = torch.pca_lowrank(flat, q=min(4 * count, *flat.shape), center=False, niter=4)
    faces = vectors.T[:count].numpy()
    faces = faces * np.sign(faces[np.arange(count), np.abs(faces).argmax(1)])[:, None]
    shares = deviations[:count].square() / flat.square().sum()
    return faces.reshape(-1, SIDE, SIDE), shares.numpy()


def find_duplicates(dataset: Dataset) -> pd.DataFrame:
    """Every image that has an exact copy: row (in the file), split, label, and group (the same for copies)."""
    parts = [
        pd.DataFrame(
            {
                "row": split.rows,
                "split": name,
                "label": split.labels,
                "group": [hashlib.md5(image).hexdigest() for image in split.images.reshape(len(split), PIXELS)],
            }
        )
        for name, split in dataset.splits.items()
    ]
    table = pd.concat(parts, ignore_index=True)
    table = table[table.duplicated("group", keep=False)]
    return table.assign(group=pd.factorize(table["group"])[0])


def tabulate_duplicates(duplicates: pd.DataFrame) -> pd.DataFrame:
    """For each split: images with a copy in it, in each other split, and with a copy of another label."""
    split, group = duplicates["split"], duplicates["group"]
    copies = pd.crosstab(group, split).reindex(columns=SPLITS, fill_value=0)
    others = copies.loc[group].set_axis(duplicates.index) - pd.get_dummies(split).reindex(columns=SPLITS, fill_value=0)
    table = (others > 0).rename(columns="with a copy in {}".format)
    table["with a copy of another label"] = duplicates.groupby("group")["label"].transform("nunique") > 1
    return table.groupby(split).sum().reindex(SPLITS, fill_value=0).rename_axis(index=None, columns=None)


def list_subsets(dataset: Dataset, votes: pd.DataFrame | None) -> dict[str, np.ndarray]:
    """Parts of the test split in which accuracy may differ, {words: bool (N,)}: all of it; where FER2013's label is
    the taggers' choice and where not, if there are votes; and those of `find_shared`."""
    subsets = {"all": np.ones(len(dataset.test), bool)}
    if votes is not None:
        agrees = measure_agreement(dataset, votes).query("split == 'test'")["agrees"].to_numpy()
        subsets |= {"label is the taggers' choice": agrees, "label is not": ~agrees}
    return subsets | find_shared(dataset)


def find_shared(dataset: Dataset) -> dict[str, np.ndarray]:
    """Which test images have an exact copy in training, in validation, and in neither: {words: bool (N,)}."""
    duplicates = find_duplicates(dataset)
    own = duplicates[duplicates["split"] == "test"]
    shared = {}
    for name, words in (("train", "training"), ("validation", "validation")):
        groups = duplicates.loc[duplicates["split"] == name, "group"]
        rows = own.loc[own["group"].isin(groups), "row"]
        shared[f"with a copy in {words}"] = np.isin(dataset.test.rows, rows)
    return shared | {"without a copy in either": ~np.logical_or(*shared.values())}


def measure_agreement(dataset: Dataset, votes: pd.DataFrame) -> pd.DataFrame:
    """For each image, how FER+'s ten taggers see it: split, label, `choice` (the one of the seven classes' labels with
    the most votes, be they few; -1 where that is contempt, unknown, no face, or no single one), `share` of the votes
    for FER2013's label (0-1), and `agrees`, whether `choice` is that label."""
    counts = votes.to_numpy()
    leaders = counts == counts.max(1, keepdims=True)
    labels = np.array([VOTE_CLASSES.get(name, -1) for name in VOTES])
    choice = np.where(leaders.sum(1) == 1, labels[leaders.argmax(1)], -1)
    column = np.argsort([VOTE_CLASSES.get(name, len(VOTES)) for name in VOTES], kind="stable")
    parts = []
    for name, split in dataset.splits.items():
        share = counts[split.rows, column[split.labels]] / counts[split.rows].sum(1)
        parts.append(pd.DataFrame({"split": name, "label": split.labels, "choice": choice[split.rows], "share": share}))
    table = pd.concat(parts, ignore_index=True)
    return table.assign(agrees=table["choice"] == table["label"])


def list_choices(dataset: Dataset, votes: pd.DataFrame) -> np.ndarray:
    """The taggers' choice on each test image, int (N,): `choice` of `measure_agreement`."""
    return measure_agreement(dataset, votes).query("split == 'test'")["choice"].to_numpy()


@torch.inference_mode()
def calc_mean_attention(model: AttentionCNN, split: Split) -> np.ndarray:
    """The mean over each class's images of how much each place of the map is looked at: float (7, side, side),
    each map's sum 1; NaN for a class without images."""
    batches = torch.from_numpy(split.images[:, None]).split(256)
    maps = torch.cat([model.map_attention(scale_pixels(batch)) for batch in batches])
    return np.stack([maps[torch.from_numpy(split.labels) == label].mean(0) for label in range(len(split.classes))])


def calc_ceilings(agreement: pd.DataFrame) -> dict[str, float]:
    """What FER+'s votes say of the accuracy that FER2013's labels allow, 0-1. agreement: of `measure_agreement`.

    choice: of always answering the taggers' choice, wrong where that is none of the seven; choice where there is
    one: of the same on the other images alone; tagger: of one tagger, drawn at random."""
    chosen = agreement[agreement["choice"] >= 0]
    return {
        "choice": float(agreement["agrees"].mean()),
        "choice where there is one": float(chosen["agrees"].mean()),
        "tagger": float(agreement["share"].mean()),
    }


# --- how mirrored and how rotated the faces are -----------------------------------------------


def measure_asymmetry(split: Split) -> np.ndarray:
    """How much of each image's variance is lost if it is averaged with its mirror image: float (N,), 0 for a
    symmetrical image, 0.5 for one that has nothing in common with its mirror image; NaN for one of a single grey."""
    images = split.images.astype(np.float32)
    odd = (images - images[:, :, ::-1]) / 2
    with np.errstate(invalid="ignore"):
        return (odd**2).mean((1, 2)) / images.var((1, 2))


def tell_mirrored(train: Split, test: Split) -> np.ndarray:
    """Whether each test image is told from its own mirror image, bool (N,): one half right is chance.

    By Fisher's linear discriminant between the training images and their mirror images, at half the resolution,
    a tenth of the mean variance added to each, so that it can be inverted. If it does no better than
    chance, a mirrored face is as likely a face as any, as far as light, pose and framing go."""
    odd_train, odd_test = (_take_odd_part(split) for split in (train, test))
    covariance = odd_train.T @ odd_train / len(odd_train)
    covariance += 0.1 * np.trace(covariance) / len(covariance) * np.eye(len(covariance), dtype=np.float32)
    direction = np.linalg.solve(covariance, odd_train.mean(0))
    return odd_test @ direction > 0


def _take_odd_part(split: Split) -> np.ndarray:
    """The antisymmetrical half of each image at half the resolution: float32 (N, 24 * 12)."""
    half = split.images.reshape(-1, SIDE // 2, 2, SIDE // 2, 2).mean((2, 4), dtype=np.float32)
    return (half - half[:, :, ::-1])[:, :, : SIDE // 4].reshape(len(half), -1)


ANGLES = torch.arange(-40, 41, 4).float()


def estimate_rotations(split: Split, template: np.ndarray) -> np.ndarray:
    """How far each face is turned in the picture's plane, counter-clockwise in degrees: float (N,).

    It is the angle by which the template, float (48, 48), must be turned to correlate best with the image,
    within a disc; between the angles tried, 4 degrees apart and up to 40 either way, by a parabola. NaN where
    it does so at an end of that range: such an image is seldom a face seen from the front."""
    turned = rotate(torch.from_numpy(template).float().expand(len(ANGLES), 1, SIDE, SIDE), ANGLES)[:, 0]
    grid = torch.arange(SIDE) - (SIDE - 1) / 2
    disc = (grid[:, None] ** 2 + grid**2) < (SIDE / 2) ** 2
    templates, images = turned[:, disc], torch.from_numpy(split.images)[:, disc].float()
    templates, images = (part - part.mean(1, keepdim=True) for part in (templates, images))
    fit = (images @ (templates / templates.norm(dim=1, keepdim=True)).T).numpy()
    best = fit.argmax(1)
    inside = (0 < best) & (best < len(ANGLES) - 1)
    best = np.where(inside, best, 1)
    left, middle, right = (fit[np.arange(len(fit)), best + step] for step in (-1, 0, 1))
    curve = left - 2 * middle + right
    offset = np.divide((left - right) / 2, curve, out=np.zeros_like(curve), where=curve < 0)
    return np.where(inside, ANGLES.numpy()[best] + 4 * offset, np.nan)


# --- for the write-up -------------------------------------------------------------------------


def collect_facts(dataset: Dataset, votes: pd.DataFrame) -> dict:
    """What the write-up says of the data, as plain values of JSON: images of each class and split; images with an
    exact copy, and of the test split those with one in training; shares (0-1) of `calc_ceilings`; medians of
    `estimate_rotations` (degrees, absolute) and the share told by `tell_mirrored`."""
    duplicates = find_duplicates(dataset)
    copies = tabulate_duplicates(duplicates)
    agreement = measure_agreement(dataset, votes)
    template = dataset.train.images.mean(0)
    turned = {name: np.abs(estimate_rotations(split, template)) for name, split in dataset.splits.items()}
    return {
        "images": {name: len(split) for name, split in dataset.splits.items()},
        "classes": tabulate_counts(dataset).to_dict(),
        "copies": len(duplicates),
        "test_copies_in_train": int(copies.loc["test", "with a copy in train"]),
        "agreement": round(float(agreement["agrees"].mean()), 4),
        "ceilings": {
            name: round(share, 4) for name, share in calc_ceilings(agreement.query("split == 'test'")).items()
        },
        "rotation": {name: round(float(np.nanmedian(degrees)), 2) for name, degrees in turned.items()},
        "told_from_mirror": round(float(tell_mirrored(dataset.train, dataset.test).mean()), 4),
    }
