"""The record of a run on disk: what the report is made from.

reports/runs/<experiment>/<data>-seed<k>/ holds run.json (config, data, results, environment),
history.csv (a row an epoch), predictions.npz (the logits) and weights.safetensors (the network).
A run whose config is not the published one of its experiment goes beside it, under a name that
ends in the config's digest, so that trying another learning rate never touches a published record.

What is checked when: run.json and history.csv whenever a run is opened, by their digests, and by whether they agree
with each other and with the folder's name; predictions.npz by its digest then too, and by what is in it when the
logits are first read; against the labels, from which the accuracies follow, whenever a run is read for a data set
that is at hand; the weights when they are loaded. The first records have no digests: the rest holds for them.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import shutil
import warnings
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load, save

from fer_lib.dataset import EMOTIONS, PROJECT, Dataset
from fer_lib.experiments import EXPERIMENTS, Experiment
from fer_lib.metrics import calc_accuracy

WEIGHTS = "weights.safetensors"  # of a network at its best epoch, in its run's folder
LOGIT_STEP = 1 / 32  # finer ones make larger records; this one changes no network's accuracy
TIES = 3  # images by which an accuracy may differ from that of the logits: the first records rounded ties away
RESULTS = (
    "best_epoch", "epochs", "parameters", "train_accuracy", "train_accuracy_clean", "validation_accuracy",
    "validation_loss", "validation_macro_f1", "test_accuracy", "test_macro_f1", "last_train_accuracy",
    "last_train_accuracy_clean", "last_validation_accuracy",
)  # fmt: skip
"""What the results of every run hold; see `train.train_run`."""


REMEDY = "git restore brings a published record back, and retrain (--retrain) makes a new one"
CHANGED = "not what was recorded, changed or damaged since"


class RecordError(RuntimeError):
    """A record or checkpoint cannot be trusted; the message says which file, what is wrong, and what to do."""

    def __init__(self, path: Path, fault: str, remedy: str = REMEDY):
        super().__init__(f"{path}: {' '.join(fault.split())}; {remedy}")


class StorageError(RuntimeError):
    """A folder cannot be written to; the message says which, why, and what to do."""


@contextlib.contextmanager
def tell_failed_writes(folder: Path):
    """Raise StorageError, one line, for whatever the system refuses in the body: a full disk, a read-only folder."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write to {folder} ({error.strerror or error}); mend that, and the same command goes on from the "
            "last finished epoch"
        ) from error


@dataclass(frozen=True, eq=False)
class Run:
    """One finished run.

    folder: where its record lies; experiment, seed, data: what was run, and on which data set;
    results: see `train.train_run`; environment: versions, hardware, seconds and images/s;
    history: a row an epoch with epoch (from 1), train_loss, train_accuracy, validation_loss,
    validation_accuracy (0-1), learning_rate, seconds, and gradient_norm/<name> for each layer of weights;
    weights: the digest of its weights, None for a record of before there were digests; classes: of its data.
    """

    folder: Path
    experiment: Experiment
    seed: int
    data: str
    results: dict = field(repr=False)
    environment: dict = field(repr=False)
    history: pd.DataFrame = field(repr=False)
    weights: str | None = field(repr=False, default=None)
    classes: tuple[str, ...] = field(repr=False, default=EMOTIONS)

    @cached_property
    def logits(self) -> dict[str, np.ndarray]:
        """{"validation": ..., "test": ...}: float16 (N, classes), in the file's row order, at the best epoch;
        "validation_flip" and so on, where the experiment has further views. As `round_logits` leaves them."""
        path = self.folder / "predictions.npz"
        try:
            with np.load(io.BytesIO(_read_bytes(path)), allow_pickle=False) as arrays:
                logits = {name.removesuffix("_logits"): arrays[name] for name in arrays.files}
        except RecordError:
            raise
        except Exception as error:  # a damaged archive makes zipfile and numpy raise almost anything
            raise RecordError(path, f"damaged or cut short ({error})") from error
        _check_logits(path, logits, self)
        return logits


def runs_folder() -> Path:
    """reports/runs in the project, or what $FER_RUNS names."""
    return Path(os.environ.get("FER_RUNS") or PROJECT / "reports" / "runs")


def find_folder(experiment: Experiment, data: str, seed: int) -> Path:
    """The folder of a run's record, whether it is there or not."""
    published = experiment == EXPERIMENTS.get(experiment.name)
    return runs_folder() / experiment.name / f"{data}-seed{seed}{'' if published else f'-{experiment.digest}'}"


