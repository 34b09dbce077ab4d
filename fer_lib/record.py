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

import io
import os
import shutil
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from fer_lib.dataset import EMOTIONS, PROJECT, Dataset
from fer_lib.experiment import Experiment
from fer_lib.experiments import EXPERIMENTS, find_experiment
from fer_lib.reading.unpacking import resolve
from fer_lib.storage import (
    RecordError,
    calc_digest,
    read_bytes,
    read_json,
    tell_failed_writes,
    work_folder,
    write_arrays,
    write_json,
)
from fer_lib.verify import check_accuracies, check_logits, find_fault, read_history

WEIGHTS = "weights.safetensors"  # of a network at its best epoch, in its run's folder
LOGIT_STEP = 1 / 32  # finer ones make larger records; this one changes no network's accuracy


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
            with np.load(io.BytesIO(read_bytes(path)), allow_pickle=False) as arrays:
                logits = {name.removesuffix("_logits"): arrays[name] for name in arrays.files}
        except RecordError:
            raise
        except Exception as error:  # a damaged archive makes zipfile and numpy raise almost anything
            raise RecordError(path, f"damaged or cut short ({error})") from error
        check_logits(path, logits, self.experiment.views, len(self.classes), self.results)
        return logits


def runs_folder() -> Path:
    """reports/runs in the project, or what $FER_RUNS names."""
    return resolve(named) if (named := os.environ.get("FER_RUNS")) else PROJECT / "reports" / "runs"


def find_result(name: str) -> Path:
    """A file that is made from the runs: beside these, or the project's own where $FER_RUNS has none."""
    own = runs_folder().parent / name
    return own if own.exists() else PROJECT / "reports" / name


def find_folder(experiment: Experiment, data: str, seed: int) -> Path:
    """The folder of a run's record, whether it is there or not."""
    published = experiment == EXPERIMENTS.get(experiment.name)
    return runs_folder() / experiment.name / f"{data}-seed{seed}{'' if published else f'-{experiment.digest}'}"


def read_run(experiment: Experiment, dataset: Dataset, seed: int) -> Run | None:
    """The recorded run with just this config, data and seed, or None.

    Raises RecordError if it is damaged, its accuracies compared with those of its logits."""
    folder = find_folder(experiment, dataset.name, seed)
    if not _holds_record(folder):
        return None
    record = _read_record(folder)
    if record["data"]["fingerprint"] != dataset.fingerprint or not experiment.matches(record["config"]):
        return None
    run = _open_run(folder, experiment, record)
    check_accuracies(run.folder, run.results, run.logits, dataset)
    return run


def _holds_record(folder: Path) -> bool:
    """Whether anything is in a run's folder: Snakemake makes an empty one before the run is trained."""
    return folder.is_dir() and any(folder.iterdir())


def read_published_runs(
    data: str = "fer2013", names: Iterable[str] = EXPERIMENTS, folder: Path | None = None
) -> list[Run]:
    """Every run on record that has the published config of its experiment, experiments in the reports' order.

    names: of the experiments, where not all are asked for; folder: in place of `runs_folder`'s. Warns of a run that is
    left out since its experiment has changed; raises RecordError if one is damaged."""
    runs, wanted = [], set(names)
    for experiment in (experiment for name, experiment in EXPERIMENTS.items() if name in wanted):
        for own in sorted(((folder or runs_folder()) / experiment.name).glob(f"{data}-seed*/")):
            if not own.name.removeprefix(f"{data}-seed").isdigit() or not _holds_record(own):
                continue
            record = _read_record(own)
            if experiment.matches(record["config"]):
                runs.append(_open_run(own, experiment, record))
            else:
                warnings.warn(f"{own} is left out: its experiment's config has changed since", stacklevel=2)
    return runs


