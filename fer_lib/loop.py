"""The training loop, the same for every model."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from fer_lib.augment import augment_batch
from fer_lib.dataset import EMOTIONS, Dataset, Split
from fer_lib.experiment import Experiment
from fer_lib.hardware import Hardware, choose_hardware
from fer_lib.preprocess import balance_classes, scale_pixels, share_votes
from fer_lib.reading.votes import load_votes
from fer_lib.recipe import (
    MovingAverage,
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

INFERENCE_BATCH = {"cpu": 64}  # images; on a CPU few, so that the activations stay in its cache


@dataclass
class Learner:
    """What training changes: a model, its optimizer, and the moving average of its weights, if the recipe has one;
    and the trained networks that it learns from, if it has any."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: MovingAverage | None
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
        parts = ("model", "optimizer", *(["average"] if self.average is not None else []))
        return {name: getattr(self, name).state_dict() for name in parts}

    def load_state_dict(self, state: dict) -> None:
        for name, part in state.items():
            getattr(self, name).load_state_dict(part)


def make_learner(experiment: Experiment, hardware: Hardware, classes: int = len(EMOTIONS)) -> Learner:
    """A fresh one, its weights from the default generator, without teachers."""
    model = hardware.place(experiment.build_model(classes))
    optimizer = make_optimizer(model, experiment.learning_rate, experiment.recipe)
    return Learner(model, optimizer, average_weights(model, experiment.recipe))


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
    """Logits (N, classes) of inputs (N, 1, H, W), and the loss that is to fall: cross-entropy with what is wanted, and,
    where there are teachers, with their answers, both probabilities (N, classes)."""
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
        """Take in a batch whose gradients are still there. logits, wanted: (N, classes)."""
        self.loss += loss * len(logits)
        self.correct += (logits.argmax(1) == wanted.argmax(1)).sum()
        gradients = [weight.grad for weight in self.weights.values()]
        self.norms += torch.stack(torch._foreach_norm(gradients))  # type: ignore[arg-type]  # none is None by now
        self.images, self.batches = self.images + len(logits), self.batches + 1

    def summarise(self) -> dict[str, float]:
        norms = (self.norms / self.batches).tolist()
        return {
            "train_loss": self.loss.item() / self.images,
            "train_accuracy": self.correct.item() / self.images,
            **{f"gradient_norm/{name}": norm for name, norm in zip(self.weights, norms)},
        }


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
    """Logits of a split in its order, float32 (N, classes): in full precision, whatever the training's.

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


def choose_training_images(experiment: Experiment, dataset: Dataset, seed: int) -> Split:
    """The training split, with copies of the rarer classes' images where the experiment balances."""
    return balance_classes(dataset.train, experiment.upsampling, seed=seed) if experiment.balance else dataset.train


def one_hot(split: Split) -> torch.Tensor:
    """A split's labels as probabilities: float32 (N, classes)."""
    return F.one_hot(torch.from_numpy(split.labels), len(split.classes)).float()


def make_targets(experiment: Experiment, dataset: Dataset, split: Split) -> torch.Tensor:
    """What the network is to answer for each image of the training split, balanced or not: probabilities, float32
    (N, classes), all at the label, or, in an experiment with votes, shared out as FER+'s taggers did: `share_votes`."""
    if not experiment.votes:
        return one_hot(split)
    if (votes := load_votes(dataset)) is None:
        way = "name fer2013new.csv in FER_VOTES, or put it into data/"
        way = way if dataset.name == "fer2013" else "they are of FER2013's images alone"
        raise ValueError(f"{experiment.name} needs FER+'s votes: {way}")
    return torch.from_numpy(share_votes(votes, split))


def calc_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy in nats of logits, float (N, classes), and labels, int64 (N,)."""
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