def read_run(experiment: Experiment, dataset: Dataset, seed: int) -> Run | None:
    """The recorded run with just this config, data and seed, or None.

    Raises RecordError if it is damaged, its accuracies compared with those of its logits."""
    folder = find_folder(experiment, dataset.name, seed)
    if not folder.exists():
        return None
    record = _read_record(folder)
    if record["data"]["fingerprint"] != dataset.fingerprint or not experiment.matches(record["config"]):
        return None
    run = _open_run(folder, experiment, record)
    _check_accuracies(run, dataset)
    return run


def read_published_runs(data: str = "fer2013", names: Iterable[str] = EXPERIMENTS) -> list[Run]:
    """Every run on record that has the published config of its experiment, experiments in the reports' order.

    names: of the experiments, where not all are asked for. Warns of a run that is left out since its experiment has
    changed; raises RecordError if one is damaged."""
    runs, wanted = [], set(names)
    for experiment in (experiment for name, experiment in EXPERIMENTS.items() if name in wanted):
        for folder in sorted((runs_folder() / experiment.name).glob(f"{data}-seed*/")):
            if not folder.name.removeprefix(f"{data}-seed").isdigit():
                continue
            record = _read_record(folder)
            if experiment.matches(record["config"]):
                runs.append(_open_run(folder, experiment, record))
            else:
                warnings.warn(f"{folder} is left out: its experiment's config has changed since", stacklevel=2)
    return runs


def find_published_run(name: str, seed: int) -> Run:
    """The published run of an experiment with this seed on FER2013. Raises FileNotFoundError if it is not on record."""
    for run in read_published_runs(names=[name]):
        if run.seed == seed:
            return run
    raise FileNotFoundError(f"no run of {name} with seed {seed} is on record; python -m fer_lib.train makes one")


def find_teachers(experiment: Experiment, dataset: Dataset) -> list[Run]:
    """The runs on this data of the experiments that an experiment learns from, those whose weights are kept: the
    published ones, or, where there are none, as on the drawn faces, those with the same network.

    Raises FileNotFoundError if it has teachers and none of them is at hand."""
    published, others = [], []
    for name in experiment.teachers:
        for path in sorted((runs_folder() / name).glob(f"{dataset.name}-seed*/{WEIGHTS}")):
            record, teacher = _read_record(path.parent), EXPERIMENTS[name]
            if record["data"]["fingerprint"] == dataset.fingerprint and teacher.has_network(record["config"]):
                found = published if teacher.matches(record["config"]) else others
                found.append(_open_run(path.parent, teacher, record))
    if experiment.teachers and not published + others:
        raise FileNotFoundError(
            f"{experiment.name} learns from trained networks of {' or '.join(experiment.teachers)}, and no weights of "
            f"these on {dataset.name} are at hand; python -m fer_lib.train {experiment.teachers[0]} makes some"
        )
    return published or others


def _open_run(folder: Path, experiment: Experiment, record: dict) -> Run:
    files = record.get("files", {})
    history = _read_history(folder / "history.csv", record["results"], files.get("history.csv"))
    _read_bytes(folder / "predictions.npz", files.get("predictions.npz"))
    return Run(
        folder,
        experiment,
        record["seed"],
        record["data"]["name"],
        record["results"],
        record["environment"],
        history,
        files.get(WEIGHTS),
        tuple(record["data"].get("classes", EMOTIONS)),
    )


# --- what a record is checked by --------------------------------------------------------


def calc_digest(content: bytes) -> str:
    """32 hex digits that differ where the content does."""
    return hashlib.sha256(content).hexdigest()[:32]