def group_runs(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """The runs of each experiment, by its name, in the order met."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.experiment.name, []).append(run)
    return groups


def find_published_run(name: str, seed: int) -> Run:
    """The published run of an experiment with this seed on FER2013, of $FER_RUNS or else of those that come with the
    project. Raises FileNotFoundError if it is on record in neither."""
    for folder in dict.fromkeys((runs_folder(), PROJECT / "reports" / "runs")):
        for run in read_published_runs(names=[name], folder=folder):
            if run.seed == seed:
                return run
    raise FileNotFoundError(f"no run of {name} with seed {seed} is on record; {tell_training(name, seed)} makes one")


def tell_training(name: str, seeds: object, data: str = "fer2013") -> str:
    """The command that trains an experiment on such data, so far as its name tells where it lies."""
    given = "" if data == "fer2013" else f" --data {'YOURS' if data.startswith('custom') else data}"
    return f"python -m fer_lib.train {name} --seed {seeds}{given}"


def find_teachers(experiment: Experiment, dataset: Dataset) -> list[Run]:
    """The runs on this data of the experiments that an experiment learns from, those whose weights are kept: the
    published ones; on other data than FER2013, where there are none, those with the same network.

    Raises FileNotFoundError if none of one of them is at hand, ValueError if there is no such experiment."""
    published, others = [], []
    for name in experiment.teachers:
        teacher = find_experiment(name)
        for path in sorted((runs_folder() / name).glob(f"{dataset.name}-seed*/{WEIGHTS}")):
            record = _read_record(path.parent)
            if record["data"]["fingerprint"] == dataset.fingerprint and teacher.has_network(record["config"]):
                kin = published if teacher.matches(record["config"]) else others
                kin.append(_open_run(path.parent, teacher, record))
    found = published or ([] if dataset.name == "fer2013" else others)
    missing = [name for name in experiment.teachers if name not in {run.experiment.name for run in found}]
    if missing:
        ways = [tell_training(name, "0 1 2", dataset.name) for name in missing]
        known = any((runs_folder() / name).glob(f"{dataset.name}-seed*/run.json") for name in missing)
        again = "; where a run is on record, without its weights, --retrain makes it anew" * known
        raise FileNotFoundError(
            f"{experiment.name} learns from trained networks of {' and '.join(experiment.teachers)}, and no weights of "
            f"{' or '.join(missing)} on {dataset.name} are at hand; {' and '.join(ways)} makes them{again}"
        )
    return found


def _open_run(folder: Path, experiment: Experiment, record: dict) -> Run:
    files = record.get("files", {})
    history = read_history(folder / "history.csv", record["results"], files.get("history.csv"))
    read_bytes(folder / "predictions.npz", files.get("predictions.npz"))
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


def _read_record(folder: Path) -> dict:
    """The run.json of a folder, which holds what every part of the project reads from it."""
    path = folder / "run.json"
    record = read_json(path)
    if fault := find_fault(record, folder):
        raise RecordError(path, fault)
    return record


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
        (work / "checkpoint.pt").unlink(missing_ok=True)  # else an interrupted upload would leave it to a retraining
        shutil.rmtree(replaced, ignore_errors=True)
    return _open_run(folder, experiment, _read_record(folder))


def _describe_data(dataset: Dataset) -> dict:
    """What a record says of its data; of the classes, only where they are not FER2013's."""
    own = {} if dataset.classes == EMOTIONS else {"classes": list(dataset.classes)}
    return {"name": dataset.name, "fingerprint": dataset.fingerprint, **own}


def _write_files(folder: Path, record: dict, history: list[dict], logits: dict, weights: dict) -> None:
    pd.DataFrame(history).round(6).to_csv(folder / "history.csv", index=False, lineterminator="\n")
    write_arrays(folder / "predictions.npz", {f"{name}_logits": round_logits(array) for name, array in logits.items()})
    small = {name: tensor.half() if tensor.dim() > 1 else tensor for name, tensor in weights.items()}
    (folder / WEIGHTS).write_bytes(save({name: tensor.cpu().contiguous() for name, tensor in small.items()}))
    files = {path.name: calc_digest(path.read_bytes()) for path in sorted(folder.iterdir())}
    write_json(folder / "run.json", record | {"files": files})
    for path in folder.iterdir():
        with path.open("rb+") as file:  # the checkpoint goes once these are there, so let them be on the disk
            os.fsync(file.fileno())


def round_logits(logits: np.ndarray) -> np.ndarray:
    """Logits (N, 7) for the record: float16, each row moved so that its largest is 0, which leaves the probabilities
    as they are, and rounded to steps of `LOGIT_STEP`. The largest stays the largest: no other comes nearer than a step.
    """
    logits = logits.astype(np.float32)
    best, rows = logits.argmax(1), np.arange(len(logits))
    steps = np.minimum(np.rint((logits - logits.max(1, keepdims=True)) / LOGIT_STEP), -1)
    steps[rows, best] = 0
    lowest = np.finfo(np.float16).min  # of a network that learnt at far too high a rate: its record is to be read back
    return np.maximum(steps * LOGIT_STEP, lowest).astype(np.float16)


def load_model(run: Run) -> torch.nn.Module:
    """The network of a run at its best epoch, on the CPU, in evaluation.

    Raises FileNotFoundError for a run of which the weights are not kept, which most are not in the repository, and
    RecordError for weights that are damaged or another network's."""
    path = run.folder / WEIGHTS
    if not path.exists():
        raise FileNotFoundError(
            f"{path.parent} has no {WEIGHTS}; {tell_training(run.experiment.name, run.seed, run.data)} --retrain makes "
            "them, in place of what is on record"
        )
    model, content = run.experiment.build_model(len(run.classes)), read_bytes(path, run.weights)
    try:
        model.load_state_dict(weights := load(content))
    except (SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise RecordError(path, f"damaged, or of another network ({str(error).splitlines()[0]})") from error
    if not all(tensor.isfinite().all() for tensor in weights.values()):
        raise RecordError(path, "holds numbers that are not finite")
    return model.eval()


def read_first_gradients() -> pd.DataFrame:
    """reports/gradients.csv, which `make results` writes: a row an experiment and seed, published ones, with the norms
    of `loop.measure_first_gradients`."""
    return pd.read_csv(runs_folder().parent / "gradients.csv")


def list_sources(reports: Path) -> list[Path]:
    """What the tables in such a folder are made from: published records and trials, statements, measured shifts."""
    records = sorted((reports / "runs").glob("*/fer2013-seed*/run.json"))
    published = [path for path in records if path.parent.name.removeprefix("fer2013-seed").isdigit()]
    trials = sorted((reports / "sweeps").glob("*/fer2013/*.json"))
    return [*published, *trials, reports / "claims.yaml", reports / "shifts.csv"]


def digest_sources(reports: Path) -> str:
    """32 hex digits that change with the content of these."""
    return calc_digest(b"".join(path.read_bytes() for path in list_sources(reports)))


def refuse_to_replace(experiment: Experiment, data: str, seed: int) -> None:
    """Raise RecordError if a published record is there that `read_run` does not take: only retrain replaces it."""
    folder = find_folder(experiment, data, seed)
    if data == "fer2013" and experiment == EXPERIMENTS.get(experiment.name) and _holds_record(folder):
        raise RecordError(folder, "the record is of another config or of other data than is asked for")
