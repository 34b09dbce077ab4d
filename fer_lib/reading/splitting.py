"""What own data's images are called, and which of them train: the names of its classes, and its three splits."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from fer_lib.dataset import EMOTIONS, DataError

ALIASES = {
    "anger": "Angry", "disgusted": "Disgust", "fearful": "Fear", "happiness": "Happy", "sadness": "Sad",
    "surprised": "Surprise",
} | {emotion.casefold(): emotion for emotion in EMOTIONS}  # fmt: skip
"""What others call FER2013's classes; a data set that has all seven of them, and no other, has FER2013's classes."""

USAGE_NAMES = {
    **dict.fromkeys(("training", "train"), 0),
    **dict.fromkeys(("publictest", "validation", "valid", "val"), 1),
    **dict.fromkeys(("privatetest", "testing", "test"), 2),
}
"""What files and folders call the splits, in small letters, and their places in `dataset.SPLITS`."""

WAYS = {
    "given": "",
    "halved": "It came in two parts: the one that is not for training was split in two by a draw, class by class, into "
    "validation and test, the same at every reading.",
    "drawn": "It came without splits: of each class a tenth, drawn at random, the same at every reading, is "
    "validation, a tenth test. If it shows one person several times, they may be in all three, and accuracy too high.",
}
"""What is to be said of how the splits came about, by the name of the way."""

FEWEST = 3
"""Images of a class, one for each split."""


def name_classes(name: str, labels: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """The classes of own data, in FER2013's order if they are FER2013's, else in that of their names, numbers by their
    size; and each image's place among them, int64 (N,). Whether letters are large or small makes no other class.

    name: for messages. Raises DataError for fewer than two classes, or too few images of one."""
    counts = Counter(label.casefold() for label in labels)
    spelled = {label.casefold(): label for label in reversed(labels)}
    if rare := [spelled[key] for key, count in counts.items() if count < FEWEST]:
        raise DataError(f"{name}: of {', '.join(sorted(rare)[:5])} fewer than {FEWEST} images, one for each split")
    if len(counts) < 2:
        raise DataError(f"{name}: all images are of one class, {next(iter(spelled.values()))}; two are the least")
    known = {key: ALIASES.get(key) for key in counts}
    if sorted(known.values(), key=str) == sorted(EMOTIONS):
        classes, spelled = EMOTIONS, known
    else:
        classes = tuple(spelled[key] for key in sorted(counts, key=_sort_naturally))
    places = {key: classes.index(spelled[key]) for key in counts}
    return classes, np.array([places[label.casefold()] for label in labels])


def _sort_naturally(text: str) -> list[tuple[int, str]]:
    """A key that puts "10" after "9"."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]


def complete_splits(name: str, labels: np.ndarray, usages: np.ndarray | None) -> tuple[np.ndarray, str]:
    """Which split each image is of, int64 (N,), 0-2, and a key of `WAYS`.

    usages: what the data says of it, int (N,), or None if it says nothing. Raises DataError where none is to train."""
    rng = np.random.default_rng(0)
    members = [rng.permutation(np.flatnonzero(labels == label)) for label in range(labels.max() + 1)]
    if usages is None:
        if any(0 < len(rows) < FEWEST for rows in members):
            raise DataError(f"{name}: says no splits, and of a class has fewer than {FEWEST} images, one for each")
        usages = np.zeros(len(labels), np.int64)
        for rows in members:
            count = max(1, round(len(rows) / 10))
            usages[rows[:count]], usages[rows[count : 2 * count]] = 1, 2
        return usages, "drawn"
    if len(held := np.flatnonzero(usages)) < 2 or len(held) == len(usages):
        raise DataError(f"{name}: needs images to train on, and two or more others, for validation and test")
    if any(len(rows) and usages[rows].all() for rows in members):
        raise DataError(f"{name}: a class has no images to train on; every class needs some")
    if set(usages.tolist()) == {0, 1, 2}:
        return usages, "given"
    usages, order = usages.copy(), np.concatenate([rows[usages[rows] > 0] for rows in members])
    usages[order] = 1 + np.arange(len(order)) % 2
    return usages, "halved"


def encode(labels: np.ndarray, usages: np.ndarray) -> np.ndarray:
    """The codes of a `dataset.Content`."""
    codes = 4 * labels + usages
    return codes.astype(np.min_scalar_type(int(codes.max(initial=0))))
