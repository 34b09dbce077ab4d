"""Treatment of the images before training: scaling, and balancing and upsampling of the classes."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from fer_lib.dataset import EMOTIONS, Split
from fer_lib.reading.votes import VOTE_CLASSES


def scale_pixels(images: torch.Tensor) -> torch.Tensor:
    """Scale pixels from uint8 0-255 to float32 0-1, the shape unchanged (both reports)."""
    return images.float().div_(255)


def cut_middle(images: np.ndarray, side: int) -> np.ndarray:
    """The middle of images (N, H, W), (N, side, side): what a network that was trained on windows of that side is
    shown of an image."""
    top, left = ((whole - side) // 2 for whole in images.shape[1:])
    return images[:, top : top + side, left : left + side]


EVEN = (1.0,) * len(EMOTIONS)  # every class as large as the largest


def balance_classes(split: Split, factors: Sequence[float] = EVEN, shift: int = 10, seed: int = 0) -> Split:
    """Bring the minority classes of the training split up to the largest one's size, or further (report A).

    A class that is to have more images than it has gets copies of its own, drawn at random
    with replacement, each with `shift` added to or taken from all its pixels (which, a coin
    decides) and clipped to 0-255. Classes that have enough stay as they are.

    factors: for each class, how many times the size of the largest it is to have; `EVEN` is for any classes.
    shift: in grey levels of 0-255.
    The copies follow the originals; `rows` names the image that each is a copy of.
    Raises ValueError for factors that are of other classes, and for a split other than the
    training split: a balanced validation or test split would no longer measure what the reports measured.
    """
    if split.name != "train":
        raise ValueError(f"only the training split may be balanced, not the {split.name} split")
    factors = [1.0] * len(split.classes) if tuple(factors) == EVEN else factors
    if len(factors) != len(split.classes):
        raise ValueError(
            f"upsampling: {len(factors)} factors, and the data has {len(split.classes)} classes; notebook 10 finds "
            "factors for any data"
        )
    counts = np.bincount(split.labels, minlength=len(split.classes))
    targets = np.round(np.multiply(factors, counts.max())).astype(int)
    rng = np.random.default_rng(seed)
    chosen = [
        rng.choice(np.flatnonzero(split.labels == label), size=target - count)
        for label, (count, target) in enumerate(zip(counts, targets))
        if 0 < count < target
    ]
    copies = np.concatenate([np.arange(0), *chosen])
    signs = rng.choice(np.array([-shift, shift], np.int16), size=len(copies))
    shifted = np.clip(split.images[copies] + signs[:, None, None], 0, 255).astype(np.uint8)
    return Split(
        split.name,
        np.concatenate([split.images, shifted]),
        np.concatenate([split.labels, split.labels[copies]]),
        np.concatenate([split.rows, split.rows[copies]]),
        split.classes,
        split.data,
    )


def share_votes(votes: pd.DataFrame, split: Split) -> np.ndarray:
    """How FER+'s taggers share each image among the seven classes: float32 (N, 7), each row's sum 1.

    votes: of `data.load_votes`. Votes for contempt, unknown and no face do not count; an image with no others keeps
    FER2013's label."""
    columns = sorted(VOTE_CLASSES, key=VOTE_CLASSES.get)
    counts = votes[columns].to_numpy(np.float32)[split.rows]
    counts[np.flatnonzero(counts.sum(1) == 0), split.labels[counts.sum(1) == 0]] = 1
    return counts / counts.sum(1, keepdims=True)


def calc_upsampling_factors(recall: np.ndarray, strength: float) -> tuple[float, ...]:
    """Factors for `balance_classes` that upsample a class the more, the less of it is recognised (report A, A8).

    recall: of each class, (7,), 0-1, NaN for one without images, which gets 1. The best recognised class gets 1, the
    least 1 + strength, the others in proportion to how far their recall falls short of the best. Two decimals.
    The report says "more aggressively" and no more; this is the simplest rule that does so.
    """
    shortfall = np.nan_to_num(np.nanmax(recall) - recall)
    return tuple(np.round(1 + strength * shortfall / (shortfall.max() or 1), 2).tolist())
