"""Train an experiment: one loop, the same for every model, on CUDA, MPS or the CPU.

    python -m fer_lib.train EXPERIMENT --seed 0 1 2

needs no notebook, and of the packages only torch, numpy, pandas, safetensors, filelock and tqdm.
"""

import argparse
import contextlib
import copy
import math
import platform
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from fer_lib import __version__
from fer_lib.checkpoint import load_checkpoint, save_checkpoint
from fer_lib.data import load_data
from fer_lib.dataset import Dataset
from fer_lib.experiment import Experiment
from fer_lib.experiments import EXPERIMENTS, find_experiment
from fer_lib.hardware import Hardware, choose_hardware
from fer_lib.loop import (
    calc_loss,
    choose_training_images,
    find_best,
    is_finished,
    make_learner,
    make_targets,
    measure_first_gradients,
    predict_logits,
    train_one_epoch,
)
from fer_lib.metrics import calc_accuracy, calc_confusion, calc_macro_f1
from fer_lib.models import count_parameters
from fer_lib.progress import make_progress_bar, show_warnings_plainly
from fer_lib.recipe import Teachers
from fer_lib.record import (
    Run,
    find_folder,
    find_teachers,
    load_model,
    read_first_gradients,
    read_run,
    refuse_to_replace,
    write_run,
)
from fer_lib.storage import Claimed, claim
from fer_lib.track import MODES, Mirror, mirror_run

WAIT = 5  # seconds between looks at a run that another process is training


SEEDS = 2**32  # generators take no more of a number than this: a larger one would repeat a smaller one's draws


def get_runs(
    experiment: Experiment,
    dataset: Dataset,
    seeds: list[int],
    retrain: bool = False,
    wandb_mode: str = "auto",
) -> list[Run]:
    """Read back the runs that are on record with this very config and data; train the others.

    retrain: train in any case, and replace what is on record. A run that another process is training is
    waited for. Returns a run a seed. Raises ValueError unless the seeds are different whole numbers from 0 to below
    2**32, RecordError if what is on record is damaged, and Diverged."""
    seeds, runs = check_seeds(seeds), []
    for seed in seeds:
        run = None if retrain else read_run(experiment, dataset, seed)
        runs.append(run or wait_for_others(lambda seed=seed: train_run(experiment, dataset, seed, wandb_mode, retrain)))
    return runs


def check_seeds(seeds: Iterable[int]) -> list[int]:
    """The seeds as Python's own integers. Raises ValueError unless they are different whole numbers from 0 to below
    2**32, and at least one."""
    whole = [isinstance(seed, (int, np.integer)) and not isinstance(seed, bool) and 0 <= seed < SEEDS for seed in seeds]
    if not whole or not all(whole) or len(set(seeds)) < len(whole):
        raise ValueError(f"seeds: {list(seeds)}, expected one or more different whole numbers from 0 to below 2**32")
    return [int(seed) for seed in seeds]


def wait_for_others(train: Callable):
    """What the training gives, once no other process is at it."""
    told = False
    while True:
        try:
            return train()
        except Claimed as claimed:
            if not told:
                tqdm.write(f"{claimed}; waiting for it", file=sys.stderr)
            told = True
            time.sleep(WAIT)


def train_run(
    experiment: Experiment, dataset: Dataset, seed: int, wandb_mode: str = "auto", retrain: bool = True
) -> Run:
    """Train one run to its end, from its checkpoint if one was left, and record it.

    retrain: even if it is on record; without, what another process has recorded meanwhile is read back.

    The epoch with the best validation accuracy counts, the first of equals; the test split is
    read once, with the weights of that epoch. The record holds these weights. Results: best_epoch, epochs, parameters;
    at the best epoch train_accuracy (measured on the way: augmented, balanced, dropout on),
    train_accuracy_clean (afterwards, on the untouched training split), validation_accuracy,
    validation_loss, validation_macro_f1, test_accuracy, test_macro_f1; at the last epoch
    last_train_accuracy, last_train_accuracy_clean, last_validation_accuracy; for each of the
    experiment's views validation_accuracy_<view> and test_accuracy_<view>. All 0-1.

    Every draw comes from the seed and the epoch's number, so an interrupted run ends with
    the numbers of one that was not: to the bit, on the same machine with as many threads.

    Raises ValueError for a seed that is none, or data that cannot be trained on; `RecordError` for a damaged
    record or checkpoint, and before a published record of another config would be replaced unasked;
    `StorageError` where nothing can be written; Diverged.
    """
    (seed,) = check_seeds([seed])
    if len(dataset.train) < 2:
        raise ValueError(f"the train split of {dataset.name} has {len(dataset.train)} image; two are the least")
    _, test = dataset.validation, dataset.test  # a missing split is better told before the training,
    find_teachers(experiment, dataset)  # and so are missing teachers, and what cannot be learnt from
    make_targets(experiment, dataset, choose_training_images(experiment, dataset, seed))
    folder = find_folder(experiment, dataset.name, seed)
    with claim(folder) as work:
        if not retrain and (run := read_run(experiment, dataset, seed)):
            return run
        if not retrain:
            refuse_to_replace(experiment, dataset.name, seed)
        with mirror_run(experiment, dataset, seed, work, wandb_mode) as mirror:
            fitted = fit(experiment, dataset, seed, work, mirror)
            results, logits = summarise_run(fitted, dataset, experiment)
            mirror.log_results(results, test.labels, logits["test"])
            return write_run(
                experiment, dataset, seed, results, fitted.environment, fitted.history, logits, fitted.best
            )