def _read_bytes(path: Path, digest: str | None = None, remedy: str = REMEDY) -> bytes:
    """A file of a record, checked by its digest if it has one."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise RecordError(path, "missing from its record", remedy) from None
    except OSError as error:
        raise RecordError(path, f"cannot be read ({error.strerror})", remedy) from error
    if digest is not None and calc_digest(content) != digest:
        raise RecordError(path, CHANGED, remedy)
    return content


def write_json(path: Path, record: dict) -> None:
    """Write a record with a digest of itself, for `read_json`. Raises ValueError for a number that is not finite."""
    path.write_text(json.dumps(record | {"digest": _digest_json(record)}, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, remedy: str = REMEDY) -> dict:
    """A record that `write_json` wrote, or one of before there were digests. Raises RecordError if it is damaged."""

    def refuse(constant: str):
        raise ValueError(f"{constant} is no number")

    try:
        record = json.loads(_read_bytes(path, remedy=remedy), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise RecordError(path, f"damaged or cut short ({error})", remedy) from error
    if not isinstance(record, dict) or ("digest" in record and record["digest"] != _digest_json(record)):
        raise RecordError(path, CHANGED, remedy)
    return record


def _digest_json(record: dict) -> str:
    content = {key: value for key, value in record.items() if key != "digest"}
    return calc_digest(json.dumps(content, sort_keys=True).encode())


def _read_record(folder: Path) -> dict:
    """The run.json of a folder, which holds what every part of the project reads from it."""
    path = folder / "run.json"
    record = read_json(path)
    if fault := _find_fault(record, folder):
        raise RecordError(path, fault)
    return record


def _find_fault(record: dict, folder: Path) -> str | None:
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


def _read_history(path: Path, results: dict, digest: str | None) -> pd.DataFrame:
    """The history, which must agree with the results."""
    content = _read_bytes(path, digest)
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


def _check_logits(path: Path, logits: dict[str, np.ndarray], run: Run) -> None:
    """Raise RecordError unless these are the logits of as many images as the accuracies speak of."""
    views, classes = ["", *(f"_{view}" for view in run.experiment.views)], len(run.classes)
    if missing := {f"{split}{view}" for split in ("validation", "test") for view in views} - set(logits):
        raise RecordError(path, f"without {', '.join(sorted(missing))}")
    for name, array in logits.items():
        whole = array.ndim == 2 and array.shape[1:] == (classes,) and len(array) > 0 and array.dtype == np.float16
        if not whole or len(array) != len(logits[name.split("_")[0]]) or not np.isfinite(array).all():
            raise RecordError(path, f"{name} is not what logits are, finite and (N, {classes}) in half precision")
        right = len(array) * run.results.get(_name_accuracy(name), math.nan)
        if not abs(right - round(right or 0)) <= 1e-6 * len(array):
            raise RecordError(path, f"{name} has {len(array)} rows, of which no whole number gives run.json's accuracy")


def _check_accuracies(run: Run, dataset: Dataset) -> None:
    """Raise RecordError unless the accuracies are those of the logits."""
    for name, logits in run.logits.items():
        labels, told = dataset.splits[name.split("_")[0]].labels, run.results[_name_accuracy(name)]
        if len(logits) != len(labels):
            raise RecordError(run.folder / "predictions.npz", f"{name} has {len(logits)} rows, expected {len(labels)}")
        found = calc_accuracy(logits, labels)
        if abs(found - told) * len(labels) > TIES + 0.5:
            raise RecordError(run.folder / "run.json", f"{_name_accuracy(name)} is {told}, by the logits {found:.6f}")


def _name_accuracy(logits: str) -> str:
    """ "test_accuracy_flip", what the accuracy of the logits "test_flip" is called."""
    split, *view = logits.split("_", 1)
    return "_".join([split, "accuracy", *view])


# --- writing ----------------------------------------------------------------------------


def write_run(
    experiment: Experiment,
    dataset: Dataset,
    seed: int,
    results: dict,
    environment: dict,
    history: list[dict],
    logits: dict[str, np.ndarray],
    weights: dict[str, torch.Tensor],
) -> Run:
    """Write a finished run, in place of an older record of the same run, whole or not at all.

    weights: the network's state, of which whatever has more than one axis is kept in half precision."""
    folder = find_folder(experiment, dataset.name, seed)
    with tell_failed_writes(folder.parent):
        record = {
            "experiment": experiment.name,
            "seed": seed,
            "data": _describe_data(dataset),
            "config": experiment.config,
            "results": results,
            "environment": environment,
        }
        work = work_folder(folder)
        fresh, replaced = work / "record", work / "replaced"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        _write_files(fresh, record, history, logits, weights)
        if folder.exists():  # swapped, so that at no moment both are gone; `claim` undoes half a swap
            shutil.rmtree(replaced, ignore_errors=True)
            folder.replace(replaced)
        fresh.replace(folder)
        shutil.rmtree(replaced, ignore_errors=True)
    return _open_run(folder, experiment, _read_record(folder))


