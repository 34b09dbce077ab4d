"""What a data set is: grey 48x48 images, each of a class, in three splits."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

EMOTIONS = ("Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral")
"""FER2013's seven classes, in the order of their labels 0-6."""

USAGES = ("Training", "PublicTest", "PrivateTest")
SPLITS = ("train", "validation", "test")
"""What each of `USAGES` is used as: PublicTest alone chooses, PrivateTest is read once."""

SIDE = 48
PIXELS = SIDE * SIDE
FINGERPRINTS = {  # of the decoded rows; tests tie each to the published MD5 of its file
    "6abd39e37481cc88": "icml_face_data.csv or fer2013.csv",
    "4b3655c1a9df6fb1": "train.csv",
}
PROJECT = Path(__file__).resolve().parent.parent


class DataError(ValueError):
    """The data cannot be used; the message says which file, where in it, and what to do."""

    def _render_traceback_(self) -> list[str]:  # what IPython shows: how it was found out tells a reader nothing
        return [f"{type(self).__name__}: {self}"]


@dataclass(frozen=True, eq=False)
class Split:
    """One of the three splits.

    images: uint8 (N, 48, 48), 0 black to 255 white; labels: int64 (N,), places in `classes`;
    rows: int64 (N,), the place of each image among the file's data rows, or the folder's pictures, from 0;
    data: the name of the data set.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    classes: tuple[str, ...] = EMOTIONS
    data: str = "fer2013"

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set: `name` ("fer2013", "drawn", "drawn-few", or "custom-" and eight hex digits),
    `fingerprint` (16 hex digits of the SHA-256 of its rows), its splits, and the names of its classes."""

    name: str
    fingerprint: str
    splits: dict[str, Split] = field(repr=False)
    classes: tuple[str, ...] = field(repr=False, default=EMOTIONS)

    @property
    def train(self) -> Split:
        return self._split("train")

    @property
    def validation(self) -> Split:
        return self._split("validation")

    @property
    def test(self) -> Split:
        return self._split("test")

    def _split(self, name: str) -> Split:
        if name not in self.splits:
            raise DataError(
                f"the {name} split ({USAGES[SPLITS.index(name)]}) is not in this data set: the challenge's train.csv "
                "holds the training images alone. Use icml_face_data.csv or fer2013.csv, which hold all three splits."
            )
        return self.splits[name]


@dataclass(frozen=True, eq=False)
class Content:
    """What a file or a folder holds, before it has a name.

    images: uint8 (N, 48, 48); codes: uint8, or uint16 for more than 63 classes, (N,): 4 * label + usage (0 Training,
    1 PublicTest, 2 PrivateTest); classes: the labels' names; split: who says which image is of which split, a key of
    `splitting.WAYS`.
    """

    images: np.ndarray
    codes: np.ndarray
    classes: tuple[str, ...] = EMOTIONS
    split: str = "given"

    def calc_fingerprint(self) -> str:
        """16 hex digits of the SHA-256 of the rows, and of the classes and the split where these are not FER2013's."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images))
        digest.update(np.ascontiguousarray(self.codes))
        if (self.classes, self.split) != (EMOTIONS, "given"):
            digest.update(json.dumps([self.classes, self.split]).encode())
        return digest.hexdigest()[:16]


def build_dataset(name: str, images: np.ndarray, codes: np.ndarray, classes: tuple[str, ...] = EMOTIONS) -> Dataset:
    """Make a Dataset of images, codes and classes as a `Content` has them."""
    content = Content(images, codes, classes)
    return split_rows(name, content.calc_fingerprint(), content)


def split_rows(name: str, fingerprint: str, content: Content) -> Dataset:
    """Make a Dataset of a content whose fingerprint is known."""
    splits, codes, classes = {}, content.codes, content.classes
    for usage, split in enumerate(SPLITS):
        rows = np.flatnonzero(codes % 4 == usage)
        if len(rows):
            whole = rows[-1] - rows[0] + 1 == len(rows)  # then a view will do, and spare a copy of 66 MB
            chosen = slice(rows[0], rows[-1] + 1) if whole else rows
            labels = (codes[chosen] // 4).astype(np.int64)
            splits[split] = Split(split, content.images[chosen], labels, rows, classes, name)
    return Dataset(name, fingerprint, splits, classes)