@dataclass(frozen=True)
class Fitted:
    """A trained network: the model as it ended, `best`, its weights at the best epoch, a row an epoch, and the cost."""

    model: nn.Module
    best: dict
    history: list[dict]
    environment: dict


def fit(experiment: Experiment, dataset: Dataset, seed: int, work: Path, mirror: Mirror) -> Fitted:
    """Train to the end, from the checkpoint in the folder `work` if there is one; the test split is not touched."""
    hardware = choose_hardware()
    split, validation = choose_training_images(experiment, dataset, seed), dataset.validation
    images, targets = hardware.put(split.images), make_targets(experiment, dataset, split).to(hardware.device)
    with torch.random.fork_rng():  # leave the caller's random numbers alone
        torch.manual_seed(seed)
        learner = make_learner(experiment, hardware, len(dataset.classes))
        teachers = find_teachers(experiment, dataset)
        if teachers:
            networks = [hardware.place(load_model(run)) for run in teachers]
            learner.teachers = Teachers(networks, experiment.recipe.draws > 0, [str(run.weights) for run in teachers])
        checkpoint = work / "checkpoint.pt"
        history, best = load_checkpoint(checkpoint, experiment, dataset, seed, learner)
        if history:
            tqdm.write(f"{experiment.name} {dataset.name} seed {seed} goes on after epoch {len(history)}", sys.stderr)
        for row in history:
            mirror.log_epoch(row)
        with make_progress_bar(experiment, dataset, seed, len(history), len(targets)) as bar:
            while not is_finished(history, experiment):
                start = time.perf_counter()
                epoch = len(history) + 1
                measured = train_one_epoch(learner, images, targets, experiment, hardware, seed, epoch, bar)
                logits = predict_logits(learner.judged, validation, experiment, hardware)
                row = {
                    "epoch": epoch,
                    **measured,
                    "validation_loss": calc_loss(logits, validation.labels),
                    "validation_accuracy": calc_accuracy(logits, validation.labels),
                    "learning_rate": learner.optimizer.param_groups[0]["lr"],
                    "seconds": time.perf_counter() - start,
                }
                refuse_divergence(experiment, seed, row)
                history.append(row)
                if find_best(history) == epoch:
                    best = copy.deepcopy(learner.judged.state_dict())
                save_checkpoint(checkpoint, experiment, dataset, seed, learner, history, best)
                mirror.log_epoch(row)
    environment = describe_environment(hardware, history, len(split))
    if teachers:
        environment["teachers"] = [f"{run.experiment.name} seed {run.seed}" for run in teachers]
    return Fitted(learner.judged, best, history, environment)


def get_first_gradients(runs: list[Run], dataset: Dataset) -> pd.DataFrame:
    """What `measure_first_gradients` gives for the seeds of one experiment's runs: read back, if these are published
    runs that it is on record for; measured anew, the last digits depend on the CPU."""
    experiment, seeds = runs[0].experiment, [run.seed for run in runs]
    published = experiment == EXPERIMENTS.get(experiment.name) and dataset.name == "fer2013"
    if published:
        with contextlib.suppress(FileNotFoundError):
            table = read_first_gradients()
            own = table[table["experiment"] == experiment.name].set_index("seed").filter(like="gradient_norm/")
            if set(seeds) <= set(own.index):
                return own.loc[seeds].dropna(axis=1)
    return measure_first_gradients(experiment, dataset, seeds)


class Diverged(RuntimeError):
    """The loss of a run is no number any more."""


def refuse_divergence(experiment: Experiment, seed: int, row: dict) -> None:
    """Raise Diverged if a row of the history has a loss that is not finite: nothing later would be."""
    for name in ("train_loss", "validation_loss"):
        if not math.isfinite(row[name]):
            raise Diverged(
                f"{experiment.name} with seed {seed} diverged in epoch {row['epoch']}: its {name} is {row[name]}. "
                f"Nothing was recorded; a learning rate below {experiment.learning_rate:g} may help"
            )


