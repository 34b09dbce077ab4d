"""Train an experiment: one loop, the same for every model, on CUDA, MPS or the CPU.

    python -m fer_lib.train EXPERIMENT --seed 0 1 2

needs no notebook, and of the packages only torch, numpy, pandas, safetensors, filelock and tqdm,
and on a CPU, to be fast, numba.
"""

import argparse
import contextlib
import copy
import io
import itertools
import math
import os
import pickle
import platform
import re
import sys
import time
import warnings
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from fer_lib import __version__, record
from fer_lib.augment import augment_batch
from fer_lib.data import EMOTIONS, Dataset, Split, load_data, load_votes
from fer_lib.experiments import EXPERIMENTS, Experiment, find_experiment
from fer_lib.metrics import calc_accuracy, calc_confusion, calc_macro_f1
from fer_lib.models import count_parameters
from fer_lib.preprocess import balance_classes, scale_pixels, share_votes
from fer_lib.recipe import (
    Recipe,
    Teachers,
    average_weights,
    climb,
    judge_views,
    make_optimizer,
    mix_images,
    set_learning_rate,
    shrink_images,
)
from fer_lib.track import MODES, Mirror, mirror_run

WAIT = 5  # seconds between looks at a run that another process is training
SEEDS = 2**32  # generators take no more of a number than this: a larger one would repeat a smaller one's draws
INFERENCE_BATCH = {"cpu": 64}  # images; on a CPU few, so that the activations stay in its cache


@dataclass(frozen=True)
class Hardware:
    """Where a run computes, and how: `precision` is that of the forward pass in training."""

    device: torch.device
    name: str
    precision: torch.dtype
    memory_format: torch.memory_format

    def autocast(self):
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    def place(self, model: nn.Module) -> nn.Module:
        """The model on the device, its weights laid out as they are fast there."""
        return model.to(self.device, memory_format=self.memory_format)

    def put(self, images: np.ndarray) -> torch.Tensor:
        """uint8 (N, 48, 48) to a tensor (N, 1, 48, 48) on the device."""
        return torch.from_numpy(images)[:, None].to(self.device)


def choose_hardware() -> Hardware:
    """Take CUDA, else MPS, else the CPU; bfloat16 and channels_last where they are fast.

    On a CPU that is where it multiplies bfloat16 matrices itself: about three times as fast as float32 with AMX,
    1.7 to 2.7 times with AVX-512 alone. Other CPUs imitate bfloat16, which saves nothing. With $FER_PRECISION set to
    float32 all are taken for such a CPU, so that what it computes can be seen on any.
    """
    plain, fast = (torch.float32, torch.contiguous_format), (torch.bfloat16, torch.channels_last)
    plain_wanted = os.environ.get("FER_PRECISION") == "float32"
    if not plain_wanted and torch.cuda.is_available():
        quick = torch.cuda.get_device_capability() >= (8, 0)
        torch.backends.cudnn.benchmark = True  # shapes are few
        return Hardware(torch.device("cuda"), torch.cuda.get_device_name(), *(fast if quick else plain))
    if not plain_wanted and torch.backends.mps.is_available():
        return Hardware(torch.device("mps"), f"Apple {platform.machine()} GPU", *plain)
    name = f"{platform.machine()} CPU"
    with contextlib.suppress(OSError, TypeError):  # not Linux, or a CPU that does not say what it is
        text = Path("/proc/cpuinfo").read_text()
        name = name_processor(text)
        for flag, words in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX-512")):
            if not plain_wanted and re.search(rf"^flags\b.*\b{flag}\b", text, re.M):
                return Hardware(torch.device("cpu"), f"{name} with {words}", *fast)
    return Hardware(torch.device("cpu"), name, *plain)


def name_processor(text: str) -> str:
    """A CPU's name, from the text of /proc/cpuinfo. Virtual machines hide the number in it, and then one name
    stands for CPUs of which one is twice as fast as another: the name gets the numbers of family and model."""
    name, family, model = (
        re.search(rf"^{key}\s*: (.*)", text, re.M)[1] for key in ("model name", "cpu family", "model")
    )
    return name if re.search(r"\d", name) else f"{name} (family {family}, model {model})"


