"""The record of a run on disk: what the report is made from.

reports/runs/<experiment>/<data>-seed<k>/ holds run.json (config, data, results, environment),
history.csv (a row an epoch), predictions.npz (the logits) and weights.safetensors (the network).
A run whose config is not the published one of its experiment goes beside it, under a name that
ends in the config's digest, so that trying another learning rate never touches a published record.
"""

import contextlib
import json
import os
import shutil
import zipfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file, save

from fer_lib.data import PROJECT, Dataset
from fer_lib.experiments import EXPERIMENTS, Experiment

WEIGHTS = "weights.safetensors"  # of a network at its best epoch, in its run's folder
LOGIT_STEP = 1 / 32  # finer ones make larger records; this one changes no network's accuracy


@dataclass(frozen=True, eq=False)
class Run:
    """One finished run.

    folder: where its record lies; experiment, seed, data: what was run, and on which data set;
    results: see `train.train_run`; environment: versions, hardware, seconds and images/s;
    history: a row an epoch with epoch (from 1), train_loss, train_accuracy, validation_loss,
    validation_accuracy (0-1), learning_rate, seconds, and gradient_norm/<name> for each layer of weights.
    """

    folder: Path
    experiment: Experiment
    seed: int
    data: str
    results: dict = field(repr=False)
    environment: dict = field(repr=False)
    history: pd.DataFrame = field(repr=False)

    @cached_property
    def logits(self) -> dict[str, np.ndarray]:
        """{"validation": ..., "test": ...}: float16 (N, 7), in the file's row order, at the best epoch;
        "validation_flip" and so on, where the experiment has further views. As `round_logits` leaves them."""
        with np.load(self.folder / "predictions.npz") as arrays:
            return {name.removesuffix("_logits"): arrays[name] for name in arrays.files}


def runs_folder() -> Path:
    """reports/runs in the project, or what $FER_RUNS names."""
    return Path(os.environ.get("FER_RUNS") or PROJECT / "reports" / "runs")


def find_folder(experiment: Experiment, data: str, seed: int) -> Path:
    """The folder of a run's record, whether it is there or not."""
    published = experiment == EXPERIMENTS.get(experiment.name)
    return runs_folder() / experiment.name / f"{data}-seed{seed}{'' if published else f'-{experiment.digest}'}"


def read_run(experiment: Experiment, dataset: Dataset, seed: int) -> Run | None:
    """The recorded run with just this config, data and seed, or None."""
    folder = find_folder(experiment, dataset.name, seed)
    with contextlib.suppress(FileNotFoundError):
        record = json.loads((folder / "run.json").read_text())
        if record["data"]["fingerprint"] == dataset.fingerprint and experiment.matches(record["config"]):
            return _open_run(folder, experiment, record)
    return None


def read_published_runs(data: str = "fer2013") -> list[Run]:
    """Every run on record that has the published config of its experiment, experiments in the reports' order."""
    runs = []
    for experiment in EXPERIMENTS.values():
        for path in sorted((runs_folder() / experiment.name).glob(f"{data}-seed*/run.json")):
            record = json.loads(path.read_text())
            if path.parent == find_folder(experiment, data, record["seed"]) and experiment.matches(record["config"]):
                runs.append(_open_run(path.parent, experiment, record))
    return runs


def find_published_run(name: str, seed: int) -> Run:
    """The published run of an experiment with this seed on FER2013. Raises FileNotFoundError if it is not on record."""
    for run in read_published_runs():
        if (run.experiment.name, run.seed) == (name, seed):
            return run
    raise FileNotFoundError(f"no run of {name} with seed {seed} is on record; python -m fer_lib.train makes one")


def find_teachers(experiment: Experiment, dataset: Dataset) -> list[Run]:
    """The runs on this data of the experiments that an experiment learns from, those whose weights are kept: the
    published ones, or, where there are none, as on the drawn faces, those with the same network.

    Raises FileNotFoundError if it has teachers and none of them is at hand."""
    published, others = [], []
    for name in experiment.teachers:
        for path in sorted((runs_folder() / name).glob(f"{dataset.name}-seed*/{WEIGHTS}")):
            record, teacher = json.loads((path.parent / "run.json").read_text()), EXPERIMENTS[name]
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
    history = pd.read_csv(folder / "history.csv")
    return Run(
        folder, experiment, record["seed"], record["data"]["name"], record["results"], record["environment"], history
    )


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
    fresh = work_folder(folder) / "record"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    record = {
        "experiment": experiment.name,
        "seed": seed,
        "data": {"name": dataset.name, "fingerprint": dataset.fingerprint},
        "config": experiment.config,
        "results": results,
        "environment": environment,
    }
    (fresh / "run.json").write_text(json.dumps(record, indent=2) + "\n")
    pd.DataFrame(history).round(6).to_csv(fresh / "history.csv", index=False, lineterminator="\n")
    _write_arrays(fresh / "predictions.npz", {f"{name}_logits": round_logits(array) for name, array in logits.items()})
    small = {name: tensor.half() if tensor.dim() > 1 else tensor for name, tensor in weights.items()}
    packed = save({name: tensor.cpu().contiguous() for name, tensor in small.items()})
    (fresh / WEIGHTS).write_bytes(packed)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.replace(folder)
    return _open_run(folder, experiment, record)


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

    Raises FileNotFoundError for a run of which the weights are not kept, which most are not in the repository."""
    path = run.folder / WEIGHTS
    if not path.exists():
        raise FileNotFoundError(
            f"{path.parent} has no {WEIGHTS}; "
            f"python -m fer_lib.train {run.experiment.name} --seed {run.seed} --retrain makes them"
        )
    model = run.experiment.build_model()
    model.load_state_dict(load_file(path))
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

    Raises Claimed if another process is training the same run."""
    work = work_folder(folder)
    work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Claimed(f"{folder.parent.name}/{folder.name} is being trained by another process") from None
    with lock:
        yield work
    shutil.rmtree(work)
