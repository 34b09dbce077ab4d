"""Treatment of the images before training: scaling, and balancing of the classes."""

from collections.abc import Sequence

import numpy as np
import torch

from fer_lib.data import EMOTIONS, Split


def scale_pixels(images: torch.Tensor) -> torch.Tensor:
    """Scale pixels from uint8 0-255 to float32 0-1, the shape unchanged (both reports)."""
    return images.float().div_(255)


def balance_classes(split: Split, target: int | Sequence[int] | None = None, shift: int = 10, seed: int = 0) -> Split:
    """Bring the minority classes of the training split up to `target` images each (report A).

    A class with fewer images than `target` gets copies of its own images, drawn at random
    with replacement, each with `shift` added to or taken from all its pixels (which, a coin
    decides) and clipped to 0-255. Classes that have `target` images already stay as they are.

    target: for all classes, or one for each of the seven; by default the size of the largest class.
    shift: in grey levels of 0-255.
    The copies follow the originals; `rows` names the image that each is a copy of.
    Raises ValueError for a split other than the training split: a balanced validation or
    test split would no longer measure what the reports measured.
    """
    if split.name != "train":
        raise ValueError(f"only the training split may be balanced, not the {split.name} split")
    counts = np.bincount(split.labels, minlength=len(EMOTIONS))
    targets = np.broadcast_to(counts.max() if target is None else target, len(EMOTIONS))
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
    )