def get_runs(
    experiment: Experiment,
    dataset: Dataset,
    seeds: list[int],
    retrain: bool = False,
    wandb_mode: str = "auto",
) -> list[record.Run]:
    """Read back the runs that are on record with this very config and data; train the others.

    retrain: train in any case, and replace what is on record. A run that another process is training is
    waited for. Returns a run a seed. Raises ValueError unless the seeds are different whole numbers from 0 to below
    2**32, RecordError if what is on record is damaged, and Diverged."""
    seeds, runs = check_seeds(seeds), []
    for seed in seeds:
        run = None if retrain else record.read_run(experiment, dataset, seed)
        runs.append(run or _train_or_wait(experiment, dataset, seed, retrain, wandb_mode))
    return runs


def check_seeds(seeds: Iterable[int]) -> list[int]:
    """The seeds as Python's own integers. Raises ValueError unless they are different whole numbers from 0 to below
    2**32, and at least one."""
    whole = [isinstance(seed, (int, np.integer)) and not isinstance(seed, bool) and 0 <= seed < SEEDS for seed in seeds]
    if not whole or not all(whole) or len(set(seeds)) < len(whole):
        raise ValueError(f"seeds: {list(seeds)}, expected one or more different whole numbers from 0 to below 2**32")
    return [int(seed) for seed in seeds]


def _train_or_wait(experiment: Experiment, dataset: Dataset, seed: int, retrain: bool, wandb_mode: str) -> record.Run:
    for attempt in itertools.count():
        try:
            return train_run(experiment, dataset, seed, wandb_mode, retrain)
        except record.Claimed as claimed:
            if attempt == 0:
                tqdm.write(f"{claimed}; waiting for it", file=sys.stderr)
            time.sleep(WAIT)


def train_run(
    experiment: Experiment, dataset: Dataset, seed: int, wandb_mode: str = "auto", retrain: bool = True
) -> record.Run:
    """Train one run to its end, from its checkpoint if one was left, and record it.

    retrain: even if it is on record; without, what another process has recorded meanwhile is read back.

    The epoch with the best validation accuracy counts, the first of equals; the test split is
    read once, with the weights of that epoch. The record holds these weights. Results: best_epoch, epochs, parameters;
    at the best epoch train_accuracy (as met in training: augmented, balanced, dropout on),
    train_accuracy_clean (afterwards, on the untouched training split), validation_accuracy,
    validation_loss, validation_macro_f1, test_accuracy, test_macro_f1; at the last epoch
    last_train_accuracy, last_train_accuracy_clean, last_validation_accuracy; for each of the
    experiment's views validation_accuracy_<view> and test_accuracy_<view>. All 0-1.

    Every draw comes from the seed and the epoch's number, so an interrupted run ends with
    the numbers of one that was not: to the bit, on the same machine with as many threads.

    Raises ValueError for a seed that is none, or data that cannot be trained on; `record.RecordError` for a damaged
    record or checkpoint, and before a published record of another config would be replaced unasked;
    `record.StorageError` where nothing can be written; Diverged.
    """
    (seed,) = check_seeds([seed])
    if len(dataset.train) < 2:
        raise ValueError(f"the train split of {dataset.name} has {len(dataset.train)} image; two are the least")
    _, test = dataset.validation, dataset.test  # a missing split is better told before the training
    folder = record.find_folder(experiment, dataset.name, seed)
    with record.claim(folder) as work:
        if not retrain and (run := record.read_run(experiment, dataset, seed)):
            return run
        if not retrain:
            record.refuse_to_replace(experiment, dataset.name, seed)
        with mirror_run(experiment, dataset, seed, work, wandb_mode) as mirror:
            fitted = fit(experiment, dataset, seed, work, mirror)
            results, logits = summarise_run(fitted, dataset, experiment)
            mirror.log_results(results, test.labels, logits["test"])
            return record.write_run(
                experiment, dataset, seed, results, fitted.environment, fitted.history, logits, fitted.best
            )


