"""Metrics of recorded logits, their intervals, and tests of one experiment against another."""

import numpy as np

from fer_lib.data import EMOTIONS


def calc_accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of images, 0-1, whose largest logit is at their label (top-1 accuracy).

    logits: float (N, 7); labels: int (N,)."""
    return float(np.mean(logits.argmax(1) == labels))


def calc_confusion(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts, int64 (7, 7): row i, column j is how many images of class i were taken for class j."""
    classes = len(EMOTIONS)
    return np.bincount(labels * classes + logits.argmax(1), minlength=classes**2).reshape(classes, classes)


def calc_recall(confusion: np.ndarray) -> np.ndarray:
    """Share of each class that was recognised, float (7,), 0-1; NaN for a class without images."""
    with np.errstate(invalid="ignore"):
        return confusion.diagonal() / confusion.sum(1)


def calc_macro_f1(confusion: np.ndarray) -> float:
    """Mean over the classes of F1, the harmonic mean of precision and recall, 0-1.

    A class with neither images nor predictions does not count."""
    total = confusion.sum(0) + confusion.sum(1)
    return float((2 * confusion.diagonal()[total > 0] / total[total > 0]).mean())
