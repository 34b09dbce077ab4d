"""How far what enters each layer moves while a network learns, from one epoch to the next: its internal covariate
shift, which batch norm was made to lessen (Ioffe and Szegedy 2015, arXiv:1502.03167).

    python -m fer_lib.extras.shift b2_three_layer_batchnorm --seed 0 1 2

trains the first epochs of an experiment and puts a row a layer and epoch into reports/shifts.csv. Nothing else of
these trainings is kept; the same command skips what is there.
"""

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from torch import nn

from fer_lib.data import load_data
from fer_lib.dataset import Dataset
from fer_lib.experiment import Experiment
from fer_lib.experiments import EXPERIMENTS, find_experiment
from fer_lib.hardware import choose_hardware
from fer_lib.loop import choose_training_images, make_inputs, make_learner, make_targets, train_one_epoch
from fer_lib.progress import make_progress_bar
from fer_lib.record import find_result, runs_folder
from fer_lib.train import check_seeds

EPOCHS = 6
IMAGES = 512


def measure_shifts(experiment: Experiment, dataset: Dataset, seed: int) -> pd.DataFrame:
    """Train the first EPOCHS epochs, and say after each but the first how far the inputs of every layer of weights but
    the first have moved since the one before, on the first IMAGES images of the validation split: experiment, seed,
    epoch (from 2: a fresh network has seen no averages for batch norm), layer, shift.

    shift: the distance (Wasserstein's second) between the two normal distributions that have the means and deviations
    of the layer's input channels, in units of the earlier one's deviation: the square root of the sum over channels of
    squared differences of means and of deviations, over the sum of the earlier variances. Without dropout, and with
    batch norm's running averages, as when the network is judged. Raises ValueError for an experiment with teachers."""
    if experiment.teachers:
        raise ValueError(f"{experiment.name} learns from trained networks, which are not asked here")
    hardware, split = choose_hardware(), choose_training_images(experiment, dataset, seed)
    images, targets = hardware.put(split.images), make_targets(experiment, dataset, split).to(hardware.device)
    seen = make_inputs(hardware.put(dataset.validation.images[:IMAGES]), experiment, hardware)
    rows, before, short = [], {}, replace(experiment, epochs=EPOCHS)
    with torch.random.fork_rng(), make_progress_bar(short, dataset, seed, 0, len(targets)) as bar:
        torch.manual_seed(seed)
        learner = make_learner(experiment, hardware, len(dataset.classes))
        for epoch in range(1, EPOCHS + 1):
            train_one_epoch(learner, images, targets, experiment, hardware, seed, epoch, bar)
            after = _describe_inputs(learner.model, seen)
            own = {"experiment": experiment.name, "seed": seed, "epoch": epoch}
            rows += [own | {"layer": name, "shift": calc_shift(before[name], after[name])} for name in before]
            before = after
    return pd.DataFrame(rows)


def calc_shift(before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray]) -> float:
    """As `measure_shifts` says; each a layer's means and deviations, float (channels,)."""
    moved = sum(((new - old) ** 2).sum() for old, new in zip(before, after))
    return float(np.sqrt(moved / (before[1] ** 2).sum()))


@torch.inference_mode()
def _describe_inputs(model: nn.Module, images: torch.Tensor) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Means and deviations of each channel of what enters each layer of weights but the first, by the layer's name."""
    found = {}

    def keep(name: str, _, inputs: tuple[torch.Tensor]) -> None:
        channels = inputs[0].float().transpose(0, 1).flatten(1)
        found[name] = (channels.mean(1).cpu().numpy(), channels.std(1).cpu().numpy())

    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_pre_hook(partial(keep, name)) for name, layer in layers[1:]]
    model.eval()(images)
    for hook in hooks:
        hook.remove()
    return found


def summarise_shifts(table: pd.DataFrame) -> pd.DataFrame:
    """By `experiment` and `seed`, log_shift: the natural logarithm of the shift in the mean over layers and epochs, so
    that each counts by its factor. table: of `read_shifts`."""
    logs = table.assign(log_shift=np.log(table["shift"]))
    return logs.groupby(["experiment", "seed"], sort=False)["log_shift"].mean().reset_index()


def tabulate_shifts() -> pd.DataFrame:
    """Geometric means of the shift over epochs and seeds: a row a layer of weights, the second being the first that has
    one, and a row over all; a column an experiment."""
    columns = {}
    for name, own in read_shifts().groupby("experiment", sort=False):
        logs = np.log(own.set_index("layer")["shift"])
        means = logs.groupby(level=0, sort=False).mean().to_numpy()
        column = {f"layer {place}": mean for place, mean in enumerate(means, start=2)} | {"all": logs.mean()}
        columns[f"{EXPERIMENTS[name].step} {EXPERIMENTS[name].title}"] = pd.Series(column)
    return np.exp(pd.DataFrame(columns)).round(3)


def read_shifts() -> pd.DataFrame:
    """reports/shifts.csv: the rows of `measure_shifts` of all experiments that it was asked of, on FER2013; the
    project's own where runs are recorded elsewhere (FER_RUNS) and no such table is."""
    return pd.read_csv(find_result("shifts.csv"), dtype={"layer": str})


def _find_table() -> Path:
    return runs_folder().parent / "shifts.csv"


def record_shifts(experiment: Experiment, dataset: Dataset, seed: int) -> None:
    """Measure, unless these rows are there already, and write them among the others, in the experiments' order."""
    path, names = _find_table(), ["experiment", "seed"]
    there = path.exists() and (read_shifts()[names] == [experiment.name, seed]).all(axis=1).any()
    if there:
        return
    fresh = measure_shifts(experiment, dataset, seed).round(6)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # another seed may be measured meanwhile
        table = pd.concat([read_shifts(), fresh]) if path.exists() else fresh
        order = {name: place for place, name in enumerate(EXPERIMENTS)}
        table = table.sort_values(names, kind="stable", key=lambda column: column.replace(order))
        table.to_csv(path.with_suffix(".new"), index=False, lineterminator="\n")
        path.with_suffix(".new").replace(path)


def main(arguments: list[str] | None = None) -> None:
    prog = "python -m fer_lib.extras.shift"
    parser = argparse.ArgumentParser(prog=prog, description="Measure how far each layer's inputs move.")
    parser.add_argument("experiment", metavar="EXPERIMENT")
    parser.add_argument("--seed", type=int, nargs="+", default=[0])
    options = parser.parse_args(arguments)
    try:
        experiment, dataset = find_experiment(options.experiment), load_data()
        if dataset.name != "fer2013":
            raise ValueError("needs FER2013: name its file in FER_DATA")
        for seed in check_seeds(options.seed):
            record_shifts(experiment, dataset, seed)
    except (ValueError, RuntimeError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