@dataclass
class Learner:
    """What training changes: a model, its optimizer, and the moving average of its weights, if the recipe has one;
    and the trained networks that it learns from, if it has any."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None
    teachers: Teachers | None = None

    @property
    def judged(self) -> nn.Module:
        """The network that is evaluated and kept."""
        return self.model if self.average is None else self.average.module

    def step(self) -> None:
        """Change the weights by their gradient, and the moving average by the weights."""
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.model)

    def state_dict(self) -> dict:
        parts = {"model": self.model, "optimizer": self.optimizer, "average": self.average}
        return {name: part.state_dict() for name, part in parts.items() if part is not None}

    def load_state_dict(self, state: dict) -> None:
        for name, part in state.items():
            getattr(self, name).load_state_dict(part)


def make_learner(experiment: Experiment, hardware: Hardware, classes: int = len(EMOTIONS)) -> Learner:
    """A fresh one, its weights from the default generator, without teachers."""
    model = hardware.place(experiment.build_model(classes))
    optimizer = make_optimizer(model, experiment.learning_rate, experiment.recipe)
    return Learner(model, optimizer, average_weights(model, experiment.recipe))


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
    split, validation = dataset.train, dataset.validation
    if experiment.balance:
        split = balance_classes(split, experiment.upsampling, seed=seed)
    images, targets = hardware.put(split.images), make_targets(experiment, dataset, split).to(hardware.device)
    with torch.random.fork_rng():  # leave the caller's random numbers alone
        torch.manual_seed(seed)
        learner = make_learner(experiment, hardware, len(dataset.classes))
        teachers = record.find_teachers(experiment, dataset)
        if teachers:
            networks = [hardware.place(record.load_model(run)) for run in teachers]
            learner.teachers = Teachers(networks, keep=experiment.recipe.draws > 0)
        checkpoint = work / "checkpoint.pt"
        history, best = load_checkpoint(checkpoint, experiment, dataset, seed, learner)
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


def train_one_epoch(
    learner: Learner,
    images: torch.Tensor,
    targets: torch.Tensor,
    experiment: Experiment,
    hardware: Hardware,
    seed: int,
    epoch: int,
    bar: tqdm,
) -> dict[str, float]:
    """See each image once, in random order; return what was met on the way, see `Meter`.

    images: uint8 (N, 1, 48, 48) and targets: of `make_targets`, both on the device; epoch: from 1."""
    model, recipe, meter = learner.model.train(), experiment.recipe, Meter(learner.model)
    draw = recipe.find_draw(epoch)
    generator = seed_epoch(seed, draw, hardware.device)
    order = torch.randperm(len(targets), generator=generator, device=hardware.device)
    batches = [batch for batch in order.split(experiment.batch_size) if len(batch) > 1]  # batch norm needs two
    for number, batch in enumerate(batches):
        progress = (epoch - 1 + number / len(batches)) / experiment.epochs
        set_learning_rate(learner.optimizer, experiment.learning_rate, recipe, progress)
        inputs = augment_batch(make_inputs(images[batch], experiment, hardware), experiment.augmentation, generator)
        wanted, answers = targets[batch], None
        if progress < recipe.small_share:
            inputs = shrink_images(inputs)
        if recipe.mixup:
            inputs, wanted = mix_images(inputs, wanted, recipe.mixup)
        if learner.teachers:
            with hardware.autocast():
                answers = learner.teachers.ask(inputs, draw, number)
        learner.optimizer.zero_grad()
        logits, loss = run_forward(model, inputs, wanted, answers, recipe, hardware)
        loss.backward()
        if recipe.sharpness:
            with climb(model, recipe.sharpness):
                learner.optimizer.zero_grad()
                run_forward(model, inputs, wanted, answers, recipe, hardware)[1].backward()
        learner.step()
        meter.add(logits, loss, wanted)
        bar.update()
    return meter.summarise()


def run_forward(
    model: nn.Module,
    inputs: torch.Tensor,
    wanted: torch.Tensor,
    answers: torch.Tensor | None,
    recipe: Recipe,
    hardware: Hardware,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (N, 7) of inputs (N, 1, H, W), and the loss that is to fall: cross-entropy with what is wanted, and, where
    there are teachers, with their answers, both probabilities (N, 7)."""
    with hardware.autocast():
        logits = model(inputs)
    logits = logits.float()
    loss = F.cross_entropy(logits, wanted, label_smoothing=recipe.label_smoothing)
    if answers is not None:
        loss = torch.lerp(loss, F.cross_entropy(logits, answers), recipe.teaching)
    return logits, loss


