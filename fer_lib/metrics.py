"""Metrics of logits: accuracy, confusion, F1, and calibration."""

import numpy as np
import pandas as pd


def calc_accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of images, 0-1, whose largest logit is at their label (top-1 accuracy).

    logits: float (N, 7); labels: int (N,)."""
    return float(np.mean(logits.argmax(1) == labels))


def calc_confusion(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts, int64 (classes, classes): row i, column j is how many images of class i were taken for class j."""
    classes = logits.shape[1]
    return np.bincount(labels * classes + logits.argmax(1), minlength=classes**2).reshape(classes, classes)


def calc_recall(confusion: np.ndarray) -> np.ndarray:
    """Share of each class that was recognised, float (..., 7), 0-1, of counts (..., 7, 7);
    NaN for a class without images."""
    with np.errstate(invalid="ignore"):
        return np.diagonal(confusion, axis1=-2, axis2=-1) / confusion.sum(-1)


def calc_macro_f1(confusion: np.ndarray) -> float:
    """Mean over the classes of F1, the harmonic mean of precision and recall, 0-1.

    A class with neither images nor predictions does not count."""
    total = confusion.sum(0) + confusion.sum(1)
    return float((2 * confusion.diagonal()[total > 0] / total[total > 0]).mean())


def calc_probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Softmax of logits (N, 7) over a temperature above 0: float64 (N, 7), each row's sum 1."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def calc_reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> pd.DataFrame:
    """How often a network that is so sure is right: a row for each of `bins` equal ranges of the largest
    probability that has images, with `images`, their mean `confidence` and their `accuracy` (0-1).

    probabilities: (N, 7); labels: int (N,)."""
    confidence = probabilities.max(1)
    table = pd.DataFrame({"confidence": confidence, "accuracy": probabilities.argmax(1) == labels})
    groups = table.groupby(np.minimum((confidence * bins).astype(int), bins - 1))
    return groups.agg(images=("accuracy", "size"), confidence=("confidence", "mean"), accuracy=("accuracy", "mean"))


def calc_calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error, 0-1: how far confidence and accuracy lie apart, in the mean over the images
    (Guo et al. 2017, arXiv:1706.04599, with 15 ranges)."""
    table = calc_reliability(probabilities, labels)
    return float(np.average((table["confidence"] - table["accuracy"]).abs(), weights=table["images"]))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature at which the labels are likeliest (Guo et al. 2017): to be fitted on the validation split."""
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(labels))

    def calc_loss(log_temperature: float) -> float:
        return -np.log(calc_probabilities(logits, np.exp(log_temperature))[rows, labels] + 1e-12).mean()

    return float(np.exp(minimize_scalar(calc_loss, bounds=(-3, 3), method="bounded").x))