def summarise_run(fitted: Fitted, dataset: Dataset, experiment: Experiment) -> tuple[dict, dict[str, np.ndarray]]:
    """The results of a run and its logits at the best epoch; the one place that reads the test split."""
    model, history, hardware = fitted.model, fitted.history, choose_hardware()
    last_clean = calc_accuracy(predict_logits(model, dataset.train, experiment, hardware), dataset.train.labels)
    model.load_state_dict(fitted.best)
    clean = last_clean
    if find_best(history) != len(history):
        clean = calc_accuracy(predict_logits(model, dataset.train, experiment, hardware), dataset.train.labels)
    splits = (dataset.validation, dataset.test)
    logits = {split.name: predict_logits(model, split, experiment, hardware) for split in splits}
    labels = {"validation": dataset.validation.labels, "test": dataset.test.labels}
    row, last = history[find_best(history) - 1], history[-1]
    results = {
        "best_epoch": row["epoch"],
        "epochs": len(history),
        "parameters": count_parameters(model),
        "train_accuracy": row["train_accuracy"],
        "train_accuracy_clean": clean,
        "validation_accuracy": row["validation_accuracy"],
        "validation_loss": row["validation_loss"],
        "validation_macro_f1": calc_macro_f1(calc_confusion(logits["validation"], labels["validation"])),
        "test_accuracy": calc_accuracy(logits["test"], labels["test"]),
        "test_macro_f1": calc_macro_f1(calc_confusion(logits["test"], labels["test"])),
        "last_train_accuracy": last["train_accuracy"],
        "last_train_accuracy_clean": last_clean,
        "last_validation_accuracy": last["validation_accuracy"],
    }
    for view in experiment.views:
        for split in splits:
            seen = predict_logits(model, split, experiment, hardware, view)
            logits[f"{split.name}_{view}"] = seen
            results[f"{split.name}_accuracy_{view}"] = calc_accuracy(seen, split.labels)
    return {key: round(value, 6) for key, value in results.items()}, logits


def describe_environment(hardware: Hardware, history: list[dict], images: int) -> dict:
    """Versions and hardware, and what the epochs cost: seconds in all, training images per second."""
    seconds = sum(row["seconds"] for row in history)
    return {
        "fer_lib": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "hardware": hardware.name,
        "threads": torch.get_num_threads(),
        "precision": str(hardware.precision).removeprefix("torch."),
        "seconds": round(seconds, 1),
        "images_per_second": round(images * len(history) / seconds),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m fer_lib.train", description="Train an experiment and record it.")
    parser.add_argument("experiment", metavar="EXPERIMENT", help=", ".join(EXPERIMENTS))
    parser.add_argument("--seed", type=int, nargs="+", default=[0], help="one run each (default: 0)")
    parser.add_argument("--data", default="auto", help="a file or folder of faces, drawn, drawn-few, or auto (default)")
    parser.add_argument("--epochs", type=int, help="at most so many, in place of the experiment's own")
    parser.add_argument("--wandb", default="auto", choices=MODES)
    parser.add_argument("--retrain", action="store_true", help="train although the run is on record")
    options = parser.parse_args(arguments)
    left: list[int] = []
    try:
        changes = {} if options.epochs is None else {"epochs": options.epochs}
        experiment = find_experiment(options.experiment, **changes)
        dataset, seeds = load_data(options.data), check_seeds(options.seed)
        for place, seed in enumerate(seeds):
            left = seeds[place:]
            known = None if options.retrain else read_run(experiment, dataset, seed)
            run = known or get_runs(experiment, dataset, [seed], options.retrain, options.wandb)[0]
            print(describe_run(run) + (", and was before: nothing was trained" if known else ""))
    except (ValueError, RuntimeError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    except KeyboardInterrupt:
        rest = f", with --seed {' '.join(map(str, left))}," if options.retrain and left != options.seed else ""
        parser.exit(130, f"\ninterrupted; the same command{rest} goes on from the last finished epoch\n")


def describe_run(run: Run) -> str:
    results, minutes = run.results, run.environment["seconds"] / 60
    return (
        f"{run.experiment.name} {run.data} seed {run.seed}: "
        f"best of {results['epochs']} epochs is {results['best_epoch']}, "
        f"validation {results['validation_accuracy']:.1%}, test {results['test_accuracy']:.1%}, "
        f"{minutes:.1f} min at {run.environment['images_per_second']:,} images/s; {run.folder.name} is on record"
    )


if __name__ == "__main__":
    show_warnings_plainly()
    main()