class Meter:
    """What is met on the way through an epoch, summed on the device, which need not be waited for.

    In the mean over the images train_loss and train_accuracy (0-1, the likeliest class against the one that is most
    wanted); in the mean over the batches gradient_norm/<name>, the Euclidean norm, of each layer of weights."""

    def __init__(self, model: nn.Module):
        self.weights = {name: weight for name, weight in model.named_parameters() if weight.dim() > 1}
        device = next(model.parameters()).device
        self.loss, self.correct = (torch.zeros((), device=device) for _ in range(2))
        self.norms = torch.zeros(len(self.weights), device=device)
        self.images = self.batches = 0

    @torch.no_grad()
    def add(self, logits: torch.Tensor, loss: torch.Tensor, wanted: torch.Tensor) -> None:
        """Take in a batch whose gradients are still there. logits, wanted: (N, 7)."""
        self.loss += loss * len(logits)
        self.correct += (logits.argmax(1) == wanted.argmax(1)).sum()
        self.norms += torch.stack(torch._foreach_norm([weight.grad for weight in self.weights.values()]))
        self.images, self.batches = self.images + len(logits), self.batches + 1

    def summarise(self) -> dict[str, float]:
        norms = (self.norms / self.batches).tolist()
        return {
            "train_loss": self.loss.item() / self.images,
            "train_accuracy": self.correct.item() / self.images,
            **{f"gradient_norm/{name}": norm for name, norm in zip(self.weights, norms)},
        }


def get_first_gradients(runs: list[record.Run], dataset: Dataset) -> pd.DataFrame:
    """What `measure_first_gradients` gives for the seeds of one experiment's runs: read back, if these are published
    runs that it is on record for; measured anew, the last digits depend on the CPU."""
    experiment, seeds = runs[0].experiment, [run.seed for run in runs]
    published = experiment == EXPERIMENTS.get(experiment.name) and dataset.name == "fer2013"
    if published:
        with contextlib.suppress(FileNotFoundError):
            table = record.read_first_gradients()
            own = table[table["experiment"] == experiment.name].set_index("seed").filter(like="gradient_norm/")
            if set(seeds) <= set(own.index):
                return own.loc[seeds].dropna(axis=1)
    return measure_first_gradients(experiment, dataset, seeds)