def _describe_data(dataset: Dataset) -> dict:
    """What a record says of its data; of the classes, only where they are not FER2013's."""
    own = {} if dataset.classes == EMOTIONS else {"classes": list(dataset.classes)}
    return {"name": dataset.name, "fingerprint": dataset.fingerprint, **own}


def _write_files(folder: Path, record: dict, history: list[dict], logits: dict, weights: dict) -> None:
    pd.DataFrame(history).round(6).to_csv(folder / "history.csv", index=False, lineterminator="\n")
    _write_arrays(folder / "predictions.npz", {f"{name}_logits": round_logits(array) for name, array in logits.items()})
    small = {name: tensor.half() if tensor.dim() > 1 else tensor for name, tensor in weights.items()}
    (folder / WEIGHTS).write_bytes(save({name: tensor.cpu().contiguous() for name, tensor in small.items()}))
    files = {path.name: calc_digest(path.read_bytes()) for path in sorted(folder.iterdir())}
    write_json(folder / "run.json", record | {"files": files})


def round_logits(logits: np.ndarray) -> np.ndarray:
    """Logits (N, 7) for the record: float16, each row moved so that its largest is 0, which leaves the probabilities
    as they are, and rounded to steps of `LOGIT_STEP`. The largest stays the largest: no other comes nearer than a step.
    """
    logits = logits.astype(np.float32)
    best, rows = logits.argmax(1), np.arange(len(logits))
    steps = np.minimum(np.rint((logits - logits.max(1, keepdims=True)) / LOGIT_STEP), -1)
    steps[rows, best] = 0
    return (steps * LOGIT_STEP).astype(np.float16)


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """What `np.savez_compressed` writes, and `np.load` reads, with a compression that suits rounded logits better."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, array)


def load_model(run: Run) -> torch.nn.Module:
    """The network of a run at its best epoch, on the CPU, in evaluation.

    Raises FileNotFoundError for a run of which the weights are not kept, which most are not in the repository, and
    RecordError for weights that are damaged or another network's."""
    path = run.folder / WEIGHTS
    if not path.exists():
        raise FileNotFoundError(
            f"{path.parent} has no {WEIGHTS}; "
            f"python -m fer_lib.train {run.experiment.name} --seed {run.seed} --retrain makes them"
        )
    model, content = run.experiment.build_model(len(run.classes)), _read_bytes(path, run.weights)
    try:
        model.load_state_dict(weights := load(content))
    except (SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise RecordError(path, f"damaged, or of another network ({str(error).splitlines()[0]})") from error
    if not all(tensor.isfinite().all() for tensor in weights.values()):
        raise RecordError(path, "holds numbers that are not finite")
    return model.eval()


def read_first_gradients() -> pd.DataFrame:
    """reports/gradients.csv, which `make results` writes: a row an experiment and seed, published ones, with the norms
    of `train.measure_first_gradients`."""
    return pd.read_csv(runs_folder().parent / "gradients.csv")


def work_folder(folder: Path) -> Path:
    """Where a run keeps its checkpoint until its record is written; deleted then."""
    return folder.with_name(folder.name + ".partial")


class Claimed(RuntimeError):
    """Another process is training the run."""


@contextlib.contextmanager
def claim(folder: Path):
    """Hold a run for this process alone, and yield its work folder, which is deleted if all goes well.

    Raises Claimed if another process is training the same run, StorageError if nothing can be written there."""
    work = work_folder(folder)
    with tell_failed_writes(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(folder.name + ".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise Claimed(f"{folder.parent.name}/{folder.name} is being trained by another process") from None
    try:
        with tell_failed_writes(folder.parent):
            work.mkdir(exist_ok=True)
            if (work / "replaced").exists() and not folder.exists():  # killed between the halves of a swap
                (work / "replaced").replace(folder)
        yield work
        shutil.rmtree(work)  # the lock is still held, and lies beside: nobody else is in there
    finally:
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink()  # whoever has it open already sees that it is gone, and opens a new one
        lock.release()


def refuse_to_replace(experiment: Experiment, data: str, seed: int) -> None:
    """Raise RecordError if a published record is there that `read_run` does not take: only retrain replaces it."""
    folder = find_folder(experiment, data, seed)
    if data == "fer2013" and experiment == EXPERIMENTS.get(experiment.name) and folder.exists():
        raise RecordError(folder, "the record is of another config or of other data than is asked for")
