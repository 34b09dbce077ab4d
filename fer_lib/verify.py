"""Whether a record is sound: its parts agree with each other, with its folder's name, and with the labels."""

import io
import math
from pathlib import Path

import numpy as np
import pandas as pd

from fer_lib.dataset import EMOTIONS, Dataset
from fer_lib.metrics import calc_accuracy
from fer_lib.storage import RecordError, read_bytes

TIES = 3  # images by which an accuracy may differ from that of the logits: the first records rounded ties away


RESULTS = (
    "best_epoch", "epochs", "parameters", "train_accuracy", "train_accuracy_clean", "validation_accuracy",
    "validation_loss", "validation_macro_f1", "test_accuracy", "test_macro_f1", "last_train_accuracy",
    "last_train_accuracy_clean", "last_validation_accuracy",
)  # fmt: skip

"""What the results of every run hold; see `train.train_run`."""


def find_fault(record: dict, folder: Path) -> str | None:
    """What is wrong with the content of a run.json, or None."""
    kinds = {"experiment": str, "seed": int, "data": dict, "config": dict, "results": dict, "environment": dict}
    for name, kind in kinds.items():
        if type(record.get(name)) is not kind:
            return f"without {name}, or it is of the wrong kind"
    data, results = record["data"], record["results"]
    if ("files" in record) != ("digest" in record):
        return "without its digest, or those of its files"
    if not all(isinstance(data.get(name), str) for name in ("name", "fingerprint")):
        return "without the data's name or fingerprint"
    classes = data.get("classes", list(EMOTIONS))
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        return "its classes are not names"
    named = f"{folder.parent.name}/{folder.name}-"  # a config that is not the published one adds its digest
    if not named.startswith(f"{record['experiment']}/{data['name']}-seed{record['seed']}-"):
        return f"of {record['experiment']} on {data['name']} with seed {record['seed']}, which its folder is not"
    if missing := [name for name in RESULTS if name not in results]:
        return f"without the results {', '.join(missing)}"
    for name, value in results.items():
        if type(value) not in (int, float) or not math.isfinite(value):
            return f"{name} is {value!r}, expected a number"
        if ("accuracy" in name or "macro_f1" in name) and not 0 <= value <= 1:
            return f"{name} is {value!r}, expected a share from 0 to 1"
    seconds = record["environment"].get("seconds")
    if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
        return f"environment: seconds is {seconds!r}, expected a number"
    return None


def read_history(path: Path, results: dict, digest: str | None) -> pd.DataFrame:
    """The history, which must agree with the results."""
    content = read_bytes(path, digest)
    if not content.endswith(b"\n"):
        raise RecordError(path, "cut short, its last line has no end")
    try:
        history = pd.read_csv(io.BytesIO(content))
        finite = bool(np.isfinite(history.to_numpy(float)).all())
        epochs = history["epoch"].tolist()
        best, last = history.iloc[results["best_epoch"] - 1], history.iloc[-1]
        told = {
            "train_accuracy": best["train_accuracy"],
            "validation_accuracy": best["validation_accuracy"],
            "validation_loss": best["validation_loss"],
            "last_train_accuracy": last["train_accuracy"],
            "last_validation_accuracy": last["validation_accuracy"],
        }
        highest = history["validation_accuracy"].max()
    except Exception as error:  # pandas raises many kinds on a damaged file
        raise RecordError(path, f"damaged or cut short ({error})") from error
    if not finite:
        raise RecordError(path, "a number is missing in it, or not finite")
    if epochs != list(range(1, results["epochs"] + 1)):
        raise RecordError(path, f"its epochs are not the {results['epochs']} of run.json")
    for name, value in told.items():
        if abs(value - results[name]) > 1e-5:
            raise RecordError(path, f"{name} is {value} here and {results[name]} in run.json")
    if told["validation_accuracy"] < highest:
        raise RecordError(path, f"epoch {results['best_epoch']}, the best by run.json, is not the best here")
    return history


def check_logits(
    path: Path, logits: dict[str, np.ndarray], views: tuple[str, ...], classes: int, results: dict
) -> None:
    """Raise RecordError unless these are the logits of as many images as the accuracies speak of."""
    whole_name = [split + view for split in ("validation", "test") for view in ("", *(f"_{view}" for view in views))]
    if missing := set(whole_name) - set(logits):
        raise RecordError(path, f"without {', '.join(sorted(missing))}")
    for name, array in logits.items():
        whole = array.ndim == 2 and array.shape[1:] == (classes,) and len(array) > 0 and array.dtype == np.float16
        if not whole or len(array) != len(logits[name.split("_")[0]]) or not np.isfinite(array).all():
            raise RecordError(path, f"{name} is not what logits are, finite and (N, {classes}) in half precision")
        right = len(array) * results.get(_name_accuracy(name), 0.5 / len(array))  # no whole number, if it is missing
        if not abs(right - round(right)) <= 1e-6 * len(array):
            raise RecordError(path, f"{name} has {len(array)} rows, of which no whole number gives run.json's accuracy")


def check_accuracies(folder: Path, results: dict, logits: dict[str, np.ndarray], dataset: Dataset) -> None:
    """Raise RecordError unless a record's accuracies are those of its logits. Arguments as of `record.Run`."""
    for name, array in logits.items():
        labels, told = dataset.splits[name.split("_")[0]].labels, results[_name_accuracy(name)]
        if len(array) != len(labels):
            raise RecordError(folder / "predictions.npz", f"{name} has {len(array)} rows, expected {len(labels)}")
        found = calc_accuracy(array, labels)
        if abs(found - told) * len(labels) > TIES + 0.5:
            raise RecordError(folder / "run.json", f"{_name_accuracy(name)} is {told}, by the logits {found:.6f}")


def _name_accuracy(logits: str) -> str:
    """ "test_accuracy_flip", what the accuracy of the logits "test_flip" is called."""
    split, *view = logits.split("_", 1)
    return "_".join([split, "accuracy", *view])