def measure_first_gradients(
    experiment: Experiment, dataset: Dataset, seeds: list[int], images: int = 512
) -> pd.DataFrame:
    """What the histories of an experiment begin from: gradient_norm/<name> of each layer of weights, before
    any training, on one batch of so many random training images, in full precision. A row a seed."""
    hardware, rows = replace(choose_hardware(), precision=torch.float32), {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums of another order would differ in the third digit
    try:
        for seed in seeds:
            rows[seed] = _measure_first_gradients(experiment, dataset, seed, images, hardware)
    finally:
        torch.set_num_threads(threads)
    return pd.DataFrame.from_dict(rows, orient="index").filter(like="gradient_norm/")


def _measure_first_gradients(experiment, dataset, seed, count, hardware) -> dict[str, float]:
    chosen = np.random.default_rng(seed).permutation(len(dataset.train))[:count]
    split = replace(dataset.train, images=dataset.train.images[chosen], labels=dataset.train.labels[chosen])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = hardware.place(experiment.build_model(len(split.classes))).train()
        generator, targets = seed_epoch(seed, 0, hardware.device), one_hot(split).to(hardware.device)
        order = torch.randperm(len(split), generator=generator, device=hardware.device)
        inputs = make_inputs(hardware.put(split.images)[order], experiment, hardware)
        inputs, meter = augment_batch(inputs, experiment.augmentation, generator), Meter(model)
        logits, loss = run_forward(model, inputs, targets[order], None, experiment.recipe, hardware)
        loss.backward()
        meter.add(logits, loss, targets[order])
    return meter.summarise()


@torch.inference_mode()
def predict_logits(
    model: nn.Module, split: Split, experiment: Experiment, hardware: Hardware, view: str = "plain"
) -> np.ndarray:
    """Logits of a split in its order, float32 (N, 7): in full precision, whatever the training's.

    view: of `recipe.judge_views`."""
    model.eval()
    batches = hardware.put(split.images).split(INFERENCE_BATCH.get(hardware.device.type, 1024))
    window = experiment.augmentation.window
    logits = [judge_views(model, make_inputs(batch, experiment, hardware), view, window) for batch in batches]
    return torch.cat(logits).cpu().numpy()


def make_inputs(images: torch.Tensor, experiment: Experiment, hardware: Hardware) -> torch.Tensor:
    """What the network is given: float32 (N, 1, 48, 48), 0-1, or 0-255 where the experiment does not scale."""
    inputs = scale_pixels(images) if experiment.scale else images.float()
    return inputs.contiguous(memory_format=hardware.memory_format)


def one_hot(split: Split) -> torch.Tensor:
    """A split's labels as probabilities: float32 (N, classes)."""
    return F.one_hot(torch.from_numpy(split.labels), len(split.classes)).float()


def make_targets(experiment: Experiment, dataset: Dataset, split: Split) -> torch.Tensor:
    """What the network is to answer for each image of the training split, balanced or not: probabilities, float32
    (N, classes), all at the label, or, in an experiment with votes, shared out as FER+'s taggers did: `share_votes`."""
    if not experiment.votes:
        return one_hot(split)
    if (votes := load_votes(dataset)) is None:
        raise ValueError(
            f"{experiment.name} needs FER+'s votes: name fer2013new.csv in FER_VOTES, or put it into data/"
        )
    return torch.from_numpy(share_votes(votes, split))


def calc_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy in nats of logits, float (N, 7), and labels, int64 (N,)."""
    return F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)).item()


def seed_epoch(seed: int, epoch: int, device: torch.device) -> torch.Generator:
    """Seed the default generators (dropout) and return one for order and augmentation.

    Both depend on the seed and the epoch alone, so a checkpoint needs no generator's state."""
    default, own = np.random.SeedSequence([seed, epoch]).generate_state(2)
    torch.manual_seed(int(default))
    return torch.Generator(device).manual_seed(int(own))


def find_best(history: list[dict]) -> int:
    """The epoch, from 1, with the best validation accuracy; the first of equals."""
    return max(history, key=lambda row: (row["validation_accuracy"], -row["epoch"]))["epoch"]


def is_finished(history: list[dict], experiment: Experiment) -> bool:
    """Whether all epochs are done, or the last `patience` of them brought nothing better."""
    if not history:
        return False
    return len(history) >= experiment.epochs or len(history) - find_best(history) >= experiment.patience


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


def save_checkpoint(
    path: Path,
    experiment: Experiment,
    dataset: Dataset,
    seed: int,
    learner: Learner,
    history: list[dict],
    best: dict,
) -> None:
    """Write all that the next epoch needs; a kill at any moment leaves the old file or the new one.

    Raises StorageError if there is no room for it; the old file stays."""
    state = {
        "identity": [experiment.digest, dataset.fingerprint],
        "seed": seed,
        "learner": learner.state_dict(),
        "history": history,
        "best": best,
    }
    content = io.BytesIO()  # torch's own writer hides what the system says
    torch.save(state, content)
    partial = path.with_suffix(".new")
    with record.tell_failed_writes(path.parent):
        try:
            with partial.open("wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise


def load_checkpoint(
    path: Path, experiment: Experiment, dataset: Dataset, seed: int, learner: Learner
) -> tuple[list[dict], dict]:
    """Restore the learner from a checkpoint of this run, if there is one; return its
    history and the best epoch's weights. One of another config or data is left unused.

    Raises RecordError for a file that is damaged or no checkpoint of this run."""
    if not path.exists():
        return [], {}
    remedy = "delete it to start this run afresh"
    try:
        state = _read_checkpoint(path, next(learner.model.parameters()).device)
        if state["identity"] != [experiment.digest, dataset.fingerprint]:
            warnings.warn(f"{path} is of another config or of other data, and is left unused", stacklevel=3)
            return [], {}
        history, best = state["history"], state["best"]
        if state.get("seed", seed) != seed:  # the first checkpoints do not say
            raise ValueError(f"of seed {state['seed']}")
        if [row["epoch"] for row in history] != list(range(1, len(history) + 1)) or not find_best(history):
            raise ValueError("its history is not whole")
        if _list_shapes(best) != _list_shapes(learner.judged.state_dict()):
            raise ValueError("its best weights are of another network")
        learner.load_state_dict(state["learner"])
    except pickle.UnpicklingError:  # torch's message would advise to run what is in there
        raise record.RecordError(path, "not written by this project, and therefore not opened", remedy) from None
    except Exception as error:  # a damaged file makes zipfile and torch raise almost anything
        raise record.RecordError(path, f"damaged ({type(error).__name__}: {error})", remedy) from error
    return history, best


def _read_checkpoint(path: Path, device: torch.device) -> dict:
    """What `save_checkpoint` wrote, its bytes compared with the checksums that torch leaves in the file, and does not
    compare itself."""
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise ValueError(f"checksum of {damaged}")
    state = torch.load(path, map_location=device, weights_only=True)
    if any(tensor.isnan().any() for tensor in _list_tensors(state)):
        raise ValueError("it holds NaN")
    return state


def _list_shapes(state: dict) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


def _list_tensors(state: object) -> list[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return [state]
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list) else ()
    return [tensor for part in parts for tensor in _list_tensors(part)]


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


def make_progress_bar(experiment: Experiment, dataset: Dataset, seed: int, epochs_done: int, images: int) -> tqdm:
    """A bar on a terminal or in a notebook; none where the output goes to a file."""
    batches = -(-images // experiment.batch_size)
    notebook = hasattr(getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)(), "kernel")
    return (NotebookBar if notebook else tqdm)(
        desc=f"{experiment.name} {dataset.name} seed {seed}",
        total=batches * experiment.epochs,
        initial=batches * epochs_done,
        unit=" batches",
        mininterval=0.5,
        leave=False,
        disable=not (notebook or sys.stderr.isatty()),
        file=io.StringIO() if notebook else None,
    )


class NotebookBar(tqdm):
    """A bar that is one output of a notebook, replaced as it moves: written out, every move would be an output."""

    handle = None

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        from IPython.display import display  # here, so that training needs no notebook

        text = {"text/plain": str(self) if msg is None else msg}
        if self.handle is None:
            self.handle = display(text, raw=True, display_id=True)
        else:
            self.handle.update(text, raw=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m fer_lib.train", description="Train an experiment and record it.")
    parser.add_argument("experiment", metavar="EXPERIMENT", help=", ".join(EXPERIMENTS))
    parser.add_argument("--seed", type=int, nargs="+", default=[0], help="one run each (default: 0)")
    parser.add_argument("--data", default="auto", help="a file or folder of faces, drawn, or auto (default)")
    parser.add_argument("--epochs", type=int, help="at most so many, in place of the experiment's own")
    parser.add_argument("--wandb", default="auto", choices=MODES)
    parser.add_argument("--retrain", action="store_true", help="train although the run is on record")
    options = parser.parse_args(arguments)
    try:
        changes = {} if options.epochs is None else {"epochs": options.epochs}
        experiment = find_experiment(options.experiment, **changes)
        dataset, seeds = load_data(options.data), check_seeds(options.seed)
        for seed in seeds:
            (run,) = get_runs(experiment, dataset, [seed], options.retrain, options.wandb)
            print(describe_run(run))
    except (ValueError, RuntimeError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "\ninterrupted; the same command goes on from the last finished epoch\n")


def describe_run(run: record.Run) -> str:
    results, minutes = run.results, run.environment["seconds"] / 60
    return (
        f"{run.experiment.name} {run.data} seed {run.seed}: "
        f"best of {results['epochs']} epochs is {results['best_epoch']}, "
        f"validation {results['validation_accuracy']:.1%}, test {results['test_accuracy']:.1%}, "
        f"{minutes:.1f} min at {run.environment['images_per_second']:,} images/s; {run.folder.name} is on record"
    )


if __name__ == "__main__":
    main()
